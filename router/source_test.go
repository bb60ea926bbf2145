package router

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailrace/proto/message"
	"mailrace/router/mx"
)

// pooled makes a sim whose mail goes from pools of sources.
func pooled(t *testing.T, loops int, sources string, pools map[string]string, change func(*Options)) *sim {
	return newSim(t, loops, 7, pooling(sources, pools, change))
}

// pooling gives options sources, as in "a b/4", and pools, as in "a:1 b:2".
func pooling(sources string, pools map[string]string, change func(*Options)) func(*Options) {
	return func(o *Options) {
		for name := range strings.FieldsSeq(sources) {
			name, family, _ := strings.Cut(name, "/")
			o.Sources = append(o.Sources, Source{Name: name, IPv4: family != "6", IPv6: family != "4"})
		}
		for _, name := range slices.Sorted(func(yield func(string) bool) {
			for name := range pools {
				if !yield(name) {
					return
				}
			}
		}) {
			p := Pool{Name: name}
			for m := range strings.FieldsSeq(pools[name]) {
				var member Member
				member.Source, _, _ = strings.Cut(m, ":")
				fmt.Sscan(m[len(member.Source)+1:], &member.Weight)
				p.Members = append(p.Members, member)
			}
			o.Pools = append(o.Pools, p)
		}
		if len(o.Pools) > 0 {
			o.Pool = o.Pools[0].Name
		}
		if change != nil {
			change(o)
		}
	}
}

// shares counts what was delivered by source.
func (s *sim) shares(of func(address string) bool) map[string]int {
	n := map[string]int{}
	for _, e := range s.log {
		if e.state == message.Delivered && (of == nil || of(e.address)) {
			n[e.out.From()]++
		}
	}
	return n
}

// TestWeights: 10,000 messages go from the sources exactly by their weights, at one destination, at each of several, and over many with one each.
func TestWeights(t *testing.T) {
	const n = 10_000
	weights := map[string]int{"a": 5, "b": 3, "c": 2}
	check := func(t *testing.T, what string, got map[string]int, total int) {
		t.Helper()
		for name, w := range weights {
			if got[name] != total*w/10 {
				t.Errorf("%s: %d of %d from %s, want %d", what, got[name], total, name, total*w/10)
			}
		}
	}
	t.Run("one", func(t *testing.T) {
		s := pooled(t, 1, "a b c", map[string]string{"p": "a:5 b:3 c:2"}, nil)
		s.mx("one.test", "10 mx.one.test 192.0.2.1")
		s.host("192.0.2.1")
		for i := range n {
			s.send(0, fmt.Sprintf("u%d@one.test", i))
		}
		s.finish(n)
		check(t, "one", s.shares(nil), n)
		if s.log[0].out.Pool() != "p" || s.router.schedulers[0].forks == nil || len(s.router.schedulers[0].forks) != 0 {
			t.Errorf("pool %q, %d forks left", s.log[0].out.Pool(), len(s.router.schedulers[0].forks))
		}
	})
	t.Run("several", func(t *testing.T) {
		s := pooled(t, 1, "a b c", map[string]string{"p": "a:5 b:3 c:2"}, nil)
		for d := range 4 {
			s.mx(fmt.Sprintf("d%d.test", d), fmt.Sprintf("10 mx.d%d.test 192.0.2.%d", d, d+1))
			s.host(fmt.Sprintf("192.0.2.%d", d+1))
		}
		for i := range n { // in the step of the weights, and one message for all of them
			s.send(0, fmt.Sprintf("u%d@d0.test", i), fmt.Sprintf("u%d@d1.test", i), fmt.Sprintf("u%d@d2.test", i), fmt.Sprintf("u%d@d3.test", i))
		}
		s.finish(4 * n)
		for d := range 4 {
			domain := fmt.Sprintf("@d%d.test", d)
			check(t, domain, s.shares(func(a string) bool { return strings.HasSuffix(a, domain) }), n)
		}
	})
	t.Run("many", func(t *testing.T) {
		s := pooled(t, 1, "a b c", map[string]string{"p": "a:5 b:3 c:2"}, nil)
		s.host("192.0.2.1")
		for i := range n {
			s.mx(fmt.Sprintf("d%d.test", i), fmt.Sprintf("10 mx%d.test 192.0.2.1", i))
			s.send(0, fmt.Sprintf("u@d%d.test", i))
		}
		s.finish(n)
		check(t, "many", s.shares(nil), n)
	})
}

