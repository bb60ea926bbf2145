package engine

import (
	"net/netip"
	"strings"
	"testing"
)

// TestD1NullSender: mail of strangers from domains that take none is refused, where the listener says so; what DNS does not know is taken, and nobody asks
// about those who may relay. Commands that were sent ahead are answered as always. RFC 7505 §4.2
func TestD1NullSender(t *testing.T) {
	t.Parallel()
	z := newZone(t, false, "null.example. 300 IN MX 0 .", "good.example. 300 IN MX 10 mx.good.example.", "mx.good.example. 300 IN A 198.41.0.4")
	z.mu.Lock()
	z.broken["broken.example."] = true
	z.mu.Unlock()
	f := listen(t, polite)
	c := settings(t, f.route("far.example"))
	c.DNS.Servers = []netip.AddrPort{z.at}
	c.Listeners[0].CheckSender, c.Listeners[0].RelayFrom, c.Listeners[0].RelayDomains, c.Limits.Exempt = true, nil, []string{"far.example"}, nil
	relay := c.Listeners[0]
	relay.RelayFrom = loopback
	c.Listeners = append(c.Listeners, relay)
	r := start(t, c)
	for range 2 { // by DNS, and by the cache
		d := r.knock(0)
		d.expect(220)
		d.say("EHLO client.example", 250)
		for _, x := range []struct {
			from string
			code int
			says string
		}{
			{"s@null.example", 550, "5.7.27"}, {"s@NULL.example", 550, "5.7.27"}, {"s@none.example", 550, "5.1.8"}, {"s@good.example", 250, ""}, {"s@broken.example", 250, ""},
			{"", 250, ""}, {"s@[192.0.2.1]", 250, ""},
		} {
			if reply := d.say("MAIL FROM:<"+x.from+">", x.code); !strings.Contains(reply, x.says) {
				t.Errorf("%s: %s", x.from, reply)
			}
			d.say("RSET", 250)
		}
		d.send("MAIL FROM:<s@null.example>\r\nRCPT TO:<u@far.example>\r\nMAIL FROM:<s@good.example>\r\nRCPT TO:<u@far.example>\r\nDATA\r\n")
		for _, code := range []int{550, 503, 250, 250, 354} {
			d.expect(code)
		}
		d.send(hello + ".\r\n")
		d.expect(250)
		d.say("QUIT", 221)
		if got := f.next(); got.mail != "MAIL FROM:<s@good.example>" && !strings.HasPrefix(got.mail, "MAIL FROM:<s@good.example> ") {
			t.Errorf("%q", got.mail)
		}
	}
	d := r.knock(1)
	d.expect(220)
	d.say("EHLO client.example", 250)
	d.say("MAIL FROM:<s@null.example>", 250)
	d.say("QUIT", 221)
	if n := r.stats.received.NoSender.Get(); n != 8 {
		t.Errorf("%d refusals were counted", n)
	}
	gone := r.knock(0) // whose client leaves before DNS answers
	gone.expect(220)
	gone.say("EHLO client.example", 250)
	gone.send("MAIL FROM:<s@other.example>\r\n")
	gone.Close()
	r.awaitEmpty()
}
