package router

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"mailrace/proto/message"
)

// in is a time of the simulation.
func in(d time.Duration) int64 { return start.Add(d).UnixNano() }

func noJitter(o *Options) { o.Jitter = -1 }

// TestHeld: nothing is tried before the release, and the lifetime begins with it.
func TestHeld(t *testing.T) {
	s := newSim(t, 2, 1, noJitter)
	s.mx("a.test", "10 mx.test 192.0.2.1")
	s.mx("down.test", "10 down.test 192.0.2.2")
	s.host("192.0.2.2").down = true
	h := s.host("192.0.2.1")
	w := message.Wishes{Release: in(24 * time.Hour)}
	m := s.wish(0, w, "x@a.test", "y@a.test", "z@gone.test", "u@down.test")
	if n := s.router.Totals(); n.Deferred != 4 || s.budget.Used() != 0 {
		t.Errorf("%+v, %d bytes held", n, s.budget.Used())
	}
	s.wish(1, message.Wishes{Release: in(-time.Hour)}, "past@a.test")
	if r := m.Recipients[0]; r.State != message.Deferred || r.Due != w.Release || r.Attempts != 0 || r.Reply != "held until 2026-03-02 12:00:00 UTC, as its sender asked" {
		t.Errorf("%+v", r)
	}
	s.run(24*time.Hour - time.Second)
	if len(h.got) != 1 || len(s.dials) != 1 {
		t.Errorf("before the release: %v, dialled %v", h.got, s.dials)
	}
	s.finish(5)
	for address, want := range map[string]string{"x@a.test": "held@0s delivered@24h0m0s", "y@a.test": "held@0s delivered@24h0m0s", "z@gone.test": "held@0s delivered@24h0m0s", "past@a.test": "delivered@0s"} {
		if got := s.history(address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
	if got := s.history("u@down.test"); !strings.HasPrefix(got, "held@0s deferred@24h0m0s ") || !strings.HasSuffix(got, " expired@144h0m0s") {
		t.Errorf("u@down.test: %s", got)
	}
	for _, e := range s.log {
		if e.address == "x@a.test" && e.out.Attempt != map[bool]int{true: 0, false: 1}[e.out.Held] {
			t.Errorf("%+v", e.out)
		}
	}
}

// TestHeldAcrossRestart: what was read back goes on waiting, noted as held or not.
func TestHeldAcrossRestart(t *testing.T) {
	s := newSim(t, 1, 1, nil)
	s.mx("a.test", "10 mx.test 192.0.2.1")
	s.host("192.0.2.1")
	m := s.message("noted@a.test", "not-noted@a.test")
	m.Wishes = &message.Wishes{Release: in(time.Hour)}
	m.Recipients[0].State, m.Recipients[0].Due = message.Deferred, in(time.Hour)
	s.router.Dispatch(0, m)
	s.finish(2)
	for address, want := range map[string]string{"noted@a.test": "delivered@1h0m0s", "not-noted@a.test": "held@0s delivered@1h0m0s"} {
		if got := s.history(address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}

// TestDeadline: what becomes of one message with a deadline of twelve minutes, by what the host does.
func TestDeadline(t *testing.T) {
	const minutes = 12
	slow := func(h *host) { h.latency = 10 * time.Minute } // to answer the connection, and each transaction
	for name, c := range map[string]struct {
		host     func(s *sim, h *host)
		returned string // by ByReturn
		notified string // by ByNotify
	}{
		"in time": {func(*sim, *host) {}, "delivered@0s", "delivered@0s"},
		"deferred again and again": {
			func(s *sim, h *host) {
				h.reply = func(*Transaction, int) Outcome {
					if s.now.Sub(start) > 30*time.Minute {
						return delivered
					}
					return later
				}
			},
			"deferred@0s deferred@5m0s bounced@12m0s", "deferred@0s deferred@5m0s late@12m0s deferred@15m0s delivered@35m0s",
		},
		"the site is down": {
			func(s *sim, h *host) {
				h.down = true
				s.after(14*time.Minute, func() { h.down = false })
			},
			"deferred@0s deferred@5m28s bounced@12m0s", "deferred@0s deferred@5m28s late@12m0s delivered@15m28s", // behind the backoff of the site
		},
		"under way, and taken": {func(_ *sim, h *host) { slow(h) }, "delivered@20m0s", "delivered@20m0s"},
		"under way, and deferred": {
			func(_ *sim, h *host) {
				slow(h)
				h.reply = func(tx *Transaction, i int) Outcome {
					if tx.Message.Recipients[tx.Recipients[i]].Attempts == 0 {
						return later
					}
					return delivered
				}
			},
			"bounced@20m0s", "deferred@20m0s late@20m0s delivered@45m0s",
		},
		"in the queue":           {func(_ *sim, h *host) { h.latency = 20 * time.Minute }, "bounced@12m0s", "late@12m0s delivered@40m0s"},
		"the name is looked for": {func(s *sim, _ *host) { s.latency = 15 * time.Minute }, "bounced@15m0s", "late@15m0s delivered@15m0s"},
	} {
		for mode, want := range map[message.ByMode]string{message.ByReturn: c.returned, message.ByNotify: c.notified} {
			s := newSim(t, 2, 1, func(o *Options) { o.Jitter, o.SiteRetryMax = -1, 5*time.Minute })
			s.mx("a.test", "10 mx.test 192.0.2.1")
			h := s.host("192.0.2.1")
			c.host(s, h)
			s.wish(0, message.Wishes{Deadline: in(minutes * time.Minute), ByMode: mode}, "u@a.test", "v@a.test")
			s.finish(2)
			for _, address := range []string{"u@a.test", "v@a.test"} {
				if got := s.history(address); got != want {
					t.Errorf("%s, mode %d: %s, want %s", name, mode, got, want)
				}
			}
			for _, e := range s.log {
				switch o := e.out; {
				case e.state == message.Bounced && (o.Enhanced != "5.4.7" || o.Remote || !strings.HasPrefix(o.Text, "not delivered by the time that its sender set") || strings.Count(o.Text, "not delivered") != 1):
					t.Errorf("%s: %+v", name, o)
				case e.state == message.Bounced && strings.HasPrefix(name, "deferred") && !strings.HasSuffix(o.Text, "; at last: 451 4.2.0 later"):
					t.Errorf("%s: %+v", name, o)
				case o.Late && o.Enhanced != "4.4.7":
					t.Errorf("%s: %+v", name, o)
				}
			}
		}
	}
}

// TestDeadlineOfOthers: a deadline that passed before the message came was reported by who had it then; one that we reported is not reported
// again after a restart; and one that passed while we were down is.
func TestDeadlineOfOthers(t *testing.T) {
	s := newSim(t, 1, 1, noJitter)
	s.mx("a.test", "10 mx.test 192.0.2.1")
	s.host("192.0.2.1")
	s.wish(0, message.Wishes{Deadline: in(-time.Minute), ByMode: message.ByNotify}, "late-already@a.test")
	m := s.message("reported@a.test", "not-reported@a.test")
	m.Arrived = in(-time.Hour)
	m.Wishes = &message.Wishes{Deadline: in(-time.Minute), ByMode: message.ByNotify}
	for i := range m.Recipients {
		m.Recipients[i].State, m.Recipients[i].Due, m.Recipients[i].Late = message.Deferred, in(time.Hour), i == 0
	}
	s.router.Dispatch(0, m)
	s.finish(3)
	for address, want := range map[string]string{"late-already@a.test": "delivered@0s", "reported@a.test": "delivered@1h0m0s", "not-reported@a.test": "late@0s delivered@1h0m0s"} {
		if got := s.history(address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}

// TestDeadlinesInALongQueue: each message leaves the queue at its own deadline, and the others keep their order.
func TestDeadlinesInALongQueue(t *testing.T) {
	s := newSim(t, 1, 1, func(o *Options) { o.SiteConnections = 1 })
	s.mx("a.test", "10 mx.test 192.0.2.1")
	h := s.host("192.0.2.1")
	s.send(0, "first@a.test")
	s.run(time.Second)
	h.latency = time.Hour
	s.send(0, "under-way@a.test")
	s.run(2 * time.Second)
	for i := range 20 {
		at := in(time.Duration(30-i) * time.Minute)
		s.wish(0, message.Wishes{Deadline: at, ByMode: message.ByReturn, Priority: int8(i%3 - 1)}, fmt.Sprintf("%d@a.test", i))
		s.send(0, fmt.Sprintf("other%d@a.test", i))
	}
	s.run(time.Hour)
	for i := range 20 {
		if got, want := s.history(fmt.Sprintf("%d@a.test", i)), fmt.Sprintf("bounced@%dm0s", 30-i); !strings.HasPrefix(got, want[:len(want)-2]) {
			t.Errorf("%d: %s, want %s", i, got, want)
		}
	}
	h.latency = time.Second
	s.finish(42)
	for i := range 20 {
		if want := fmt.Sprintf("other%d@a.test", i); h.got[2+i] != want {
			t.Fatalf("got %v", h.got)
		}
	}
}
