package smtp

import (
	"errors"
	"strings"
	"testing"
)

// TestProbe asks for recipients on one session, in one go and step by step. No content is ever begun.
func TestProbe(t *testing.T) {
	const stepwise, pipelining = "250 mx.example.com\r\n", "250-mx.example.com\r\n250-SMTPUTF8\r\n250 PIPELINING\r\n"
	for name, c := range map[string]struct {
		hello   string
		replies []string // to what each flush sends
		events  string
		sent    string
	}{
		"there":             {stepwise, []string{"250 ok\r\n", "250 ok\r\n"}, "Mail 250 Rcpt 250 DataRefused 0", "MAIL FROM:<>|RCPT TO:<a@b.example>"},
		"not there":         {stepwise, []string{"250 ok\r\n", "550 5.1.1 no\r\n"}, "Mail 250 Rcpt 550 DataRefused 0", "MAIL FROM:<>|RCPT TO:<a@b.example>"},
		"MAIL refused":      {stepwise, []string{"550 5.7.1 no\r\n"}, "Mail 550 DataRefused 0", "MAIL FROM:<>"},
		"pipelined":         {pipelining, []string{"250 ok\r\n250 ok\r\n"}, "Mail 250 Rcpt 250 DataRefused 0", "MAIL FROM:<>+RCPT TO:<a@b.example>"},
		"pipelined refusal": {pipelining, []string{"550 no\r\n503 no\r\n"}, "Mail 550 DataRefused 0", "MAIL FROM:<>+RCPT TO:<a@b.example>"},
		"gone":              {pipelining, []string{"421 no\r\n"}, "Gone 421", "MAIL FROM:<>+RCPT TO:<a@b.example>"},
	} {
		var client Client
		client.Init(&ClientConfig{Hello: "out.example.com"})
		exchange := func(replies string) (events []string, sent string) {
			for p := []byte(replies); ; {
				n, ev := client.Feed(p)
				p = p[n:]
				if ev == ClientNeedInput {
					break
				}
				events = append(events, strings.TrimSpace(ev.String()+" "+string(AppendReply(nil, Reply{Code: max(client.Reply().Code, 200)})[:3])))
				if client.Reply().Code == 0 {
					events[len(events)-1] = ev.String() + " 0"
				}
				if ev == ClientGone {
					break
				}
			}
			sent = strings.ReplaceAll(strings.TrimSuffix(string(client.Pending()), "\r\n"), "\r\n", "+")
			client.Flushed()
			return events, sent
		}
		exchange("220 mx.example.com\r\n")
		exchange(c.hello)
		for again := range 2 { // what is left of the first is cleared away
			if err := client.Probe("a@b.example"); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := client.Probe("a@b.example"); !errors.Is(err, ErrNotReady) {
				t.Errorf("%s: a second probe under way: %v", name, err)
			}
			var events, sent []string
			_, first := exchange("")
			if reset, rest, found := strings.Cut(first, "RSET"); found && again > 0 {
				first = strings.TrimPrefix(reset+rest, "+")
				ev, more := exchange("250 ok\r\n")
				events, first = append(events, ev...), first+more
			}
			sent = append(sent, first)
			for _, r := range c.replies {
				ev, more := exchange(r)
				if events = append(events, ev...); more != "" {
					sent = append(sent, more)
				}
			}
			if got := strings.Join(events, " "); got != c.events {
				t.Errorf("%s: %s, want %s", name, got, c.events)
			}
			if got := strings.Join(sent, "|"); got != c.sent {
				t.Errorf("%s: sent %s, want %s", name, got, c.sent)
			}
			if name == "gone" {
				break
			}
			if client.Outstanding() != 0 || !client.CanBegin() {
				t.Errorf("%s: %d under way", name, client.Outstanding())
			}
		}
	}
}

// TestProbeRefuses what Begin refuses (I2).
func TestProbeRefuses(t *testing.T) {
	var client Client
	client.Init(&ClientConfig{Hello: "out.example.com"})
	if err := client.Probe("a@b.example"); !errors.Is(err, ErrNotReady) {
		t.Errorf("before the greeting: %v", err)
	}
	client.Feed([]byte("220 x\r\n250 PIPELINING\r\n"))
	client.Feed(nil)
	client.Flushed()
	for _, rcpt := range []string{"", "a@b>\r\nDATA\r\n<x", "a@b> SIZE=1", "@x:a@b", "a\x00@b", "\xff@b", "ü@b"} {
		if err := client.Probe(rcpt); err == nil || len(client.Pending()) > 0 {
			t.Errorf("%q: %v, %q", rcpt, err, client.Pending())
			client.Flushed()
		}
	}
}
