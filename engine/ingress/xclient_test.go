package ingress

import (
	"net/netip"
	"strings"
	"testing"
)

// spoken makes a door at which loopback may speak for others, and 192.0.2.0/24 may relay.
func spoken(d *Door, s *shelf) {
	strangers(Quota{Connections: 1})(d, s)
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	d.XClientFrom, d.RelayFrom = []netip.Prefix{loopback}, []netip.Prefix{loopback, netip.MustParsePrefix("192.0.2.0/24")}
}

// TestB17XClient takes the client's address and name from who may speak for others, into policy, Received and records.
func TestB17XClient(t *testing.T) {
	t.Parallel()
	r := open(t, spoken)
	c := r.connect()
	c.expect(220)
	if got := c.say("EHLO relay.example", 250); !strings.Contains(got, "250-XCLIENT ") {
		t.Errorf("%q", got)
	}
	c.say("XCLIENT ADDR=192.0.2.7 PORT=1234", 220)
	c.say("EHLO client.example", 250)
	c.envelope()
	c.say(hello+".", 250)
	m := receive(t, r.accepted)
	if m.Peer.String() != "192.0.2.7:1234" || m.Client != "192.0.2.7" || !strings.HasPrefix(string(m.Trace), "Received: from client.example ([192.0.2.7])\r\n") {
		t.Errorf("%s, %s, %q", m.Peer, m.Client, m.Trace)
	}
	c.say("XCLIENT ADDR=IPV6:2001:db8::9 HELO=other.example PROTO=SMTP", 220) // a stranger
	c.say("MAIL FROM:<s@sender.example>", 250)
	c.say("RCPT TO:<a@elsewhere.example>", 550)
	c.say("RCPT TO:<a@far.example>", 250)
	c.say("DATA", 354)
	c.say(hello+".", 250)
	m = receive(t, r.accepted)
	if m.Peer.Addr() != netip.MustParseAddr("2001:db8::9") ||
		!strings.HasPrefix(string(m.Trace), "Received: from other.example ([IPv6:2001:db8::9])\r\n\tby mta.test.example with SMTP id ") {
		t.Errorf("%s, %q", m.Peer, m.Trace)
	}
	second := r.connect() // the stranger's quota holds
	second.expect(220)
	second.say("XCLIENT ADDR=2001:db8::10", 421)
	second.end()
	c.say("XCLIENT ADDR=[UNAVAILABLE]", 220) // hidden: it relays nothing, though the address of who speaks would
	c.say("EHLO client.example", 250)
	c.say("MAIL FROM:<s@sender.example>", 250)
	c.say("RCPT TO:<a@elsewhere.example>", 550)
	c.Close()
	r.awaitQuiet()
	for range 2 { // and is given back
		c = r.connect()
		c.expect(220)
		c.say("XCLIENT ADDR=2001:db8::10", 220)
		c.say("XCLIENT ADDR=2001:db8::11", 220)
		c.Close()
		r.awaitQuiet()
	}
}

// TestB17XClientOfStrangers is refused.
func TestB17XClientOfStrangers(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(d *Door){
		"a stranger":       func(d *Door) { d.XClientFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} },
		"behind a proxy":   func(d *Door) { d.ProxyFrom = d.XClientFrom },
		"the proxy itself": func(d *Door) { d.ProxyFrom = d.XClientFrom },
	} {
		r := open(t, func(d *Door, s *shelf) {
			spoken(d, s)
			change(d)
		})
		c := r.connect()
		if name == "behind a proxy" {
			c.send("PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\n")
		} else if name == "the proxy itself" {
			c.send("PROXY UNKNOWN\r\n")
		}
		c.expect(220)
		if got := c.say("EHLO relay.example", 250); strings.Contains(got, "XCLIENT") {
			t.Errorf("%s: %q", name, got)
		}
		c.say("XCLIENT ADDR=192.0.2.7", 550)
		c.Close()
		r.awaitQuiet()
	}
}
