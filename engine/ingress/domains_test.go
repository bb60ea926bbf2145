package ingress

import (
	"strings"
	"testing"
)

func TestDomains(t *testing.T) {
	d := NewDomains([]string{"Local.example", "*.below.example", "xn--bcher-kva.example"})
	for domain, want := range map[string]bool{
		"local.example": true, "LOCAL.Example": true, "sub.local.example": false, "notlocal.example": false, "local.example.": false,
		"a.below.example": true, "a.b.BELOW.example": true, "below.example": false, "xbelow.example": false, ".below.example": true,
		"bücher.example": true, "BÜCHER.example": true, "xn--bcher-kva.example": true, "\xff.example": false, "ü.below.example": true,
		"": false, "[127.0.0.1]": false, "[local.example]": false, strings.Repeat("a", 250) + ".below.example": false,
	} {
		if got := d.Has([]byte(domain)); got != want {
			t.Errorf("%q: %v", domain, got)
		}
	}
	name := []byte("Some.Where.below.example")
	if n := testing.AllocsPerRun(100, func() { d.Has(name) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if (*Domains)(nil).Has(name) {
		t.Error("no set has domains")
	}
}

// TestA2StrangersRelayNowhere sends what some server takes for the address of another host. From a stranger only plain addresses of the
// configured domains are taken; a client that may relay gets them all relayed as they stand.
func TestA2StrangersRelayNowhere(t *testing.T) {
	t.Parallel()
	for _, stranger := range []bool{true, false} {
		r := open(t, func(d *Door, _ *shelf) {
			d.RelayDomains = NewDomains([]string{"local.example"})
			if stranger {
				d.RelayFrom = nil
			}
		})
		for rcpt, want := range map[string]struct{ stranger, relay string }{
			"<u@local.example>":                         {"250 2.1.5", "250 2.1.5"},
			"<u@LOCAL.example>":                         {"250 2.1.5", "250 2.1.5"},
			"<u@far.example>":                           {"550 5.7.1", "250 2.1.5"},
			"<u@sub.local.example>":                     {"550 5.7.1", "250 2.1.5"},
			"<u%far.example@local.example>":             {"550 5.7.1", "250 2.1.5"},
			"<far.example!u@local.example>":             {"550 5.7.1", "250 2.1.5"},
			`<"u@far.example"@local.example>`:           {"550 5.7.1", "250 2.1.5"},
			`<"u%far.example"@local.example>`:           {"550 5.7.1", "250 2.1.5"},
			"<@local.example:u@far.example>":            {"550 5.7.1", "250 2.1.5"}, // the route is stripped: RFC 5321 §4.1.1.3
			"<@far.example:u@local.example>":            {"250 2.1.5", "250 2.1.5"},
			"<u@far.example@local.example>":             {"501 5.1.3", "501 5.1.3"},
			"<u@[127.0.0.1]>":                           {"550 5.7.1", "250 2.1.5"},
			"<postmaster>":                              {"550 5.7.1", "250 2.1.5"}, // ours is not among the domains
			"<@local.example,@far.example:u@[1.2.3.4]>": {"550 5.7.1", "250 2.1.5"},
		} {
			c := r.greet()
			c.say("MAIL FROM:<s@sender.example>", 250)
			c.send("RCPT TO:" + rcpt + "\r\n")
			expected := want.relay
			if stranger {
				expected = want.stranger
			}
			if got, err := c.reply(); err != nil || !strings.HasPrefix(got, expected) {
				t.Errorf("stranger %v, %s: %q, %v", stranger, rcpt, got, err)
			}
			c.Close()
		}
		r.awaitQuiet()
	}
}

// TestRelayDomains takes mail for the configured domains from anybody, and for postmaster without a domain where our own name is one of them.
func TestRelayDomains(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, _ *shelf) {
		d.RelayFrom, d.RelayDomains = nil, NewDomains([]string{"local.example", "mta.test.example"})
	})
	c := r.greet()
	c.say("MAIL FROM:<s@sender.example>", 250)
	c.say("RCPT TO:<a@far.example>", 550)
	c.say("RCPT TO:<a@local.example>", 250)
	c.say("RCPT TO:<Postmaster>", 250)
	c.say("DATA", 354)
	c.say(hello+".", 250)
	m := receive(t, r.accepted)
	if len(m.Recipients) != 2 || m.Recipients[0].Address != "a@local.example" || m.Recipients[1].Address != "Postmaster" {
		t.Errorf("%+v", m.Recipients)
	}
	if n := r.door.Stats.NoRelay.Get(); n != 1 {
		t.Errorf("%d refusals counted", n)
	}
	c.Close()
	r.awaitQuiet()
}

// TestA8ForeignRecipientsEndTheSession counts each refused recipient as an error: nobody tries 10^5 of them.
func TestA8ForeignRecipientsEndTheSession(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, _ *shelf) { d.RelayFrom = nil })
	c := r.greet()
	c.say("MAIL FROM:<s@sender.example>", 250)
	c.send(strings.Repeat("RCPT TO:<a@far.example>\r\n", 1000))
	for range 20 {
		c.expect(550)
	}
	if got := c.expect(421); !strings.HasPrefix(got, "421 4.7.0 ") {
		t.Errorf("%q", got)
	}
	c.end()
	r.awaitQuiet()
}
