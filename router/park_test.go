package router

import (
	"math/rand/v2"
	"testing"
	"time"

	"mailrace/proto/message"
	"mailrace/router/schedule"
)

func parking(o *Options) { o.Jitter, o.Park, o.SiteRetryMax = -1, true, 5*time.Minute }

// TestParking: a message leaves the router as soon as nothing of it is under way and something waits, comes back when it is due, and is counted
// as deferred all the while.
func TestParking(t *testing.T) {
	for name, c := range map[string]struct {
		host    func(s *sim, slow *host)
		wishes  *message.Wishes
		history map[string]string
		away    []int // messages parked after 1, 7 and 17 minutes
	}{
		"deferred together": {
			history: map[string]string{"a@a.test": "deferred@0s deferred@5m0s delivered@15m0s", "b@a.test": "deferred@0s deferred@5m0s delivered@15m0s"},
			away:    []int{1, 1, 0},
		},
		"one deferred, one settled later, on another loop": {
			host:    func(s *sim, slow *host) { slow.latency = 8 * time.Minute },
			history: map[string]string{"a@a.test": "deferred@0s deferred@5m0s delivered@15m0s", "slow@slow.test": "delivered@16m0s"},
			away:    []int{0, 0, 0}, // the wheel tries the first again as long as the other is under way
		},
		"one deferred, and settled last": {
			host:    func(s *sim, slow *host) { slow.latency = 90 * time.Second },
			history: map[string]string{"a@a.test": "deferred@0s deferred@5m0s delivered@15m0s", "slow@slow.test": "delivered@3m0s"},
			away:    []int{0, 1, 0},
		},
		"different dues": {
			host: func(s *sim, slow *host) {
				slow.latency = 3 * time.Minute
				slow.reply = func(tx *Transaction, i int) Outcome {
					if tx.Message.Recipients[tx.Recipients[i]].Attempts < 1 {
						return later
					}
					return delivered
				}
			},
			history: map[string]string{"a@a.test": "deferred@0s deferred@5m0s delivered@15m0s", "slow@slow.test": "deferred@6m0s delivered@17m0s"},
			away:    []int{0, 1, 0},
		},
		"held": {
			wishes:  &message.Wishes{Release: in(6 * time.Minute)},
			history: map[string]string{"a@a.test": "held@0s deferred@6m0s deferred@11m0s delivered@21m0s"},
			away:    []int{1, 1, 1},
		},
		"reported at its deadline, and tried again later": {
			wishes:  &message.Wishes{Deadline: in(6 * time.Minute), ByMode: message.ByNotify},
			history: map[string]string{"a@a.test": "deferred@0s deferred@5m0s late@6m0s delivered@15m0s"},
			away:    []int{1, 1, 0},
		},
		"returned at its deadline": {
			wishes:  &message.Wishes{Deadline: in(6 * time.Minute), ByMode: message.ByReturn},
			history: map[string]string{"a@a.test": "deferred@0s deferred@5m0s bounced@6m0s"},
			away:    []int{1, 0, 0},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim(t, 4, 1, parking)
			s.mx("a.test", "10 mx.a.test 192.0.2.1")
			s.mx("slow.test", "10 mx.slow.test 192.0.2.2")
			s.host("192.0.2.1").reply = func(tx *Transaction, i int) Outcome {
				if tx.Message.Recipients[tx.Recipients[i]].Attempts < 2 {
					return later
				}
				return delivered
			}
			slow := s.host("192.0.2.2")
			if c.host != nil {
				c.host(s, slow)
			}
			var to []string
			for _, address := range []string{"a@a.test", "b@a.test", "slow@slow.test"} {
				if c.history[address] != "" {
					to = append(to, address)
				}
			}
			m := s.message(to...)
			m.Wishes = c.wishes
			s.dispatch(0, m)
			for i, at := range []time.Duration{time.Minute, 7 * time.Minute, 17*time.Minute + 10*time.Second} {
				s.run(at)
				if s.away != c.away[i] {
					t.Errorf("after %v: %d parked, want %d", at, s.away, c.away[i])
				}
				if n := s.router.Totals(); s.away > 0 && (n.Deferred == 0 || n.Queued+n.InFlight+n.Resolving > 0) {
					t.Errorf("after %v: %+v", at, n)
				}
			}
			s.finish(len(to))
			for address, want := range c.history {
				if got := s.history(address); got != want {
					t.Errorf("%s: %s, want %s", address, got, want)
				}
			}
		})
	}
}

// TestParkedMessagesLeaveNothing: what waits on the wheel does not keep a message in memory that is parked, and comes to nothing.
func TestParkedMessagesLeaveNothing(t *testing.T) {
	s := newSim(t, 2, 3, parking)
	s.mx("a.test", "10 mx.a.test 192.0.2.1")
	s.mx("b.test", "10 mx.b.test 192.0.2.2")
	s.host("192.0.2.1").reply = func(*Transaction, int) Outcome { return later }
	s.host("192.0.2.2").latency = time.Minute // so that others wait for it, on the wheel
	random := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		s.send(random.IntN(2), "x@a.test", "y@b.test")
	}
	s.run(4 * time.Minute)
	for _, sched := range s.router.schedulers {
		if sched.wheel.Len() > 0 {
			sched.wheel.Advance(s.now.Add(time.Hour).UnixNano(), func(n *schedule.Node[deferral]) {
				if m := n.Value.ticket.Message(); m != nil && m.Recipients == nil {
					t.Error("a message that left is still held")
				}
			})
		}
	}
	if s.away == 0 {
		t.Error("nothing is parked")
	}
}
