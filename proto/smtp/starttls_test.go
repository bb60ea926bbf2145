package smtp

import (
	"strings"
	"testing"
)

var tlsConfig = &ServerConfig{Hostname: "mx.example.com", StartTLS: true}

// secure feeds STARTTLS, accepts it, and says that the handshake is done.
func (c *session) secure() {
	c.t.Helper()
	if n, ev := c.s.Feed([]byte("STARTTLS\r\n")); n != 10 || ev != StartTLS {
		c.t.Fatalf("STARTTLS: %d, %v", n, ev)
	}
	c.s.Accept()
	c.flush()
	if got := c.last(); got != "220 2.0.0 Go ahead" {
		c.t.Fatalf("STARTTLS: %q", got)
	}
	c.s.Secured()
	if p := c.s.Pending(); len(p) > 0 {
		c.t.Fatalf("nobody asked, and the server says %q", p)
	}
}

// TestT1BehindSTARTTLS: what comes behind the command in clear ends the session and is not read.
func TestT1BehindSTARTTLS(t *testing.T) {
	for _, behind := range []string{"MAIL FROM:<a@b>\r\n", "x", "\r\n", "\x16\x03\x01"} {
		c := newSession(t, tlsConfig)
		c.feed(hello + "STARTTLS\r\n" + behind)
		if got := c.last(); got != "554 5.5.0 You sent more behind STARTTLS" || !c.over || c.has("StartTLS") {
			t.Errorf("%q: %q, %v", behind, got, c.events)
		}
	}
	var s Server // the handshake has not begun
	s.Init(tlsConfig)
	s.Greet()
	s.Feed([]byte(hello))
	s.Accept()
	if n, ev := s.Feed([]byte("STARTTLS\r\n")); n != 10 || ev != StartTLS {
		t.Fatal(n, ev)
	}
	s.Accept()
	s.Flushed()
	if n, ev := s.Feed(nil); n != 0 || ev != NeedInput || len(s.Pending()) != 0 {
		t.Fatal(n, ev)
	}
	if n, ev := s.Feed([]byte("NOOP\r\n")); n != 0 || ev != Close || !strings.HasPrefix(string(s.Pending()), "554 5.5.0 ") {
		t.Errorf("%d, %v, %q", n, ev, s.Pending())
	}
}

// TestT3NothingIsKept: what was said in clear does not count under TLS.
func TestT3NothingIsKept(t *testing.T) {
	c := newSession(t, tlsConfig)
	c.feed(hello)
	if !strings.Contains(string(c.replies), "250-STARTTLS\r\n") {
		t.Errorf("not offered: %q", c.replies)
	}
	c.feed("MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nRSET\r\n")
	c.secure()
	if len(c.s.HelloName()) != 0 || c.s.Extended() || c.s.InTransaction() || c.s.Recipients() != 0 {
		t.Errorf("name %q, extended %v, %d recipients", c.s.HelloName(), c.s.Extended(), c.s.Recipients())
	}
	for _, command := range []string{"MAIL FROM:<a@a.example>", "RCPT TO:<b@b.example>", "DATA"} {
		c.feed(command + "\r\n")
		if got := c.last(); got != "503 5.5.1 Bad sequence of commands" {
			t.Errorf("%s: %q", command, got)
		}
	}
	c.replies = nil
	c.feed(hello)
	if strings.Contains(string(c.replies), "STARTTLS") {
		t.Errorf("offered under TLS: %q", c.replies)
	}
	c.feed(envelope + "text\r\n.\r\n")
	if got := c.last(); !strings.HasPrefix(got, "250 2.0.0 Ok: queued as ") {
		t.Errorf("%q", got)
	}
}

func TestT5Parameters(t *testing.T) {
	for command, want := range map[string]string{
		"STARTTLS foo": "501 5.5.4", "STARTTLSX": "500 5.5.2", "STARTTLS\tx": "500 5.5.2", "STARTTL": "500 5.5.2", "starttls x": "501 5.5.4",
	} {
		c := newSession(t, tlsConfig)
		c.feed(hello + command + "\r\n")
		if got := c.last(); !strings.HasPrefix(got, want) || c.has("StartTLS") {
			t.Errorf("%s: %q", command, got)
		}
	}
}

