package router

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"mailrace/router/pool"
)

// TestShelfOfDomainThatMoves: what was shelved follows its domain to other hosts, also while another domain keeps the old site.
func TestShelfOfDomainThatMoves(t *testing.T) {
	const many = 4000
	s := newDiskSim(t, 2, 50_000, 1, func(o *Options) { o.SiteRetryMax = 30 * time.Minute })
	s.mx("moved.test", "10 old.test 192.0.2.1")
	s.mx("stays.test", "10 old.test 192.0.2.1")
	s.host("192.0.2.1").down = true
	s.recording = false
	for i := range many {
		s.disk.accept(i%2, s.message(fmt.Sprintf("u%d@%s.test", i, []string{"moved", "stays"}[i%2])))
	}
	s.run(2 * time.Hour)
	s.mx("moved.test", "10 new.test 192.0.2.2")
	h := s.host("192.0.2.2")
	s.run(16 * time.Hour)
	if len(h.got) < many/2 {
		t.Errorf("%d of %d delivered", len(h.got), many/2)
	}
	s.host("192.0.2.1").down = false
	s.run(24 * time.Hour)
	s.finishDisk(many)
}

// TestNothingIsDueAtOnceBesideAProbe: mail for a source that is out waits for the answer to its probe, however long that takes.
func TestNothingIsDueAtOnceBesideAProbe(t *testing.T) {
	s := pooled(t, 1, "a", map[string]string{"p": "a:1"}, func(o *Options) { parking(o); o.Jitter = -1 })
	s.mx("slow.test", "10 mx.slow.test 192.0.2.1")
	s.mx("other.test", "10 mx.other.test 192.0.2.2")
	h := s.host("192.0.2.1")
	s.host("192.0.2.2")
	h.down = true
	s.send(0, "u@slow.test") // backed off for 5 minutes
	s.run(10 * time.Second)
	s.unbound = map[string]bool{"a": true}
	s.send(0, "u@other.test") // the source is out for 5 minutes
	s.run(20 * time.Second)
	s.unbound = nil
	h.down, h.latency = false, 4*time.Minute // its greeting takes long
	s.after(6*time.Minute-20*time.Second, func() { s.send(0, "v@slow.test") })
	s.run(12 * time.Minute)
	if s.parked > 100 {
		t.Errorf("%d times parked", s.parked)
	}
}

// TestSitesThatOnlyWaitedAreForgotten: a site that met nothing but the backoff of its hosts goes too.
func TestSitesThatOnlyWaitedAreForgotten(t *testing.T) {
	s := newSim(t, 1, 1, func(o *Options) { o.Expire = 4 * time.Minute; o.Jitter = -1; o.Policies = nil })
	s.mx("plain.test", "10 mx.shared.test 192.0.2.1")
	s.mx("sts.test", "10 mx.shared.test 192.0.2.1")
	s.demand("sts.test", byName)
	s.demand("plain.test", byDANE)
	h := s.host("192.0.2.1")
	h.down = true
	s.send(0, "u@plain.test")
	s.run(10 * time.Second)
	s.send(0, "u@sts.test")
	s.run(20 * time.Second)
	h.down = false
	s.run(72 * time.Hour)
	t.Logf("%+v log %d", s.router.Totals(), len(s.log))
	if n := len(s.router.schedulers[0].sites); n > 0 {
		t.Errorf("%d sites are left", n)
	}
}

// TestSecondDialGoesToTheSameAddress: what is dialed again after a failed handshake is the address that was reached.
func TestSecondDialGoesToTheSameAddress(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:25"), netip.MustParseAddrPort("[2001:db8::1]:25")
	l := &Link{address: &pool.Address{Addr: v4.Addr()}, second: &pool.Address{Addr: v6.Addr()}, target: Target{Addr: v4, Second: v6}}
	l.Reached(v4)                                    // its handshake failed; Options.dial again
	if again := l.Target(); again.Second.IsValid() { // way() races again, and the other family may win
		l.Reached(again.Second)
		if l.Target().Addr != v6 {
			t.Errorf("the connection is with %v, the link says %v", v6, l.Target().Addr)
		}
	}
}

// TestForkStaysWhileItsMessageUsesIt: also where the first pool of a message reaches none of the hosts.
func TestForkStaysWhileItsMessageUsesIt(t *testing.T) {
	s := pooled(t, 1, "a/6 b", map[string]string{"p": "a:1", "q": "b:1"}, func(o *Options) {
		o.Policies = []Policy{{Domains: []string{"second.test"}, Pool: "q"}}
	})
	s.mx("first.test", "10 mx.shared.test 192.0.2.1")
	s.mx("second.test", "10 mx.shared.test 192.0.2.1")
	s.host("192.0.2.1")
	s.send(0, "u@first.test")
	s.send(0, "u@second.test")
	s.run(3 * time.Minute)
	s.send(0, "u@first.test", "u@second.test")
	s.run(3*time.Minute + 10*time.Second)
	sc := s.router.schedulers[0]
	for k, site := range sc.sites {
		k.source = nil
		if sc.forks[k] != site.fork {
			t.Errorf("site %s belongs to a fork that is forgotten", site.name)
		}
	}
}
