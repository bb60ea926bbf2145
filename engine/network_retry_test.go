package engine

import (
	"slices"
	"strings"
	"testing"
	"time"

	"mailrace/proto/message"
)

// TestFiveDays: a host that defers gets each attempt to the moment, for five days, and then the message expires.
func TestFiveDays(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, false)
	h := n.add("mx.far.example", "127.0.1.1", script{"RCPT": "451 4.2.2 mailbox full"})
	home := n.add("mx.sender.example", "127.0.1.2", nil)
	n.zone.add(t, "far.example. 300 IN MX 10 mx.far.example.", "sender.example. 300 IN MX 10 mx.sender.example.")
	n.serve()
	n.submit(nil, "a@far.example")
	e := n.expect("expiry", "a@far.example")
	var want []time.Duration
	for at, delay := time.Duration(0), 5*time.Minute; ; delay = min(2*delay, 4*time.Hour) {
		want = append(want, at)
		if at == 5*24*time.Hour {
			break
		}
		at = min(at+delay, 5*24*time.Hour)
	}
	if got := h.called(); !slices.Equal(got, want) {
		t.Errorf("attempts after\n%v, want\n%v", got, want)
	}
	if e.Attempt != len(want) || e.Code != 451 || e.Enhanced != "4.2.2" {
		t.Errorf("%+v", e)
	}
	n.settle()
	d := parseReport(t, home.next())
	if group := d.fieldsOf()["a@far.example"]; group.Get("Action") != "failed" || group.Get("Status") != "4.2.2" {
		t.Errorf("%v", d.recipients)
	}
	n.awaitEmpty()
	home.none()
}

// TestReportsAreOfSevenBits: what is reported of an internationalized recipient reaches a sender behind a host that offers neither 8BITMIME nor SMTPUTF8.
func TestReportsAreOfSevenBits(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, false)
	n.add("mx.far.example", "127.0.1.1", script{"RCPT": "550 5.1.1 no such user"})
	home := n.addWith("sender.example", "127.0.1.2", manners{extensions: []string{"PIPELINING"}}, nil)
	n.zone.add(t, "far.example. 300 IN MX 10 mx.far.example.")
	n.serve()
	n.submit(func(m *message.Message) { m.Flags |= message.SMTPUTF8 }, "\u00fc@far.example")
	if l := n.mailAt(home); !isASCII(l.content) || !strings.Contains(l.content, "Final-Recipient: utf-8; =C3=BC@far.example") || strings.Contains(l.mail, "BODY=") {
		t.Errorf("%s: %q", l.mail, l.content)
	}
	n.awaitEmpty()
}

func isASCII(s string) bool { return !strings.ContainsFunc(s, func(c rune) bool { return c >= 0x80 }) }
