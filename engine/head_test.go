package engine

import (
	"fmt"
	"regexp"
	"testing"

	"mailrace/engine/auth"
	"mailrace/engine/config"
)

// TestHeadersOnTheWay sends messages through listeners of each kind, and looks at what comes out behind our trace header: labels are taken out
// and stand in the event log, submissions are completed, newlines are fixed, and on none of them is anything else changed (P5).
func TestHeadersOnTheWay(t *testing.T) {
	t.Parallel()
	f := listen(t, polite)
	c := settings(t, f.route("*"))
	c.Labels = config.Labels{Tenant: "X-Tenant", Campaign: "X-Campaign", EnvID: []string{"campaign", "key"}}
	c.Listeners = []config.Listener{
		{Address: "127.0.0.1:0", Mode: config.ModeMX, RelayFrom: loopback},
		{Address: "127.0.0.1:0", Mode: config.ModeSubmission, RelayFrom: loopback},
		{Address: "127.0.0.1:0", Mode: config.ModeMX, RelayFrom: loopback, FixNewlines: true},
		{Address: "127.0.0.1:0", Mode: config.ModeMX, RelayDomains: []string{"far.example"}},
	}
	r := start(t, c)
	const (
		sent  = "X-Tenant: acme\r\nSubject: x\r\nBcc: b@far.example\r\nX-Campaign: spring\r\n\r\n.X-Tenant: body\r\n"
		plain = "Subject: x\r\nBcc: b@far.example\r\n\r\n.X-Tenant: body\r\n"
	)
	date := `Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}\r\n`
	for listener, want := range []struct{ sent, got, tenant, campaign string }{
		{sent, regexp.QuoteMeta(plain), "acme", "spring"},
		{sent, `Subject: x\r\n` + date + `From: <s@sender.example>\r\nMessage-ID: <\w{13}@mta\.test\.example>\r\n\r\n\.X-Tenant: body\r\n`, "acme", "spring"},
		{"Subject: x\n\nX-Tenant: a\r \n..\n.\nb\r\n", `Subject: x\r\n\r\nX-Tenant: a  \r\n\.\r\n\.\r\nb\r\n`, "", "other"},
		{sent, regexp.QuoteMeta(plain), "", ""},
	} {
		d := r.knock(listener)
		d.expect(220)
		d.say("EHLO client.example", 250)
		d.say("MAIL FROM:<s@sender.example> ENVID=other/k"+fmt.Sprint(listener), 250)
		d.say("RCPT TO:<a@far.example>", 250)
		d.say("DATA", 354)
		text := want.sent
		if listener != 2 {
			text = stuff(text)
		}
		id := queued(t, d.say(text+".", 250))
		if got := f.next().content; !regexp.MustCompile(`^Received: (.*\r\n)(\s.*\r\n)*` + want.got + "$").MatchString(got) {
			t.Errorf("listener %d: got\n%q\nwant\n%q", listener, got, want.got)
		}
		var found bool
		for _, e := range r.records("reception") {
			if e.ID == id {
				if found = true; e.Tenant != want.tenant || e.Campaign != want.campaign {
					t.Errorf("listener %d: tenant %q, campaign %q", listener, e.Tenant, e.Campaign)
				}
			}
		}
		if !found {
			t.Errorf("listener %d: no record of its reception", listener)
		}
	}
}

// TestCheckFrom holds From against the addresses of the user who submits, where the listener says so.
func TestCheckFrom(t *testing.T) {
	t.Parallel()
	c := withUsers(t)
	hash, err := auth.HashPassword("right")
	if err != nil {
		t.Fatal(err)
	}
	addUser(t, c, config.User{Name: "alice", Password: hash, Tenant: "acme", Senders: []string{"alice@sender.example", "*@team.example"}})
	c.Listeners[2].CheckFrom = true
	c.Labels.Tenant = "X-Tenant"
	r := start(t, c)
	for listener, codes := range map[int]map[string]int{
		1: {"boss@far.example": 250, "alice@sender.example": 250},
		2: {"boss@far.example": 550, "alice@sender.example": 250, "\"boss@far.example\" <Alice@TEAM.example>": 250, "alice@sender.example, boss@far.example": 550, "boss@far.example <alice@sender.example>": 554},
	} {
		for from, code := range codes {
			d, _ := r.dialTLS(listener, insecure(""))
			d.say(loginAlice, 235)
			d.say("MAIL FROM:<alice@sender.example>", 250)
			d.say("RCPT TO:<a@far.example>", 250)
			d.say("DATA", 354)
			reply := d.say("From: "+from+"\r\nX-Tenant: other\r\n\r\nx\r\n.", code)
			if code != 250 {
				continue
			}
			id := queued(t, reply)
			r.await("its record", func() bool {
				for _, e := range r.records("reception") {
					if e.ID == id && e.Tenant != "acme" {
						t.Errorf("%s: tenant %q in place of that of the user", from, e.Tenant)
					}
					if e.ID == id {
						return true
					}
				}
				return false
			})
		}
	}
}
