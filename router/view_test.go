package router

import (
	"fmt"
	"testing"
	"time"

	"mailrace/router/mx"
)

// TestView shows a site before, while and after mail is there, and while it is backed off.
func TestView(t *testing.T) {
	s := newSim(t, 3, 1, func(o *Options) { o.SiteConnections = 7 })
	s.mx("x.test", "10 a 192.0.2.1", "20 b 192.0.2.2")
	h := s.host("192.0.2.1")
	h.latency = 10 * time.Second
	look := func() (v SiteView) {
		t.Helper()
		route := s.router.opts.Table.Match("x.test")
		q, _, ask := route.Question("x.test")
		answer, ok := s.Cached(q)
		if !ask || !ok {
			t.Fatalf("%v %v", ask, ok)
		}
		s.router.View(route, answer, "", func(found SiteView) { v = found })
		s.run(s.now.Sub(start))
		if v.Site != SiteName(route, answer) || v.Limit != 7 {
			t.Errorf("%+v", v)
		}
		return v
	}
	for i := range 20 {
		s.send(i%3, fmt.Sprintf("u%d@x.test", i))
	}
	s.run(s.latency)
	s.run(15 * time.Second)
	v := look()
	if !v.Known || v.Queued+v.InFlight == 0 || v.Connections == 0 || len(v.Addresses) != 2 || v.Addresses[0].Host != "a" || v.Failures != 0 {
		t.Errorf("%+v", v)
	}
	s.finish(20)
	s.run(s.now.Sub(start) + time.Hour)
	s.mx("x.test", "10 a 192.0.2.1", "20 b 192.0.2.2")
	s.send(0, "v@x.test")
	s.host("192.0.2.1").down, s.host("192.0.2.2").down = true, true
	s.run(s.now.Sub(start) + 2*time.Minute)
	if v = look(); v.Failures != 1 || !v.Backoff.After(s.now) || v.LastError == "" || v.Connections != 0 {
		t.Errorf("%+v", v)
	}
}

// TestViewOfNoSite: of a site that nobody needs only what is configured is told.
func TestViewOfNoSite(t *testing.T) {
	s := newSim(t, 2, 1, nil)
	route := &Route{Name: "r", Host: "h", Kind: Host, Port: 2525, Connections: 3}
	var v SiteView
	s.router.View(route, &mx.Answer{Key: "h", Hash: 5}, "", func(found SiteView) { v = found })
	s.run(time.Second)
	if v.Known || v.Site != "h:2525" || v.Route != "r" || v.Limit != 3 || v.Addresses != nil {
		t.Errorf("%+v", v)
	}
}

// TestPattern names the pattern by which Match finds a route.
func TestPattern(t *testing.T) {
	r := &Route{Domains: []string{"*", "*.Example.com", "*.b.example.com", "A.example.com"}}
	for domain, want := range map[string]string{
		"a.example.com": "A.example.com", "x.b.example.com": "*.b.example.com", "b.example.com": "*.Example.com", "example.com": "*", "xexample.com": "*",
	} {
		if got := r.Pattern(domain); got != want {
			t.Errorf("%s: %q, want %q", domain, got, want)
		}
	}
}
