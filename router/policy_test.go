package router

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mailrace/proto/message"
	"mailrace/router/mx"
)

func minutes(ns ...int) (list []time.Duration) {
	for _, n := range ns {
		list = append(list, time.Duration(n)*time.Minute)
	}
	return list
}

// TestPolicyOrder: each value is that of the most specific policy that sets it. Here first delays name the policies.
func TestPolicyOrder(t *testing.T) {
	o := Options{RetryMin: time.Minute, RetryMax: time.Hour, Expire: 24 * time.Hour, BounceExpire: 12 * time.Hour, Policies: []Policy{
		{Domains: []string{"a.example", "B.Example."}, Retry: minutes(2)},
		{Domains: []string{"a.example"}, Tenants: []string{"t1", "t2"}, Retry: minutes(3), Expire: 3 * time.Hour},
		{Domains: []string{"*.example"}, Retry: minutes(4), BounceExpire: 4 * time.Hour},
		{Domains: []string{"*.a.example"}, Retry: minutes(5)},
		{MX: []string{"mx.host.test"}, Retry: minutes(6)},
		{MX: []string{"*.host.test", "*.other.test"}, Retry: minutes(7), Expire: 7 * time.Hour},
		{MX: []string{"*.host.test"}, Tenants: []string{"t1"}, Retry: minutes(8)},
		{MX: []string{"*.test"}, Retry: minutes(9)},
		{Routes: []string{"bulk"}, RetryMin: 10 * time.Minute, Expire: 10 * time.Hour, BounceExpire: time.Hour},
		{Routes: []string{"bulk"}, Tenants: []string{"t1"}, RetryMax: 50 * time.Minute, RetryMin: 11 * time.Minute},
		{Tenants: []string{"t1", "t3"}, Retry: minutes(12), Expire: 13 * time.Hour},
		{Domains: []string{"nothing.test"}},
	}}
	p, err := compile(&o)
	if err != nil {
		t.Fatal(err)
	}
	site := func(names ...string) []*rung {
		a := &mx.Answer{Query: mx.Query{Kind: mx.Exchangers}}
		for _, n := range names {
			a.Hosts = append(a.Hosts, mx.Host{Name: n})
		}
		return p.at(a)
	}
	bulk, plain := &Route{Name: "bulk"}, &Route{Name: "mx"}
	for _, x := range []struct {
		domain string
		hosts  string
		route  *Route
		tenant string
		want   string // minutes of the first delay, hours of the lifetimes: of mail, of that with the null reverse-path
	}{
		{"c.test", "", nil, "", "1 24 12"},
		{"c.test", "", plain, "none", "1 24 12"},
		{"nothing.test", "", plain, "", "1 24 12"},
		{"c.test", "", plain, "t3", "12 13 13"},
		{"c.test", "", bulk, "", "10 10 1"},
		{"c.test", "", bulk, "t3", "10 10 1"}, // a route before a tenant alone
		{"c.test", "", bulk, "t1", "11 10 1"},
		{"c.test", "mx.host.test", bulk, "", "6 7 7"},
		{"c.test", "mx.host.test", plain, "t1", "6 7 7"}, // an exact name before a suffix and a tenant
		{"c.test", "mx1.host.test mx.host.test", plain, "", "7 7 7"},
		{"c.test", "mx1.host.test mx.host.test", plain, "t1", "8 7 7"},
		{"c.test", "mx1.host.test a.b.other.test", plain, "t1", "7 7 7"},
		{"c.test", "mx.host.test a.b.other.test", plain, "", "7 7 7"},
		{"c.test", "mx1.host.test mx.else.test", plain, "", "9 24 12"}, // all hosts, or it does not hold
		{"c.test", "mx1.host.test mx.example", bulk, "", "10 10 1"},
		{"c.test", "host.test", plain, "", "9 24 12"},
		{"a.example", "mx.host.test", bulk, "", "2 7 4"},
		{"a.example", "", plain, "", "2 24 4"},
		{"b.example", "", plain, "t3", "2 13 4"},
		{"a.example", "", plain, "t2", "3 3 3"},
		{"x.a.example", "", plain, "t2", "5 24 4"},
		{"y.x.a.example", "", plain, "", "5 24 4"},
		{"example", "", plain, "", "1 24 12"},
		{"", "", nil, "", "1 24 12"},
	} {
		of := p.of(x.domain, site(strings.Fields(x.hosts)...), x.route, labels{tenant: x.tenant})
		got := fmt.Sprintf("%d %d %d", of.retry.Base(1)/time.Minute, of.expire/time.Hour, of.bounce/time.Hour)
		if got != x.want {
			t.Errorf("%+v: %s", x, got)
		}
	}
	a := &mx.Answer{Query: mx.Query{Kind: mx.Exchangers}, Hosts: []mx.Host{{Name: "mx.host.test"}}}
	if retry, expire, _, err := Sayers(o.Policies, "a.example", bulk, a); retry != 0 || expire != 5 || err != nil {
		t.Errorf("policies %d and %d say it, %v", retry, expire, err)
	}
	if retry, expire, _, err := Sayers(o.Policies, "c.test", nil, nil); retry != -1 || expire != -1 || err != nil {
		t.Errorf("policies %d and %d say it, %v", retry, expire, err)
	}
	if p.shortest != time.Hour {
		t.Errorf("the shortest lifetime is %v", p.shortest)
	}
	rungs := site("mx1.host.test")
	if n := testing.AllocsPerRun(100, func() { p.of("y.x.a.example", rungs, bulk, labels{tenant: "t1"}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestPolicyFaults(t *testing.T) {
	for _, x := range []struct {
		policies []Policy
		want     string
	}{
		{[]Policy{{Expire: time.Hour}}, "policy 1: it is for nothing"},
		{[]Policy{{Domains: []string{"a"}, Routes: []string{"b"}}}, "policy 1: more than one of"},
		{[]Policy{{Domains: []string{"a"}}, {Domains: []string{"b", "A."}}}, `policy 2: domain "A.": has a policy already`},
		{[]Policy{{MX: []string{"*.a", "*.a"}}}, `policy 1: mail exchanger "*.a": has a policy already`},
		{[]Policy{{MX: []string{"*.*"}}}, `policy 1: mail exchanger "*.*": not a host name`},
		{[]Policy{{Routes: []string{"a"}, Tenants: []string{"t"}}, {Routes: []string{"a"}}, {Routes: []string{"a"}, Tenants: []string{"u", "t"}}}, `policy 3: route "a": tenant "t"`},
		{[]Policy{{Tenants: []string{""}}}, `policy 1: a tenant or a campaign has no name`},
		{[]Policy{{Tenants: []string{"t"}, RetryMin: 5 * time.Hour}}, "policy 1: first retry after 5h0m0s, above the bound of 4h0m0s"},
		{[]Policy{{Tenants: []string{"t"}, Retry: []time.Duration{1, 0}}}, "policy 1: delay 0s"},
		{[]Policy{{Tenants: []string{"t"}, Expire: -1}}, "policy 1: a time is negative"},
	} {
		o := Options{Policies: x.policies, Envs: make([]Env, 1)}
		err := o.complete()
		if err == nil {
			_, err = compile(&o)
		}
		if err == nil || !strings.HasPrefix(err.Error(), x.want) {
			t.Errorf("%+v: %v, want %s", x.policies, err, x.want)
		}
	}
}

// attempts are the times at which something became of an address, in minutes.
func (s *sim) attempts(address string) (at []int, last message.State) {
	for _, e := range s.log {
		if e.address == address {
			at, last = append(at, int(e.at.Round(time.Minute)/time.Minute)), e.state
		}
	}
	return at, last
}

// every is the rest of a schedule: further attempts after from, and the one at the end.
func every(at []int, step, end int) []int {
	for m := at[len(at)-1] + step; m < end; m += step {
		at = append(at, m)
	}
	return append(at, end)
}

const day = 24 * 60

// schedules are the policies of the next test, and when it expects attempts, in minutes.
var schedules = []struct {
	domain, tenant, from string
	want                 []int
}{
	{"plain.test", "", "s@test", every([]int{0, 5, 15, 35, 75, 155, 315}, 240, 5*day)},
	{"plain.test", "", "", every([]int{0, 5, 15, 35, 75, 155, 315}, 240, 2*day)},
	{"list.test", "", "s@test", every([]int{0, 1, 4, 24}, 60, 5*day)},
	{"list.test", "fast", "s@test", every([]int{0, 1, 4, 24}, 60, 120)},
	{"plain.test", "fast", "s@test", []int{0, 5, 15, 35, 75, 120}},
	{"hosted.test", "", "s@test", every([]int{0, 30, 90}, 90, 3*day)},
	{"also.hosted.test", "", "s@test", every([]int{0, 7}, 7, 100)},
	{"relayed.test", "", "s@test", every([]int{0, 60}, 60, day)},
	{"relayed.test", "", "", every([]int{0, 60}, 60, 6*60)},
}

// TestScheduleOfEach: days of retries of recipients that are refused for now, at the minute, alone and side by side in one message.
func TestScheduleOfEach(t *testing.T) {
	s := newSim(t, 2, 1, func(o *Options) {
		o.Jitter, o.BounceExpire = -1, 48*time.Hour
		o.Policies = []Policy{
			{Domains: []string{"list.test"}, Retry: minutes(1, 3, 20, 60)},
			{Tenants: []string{"fast"}, Expire: 2 * time.Hour},
			{MX: []string{"*.provider.test"}, RetryMin: 30 * time.Minute, RetryMax: 90 * time.Minute, Expire: 72 * time.Hour},
			{Domains: []string{"*.hosted.test"}, Retry: minutes(7), Expire: 100 * time.Minute},
			{Routes: []string{"192.0.2.200:2525"}, Retry: minutes(60), Expire: 24 * time.Hour, BounceExpire: 6 * time.Hour},
		}
	})
	for _, d := range []string{"plain.test", "list.test"} {
		s.mx(d, "10 mx.plain.test 192.0.2.1")
	}
	for _, d := range []string{"hosted.test", "also.hosted.test"} {
		s.mx(d, "10 a.provider.test 192.0.2.2", "20 b.provider.test 192.0.2.3")
	}
	for _, addr := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.200"} {
		s.host(addr).reply = func(*Transaction, int) Outcome { return later }
	}
	s.domains["192.0.2.200"], _ = s.Cached(mx.Query{Kind: mx.Addresses, Name: "192.0.2.200"})
	want := map[string][]int{}
	together := s.message()
	for i, x := range schedules {
		m := s.message(fmt.Sprintf("r%d@%s", i, x.domain))
		m.Tenant, m.From = x.tenant, x.from
		s.dispatch(i%2, m)
		want[m.Recipients[0].Address] = x.want
		if x.tenant == "" && x.from != "" {
			address := fmt.Sprintf("t%d@%s", i, x.domain)
			together.Recipients = append(together.Recipients, message.Recipient{Address: address})
			want[address] = x.want
		}
	}
	together.SetPending(len(together.Recipients))
	s.dispatch(0, together)
	s.finish(len(want))
	for address, at := range want {
		if got, last := s.attempts(address); !slices.Equal(got, at) || last != message.Expired {
			t.Errorf("%s: %v at %v, want %v", address, last, got, at)
		}
	}
}

// TestTenThousandForASiteThatIsDown: it is the site that is tried, at its own times, and once for all; what only waits for it is not attempted, and expires
// in time all the same.
func TestTenThousandForASiteThatIsDown(t *testing.T) {
	const many = 10_000
	s := newSim(t, 2, 1, func(o *Options) { o.Jitter, o.Expire = -1, 24*time.Hour })
	s.mx("x.test", "10 a 192.0.2.1", "20 b 192.0.2.2")
	s.host("192.0.2.1").down, s.host("192.0.2.2").down = true, true
	s.send(0, "first@x.test")
	s.run(time.Minute)
	s.recording = false
	waiting := make([]*message.Message, many)
	for i := range waiting {
		waiting[i] = s.send(i%2, "u@x.test")
	}
	s.run(2 * time.Minute)
	if n := s.router.Totals(); n.Deferred != many+1 || n.Backoff != 1 || n.Queued != 0 {
		t.Errorf("%+v", n)
	}
	if got := s.host("192.0.2.1").takes; len(got) != 0 || len(s.dials) != 2 {
		t.Errorf("%d dials", len(s.dials))
	}
	var tried []int // minutes
	for m := 2; m <= day; m++ {
		before := len(s.dials)
		s.run(time.Duration(m)*time.Minute + 30*time.Second)
		for range len(s.dials) - before {
			tried = append(tried, m)
		}
	}
	var want []int
	for _, m := range every([]int{5, 15, 35}, 30, day) {
		if m < day {
			want = append(want, m, m) // both hosts
		}
	}
	if !slices.Equal(tried, want) {
		t.Errorf("tried at %v, want %v", tried, want)
	}
	attempts := 0
	for _, m := range waiting {
		attempts += int(m.Recipients[0].Attempts)
	}
	if attempts > many/10 {
		t.Errorf("%d attempts were counted of %d that waited", attempts, many)
	}
	s.run(day*time.Minute + 2*time.Minute)
	for _, m := range waiting {
		if r := &m.Recipients[0]; r.State != message.Expired || r.Reply != "4.4.1 connection refused" {
			t.Fatalf("%+v", r)
		}
	}
	s.finish(many + 1)
}

// TestSiteGoesByItsMail: a site that failed is tried again when the least patient schedule of its mail says, and its mail by its own.
func TestSiteGoesByItsMail(t *testing.T) {
	s := newSim(t, 1, 1, func(o *Options) {
		o.Jitter, o.Expire = -1, 5*time.Hour
		o.Policies = []Policy{{Domains: []string{"soon.test"}, Retry: minutes(2, 4)}, {Domains: []string{"late.test"}, Retry: minutes(120)}}
	})
	for _, d := range []string{"soon.test", "late.test", "plain.test"} {
		s.mx(d, "10 mx.test 192.0.2.1")
	}
	s.host("192.0.2.1").down = true
	for _, d := range []string{"soon.test", "late.test", "plain.test"} {
		s.send(0, "u@"+d)
	}
	s.finish(3)
	for _, x := range []struct {
		address  string
		own      []time.Duration // its schedule
		attempts int             // at least: it waits for the site a little after each of its own
	}{{"u@soon.test", minutes(2, 4), 60}, {"u@plain.test", minutes(5, 10, 20, 40, 80, 160), 5}, {"u@late.test", minutes(120), 3}} {
		var last event // that was attempted
		state := message.Pending
		for _, e := range s.log {
			if e.address != x.address {
				continue
			}
			state = e.state
			n := last.out.Attempt
			if e.out.Attempt == n {
				continue
			}
			if gap := e.at - last.at; n > 0 && state == message.Deferred && gap < x.own[min(n, len(x.own))-1] {
				t.Errorf("%s: attempt %d after %v", x.address, n+1, gap)
			}
			last = e
		}
		if state != message.Expired || last.out.Attempt < x.attempts {
			t.Errorf("%s: %v after %d attempts, want %d", x.address, state, last.out.Attempt, x.attempts)
		}
	}
}

// TestBacklogByPolicy: of a message that waits for a slow site, the recipients whose lifetime is over expire without an attempt, and the others go on waiting.
func TestBacklogByPolicy(t *testing.T) {
	const limit, n = 400, 1000
	s := newDiskSim(t, 2, limit, 1, func(o *Options) {
		o.SiteConnections = 5
		o.Policies = []Policy{{Domains: []string{"brief.test"}, Expire: 2 * time.Minute}}
	})
	s.slowSite(1)
	s.domains["brief.test"] = s.domains["slow.test"]
	for i := range n {
		s.disk.accept(i%2, s.message(fmt.Sprintf("u%d@slow.test", i), fmt.Sprintf("u%d@brief.test", i)))
		s.run(s.now.Sub(start) + time.Millisecond)
	}
	s.finishDisk(2 * n)
	expired := 0
	for _, e := range s.log {
		switch brief := strings.HasSuffix(e.address, "@brief.test"); {
		case e.state == message.Expired && brief:
			if expired++; e.at < 2*time.Minute || e.out.Attempt > 0 || e.out.Enhanced != "4.4.7" {
				t.Fatalf("%+v", e)
			}
		case e.state != message.Delivered:
			t.Fatalf("%+v", e)
		}
	}
	if expired == 0 {
		t.Error("nothing expired")
	}
}
