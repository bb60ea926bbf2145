package router

import (
	"fmt"
	"net/netip"
	"testing"

	"mailrace/router/mx"
)

// TestSourceOf: what carries no mail comes from where mail without labels would, from the same source each time, as long as that is in service.
func TestSourceOf(t *testing.T) {
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	s := pooled(t, 1, "a b/4 c/6 d/4", map[string]string{"0": "a:3 b:1", "domain": "b:1", "exchanger": "c:1 a:1", "tenant": "d:1"}, func(o *Options) {
		o.Policies = []Policy{
			{Domains: []string{"special.test"}, Pool: "domain"}, {MX: []string{"*.provider.test"}, Pool: "exchanger"}, {Tenants: []string{"t"}, Pool: "tenant"},
		}
	})
	byMX, byHost, pooledHost := &Route{Kind: MX}, &Route{Kind: Host}, &Route{Kind: Host, Pool: "domain"}
	at := &mx.Answer{Query: mx.Query{Kind: mx.Exchangers}, Hosts: []mx.Host{{Name: "mx.provider.test"}}}
	for _, c := range []struct {
		route  *Route
		domain string
		answer *mx.Answer
		to     netip.Addr
		want   string
	}{
		{byMX, "special.test", nil, four, "b true"},
		{byMX, "special.test", at, four, "b true"},
		{byMX, "special.test", nil, six, " false"},
		{byMX, "x.test", nil, six, "a true"},
		{nil, "x.test", nil, six, "a true"},
		{byMX, "x.test", at, four, "a true"},
		{byHost, "x.test", nil, four, " true"},
		{pooledHost, "x.test", nil, four, "b true"},
	} {
		name, ok := s.router.SourceOf(c.route, c.domain, c.answer, c.to)
		if got := fmt.Sprint(name, " ", ok); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
	n := map[string]int{}
	of := func(i int) string {
		name, _ := s.router.SourceOf(byMX, fmt.Sprintf("d%d.test", i), nil, four)
		return name
	}
	for i := range 4000 {
		first := of(i)
		n[first]++
		if again := of(i); again != first {
			t.Fatalf("%q, then %q for the same domain", first, again)
		}
	}
	if n["a"] < 2800 || n["b"] < 800 || n["a"]+n["b"] != 4000 {
		t.Errorf("shares %v", n)
	}
	scheduler := s.router.schedulers[0]
	a, b := s.router.sources.all[0], s.router.sources.all[1]
	scheduler.takeOut(a, true, "test")
	for i := range 20 {
		if got := of(i); got != "b" {
			t.Errorf("from %q while a is out", got)
		}
	}
	scheduler.takeOut(b, true, "test")
	if got := of(0); got != "a" {
		t.Errorf("from %q while all are out", got)
	}
	plain := newSim(t, 1, 7, nil)
	if name, ok := plain.router.SourceOf(byMX, "x.test", nil, four); name != "" || !ok {
		t.Errorf("%q, %v without pools", name, ok)
	}
}
