package ingress

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// signature begins a header of version 2.
const signature = "\r\n\r\n\x00\r\nQUIT\n"

// proxyV2 is a header of version 2 with the given command, family, and block.
func proxyV2(command, family byte, block string) string {
	return signature + string([]byte{command, family, byte(len(block) >> 8), byte(len(block))}) + block
}

const (
	block4 = "\xc0\x00\x02\x07\x0a\x00\x00\x01\x04\xd2\x00\x19"                                                           // 192.0.2.7:1234
	block6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" + "0123456789abcdef" + "\x04\xd2\x00\x19" // [2001:db8::7]:1234
)

// goodProxies are headers and the clients that they tell of, "" for none.
var goodProxies = map[string]string{
	"PROXY TCP4 192.0.2.7 10.0.0.1 1234 25\r\n":                           "192.0.2.7:1234",
	"PROXY TCP6 2001:db8::7 2001:db8::1 1234 25\r\n":                      "[2001:db8::7]:1234",
	"PROXY UNKNOWN\r\n":                                                   "",
	"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n":                               "",
	proxyV2(0x21, 0x11, block4):                                           "192.0.2.7:1234",
	proxyV2(0x21, 0x21, block6):                                           "[2001:db8::7]:1234",
	proxyV2(0x21, 0x11, block4+"\x04\x00\x03xyz"):                         "192.0.2.7:1234",
	proxyV2(0x21, 0x11, block4+"\x04\x07\x00"+strings.Repeat("x", 0x700)): "192.0.2.7:1234",
	proxyV2(0x20, 0x00, ""):                                               "",
	proxyV2(0x20, 0x11, block4):                                           "",
}

// badProxies are not headers, however much follows.
var badProxies = []string{
	"EHLO client.example\r\n",
	"\r\nEHLO client.example\r\n",
	"PROX\r\n",
	"PROXY \r\n",
	"PROXY TCP4 192.0.2.7 10.0.0.1 1234\r\n",
	"PROXY TCP4 192.0.2.7 10.0.0.1 1234 25\n",
	"PROXY TCP4 192.0.2.7 10.0.0.1 1234 99999\r\n",
	"PROXY TCP4 192.0.2.007 10.0.0.1 1234 25\r\n",
	"PROXY TCP4 2001:db8::7 2001:db8::1 1234 25\r\n",
	"PROXY TCP4 mail.example 10.0.0.1 1234 25\r\n",
	"PROXY UDP4 192.0.2.7 10.0.0.1 1234 25\r\n",
	"PROXYX TCP4 192.0.2.7 10.0.0.1 1234 25\r\n",
	"proxy TCP4 192.0.2.7 10.0.0.1 1234 25\r\n",
	"PROXY TCP4 " + strings.Repeat("1", 200) + "\r\n",
	proxyV2(0x31, 0x11, block4),                                 // version 3
	proxyV2(0x22, 0x11, block4),                                 // unknown command
	proxyV2(0x21, 0x12, block4),                                 // UDP
	proxyV2(0x21, 0x31, strings.Repeat("x", 216)),               // a unix socket
	proxyV2(0x21, 0x11, block4[:11]),                            // short of addresses
	proxyV2(0x21, 0x00, ""),                                     // for whom?
	proxyV2(0x21, 0x11, block4+strings.Repeat("x", proxyBlock)), // too long
	signature[:11] + "x",
}

// TestB17ParseProxy reads headers whole, in part, and with more behind them.
func TestB17ParseProxy(t *testing.T) {
	t.Parallel()
	for header, want := range goodProxies {
		for cut := range header {
			if n, _, err := parseProxy([]byte(header[:cut])); n != 0 || err != nil {
				t.Errorf("%q of %q: %d, %v", header[:cut], header, n, err)
			}
		}
		n, client, err := parseProxy([]byte(header + "EHLO client.example\r\n"))
		if got := client.String(); n != len(header) || err != nil || got != want && (want != "" || client.IsValid()) {
			t.Errorf("%q: %d, %s, %v", header, n, got, err)
		}
	}
	for _, header := range badProxies {
		if n, _, err := parseProxy([]byte(header)); err == nil {
			t.Errorf("%q: %d", header, n)
		}
	}
}

