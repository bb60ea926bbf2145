package router

import (
	"fmt"
	"testing"
	"time"
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
