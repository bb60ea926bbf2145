package smtp

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// Each test here is named by the row of the hostile input catalogue that it stands for.

var hostileConfig = &ServerConfig{Hostname: "mx.example.com"}

const (
	hello    = "EHLO client.example\r\n"
	envelope = "MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n"
	smuggled = "MAIL FROM:<evil@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\nevil\r\n.\r\nQUIT\r\n"
)

// last returns the last reply line of a session.
func (c *session) last() string {
	replies := strings.TrimSuffix(string(c.replies), "\r\n")
	return replies[strings.LastIndexByte(replies, '\n')+1:]
}

// has reports whether an event begins with what.
func (c *session) has(what string) bool {
	for _, ev := range c.events {
		if strings.HasPrefix(ev, what) {
			return true
		}
	}
	return false
}

// TestSmuggling: sequences that some mail system takes for the end of data, wherever they stand and however they arrive, end the session, and
// nothing behind them is read.
func TestSmuggling(t *testing.T) {
	const cr, lf, nul = "550 5.5.2 bare <CR>", "550 5.5.2 bare <LF>", "550 5.6.0 NUL"
	for _, tc := range []struct{ id, sequence, reply string }{
		{"S1", "\n.\n", lf},
		{"S2", "\n.\r", lf},
		{"S3", "\r.\n", cr},
		{"S4", "\r.\r", cr},
		{"S5", "\n.\r\n", lf},
		{"S6", "\r.\r\n", cr},
		{"S7", "\r\n.\n", lf},
		{"S8", "\r\n.\r", cr},
		{"S9", "\r\n\x00.\r\n", nul},
		{"S10", "\r\n.\x00\r\n", nul},
		{"S11", "\r\n.\r\r\n", cr},
		{"S12", "\r\r\n.\r\n", cr},
		{"S13", "\r\r\n.\r\r\n", cr},
	} {
		for where, before := range map[string]string{
			"start":             "",
			"header":            "Subject: x\r\nX-Half: ",
			"body":              "Subject: x\r\n\r\ntext",
			"after line of 998": strings.Repeat("x", 998) + "\r\ny",
			"in line of 5000":   strings.Repeat("x", 5000),
			"after a dot":       "text\r\n..",
		} {
			t.Run(tc.id+"/"+where, func(t *testing.T) {
				c := converseAnyhow(t, hostileConfig, hello+envelope+before+tc.sequence+smuggled)
				if !strings.HasPrefix(c.last(), tc.reply) || !c.over || !c.has("Reset") || !c.has("Close") {
					t.Errorf("events %q, last reply %q", c.events, c.last())
				}
				if c.has(`Mail "evil`) || c.has("EndOfData") {
					t.Errorf("smuggled: %q", c.events)
				}
			})
		}
	}
}

// TestSmugglingWithoutMore: the sequences that could still become a legal end of data wait for what follows, and a client that goes away
// there has sent nothing.
func TestSmugglingWithoutMore(t *testing.T) {
	for _, tail := range []string{"\r", "\r\n.", "\r\n.\r", "."} {
		c := converseAnyhow(t, hostileConfig, hello+envelope+"text"+tail)
		if c.over || c.has("EndOfData") || !c.s.InTransaction() {
			t.Errorf("%q: %q", tail, c.events)
		}
	}
}

func TestS14PipeliningAfterEndOfData(t *testing.T) {
	c := converseAnyhow(t, hostileConfig, hello+envelope+"one\r\n.\r\n"+envelope+".two\r\n.\r\n"+envelope+".\r\nQUIT\r\n")
	var ends []string
	for _, ev := range c.events {
		if strings.HasPrefix(ev, "EndOfData") {
			ends = append(ends, ev)
		}
	}
	want := []string{`EndOfData size=5 dots=false "one\r\n"`, `EndOfData size=5 dots=false "two\r\n"`, `EndOfData size=0 dots=false ""`}
	if fmt.Sprint(ends) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", ends, want)
	}
}

