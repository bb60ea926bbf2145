package engine

import (
	"bytes"
	"strings"
	"testing"
)

// TestSubmit takes mail from the embedding program as from a client.
func TestSubmit(t *testing.T) {
	t.Parallel()
	f := listen(t, polite)
	r := start(t, settings(t, f.route("*")))
	for _, m := range []Mail{
		{From: "s@sender.example", To: []string{"a@far.example", "b@far.example"}, Content: []byte(hello)},
		{From: "", To: []string{"a@far.example"}, Content: []byte("\r\n")},
		{From: "s@sender.example", To: []string{"a@far.example"}, Content: []byte(noise(200<<10, 3))},
		{From: "s@sender.example", To: []string{"a@far.example"}, Content: nil},
		{From: "s@sender.example", To: []string{"a@far.example"}, Content: []byte(eightBit)},
		{From: "s@sender.example", To: []string{"gr\u00fc\u00dfe@far.example"}, Content: []byte(eightBit)},
	} {
		want := string(m.Content)
		id, err := r.Submit(t.Context(), m)
		if err != nil {
			t.Errorf("%v: %v", m.To, err)
			continue
		}
		clear(m.Content) // it was copied
		l := f.next()
		content := l.content
		trace := content[:len(content)-len(want)]
		if !strings.HasPrefix(trace, "Received: by mta.test.example id "+id.String()+"; ") || content[len(trace):] != want {
			t.Errorf("%v: %.300q", m.To, content)
		}
		if wantSent := !bytes.Contains([]byte(want), []byte("\xc3")); wantSent == strings.Contains(l.mail, "BODY=8BITMIME") {
			t.Errorf("%v: %s", m.To, l.mail)
		}
		if strings.Contains(l.mail, "SMTPUTF8") != strings.Contains(m.To[0], "\u00fc") {
			t.Errorf("%v: %s", m.To, l.mail)
		}
	}
	r.awaitEmpty()
}

// TestSubmitRefuses what SMTP would refuse.
func TestSubmitRefuses(t *testing.T) {
	t.Parallel()
	c := settings(t)
	c.Limits.MessageSize = 10_000
	r := start(t, c)
	good := []string{"a@far.example"}
	for name, m := range map[string]Mail{
		"bare LF":             {"s@sender.example", good, []byte("Subject: x\n\r\n")},
		"bare CR":             {"s@sender.example", good, []byte("Subject: x\rX: y\r\n")},
		"CR at the end":       {"s@sender.example", good, []byte("Subject: x\r")},
		"NUL":                 {"s@sender.example", good, []byte("Subject: \x00\r\n")},
		"no CRLF at the end":  {"s@sender.example", good, []byte("Subject: x")},
		"smuggled end":        {"s@sender.example", good, []byte("Subject: x\n.\r\nMAIL FROM:<x@y.example>\r\n")},
		"too large":           {"s@sender.example", good, []byte(text(1, 11_000))},
		"no recipients":       {"s@sender.example", nil, []byte(hello)},
		"empty recipient":     {"s@sender.example", []string{""}, []byte(hello)},
		"no domain in sender": {"s", good, []byte(hello)},
		"line break in rcpt":  {"s@sender.example", []string{"a@far.example>\r\nRCPT TO:<b@far.example"}, []byte(hello)},
		"bracket in rcpt":     {"s@sender.example", []string{"a@far.example> X=y"}, []byte(hello)},
		"source route":        {"s@sender.example", []string{"@relay.example:a@far.example"}, []byte(hello)},
		"control in sender":   {"s\x01@sender.example", good, []byte(hello)},
		"bad UTF-8":           {"s\xff@sender.example", good, []byte(hello)},
		"local part too long": {strings.Repeat("s", 65) + "@sender.example", good, []byte(hello)},
	} {
		if id, err := r.Submit(t.Context(), m); err == nil {
			t.Errorf("%s: taken as %v", name, id)
		}
	}
	if n := len(r.records()); n != 0 || len(r.queue()) != 0 {
		t.Errorf("%d records, queue %+v", n, r.queue())
	}
}
