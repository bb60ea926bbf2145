package router

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mailrace/router/mx"
)

// demand makes a domain demand something of each of its hosts, as engine/policy answers.
func (s *sim) demand(domain string, d mx.Demand) {
	a := *s.domains[domain]
	a.Records = &mx.Records{Key: a.Key, Hash: a.Hash}
	for range a.Hosts {
		a.Records.Demands = append(a.Records.Demands, d)
	}
	a.Key += "/" + d.Kind.String()
	a.Hash = a.Hash*31 + uint64(d.Kind)
	s.domains[domain] = &a
}

var (
	byName = mx.Demand{Kind: mx.DemandSTS}
	byDANE = mx.Demand{Kind: mx.DemandDANE, Base: "mx.shared.test", TLSA: []mx.TLSA{{Usage: 3, Data: []byte("key")}}}
)

// TestBrokenPolicyBlocksNoOther: one host serves three domains. The policies of two of them are not met by it: only their mail waits, and
// each of the two backs off by itself.
func TestBrokenPolicyBlocksNoOther(t *testing.T) {
	s := newSim(t, 3, 1, noJitter)
	for _, d := range []string{"plain.test", "sts.test", "dane.test"} {
		s.mx(d, "10 mx.shared.test 192.0.2.1")
	}
	s.demand("sts.test", byName)
	s.demand("dane.test", byDANE)
	s.host("192.0.2.1").insecure = true
	for i := range 300 {
		d := []string{"plain.test", "sts.test", "dane.test"}[i%3]
		s.after(time.Duration(i)*100*time.Millisecond, func() { s.send(i%3, fmt.Sprintf("u%d@%s", i, d)) })
	}
	s.run(time.Minute)
	if got := len(s.host("192.0.2.1").got); got != 100 {
		t.Errorf("%d of 100 delivered for the domain without a policy", got)
	}
	if n := s.router.Totals(); n.Backoff != 2 || n.Deferred != 200 || n.Sites != 3 {
		t.Errorf("%+v", n)
	}
	for _, e := range s.log {
		if strings.HasSuffix(e.address, "@plain.test") && (e.state.String() != "delivered" || e.at > 31*time.Second) {
			t.Fatalf("%s %v at %v", e.address, e.state, e.at)
		}
	}
	s.host("192.0.2.1").insecure = false
	s.finish(300)
}

// TestDownForAllPolicies: a host that cannot be reached is backed off for all domains that have it, whatever they demand, and tried by one of
// them at a time.
func TestDownForAllPolicies(t *testing.T) {
	s := newSim(t, 2, 1, noJitter)
	for _, d := range []string{"plain.test", "sts.test", "dane.test"} {
		s.mx(d, "10 mx.shared.test 192.0.2.1")
	}
	s.demand("sts.test", byName)
	s.demand("dane.test", byDANE)
	h := s.host("192.0.2.1")
	h.down = true
	send := func() {
		for _, d := range []string{"plain.test", "sts.test", "dane.test"} {
			s.send(0, "u@"+d)
		}
	}
	send()
	s.run(time.Minute)
	first := len(s.dials)
	if first == 0 || first > 3 || s.router.Totals().Backoff != 1 {
		t.Errorf("%d dials, %+v", first, s.router.Totals())
	}
	send()
	s.run(2 * time.Minute)
	if len(s.dials) != first {
		t.Errorf("mail of another domain dials a host that is backed off: %v", s.dials)
	}
	s.run(20 * time.Minute) // probes at 5 and 15 minutes
	if n := len(s.dials) - first; n < 2 || n > 4 || h.most > 3 {
		t.Errorf("%d probes, %d at once", n, h.most)
	}
	h.down = false
	h.most = 0
	s.finish(6)
}

// TestLimitHoldsOverPolicies: the connections of domains with one host and different policies are counted together, and each gets its part.
func TestLimitHoldsOverPolicies(t *testing.T) {
	for _, limit := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			s := newSim(t, 4, 1, func(o *Options) { o.SiteConnections = limit })
			domains := []string{"plain.test", "sts.test", "dane.test"}
			for _, d := range domains {
				s.mx(d, "10 mx.shared.test 192.0.2.1")
			}
			s.demand("sts.test", byName)
			s.demand("dane.test", byDANE)
			h := s.host("192.0.2.1")
			h.latency = 200 * time.Millisecond
			for i := range 1500 {
				s.send(i%4, fmt.Sprintf("u%d@%s", i, domains[i/500]))
			}
			s.run(2 * time.Minute)
			seen := map[string]int{}
			for _, address := range h.got {
				_, d, _ := strings.Cut(address, "@")
				seen[d]++
			}
			for _, d := range domains {
				if seen[d] < len(h.got)/6 {
					t.Errorf("%d of %d delivered for %s", seen[d], len(h.got), d)
				}
			}
			s.finish(1500)
			if h.most != limit {
				t.Errorf("%d connections at once, want %d", h.most, limit)
			}
		})
	}
}

