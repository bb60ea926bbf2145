package ingress

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// smuggled are ends of data that some server reads where another does not, by their row in the list of hostile input, and the reply.
var smuggled = []struct{ id, end, reply string }{
	{"S1", "\n.\n", "550 5.5.2"},
	{"S2", "\n.\r", "550 5.5.2"},
	{"S3", "\r.\n", "550 5.5.2"},
	{"S4", "\r.\r", "550 5.5.2"},
	{"S5", "\n.\r\n", "550 5.5.2"},
	{"S6", "\r.\r\n", "550 5.5.2"},
	{"S7", "\r\n.\n", "550 5.5.2"},
	{"S8", "\r\n.\r", "550 5.5.2"},
	{"S9", "\r\n\x00.\r\n", "550 5.6.0"},
	{"S10", "\r\n.\x00\r\n", "550 5.6.0"},
	{"S11", "\r\n.\r\r\n", "550 5.5.2"},
	{"S12", "\r\r\n.\r\n", "550 5.5.2"},
	{"S13", "\r\r\n.\r\r\n", "550 5.5.2"},
}

// TestSmuggling sends a second message behind each false end of data: at the start of the content, in its header and in its body, whole and
// octet by octet. The session must end with one refusal, and nothing be kept.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	r := open(t, nil)
	const second = "MAIL FROM:<evil@sender.example>\r\nRCPT TO:<victim@far.example>\r\nDATA\r\nSubject: smuggled\r\n\r\n.\r\nQUIT\r\n"
	for _, s := range smuggled {
		for place, begin := range map[string]string{"start": "", "header": "Subject: x", "body": "Subject: x\r\n\r\nbody", "long line": "Subject: x\r\n\r\n" + strings.Repeat("x", 998)} {
			for _, split := range []bool{false, true} {
				if split && place == "long line" {
					continue
				}
				c := r.greet()
				c.envelope()
				text := begin + s.end + second
				for len(text) > 0 {
					n := len(text)
					if split {
						n = 1
					}
					if _, err := c.Write([]byte(text[:n])); err != nil {
						break // refused already
					}
					text = text[n:]
				}
				if got, err := c.reply(); err != nil || !strings.HasPrefix(got, s.reply) {
					t.Errorf("%s at %s, split %v: %q, %v", s.id, place, split, got, err)
				}
				c.end()
			}
		}
	}
	r.awaitQuiet()
	if appended, _, _ := r.store.counts(); appended != 0 {
		t.Errorf("%d messages kept", appended)
	}
}

// TestTrueEndOfData reads a message behind the true end of data as a message of its own (S14), and dots as what they are.
func TestTrueEndOfData(t *testing.T) {
	t.Parallel()
	r := open(t, nil)
	c := r.greet()
	const next = "MAIL FROM:<s@sender.example>\r\nRCPT TO:<a@far.example>\r\nDATA\r\n"
	contents := map[string]string{"": "", "..\r\n": ".\r\n", "...\r\nx\r\n..x\r\n": "..\r\nx\r\n.x\r\n", "x.\r\n": "x.\r\n"}
	all := ""
	var wants []string
	for wire, want := range contents {
		all += next + wire + ".\r\n"
		wants = append(wants, want)
	}
	c.send(all)
	for _, want := range wants {
		for _, code := range []int{250, 250, 354, 250} {
			c.expect(code)
		}
		if got := receive(t, r.accepted); got.content != want {
			t.Errorf("%q, want %q", got.content, want)
		}
	}
	c.Close()
	r.awaitQuiet()
}

