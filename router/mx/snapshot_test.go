package mx

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestSnapshot shows what explain can show, and that looking leaves no trace.
func TestSnapshot(t *testing.T) {
	c := newClock()
	z := world(t, "all.example. 600 MX 10 mx1.example.", "all.example. 600 MX 20 gone.example.", "all.example. 600 MX 30 part.example.",
		"all.example. 600 MX 40 lo.example.", "all.example. 600 MX 45 fail.example.", "all.example. 600 MX 50 self.example.", "all.example. 600 MX 60 mx2.example.",
		"part.example. 100 A 192.0.2.5", "part.example. 100 A 10.0.0.1", "lo.example. 300 A 127.0.0.1")
	z.sign("example")
	z.fail("fail.example A", dns.RcodeServerFailure)
	r := newResolver(t, z, func(o *Options) {
		trusting(o)
		o.Now = c.Now
	})
	q := Query{Exchangers, "all.example"}
	if s := r.Snapshot(q); s.Answer != nil || s.Asking || len(z.sightings()) != 0 {
		t.Errorf("%+v", s)
	}
	a := find(t, r, Exchangers, q.Name)
	c.advance(20 * time.Second)
	hits := r.figures.hits.Get()
	s := r.Snapshot(q)
	if s.Answer != a || s.TTL != 10*time.Second || s.MXTTL != 580*time.Second || r.figures.hits.Get() != hits {
		t.Errorf("%+v", s)
	}
	var got []string
	for _, h := range s.Hosts {
		got = append(got, fmt.Sprintf("%d %s %v %v %v: %s", h.Preference, h.Name, h.Addrs, h.Kept, h.TTL, h.Fault))
	}
	want := []string{
		"10 mx1.example [192.0.2.1 2001:db8::1] [] 4m40s: ",
		"20 gone.example [] [] 1m40s: the host gone.example has no address",
		"30 part.example [192.0.2.5] [10.0.0.1] 1m20s: ",
		"40 lo.example [] [127.0.0.1] 4m40s: it has no public address",
		"45 fail.example [] [] 10s: name service: A fail.example: " + z.addr.String() + ": no verdict: SERVFAIL",
		"50 self.example [] [] 0s: it is this node",
		"60 mx2.example [] [] 0s: others are preferred to it: this node, or the first 10",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !s.Answer.Validated || !s.Hosts[0].Validated {
		t.Error("not validated")
	}
	z.hook("*", refuse(dns.RcodeServerFailure))
	c.advance(time.Hour)
	find(t, r, Exchangers, q.Name)
	if s := r.Snapshot(q); !s.Answer.Stale || s.Age <= 0 || s.TTL != staleTTL {
		t.Errorf("%+v", s)
	}
}
