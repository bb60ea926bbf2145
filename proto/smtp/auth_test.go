package smtp

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
)

// authenticate answers a step of AUTH: the user is "user", the password "right"; "later" gets 454, "shed" 421.
func (c *session) authenticate() {
	s := &c.s
	c.note("Auth %s begins=%v %q given=%v", s.AuthMechanism(), s.AuthBegins(), s.AuthResponse(), s.AuthResponse() != nil)
	if n, ev := s.Feed([]byte("NOOP\r\n")); n != 0 || ev != NeedInput {
		c.t.Fatalf("a question is open, and Feed said %d, %v", n, ev)
	}
	if s.AuthBegins() {
		c.login = nil
	}
	if s.AuthResponse() != nil {
		c.login = append(c.login, string(s.AuthResponse()))
	}
	want, prompts := 1, []string{""}
	if s.AuthMechanism() == "LOGIN" {
		want, prompts = 2, []string{"Username:", "Password:"}
	}
	if len(c.login) < want {
		s.Challenge([]byte(prompts[len(c.login)]))
		return
	}
	switch strings.TrimLeft(strings.Join(c.login, "\x00"), "\x00") {
	case "user\x00right":
		s.Accept()
	case "later\x00right":
		s.Refuse(Reply{454, "4.7.0", "Temporary authentication failure"})
	case "shed\x00right":
		s.Refuse(Reply{421, "4.7.0", "Too many failures"})
	default:
		s.Refuse(Reply{535, "5.7.8", "Authentication credentials invalid"})
	}
}

var (
	authConfig = &ServerConfig{Hostname: "mx.example.com", StartTLS: true, Auth: []string{"PLAIN", "LOGIN"}}
	plainRight = base64.StdEncoding.EncodeToString([]byte("\x00user\x00right"))
)

// TestT4Clear: AUTH is not offered in clear, what was said in clear does not count under TLS, and a password in clear is not looked at.
func TestT4Clear(t *testing.T) {
	c := newSession(t, authConfig)
	c.feed(hello)
	if strings.Contains(string(c.replies), "AUTH") {
		t.Errorf("offered in clear: %q", c.replies)
	}
	c.feed("AUTH PLAIN " + plainRight + "\r\n")
	if got := c.last(); got != "538 5.7.11 Encryption required for authentication: use TLS" || c.has("Auth") {
		t.Errorf("%q, %v", got, c.events)
	}
	c.secure()
	c.feed("AUTH PLAIN " + plainRight + "\r\n")
	if got := c.last(); got != "503 5.5.1 Bad sequence of commands" {
		t.Errorf("before EHLO: %q", got)
	}
	c.feed(hello)
	if !strings.Contains(string(c.replies), "\r\n250-AUTH PLAIN LOGIN\r\n") {
		t.Errorf("not offered under TLS: %q", c.replies)
	}
	c.feed("AUTH plain " + plainRight + "\r\n")
	if got := c.last(); got != "235 2.7.0 Authentication successful" || !c.s.Authenticated() {
		t.Errorf("%q", got)
	}
}

// TestT4StateIsCleared: who was authenticated in clear is nobody under TLS, also in the middle of an exchange.
func TestT4StateIsCleared(t *testing.T) {
	cfg := *authConfig
	cfg.AuthClear = cfg.Auth
	c := newSession(t, &cfg)
	c.feed(hello + "AUTH PLAIN " + plainRight + "\r\n")
	if !c.s.Authenticated() {
		t.Fatalf("%q", c.replies)
	}
	c.secure()
	if c.s.Authenticated() {
		t.Error("authenticated by what was said in clear")
	}
	c.feed(hello + "AUTH LOGIN\r\ndXNlcg==\r\ncmlnaHQ=\r\n")
	if got := c.last(); got != "235 2.7.0 Authentication successful" {
		t.Errorf("%q", got)
	}
	c.s.Init(&cfg)
	if c.s.Authenticated() {
		t.Error("authenticated in another session")
	}
}

// TestA6AuthLines: lines of AUTH may be as long as RFC 4954 says, and no longer, however they are cut.
func TestA6AuthLines(t *testing.T) {
	cfg := *authConfig
	cfg.AuthClear, cfg.MaxErrors = cfg.Auth, 100
	token := func(octets int) string { return strings.Repeat("QUJD", octets/4) }
	for _, test := range []struct{ name, input, want string }{
		{"initial, longest", "AUTH PLAIN " + token(12272) + "\r\n", "535 5.7.8 Authentication credentials invalid"},
		{"initial, too long", "AUTH PLAIN " + token(12276) + "\r\n", "500 5.5.6 Line too long"},
		{"response, longest", "AUTH PLAIN\r\n" + token(12284) + "\r\n", "535 5.7.8 Authentication credentials invalid"},
		{"response, too long", "AUTH PLAIN\r\n" + token(12288) + "\r\n", "500 5.5.6 Line too long"},
		{"no end", "AUTH PLAIN\r\n" + token(1<<20) + "\r\n", "500 5.5.6 Line too long"},
		{"another command", "NOOP  " + token(2044) + "\r\n", "500 5.5.6 Line too long"},
	} {
		c := converseAnyhow(t, &cfg, hello+test.input+"NOOP\r\n")
		lines := strings.Split(strings.TrimSuffix(string(c.replies), "\r\n"), "\r\n")
		if got := lines[len(lines)-2:]; got[0] != test.want || got[1] != "250 2.0.0 Ok" {
			t.Errorf("%s: %q", test.name, got)
		}
	}
	clear := *authConfig // where AUTH is not offered, its lines are like any other
	if c := converseAnyhow(t, &clear, hello+"AUTH PLAIN "+token(4000)+"\r\n"); c.last() != "500 5.5.6 Line too long" {
		t.Errorf("%q", c.last())
	}
}