// TestHostileCommands sends what no client sends.
func TestHostileCommands(t *testing.T) {
	t.Parallel()
	r := open(t, nil)
	for name, c := range map[string]struct {
		text    string
		replies []string
		closes  bool
	}{
		"T9: a browser":            {"GET / HTTP/1.1\r\nHost: mta.test.example\r\n\r\n", []string{"502 5.5.1"}, true},
		"T9: a form":               {"POST / HTTP/1.1\r\n\r\nMAIL FROM:<a@b.example>\r\n", []string{"502 5.5.1"}, true},
		"bare LF":                  {"EHLO client.example\nMAIL FROM:<a@b.example>\r\n", []string{"500 5.5.2"}, true},
		"I14: NUL":                 {"EHLO cl\x00ient\r\n", []string{"500 5.5.2"}, false},
		"I1: CR in an address":     {"EHLO c.example\r\nMAIL FROM:<a\rX: y@b.example>\r\n", []string{"250", "501 5.5.4"}, false},
		"I3: 8-bit address":        {"EHLO c.example\r\nMAIL FROM:<\xc3\xbc@b.example>\r\n", []string{"250", "553 5.6.7"}, false},
		"B12: too long":            {"NOOP " + strings.Repeat("x", 100_000) + "\r\n", []string{"500 5.5.6"}, false},
		"B13: SIZE too large":      {"EHLO c.example\r\nMAIL FROM:<a@b.example> SIZE=99999999999\r\n", []string{"250", "552 5.3.4"}, false},
		"B16: VRFY, EXPN, ETRN":    {"VRFY a\r\nEXPN a\r\nETRN a\r\n", []string{"252", "502", "502"}, false},
		"B17: XCLIENT, PROXY":      {"XCLIENT ADDR=1.2.3.4\r\nPROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", []string{"550", "550"}, false},
		"B1: DATA without MAIL":    {"EHLO c.example\r\nDATA\r\nRCPT TO:<a@b.example>\r\n", []string{"250", "503 5.5.1", "503 5.5.1"}, false},
		"T1: STARTTLS, then clear": {"EHLO c.example\r\nSTARTTLS\r\n", []string{"250", "502 5.5.1"}, false},
		"B14: EHLO resets": {"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nEHLO c.example\r\nRCPT TO:<a@b.example>\r\n",
			[]string{"250", "250", "250", "503 5.5.1"}, false},
	} {
		c2 := r.connect()
		c2.expect(220)
		c2.send(c.text)
		for i, want := range c.replies {
			if got, err := c2.reply(); err != nil || !strings.HasPrefix(got, want) {
				t.Errorf("%s: reply %d: %q, %v, want %s", name, i, got, err, want)
			}
		}
		if !c.closes {
			c2.say("QUIT", 221)
		}
		c2.end()
	}
	r.awaitQuiet()
	if appended, _, _ := r.store.counts(); appended != 0 {
		t.Errorf("%d messages kept", appended)
	}
}

// TestTraceHeader shows what a client calls itself only where that is a name (I11).
func TestTraceHeader(t *testing.T) {
	t.Parallel()
	r := open(t, nil)
	for greeting, want := range map[string]string{
		"EHLO client.example":   "Received: from client.example ([127.0.0.1])\r\n\tby mta.test.example with ESMTP id ",
		"HELO client.example":   "Received: from client.example ([127.0.0.1])\r\n\tby mta.test.example with SMTP id ",
		"EHLO a) by x; (":       "Received: from [127.0.0.1] ([127.0.0.1])\r\n\tby mta.test.example with ESMTP id ",
		"EHLO [192.0.2.1]":      "Received: from [192.0.2.1] ([127.0.0.1])\r\n\tby ",
		"EHLO \xff\xfe":         "Received: from [127.0.0.1] ([127.0.0.1])\r\n\tby ",
		"EHLO client.example x": "Received: from [127.0.0.1] ([127.0.0.1])\r\n\tby ",
	} {
		for _, rcpts := range []int{1, 2} {
			c := r.connect()
			c.expect(220)
			c.say(greeting, 250)
			c.say("MAIL FROM:<s@sender.example>", 250)
			for i := range rcpts {
				c.say(fmt.Sprintf("RCPT TO:<%d@far.example>", i), 250)
			}
			c.say("DATA", 354)
			c.say("\r\n.", 250)
			trace := string(receive(t, r.accepted).Trace)
			if !strings.HasPrefix(trace, want) {
				t.Errorf("%s: %q", greeting, trace)
			}
			if strings.Contains(trace, "\tfor <0@far.example>; ") != (rcpts == 1) { // the others must not be told
				t.Errorf("%d recipients: %q", rcpts, trace)
			}
			c.Close()
		}
	}
	r.awaitQuiet()
}

// TestA9ClientThatNeverReads stops reading from a client that does not read its replies, and closes at the deadline.
func TestA9ClientThatNeverReads(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, _ *shelf) { d.Pace.Command = time.Second })
	c := r.greet()
	transaction := "MAIL FROM:<s@sender.example>\r\n" + strings.Repeat("RCPT TO:<a@far.example>\r\n", 1000) + "DATA\r\n.\r\n"
	for range 10_000 { // 140 MB of replies: the server must end it long before
		if _, err := c.Write([]byte(transaction)); err != nil {
			r.awaitQuiet()
			if n := r.door.Stats.Unread.Get(); n != 1 {
				t.Errorf("%d sessions ended for not reading", n)
			}
			return
		}
	}
	t.Error("the server goes on answering somebody who does not read")
}

// TestA9ClientThatReadsLate loses nothing when the replies are read after all.
func TestA9ClientThatReadsLate(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, _ *shelf) { d.SMTP.MaxRecipients = 1_000_000 })
	c := r.greet()
	const recipients = 400_000
	c.say("MAIL FROM:<s@sender.example>", 250)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write([]byte(strings.Repeat("RCPT TO:<a@far.example>\r\n", recipients) + "RSET\r\n"))
		sent <- err
	}()
	r.await("a session that waits for its client to read", func() (clogged bool) {
		r.onLoop(func(s *session) { clogged = s.clogged })
		return clogged
	})
	for range recipients + 1 {
		c.expect(250)
	}
	if err := receive(t, sent); err != nil {
		t.Fatal(err)
	}
	c.say("QUIT", 221)
	c.end()
	r.awaitQuiet()
}