func TestBareLFAfterCommand(t *testing.T) {
	for _, line := range []string{"NOOP\n", "\n", "MAIL FROM:<a@a.example>\n", "NOOP\rNOOP\n", strings.Repeat("x", 5000) + "\n"} {
		c := converseAnyhow(t, hostileConfig, hello+line+envelope)
		if c.last() != "500 5.5.2 Line ends in bare <LF>" || !c.over || c.has("Mail") {
			t.Errorf("%.20q: %q, %q", line, c.events, c.last())
		}
	}
}

// refusedLines checks that each line gets its reply and changes nothing.
func refusedLines(t *testing.T, before string, lines map[string]string) {
	t.Helper()
	for line, reply := range lines {
		c := converseAnyhow(t, hostileConfig, before+line)
		if !strings.HasPrefix(c.last(), reply) || c.over {
			t.Errorf("%.100q: %q, want %q (over %v)", line, c.last(), reply, c.over)
		}
		if n := len(converseAnyhow(t, hostileConfig, before).events); len(c.events) != n {
			t.Errorf("%.100q made events: %q", line, c.events[n:])
		}
	}
}

func TestI1ControlCharactersInArguments(t *testing.T) {
	lines := map[string]string{"RCPT TO:<a\rX: y@b>\r\n": "501 5.5.4", "RCPT TO:<\"a\tb\"@b>\r\n": "501 5.5.4", "RCPT TO:<a@b> X=\x1b[m\r\n": "501 5.5.4",
		"VRFY \x7f\r\n": "501 5.5.4", "X\x01\r\n": "500 5.5.2"}
	for c := byte(1); c < ' '; c++ {
		if c != '\n' {
			lines[fmt.Sprintf("RCPT TO:<a%cb@b.example>\r\n", c)] = "501 5.5.4"
		}
	}
	refusedLines(t, hello+"MAIL FROM:<a@a>\r\n", lines)
	refusedLines(t, hello, map[string]string{"MAIL FROM:<a@a> SIZE=1\x0b\r\n": "501 5.5.4", "MAIL FROM:<a\x7f@a>\r\n": "501 5.5.4"})
}

func TestI3NarrowedRunes(t *testing.T) {
	refusedLines(t, hello, map[string]string{"MAIL FROM:<a\u760d\u760aX@a.example>\r\n": "553 5.6.7", "MAIL FROM:<\xe7\x98@a.example> SMTPUTF8\r\n": "501 5.1.7"})
	refusedLines(t, hello+"MAIL FROM:<a@a>\r\n", map[string]string{"RCPT TO:<\u760d@b>\r\n": "553 5.6.7", "RCPT TO:<\xff@b>\r\n": "501 5.1.3"})
	c := converseAnyhow(t, hostileConfig, hello+"MAIL FROM:<a\u760d\u760a@a.example> SMTPUTF8\r\n")
	if c.events[1] != `Mail "a`+"\u760d\u760a"+`@a.example" size=0 8bit=false utf8=true` {
		t.Errorf("%q", c.events)
	}
}

func TestI6ShellCharactersInLocalPart(t *testing.T) {
	refusedLines(t, hello, map[string]string{"MAIL FROM:<;cmd;>\r\n": "501 5.1.7", "MAIL FROM:<;cmd;@a>\r\n": "501 5.1.7"})
}

func TestI11HelloThatClosesAComment(t *testing.T) {
	c := converseAnyhow(t, hostileConfig, "EHLO a) by x; (\r\n")
	if c.events[0] != `Hello "a) by x; (" valid=false extended=true` {
		t.Errorf("%q", c.events)
	}
}