// TestConnectionIsShared: an idle connection serves another domain of the host where it was made under the same demands, or stricter ones, and only
// there.
func TestConnectionIsShared(t *testing.T) {
	none := mx.Demand{}
	testingSTS := mx.Demand{Kind: mx.DemandTesting}
	encrypted := mx.Demand{Kind: mx.DemandEncrypted, Base: "mx.shared.test"}
	ofName, ofOther := byDANE, byDANE // certificates by an authority may be for the domain
	ofName.Names, ofOther.Names = []string{"a.test"}, []string{"b.test"}
	otherKey := byDANE
	otherKey.TLSA = []mx.TLSA{{Usage: 3, Data: []byte("another key")}}
	for _, x := range []struct {
		name   string
		made   mx.Demand
		wanted mx.Demand
		shared bool
	}{
		{"clear for clear", none, none, true},
		{"STS for nothing", byName, none, true},
		{"DANE for nothing", byDANE, none, true},
		{"encrypted for nothing", encrypted, none, true},
		{"nothing for STS", none, byName, false},
		{"nothing for DANE", none, byDANE, false},
		{"nothing for testing", none, testingSTS, false},
		{"testing for nothing", testingSTS, none, false},
		{"testing for STS", testingSTS, byName, false},
		{"STS for testing", byName, testingSTS, true},
		{"DANE for STS", byDANE, byName, false},
		{"STS for DANE", byName, byDANE, false},
		{"STS for encrypted", byName, encrypted, true},
		{"encrypted for DANE", encrypted, byDANE, false},
		{"nothing for signed", none, mx.Demand{Signed: true}, false},
		{"DANE for signed", byDANE, mx.Demand{Signed: true}, false},
		{"STS for signed", byName, mx.Demand{Signed: true}, true},
		{"signed for nothing", mx.Demand{Signed: true}, none, true},
		{"signed for STS", mx.Demand{Signed: true}, byName, false},
		{"DANE for another name", ofName, byDANE, false},
		{"DANE for the name of another", ofName, ofOther, false},
		{"DANE for another key", byDANE, otherKey, false},
		{"DANE for the same", byDANE, byDANE, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			s := newSim(t, 2, 1, nil)
			// Backups of different names, so that equal demands are sites of their own as well.
			s.mx("a.test", "10 mx.shared.test 192.0.2.1", "20 backup.a.test 192.0.2.2")
			s.mx("b.test", "10 mx.shared.test 192.0.2.1", "20 backup.b.test 192.0.2.3")
			s.router.providers, _ = compileProviders([]Provider{{Name: "shared", MX: []string{"*.test"}}})
			if x.made.Kind != mx.DemandNone || x.made.Signed {
				s.demand("a.test", x.made)
			}
			if x.wanted.Kind != mx.DemandNone || x.wanted.Signed {
				s.demand("b.test", x.wanted)
			}
			for _, address := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
				s.host(address)
			}
			s.send(0, "u@a.test")
			s.run(time.Second)
			s.send(1, "v@b.test")
			s.run(2 * time.Second)
			if want := map[bool]int{true: 1, false: 2}[x.shared]; len(s.dials) != want {
				t.Errorf("%d connections made, want %d", len(s.dials), want)
			}
			s.send(0, "w@a.test")
			s.finish(3)
		})
	}
}