// TestAuthSecrets: what the client said is wiped when it was answered for.
func TestAuthSecrets(t *testing.T) {
	cfg := *authConfig
	cfg.AuthClear = cfg.Auth
	for name, answer := range map[string]func(s *Server){
		"accept":    (*Server).Accept,
		"refuse":    func(s *Server) { s.Refuse(Reply{535, "5.7.8", "No"}) },
		"challenge": func(s *Server) { s.Challenge([]byte("x")) },
	} {
		c := newSession(t, &cfg)
		c.feed(hello)
		if _, ev := c.s.Feed([]byte("AUTH PLAIN " + plainRight + "\r\n")); ev != Auth {
			t.Fatal(ev)
		}
		secret := c.s.AuthResponse()
		answer(&c.s)
		if bytes.Contains(secret, []byte("right")) || c.s.AuthResponse() != nil {
			t.Errorf("%s: %q is left", name, secret)
		}
	}
	var s Server // an answer that nobody asked for does nothing
	s.Init(&cfg)
	s.Challenge([]byte("x"))
	if len(s.Pending()) > 0 {
		t.Errorf("%q", s.Pending())
	}
}

func TestXClientLogin(t *testing.T) {
	for _, test := range []struct {
		cfg  *ServerConfig
		args string
		done bool
		want string
	}{
		{authConfig, "LOGIN=some+2Bbody@a.example", true, "some+body@a.example"},
		{authConfig, "ADDR=192.0.2.1 LOGIN=u", true, "u"},
		{authConfig, "LOGIN=[UNAVAILABLE]", false, ""},
		{authConfig, "ADDR=192.0.2.1", false, ""},
		{authConfig, "LOGIN=a LOGIN=b", false, "refused"},
		{authConfig, "LOGIN=a+00", false, "refused"},
		{tlsConfig, "LOGIN=u", false, "refused"},
	} {
		var s Server
		s.Init(test.cfg)
		s.AllowXClient(true)
		s.Greet()
		got := "refused"
		if _, ev := s.Feed([]byte("XCLIENT " + test.args + "\r\n")); ev == XClient {
			s.Accept()
			got = s.XClient().Login
		}
		if got != test.want || s.Authenticated() != test.done {
			t.Errorf("%s: %q, authenticated %v", test.args, got, s.Authenticated())
		}
		s.Flushed()
		s.Feed([]byte(hello))
		s.Accept()
		if offered := strings.Contains(string(s.Pending()), "250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN\r\n"); offered != (test.cfg == authConfig) {
			t.Errorf("offered %v", offered)
		}
	}
}

// FuzzAuth runs exchanges, whose replies must not depend on how the input is cut.
func FuzzAuth(f *testing.F) {
	f.Add("AUTH PLAIN " + plainRight)
	f.Add("AUTH LOGIN\r\ndXNlcg==\r\ncmlnaHQ=\r\nAUTH LOGIN")
	f.Add("AUTH LOGIN =\r\n*\r\nauth  login  dXNlcg==\r\n=\r\n\r\nMAIL FROM:<a@b>\r\nAUTH PLAIN\r\n")
	f.Add("AUTH PLAIN\r\nAHVz\rZXI=\r\nAUTH PLAIN AA=A\r\nAUTH PLAIN AB==")
	f.Fuzz(func(t *testing.T, input string) {
		cfg := *authConfig
		cfg.AuthClear, cfg.MaxErrors, cfg.MaxLine = cfg.Auth, 5, 100
		c := converseAnyhow(t, &cfg, hello+input+"\r\nNOOP\r\n")
		var r ReplyParser
		for p := c.replies; len(p) > 0; {
			n, done, err := r.Parse(p)
			if !done || err != nil {
				t.Fatalf("we say %q, which is no reply: %v", p, err)
			}
			p = p[n:]
		}
		if c.s.Authenticated() != strings.Contains(string(c.replies), "\r\n235 2.7.0 ") {
			t.Fatalf("authenticated %v: %q", c.s.Authenticated(), c.replies)
		}
	})
}
