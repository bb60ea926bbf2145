package mx

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// records is the world of the tests. The comments name the rows of HOSTILE.md 3.6.
var records = []string{
	"one.example. 300 MX 10 mx1.example.", "mx1.example. 300 A 192.0.2.1", "mx1.example. 300 AAAA 2001:db8::1",
	"two.example. 300 MX 20 mx2.example.", "two.example. 300 MX 10 mx1.example.", "two.example. 300 MX 20 mx3.example.",
	"mx2.example. 300 A 192.0.2.2", "mx3.example. 300 A 192.0.2.3",
	"null.example. 300 MX 0 .",                                                 // D1
	"null.example. 300 A 192.0.2.9",                                            // D1: never the address
	"halfnull.example. 300 MX 0 .", "halfnull.example. 300 MX 10 mx1.example.", // D2
	"implicit.example. 300 A 192.0.2.4", "implicit.example. 300 AAAA 2001:db8::4", // D3
	"nothing.example. 300 TXT x",                                                         // D4: NODATA
	"deadmx.example. 300 MX 10 gone.example.",                                            // D4: the host does not exist
	"aliasmx.example. 300 MX 10 alias.example.", "alias.example. 300 CNAME mx1.example.", // D5
	"circle.example. 300 MX 10 c1.example.", "c1.example. 300 CNAME c2.example.", "c2.example. 300 CNAME c1.example.", // D5
	"aliasdomain.example. 300 CNAME two.example.",                                  // D6
	"aliashost.example. 300 CNAME implicit.example.",                               // D6 with an implicit MX
	"iptext.example. 300 MX 10 192.0.2.1.",                                         // D7
	"ipand.example. 300 MX 10 192.0.2.1.", "ipand.example. 300 MX 20 mx2.example.", // D7
	`badname.example. 300 MX 10 a\032b.example.`,                                            // D7
	"selfbest.example. 300 MX 10 self.example.", "selfbest.example. 300 MX 20 mx2.example.", // D9
	"selfmid.example. 300 MX 10 mx1.example.", "selfmid.example. 300 MX 20 self.example.", "selfmid.example. 300 MX 20 mx2.example.", "selfmid.example. 300 MX 30 mx3.example.",
	"selfaddr.example. 300 MX 10 other.example.", "other.example. 300 A 192.0.2.77", // D9 by address
	"inside.example. 300 MX 10 lo.example.", "lo.example. 300 A 127.0.0.1", "lo.example. 300 AAAA ::1", // D8
	"mixed.example. 300 MX 10 mix.example.", "mix.example. 300 A 10.0.0.1", "mix.example. 300 A 192.0.2.8", // D8
	"insideimplicit.example. 300 A 169.254.169.254", // D8
}

