package mx

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// records is the world of the tests. The tests of this file are named by the rows of HOSTILE.md 3.6.
var records = []string{
	"one.example. 300 MX 10 mx1.example.", "mx1.example. 300 A 192.0.2.1", "mx1.example. 300 AAAA 2001:db8::1",
	"two.example. 300 MX 20 mx3.example.", "two.example. 300 MX 10 mx1.example.", "two.example. 300 MX 20 mx2.example.",
	"mx2.example. 300 A 192.0.2.2", "mx3.example. 300 A 192.0.2.3",
	"implicit.example. 300 A 192.0.2.4", "implicit.example. 300 AAAA 2001:db8::4",
}

const (
	ofOne = "10 mx1.example 192.0.2.1 2001:db8::1"
	ofTwo = ofOne + " | 20 mx2.example 192.0.2.2 | 20 mx3.example 192.0.2.3"

	noService = "temporary 451 4.4.3"
)

// world is a zone with these records and the usual ones.
func world(t testing.TB, lines ...string) *zone { return newZone(t, append(lines, records...)...) }

// expect looks names up.
func expect(t *testing.T, r *Resolver, kind Kind, want map[string]string) {
	t.Helper()
	for name, want := range want {
		if got := show(find(t, r, kind, name)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestD1NullMX(t *testing.T) {
	z := world(t, "null.example. 300 MX 0 .", "null.example. 300 A 192.0.2.9", "high.example. 300 MX 10 .")
	expect(t, newResolver(t, z, nil), Exchangers, map[string]string{"null.example": "permanent 556 5.1.10", "high.example": "permanent 556 5.1.10"})
	if z.count("udp null.example A") != 0 {
		t.Error("asked for the address")
	}
}

func TestD2NullMXBesideOthers(t *testing.T) {
	z := world(t, "half.example. 300 MX 0 .", "half.example. 300 MX 10 mx1.example.")
	expect(t, newResolver(t, z, nil), Exchangers, map[string]string{"half.example": ofOne})
}

func TestD3ImplicitMX(t *testing.T) {
	z := world(t, "six.example. 300 AAAA 2001:db8::6")
	expect(t, newResolver(t, z, nil), Exchangers, map[string]string{
		"implicit.example": "0 implicit.example 192.0.2.4 2001:db8::4",
		"six.example":      "0 six.example 2001:db8::6",
	})
}

// No rcode but NOERROR and NXDOMAIN is a verdict, nor is silence, and none of MX falls back to the address.
func TestD4NoVerdict(t *testing.T) {
	faults := map[string]hook{"silence": drop}
	for _, rcode := range []int{dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeFormatError, dns.RcodeNotImplemented, dns.RcodeYXDomain} {
		faults[dns.RcodeToString[rcode]] = refuse(rcode)
	}
	for name, fault := range faults {
		z := world(t)
		for _, key := range []string{"implicit.example MX", "mx1.example A", "mx1.example AAAA"} {
			z.hook(key, fault)
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newResolver(t, z, func(o *Options) { o.Timeout = 2 * time.Second })
			expect(t, r, Exchangers, map[string]string{
				"implicit.example": noService,
				"one.example":      noService,
				"two.example":      "20 mx2.example 192.0.2.2 | 20 mx3.example 192.0.2.3",
			})
			if z.count("udp implicit.example A") != 0 {
				t.Error("asked for the address")
			}
		})
	}
}

func TestD4Verdicts(t *testing.T) {
	z := world(t, "nothing.example. 300 TXT x", "deadmx.example. 300 MX 10 gone.example.", "half.example. 300 MX 10 h.example.", "h.example. 300 A 192.0.2.7")
	z.fail("h.example AAAA", dns.RcodeServerFailure)
	expect(t, newResolver(t, z, nil), Exchangers, map[string]string{
		"absent.example":  "permanent 550 5.1.2",
		"nothing.example": "permanent 550 5.4.4",
		"deadmx.example":  "permanent 550 5.4.4",
		"half.example":    "10 h.example 192.0.2.7", // one family is enough
	})
}

func TestD5AliasesOfHosts(t *testing.T) {
	z := world(t,
		"alias.example. 300 MX 10 a.example.", "a.example. 300 CNAME mx1.example.",
		"circle.example. 300 MX 10 c1.example.", "c1.example. 300 CNAME c2.example.", "c2.example. 300 CNAME c1.example.",
		"long.example. 300 MX 10 l0.example.", "longer.example. 300 MX 10 m0.example.",
		"astray.example. 300 MX 10 s.example.", `s.example. 300 CNAME a\032b.example.`,
		fmt.Sprintf("l%d.example. 300 A 192.0.2.5", chainMax), fmt.Sprintf("m%d.example. 300 A 192.0.2.5", chainMax+1))
	for i := range chainMax + 1 {
		if i < chainMax {
			z.add(t, fmt.Sprintf("l%d.example. 300 CNAME l%d.example.", i, i+1))
		}
		z.add(t, fmt.Sprintf("m%d.example. 300 CNAME m%d.example.", i, i+1))
	}
	r := newResolver(t, z, nil)
	want := map[string]string{
		"alias.example":  "10 a.example 192.0.2.1 2001:db8::1",
		"circle.example": noService,
		"long.example":   "10 l0.example 192.0.2.5",
		"longer.example": noService,
		"astray.example": noService,
	}
	expect(t, r, Exchangers, want)
	// A server may give one step of the chain at a time.
	z.hook("*", func(_ dns.ResponseWriter, _, reply *dns.Msg) bool {
		if len(reply.Answer) > 1 && reply.Answer[0].Header().Rrtype == dns.TypeCNAME {
			reply.Answer = reply.Answer[:1]
		}
		reply.Ns = nil
		return false
	})
	expect(t, newResolver(t, z, nil), Exchangers, want)
}

func TestD6AliasesOfDomains(t *testing.T) {
	z := world(t, "alias.example. 300 CNAME two.example.", "other.example. 300 CNAME implicit.example.")
	r := newResolver(t, z, nil)
	expect(t, r, Exchangers, map[string]string{
		"alias.example": ofTwo,
		"other.example": "0 other.example 192.0.2.4 2001:db8::4",
	})
	a, b := find(t, r, Exchangers, "alias.example"), find(t, r, Exchangers, "two.example")
	if a.Key != b.Key || a.Hash != b.Hash || a.Query.Name != "alias.example" {
		t.Error("the same exchangers are two sites, or the domain is not kept")
	}
}

// TestNamesOfAliases: it is known where the CNAMEs of a domain lead, also when only the addresses of its exchangers were asked for again.
func TestNamesOfAliases(t *testing.T) {
	c := newClock()
	z := world(t, "alias.example. 3600 CNAME real.example.", "real.example. 3600 MX 10 mx1.example.")
	r := newResolver(t, z, func(o *Options) { o.Now = c.Now })
	for range 2 {
		if a := find(t, r, Exchangers, "alias.example"); a.Records == nil || a.Records.Base != "real.example" {
			t.Errorf("%+v", a)
		}
		if a := find(t, r, Exchangers, "real.example"); a.Records != nil {
			t.Errorf("%+v", a)
		}
		c.advance(6 * time.Minute)
	}
	if n := z.count("udp alias.example MX"); n != 1 {
		t.Errorf("asked %d times for MX", n)
	}
}

func TestD7NamesThatAreNone(t *testing.T) {
	z := world(t,
		"text.example. 300 MX 10 192.0.2.1.", "both.example. 300 MX 10 192.0.2.1.", "both.example. 300 MX 20 mx2.example.",
		`space.example. 300 MX 10 a\032b.example.`, `octets.example. 300 MX 10 \000\255.example.`, "hyphen.example. 300 MX 10 -a.example.")
	expect(t, newResolver(t, z, nil), Exchangers, map[string]string{
		"text.example":   "permanent 550 5.4.4",
		"both.example":   "20 mx2.example 192.0.2.2",
		"space.example":  "permanent 550 5.4.4",
		"octets.example": "permanent 550 5.4.4",
		"hyphen.example": "permanent 550 5.4.4",
	})
}

func TestD8AddressesThatAreNotPublic(t *testing.T) {
	z := world(t,
		"inside.example. 300 MX 10 lo.example.", "lo.example. 300 A 127.0.0.1", "lo.example. 300 AAAA ::1",
		"mixed.example. 300 MX 10 mix.example.", "mix.example. 300 A 10.0.0.1", "mix.example. 300 A 192.0.2.8",
		"meta.example. 300 A 169.254.169.254", "mapped.example. 300 AAAA ::ffff:127.0.0.1", "any.example. 300 A 0.0.0.0",
		"multi.example. 300 A 224.0.0.1", "nat.example. 300 AAAA 64:ff9b::7f00:1",
		"home.example. 300 MX 0 localhost.", "localhost. 300 A 127.0.0.1")
	r := newResolver(t, z, nil)
	expect(t, r, Exchangers, map[string]string{
		"inside.example": "permanent 550 5.4.4", "mixed.example": "10 mix.example 192.0.2.8", "meta.example": "permanent 550 5.4.4",
		"mapped.example": "permanent 550 5.4.4", "any.example": "permanent 550 5.4.4", "multi.example": "permanent 550 5.4.4",
		"nat.example": "permanent 550 5.4.4", "home.example": "permanent 550 5.4.4",
		"[127.0.0.1]": "permanent 550 5.4.4", "[ipv6:::ffff:127.0.0.1]": "permanent 550 5.4.4", "[192.0.2.1]": "0 192.0.2.1 192.0.2.1",
	})
	expect(t, r, Addresses, map[string]string{"lo.example": "0 lo.example 127.0.0.1 ::1"}) // what the operator names is not filtered
	allowing := newResolver(t, z, func(o *Options) { o.Allow = append(o.Allow, netip.MustParsePrefix("127.0.0.0/8")) })
	expect(t, allowing, Exchangers, map[string]string{"inside.example": "10 lo.example 127.0.0.1", "mapped.example": "0 mapped.example 127.0.0.1"})
}

func TestD8Public(t *testing.T) {
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

func TestD9ThisNode(t *testing.T) {
	z := world(t,
		"best.example. 300 MX 10 self.example.", "best.example. 300 MX 20 mx2.example.",
		"mid.example. 300 MX 10 mx1.example.", "mid.example. 300 MX 20 self.example.", "mid.example. 300 MX 20 mx2.example.", "mid.example. 300 MX 30 mx3.example.",
		"addr.example. 300 MX 10 other.example.", "other.example. 300 A 192.0.2.77",
		"behind.example. 300 MX 5 mx1.example.", "behind.example. 300 MX 10 other.example.", "behind.example. 300 MX 20 mx2.example.",
		"implied.example. 300 A 192.0.2.77")
	r := newResolver(t, z, func(o *Options) { o.OwnAddrs = []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.77")} })
	expect(t, r, Exchangers, map[string]string{
		"best.example": "permanent 550 5.4.6", "mid.example": ofOne, "addr.example": "permanent 550 5.4.6", "behind.example": strings.Replace(ofOne, "10 ", "5 ", 1),
		"implied.example": "permanent 550 5.4.6", "[192.0.2.77]": "permanent 550 5.4.6",
	})
	if a := find(t, r, Exchangers, "behind.example"); a.Key != "mx1.example" {
		t.Errorf("key %q", a.Key)
	}
}

func TestD10ManyExchangers(t *testing.T) {
	z := newZone(t)
	for i := range 500 {
		z.add(t, fmt.Sprintf("many.example. 300 MX %d h%d.example.", i, i))
		for j := range 50 {
			if i < exchangersMost+2 {
				z.add(t, fmt.Sprintf("h%d.example. 300 A 192.0.2.%d", i, j+1))
			}
		}
	}
	a := find(t, newResolver(t, z, nil), Exchangers, "many.example")
	if len(a.Hosts) != exchangersMost || len(a.Hosts[0].Addrs) != addressesMost || a.Hosts[0].Name != "h0.example" {
		t.Errorf("%s", show(a))
	}
	if z.count("tcp many.example MX") != 1 || z.count("udp h10.example A") != 0 {
		t.Error("asked for hosts beyond the bound")
	}
}

func TestD11TruncatedGoesToTCP(t *testing.T) {
	z := world(t)
	cut := func(w dns.ResponseWriter, _, reply *dns.Msg) bool {
		if w.LocalAddr().Network() == "udp" {
			reply.Truncated = true
			reply.Answer = reply.Answer[:1]
		}
		return false
	}
	z.hook("two.example MX", cut)
	z.hook("one.example MX", func(w dns.ResponseWriter, _, reply *dns.Msg) bool {
		reply.Truncated = true
		return false
	})
	r := newResolver(t, z, nil)
	expect(t, r, Exchangers, map[string]string{"two.example": ofTwo, "one.example": noService})
	if n := z.count("tcp two.example MX"); n != 1 {
		t.Errorf("%d questions over TCP", n)
	}
}

// Forged replies before the true one are passed over; where no true one follows there is no verdict.
func TestD12ForgedReplies(t *testing.T) {
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
		z := world(t, "evil.example. 300 A 192.0.2.66")
		for _, alone := range []bool{false, true} {
			z.hook("one.example MX", func(w dns.ResponseWriter, _, reply *dns.Msg) bool {
				bad := reply.Copy()
				bad.Answer[0].(*dns.MX).Mx = "evil.example."
				forge(bad)
				p, _ := bad.Pack()
				w.Write(p)
				return alone
			})
			want := ofOne
			if alone {
				want = noService
			}
			r := newResolver(t, z, func(o *Options) {
				if alone {
					o.Timeout = 50 * time.Millisecond
				}
			})
			if got := show(find(t, r, Exchangers, "one.example")); got != want {
				t.Errorf("%s, alone %v: %s, want %s", name, alone, got, want)
			}
		}
	}
}

// What comes from elsewhere is not even seen.
func TestD12WrongSource(t *testing.T) {
	z := world(t, "evil.example. 300 A 192.0.2.66")
	z.hook("one.example MX", func(w dns.ResponseWriter, _, reply *dns.Msg) bool {
		bad := reply.Copy()
		bad.Answer[0].(*dns.MX).Mx = "evil.example."
		p, _ := bad.Pack()
		conn, err := net.DialUDP("udp", nil, w.RemoteAddr().(*net.UDPAddr))
		if err != nil {
			t.Error(err)
			return false
		}
		defer conn.Close()
		conn.Write(p)
		return false
	})
	expect(t, newResolver(t, z, nil), Exchangers, map[string]string{"one.example": ofOne})
}

// Ids and ports are those of one question, and nobody can tell the next ones.
func TestD12IdsAndPorts(t *testing.T) {
	z := world(t)
	r := newResolver(t, z, nil)
	const questions = 200
	for i := range questions {
		find(t, r, Texts, fmt.Sprintf("n%d.example", i))
	}
	ids, ports, neighbours := map[uint16]bool{}, map[string]bool{}, 0
	sightings := z.sightings()
	for i, s := range sightings {
		ids[s.id], ports[s.from] = true, true
		if i > 0 && s.id == sightings[i-1].id+1 {
			neighbours++
		}
	}
	// By chance one in a thousand of so few meet.
	if len(sightings) != questions || len(ids) < questions-5 || len(ports) < questions-10 || neighbours > 3 {
		t.Errorf("%d questions, %d ids, %d ports, %d ids that follow one another", len(sightings), len(ids), len(ports), neighbours)
	}
}

// Records of other names, other classes and in the additional section are not believed, and letters of either case are the same.
func TestD12ForeignRecords(t *testing.T) {
	z := world(t)
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
		reply.Question[0].Name, reply.Answer[0].Header().Name = "oNe.eXaMpLe.", "ONE.example."
		return false
	})
	expect(t, newResolver(t, z, nil), Exchangers, map[string]string{"one.example": ofOne})
}

// The AD bit of a server that is not trusted says nothing.
func TestD12UntrustedAD(t *testing.T) {
	z := world(t)
	z.hook("*", func(_ dns.ResponseWriter, _, reply *dns.Msg) bool { reply.AuthenticatedData = true; return false })
	if a := find(t, newResolver(t, z, nil), Exchangers, "one.example"); a.Validated || a.Hosts[0].Validated {
		t.Error("believed it")
	}
}

func TestD13MalformedReplies(t *testing.T) {
	for name, c := range map[string]struct {
		kind  Kind
		qtype string
		tail  []byte
	}{
		"short MX":          {Exchangers, "MX", []byte{0xc0, 12, 0, 15, 0, 1, 0, 0, 1, 0, 0, 1, 5}},
		"name past the end": {Exchangers, "MX", []byte{0xc0, 12, 0, 15, 0, 1, 0, 0, 1, 0, 0, 4, 0, 1, 63, 'a'}},
		"pointer to itself": {Exchangers, "MX", []byte{0xc0, 12, 0, 15, 0, 1, 0, 0, 1, 0, 0, 4, 0, 1, 0xc0, 43}},
		"length past end":   {Exchangers, "MX", []byte{0xc0, 12, 0, 15, 0, 1, 0, 0, 1, 0, 0xff, 0xff, 0, 1}},
		"no record":         {Exchangers, "MX", nil},
		"short A":           {Addresses, "A", []byte{0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 3, 1, 2, 3}},
		"short TXT":         {Texts, "TXT", []byte{0xc0, 12, 0, 16, 0, 1, 0, 0, 1, 0, 0, 2, 9, 'a'}},
	} {
		z := world(t)
		z.hook("one.example "+c.qtype, func(w dns.ResponseWriter, question, _ *dns.Msg) bool {
			question.Extra = nil
			p, _ := question.Pack()
			p[2] |= flagQR
			binary.BigEndian.PutUint16(p[6:], 1) // one answer
			w.Write(append(p, c.tail...))
			return true
		})
		if a := find(t, newResolver(t, z, nil), c.kind, "one.example"); a.Class == OK || name != "no record" && show(a) != noService {
			t.Errorf("%s: %s", name, show(a))
		}
	}
}

// A TLSA record of three octets is legal and useless.
func TestD13ShortTLSA(t *testing.T) {
	z := world(t, "_25._tcp.mx1.example. 300 TLSA 3 1 1 00")
	z.sign("example")
	z.hook("_25._tcp.mx1.example TLSA", func(_ dns.ResponseWriter, _, reply *dns.Msg) bool {
		reply.Answer[0].(*dns.TLSA).Certificate = ""
		return false
	})
	a := find(t, newResolver(t, z, trusting), Associations, AssociationsOf("mx1.example", 25).Name)
	if a.Class != OK || a.Records == nil || a.Records.TLSA[0].Usable() {
		t.Errorf("%s %+v", show(a), a.Records)
	}
}

func TestD14Lifetimes(t *testing.T) {
	z := newZone(t,
		"zero.example. 0 MX 10 h.example.", "h.example. 86400 A 192.0.2.1",
		"day.example. 2147483647 MX 10 g.example.", "g.example. 2147483647 A 192.0.2.1",
		"beyond.example. 4294967295 MX 10 g.example.", // counts as 0. RFC 2181 §8
		"hour.example. 3600 MX 10 h.example.",
		"shorthost.example. 3600 MX 10 s.example.", "s.example. 60 A 192.0.2.1",
		"null.example. 86400 MX 0 .",
	)
	z.fail("fail.example MX", dns.RcodeServerFailure)
	c := newClock()
	r := newResolver(t, z, func(o *Options) { o.Now, o.StaleMax = c.Now, 0 })
	narrow := newResolver(t, z, func(o *Options) {
		o.Now, o.TTLMin, o.TTLMax, o.NegativeMax = c.Now, 2*time.Minute, 10*time.Minute, 3*time.Minute
	})
	for _, x := range []struct {
		name         string
		want, narrow time.Duration
	}{
		{"zero.example", 30 * time.Second, 2 * time.Minute},
		{"day.example", 24 * time.Hour, 10 * time.Minute},
		{"beyond.example", 30 * time.Second, 2 * time.Minute},
		{"hour.example", time.Hour, 10 * time.Minute},
		{"shorthost.example", time.Minute, 2 * time.Minute},
		{"null.example", 15 * time.Minute, 3 * time.Minute},
		{"absent.example", 2 * time.Minute, 2 * time.Minute}, // the minimum of the SOA record
		{"fail.example", 30 * time.Second, 30 * time.Second},
	} {
		if got := find(t, narrow, Exchangers, x.name).Expires.Sub(c.Now()); got != x.narrow {
			t.Errorf("%s is believed for %v, want %v", x.name, got, x.narrow)
		}
		q := Query{Exchangers, x.name}
		before := z.count("udp " + x.name + " MX")
		if got := find(t, r, Exchangers, x.name).Expires.Sub(c.Now()); got != x.want {
			t.Errorf("%s is believed for %v, want %v", x.name, got, x.want)
		}
		c.advance(x.want - time.Second)
		if _, ok := r.Cached(q); !ok {
			t.Errorf("%s is forgotten before its time", x.name)
		}
		if n := z.count("udp " + x.name + " MX"); n != before+1 {
			t.Errorf("%s: asked %d times", x.name, n-before)
		}
		c.advance(time.Second)
		if _, ok := r.Cached(q); ok {
			t.Errorf("%s is believed beyond its time", x.name)
		}
	}
}

func TestD15Names(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, c := range []struct{ in, want string }{
		{"example.com", "example.com"}, {"Example.COM.", "example.com"}, {"_x.example", "_x.example"}, {"bücher.example", "xn--bcher-kva.example"},
		{"[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"}, {"x", "x"}, {long + ".example", long + ".example"},
		{"", ""}, {".", ""}, {"a..b", ""}, {".a", ""}, {"a b", ""}, {"-a.b", ""}, {"a-.b", ""}, {long + "a.example", ""}, {strings.Repeat("abcdefg.", 32), ""},
		{"a\x00b", ""}, {"a/b", ""}, {"*.example", ""}, {`a\.b.example`, ""},
	} {
		got, err := Normal(c.in)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q: %q, %v, want %q", c.in, got, err, c.want)
		}
	}
	z := world(t, "wild.example. 300 MX 10 mx1.example.")
	r := newResolver(t, z, nil)
	for _, name := range []string{"", ".", "a..b", long + "a.example", "EHLO there", "Wild.example", strings.Repeat("abcdefg.", 32) + "x"} {
		if got := show(find(t, r, Exchangers, name)); got != "permanent 550 5.1.2" {
			t.Errorf("%q: %s", name, got)
		}
	}
	if len(z.sightings()) != 0 {
		t.Errorf("asked %d times for what is no name", len(z.sightings()))
	}
	for _, bad := range []string{"[2001:db8::1]", "[192.0.2.1", "[x]", "[]", "[ipv6:fe80::1%eth0]"} {
		if got := show(find(t, r, Exchangers, bad)); got != "permanent 550 5.1.2" {
			t.Errorf("%s: %s", bad, got)
		}
	}
}

// A name that leads elsewhere by the time of the connection gains nothing: the answer has the addresses that passed, and every later one is judged anew.
func TestD16Rebinding(t *testing.T) {
	c := newClock()
	z := world(t, "re.example. 300 MX 10 bind.example.", "bind.example. 0 A 192.0.2.1")
	r := newResolver(t, z, func(o *Options) { o.Now = c.Now })
	before := find(t, r, Exchangers, "re.example")
	z.set(t, "bind.example A", "bind.example. 0 A 127.0.0.1")
	c.advance(time.Minute)
	if got := show(find(t, r, Exchangers, "re.example")); got != "permanent 550 5.4.4" {
		t.Error(got)
	}
	if got := show(before); got != "10 bind.example 192.0.2.1" {
		t.Errorf("the answer changed: %s", got)
	}
}
