package engine

import (
	"fmt"
	"net/textproto"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"mailrace/engine/config"
)

// withDSN takes all mail and offers DSN.
func withDSN(p *peer) { p.receive(manners{extensions: append(slices.Clone(everything), "DSN")}) }

// refusing takes no recipient whose local-part begins with "no".
func refusing(_ *peer, line string) string {
	if strings.HasPrefix(line, "RCPT TO:<no") {
		return "550 5.1.1 no such user"
	}
	return ""
}

// sendWith hands a message in with parameters: mail is what stands behind the reverse-path, each of rcpts an address in brackets and what stands
// behind it.
func (r *rig) sendWith(from, mail, content string, rcpts ...string) string {
	r.t.Helper()
	d := r.dial()
	d.say("EHLO client.example", 250)
	d.say("MAIL FROM:<"+from+">"+mail, 250)
	for _, rcpt := range rcpts {
		d.say("RCPT TO:"+rcpt, 250)
	}
	d.say("DATA", 354)
	id := queued(r.t, d.say(stuff(content)+".", 250))
	d.say("QUIT", 221)
	d.end()
	return id
}

// fieldsOf are the groups of a report by the address of their recipient.
func (n *notification) fieldsOf() map[string]textproto.MIMEHeader {
	by := map[string]textproto.MIMEHeader{}
	for _, group := range n.recipients {
		by[strings.TrimPrefix(group.Get("Final-Recipient"), "rfc822; ")] = group
	}
	return by
}