func TestExchangers(t *testing.T) {
	z := newZone(t, records...)
	r := newResolver(t, z, func(o *Options) { o.OwnAddrs = []netip.Addr{netip.MustParseAddr("192.0.2.77")} })
	for _, c := range []struct{ name, want string }{
		{"one.example", "10 mx1.example 192.0.2.1 2001:db8::1"},
		{"two.example", "10 mx1.example 192.0.2.1 2001:db8::1 | 20 mx2.example 192.0.2.2 | 20 mx3.example 192.0.2.3"},
		{"null.example", "permanent 556 5.1.10"},
		{"halfnull.example", "10 mx1.example 192.0.2.1 2001:db8::1"},
		{"implicit.example", "0 implicit.example 192.0.2.4 2001:db8::4"},
		{"absent.example", "permanent 550 5.1.2"},
		{"nothing.example", "permanent 550 5.4.4"},
		{"deadmx.example", "permanent 550 5.4.4"},
		{"aliasmx.example", "10 alias.example 192.0.2.1 2001:db8::1"},
		{"circle.example", "temporary 451 4.4.3"},
		{"aliasdomain.example", "10 mx1.example 192.0.2.1 2001:db8::1 | 20 mx2.example 192.0.2.2 | 20 mx3.example 192.0.2.3"},
		{"aliashost.example", "0 aliashost.example 192.0.2.4 2001:db8::4"},
		{"iptext.example", "permanent 550 5.4.4"},
		{"ipand.example", "20 mx2.example 192.0.2.2"},
		{"badname.example", "permanent 550 5.4.4"},
		{"selfbest.example", "permanent 550 5.4.6"},
		{"selfmid.example", "10 mx1.example 192.0.2.1 2001:db8::1"},
		{"selfaddr.example", "permanent 550 5.4.6"},
		{"inside.example", "permanent 550 5.4.4"},
		{"mixed.example", "10 mix.example 192.0.2.8"},
		{"insideimplicit.example", "permanent 550 5.4.4"},
		{"[192.0.2.1]", "0 192.0.2.1 192.0.2.1"},
		{"[ipv6:2001:db8::1]", "0 2001:db8::1 2001:db8::1"},
		{"[ipv6:::ffff:127.0.0.1]", "permanent 550 5.4.4"},
		{"[127.0.0.1]", "permanent 550 5.4.4"},
		{"[192.0.2.77]", "permanent 550 5.4.6"},
		{"[2001:db8::1]", "permanent 550 5.1.2"},
		{"[192.0.2.1", "permanent 550 5.1.2"},
		{"[x]", "permanent 550 5.1.2"},
	} {
		if got := show(find(t, r, Exchangers, c.name)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	if a := find(t, r, Exchangers, "two.example"); a.Key != "mx1.example;mx2.example,mx3.example" {
		t.Errorf("key %q", a.Key)
	}
	if a, b := find(t, r, Exchangers, "two.example"), find(t, r, Exchangers, "aliasdomain.example"); a.Key != b.Key || a.Hash != b.Hash {
		t.Error("the same exchangers are two sites")
	}
}

func TestAddresses(t *testing.T) {
	r := newResolver(t, newZone(t, records...), nil)
	for _, c := range []struct{ name, want string }{
		{"mx1.example", "0 mx1.example 192.0.2.1 2001:db8::1"},
		{"lo.example", "0 lo.example 127.0.0.1 ::1"}, // what the operator names is not filtered
		{"127.0.0.1", "0 127.0.0.1 127.0.0.1"},
		{"::1", "0 ::1 ::1"},
		{"gone.example", "permanent 550 5.4.4"},
	} {
		if got := show(find(t, r, Addresses, c.name)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// D4: no rcode but NOERROR and NXDOMAIN is a verdict, and none of MX falls back to the address.
func TestNoVerdict(t *testing.T) {
	for _, rcode := range []int{dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeFormatError, dns.RcodeNotImplemented} {
		z := newZone(t, records...)
		for _, key := range []string{"implicit.example MX", "mx1.example A", "mx1.example AAAA"} {
			z.fail(key, rcode)
		}
		r := newResolver(t, z, nil)
		for name, want := range map[string]string{
			"implicit.example": "temporary 451 4.4.3",
			"one.example":      "temporary 451 4.4.3",
			"two.example":      "20 mx2.example 192.0.2.2 | 20 mx3.example 192.0.2.3",
		} {
			if got := show(find(t, r, Exchangers, name)); got != want {
				t.Errorf("%s: %s: %s, want %s", dns.RcodeToString[rcode], name, got, want)
			}
		}
		if n := z.count("udp implicit.example A"); n != 0 {
			t.Errorf("%s: asked for the address", dns.RcodeToString[rcode])
		}
	}
}

func TestSilentServerAndTheNext(t *testing.T) {
	dead, z := newZone(t), newZone(t, records...)
	dead.hook("one.example MX", func(dns.ResponseWriter, *dns.Msg, *dns.Msg) bool { return true })
	r := newResolver(t, dead, nil)
	if got := show(find(t, r, Exchangers, "one.example")); got != "temporary 451 4.4.3" {
		t.Errorf("alone: %s", got)
	}
	r = newResolver(t, dead, func(o *Options) { o.Servers = append(o.Servers, z.addr) })
	if got := show(find(t, r, Exchangers, "one.example")); got != "10 mx1.example 192.0.2.1 2001:db8::1" {
		t.Errorf("with another: %s", got)
	}
	before := dead.count("udp mx2.example A")
	if got := show(find(t, r, Addresses, "mx2.example")); got != "0 mx2.example 192.0.2.2" || dead.count("udp mx2.example A") != before {
		t.Errorf("the server that answered is not asked first: %s", got)
	}
}

// D11
func TestTruncatedGoesToTCP(t *testing.T) {
	z := newZone(t, records...)
	cut := func(w dns.ResponseWriter, _, reply *dns.Msg) bool {
		if w.LocalAddr().Network() == "udp" {
			reply.Truncated = true
			reply.Answer = reply.Answer[:1]
		}
		return false
	}
	z.hook("two.example MX", cut)
	r := newResolver(t, z, nil)
	if got := find(t, r, Exchangers, "two.example"); len(got.Hosts) != 3 || z.count("tcp two.example MX") != 1 {
		t.Errorf("%s, %d over TCP", show(got), z.count("tcp two.example MX"))
	}
	z.hook("one.example MX", func(w dns.ResponseWriter, _, reply *dns.Msg) bool {
		reply.Truncated = true
		return false
	})
	if got := show(find(t, r, Exchangers, "one.example")); got != "temporary 451 4.4.3" {
		t.Errorf("truncated over TCP as well: %s", got)
	}
}

// D12: forged replies before the true one are passed over; where no true one follows there is no verdict.
func TestForgedReplies(t *testing.T) {
	forgeries := map[string]func(m *dns.Msg){
		"wrong id":        func(m *dns.Msg) { m.Id++ },
		"not a reply":     func(m *dns.Msg) { m.Response = false },
		"wrong name":      func(m *dns.Msg) { m.Question[0].Name = "evil.example." },
		"wrong type":      func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeA },
		"wrong class":     func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
		"no question":     func(m *dns.Msg) { m.Question = nil },
		"two questions":   func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) },
		"id, then header": func(m *dns.Msg) { m.Id ^= 0xffff },
	}
	for name, forge := range forgeries {
		z := newZone(t, records...)
		z.add(t, "evil.example. 300 A 192.0.2.66")
		for _, alone := range []bool{false, true} {
			z.hook("one.example MX", func(w dns.ResponseWriter, _, reply *dns.Msg) bool {
				bad := reply.Copy()
				bad.Answer[0].(*dns.MX).Mx = "evil.example."
				forge(bad)
				p, _ := bad.Pack()
				w.Write(p)
				return alone
			})
			want := "10 mx1.example 192.0.2.1 2001:db8::1"
			if alone {
				want = "temporary 451 4.4.3"
			}
			r := newResolver(t, z, func(o *Options) { o.Timeout = 100 * time.Millisecond })
			if got := show(find(t, r, Exchangers, "one.example")); got != want {
				t.Errorf("%s, alone %v: %s, want %s", name, alone, got, want)
			}
		}
	}
}

// D12: records of other names, other classes and in the additional section are not believed.
func TestForeignRecords(t *testing.T) {
	z := newZone(t, records...)
	z.hook("one.example MX", func(w dns.ResponseWriter, _, reply *dns.Msg) bool {
		for _, line := range []string{"two.example. 300 MX 0 evil.example.", "one.example. 300 CH MX 0 evil.example."} {
			rr, err := dns.NewRR(line)
			if err != nil {
				t.Error(err)
			}
			reply.Answer = append(reply.Answer, rr)
		}
		extra, _ := dns.NewRR("mx1.example. 300 A 192.0.2.66")
		reply.Extra = append(reply.Extra, extra)
		return false
	})
	if got := show(find(t, newResolver(t, z, nil), Exchangers, "one.example")); got != "10 mx1.example 192.0.2.1 2001:db8::1" {
		t.Error(got)
	}
}

// D13
func TestMalformedReplies(t *testing.T) {
	for name, tail := range map[string][]byte{
		"short MX":          {0xc0, 12, 0, 15, 0, 1, 0, 0, 1, 0, 0, 1, 5},
		"name past the end": {0xc0, 12, 0, 15, 0, 1, 0, 0, 1, 0, 0, 4, 0, 1, 63, 'a'},
		"pointer to itself": {0xc0, 12, 0, 15, 0, 1, 0, 0, 1, 0, 0, 4, 0, 1, 0xc0, 43},
		"length past end":   {0xc0, 12, 0, 15, 0, 1, 0, 0, 1, 0, 0xff, 0xff, 0, 1},
		"nothing":           {},
	} {
		z := newZone(t, records...)
		z.hook("one.example MX", func(w dns.ResponseWriter, question, _ *dns.Msg) bool {
			question.Extra = nil
			p, _ := question.Pack()
			p[2] |= flagQR
			binary.BigEndian.PutUint16(p[6:], 1) // one answer
			w.Write(append(p, tail...))
			return true
		})
		a := find(t, newResolver(t, z, nil), Exchangers, "one.example")
		if a.Class == OK || name != "nothing" && show(a) != "temporary 451 4.4.3" {
			t.Errorf("%s: %s", name, show(a))
		}
	}
}

// D14
func TestLifetimes(t *testing.T) {
	z := newZone(t,
		"zero.example. 0 MX 10 h.example.", "h.example. 86400 A 192.0.2.1",
		"huge.example. 2147483647 MX 10 g.example.", "g.example. 2147483647 A 192.0.2.1",
		"hour.example. 3600 MX 10 h.example.",
		"shorthost.example. 3600 MX 10 s.example.", "s.example. 60 A 192.0.2.1",
		"null.example. 86400 MX 0 .",
	)
	z.fail("fail.example MX", dns.RcodeServerFailure)
	c := newClock()
	r := newResolver(t, z, func(o *Options) { o.Now = c.Now })
	for _, x := range []struct {
		name string
		want time.Duration
	}{
		{"zero.example", 30 * time.Second},
		{"huge.example", 24 * time.Hour},
		{"hour.example", time.Hour},
		{"shorthost.example", time.Minute},
		{"null.example", 15 * time.Minute},
		{"absent.example", 2 * time.Minute}, // the minimum of the SOA record
		{"fail.example", 30 * time.Second},
	} {
		q := Query{Exchangers, x.name}
		if got := find(t, r, Exchangers, x.name).Expires.Sub(c.Now()); got != x.want {
			t.Errorf("%s is believed for %v, want %v", x.name, got, x.want)
		}
		asked := z.count("udp " + x.name + " MX")
		c.advance(x.want - 1)
		if _, ok := r.Cached(q); !ok {
			t.Errorf("%s is forgotten before its time", x.name)
		}
		find(t, r, Exchangers, x.name)
		if n := z.count("udp " + x.name + " MX"); n != asked || asked != 1 {
			t.Errorf("%s: asked %d times, then %d", x.name, asked, n)
		}
		c.advance(1)
		if _, ok := r.Cached(q); ok {
			t.Errorf("%s is believed beyond its time", x.name)
		}
		find(t, r, Exchangers, x.name)
		if n := z.count("udp " + x.name + " MX"); n != 2 {
			t.Errorf("%s: asked %d times", x.name, n)
		}
	}
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

func TestExchangersAreBounded(t *testing.T) { // D10
	z := newZone(t)
	for i := range 200 {
		z.add(t, fmt.Sprintf("many.example. 300 MX %d h%d.example.", i, i))
		for j := range 20 {
			z.add(t, fmt.Sprintf("h%d.example. 300 A 192.0.2.%d", i, j+1))
		}
	}
	a := find(t, newResolver(t, z, nil), Exchangers, "many.example")
	if len(a.Hosts) != exchangersMost || len(a.Hosts[0].Addrs) != addressesMost || a.Hosts[0].Name != "h0.example" {
		t.Errorf("%d hosts", len(a.Hosts))
	}
	if z.count("tcp many.example MX") != 1 || z.count("udp h50.example A") != 0 {
		t.Error("asked for hosts beyond the bound")
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache(1000)
	now := time.Unix(1000, 0)
	used := Query{Exchangers, "used"}
	c.put(&Answer{Query: used, Expires: now.Add(time.Hour)}, now)
	for i := range 20_000 {
		c.put(&Answer{Query: Query{Exchangers, fmt.Sprint(i)}, Expires: now.Add(time.Hour)}, now)
		if c.get(used, now) == nil {
			t.Fatalf("what is in use was thrown out at %d", i)
		}
	}
	if n := c.len(); n != 1024 {
		t.Errorf("%d entries", n)
	}
}

func TestNormal(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, c := range []struct{ in, want string }{
		{"example.com", "example.com"}, {"Example.COM.", "example.com"}, {"_x.example", "_x.example"}, {"bücher.example", "xn--bcher-kva.example"},
		{"[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"}, {"x", "x"}, {long + ".example", long + ".example"},
		{"", ""}, {".", ""}, {"a..b", ""}, {".a", ""}, {"a b", ""}, {"-a.b", ""}, {"a-.b", ""}, {long + "a.example", ""}, {strings.Repeat("abcdefg.", 32), ""},
		{"a\x00b", ""}, {"a/b", ""},
	} {
		got, err := Normal(c.in)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q: %q, %v, want %q", c.in, got, err, c.want)
		}
	}
}

func TestPublic(t *testing.T) { // D8
	for _, a := range []string{"8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "2002:808:808::1", "64:ff9b::808:808"} {
		if !public(netip.MustParseAddr(a)) {
			t.Errorf("%s is public", a)
		}
	}
	for _, a := range []string{
		"0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.1",
		"::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "fe80::1", "fc00::1", "fd12::1", "ff02::1", "fec0::1", "2001:db8::1", "64:ff9b::7f00:1", "2002:7f00:1::1", "64:ff9b:1::1",
	} {
		if public(netip.MustParseAddr(a)) {
			t.Errorf("%s is not public", a)
		}
	}
}

// FuzzReply feeds the adapter whatever a server may send. It must neither panic nor take a reply to another question.
func FuzzReply(f *testing.F) {
	m := new(dns.Msg)
	m.SetQuestion("one.example.", dns.TypeMX)
	m.Id = 0x1234
	for _, lines := range [][]string{{"one.example. 300 MX 10 mx1.example."}, {"one.example. 300 CNAME two.example.", "two.example. 5 MX 0 ."}} {
		reply := new(dns.Msg)
		reply.SetReply(m)
		for _, line := range lines {
			rr, _ := dns.NewRR(line)
			reply.Answer = append(reply.Answer, rr)
		}
		p, _ := reply.Pack()
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		reply, truncated, err := parse(p, m)
		if err != nil || truncated {
			return
		}
		if reply.Id != m.Id || !strings.EqualFold(reply.Question[0].Name, "one.example.") {
			t.Fatal("took a reply to another question")
		}
		var set rrset
		name := "one.example"
		for range 3 {
			if rrs := set.take(reply.Answer, name, dns.TypeMX); len(rrs) > 0 {
				hosts, null := named(rrs)
				if null && len(hosts) > 0 {
					t.Fatal("a null MX with hosts")
				}
				for _, h := range hosts {
					if !valid(h.Name) {
						t.Fatalf("took the name %q", h.Name)
					}
				}
			}
			set.take(reply.Answer, name, dns.TypeA)
			name = set.cname(reply.Answer, name)
		}
		negativeTTL(authority(reply))
	})
}

// BenchmarkCached asks for names in the order of memory, as a name that just arrived is at hand; what the cache has of them is anywhere.
func BenchmarkCached(b *testing.B) {
	for _, n := range []int{1000, 1 << 20} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := newCache(2 * n)
			r := &Resolver{opts: Options{Now: time.Now}, cache: c}
			r.register()
			names := make([]string, n)
			for i := range names {
				names[i] = fmt.Sprintf("domain%d.example", i)
			}
			expires := time.Now().Add(time.Hour)
			for _, i := range rand.Perm(n) {
				c.put(&Answer{Query: Query{Exchangers, strings.Clone(names[i])}, Expires: expires}, time.Now())
			}
			b.ReportAllocs()
			b.ResetTimer()
			missed := 0
			for i := range b.N {
				if _, ok := r.Cached(Query{Exchangers, names[i%n]}); !ok {
					missed++
				}
			}
			if missed > b.N/50+10 { // a set may overflow
				b.Errorf("%d of %d are not known", missed, b.N)
			}
		})
	}
}

func TestCachedDoesNotAllocate(t *testing.T) {
	r := newResolver(t, newZone(t, records...), nil)
	find(t, r, Exchangers, "one.example")
	if n := testing.AllocsPerRun(100, func() { r.Cached(Query{Exchangers, "one.example"}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
