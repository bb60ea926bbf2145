package engine

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestDrain stops a node that is in the middle of everything. It refuses new connections, ends idle sessions with 421 and the others behind
// their message, finishes the deliveries that are under way, and leaves the rest to the next start.
func TestDrain(t *testing.T) {
	t.Parallel()
	finish, begun := make(chan struct{}), make(chan struct{}, 10)
	f := listen(t, answering(func(p *peer, line string) string {
		if line == "." {
			begun <- struct{}{}
			<-finish
		}
		return ""
	}))
	c := settings(t, f.route("*"))
	c.Egress.Connections = 1
	r := start(t, c)
	address := r.Addr(0).String()
	idle, ehlo, inMail, inData := r.dial(), r.dial(), r.dial(), r.dial()
	for _, d := range []*dialog{ehlo, inMail, inData} {
		d.say("EHLO client.example", 250)
	}
	inMail.say("MAIL FROM:<s@sender.example>", 250)
	inData.say("MAIL FROM:<s@sender.example>", 250)
	inData.say("RCPT TO:<data@far.example>", 250)
	inData.say("DATA", 354)
	inData.send("Subject: begun before the end\r\n")
	for i := range 4 {
		r.send("s@sender.example", text(i, 100), fmt.Sprintf("%d@far.example", i))
	}
	receive(t, begun)

	r.cancel()
	for _, d := range []*dialog{idle, ehlo} {
		if reply := d.expect(421); !strings.HasPrefix(reply, "421 4.3.2 ") {
			t.Errorf("%q", reply)
		}
		d.end()
	}
	if conn, err := net.Dial("tcp", address); err == nil {
		t.Error("the node still takes connections")
		conn.Close()
	}
	inMail.say("RSET", 250)
	inMail.expect(421)
	inMail.end()
	id := queued(t, inData.say("\r\nand finished behind it\r\n.", 250))
	inData.expect(421)
	inData.end()
	select {
	case err := <-r.ended:
		t.Errorf("the node ended with a delivery under way: %v", err)
	default:
	}
	close(finish)
	if err := receive(t, r.ended); err != nil {
		t.Error(err)
	}
	r.cancel = nil

	seen := map[string]int{}
	taken := len(f.mail)
	if taken == 0 {
		t.Error("the delivery under way was not finished")
	}
	for range taken {
		seen[f.next().to[0]]++
	}
	r = start(t, c)
	for range 5 - taken {
		l := f.next()
		if seen[l.to[0]]++; l.to[0] == "data@far.example" && !strings.Contains(l.content, id) {
			t.Errorf("%s: %q", id, l.content)
		}
	}
	for _, to := range []string{"0@far.example", "1@far.example", "2@far.example", "3@far.example", "data@far.example"} {
		if seen[to] != 1 {
			t.Errorf("%s arrived %d times", to, seen[to])
		}
	}
	r.awaitEmpty()
	f.none()
}

// TestDrainLimit gives up transactions that take longer than the limit. What was not acknowledged is the sender's, the rest is in the spool.
func TestDrainLimit(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{}, 1)
	f := listen(t, first(func(p *peer) {
		p.greet("PIPELINING")
		p.envelope()
		begun <- struct{}{}
		p.gone()
	}))
	c := settings(t, f.route("*"))
	c.Engine.DrainTimeout = 50 * time.Millisecond
	r := start(t, c)
	r.send("s@sender.example", hello, "a@far.example")
	receive(t, begun)
	d := r.dial()
	d.say("EHLO client.example", 250)
	d.say("MAIL FROM:<s@sender.example>", 250)
	r.stop()
	d.end()
	r = start(t, c)
	f.next()
	r.awaitEmpty()
}

// TestNothingIsLeft runs nodes, with connections open in both directions at their end, and looks for goroutines and files that outlive them.
// It runs alone.
func TestNothingIsLeft(t *testing.T) {
	f := listen(t, polite)
	once := func() {
		c := settings(t, f.route("*"))
		c.Admin.Address = "127.0.0.1:0"
		c.Engine.DrainTimeout = 20 * time.Millisecond
		r := start(t, c)
		d := r.dial()
		d.say("EHLO client.example", 250)
		d.say("MAIL FROM:<s@sender.example>", 250)
		r.send("s@sender.example", hello, "a@far.example")
		f.next()
		r.stop()
		d.end()
	}
	once() // what the runtime and the libraries keep for good is there now
	goroutines, files := strangers(), openFiles(t)
	for range 3 {
		once()
	}
	limit, look := time.After(patience), time.NewTicker(5*time.Millisecond)
	defer look.Stop()
	for {
		left, open := strangers(), openFiles(t)
		if len(left) <= len(goroutines) && len(open) <= len(files) {
			return
		}
		select {
		case <-look.C:
		case <-limit:
			t.Fatalf("left over: files %v, were %v; %d goroutines, were %d:\n%s", open, files, len(left), len(goroutines), strings.Join(left, "\n\n"))
		}
	}
}

// strangers are the goroutines that this test and its far server did not start.
func strangers() (list []string) {
	buf := make([]byte, 4<<20)
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if !strings.Contains(g, "testing.tRunner") && !strings.Contains(g, "engine.(*peer)") && !strings.Contains(g, "engine.(*far)") {
			list = append(list, g)
		}
	}
	return list
}

// openFiles are the open descriptors of the process.
func openFiles(t *testing.T) (list []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			list = append(list, to)
		}
	}
	slices.Sort(list)
	return list
}

// TestEndBeforeRun stops a node before it ran.
func TestEndBeforeRun(t *testing.T) {
	t.Parallel()
	n, err := New(settings(t), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := n.Run(ctx); err != nil {
		t.Error(err)
	}
	if _, err := n.Submit(context.Background(), Mail{From: "s@sender.example", To: []string{"a@far.example"}, Content: []byte(hello)}); err == nil {
		t.Error("a node that ended takes mail")
	}
}