func TestI14NUL(t *testing.T) {
	refusedLines(t, hello, map[string]string{"NOOP\x00\r\n": "500 5.5.2", "\x00\r\n": "500 5.5.2", "MAIL FROM:<a\x00@a>\r\n": "500 5.5.2", "EHLO a\x00\r\n": "500 5.5.2"})
	for _, content := range []string{"\x00", "Subject: \x00\r\n", "Subject: x\r\n\r\nte\x00xt\r\n"} {
		c := converseAnyhow(t, hostileConfig, hello+envelope+content+".\r\n"+smuggled)
		if !strings.HasPrefix(c.last(), "550 5.6.0") || !c.over || c.has("EndOfData") {
			t.Errorf("%q: %q, %q", content, c.events, c.last())
		}
	}
}

// TestB2EveryFailureResets: however a transaction ends, RCPT and DATA behind it need a new MAIL.
func TestB2EveryFailureResets(t *testing.T) {
	small := &ServerConfig{Hostname: "mx.example.com", MaxSize: 10}
	for name, input := range map[string]string{
		"accepted":       envelope + "ok\r\n.\r\n",
		"refused at end": envelope + "spam\r\n.\r\n",
		"too large":      envelope + "0123456789\r\n.\r\n",
		"RSET":           "MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nRSET\r\n",
		"EHLO":           "MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nEHLO x\r\n",
		"no recipient":   "MAIL FROM:<a@a>\r\nRCPT TO:<refused@b>\r\nDATA\r\n",
		"MAIL refused":   "MAIL FROM:<refused@a>\r\n",
		"MAIL too large": "MAIL FROM:<a@a> SIZE=11\r\n",
		"MAIL malformed": "MAIL FROM:<a@a> SIZE=x\r\n",
	} {
		c := converseAnyhow(t, small, hello+input+"RCPT TO:<b@b.example>\r\nDATA\r\n")
		if !strings.HasSuffix(string(c.replies), "503 5.5.1 Bad sequence of commands\r\n503 5.5.1 Bad sequence of commands\r\n") {
			t.Errorf("%s: %s", name, c.replies)
		}
		if c.open || c.s.InTransaction() {
			t.Errorf("%s: still in the transaction", name)
		}
	}
}

func TestB3AddressNeedsSMTPUTF8(t *testing.T) {
	c := converseAnyhow(t, hostileConfig, hello+"MAIL FROM:<ü@x>\r\nDATA\r\nVRFY ü\r\nRCPT TO:<b@b>\r\nMAIL FROM:<a@x>\r\nRCPT TO:<ü@b>\r\nRCPT TO:<b@b>\r\n")
	_, replies, _ := strings.Cut(string(c.replies), "250 ENHANCEDSTATUSCODES\r\n")
	var codes []string
	for line := range strings.Lines(replies) {
		codes = append(codes, line[:3])
	}
	if got := strings.Join(codes, " "); got != "553 503 252 503 250 553 250" {
		t.Errorf("%s", got)
	}
}

func TestB9EarlyTalker(t *testing.T) {
	var s Server
	s.Init(hostileConfig)
	if n, ev := s.Feed(nil); n != 0 || ev != NeedInput {
		t.Fatalf("%d, %v", n, ev)
	}
	p := []byte(hello)
	n, ev := s.Feed(p)
	if ev != Close || !bytes.HasPrefix(s.Pending(), []byte("554 5.5.1")) {
		t.Errorf("%d, %v, %q", n, ev, s.Pending())
	}
	if n, ev := s.Feed(p); n != len(p) || ev != Close {
		t.Errorf("%d, %v", n, ev)
	}
}

func TestB11ContentAfterRefusedData(t *testing.T) {
	c := converseAnyhow(t, hostileConfig, hello+"DATA\r\n"+string(lines(10_000))+".\r\n"+smuggled)
	if c.last() != "421 4.7.0 Too many errors" || !c.over || c.has("Mail") {
		t.Errorf("%q, %q", c.events, c.last())
	}
}