// TestPoolChoice: the most specific policy that names a pool chooses it, then the route, then the default; recipients of one message may part.
func TestPoolChoice(t *testing.T) {
	s := pooled(t, 2, "a b c d e", map[string]string{"0": "a:1", "tenant": "b:1", "campaign": "c:1", "domain": "d:1", "mx": "e:1"}, func(o *Options) {
		o.Policies = []Policy{
			{Tenants: []string{"t"}, Pool: "tenant"},
			{Campaigns: []string{"news"}, Pool: "campaign"},
			{Tenants: []string{"t"}, Campaigns: []string{"plain"}, Pool: "0"},
			{Domains: []string{"special.test"}, Pool: "domain"},
			{MX: []string{"*.provider.test"}, Campaigns: []string{"news"}, Pool: "mx"},
			{Domains: []string{"other.test"}, Expire: time.Hour},
		}
	})
	for _, d := range []string{"one.test", "special.test", "other.test"} {
		s.mx(d, "10 mx.one.test 192.0.2.1") // one site
	}
	s.mx("hosted.test", "10 mx.provider.test 192.0.2.2")
	s.host("192.0.2.1")
	s.host("192.0.2.2")
	s.host("192.0.2.200")
	for _, x := range []struct{ tenant, campaign, want string }{
		{"", "", "a d a a"},
		{"t", "", "b d b b"},
		{"t", "news", "c d c e"},
		{"u", "news", "c d c e"},
		{"t", "plain", "a d a a"},
	} {
		s.log = nil
		m := s.message("x@one.test", "x@special.test", "x@other.test", "x@hosted.test", "x@relayed.test", "x@gone.test")
		m.Tenant, m.Campaign = x.tenant, x.campaign
		s.dispatch(0, m)
		s.run(s.now.Sub(start) + time.Minute)
		from := map[string]string{}
		for _, e := range s.log {
			from[e.address] = e.out.From()
		}
		if got := strings.TrimSpace(strings.Join([]string{from["x@one.test"], from["x@special.test"], from["x@other.test"], from["x@hosted.test"], from["x@relayed.test"]}, " ")); got != x.want || len(from) != 6 {
			t.Errorf("%+v: from %q, %v", x, got, from)
		}
	}
}

// TestFamilies: a source reaches only hosts of its families, and mail that no source can reach waits, as any that fails.
func TestFamilies(t *testing.T) {
	s := pooled(t, 1, "four/4 six/6", map[string]string{"p": "four:1 six:3", "q": "six:1"}, func(o *Options) {
		o.Policies = []Policy{{Domains: []string{"narrow.test"}, Pool: "q"}}
	})
	s.mx("four.test", "10 mx4.test 192.0.2.4")
	s.mx("six.test", "10 mx6.test 2001:db8::6")
	s.mx("both.test", "10 mx.test 192.0.2.1 2001:db8::1")
	s.mx("narrow.test", "10 mx4.test 192.0.2.4")
	for _, a := range []string{"192.0.2.4", "2001:db8::6", "192.0.2.1", "2001:db8::1"} {
		s.host(a)
	}
	for i := range 8 {
		for _, d := range []string{"four", "six", "both", "narrow"} {
			s.send(0, fmt.Sprintf("u%d@%s.test", i, d))
		}
	}
	s.run(time.Minute)
	for domain, want := range map[string]string{"four": "map[four:8]", "six": "map[six:8]", "both": "map[four:2 six:6]", "narrow": "map[]"} {
		if got := fmt.Sprint(s.shares(func(a string) bool { return strings.HasSuffix(a, "@"+domain+".test") })); got != want {
			t.Errorf("%s: %s, want %s", domain, got, want)
		}
	}
	for _, e := range s.log {
		if e.state == message.Deferred && (!strings.HasSuffix(e.address, "@narrow.test") || !strings.Contains(e.out.Text, "family")) {
			t.Errorf("%s: %+v", e.address, e.out)
		}
	}
	if len(s.host("192.0.2.1").got) != 2 || len(s.host("2001:db8::1").got) != 6 {
		t.Error("a source went to the other family")
	}
}

