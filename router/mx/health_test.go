package mx

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// several is a resolver that asks these servers in turn.
func several(t *testing.T, c *clock, zones ...*zone) *Resolver {
	return newResolver(t, zones[0], func(o *Options) {
		o.Now = c.Now
		for _, z := range zones[1:] {
			o.Servers = append(o.Servers, z.addr)
		}
	})
}

// asks counts the questions that a server got since the last call.
func (z *zone) asks() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	n := len(z.seen)
	z.seen = nil
	return n
}

func TestFailover(t *testing.T) {
	for name, fault := range map[string]hook{"malformed": garble, "SERVFAIL": refuse(dns.RcodeServerFailure), "REFUSED": refuse(dns.RcodeRefused)} {
		first, second := world(t), world(t)
		r := several(t, newClock(), first, second)
		first.hook("*", fault)
		if got := show(find(t, r, Exchangers, "one.example")); got != ofOne {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestDeadServer: one that says nothing of use is put to the test, left alone for longer each time, and used again when it answers.
func TestDeadServer(t *testing.T) {
	c := newClock()
	dead, other := world(t), world(t)
	r := several(t, c, dead, other)
	n := 0
	ask := func() {
		t.Helper()
		n++
		if a := find(t, r, Texts, fmt.Sprintf("n%d.example", n)); a.Class != OK {
			t.Errorf("no verdict: %s", a.Text)
		}
	}
	dead.hook("*", garble)
	for range suspectAfter {
		ask()
	}
	if got := dead.asks(); got != suspectAfter {
		t.Errorf("%d questions before it is suspect", got)
	}
	ask()
	if got := dead.asks(); got != 1 || !r.Servers()[0].Dead {
		t.Errorf("%d questions, %+v: want one test", got, r.Servers()[0])
	}
	for _, wait := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		c.advance(wait - 1)
		ask()
		if got := dead.asks(); got != 0 {
			t.Errorf("asked %d times within %v", got, wait)
		}
		c.advance(1)
		ask()
		if got := dead.asks(); got != 1 {
			t.Errorf("asked %d times after %v", got, wait)
		}
	}
	for range 10 {
		c.advance(backoffMax)
		ask()
	}
	if wait := r.Servers()[0].Retry.Sub(c.Now()); wait != backoffMax {
		t.Errorf("it is left alone for %v", wait)
	}
	dead.hook("*", nil)
	dead.asks()
	c.advance(backoffMax)
	ask()
	if got := dead.asks(); got != 2 || r.Servers()[0].Dead {
		t.Errorf("%d questions, %+v: want the test and the question", got, r.Servers()[0])
	}
	other.asks()
	ask()
	if other.asks() != 0 {
		t.Error("the first server is not asked first again")
	}
}

// TestServerWithoutTheInternet answers what it has, and nothing else: it is asked last.
func TestServerWithoutTheInternet(t *testing.T) {
	c := newClock()
	cut, other := world(t), world(t)
	r := several(t, c, cut, other)
	cut.hook("*", garble)
	cut.hook(" NS", func(dns.ResponseWriter, *dns.Msg, *dns.Msg) bool { return false })
	for i := range suspectAfter + 1 {
		find(t, r, Texts, fmt.Sprintf("n%d.example", i))
	}
	if s := r.Servers()[0]; !s.Last || s.Dead {
		t.Fatalf("%+v", s)
	}
	cut.asks()
	find(t, r, Texts, "a.example")
	if cut.asks() != 0 {
		t.Error("asked first")
	}
	other.hook("*", garble)
	cut.hook("*", nil)
	if a := find(t, r, Texts, "b.example"); a.Class != OK || cut.asks() != 1 {
		t.Error("not asked when the other fails")
	}
	if s := r.Servers()[0]; s.Last {
		t.Errorf("%+v", s)
	}
}

// TestBrokenNamesKillNoServer: a single server with a healthy way to the root stays in use whatever single names do.
func TestBrokenNamesKillNoServer(t *testing.T) {
	z := world(t)
	r := several(t, newClock(), z)
	for i := range 5 * suspectAfter {
		name := fmt.Sprintf("broken%d.example", i)
		z.fail(name+" TXT", dns.RcodeServerFailure)
		if a := find(t, r, Texts, name); a.Class != Temporary {
			t.Error(a)
		}
	}
	if s := r.Servers()[0]; s.Dead {
		t.Errorf("%+v", s)
	}
	if got := show(find(t, r, Exchangers, "one.example")); got != ofOne {
		t.Error(got)
	}
}

// TestNobodyAnswers: with all servers dead, lookups fail at once and say when that may change.
func TestNobodyAnswers(t *testing.T) {
	closed, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := closed.LocalAddr().(*net.UDPAddr).AddrPort()
	closed.Close()
	c := newClock()
	r := newResolver(t, world(t), func(o *Options) { o.Servers, o.Now = []netip.AddrPort{addr}, c.Now })
	var last *Answer
	for i := range suspectAfter + 2 {
		last = find(t, r, Exchangers, fmt.Sprintf("n%d.example", i))
	}
	if show(last) != noService || !strings.Contains(last.Text, "no name server answers: the next attempt is in 1s") {
		t.Errorf("%s: %s", show(last), last.Text)
	}
}

// Servers that do not know EDNS0 say FORMERR or NOTIMP, perhaps without the question.
func TestServerWithoutEDNS(t *testing.T) {
	for _, rcode := range []int{dns.RcodeFormatError, dns.RcodeNotImplemented} {
		for _, bare := range []bool{false, true} {
			z := world(t)
			z.hook("*", func(w dns.ResponseWriter, question, reply *dns.Msg) bool {
				if question.IsEdns0() == nil {
					return false
				}
				reply.Rcode, reply.Answer, reply.Extra = rcode, nil, nil
				if bare {
					reply.Question = nil
				}
				return false
			})
			if got := show(find(t, newResolver(t, z, nil), Exchangers, "one.example")); got != ofOne {
				t.Errorf("%s, bare %v: %s", dns.RcodeToString[rcode], bare, got)
			}
		}
	}
}

func TestTrustIsOfAllOrNone(t *testing.T) {
	o := Options{
		Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("192.0.2.53:53")},
		Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	}
	if _, err := New(o); err == nil || !strings.Contains(err.Error(), "192.0.2.53:53") {
		t.Error(err)
	}
}

func TestClosedResolverSaysSo(t *testing.T) {
	r := newResolver(t, world(t), nil)
	r.Close()
	if _, err := r.query("one.example", dns.TypeMX); !errors.Is(err, errClosed) {
		t.Error(err)
	}
}
