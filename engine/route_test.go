package engine

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"mailrace/engine/config"
)

// discard is a route to nowhere.
func discard(domains ...string) config.Route {
	return config.Route{Domains: domains, To: config.Target{Kind: config.ToDiscard}}
}

// TestNullStore relays and discards without a spool.
func TestNullStore(t *testing.T) {
	t.Parallel()
	f := listen(t, answering(func(p *peer, line string) string {
		if strings.HasPrefix(line, "RCPT TO:<no@") {
			return "550 5.1.1 no"
		}
		return ""
	}))
	c := settings(t, discard("void.example"), f.route("*"))
	c.Spool.Path = nullPath
	r := start(t, c)
	for i := range 10 {
		r.send("s@sender.example", text(i, 1000), "a@far.example", "b@void.example")
		if l := f.next(); withoutTrace(t, l.content) != text(i, 1000) {
			t.Errorf("%q", l.content)
		}
	}
	large := noise(3<<20, 4)
	r.send("s@sender.example", large, "a@far.example")
	if l := f.next(); withoutTrace(t, l.content) != large {
		t.Errorf("%d octets arrived, %d were sent", len(l.content), len(large))
	}
	r.send("s@sender.example", hello, "no@far.example")
	if d := parseReport(t, f.next()); len(d.recipients) != 1 {
		t.Errorf("%+v", d)
	}
	r.awaitEmpty()
	if s := r.Status(); s.Accepted != 12 || s.Delivered != 22 || s.Bounced != 1 {
		t.Errorf("%+v", s)
	}
}

// TestDiscard settles what is discarded as delivered, without a peer.
func TestDiscard(t *testing.T) {
	t.Parallel()
	r := start(t, settings(t, discard("*")))
	r.send("s@sender.example", hello, "a@far.example", "b@other.example")
	for _, to := range []string{"a@far.example", "b@other.example"} {
		if e := r.record("delivery", to, 1); e.Code != 0 || e.Peer != "" || e.Attempt != 1 {
			t.Errorf("%+v", e)
		}
	}
	r.awaitEmpty()
}

// TestNoRoute defers what no route leads away: a mistake of the operator is not the sender's.
func TestNoRoute(t *testing.T) {
	t.Parallel()
	r := start(t, settings(t, discard("other.example")))
	r.send("s@sender.example", hello, "a@far.example")
	if e := r.record("deferral", "a@far.example", 1); e.Enhanced != "4.3.5" {
		t.Errorf("%+v", e)
	}
}

// nameServer answers from a table of records in zone form.
func nameServer(t *testing.T, zone ...string) netip.AddrPort {
	t.Helper()
	var records []dns.RR
	for _, line := range zone {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, rr)
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		known := false
		for _, rr := range records {
			if strings.EqualFold(rr.Header().Name, q.Question[0].Name) {
				if known = true; rr.Header().Rrtype == q.Question[0].Qtype {
					m.Answer = append(m.Answer, rr)
				}
			}
		}
		if !known {
			m.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = s.ActivateAndServe() }()
	t.Cleanup(func() { _ = s.Shutdown() })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// TestMX finds mail exchangers in order of preference, goes on to the next when one is down or says no, shares a transaction among domains
// with the same exchangers, and bounces what cannot exist.
func TestMX(t *testing.T) {
	t.Parallel()
	busy := listenAt(t, "127.0.0.2:0", func(p *peer) { p.say("421 4.3.2 busy") })
	_, port, err := net.SplitHostPort(busy.l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	good := listenAt(t, "127.0.0.3:"+port, polite)
	home := listen(t, polite)
	c := settings(t, home.route("sender.example"), config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToMX}})
	c.Egress.Allow = loopback
	if _, err := fmt.Sscan(port, &c.Egress.Port); err != nil {
		t.Fatal(err)
	}
	c.DNS.Servers = []netip.AddrPort{nameServer(t,
		"one.example. 300 IN MX 10 busy.far.example.", "one.example. 300 IN MX 20 good.far.example.", "one.example. 300 IN MX 5 down.far.example.",
		"two.example. 300 IN MX 5 down.far.example.", "two.example. 300 IN MX 10 busy.far.example.", "two.example. 300 IN MX 20 good.far.example.",
		"null.example. 300 IN MX 0 .", "implicit.example. 300 IN A 127.0.0.3",
		"down.far.example. 300 IN A 127.0.0.4", "busy.far.example. 300 IN A 127.0.0.2", "good.far.example. 300 IN A 127.0.0.3",
	)}
	r := start(t, c)
	r.send("s@sender.example", hello, "a@one.example", "b@TWO.example", "c@one.example", "d@implicit.example", "e@null.example", "f@nowhere.example", "g@[127.0.0.3]")
	arrived := map[string]bool{}
	for len(arrived) < 5 {
		for _, to := range good.next().to {
			if arrived[to] {
				t.Errorf("%s arrived twice", to)
			}
			arrived[to] = true
		}
	}
	var failed []string
	for len(failed) < 2 {
		for _, rcpt := range parseReport(t, home.next()).recipients {
			failed = append(failed, rcpt.Get("Final-Recipient")+" "+rcpt.Get("Status"))
		}
	}
	for _, want := range []string{"rfc822; e@null.example 5.1.10", "rfc822; f@nowhere.example 5.1.2"} {
		if failed[0] != want && failed[1] != want {
			t.Errorf("%q, want %q among them", failed, want)
		}
	}
	r.awaitEmpty()
	if s := r.Status(); s.Deferrals != 0 {
		t.Errorf("%d deferrals: %+v", s.Deferrals, r.records("deferral"))
	}
}
