package smtp

import (
	"fmt"
	"strings"
	"testing"
)

// tell runs input through a server whose client may use XCLIENT, and returns what the last accepted one told.
func tell(t *testing.T, input string) (*Server, string) {
	t.Helper()
	s := &Server{}
	s.Init(&ServerConfig{Hostname: "mx.example.com"})
	s.AllowXClient(true)
	s.Greet()
	told := ""
	for p := []byte(input); ; {
		n, ev := s.Feed(p)
		p = p[n:]
		switch ev {
		case NeedInput, Quit, Close:
			return s, told
		case XClient:
			x := s.XClient()
			s.Accept()
			told = fmt.Sprintf("%s %d %v %v helo %q extended %v", x.Addr, x.Port, x.HasPort, x.Unknown, s.HelloName(), s.Extended())
		default:
			s.Accept()
		}
	}
}

func TestB17XClient(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"ADDR=192.0.2.7":                                `192.0.2.7 0 false false helo "" extended true`,
		"addr=IPV6:2001:db8::7 Port=25":                 `2001:db8::7 25 true false helo "" extended true`,
		"ADDR=2001:db8::7":                              `2001:db8::7 0 false false helo "" extended true`,
		"ADDR=::ffff:192.0.2.7":                         `192.0.2.7 0 false false helo "" extended true`,
		"NAME=x.example  ADDR=192.0.2.7 HELO=h.example": `192.0.2.7 0 false false helo "h.example" extended true`,
		"HELO=h.example PROTO=smtp":                     `invalid IP 0 false false helo "h.example" extended false`,
		"HELO=h+2Eexample PROTO=ESMTP":                  `invalid IP 0 false false helo "h.example" extended true`,
		"HELO=a+20b":                                    `invalid IP 0 false false helo "a b" extended true`,
		"ADDR=[UNAVAILABLE] NAME=[TEMPUNAVAIL]":         `invalid IP 0 false true helo "" extended true`,
		"PORT=[unavailable] HELO=[UNAVAILABLE] PORT=1":  "",
		"":                                 "",
		"ADDR":                             "",
		"ADDR=":                            "",
		"ADDR=192.0.2.007":                 "",
		"ADDR=mail.example":                "",
		"ADDR=fe80::1%eth0":                "",
		"ADDR=192.0.2.7 ADDR=192.0.2.8":    "",
		"PORT=65536":                       "",
		"PORT=-1":                          "",
		"PROTO=LMTP":                       "",
		"PROTO=[UNAVAILABLE]":              "",
		"NAME=a_b!":                        "",
		"LOGIN=somebody":                   "",
		"HELO=x+0D+0AMAIL":                 "",
		"HELO=x+00":                        "",
		"HELO=x+0":                         "",
		"HELO=" + strings.Repeat("x", 501): "",
		"ADDR=192.0.2.7 SOMETHING=else":    "",
	} {
		s, told := tell(t, "EHLO c.example\r\nXCLIENT "+args+"\r\n")
		replies := string(s.Pending())
		if told != want || want == "" && !strings.Contains(replies, "\r\n501 5.5.4 ") || want != "" && !strings.HasSuffix(replies, "\r\n220 mx.example.com ESMTP Mailrace\r\n") {
			t.Errorf("%q: %q, replies %q", args, told, replies)
		}
	}
}

// TestB17XClientState begins anew: without HELO the client must greet, a transaction is not disturbed, and nobody may who was not allowed.
func TestB17XClientState(t *testing.T) {
	t.Parallel()
	for input, want := range map[string]string{
		"XCLIENT ADDR=192.0.2.7\r\nMAIL FROM:<a@b.example>\r\n":                         "220 mx.example.com ESMTP Mailrace\r\n503 5.5.1 Bad sequence of commands\r\n",
		"XCLIENT HELO=h.example\r\nMAIL FROM:<a@b.example>\r\n":                         "220 mx.example.com ESMTP Mailrace\r\n250 2.1.0 Ok\r\n",
		"HELO c.example\r\nXCLIENT ADDR=192.0.2.7\r\nMAIL FROM:<a@b.example>\r\n":       "220 mx.example.com ESMTP Mailrace\r\n503 5.5.1 Bad sequence of commands\r\n",
		"HELO c.example\r\nMAIL FROM:<a@b.example>\r\nXCLIENT ADDR=1.2.3.4\r\nRSET\r\n": "503 5.5.1 Bad sequence of commands\r\n250 2.0.0 Ok\r\n",
	} {
		s, _ := tell(t, input)
		if got := string(s.Pending()); !strings.HasSuffix(got, want) {
			t.Errorf("%q: %q", input, got)
		}
	}
	if s, _ := tell(t, "EHLO c.example\r\n"); !strings.Contains(string(s.Pending()), "\r\n250-XCLIENT NAME ADDR PORT PROTO HELO\r\n") {
		t.Errorf("%q", s.Pending())
	}
	if s, _ := tell(t, strings.Repeat("XCLIENT PORT=1\r\n", 200)); !strings.HasSuffix(string(s.Pending()), "421 4.7.0 Too many commands without mail\r\n") {
		t.Errorf("%q", s.Pending())
	}
	c := newSession(t, &ServerConfig{Hostname: "mx.example.com"})
	c.feed("EHLO a\r\nXCLIENT ADDR=192.0.2.7\r\n")
	if got := string(c.replies); strings.Contains(got, "XCLIENT") || !strings.HasSuffix(got, "\r\n550 5.7.0 Not authorized\r\n") {
		t.Errorf("%q", got)
	}
}

// FuzzXClient: whatever is told, nothing of it ends a line, and the dialogue goes on.
func FuzzXClient(f *testing.F) {
	for _, args := range []string{"ADDR=192.0.2.7 PORT=1", "ADDR=IPV6:2001:db8::7", "HELO=x+20y PROTO=SMTP", "NAME=[UNAVAILABLE]", "LOGIN=x", "HELO=+0D"} {
		f.Add(args)
	}
	f.Fuzz(func(t *testing.T, args string) {
		if strings.ContainsAny(args, "\r\n") {
			return
		}
		s, _ := tell(t, "EHLO c.example\r\nXCLIENT "+args+"\r\nNOOP\r\n")
		if strings.ContainsAny(string(s.HelloName()), "\r\n\x00") {
			t.Errorf("%q", s.HelloName())
		}
		if got := string(s.Pending()); !strings.HasSuffix(got, "\r\n250 2.0.0 Ok\r\n") && len(args) < 2000 {
			t.Errorf("%q: %q", args, got)
		}
	})
}
