package engine

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mailrace/engine/config"
	"mailrace/engine/inject"
)

// bar makes a store of a spool wait while it is opened, until lift is called: a pipe stands where it reads what its options were.
func bar(t *testing.T, c *config.Config) (lift func(options string)) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(c.Spool.Path, "shard-001", "OPTIONS-*"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	options, err := os.ReadFile(names[0])
	if err = errors.Join(err, os.Remove(names[0])); err == nil {
		err = unix.Mkfifo(names[0], 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func(other string) {
		t.Helper()
		if other != "" {
			options = []byte(other)
		}
		if err := os.WriteFile(names[0], options, 0); err != nil {
			t.Error(err)
		}
	}
}

// TestListenWhileOpening: a node whose spool takes its time to open listens and takes mail, over all doors, with keys and without. It says that it is
// not ready, answers when the spool is open, and goes on with what was there before.
func TestListenWhileOpening(t *testing.T) {
	t.Parallel()
	f := listen(t, polite)
	silent := listen(t, func(p *peer) { <-t.Context().Done() })
	c := injecting(t, silent.route("silent.example"), f.route("*"))
	c.Idempotency.Header = "X-Key"
	r := start(t, c)
	before := map[string]bool{}
	for range 10 {
		before[r.send("s@sender.example", hello, "a@silent.example")] = true
	}
	d := r.dial()
	d.say("EHLO client.example", 250)
	first := d.mail("MAIL FROM:<s@sender.example>", "X-Key: k\r\n\r\none\r\n", "a@far.example")
	f.next()
	r.stop()

	lift := bar(t, c)
	r = start(t, c)
	if code := r.readiness(); code != http.StatusServiceUnavailable {
		t.Errorf("readiness: %d", code)
	}
	mail := []*dialog{r.dial(), r.dial(), r.dial(), r.dial(), r.dial()}
	for i, content := range []string{hello, noise(300<<10, 1), "X-Key: k\r\n\r\nthe first again\r\n", "X-Key: new\r\n\r\ntwo\r\n", "X-Key: new\r\n\r\ntwo again\r\n"} {
		d := mail[i]
		d.say("EHLO client.example", 250)
		d.say("MAIL FROM:<s@sender.example>", 250)
		d.say("RCPT TO:<b@far.example>", 250)
		d.say("DATA", 354)
		d.send(stuff(content) + ".\r\n")
	}
	letters := make(chan inject.Answer, 1)
	go func() {
		_, a := r.post("/v1/messages", `{"envelope":{"from":"s@shop.example","to":["c@far.example"]},"text":"over HTTP"}`)
		letters <- a
	}()
	f.none() // of the mail that is on its way in
	lift("")
	ids := map[string]bool{}
	for i, d := range mail {
		id := queued(t, d.expect(250))
		if i == 2 {
			if id != first {
				t.Errorf("the first again is %s, want %s", id, first)
			}
			continue
		}
		if before[id] || id == first {
			t.Errorf("%s was used before", id)
		}
		ids[id] = true
		d.say("QUIT", 221)
	}
	if id := receive(t, letters).Recipients[0].ID; id == "" || ids[id] {
		t.Errorf("over HTTP: %q", id)
	}
	if len(ids) != 3 {
		t.Errorf("%d new messages, want 3", len(ids))
	}
	for range 4 {
		f.next()
	}
	r.await("readiness", func() bool { return r.readiness() == http.StatusOK })
	r.await("what was there before", func() bool { return r.stats.recovered.Get() == 10 && r.Status().Queue == 10 })
	f.none()
}

// TestStopWhileOpeningOnFullDisk: a node that waits for room to open its spool ends when it is told to.
func TestStopWhileOpeningOnFullDisk(t *testing.T) {
	t.Parallel()
	dir := onSmallDisk(t, "size=64m")
	if dir == "" {
		return
	}
	c := settings(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToDiscard}})
	c.Spool.Path, c.Spool.Reserve = filepath.Join(dir, "spool"), 0
	start(t, c).stop()
	filler{t, dir}.brim()
	n, err := New(c, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Node: n, t: t}
	r.await("a wait for room", n.store.Full)
	select {
	case <-n.stored:
		t.Error("there was room")
	default:
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	_ = receive(t, ended) // or why it could not be opened
}

// TestOpeningFails ends a node that listens already when its spool turns out to be beyond it, and answers for nothing.
func TestOpeningFails(t *testing.T) {
	t.Parallel()
	c := settings(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToDiscard}})
	start(t, c).stop()
	lift := bar(t, c)
	n, err := New(c, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- n.Run(t.Context()) }()
	r := &rig{Node: n, t: t}
	d := r.dial()
	d.say("EHLO client.example", 250)
	d.say("MAIL FROM:<s@sender.example>", 250)
	d.say("RCPT TO:<b@far.example>", 250)
	d.say("DATA", 354)
	d.send(stuff(hello) + ".\r\n")
	lift("[Options]\n  comparer=another\n")
	err = receive(t, ended)
	if err == nil || !strings.HasPrefix(err.Error(), "opening the spool: spool "+c.Spool.Path+": shard 1 of 2: ") {
		t.Errorf("ended with %v", err)
	}
	if err := n.close(); err != nil {
		t.Error(err)
	}
	if rest, _ := io.ReadAll(d.r); strings.Contains(string(rest), "queued") {
		t.Errorf("%q", rest)
	}
}