// changes collects what is told of sources.
func changes(o *Options, s **sim) *[]string {
	list := new([]string)
	for i := range o.Envs {
		o.Envs[i].Source = func(c SourceChange) {
			what := "back"
			if c.Out {
				what = "out until " + c.Until.Sub(start).Round(time.Second).String()
			}
			*list = append(*list, fmt.Sprintf("%s %s %s", (*s).now.Sub(start).Round(time.Second), c.Source, what))
		}
	}
	return list
}

// TestUnusableSource: a source that cannot be bound is out at once, no mail counts an attempt for it, and all goes from the others; when its time is
// over one message tries it, and it is back when that works.
func TestUnusableSource(t *testing.T) {
	var s *sim
	var told *[]string
	s = pooled(t, 2, "a b", map[string]string{"p": "a:1 b:1"}, func(o *Options) { told = changes(o, &s) })
	for d := range 6 {
		s.mx(fmt.Sprintf("d%d.test", d), fmt.Sprintf("10 mx%d.test 192.0.2.%d", d, d+1))
		s.host(fmt.Sprintf("192.0.2.%d", d+1))
	}
	s.unbound = map[string]bool{"a": true}
	round := func(n int) map[string]int {
		s.log = nil
		for i := range n {
			s.send(i%2, fmt.Sprintf("u%d@d%d.test", i, i%6))
		}
		s.run(s.now.Sub(start) + time.Minute)
		for _, e := range s.log {
			if e.state != message.Delivered || e.out.Attempt != 1 {
				t.Errorf("%s: %v, attempt %d: %s", e.address, e.state, e.out.Attempt, e.out.Text)
			}
		}
		if len(s.log) != n {
			t.Errorf("%d of %d are settled", len(s.log), n)
		}
		return s.shares(nil)
	}
	if got := round(60); got["b"] != 60 {
		t.Errorf("from %v", got)
	}
	s.run(6 * time.Minute)
	if got := round(60); got["b"] != 60 { // one of them tried, in vain
		t.Errorf("from %v", got)
	}
	s.unbound = nil
	s.run(20 * time.Minute)
	if got := round(60); got["a"] != 1 || got["b"] != 59 { // the one that tried
		t.Errorf("from %v", got)
	}
	if got := round(60); got["a"] != 30 || got["b"] != 30 {
		t.Errorf("from %v", got)
	}
	want := []string{"0s a out until 5m0s", "6m0s a out until 16m0s", "20m0s a back"}
	if !slices.Equal(*told, want) {
		t.Errorf("told %q, want %q", *told, want)
	}
}

// TestNoSourceLeft: where no source is left mail waits, without an attempt, and goes when one is back; it does not bounce.
func TestNoSourceLeft(t *testing.T) {
	var s *sim
	var told *[]string
	s = pooled(t, 2, "a", map[string]string{"p": "a:1"}, func(o *Options) { told = changes(o, &s) })
	s.mx("one.test", "10 mx.test 192.0.2.1")
	s.mx("two.test", "10 mx2.test 192.0.2.2")
	s.host("192.0.2.1")
	s.host("192.0.2.2")
	s.unbound = map[string]bool{"a": true}
	for i := range 40 {
		s.send(i%2, fmt.Sprintf("u%d@one.test", i), fmt.Sprintf("u%d@two.test", i))
	}
	s.run(70 * time.Minute) // it is tried again and again
	tries := len(s.dials)
	s.unbound = nil
	s.finish(80)
	for _, e := range s.log {
		if e.state == message.Delivered && e.out.Attempt != 1 || e.state != message.Delivered && (e.state != message.Deferred || !strings.Contains(e.out.Text, `no source of pool "p" is in service: a (cannot assign`)) {
			t.Errorf("%s: %v, attempt %d: %s", e.address, e.state, e.out.Attempt, e.out.Text)
		}
	}
	if last := (*told)[len(*told)-1]; !strings.HasSuffix(last, "a back") || tries > 16 {
		t.Errorf("%d tries, told %q", tries, *told)
	}
}

