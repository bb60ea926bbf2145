package ingress

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestB9EarlyTalker refuses strangers that talk before the greeting, whole or in part, also behind the header of a proxy.
func TestB9EarlyTalker(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"a line": "EHLO client.example\r\n", "an octet": "E", "a session": "EHLO c.example\r\nMAIL FROM:<s@sender.example>\r\nQUIT\r\n", "LF": "\n",
		"behind a header": "PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\nEHLO client.example\r\n",
	} {
		r := open(t, func(d *Door, s *shelf) {
			strangers(Quota{Errors: 1})(d, s)
			if d.GreetDelay = patience; strings.HasPrefix(text, "PROXY") {
				d.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
			}
		})
		c := r.connect()
		c.send(text)
		if got := c.expect(554); !strings.HasPrefix(got, "554 5.5.1 ") {
			t.Errorf("%s: %q", name, got)
		}
		c.end()
		r.awaitQuiet()
		if n := r.door.Stats.Early.Get(); n != 1 {
			t.Errorf("%s: %d counted", name, n)
		}
		if name == "a line" { // it counts as an error of the client
			r.refused(r.connect().expect(421), "421 4.7.0 Too many errors", tooManyErrors, 1)
		}
	}
}

// TestGreetDelay greets who waits, when the delay is over, and who is trusted at once.
func TestGreetDelay(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, s *shelf) {
		strangers(Quota{})(d, s)
		d.GreetDelay = 200 * time.Millisecond
	})
	c := r.connect()
	receive(t, r.timeouts)
	c.expect(220)
	c.say("EHLO client.example", 250)
	c.envelope()
	c.say(hello+".", 250)
	c.Close()
	r.awaitQuiet()

	r = open(t, func(d *Door, _ *shelf) { d.GreetDelay = patience })
	c = r.connect()
	c.send("EHLO client.example\r\n") // in a hurry, and may be
	c.expect(220)
	c.expect(250)
	c.Close()
	r.awaitQuiet()
}

// TestDrainBeforeTheGreeting ends those who wait for it.
func TestDrainBeforeTheGreeting(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, s *shelf) {
		strangers(Quota{})(d, s)
		d.GreetDelay = patience
	})
	c := r.connect()
	r.await("the session", func() bool { return r.sessions() == 1 })
	l := r.group.Loops()[0]
	l.Post(func() { r.door.Drain(l) })
	c.expect(421)
	c.end()
	r.awaitQuiet()
}

// TestB10HastyClients counts strangers that do not wait where they must, once a session, and refuses them nothing.
func TestB10HastyClients(t *testing.T) {
	t.Parallel()
	const envelope = "MAIL FROM:<s@sender.example>\r\nRCPT TO:<a@far.example>\r\n"
	type step struct {
		text    string
		replies []int
	}
	for name, c := range map[string]struct {
		hasty uint64
		steps []step
	}{
		"groups": {0, []step{
			{"EHLO c.example\r\n", []int{250}}, {envelope + "DATA\r\n", []int{250, 250, 354}},
			{hello + ".\r\n" + envelope + "DATA\r\n", []int{250, 250, 250, 354}}, {hello + ".\r\nQUIT\r\n", []int{250, 221}},
		}},
		"behind EHLO": {1, []step{{"EHLO c.example\r\n" + envelope + "QUIT\r\n", []int{250, 250, 250, 221}}}},
		"behind DATA": {1, []step{
			{"EHLO c.example\r\n", []int{250}}, {envelope + "DATA\r\n" + hello + ".\r\nQUIT\r\n", []int{250, 250, 354, 250, 221}},
		}},
		"behind both": {1, []step{{"EHLO c.example\r\n" + envelope + "DATA\r\n" + hello + ".\r\nQUIT\r\n", []int{250, 250, 250, 354, 250, 221}}}},
		"chunks": {0, []step{
			{"EHLO c.example\r\n", []int{250}}, {envelope + "BDAT 6 LAST\r\nx: y\r\nQUIT\r\n", []int{250, 250, 250, 221}},
		}},
	} {
		for _, stranger := range []bool{true, false} {
			r := open(t, func(d *Door, s *shelf) {
				if stranger {
					strangers(Quota{})(d, s)
				}
			})
			client := r.connect()
			client.expect(220)
			for _, step := range c.steps {
				client.send(step.text)
				for _, code := range step.replies {
					client.expect(code)
				}
			}
			client.end()
			r.awaitQuiet()
			want := c.hasty
			if !stranger {
				want = 0
			}
			if n := r.door.Stats.Hasty.Get(); n != want {
				t.Errorf("%s, stranger %v: %d counted, want %d", name, stranger, n, want)
			}
		}
	}
}
