package mx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestExchangers(t *testing.T) {
	r := newResolver(t, world(t), nil)
	expect(t, r, Exchangers, map[string]string{
		"one.example": ofOne, "two.example": ofTwo, "[ipv6:2001:db8::1]": "0 2001:db8::1 2001:db8::1",
	})
	if a := find(t, r, Exchangers, "two.example"); a.Key != "mx1.example;mx2.example,mx3.example" {
		t.Errorf("key %q", a.Key)
	}
}

func TestAddresses(t *testing.T) {
	expect(t, newResolver(t, world(t), nil), Addresses, map[string]string{
		"mx1.example": "0 mx1.example 192.0.2.1 2001:db8::1", "127.0.0.1": "0 127.0.0.1 127.0.0.1", "::1": "0 ::1 ::1", "gone.example": "permanent 550 5.4.4",
	})
}

// TestLookupsAreShared holds the server's reply back until everybody has asked.
func TestLookupsAreShared(t *testing.T) {
	const askers = 50
	z := newZone(t, records...)
	all := make(chan struct{})
	z.hook("one.example MX", func(dns.ResponseWriter, *dns.Msg, *dns.Msg) bool { <-all; return false })
	r := newResolver(t, z, func(o *Options) { o.Timeout = 10 * time.Second })
	var done sync.WaitGroup
	done.Add(askers)
	for range askers {
		if !r.Lookup(Query{Exchangers, "one.example"}, func(a *Answer) { done.Done() }) {
			t.Fatal("not taken")
		}
	}
	close(all)
	done.Wait()
	if n := z.count("udp one.example MX"); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if n := r.figures.shared.Get(); n != askers-1 {
		t.Errorf("%d shared, want %d", n, askers-1)
	}
}

// TestHostsAreShared: domains with the same exchanger ask once for its addresses, also at the same time.
func TestHostsAreShared(t *testing.T) {
	z := newZone(t, "mx.example. 300 A 192.0.2.1")
	const domains = 40
	for i := range domains {
		z.add(t, fmt.Sprintf("d%d.example. 300 MX 10 mx.example.", i))
	}
	r := newResolver(t, z, func(o *Options) { o.Timeout = 10 * time.Second })
	var done sync.WaitGroup
	done.Add(domains)
	for i := range domains {
		r.Lookup(Query{Exchangers, fmt.Sprintf("d%d.example", i)}, func(a *Answer) {
			if a.Class != OK {
				t.Error(a.Text)
			}
			done.Done()
		})
	}
	done.Wait()
	if n := z.count("udp mx.example A"); n != 1 {
		t.Errorf("asked %d times for the host", n)
	}
}

func TestPendingLookupsAreBounded(t *testing.T) {
	z := newZone(t, records...)
	hold, begun := make(chan struct{}), make(chan struct{})
	z.hook("one.example MX", func(dns.ResponseWriter, *dns.Msg, *dns.Msg) bool { close(begun); <-hold; return false })
	r := newResolver(t, z, func(o *Options) { o.Workers, o.Pending, o.Timeout = 1, 2, 10*time.Second })
	var done sync.WaitGroup
	done.Add(3)
	ask := func(name string) bool { return r.Lookup(Query{Exchangers, name}, func(*Answer) { done.Done() }) }
	if !ask("one.example") {
		t.Fatal("the first is refused")
	}
	<-begun
	if !ask("two.example") || !ask("null.example") {
		t.Error("refused although there is room")
	}
	if ask("implicit.example") {
		t.Error("taken although there is no room")
	}
	close(hold)
	done.Wait()
	r.Close()
	if ask("one.example.net") {
		t.Error("taken by a closed resolver")
	}
}

func TestCloseAnswersWhatWaits(t *testing.T) {
	z := newZone(t, records...)
	begun := make(chan struct{})
	z.hook("one.example MX", func(dns.ResponseWriter, *dns.Msg, *dns.Msg) bool { close(begun); return true })
	r := newResolver(t, z, func(o *Options) { o.Workers, o.Timeout, o.Rounds = 1, time.Hour, 3 })
	got := make(chan *Answer, 2)
	r.Lookup(Query{Exchangers, "one.example"}, func(a *Answer) { got <- a })
	r.Lookup(Query{Exchangers, "two.example"}, func(a *Answer) { got <- a })
	<-begun
	r.Close()
	for range 2 {
		if a := <-got; a.Class != Temporary {
			t.Error(show(a))
		}
	}
}

