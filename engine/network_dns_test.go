package engine

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"mailrace/proto/message"
)

// oddly is a way to answer a question wrongly.
type oddly func(w dns.ResponseWriter, q, m *dns.Msg)

// withCode answers with a code and nothing else.
func withCode(code int) oddly {
	return func(w dns.ResponseWriter, q, _ *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetRcode(q, code)) }
}

// before sends something in front of the right answer.
func before(change func(m *dns.Msg)) oddly {
	return func(w dns.ResponseWriter, _, m *dns.Msg) {
		forged := m.Copy()
		change(forged)
		_ = w.WriteMsg(forged)
		_ = w.WriteMsg(m)
	}
}

// raw sends octets behind the ID of the question.
func raw(octets string) oddly {
	return func(w dns.ResponseWriter, q, _ *dns.Msg) {
		_, _ = w.Write(append([]byte{byte(q.Id >> 8), byte(q.Id)}, octets...))
	}
}

// explosion is many mail exchangers that lead nowhere.
func explosion() (lines []string) {
	for i := range 60 {
		lines = append(lines, fmt.Sprintf("far.example. 300 IN MX 10 m%d.far.example.", i))
		for j := range 3 {
			lines = append(lines, fmt.Sprintf("m%d.far.example. 300 IN A 127.9.%d.%d", i, i, j+1))
		}
	}
	return lines
}