func TestT6OutOfPlace(t *testing.T) {
	for before, want := range map[string]string{
		"":                                    "503 5.5.1",
		hello + "MAIL FROM:<a@a.example>\r\n": "503 5.5.1",
		hello + "MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n": "503 5.5.1",
	} {
		c := newSession(t, tlsConfig)
		c.feed(before + "STARTTLS\r\n")
		if got := c.last(); !strings.HasPrefix(got, want) || c.has("StartTLS") {
			t.Errorf("behind %q: %q", before, got)
		}
	}
	c := newSession(t, tlsConfig)
	c.feed(hello)
	c.secure()
	for range 2 {
		c.feed("STARTTLS\r\n")
		if got := c.last(); !strings.HasPrefix(got, "503 5.5.1") {
			t.Errorf("under TLS: %q", got)
		}
		c.feed(hello)
	}
	c = newSession(t, hostileConfig)
	c.feed(hello + "STARTTLS\r\n")
	if got := c.last(); !strings.HasPrefix(got, "502 5.5.1") {
		t.Errorf("not offered: %q", got)
	}
}

// TestTLSFromTheStart: nothing is offered, and the greeting comes under TLS.
func TestTLSFromTheStart(t *testing.T) {
	var s Server
	s.Init(tlsConfig)
	s.Secured()
	s.Greet()
	if n, ev := s.Feed([]byte(hello)); n != len(hello) || ev != Hello {
		t.Fatal(n, ev)
	}
	s.Accept()
	if got := string(s.Pending()); !strings.HasPrefix(got, "220 ") || strings.Contains(got, "STARTTLS") {
		t.Errorf("%q", got)
	}
}

// TestStartTLSRefused: the session goes on in clear.
func TestStartTLSRefused(t *testing.T) {
	var s Server
	s.Init(tlsConfig)
	s.Greet()
	s.Feed([]byte(hello))
	s.Accept()
	if _, ev := s.Feed([]byte("STARTTLS\r\n")); ev != StartTLS {
		t.Fatal(ev)
	}
	s.Flushed()
	s.Refuse(Reply{454, "4.7.0", "Not now"})
	if got := string(s.Pending()); got != "454 4.7.0 Not now\r\n" {
		t.Errorf("%q", got)
	}
	if _, ev := s.Feed([]byte("MAIL FROM:<>\r\n")); ev != Mail {
		t.Error(ev)
	}
}

// TestHandshakeIsNoContent: what is awaited after STARTTLS has the deadline of a handshake, not that of content.
func TestHandshakeIsNoContent(t *testing.T) {
	t.Parallel()
	s := &Server{}
	s.Init(&ServerConfig{Hostname: "mx.example.com", StartTLS: true})
	s.Greet()
	for p := []byte("EHLO c.example\r\nSTARTTLS\r\n"); ; {
		n, ev := s.Feed(p)
		if p = p[n:]; ev == NeedInput {
			break
		}
		s.Accept()
	}
	if s.InContent() || s.phase != phaseHandshake {
		t.Errorf("phase %d, in content %v", s.phase, s.InContent())
	}
}

// FuzzStartTLS: whatever was said in clear, under TLS the server is as new: it says and does what it would in a session that began with TLS (T3).
func FuzzStartTLS(f *testing.F) {
	f.Add(hello+"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nRSET\r\n", "MAIL FROM:<a@a.example>\r\n"+hello+envelope+"x\r\n.\r\n")
	f.Add("HELO x\r\nAUTH PLAIN "+plainRight+"\r\nEHLO y\r\n", "STARTTLS\r\n"+hello+"AUTH PLAIN "+plainRight+"\r\nAUTH LOGIN\r\n")
	f.Fuzz(func(t *testing.T, clear, secret string) {
		cfg := *authConfig
		cfg.AuthClear, cfg.StartTLS, cfg.MaxErrors, cfg.MaxCommands = cfg.Auth, true, 1<<30, 1<<30
		c, fresh := newSession(t, &cfg), newSession(t, &cfg)
		c.feed(clear)
		if c.over || len(c.held) > 0 {
			return
		}
		if _, ev := c.s.Feed([]byte("STARTTLS\r\n")); ev != StartTLS {
			return
		}
		c.s.Accept()
		c.flush()
		for _, c := range []*session{c, fresh} {
			c.s.Secured()
			c.events, c.replies = nil, nil
			c.feed(secret)
		}
		if got, want := strings.Join(c.events, "\n"), strings.Join(fresh.events, "\n"); got != want {
			t.Errorf("after %q:\n%s\n--- in a new session:\n%s", clear, got, want)
		}
		if got, want := string(c.replies), string(fresh.replies); got != want {
			t.Errorf("after %q: %s\n--- in a new session: %s", clear, got, want)
		}
	})
}