// TestNotify: who hears of what. A report comes for those recipients only whose sender wants it (A3).
func TestNotify(t *testing.T) {
	const yes, no = "<yes@far.example>", "<no@far.example>"
	for name, c := range map[string]struct {
		offers bool // DSN
		from   string
		rcpts  []string
		want   map[string]string // recipients of the report, and the action
	}{
		"not said":                   {false, "s@sender.example", []string{yes, no}, map[string]string{no: "failed"}},
		"never":                      {false, "s@sender.example", []string{yes + " NOTIFY=NEVER", no + " NOTIFY=NEVER"}, nil},
		"failure":                    {false, "s@sender.example", []string{yes + " NOTIFY=FAILURE", no + " NOTIFY=FAILURE"}, map[string]string{no: "failed"}},
		"delay":                      {false, "s@sender.example", []string{yes + " NOTIFY=DELAY", no + " NOTIFY=DELAY"}, nil},
		"success":                    {false, "s@sender.example", []string{yes + " NOTIFY=SUCCESS", no + " NOTIFY=SUCCESS"}, map[string]string{yes: "relayed"}},
		"success and failure":        {false, "s@sender.example", []string{yes + " NOTIFY=SUCCESS,FAILURE", no + " NOTIFY=SUCCESS,FAILURE"}, map[string]string{yes: "relayed", no: "failed"}},
		"success, to a host with it": {true, "s@sender.example", []string{yes + " NOTIFY=SUCCESS,FAILURE"}, nil},
		"failure at a host with it":  {true, "s@sender.example", []string{yes + " NOTIFY=SUCCESS,FAILURE", no + " NOTIFY=FAILURE"}, map[string]string{no: "failed"}},
		"one of two failures":        {true, "s@sender.example", []string{no + " NOTIFY=NEVER", "<no2@far.example> NOTIFY=FAILURE"}, map[string]string{"<no2@far.example>": "failed"}},
		"null reverse-path":          {false, "", []string{yes + " NOTIFY=SUCCESS", no + " NOTIFY=FAILURE"}, nil},
		"discarded":                  {false, "s@sender.example", []string{"<x@nowhere.example> NOTIFY=SUCCESS", "<y@nowhere.example>"}, map[string]string{"<x@nowhere.example>": "delivered"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			offered := slices.Clone(everything)
			if c.offers {
				offered = append(offered, "DSN")
			}
			f := listen(t, func(p *peer) { p.receive(manners{extensions: offered, answer: refusing}) })
			home := listen(t, polite)
			nowhere := config.Route{Domains: []string{"nowhere.example"}, To: config.Target{Kind: config.ToDiscard}}
			r := start(t, settings(t, f.route("far.example"), nowhere, home.route("*")))
			r.sendWith(c.from, "", hello, c.rcpts...)
			got := map[string]string{}
			for len(got) < len(c.want) {
				d := parseReport(t, home.next())
				for rcpt, group := range d.fieldsOf() {
					got["<"+rcpt+">"] = group.Get("Action")
					if status, class := group.Get("Status"), map[string]string{"failed": "5."}[group.Get("Action")]; !strings.HasPrefix(status, class) || class == "" && status[0] != '2' {
						t.Errorf("%s: status %s", rcpt, status)
					}
				}
				if d.kind != "text/rfc822-headers" {
					t.Errorf("returned %s", d.kind)
				}
			}
			r.awaitEmpty()
			home.none()
			if fmt.Sprint(got) != fmt.Sprint(c.want) && len(got)+len(c.want) > 0 {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestReportReturns what the sender asked for, and what it called message and recipient (I4, I5).
func TestReportReturns(t *testing.T) {
	long := hello + strings.Repeat("more\r\n", 50_000/6)
	for name, c := range map[string]struct {
		mail, content string
		kind          string
		envelope      string
	}{
		"nothing said":         {"", hello, "text/rfc822-headers", ""},
		"headers":              {" RET=HDRS ENVID=QQ314159", hello, "text/rfc822-headers", "QQ314159"},
		"all of it":            {" RET=FULL ENVID=a+20+2B", hello, "message/rfc822", "a +"},
		"all of what is 8-bit": {" RET=FULL BODY=8BITMIME", eightBit, "message/rfc822", ""},
		"too long":             {" RET=FULL", long, "text/rfc822-headers", ""},
		"in several chunks":    {" RET=FULL", text(1, 200_000), "text/rfc822-headers", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := listen(t, answering(refusing))
			r := start(t, settings(t, f.route("*")))
			r.sendWith("s@sender.example", c.mail, c.content, "<no1@far.example>", "<no2@far.example> ORCPT=rfc822;Alias+2Bx@near.example")
			d := parseReport(t, f.next())
			r.awaitEmpty()
			f.none()
			header, _, _ := strings.Cut(c.content, "\r\n\r\n")
			full := c.kind == "message/rfc822"
			if d.kind != c.kind || full && d.returned != c.content || !full && d.returned != header+"\r\n" {
				t.Errorf("returned %s: %.300q", d.kind, d.returned)
			}
			if got := d.message.Get("Original-Envelope-Id"); got != c.envelope {
				t.Errorf("Original-Envelope-Id %q, want %q", got, c.envelope)
			}
			by := d.fieldsOf()
			if got := by["no2@far.example"].Get("Original-Recipient"); got != "rfc822; Alias+x@near.example" || by["no1@far.example"].Get("Original-Recipient") != "" {
				t.Errorf("Original-Recipient %q in %v", got, by)
			}
		})
	}
}

// TestParametersArePassedOn to the next host, encoded anew, also by a node that was stopped in between.
func TestParametersArePassedOn(t *testing.T) {
	t.Parallel()
	var up atomic.Bool
	f := listen(t, func(p *peer) {
		p.receive(manners{extensions: append(slices.Clone(everything), "DSN"), answer: func(_ *peer, line string) string {
			if strings.HasPrefix(line, "MAIL") && !up.Load() {
				return "451 4.3.0 not now"
			}
			return ""
		}})
	})
	c := settings(t, f.route("*"))
	r := start(t, c)
	r.sendWith("s@sender.example", " ret=full ENVID=+41+2b+3d+20z", hello,
		"<a@far.example> NOTIFY=delay,success ORCPT=rfc822;+41@near.example", "<b@far.example>", `<c@far.example> ORCPT=utf-8;\x{FC}@near.example`, "<d@far.example> NOTIFY=NEVER")
	r.record("deferral", "d@far.example", 1)
	r.stop()
	up.Store(true)
	r = start(t, c)
	var to []string
	for len(to) < 4 {
		l := f.next()
		to = append(to, l.to...)
		if !strings.HasSuffix(l.mail, " RET=FULL ENVID=A+2B+3D+20z") {
			t.Errorf("%q", l.mail)
		}
	}
	slices.Sort(to)
	want := []string{
		"a@far.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;A@near.example", "b@far.example", `c@far.example> ORCPT=utf-8;\x{FC}@near.example`, "d@far.example> NOTIFY=NEVER",
	}
	if !slices.Equal(to, want) {
		t.Errorf("got  %q\nwant %q", to, want)
	}
	r.awaitEmpty()
	f.none()
}

// TestPlainMailHasNoParameters: a host that offers DSN gets of it what the sender said, and nothing else.
func TestPlainMailHasNoParameters(t *testing.T) {
	t.Parallel()
	f := listen(t, withDSN)
	r := start(t, settings(t, f.route("*")))
	r.send("s@sender.example", hello, "a@far.example")
	if l := f.next(); strings.ContainsAny(l.mail, "+;") || strings.Contains(l.mail, "RET") || !slices.Equal(l.to, []string{"a@far.example"}) {
		t.Errorf("%q, %q", l.mail, l.to)
	}
	r.awaitEmpty()
}
