package mx

import (
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestRefreshAhead: who asks in the last tenth of an answer's time has it renewed, if it is in use, and does not wait.
func TestRefreshAhead(t *testing.T) {
	c := newClock()
	z := world(t)
	r := newResolver(t, z, func(o *Options) { o.Now = c.Now })
	q := Query{Exchangers, "one.example"}
	known := func() *Answer {
		t.Helper()
		a, ok := r.Cached(q)
		if !ok {
			t.Fatal("not known")
		}
		return a
	}
	first := find(t, r, Exchangers, q.Name)
	c.advance(270 * time.Second)
	known()
	if n := z.count("udp one.example MX"); n != 1 {
		t.Errorf("asked %d times for what nobody used", n-1)
	}
	renewed := make(chan struct{})
	z.hook("mx1.example AAAA", func(dns.ResponseWriter, *dns.Msg, *dns.Msg) bool { defer close(renewed); return false })
	for range 5 {
		if a := known(); a != first {
			t.Error("another answer")
		}
	}
	<-renewed
	second := settled(t, r, q)
	if got := second.Expires.Sub(c.Now()); got != 5*time.Minute {
		t.Errorf("it is believed for another %v", got)
	}
	if mx, a := z.count("udp one.example MX"), z.count("udp mx1.example A"); mx != 2 || a != 2 {
		t.Errorf("asked %d times for MX, %d for A", mx, a)
	}
}

// settled waits for the lookup of q that is under way, if one is, and returns what is known then.
func settled(t *testing.T, r *Resolver, q Query) *Answer {
	t.Helper()
	r.mu.Lock()
	p := r.waiting[q]
	var done chan struct{}
	if p != nil {
		done = make(chan struct{})
		p.done = append(p.done, func(*Answer) { close(done) })
	}
	r.mu.Unlock()
	if done != nil {
		<-done
	}
	a, _ := r.Cached(q)
	return a
}

// A refresh that fails costs nothing: the answer holds until its time is over, and then it is stale.
func TestRefreshFails(t *testing.T) {
	c := newClock()
	z := world(t)
	r := newResolver(t, z, func(o *Options) { o.Now = c.Now })
	q := Query{Exchangers, "one.example"}
	first := find(t, r, Exchangers, q.Name)
	z.hook("*", refuse(dns.RcodeServerFailure))
	c.advance(271 * time.Second)
	r.Cached(q)
	r.Cached(q)
	if a := settled(t, r, q); a != first {
		t.Errorf("%+v", a)
	}
	asked := len(z.sightings())
	r.Cached(q)
	if settled(t, r, q); len(z.sightings()) != asked {
		t.Error("it is not left alone for a while")
	}
	c.advance(29 * time.Second)
	if _, ok := r.Cached(q); ok {
		t.Error("believed beyond its time without asking")
	}
}

// TestStale: while no server gives a verdict, what was known is used beyond its time. RFC 8767
func TestStale(t *testing.T) {
	for name, fault := range map[string]hook{"malformed": garble, "SERVFAIL": refuse(dns.RcodeServerFailure)} {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			z := world(t)
			r := newResolver(t, z, func(o *Options) { o.Now, o.StaleMax = c.Now, time.Hour })
			q := Query{Exchangers, "one.example"}
			find(t, r, Exchangers, q.Name)
			z.hook("*", fault)
			c.advance(301 * time.Second)
			a := find(t, r, Exchangers, q.Name)
			if show(a) != ofOne || !a.Stale || a.Expires.Sub(c.Now()) != staleTTL {
				t.Fatalf("%s, stale %v, for %v", show(a), a.Stale, a.Expires.Sub(c.Now()))
			}
			if b, ok := r.Cached(q); !ok || b != a || r.figures.stale.Get() == 0 {
				t.Error("the stale answer is not used by those who come next")
			}
			c.advance(time.Hour - 2*time.Second)
			if a := find(t, r, Exchangers, q.Name); !a.Stale {
				t.Errorf("just before the end: %s", show(a))
			}
			c.advance(time.Minute)
			if a := find(t, r, Exchangers, q.Name); show(a) != noService {
				t.Errorf("stale for ever: %s", show(a))
			}
			z.hook("*", nil)
			c.advance(10 * time.Minute)
			if a := find(t, r, Exchangers, q.Name); show(a) != ofOne || a.Stale {
				t.Errorf("when the server is back: %s", show(a))
			}
		})
	}
}

