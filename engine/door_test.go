package engine

import (
	"fmt"
	"testing"
	"time"

	"mailrace/engine/config"
)

// knock connects to a listener of the node.
func (r *rig) knock(listener int) *dialog {
	r.t.Helper()
	return &dialog{r.t, connect(r.t, r.Addr(listener).String())}
}

// TestDoorsHaveTheirOwnPolicy takes mail of strangers for the domains of the listener that they came by, and bounds their sessions.
func TestDoorsHaveTheirOwnPolicy(t *testing.T) {
	t.Parallel()
	c := settings(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToDiscard}})
	c.Limits.SessionMessages = 1
	c.Listeners = []config.Listener{
		{Address: "127.0.0.1:0", Mode: config.ModeMX, RelayFrom: loopback},
		{Address: "127.0.0.1:0", Mode: config.ModeMX, RelayDomains: []string{"local.example"}},
		{Address: "127.0.0.1:0", Mode: config.ModeMX},
	}
	r := start(t, c)
	for i, want := range []struct{ local, far, next int }{{250, 250, 250}, {250, 550, 421}, {550, 550, 0}} {
		d := r.knock(i)
		d.expect(220)
		d.say("EHLO client.example", 250)
		d.say("MAIL FROM:<s@sender.example>", 250)
		d.say(fmt.Sprintf("RCPT TO:<u%d@local.example>", i), want.local)
		d.say("RCPT TO:<u@far.example>", want.far)
		if want.next != 0 {
			d.say("DATA", 354)
			d.say("Subject: x\r\n.", 250)
			d.say("MAIL FROM:<s@sender.example>", want.next)
		}
	}
	r.await("three deliveries", func() bool { return len(r.records("delivery")) == 3 })
}

// TestA8QuotasHoldForAllDoors counts a stranger at all listeners and loops together.
func TestA8QuotasHoldForAllDoors(t *testing.T) {
	t.Parallel()
	c := settings(t)
	c.Limits.Client.Connections = 2
	c.Listeners = []config.Listener{
		{Address: "127.0.0.1:0", Mode: config.ModeMX},
		{Address: "127.0.0.1:0", Mode: config.ModeMX},
		{Address: "127.0.0.1:0", Mode: config.ModeMX, RelayFrom: loopback},
	}
	r := start(t, c)
	r.knock(0).expect(220)
	r.knock(1).expect(220)
	for i := range 8 {
		d := r.knock(i % 2)
		d.expect(421)
		d.end()
	}
	r.knock(2).expect(220)
}

// TestB17ProxyInTheRecords writes the client's address that a trusted proxy told into the event log.
func TestB17ProxyInTheRecords(t *testing.T) {
	t.Parallel()
	c := settings(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToDiscard}})
	c.Listeners = []config.Listener{{
		Address: "127.0.0.1:0", Mode: config.ModeMX, ProxyFrom: loopback, RelayDomains: []string{"local.example"}, GreetDelay: 10 * time.Millisecond,
	}}
	r := start(t, c)
	d := r.knock(0)
	d.say("PROXY TCP4 192.0.2.7 192.0.2.1 1234 25", 220)
	d.say("EHLO client.example", 250)
	d.mail("MAIL FROM:<s@sender.example>", "Subject: x\r\n", "a@local.example")
	r.await("the reception", func() bool { return len(r.records("reception")) == 1 })
	if got := r.records("reception")[0]; got.Peer != "192.0.2.7:1234" && got.Peer != "192.0.2.7" {
		t.Errorf("%+v", got)
	}
}
