package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const eightBit = "Subject: gr\xc3\xbc\xc3\x9fe\r\n\r\nSch\xc3\xb6ne Gr\xc3\xbc\xc3\x9fe\r\n"

// TestMissingExtension bounces what the next host cannot take, without a word of it on the wire (I15).
func TestMissingExtension(t *testing.T) {
	for name, c := range map[string]struct {
		offered       []string
		mail, content string
		status        string // of the bounce, "" for none
		sent          string // behind the reverse-path in MAIL
	}{
		"8-bit to an old host":               {[]string{"PIPELINING"}, " BODY=8BITMIME", eightBit, "5.6.3", ""},
		"8-bit not declared, to an old host": {[]string{"PIPELINING"}, "", eightBit, "5.6.3", ""},
		"8-bit not declared":                 {[]string{"8BITMIME"}, "", eightBit, "", " BODY=8BITMIME"},
		"large 7-bit declared 8-bit":         {[]string{"PIPELINING"}, " BODY=8BITMIME", text(1, 2<<20), "", ""},
		"7-bit declared 8-bit":               {[]string{"PIPELINING"}, " BODY=8BITMIME", hello, "", ""},
		"8-bit to a host that offers it":     {[]string{"8BITMIME"}, " BODY=8BITMIME", eightBit, "", " BODY=8BITMIME"},
		"SMTPUTF8 to a host without":         {[]string{"8BITMIME"}, " SMTPUTF8 BODY=8BITMIME", "Subject: x\r\n\r\nSch\xc3\xb6n\r\n", "5.6.7", ""},
		"SMTPUTF8 that is ASCII":             {[]string{"8BITMIME", "DSN"}, " SMTPUTF8", hello, "", ""},
		"SMTPUTF8 to a host that knows it":   {everything[2:], " SMTPUTF8 BODY=8BITMIME", eightBit, "", " BODY=8BITMIME SMTPUTF8"},
		"larger than the host's SIZE":        {[]string{"SIZE 2000"}, "", text(1, 3000), "5.3.4", ""},
		"SIZE without a number":              {[]string{"SIZE"}, "", text(1, 3000), "", " SIZE="},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			home := listen(t, polite)
			f := listen(t, func(p *peer) { p.receive(manners{extensions: c.offered}) })
			r := start(t, settings(t, f.route("far.example"), home.route("*")))
			d := r.dial()
			d.say("EHLO client.example", 250)
			d.mail("MAIL FROM:<s@sender.example>"+c.mail, c.content, "a@far.example")
			if c.status == "" {
				l := f.next()
				if got := withoutTrace(t, l.content); got != c.content {
					t.Errorf("content %q", got)
				}
				if sent := strings.TrimPrefix(l.mail, "MAIL FROM:<s@sender.example>"); sent != c.sent && (c.sent != " SIZE=" || !strings.HasPrefix(sent, c.sent)) {
					t.Errorf("%q, want %q", sent, c.sent)
				}
			} else {
				report := parseReport(t, home.next())
				if len(report.recipients) != 1 || report.recipients[0].Get("Status") != c.status {
					t.Errorf("report: %v, want %s", report.recipients, c.status)
				}
				if got := r.record("bounce", "a@far.example", 1); got.Enhanced != c.status {
					t.Errorf("record: %+v", got)
				}
			}
			r.awaitEmpty()
			f.none()
		})
	}
}

// TestAddresses takes forward-paths of every form and gives them on as they were, each in a command of its own (A2, I6).
func TestAddresses(t *testing.T) {
	t.Parallel()
	f := listen(t, polite)
	r := start(t, settings(t, f.route("*")))
	addresses := []string{
		`"u@far"@far.example`, `u%elsewhere@far.example`, `elsewhere!u@far.example`, `";cmd;"@far.example`, `"a\"b > c"@far.example`, "+-_~@far.example",
		"postmaster",
	}
	r.send("s@sender.example", hello, addresses...)
	var got []string
	for len(got) < len(addresses) {
		got = append(got, f.next().to...)
	}
	slices.Sort(got)
	slices.Sort(addresses)
	if !slices.Equal(got, addresses) {
		t.Errorf("got %q, want %q", got, addresses)
	}
	r.awaitEmpty()
	f.none()
}

// TestChunksAreSentOn takes content in chunks and gives it to a host that knows only DATA: dots and all, and with the line end that the last line
// lacks (P5).
func TestChunksAreSentOn(t *testing.T) {
	t.Parallel()
	f := listen(t, polite)
	r := start(t, settings(t, f.route("*")))
	d := r.dial()
	d.say("EHLO client.example", 250)
	for content, want := range map[string]string{
		hello: hello,
		"Subject: dots\r\n\r\n.\r\n..\r\n.\r\n.end": "Subject: dots\r\n\r\n.\r\n..\r\n.\r\n.end\r\n",
		text(1, 1<<20): text(1, 1<<20),
	} {
		d.say("MAIL FROM:<s@sender.example>", 250)
		d.say("RCPT TO:<a@far.example>", 250)
		half := len(content) / 2
		d.send(fmt.Sprintf("BDAT %d\r\n%sBDAT %d LAST\r\n%s", half, content[:half], len(content)-half, content[half:]))
		d.expect(250)
		queued(t, d.expect(250))
		if got := withoutTrace(t, f.next().content); got != want {
			t.Errorf("got %.200q, want %.200q", got, want)
		}
	}
	r.awaitEmpty()
}