// TestRefusedSource: a source that several sites refuse, with others that deliver there, is out; the mail goes from the others, and it comes back when
// a site takes a session. Where nothing delivers it is not the source.
func TestRefusedSource(t *testing.T) {
	blocked := Outcome{Class: Bounced, Code: 554, Enhanced: "5.7.1", Text: "your address is on a list", Remote: true}
	slow := Outcome{Class: Deferred, Code: 421, Enhanced: "4.7.0", Text: "your address is on a list", Remote: true}
	for name, banner := range map[string]*Outcome{"554": &blocked, "421": &slow} {
		t.Run(name, func(t *testing.T) {
			var s *sim
			var told *[]string
			s = pooled(t, 2, "a b", map[string]string{"p": "a:1 b:1"}, func(o *Options) { told = changes(o, &s); o.Jitter = -1 })
			refusing := map[string]bool{"a": true, "b": true}
			for d := range 6 {
				s.mx(fmt.Sprintf("d%d.test", d), fmt.Sprintf("10 mx%d.test 192.0.2.%d", d, d+1))
				s.host(fmt.Sprintf("192.0.2.%d", d+1)).bannerTo = func(source string) *Outcome {
					if refusing[source] {
						return banner
					}
					return nil
				}
			}
			for i := range 12 {
				s.send(i%2, fmt.Sprintf("u%d@d%d.test", i, i%6))
			}
			s.run(time.Minute)
			if len(*told) > 0 {
				t.Errorf("told %q while nothing delivers", *told)
			}
			for _, src := range s.router.sources.all { // however many sites refuse it
				if len(src.against) > s.router.sources.enough {
					t.Errorf("%d sites are remembered against %s", len(src.against), src.Name)
				}
			}
			delete(refusing, "b")
			for hour := range 3 {
				for i := range 60 {
					s.send(i%2, fmt.Sprintf("v%d.%d@d%d.test", hour, i, i%6))
				}
				s.run(time.Duration(hour+1) * time.Hour)
			}
			if len(*told) == 0 || !strings.Contains((*told)[0], " a out") || slices.ContainsFunc(*told, func(c string) bool { return strings.Contains(c, " b ") }) {
				t.Fatalf("told %q", *told)
			}
			out := *told
			delete(refusing, "a")
			for hour := range 8 {
				for i := range 60 {
					s.send(i%2, fmt.Sprintf("w%d.%d@d%d.test", hour, i, i%6))
				}
				s.run(time.Duration(hour+4) * time.Hour)
			}
			if last := (*told)[len(*told)-1]; !strings.HasSuffix(last, "a back") {
				t.Errorf("told %q, then %q", out, *told)
			}
			s.finish(12 + 3*60 + 8*60)
			for _, e := range s.log {
				if e.state != message.Delivered && e.state != message.Deferred {
					t.Errorf("%s: %v", e.address, e.state)
				}
			}
			if got := s.shares(func(a string) bool { return strings.HasPrefix(a, "w7") }); got["a"] != 30 || got["b"] != 30 {
				t.Errorf("at last from %v", got)
			}
		})
	}
}