// dnsRows are what the name service may do to us, and what becomes of mail for a@far.example. Hosts a to d listen at 127.0.1.1 to 4.
var dnsRows = []struct {
	row, name string
	zone      []string
	odd       map[string]oddly
	want      string // the host that got it, or what became of it
}{
	{"D1", "null MX", []string{"far.example. 300 IN MX 0 .", "far.example. 300 IN A 127.0.1.1"}, nil, "bounce 5.1.10"},
	{"D2", "null MX beside another", []string{"far.example. 300 IN MX 0 .", "far.example. 300 IN MX 10 a.host.example."}, nil, "a"},
	{"D3", "no MX, but A", []string{"far.example. 300 IN A 127.0.1.1"}, nil, "a"},
	{"D3", "no MX, but AAAA that is dead, and A", []string{"far.example. 300 IN AAAA ::1", "far.example. 300 IN A 127.0.1.1"}, nil, "a"},
	{"D4", "NXDOMAIN", nil, nil, "bounce 5.1.2"},
	{"D4", "neither MX nor address", []string{`far.example. 300 IN TXT "x"`}, nil, "bounce 5.4.4"},
	{"D4", "SERVFAIL for MX, and A", []string{"far.example. 300 IN A 127.0.1.1"}, map[string]oddly{"MX far.example.": withCode(dns.RcodeServerFailure)}, "deferral 4.4.3"},
	{"D4", "REFUSED for MX, and A", []string{"far.example. 300 IN A 127.0.1.1"}, map[string]oddly{"MX far.example.": withCode(dns.RcodeRefused)}, "deferral 4.4.3"},
	{"D4", "FORMERR for MX, and A", []string{"far.example. 300 IN A 127.0.1.1"}, map[string]oddly{"MX far.example.": withCode(dns.RcodeFormatError)}, "deferral 4.4.3"},
	{"D4", "SERVFAIL for the address of the only host", []string{"far.example. 300 IN MX 10 a.host.example."}, map[string]oddly{"A a.host.example.": withCode(dns.RcodeServerFailure), "AAAA a.host.example.": withCode(dns.RcodeServerFailure)}, "deferral 4.4.3"},
	{"D4", "SERVFAIL for the address of the first host", []string{"far.example. 300 IN MX 10 a.host.example.", "far.example. 300 IN MX 20 b.host.example."}, map[string]oddly{"A a.host.example.": withCode(dns.RcodeServerFailure), "AAAA a.host.example.": withCode(dns.RcodeServerFailure)}, "b"},
	{"D5", "the host is an alias", []string{"far.example. 300 IN MX 10 alias.far.example.", "alias.far.example. 300 IN CNAME a.host.example."}, nil, "a"},
	{"D5", "the host is an alias of itself", []string{"far.example. 300 IN MX 10 alias.far.example.", "alias.far.example. 300 IN CNAME alias.far.example."}, nil, "deferral 4.4.3"},
	{"D6", "the domain is an alias", []string{"far.example. 300 IN CNAME real.example.", "real.example. 300 IN MX 10 a.host.example."}, nil, "a"},
	{"D7", "the host is an address", []string{"far.example. 300 IN MX 10 127.0.1.1."}, nil, "bounce 5.4.4"},
	{"D7", "the first host is an address", []string{"far.example. 300 IN MX 10 127.0.1.1.", "far.example. 300 IN MX 20 b.host.example."}, nil, "b"},
	{"D8", "a private address", []string{"far.example. 300 IN MX 10 m.far.example.", "m.far.example. 300 IN A 10.0.0.1", "m.far.example. 300 IN A 169.254.169.254"}, nil, "bounce 5.4.4"},
	{"D8", "a private address, and another", []string{"far.example. 300 IN MX 10 m.far.example.", "m.far.example. 300 IN A 192.168.0.1", "m.far.example. 300 IN A 127.0.1.1"}, nil, "a"},
	{"D9", "this node alone", []string{"far.example. 300 IN MX 10 mta.test.example.", "mta.test.example. 300 IN A 127.0.1.1"}, nil, "bounce 5.4.6"},
	{"D9", "this node first", []string{"far.example. 300 IN MX 10 mta.test.example.", "far.example. 300 IN MX 20 a.host.example."}, nil, "bounce 5.4.6"},
	{"D9", "this node behind another", []string{"far.example. 300 IN MX 5 a.host.example.", "far.example. 300 IN MX 10 mta.test.example.", "far.example. 300 IN MX 20 b.host.example."}, nil, "a"},
	{"D10", "hundreds of hosts, none there", explosion(), nil, "deferral 4.4.1"},
	{"D11", "truncated", []string{"far.example. 300 IN MX 20 b.host.example.", "far.example. 300 IN MX 10 a.host.example."}, map[string]oddly{"MX far.example.": func(w dns.ResponseWriter, _, m *dns.Msg) {
		if w.RemoteAddr().Network() == "udp" {
			m.Truncated, m.Answer = true, m.Answer[:1]
		}
		_ = w.WriteMsg(m)
	}}, "a"},
	{"D12", "another ID", []string{"far.example. 300 IN MX 10 a.host.example."}, map[string]oddly{"MX far.example.": before(func(m *dns.Msg) { m.Id++; m.Answer = nil })}, "a"},
	{"D12", "another question", []string{"far.example. 300 IN MX 10 a.host.example."}, map[string]oddly{"MX far.example.": before(func(m *dns.Msg) { m.Question[0].Name = "near.example."; m.Answer = nil })}, "a"},
	{"D12", "a foreign record beside", []string{"far.example. 300 IN MX 10 a.host.example."}, map[string]oddly{"MX far.example.": func(w dns.ResponseWriter, _, m *dns.Msg) {
		m.Extra = append(m.Extra, &dns.A{Hdr: dns.RR_Header{Name: "a.host.example.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 3600}, A: []byte{127, 0, 1, 2}})
		_ = w.WriteMsg(m)
	}}, "a"},
	{"D13", "a malformed MX", nil, map[string]oddly{"MX far.example.": raw("\x84\x00\x00\x01\x00\x01\x00\x00\x00\x00\x03far\x07example\x00\x00\x0f\x00\x01\xc0\x0c\x00\x0f\x00\x01\x00\x00\x00\x10\x00\x01\x00")}, "deferral 4.4.3"},
	{"D15", "a name in its own script", []string{"xn--bcher-kva.example. 300 IN MX 10 a.host.example."}, nil, "a"},
	{"D15", "a label of 64 octets", nil, nil, "bounce 5.1.3"},
}

// TestNameService is each of dnsRows with a whole node.
func TestNameService(t *testing.T) {
	t.Parallel()
	for _, c := range dnsRows {
		t.Run(c.row+" "+c.name, func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t, false)
			hosts := map[string]*host{}
			for i, name := range []string{"a", "b", "c", "d"} {
				hosts[name] = n.add(name+".host.example", fmt.Sprintf("127.0.1.%d", i+1), nil)
			}
			n.add("sender.example", "127.0.1.9", nil)
			n.zone.add(t, c.zone...)
			for question, odd := range c.odd {
				n.zone.set(func() { n.zone.odd[question] = odd })
			}
			n.cfg.DNS.Timeout = time.Second
			n.cfg.Egress.Allow = append(slices.Clone(loopback), netip.MustParsePrefix("::1/128"))
			n.serve()
			to := "a@far.example"
			switch c.name {
			case "a name in its own script":
				to = "a@b\u00fccher.example"
			case "a label of 64 octets":
				to = "a@" + strings.Repeat("x", 64) + ".example"
			}
			n.submit(func(m *message.Message) { m.Flags |= message.SMTPUTF8 }, to)
			n.pass(time.Minute, func() bool { return len(n.records("delivery", "bounce", "deferral")) > 0 })
			e := n.records("delivery", "bounce", "deferral")[0]
			got := e.Type + " " + e.Enhanced
			for name, h := range hosts {
				if len(h.mail) > 0 {
					got = name
				}
			}
			if got != c.want {
				t.Errorf("%s, want %s: %+v", got, c.want, e)
			}
			if e.Type != "delivery" {
				for name, h := range hosts {
					if n := h.connections(); n > 0 {
						t.Errorf("%d connections to %s", n, name)
					}
				}
			}
		})
	}
}

// TestLifetimesOfAnswers: an answer is asked for again when its time is over, and not before; one that is to live for no time lives for ttl_min (D14).
func TestLifetimesOfAnswers(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, false)
	h := n.add("a.host.example", "127.0.1.1", nil)
	n.add("sender.example", "127.0.1.9", nil)
	n.zone.add(t, "brief.example. 0 IN MX 10 a.host.example.", "hour.example. 3600 IN MX 10 a.host.example.")
	n.serve()
	passed := time.Duration(0)
	for _, c := range []struct {
		after time.Duration
		to    string
		asked int // in all
	}{
		{0, "brief.example", 1}, {0, "hour.example", 1}, {0, "none.example", 1},
		{n.cfg.DNS.TTLMin - 2*time.Second, "brief.example", 1}, {n.cfg.DNS.TTLMin + 2*time.Second, "brief.example", 2},
		{59 * time.Second, "none.example", 1}, {62 * time.Second, "none.example", 2},
		{50 * time.Minute, "hour.example", 1}, {61 * time.Minute, "hour.example", 2},
	} {
		n.pass(c.after-passed, nil)
		passed = c.after
		n.submit(nil, "a@"+c.to)
		n.settle()
		n.zone.mu.Lock()
		asked := n.zone.asked["MX "+c.to+"."]
		n.zone.mu.Unlock()
		if asked != c.asked {
			t.Errorf("%s after %v: asked %d times, want %d", c.to, c.after, asked, c.asked)
		}
	}
	if mails, bounces := len(h.mail), len(n.records("bounce")); mails != 6 || bounces != 3 {
		t.Errorf("%d delivered, %d bounced", mails, bounces)
	}
}

// TestEqualsShareTheLoad: hosts of one preference get mail in turn by chance, those behind them none.
func TestEqualsShareTheLoad(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, false)
	n.chance = true
	hosts := []*host{n.add("a.host.example", "127.0.1.1", nil), n.add("b.host.example", "127.0.1.2", nil), n.add("c.host.example", "127.0.1.3", nil)}
	n.cfg.Egress.Messages = 1
	n.zone.add(t, "far.example. 300 IN MX 10 a.host.example.", "far.example. 300 IN MX 10 b.host.example.", "far.example. 300 IN MX 20 c.host.example.")
	n.serve()
	for range 60 { // that all go to the same one happens once in 2^59 times
		n.submit(nil, "a@far.example")
		n.settle()
	}
	if a, b, c := len(hosts[0].mail), len(hosts[1].mail), len(hosts[2].mail); a == 0 || b == 0 || a+b != 60 || c != 0 {
		t.Errorf("%d, %d and %d", a, b, c)
	}
}
