package router

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"mailrace/proto/message"
)

// TestConservation sends 100,000 messages, some to several recipients, to 1,000 sites that refuse, defer, break, go down and come back, and
// asserts that each recipient is settled exactly once (sim.settle fails on a second time), that content is given back, that limits
// hold, and that only connections that broke after the dot gave a second delivery.
func TestConservation(t *testing.T) {
	messages, sites := 100_000, 1000
	if testing.Short() || raceDetector { // the simulator is one goroutine: TestLoopsInParallel is for the detector
		messages, sites = 10_000, 100
	}
	for _, seed := range []uint64{1, 2, 3} {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { conserve(t, seed, messages, sites) })
		messages /= 4
	}
}

func conserve(t *testing.T, seed uint64, messages, sites int) {
	s := newSim(t, 4, seed, func(o *Options) {
		o.SiteConnections, o.Connections, o.Recipients, o.Messages, o.Expire = 5, 800, 4, 50, 24*time.Hour
		o.Tight = func() bool { return seed == 2 }
		o.Park = seed != 2
	})
	s.recording = false
	r := rand.New(rand.NewPCG(seed, 5))
	for i := range sites {
		at := func(k int) string { return fmt.Sprintf("192.%d.%d.%d", i>>8, i&255, k) }
		name := func(k int) string { return fmt.Sprintf("mx%d-%d", i, k) }
		for d := range 2 { // two domains at each site
			s.mx(fmt.Sprintf("d%d-%d.test", i, d), "10 "+name(1)+" "+at(1)+" "+at(2), "20 "+name(3)+" "+at(3), "20 "+name(4)+" "+at(4))
		}
		for k := 1; k <= 4; k++ {
			if h := s.host(at(k)); i%3 == 0 {
				h.limits = Limits{Messages: r.IntN(5), Recipients: r.IntN(3), Domains: r.IntN(3)}
			}
			if randomHost(s, s.host(at(k)), r); i%40 == 0 { // its mail expires
				s.host(at(k)).latency, s.host(at(k)).reply, s.host(at(k)).breaks = time.Second, nil, func(int, *Transaction) fate { return says421 }
			}
		}
	}
	recipients, taken := 0, map[string]int{}
	for n := range messages {
		site := int(float64(sites) * r.Float64() * r.Float64())
		var to []string
		for k := range 1 + r.IntN(3)*r.IntN(4) {
			if k > 0 && r.IntN(3) == 0 {
				site = r.IntN(sites)
			}
			to = append(to, fmt.Sprintf("%d.%d@d%d-%d.test", n, k, site, r.IntN(2)))
		}
		recipients += len(to)
		at := r.Int64N(int64(time.Hour))
		w := randomWishes(r, at)
		s.after(time.Duration(at), func() {
			if w == nil {
				s.send(n%4, to...)
			} else {
				s.wish(n%4, *w, to...)
			}
		})
	}
	s.finish(recipients)
	if s.most[""] > 800 {
		t.Errorf("%d connections at once", s.most[""])
	}
	for site, n := range s.most {
		if site != "" && n > 5 {
			t.Errorf("%s: %d connections at once", site, n)
		}
	}
	for _, h := range s.hosts {
		for _, address := range h.got {
			if taken[address]++; taken[address] > 1 {
				t.Fatalf("%s delivered twice", address) // the script takes nothing on a connection that breaks
			}
		}
	}
	st := func(name string) int64 {
		for _, f := range append(gauges, counters...) {
			if f.name == name {
				return s.router.sum(f.of)
			}
		}
		t.Fatalf("no figure %s", name)
		return 0
	}
	if d := st(`mailrace_router_outcomes_total{outcome="delivered"}`); int(d) != len(taken) {
		t.Errorf("%d delivered, hosts took %d", d, len(taken))
	}
	if (s.parked > 0) != s.router.opts.Park {
		t.Errorf("%d messages left the router", s.parked)
	}
	if st(`mailrace_router_outcomes_total{outcome="expired"}`) == 0 {
		t.Error("nothing expired")
	}
	t.Logf("%d messages, %d recipients: %d delivered, %d bounced, %d expired, %d deferrals, %d requeued, %d in doubt, %d dials, %d site failures",
		messages, recipients, st(`mailrace_router_outcomes_total{outcome="delivered"}`), st(`mailrace_router_outcomes_total{outcome="bounced"}`),
		st(`mailrace_router_outcomes_total{outcome="expired"}`), st(`mailrace_router_outcomes_total{outcome="deferred"}`),
		st(`mailrace_router_transactions_requeued_total`), st(`mailrace_router_transactions_in_doubt_total`), st(`mailrace_router_dials_total`),
		st(`mailrace_router_site_failures_total`))
}

// randomWishes are what the sender of one message in five asks for.
func randomWishes(r *rand.Rand, at int64) *message.Wishes {
	if r.IntN(5) > 0 {
		return nil
	}
	hours := func(n int64) int64 { return in(time.Duration(at + r.Int64N(n*int64(time.Hour)))) }
	w := &message.Wishes{ByMode: message.ByMode(r.IntN(3)), Priority: int8(r.IntN(19) - 9)}
	if r.IntN(2) == 0 {
		w.Release = hours(6)
	}
	if w.ByMode != message.ByNone {
		w.Deadline = max(hours(12), w.Release)
	}
	return w
}

// randomHost gives a host a temper.
func randomHost(s *sim, h *host, r *rand.Rand) {
	h.latency = time.Duration(1+r.IntN(400)) * time.Millisecond
	h.window = 1 + r.IntN(4)*r.IntN(5)
	defers, bounces, breaks := r.IntN(20), r.IntN(5), r.IntN(6)
	h.reply = func(*Transaction, int) Outcome {
		switch n := r.IntN(100); {
		case n < defers:
			return later
		case n < defers+bounces:
			return never
		}
		return delivered
	}
	h.breaks = func(int, *Transaction) fate {
		if r.IntN(100) < breaks {
			return fate(1 + r.IntN(4))
		}
		return fine
	}
	switch r.IntN(10) {
	case 0:
		h.down = true
	case 1:
		h.banner = &busy
	}
	if r.IntN(3) > 0 { // what is down comes back, what is up goes down for a while
		s.after(time.Duration(r.Int64N(int64(2*time.Hour))), func() { h.down, h.banner = !h.down, nil })
		s.after(time.Duration(r.Int64N(int64(20*time.Hour))), func() { h.down = false })
	}
}