// FuzzProxy: a header is bounded, is the same however much of it and behind it was seen, and the client is an address or nobody.
func FuzzProxy(f *testing.F) {
	for header := range goodProxies {
		f.Add([]byte(header + "EHLO x\r\n"))
	}
	for _, header := range badProxies {
		f.Add([]byte(header))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		n, client, err := parseProxy(p)
		switch {
		case err != nil:
			return
		case n == 0 && len(p) >= proxyFixed+proxyBlock:
			t.Fatalf("%d octets are not enough", len(p))
		case n == 0:
			return
		case n > len(p) || n > proxyFixed+proxyBlock:
			t.Fatalf("%d of %d octets", n, len(p))
		case client.IsValid() && client.Addr().Is4In6():
			t.Fatalf("%s", client)
		}
		for cut := range n {
			if m, _, err := parseProxy(p[:cut]); m != 0 || err != nil {
				t.Fatalf("%q of %q: %d, %v", p[:cut], p[:n], m, err)
			}
		}
		if m, again, err := parseProxy(p[:n]); m != n || again != client || err != nil {
			t.Fatalf("%q: %d, %s, %v", p[:n], m, again, err)
		}
	})
}

// proxied makes a door that trusts proxies on loopback, and relays for 192.0.2.0/24 and 2001:db8::/32 behind them.
func proxied(d *Door, _ *shelf) {
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	d.ProxyFrom = []netip.Prefix{loopback}
	d.RelayFrom = []netip.Prefix{loopback, netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
}

// TestB17Proxy takes the client's address from a trusted proxy, into policy, Received and records, whole and octet by octet.
func TestB17Proxy(t *testing.T) {
	t.Parallel()
	r := open(t, proxied)
	for header, want := range goodProxies {
		for _, split := range []bool{false, true} {
			c := r.connect()
			for text := header; len(text) > 0; {
				n := len(text)
				if split && n < 200 {
					n = 1
				}
				c.send(text[:n])
				text = text[n:]
			}
			c.expect(220)
			c.say("EHLO client.example", 250)
			if want == "" { // the proxy itself: it relays nothing, though its address would
				c.say("MAIL FROM:<s@sender.example>", 250)
				c.say("RCPT TO:<a@far.example>", 550)
				c.say("QUIT", 221)
				c.end()
				continue
			}
			c.envelope()
			c.say(hello+".", 250)
			client := netip.MustParseAddrPort(want)
			m := receive(t, r.accepted)
			if m.Peer != client || m.Client != client.Addr().String() {
				t.Errorf("%q: %s, %s", header, m.Peer, m.Client)
			}
			if trace := "(" + string(AppendLiteral(nil, client.Addr())) + ")\r\n"; !strings.Contains(string(m.Trace), trace) {
				t.Errorf("%q: %q", header, m.Trace)
			}
			c.Close()
		}
	}
	r.awaitQuiet()
}

// TestB17NoProxy closes connections of a trusted proxy that do not begin with a header, without a word; those from elsewhere may not begin
// with one.
func TestB17NoProxy(t *testing.T) {
	t.Parallel()
	r := open(t, proxied)
	for _, header := range badProxies {
		c := r.connect()
		c.send(header)
		c.end()
	}
	r.awaitQuiet()
	if n := r.door.Stats.BadProxy.Get(); n != uint64(len(badProxies)) {
		t.Errorf("%d counted of %d", n, len(badProxies))
	}
	r = open(t, func(d *Door, s *shelf) {
		proxied(d, s)
		d.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	})
	c := r.connect()
	c.expect(220)
	c.say("PROXY TCP4 192.0.2.7 10.0.0.1 1234 25", 550)
	c.say("QUIT", 221)
	c.end()
	r.awaitQuiet()
}

// TestA7SlowProxy ends a connection whose header does not come, or drips.
func TestA7SlowProxy(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, s *shelf) {
		proxied(d, s)
		d.Pace.Command = 300 * time.Millisecond
	})
	silent, drips := r.connect(), r.connect()
	go func() {
		for _, b := range "PROXY UNKNOWN " + strings.Repeat("f", 80) {
			if _, err := drips.Write([]byte{byte(b)}); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	silent.end()
	if got, err := drips.reply(); err == nil || got != "" {
		t.Errorf("%q, %v", got, err)
	}
	r.awaitQuiet()
	if n := r.door.Stats.BadProxy.Get(); n != 2 {
		t.Errorf("%d counted", n)
	}
}

// TestA8QuotasBehindAProxy counts the clients, not the proxy.
func TestA8QuotasBehindAProxy(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, s *shelf) {
		strangers(Quota{Connections: 1})(d, s)
		d.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	for _, step := range []struct {
		client string
		code   int
	}{{"TCP4 192.0.2.1 10.0.0.1 1 25", 220}, {"TCP4 192.0.2.2 10.0.0.1 1 25", 220}, {"TCP4 192.0.2.1 10.0.0.1 2 25", 421}, {"UNKNOWN", 220}, {"UNKNOWN", 220}} {
		c := r.connect()
		c.say("PROXY "+step.client, step.code)
	}
}