// TestSourceOptions: what makes no sense is refused.
func TestSourceOptions(t *testing.T) {
	table, err := NewTable([]Route{{Domains: []string{"*"}, Pool: "r"}})
	if err != nil {
		t.Fatal(err)
	}
	a := []Source{{Name: "a", IPv4: true}}
	for want, o := range map[string]Options{
		`route mx: there is no pool "r"`:         {Sources: a, Pools: []Pool{{"p", []Member{{"a", 1}}}}},
		`default: there is no pool "x"`:          {Sources: a, Pool: "x"},
		`policy 1: there is no pool "y"`:         {Policies: []Policy{{Tenants: []string{"t"}, Pool: "y"}}},
		`source 2: "a" is no name`:               {Sources: append(a, a...), Pools: []Pool{{Name: "p"}}},
		`reaches no family`:                      {Sources: []Source{{Name: "b"}}, Pools: []Pool{{Name: "p"}}},
		`pool 1: "p" is no name`:                 {Sources: a, Pools: []Pool{{Name: "p"}}},
		`pool "p": "z" with weight 1`:            {Sources: a, Pools: []Pool{{"p", []Member{{"z", 1}}}}},
		`pool "p": "a" with weight 0`:            {Sources: a, Pools: []Pool{{"p", []Member{{"a", 0}}}}},
		`pool "p": "a" with weight 2: want a so`: {Sources: a, Pools: []Pool{{"p", []Member{{"a", 1}, {"a", 2}}}}},
	} {
		o.Table, o.Resolver, o.Envs = table, &sim{}, make([]Env, 1)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestPoolView: the view of a site shows each source of the pool.
func TestPoolView(t *testing.T) {
	s := pooled(t, 1, "a b six/6", map[string]string{"p": "a:2 b:1 six:1"}, nil)
	s.mx("one.test", "10 mx.test 192.0.2.1")
	s.host("192.0.2.1")
	s.unbound = map[string]bool{"a": true}
	for i := range 3 {
		s.send(0, fmt.Sprintf("u%d@one.test", i))
	}
	s.run(time.Second)
	route := s.router.opts.Table.Match("one.test")
	answer, _ := s.Cached(mx.Query{Kind: mx.Exchangers, Name: "one.test"})
	var v SiteView
	s.router.View(route, answer, "one.test", func(found SiteView) { v = found })
	s.run(2 * time.Second)
	if v.Pool != "p" || len(v.Sources) != 3 || !v.Known || !v.Backoff.IsZero() || v.Connections == 0 {
		t.Fatalf("%+v", v)
	}
	a, b, six := v.Sources[0], v.Sources[1], v.Sources[2]
	if a.Source != "a" || a.Weight != 2 || a.Until.Sub(start).Round(time.Second) != 5*time.Minute || !strings.Contains(a.Cause, "cannot assign") || !a.Reach || !a.Known {
		t.Errorf("%+v", a)
	}
	if b.Source != "b" || !b.Until.IsZero() || b.Status.Connections == 0 || b.Status.Source != "b" || six.Reach || six.Known {
		t.Errorf("%+v, %+v", b, six)
	}
	var text strings.Builder
	s.router.Metrics().WritePrometheus(&text)
	for _, line := range []string{
		`mailrace_source_in_service{source="a"} 0`, `mailrace_source_in_service{source="b"} 1`, `mailrace_source_outages_total{source="a"} 1`,
		`mailrace_source_outcomes_total{source="b",outcome="delivered"} 3`, `mailrace_router_connections_failed_total{reason="unusable"} `,
	} {
		if !strings.Contains(text.String(), line) {
			t.Errorf("no %s in %s", line, text.String())
		}
	}
}

// TestRefusedHere: where one source delivers, mail that another one cannot deliver at the same site goes from the first at once, with its first attempt.
func TestRefusedHere(t *testing.T) {
	blocked := Outcome{Class: Bounced, Code: 554, Enhanced: "5.7.1", Text: "your address is on a list", Remote: true}
	s := pooled(t, 1, "a b", map[string]string{"p": "a:1 b:1"}, nil)
	s.mx("one.test", "10 mx.test 192.0.2.1")
	h := s.host("192.0.2.1")
	s.send(0, "first@one.test", "second@one.test") // a alone
	s.run(time.Second)
	s.send(0, "third@one.test") // b
	s.run(2 * time.Second)
	h.bannerTo = func(source string) *Outcome {
		if source == "a" {
			return &blocked
		}
		return nil
	}
	for i := range 3 { // connections of a end, and those of b go on
		s.run(time.Duration(i+1) * 20 * time.Second)
		for j := range 10 {
			s.send(0, fmt.Sprintf("u%d.%d@one.test", i, j))
		}
	}
	s.run(2 * time.Minute)
	for _, e := range s.log {
		if e.state != message.Delivered && len(s.log) > 33 || e.out.Attempt > 2 {
			t.Errorf("%s: %v from %s, attempt %d", e.address, e.state, e.out.From(), e.out.Attempt)
		}
	}
	s.finish(33)
}

// TestPoolsAtRandom: whatever becomes of sources and hosts, everything ends as it should, with pools and with memory for little of it.
func TestPoolsAtRandom(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			var s *sim
			var told *[]string
			options := pooling("a b/4 c six/6", map[string]string{"p": "a:3 b:2 c:1", "q": "c:1 six:2", "r": "b:1"}, func(o *Options) {
				told = changes(o, &s)
				o.Park, o.SourceRetry = o.Park || seed%2 == 0, time.Minute
				o.Policies = []Policy{{Tenants: []string{"t"}, Pool: "q"}, {Domains: []string{"d1.test"}, Pool: "r"}, {Campaigns: []string{"news"}, Pool: "p", Retry: minutes(1, 7)}}
			})
			if seed%3 == 0 {
				s = newDiskSim(t, 3, 100, seed, options)
			} else {
				s = newSim(t, 3, seed, options)
			}
			for d := range 5 {
				s.mx(fmt.Sprintf("d%d.test", d), fmt.Sprintf("10 mx%d.test 192.0.2.%d 2001:db8::%d", d, d+1, d+1), fmt.Sprintf("20 backup.test 192.0.2.%d", 100+d%2))
				s.host(fmt.Sprintf("192.0.2.%d", d+1))
				s.host(fmt.Sprintf("2001:db8::%d", d+1))
				s.host(fmt.Sprintf("192.0.2.%d", 100+d%2))
			}
			sent := 0
			for range 60 {
				for _, name := range []string{"a", "b", "c", "six"} {
					if s.unbound == nil {
						s.unbound = map[string]bool{}
					}
					s.unbound[name] = s.rand.IntN(4) == 0
				}
				for _, h := range s.hosts {
					h.down, h.banner = s.rand.IntN(5) == 0, nil
					if s.rand.IntN(5) == 0 {
						h.banner = &busy
					}
				}
				for range s.rand.IntN(30) {
					var to []string
					for range 1 + s.rand.IntN(3) {
						to = append(to, fmt.Sprintf("u%d@d%d.test", sent, s.rand.IntN(5)))
						sent++
					}
					m := s.message(to...)
					if s.rand.IntN(2) == 0 {
						m.Tenant = "t"
					}
					if s.rand.IntN(3) == 0 {
						m.Campaign = "news"
					}
					if s.disk != nil {
						s.disk.accept(s.rand.IntN(3), m)
					} else {
						s.dispatch(s.rand.IntN(3), m)
					}
				}
				s.run(s.now.Sub(start) + time.Duration(s.rand.IntN(300))*time.Second)
			}
			clear(s.unbound)
			for _, h := range s.hosts {
				h.down, h.banner = false, nil
			}
			s.finish(sent)
			for _, e := range s.log {
				if e.state == message.Bounced || e.state == message.Expired {
					t.Errorf("%s: %v: %s", e.address, e.state, e.out.Text)
				}
			}
			for _, src := range s.router.sources.all {
				if src.links.Load() != 0 {
					t.Errorf("%s has %d connections", src.Name, src.links.Load())
				}
			}
			for _, o := range s.router.schedulers {
				if len(o.forks) != 0 {
					t.Errorf("%d forks are left", len(o.forks))
				}
			}
			if len(*told) == 0 {
				t.Error("no source was ever out")
			}
		})
	}
}