func TestFind(t *testing.T) {
	z := world(t)
	begun, hold := make(chan struct{}), make(chan struct{})
	z.hook("two.example MX", func(dns.ResponseWriter, *dns.Msg, *dns.Msg) bool { close(begun); <-hold; return false })
	r := newResolver(t, z, func(o *Options) { o.Timeout = 10 * time.Second })
	a, err := r.Find(t.Context(), Query{Exchangers, "one.example"})
	if err != nil || show(a) != ofOne {
		t.Errorf("%v, %v", a, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	if _, err := r.Find(ctx, Query{Exchangers, "two.example"}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(hold)
	r.Close()
	if _, err := r.Find(t.Context(), Query{Exchangers, "three.example"}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// TestDomainsShareMemory: domains with the same exchangers and addresses hold one set of them, also where some cannot be used.
func TestDomainsShareMemory(t *testing.T) {
	z := world(t, "lo.example. 300 A 127.0.0.1")
	for i := range 3 {
		z.add(t, fmt.Sprintf("d%d.example. 300 MX 10 mx1.example.", i), fmt.Sprintf("d%d.example. 300 MX 20 mx2.example.", i))
		z.add(t, fmt.Sprintf("e%d.example. 300 MX 10 mx2.example.", i), fmt.Sprintf("e%d.example. 300 MX 20 lo.example.", i))
	}
	z.add(t, "other.example. 300 MX 10 mx1.example.", "other.example. 300 MX 30 mx2.example.")
	r := newResolver(t, z, nil)
	first := map[string]*Answer{}
	for _, name := range []string{"d0.example", "e0.example", "d1.example", "e1.example", "d2.example", "e2.example"} {
		a := find(t, r, Exchangers, name)
		if first[name[:1]] == nil {
			first[name[:1]] = a
		}
		if &a.Hosts[0] != &first[name[:1]].Hosts[0] || a.Query.Name != name {
			t.Errorf("%s: %s has memory of its own", name, show(a))
		}
	}
	if got := show(find(t, r, Exchangers, "other.example")); got != "10 mx1.example 192.0.2.1 2001:db8::1 | 30 mx2.example 192.0.2.2" {
		t.Error(got)
	}
}

func TestMetrics(t *testing.T) {
	z := world(t)
	z.fail("fail.example MX", dns.RcodeServerFailure)
	z.hook("junk.example MX", garble)
	r := newResolver(t, z, nil)
	for _, name := range []string{"one.example", "absent.example", "fail.example", "junk.example"} {
		find(t, r, Exchangers, name)
	}
	r.Cached(Query{Exchangers, "one.example"})
	r.Cached(Query{Exchangers, "unknown.example"})
	var b bytes.Buffer
	r.Metrics().WritePrometheus(&b)
	for _, want := range []string{
		`mailrace_dns_cache_hits_total 1`, `mailrace_dns_cache_misses_total 1`, `mailrace_dns_cache_entries 5`, `mailrace_dns_cache_room 1002`,
		`mailrace_dns_lookups_total{result="ok"} 1`, `mailrace_dns_lookups_total{result="permanent"} 1`, `mailrace_dns_lookups_total{result="temporary"} 2`,
		fmt.Sprintf(`mailrace_dns_queries_total{server="%s",result="answer"} 3`, z.addr), fmt.Sprintf(`mailrace_dns_queries_total{server="%s",result="nxdomain"} 1`, z.addr),
		fmt.Sprintf(`mailrace_dns_queries_total{server="%s",result="servfail"} 1`, z.addr), fmt.Sprintf(`mailrace_dns_queries_total{server="%s",result="malformed"} 1`, z.addr),
		fmt.Sprintf(`mailrace_dns_query_duration_seconds_count{server="%s"} 6`, z.addr), fmt.Sprintf(`mailrace_dns_server_up{server="%s"} 1`, z.addr),
	} {
		if !strings.Contains(b.String(), want+"\n") {
			t.Errorf("there is no %s", want)
		}
	}
	if t.Failed() {
		t.Log(b.String())
	}
}