// What would bounce mail is never used beyond its time, nor what DNSSEC says is forged; nor do texts and TLSA records outlive their time.
func TestNeverStale(t *testing.T) {
	for name, x := range map[string]struct {
		kind  Kind
		name  string
		fault hook
	}{
		"null MX":      {Exchangers, "null.example", garble},
		"no domain":    {Exchangers, "absent.example", garble},
		"no addresses": {Exchangers, "nothing.example", refuse(dns.RcodeServerFailure)},
		"forged":       {Exchangers, "one.example", forged},
		"text":         {Texts, "text.example", garble},
		"TLSA":         {Associations, AssociationsOf("mx1.example", 25).Name, garble},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			z := world(t, "null.example. 300 MX 0 .", "nothing.example. 300 TXT x", "text.example. 300 TXT x", "_25._tcp.mx1.example. 300 TLSA 3 1 1 00")
			z.sign("example")
			r := newResolver(t, z, func(o *Options) {
				trusting(o)
				o.Now = c.Now
			})
			before := find(t, r, x.kind, x.name)
			if show(before) == noService {
				t.Fatal("no verdict to begin with")
			}
			z.hook("*", x.fault)
			c.advance(16 * time.Minute)
			if a := find(t, r, x.kind, x.name); show(a) != noService {
				t.Errorf("%s", show(a))
			}
		})
	}
}

// forged is a hook that answers as a validating server does that finds a forgery. RFC 8914
func forged(_ dns.ResponseWriter, _, reply *dns.Msg) bool {
	reply.Rcode, reply.Answer = dns.RcodeServerFailure, nil
	opt := reply.IsEdns0()
	opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeDNSBogus})
	return false
}

// TestStaleHost: one host of which nothing is known any more does not hold up the others, and is used as it was.
func TestStaleHost(t *testing.T) {
	c := newClock()
	z := world(t)
	r := newResolver(t, z, func(o *Options) { o.Now = c.Now })
	find(t, r, Exchangers, "two.example")
	z.fail("mx2.example A", dns.RcodeServerFailure)
	z.fail("mx2.example AAAA", dns.RcodeServerFailure)
	z.set(t, "mx3.example A", "mx3.example. 300 A 192.0.2.33")
	c.advance(301 * time.Second)
	a := find(t, r, Exchangers, "two.example")
	if want := ofOne + " | 20 mx2.example 192.0.2.2 | 20 mx3.example 192.0.2.33"; show(a) != want || !a.Stale {
		t.Errorf("%s, stale %v", show(a), a.Stale)
	}
}

// TestExchangersOutliveAddresses: while the MX records hold, only addresses are asked for.
func TestExchangersOutliveAddresses(t *testing.T) {
	c := newClock()
	z := newZone(t, "long.example. 3600 MX 10 h.example.", "long.example. 3600 MX 20 gone.example.", "h.example. 60 A 192.0.2.1")
	r := newResolver(t, z, func(o *Options) { o.Now = c.Now })
	for range 10 {
		if got := show(find(t, r, Exchangers, "long.example")); got != "10 h.example 192.0.2.1" {
			t.Fatal(got)
		}
		c.advance(61 * time.Second)
	}
	if mx, a := z.count("udp long.example MX"), z.count("udp h.example A"); mx != 1 || a != 10 {
		t.Errorf("asked %d times for MX, %d for A", mx, a)
	}
	c.advance(time.Hour)
	find(t, r, Exchangers, "long.example")
	if mx := z.count("udp long.example MX"); mx != 2 {
		t.Errorf("asked %d times for MX", mx)
	}
}