// TestPooledBacklog: mail of a slow site that waits on the disk comes back to the source that it was to go from, and goes from another one where that is
// out of service.
func TestPooledBacklog(t *testing.T) {
	const n = 4000
	s := newDiskSim(t, 2, 1000, 3, pooling("a b", map[string]string{"p": "a:1 b:1"}, fiveConnections))
	s.slowSite(10)
	for i := range n {
		s.disk.accept(i%2, s.message(fmt.Sprintf("u%d@slow.test", i)))
		if i%20 == 0 {
			s.run(s.now.Sub(start) + 10*time.Millisecond)
		}
	}
	if put := s.router.sum(func(st *stats) *atomic.Int64 { return &st.putBack }); put < n/2 {
		t.Errorf("%d of %d were put back to the disk", put, n)
	}
	s.run(time.Minute)
	got := s.shares(nil)
	if got["a"]+got["b"] < 1000 || max(got["a"]-got["b"], got["b"]-got["a"]) > 20 {
		t.Errorf("from %v", got)
	}
	s.unbound = map[string]bool{"a": true}
	for _, sch := range s.router.schedulers {
		for _, site := range sch.sites {
			for _, l := range site.links {
				if site.key.source.title() == "a" {
					s.after(0, func() { s.conns[l].end(GoneBroken, &Outcome{Text: "reset by peer"}) })
				}
			}
		}
	}
	s.run(4 * time.Minute)
	before := s.shares(nil)
	s.finishDisk(n)
	after := s.shares(nil)
	if before["a"] > got["a"]+20 || after["a"] != before["a"] || after["a"]+after["b"] != n {
		t.Errorf("from %v, then %v, then %v", got, before, after)
	}
	for _, e := range s.log {
		if e.state == message.Delivered && e.out.Attempt > 2 {
			t.Errorf("%s: attempt %d", e.address, e.out.Attempt)
		}
	}
}