func TestB12Oversized(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	refusedLines(t, hello, map[string]string{"MAIL FROM:<" + long + "@a>\r\n": "500 5.5.6", long + "\r\n": "500 5.5.6", long + "\rMAIL FROM:<a@a>\r\n": "500 5.5.6"})
	refusedLines(t, hello, map[string]string{"NOOP " + long[:DefaultMaxLine-7] + "\r\n": "250", "NOOP " + long[:DefaultMaxLine-6] + "\r\n": "500 5.5.6"})
	c := converse(t, hostileConfig, hello+long, randomly)
	if len(c.held) > 1 || len(c.events) != 1 {
		t.Errorf("%d octets of an endless line are held", len(c.held))
	}
}

func TestB13TooLarge(t *testing.T) {
	small := &ServerConfig{Hostname: "mx.example.com", MaxSize: 1000}
	c := converseAnyhow(t, small, hello+envelope+string(lines(5000))+smuggled[:len(smuggled)-len(".\r\nQUIT\r\n")]+".\r\nNOOP\r\n")
	if !strings.HasSuffix(string(c.replies), "354 End data with <CR><LF>.<CR><LF>\r\n552 5.3.4 Message too large\r\n250 2.0.0 Ok\r\n") || c.has("EndOfData") {
		t.Errorf("%q\n%s", c.events, c.replies)
	}
	c = converseAnyhow(t, small, hello+envelope+string(lines(5000))+"\n.\r\n"+smuggled)
	if !strings.HasPrefix(c.last(), "550 5.5.2 bare <LF>") || !c.over {
		t.Errorf("a violation in content that is not kept: %q", c.last())
	}
}

func TestB14ResetInMidTransaction(t *testing.T) {
	for _, verb := range []string{"RSET", "QUIT", "EHLO x", "HELO x"} {
		c := converseAnyhow(t, hostileConfig, hello+"MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\n"+verb+"\r\n")
		if c.events[3] != "Reset" || c.open {
			t.Errorf("%s: %q", verb, c.events)
		}
	}
}

// TestB15DisconnectAtEveryByte: no prefix of a dialogue makes a message, and no prefix leaves more than a line behind.
func TestB15DisconnectAtEveryByte(t *testing.T) {
	dialogue := hello + envelope + "Subject: x\r\n\r\n..text\r\n.\r\n"
	for n := range len(dialogue) {
		if c := converseAnyhow(t, hostileConfig, dialogue[:n]); c.has("EndOfData") {
			t.Fatalf("a message of the first %d octets: %q", n, c.events)
		}
	}
}

func TestB16OldVerbs(t *testing.T) {
	refusedLines(t, hello, map[string]string{"VRFY root\r\n": "252 ", "EXPN all\r\n": "502 5.5.1", "ETRN x\r\n": "502 5.5.1", "TURN\r\n": "502 5.5.1"})
}

func TestB17UntrustedProxyVerbs(t *testing.T) {
	refusedLines(t, hello, map[string]string{"XCLIENT ADDR=127.0.0.1\r\n": "550 5.7.0", "XFORWARD NAME=x\r\n": "550 5.7.0", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n": "550 5.7.0"})
}

func TestT9CrossProtocol(t *testing.T) {
	for _, line := range []string{"GET / HTTP/1.1\r\n", "POST /x HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n"} {
		c := converseAnyhow(t, hostileConfig, line+"Host: x\r\n\r\n"+hello)
		if !strings.HasPrefix(c.last(), "502 5.5.1") || !c.over || len(c.events) != 1 {
			t.Errorf("%q: %q, %q", line, c.events, c.last())
		}
	}
}

// TestA8RecipientFlood: recipients over the limit get 452, and do not go on for ever.
func TestA8RecipientFlood(t *testing.T) {
	c := converse(t, hostileConfig, hello+"MAIL FROM:<a@a>\r\n"+strings.Repeat("RCPT TO:<b@b>\r\n", 5000), whole)
	if got := strings.Count(string(c.replies), "452 4.5.3"); got != recipientOvershoot+DefaultMaxErrors || !c.over {
		t.Errorf("%d recipients refused, over %v", got, c.over)
	}
}
