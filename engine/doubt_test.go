package engine

import (
	"context"
	"strings"
	"testing"
	"time"

	"mailrace/proto/message"
)

// hangsUp takes a message on the first connection, says nothing to it and is gone.
func hangsUp() func(*peer) {
	return first(func(p *peer) {
		p.greet("PIPELINING")
		p.envelope()
		p.content()
	})
}

// checkDoubt looks at the record of a delivery that is in doubt for want of a reply.
func checkDoubt(t *testing.T, r *rig, recipient string, action message.DoubtAction) {
	t.Helper()
	if got := r.record("in-doubt", recipient, 1); got.Cause != "connection" || got.Action != action.String() || got.Attempt != 1 || got.Peer == "" || got.Began == "" ||
		got.Site == "" {
		t.Errorf("%+v", got)
	}
	if n := r.doubts.totals[message.DoubtConnection].Get(); n != 1 {
		t.Errorf("%d connections were counted", n)
	}
}

func TestDoubtIsRetried(t *testing.T) {
	t.Parallel()
	f := listen(t, hangsUp())
	r := start(t, settings(t, f.route("*")))
	r.send("s@sender.example", hello, "a@far.example")
	f.next()
	checkDoubt(t, r, "a@far.example", message.DoubtRetry)
	r.awaitEmpty()
	if n := r.doubts.recipients.Load(); n != 0 {
		t.Errorf("%d recipients are in doubt at last", n)
	}
}

func TestDoubtIsGivenUp(t *testing.T) {
	t.Parallel()
	f := listen(t, hangsUp())
	c := settings(t, f.route("*"))
	c.Queue.InDoubt = "give-up"
	r := start(t, c)
	r.send("s@sender.example", hello, "a@far.example")
	got := f.next()
	if !strings.HasPrefix(got.mail, "MAIL FROM:<>") || !strings.Contains(got.content, "Status: 5.4.2") || !strings.Contains(strings.Join(strings.Fields(got.content), " "), "not known whether the message was delivered") {
		t.Errorf("%+v", got)
	}
	checkDoubt(t, r, "a@far.example", message.DoubtGiveUp)
	if got := r.record("bounce", "a@far.example", 1); got.Attempt != 1 || got.Enhanced != "5.4.2" {
		t.Errorf("%+v", got)
	}
	r.send("", hello, "a@far.example") // the peer is polite now
	f.next()
	r.awaitEmpty()
	if n := r.doubts.recipients.Load(); n != 0 {
		t.Errorf("%d recipients are in doubt at last", n)
	}
}

// TestDoubtWaits: a recipient in doubt waits across its retries, its lifetime and a restart, until somebody decides, and then until the other
// recipient of the message, which is under way, is through.
func TestDoubtWaits(t *testing.T) {
	t.Parallel()
	f := listen(t, hangsUp())
	hold := make(chan struct{})
	slow := listen(t, answering(func(_ *peer, line string) string {
		if strings.HasPrefix(line, "RCPT TO:") {
			<-hold
		}
		return ""
	}))
	c := settings(t, f.route("far.example"), slow.route("slow.example"))
	c.Queue.InDoubt = "wait"
	r := start(t, c)
	one := r.send("s@sender.example", hello, "a@far.example", "b@slow.example")
	checkDoubt(t, r, "a@far.example", message.DoubtWait)
	decide := func(want int, action message.DoubtAction, ids ...message.ID) {
		t.Helper()
		done, err := r.doubts.decide(context.Background(), ids, action)
		if err != nil || done.Recipients != want || len(done.Unknown) != 0 {
			t.Errorf("%+v, %v, want %d recipients", done, err, want)
		}
	}
	r.await("the recipient to wait", func() bool { return r.states()["a@far.example"] == "deferred" })
	for _, m := range r.queue() {
		if got := m.Recipients[0]; !got.Due.IsZero() || got.Doubt == nil || got.Doubt.Action != "wait" || got.Doubt.Cause != "connection" {
			t.Errorf("%+v", got)
		}
	}
	id, err := message.ParseID(one)
	if err != nil {
		t.Fatal(err)
	}
	decide(1, message.DoubtRetry, id) // the message is still in memory for the other
	f.none()
	close(hold)
	slow.next()
	if got := f.next(); got.peer != 2 {
		t.Errorf("connection %d", got.peer)
	}
	r.awaitEmpty()
	if n, pending := r.doubts.recipients.Load(), r.doubts.count.Load(); n != 0 || pending != 0 {
		t.Errorf("%d recipients are in doubt at last, %d decisions are left", n, pending)
	}
	if done, err := r.doubts.decide(t.Context(), []message.ID{id}, message.DoubtRetry); err != nil || len(done.Unknown) != 1 || done.Messages != 0 {
		t.Errorf("%+v, %v", done, err)
	}
}

