package ingress

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/proto/message"
	"mailrace/spool"
)

func claiming(d *Door, _ *shelf) { d.Claims = NewClaims(time.Hour, 1000, new(metrics.Counter)) }

func claimingHeld(d *Door, s *shelf) {
	claiming(d, s)
	hold(d, s)
}

// label gives the transaction under way of a client its labels.
func (r *rig) label(c *client, tenant, key string) {
	r.t.Helper()
	found := make(chan bool, 1)
	l := r.group.Loops()[0]
	l.Post(func() {
		for s := range r.door.rooms[0].sessions {
			if s.remote == c.LocalAddr().(*net.TCPAddr).AddrPort() {
				s.tx.tenant, s.tx.key = tenant, key
				found <- true
			}
		}
		close(found)
	})
	if !receive(r.t, found) {
		r.t.Fatal("no such session")
	}
}

// inject sends a message with a key, as far as the end of data.
func (r *rig) inject(c *client, tenant, key, content string) {
	r.t.Helper()
	c.envelope()
	r.label(c, tenant, key)
	c.send(content + ".\r\n")
}

// reset ends the connection so that a server that is not reading learns of it.
func (c *client) reset() {
	c.t.Helper()
	if err := c.SetLinger(0); err != nil {
		c.t.Fatal(err)
	}
	c.Close()
}

// queuedAs is the id of the message of a 250.
func (c *client) queuedAs() string {
	c.t.Helper()
	id, ok := strings.CutPrefix(strings.TrimSpace(c.expect(250)), "250 2.0.0 Ok: queued as ")
	if _, err := message.ParseID(id); !ok || err != nil {
		c.t.Fatalf("no id in the reply: %q, %v", id, err)
	}
	return id
}

// TestRepeatedInjection gets the reply of the first, and is not queued again, whatever its content.
func TestRepeatedInjection(t *testing.T) {
	t.Parallel()
	r := open(t, claiming)
	c := r.greet()
	r.inject(c, "shop", "order 77", "Subject: x\r\n\r\nfirst\r\n")
	first := c.queuedAs()
	receive(t, r.accepted)
	for _, content := range []string{"Subject: x\r\n\r\nfirst\r\n", "Subject: y\r\n\r\nsecond\r\n", lines(5 * message.ChunkSize)} {
		r.inject(c, "shop", "order 77", content)
		if id := c.queuedAs(); id != first {
			t.Errorf("%d octets: queued as %s, the first as %s", len(content), id, first)
		}
	}
	if appended, _, aborted := r.store.counts(); appended != 1 || aborted != 1 || r.door.Stats.Repeated.Get() != 3 {
		t.Errorf("%d appended, %d aborted, %d repeated", appended, aborted, r.door.Stats.Repeated.Get())
	}
	for _, other := range [][2]string{{"", "order 77"}, {"shop", "order 78"}, {"", ""}, {"", ""}} {
		r.inject(c, other[0], other[1], "Subject: x\r\n\r\nother\r\n")
		if id := c.queuedAs(); id == first {
			t.Errorf("%q: repeated", other)
		}
		receive(t, r.accepted)
	}
	c.say("QUIT", 221)
	c.end()
	r.awaitQuiet()
}

// TestInjectionsAtTheSameTime wait for the first, and get its reply.
func TestInjectionsAtTheSameTime(t *testing.T) {
	t.Parallel()
	r := open(t, claimingHeld)
	a, b, gone := r.greet(), r.greet(), r.greet()
	r.inject(a, "", "k", lines(100))
	op := receive(t, r.store.held)
	if op.Claim.Key != spool.NewClaimKey("", "k") || op.Claim.Expires == 0 {
		t.Errorf("the claim does not come with the message: %+v", op.Claim)
	}
	r.inject(gone, "", "k", lines(100))
	r.inject(b, "", "k", lines(100))
	r.await("the others to wait", func() bool { return r.waiting("k") == 2 })
	gone.reset()
	r.await("the end of a session", func() bool { return r.sessions() == 2 })
	a.silent()
	b.silent()
	r.store.complete(op, nil)
	if one, two := a.queuedAs(), b.queuedAs(); one != two {
		t.Errorf("queued as %s and %s", one, two)
	}
	receive(t, r.accepted)
	a.Close()
	b.Close()
	r.awaitQuiet()
	if appended, _, _ := r.store.counts(); appended != 1 {
		t.Errorf("%d appended", appended)
	}
}

// TestInjectionAfterAFailure goes on by itself when the first fails, though its client may be gone.
func TestInjectionAfterAFailure(t *testing.T) {
	t.Parallel()
	r := open(t, claimingHeld)
	a, b, gone := r.greet(), r.greet(), r.greet()
	r.inject(a, "", "k", lines(100))
	op := receive(t, r.store.held)
	r.inject(gone, "", "k", "Subject: gone\r\n\r\n")
	r.await("one to wait", func() bool { return r.waiting("k") == 1 })
	r.inject(b, "", "k", "Subject: b\r\n\r\n")
	r.await("two to wait", func() bool { return r.waiting("k") == 2 })
	gone.reset()
	r.await("the end of a session", func() bool { return r.sessions() == 2 })
	r.store.complete(op, spool.ErrClosed)
	a.expect(451)
	op = receive(t, r.store.held)
	r.store.complete(op, spool.ErrClosed)
	op = receive(t, r.store.held)
	want := op.Append.ID.String()
	r.store.complete(op, nil)
	if id := b.queuedAs(); id != want {
		t.Errorf("queued as %s, is %s", id, want)
	}
	if m := receive(t, r.accepted); m.content != "Subject: b\r\n\r\n" {
		t.Errorf("accepted %q", m.content)
	}
	r.inject(a, "", "k", lines(100))
	if id := a.queuedAs(); id != want {
		t.Errorf("queued as %s, the one that was stored is %s", id, want)
	}
	a.Close()
	b.Close()
	r.awaitQuiet()
}

// waiting is how many wait for the owner of a key.
func (r *rig) waiting(key string) (n int) {
	k := spool.NewClaimKey("", key)
	sh := r.door.Claims.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for w := sh.pending[k]; w != nil; w = w.next {
		n++
	}
	return n
}
