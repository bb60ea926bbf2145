package engine

import (
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"mailrace/engine/config"
	"mailrace/proto/message"
	"mailrace/spool"
)

// TestRecovery stops a node again and again with a message whose recipients are delivered, refused and deferred. Only those that are not
// settled are tried afterwards, and reading the spool twice gives the same (P2, P8).
func TestRecovery(t *testing.T) {
	t.Parallel()
	var up atomic.Bool
	one := listen(t, polite)
	two := listen(t, answering(func(p *peer, line string) string {
		switch {
		case strings.HasPrefix(line, "RCPT TO:<never@"):
			return "550 5.1.1 no such user"
		case strings.HasPrefix(line, "RCPT") && !up.Load():
			return "450 4.2.0 later"
		}
		return ""
	}))
	c := settings(t, one.route("one.example", "sender.example"), two.route("two.example"))
	r := start(t, c)
	id := r.send("s@sender.example", hello, "a@one.example", "b@two.example", "c@two.example", "never@two.example")
	for _, to := range []string{"a@one.example", "s@sender.example"} {
		if l := one.next(); l.to[0] != "a@one.example" && l.to[0] != "s@sender.example" {
			t.Errorf("%s: %v", to, l.to)
		}
	}
	attempts := 0
	for round := range 3 {
		r.record("deferral", "b@two.example", attempts+1)
		r.record("deferral", "c@two.example", attempts+1)
		r.await("the states to be in the spool", func() bool {
			s := r.states()
			return s["a@one.example"] == "delivered" && s["never@two.example"] == "bounced" && s["b@two.example"] == "deferred" && len(r.queue()) == 1
		})
		r.stop()
		attempts = len(r.records("deferral")) / 2
		before, again := inSpool(t, c), inSpool(t, c)
		if !reflect.DeepEqual(before, again) {
			t.Errorf("round %d: read twice:\n%+v\n%+v", round, before, again)
		}
		if len(before) != 1 || before[0].ID.String() != id || len(before[0].Recipients) != 4 {
			t.Fatalf("round %d: spool: %+v", round, before)
		}
		for i, want := range []message.State{message.Delivered, message.Deferred, message.Deferred, message.Bounced} {
			if got := before[0].Recipients[i]; got.State != want || want == message.Deferred && got.Reply != "450 4.2.0 later" {
				t.Errorf("round %d: %+v, want %v", round, got, want)
			}
		}
		if round == 2 {
			up.Store(true)
		}
		r = start(t, c)
	}
	got := map[string]bool{}
	for len(got) < 2 {
		l := two.next()
		for _, to := range l.to {
			got[to] = true
		}
		if content := withoutTrace(t, l.content); content != hello {
			t.Errorf("content %q", content)
		}
	}
	if !got["b@two.example"] || !got["c@two.example"] {
		t.Errorf("delivered to %v", got)
	}
	r.awaitEmpty()
	one.none()
	two.none()
	if e := r.record("delivery", "b@two.example", 1); e.Attempt < attempts+1 {
		t.Errorf("attempts are not counted on: %+v after %d", e, attempts)
	}
	if n := len(r.records("delivery")); n != 4 {
		t.Errorf("%d deliveries, want 3 and that of the DSN", n)
	}
}

// inSpool reads the spool of a node that is not running, as its next start would.
func inSpool(t *testing.T, c *config.Config) (found []*message.Message) {
	t.Helper()
	s, err := spool.Open(spool.Options{Path: c.Spool.Path, Sync: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Recover(func(m *message.Message, _ bool) error {
		found = append(found, m)
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	return found
}

// TestDeliveryFromSpool delivers after a restart what never was in memory of the new node, small, empty and large: trace header and content
// are what they would have been.
func TestDeliveryFromSpool(t *testing.T) {
	t.Parallel()
	var up atomic.Bool
	f := listen(t, func(p *peer) {
		if up.Load() {
			polite(p)
			return
		}
		p.gone() // never greets: the message stays pending
	})
	c := settings(t, f.route("*"))
	r := start(t, c)
	contents := []string{hello, "", noise(100<<10, 1), noise(3<<20, 2), ".\r\n", "..\r\n.\r\n"}
	ids := map[string]string{}
	for _, content := range contents {
		ids[r.send("s@sender.example", content, "a@far.example")] = content
	}
	r.stop()
	up.Store(true)
	r = start(t, c)
	r.await("all to be recovered", func() bool { return r.stats.recovered.Get() == uint64(len(contents)) })
	for range contents {
		l := f.next()
		trace := l.content[:len(l.content)-len(withoutTrace(t, l.content))]
		fields := strings.Fields(trace)
		for i, word := range fields {
			if word == "id" {
				if want, ok := ids[fields[i+1]]; !ok || l.content[len(trace):] != want {
					t.Errorf("%s: %.200q, want %.200q", fields[i+1], l.content[len(trace):], want)
				}
				delete(ids, fields[i+1])
			}
		}
		if !strings.Contains(trace, "\tby mta.test.example with ESMTP id ") || !strings.Contains(trace, "\tfor <a@far.example>; ") {
			t.Errorf("trace header %q", trace)
		}
	}
	if len(ids) != 0 {
		t.Errorf("missing: %v", ids)
	}
	r.awaitEmpty()
	f.none()
}