// TestDoubtOutlivesANode: what waits is there after a restart, and past its lifetime.
func TestDoubtOutlivesANode(t *testing.T) {
	t.Parallel()
	f := listen(t, hangsUp())
	c := settings(t, f.route("*"))
	c.Queue.InDoubt = "wait"
	r := start(t, c)
	r.send("s@sender.example", hello, "a@far.example")
	r.await("the recipient to wait", func() bool { return r.states()["a@far.example"] == "deferred" })
	r.stop()
	c.Queue.RetryMin, c.Queue.RetryMax, c.Queue.Expire = 1, 1, 2 // it expired long ago
	r = start(t, c)
	r.await("the doubt to be counted", func() bool { return r.doubts.recipients.Load() == 1 })
	f.none()
	if done, err := r.doubts.decide(t.Context(), nil, message.DoubtRetry); err != nil || done.Recipients != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	if got := f.next(); !strings.Contains(got.content, "How do you do?") {
		t.Errorf("%+v", got)
	}
	r.awaitEmpty()
}

// TestDecisionOutlivesANode: what was decided holds across a stop that comes before the delivery.
func TestDecisionOutlivesANode(t *testing.T) {
	t.Parallel()
	tried := make(chan struct{}, 1)
	f := listen(t, func(p *peer) {
		switch p.number {
		case 1:
			hangsUp()(p)
		case 2: // keeps the delivery waiting until the node is gone
			p.greet("PIPELINING")
			p.want("MAIL FROM:")
			tried <- struct{}{}
			p.line()
			p.line()
			p.line()
		default:
			polite(p)
		}
	})
	c := settings(t, f.route("*"))
	c.Queue.InDoubt, c.Engine.DrainTimeout = "wait", 20*time.Millisecond
	r := start(t, c)
	r.send("s@sender.example", hello, "a@far.example")
	r.await("the recipient to wait", func() bool { return r.states()["a@far.example"] == "deferred" })
	if done, err := r.doubts.decide(t.Context(), nil, message.DoubtRetry); err != nil || done.Recipients != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	receive(t, tried)
	r.stop()
	r = start(t, c)
	if got := f.next(); !strings.Contains(got.content, "How do you do?") {
		t.Errorf("%+v", got)
	}
	r.awaitEmpty()
}

// TestDecisionWithoutRoom: a decision is taken at once, and what it sets free comes when there is room for it.
func TestDecisionWithoutRoom(t *testing.T) {
	t.Parallel()
	f := listen(t, hangsUp())
	hold := make(chan struct{})
	slow := listen(t, answering(func(_ *peer, line string) string {
		if strings.HasPrefix(line, "RCPT TO:") {
			<-hold
		}
		return ""
	}))
	c := settings(t, f.route("far.example"), slow.route("slow.example"))
	c.Queue.InDoubt, c.Queue.InMemory = "wait", 1
	r := start(t, c)
	r.send("s@sender.example", hello, "a@far.example")
	r.await("the recipient to wait", func() bool { return r.states()["a@far.example"] == "deferred" && r.router.Free() == 1 })
	r.send("s@sender.example", hello, "b@slow.example")
	r.await("the memory to be full", func() bool { return r.router.Free() == 0 })
	if done, err := r.doubts.decide(t.Context(), nil, message.DoubtRetry); err != nil || done.Recipients != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	f.none()
	close(hold)
	slow.next()
	f.next()
	r.awaitEmpty()
}
