package router

import (
	"fmt"
	"testing"
	"time"

	"mailrace/proto/message"
)

// TestRamp: a site with a long queue, as after a restart, begins with few connections and gets more as they deliver. A step is the time that a
// host takes to connect, or to answer a transaction.
func TestRamp(t *testing.T) {
	s := newSim(t, 1, 1, func(o *Options) { o.Connections = 1000 })
	s.mx("a.test", "10 mx.a.test 192.0.2.1")
	h := s.host("192.0.2.1")
	h.latency = 100 * time.Millisecond
	const n = 3000
	for i := range n {
		s.send(0, fmt.Sprintf("u%d@a.test", i))
	}
	s.run(s.latency) // the name is looked up
	open, steps := 0, ""
	for step := range 40 {
		working := 0
		for _, c := range s.conns {
			if c.n > 0 {
				working++
			}
		}
		if silent := len(s.conns) - working; silent > max(rampStart, working) {
			t.Errorf("step %d: %d connections work, and %d have yet to", step, working, silent)
		}
		if len(s.conns) != open {
			open = len(s.conns)
			steps += fmt.Sprintf(" step %d: %d (%d delivered)", step, open, len(h.got))
		}
		s.run(s.now.Sub(start) + h.latency)
	}
	t.Logf("connections:%s", steps)
	if h.most != 20 {
		t.Errorf("%d connections at most, want 20", h.most)
	}
	s.finish(n)
}

// TestRampOfASilentSite: a site that takes connections and answers nothing holds few of them.
func TestRampOfASilentSite(t *testing.T) {
	s := newSim(t, 1, 1, nil)
	s.mx("a.test", "10 mx.a.test 192.0.2.1")
	h := s.host("192.0.2.1")
	const n = 500
	for i := range n {
		s.send(0, fmt.Sprintf("u%d@a.test", i))
	}
	s.run(25 * time.Millisecond)
	h.latency = 10 * time.Minute // from the first connection on
	s.run(time.Minute)
	if h.most != rampStart {
		t.Errorf("%d connections, want %d", h.most, rampStart)
	}
	h.latency = 10 * time.Millisecond
	s.finish(n)
}

// TestStartIsNoStampede: at a start with much mail due at once, a site is handed no more than its share of the memory, over connections that grow
// as they deliver, and another site's mail behind it in the index does not wait.
func TestStartIsNoStampede(t *testing.T) {
	const limit, n = 1000, 5000
	s := newDiskSim(t, 2, limit, 1, nil)
	h := s.slowSite(1)
	h.latency = 500 * time.Millisecond
	for i := range n + 1 {
		m := s.message(fmt.Sprintf("u%d@slow.test", i))
		if i == n {
			m = s.message("last@fast.test")
		}
		m.Recipients[0].State, m.Recipients[0].Due, m.Recipients[0].Attempts = message.Deferred, s.now.UnixNano(), 1
		m.Parked = Plain(s.now.UnixNano())
		s.router.Waits(1)
		s.disk.park(m)
	}
	steps := ""
	for step := range 14 {
		s.run(s.now.Sub(start) + h.latency)
		s.disk.check()
		working := 0
		for _, c := range s.conns {
			if c.host != h {
				continue
			}
			if c.n > 0 {
				working++
			}
		}
		steps += fmt.Sprintf("; %d: %d connections, %d in memory, %d delivered", step, h.conns, s.router.room.held.Load(), len(h.got))
		if silent := h.conns - working; silent > max(rampStart, working) || s.router.room.held.Load() > limit*5/8 {
			t.Errorf("step %d: %d connections work, %d have yet to, %d recipients are in memory", step, working, silent, s.router.room.held.Load())
		}
	}
	t.Logf("step%s", steps[1:])
	if len(s.host("192.0.2.2").got) != 1 {
		t.Error("the other site waits")
	}
	s.finishDisk(n + 1)
	most, text := s.disk.written()
	t.Logf("index writes × messages: %s", text)
	if most > 6 {
		t.Errorf("written %d times", most)
	}
}