// TestProvider: domains with exchangers of one provider have one limit, their mail goes to their own hosts, and one that is down stops none of the others.
func TestProvider(t *testing.T) {
	s := newSim(t, 4, 1, func(o *Options) {
		o.Providers = []Provider{{Name: "big", MX: []string{"*.big.test"}, Connections: 3}, {Name: "range", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.128/25")}}}
		o.SiteConnections = 2
	})
	sent := 0
	for i := range 10 {
		d := fmt.Sprintf("d%d.test", i)
		s.mx(d, fmt.Sprintf("10 mx%d.big.test 192.0.2.%d", i, i+1))
		s.host(fmt.Sprintf("192.0.2.%d", i+1)).latency = 50 * time.Millisecond
		for range 60 {
			s.send(sent%4, "u@"+d)
			sent++
		}
	}
	for i := range 3 {
		d := fmt.Sprintf("r%d.test", i)
		s.mx(d, fmt.Sprintf("10 mx.%s 192.0.2.%d", d, i+200))
		s.host(fmt.Sprintf("192.0.2.%d", i+200)).latency = 50 * time.Millisecond
		for range 60 {
			s.send(sent%4, "u@"+d)
			sent++
		}
	}
	s.host("192.0.2.1").down = true
	s.run(time.Minute)
	if s.most[""] != 3+2 {
		t.Errorf("%d connections at once to two providers, want 3 and 2", s.most[""])
	}
	for i := 1; i < 10; i++ {
		if got := len(s.host(fmt.Sprintf("192.0.2.%d", i+1)).got); got != 60 {
			t.Errorf("d%d.test got %d of 60", i, got)
		}
	}
	s.host("192.0.2.1").down = false
	s.finish(sent)
}

// TestRefusedConnectionPausesProvider: where one more connection was refused while others worked, no site of the provider opens further ones for a
// while.
func TestRefusedConnectionPausesProvider(t *testing.T) {
	s := newSim(t, 1, 1, func(o *Options) {
		o.Providers, o.SiteConnections = []Provider{{Name: "big", MX: []string{"*.big.test"}}}, 100
	})
	s.mx("a.test", "10 mx.big.test 192.0.2.1")
	s.mx("b.test", "10 mx.big.test 192.0.2.1")
	s.demand("b.test", byName)
	h := s.host("192.0.2.1")
	h.latency = 100 * time.Millisecond
	for range 2000 {
		s.send(0, "u@a.test")
	}
	s.run(time.Second)
	h.banner = &busy
	s.run(3 * time.Second)
	tried, now := len(s.dials), s.now.UnixNano()
	for _, p := range s.router.schedulers[0].parties {
		if p.pause <= now {
			t.Error("a refused connection does not matter")
		}
	}
	s.send(0, "v@b.test")
	s.run(6 * time.Second)
	if len(s.dials) != tried {
		t.Errorf("%d dials, then %d", tried, len(s.dials))
	}
	h.banner = nil
	s.finish(2001)
}

func TestProviderOf(t *testing.T) {
	rules := []Provider{
		{Name: "first", MX: []string{"MX.one.test", "*.two.test"}},
		{Name: "second", MX: []string{"*.one.test"}, Addresses: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/32")}},
		{Name: "third", MX: []string{"*.deep.two.test", "single"}, Addresses: []netip.Prefix{netip.MustParsePrefix("198.51.0.0/16")}},
	}
	host := func(name string, addrs ...string) mx.Host {
		h := mx.Host{Name: name}
		for _, a := range addrs {
			h.Addrs = append(h.Addrs, netip.MustParseAddr(a))
		}
		return h
	}
	for i, x := range []struct {
		hosts []mx.Host
		want  int
	}{
		{[]mx.Host{host("mx.one.test")}, 0},
		{[]mx.Host{host("other.one.test")}, 1},
		{[]mx.Host{host("one.test")}, -1},
		{[]mx.Host{host("a.b.two.test")}, 0},
		{[]mx.Host{host("two.test")}, -1},
		{[]mx.Host{host("nottwo.test")}, -1},
		{[]mx.Host{host("x.deep.two.test")}, 0}, // the first rule goes before the longer suffix
		{[]mx.Host{host("mx.one.test"), host("a.two.test")}, 0},
		{[]mx.Host{host("mx.one.test"), host("other.one.test")}, -1},
		{[]mx.Host{host("mx.one.test"), host("elsewhere.test")}, -1},
		{[]mx.Host{host("elsewhere.test"), host("mx.one.test")}, -1},
		{[]mx.Host{host("x.test", "198.51.100.1", "2001:db8::1")}, 1},
		{[]mx.Host{host("x.test", "198.51.100.1", "203.0.113.1")}, -1},
		{[]mx.Host{host("x.test", "198.51.100.1", "198.51.7.1")}, 2},
		{[]mx.Host{host("x.test", "::ffff:198.51.100.1")}, 1},
		{[]mx.Host{host("single", "203.0.113.1")}, 2},
		{[]mx.Host{host("x.test")}, -1},
		{nil, -1},
	} {
		got, err := ProviderOf(rules, &mx.Answer{Hosts: x.hosts})
		if err != nil || got != x.want {
			t.Errorf("%d: %d, %v; want %d", i, got, err, x.want)
		}
	}
	if got, _ := ProviderOf(rules, &mx.Answer{Query: mx.Query{Kind: mx.Addresses}, Hosts: []mx.Host{host("mx.one.test")}}); got != -1 {
		t.Error("a smart host is of a provider")
	}
	for _, wrong := range [][]Provider{{{MX: []string{"a"}}}, {{Name: "a"}}, {{Name: "a", MX: []string{"a"}}, {Name: "a", MX: []string{"b"}}}, {{Name: "a", MX: []string{"a..b"}}}, {{Name: "a", Addresses: make([]netip.Prefix, 1)}}, {{Name: "a", MX: []string{"a"}, Connections: -1}}} {
		if _, err := ProviderOf(wrong, &mx.Answer{}); err == nil {
			t.Errorf("%+v passes", wrong)
		}
	}
}
