package engine

import (
	"encoding/base64"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailrace/engine/config"
)

// secretFile is where a secret stands.
func secretFile(t *testing.T, secret string) config.Secret {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Secret("file:" + name)
}

// as is the route with credentials.
func as(r config.Route, user string, password config.Secret) config.Route {
	r.User, r.Password = user, password
	return r
}

// TestSmartHost: a node logs in at another by every mechanism, at its port for STARTTLS and at that for TLS from the start, and its mail is that user's.
func TestSmartHost(t *testing.T) {
	t.Parallel()
	f := listen(t, polite)
	c := withUsers(t)
	pair := issue(t, t.TempDir(), "127.0.0.1")
	c.TLS.Certificates, c.Routes = []config.Certificate{pair}, []config.Route{f.route("*")}
	smart := start(t, c)
	for listener, kind := range map[int]config.TargetKind{1: config.ToHost, 2: config.ToHostTLS} {
		for _, mechanism := range []string{"", "SCRAM-SHA-256", "PLAIN", "LOGIN"} {
			at := netip.MustParseAddrPort(smart.Addr(listener).String())
			route := as(config.Route{Domains: []string{"*"}, To: config.Target{Kind: kind, Host: "127.0.0.1", Port: at.Port()}}, "alice", secretFile(t, "right"))
			route.Mechanism = mechanism
			cfg := settings(t, route)
			cfg.Egress.CA = pair.Chain
			if err := cfg.Validate(); err != nil {
				t.Fatal(err)
			}
			r := start(t, cfg)
			r.send("s@sender.example", hello, "a@far.example")
			if got := f.next(); !strings.Contains(got.content, "with ESMTPSA id") {
				t.Errorf("%q", got.content)
			}
			if e := r.record("delivery", "a@far.example", 1); e.Attempt != 1 || e.TLSVersion == "" {
				t.Errorf("%d %q: %+v", kind, mechanism, e)
			}
			r.awaitEmpty()
			r.stop()
		}
	}
	receptions := smart.records("reception")
	for _, e := range receptions {
		if e.User != "alice" || e.Tenant != "acme" {
			t.Errorf("%+v", e)
		}
	}
	if len(receptions) != 8 {
		t.Errorf("%d messages came", len(receptions))
	}
}

// guarded is a host that offers AUTH under its TLS and answers what follows as said, one reply for each line. It takes all mail.
func guarded(logins *atomic.Int32, replies ...string) func(*peer) {
	return func(p *peer) {
		left := slices.Clone(replies)
		within := false
		p.receive(manners{extensions: append(slices.Clone(everything), "AUTH PLAIN LOGIN SCRAM-SHA-256 XOAUTH2 OAUTHBEARER"), answer: func(_ *peer, line string) string {
			if strings.HasPrefix(line, "AUTH ") {
				logins.Add(1)
				within = true
			}
			if !within || len(left) == 0 {
				return ""
			}
			reply := left[0]
			left = left[1:]
			within = reply[0] == '3'
			return reply
		}})
	}
}

// TestNotLoggedIn: a host that does not take our credentials gets no mail, which waits, all of it after a single try. Nothing bounces.
func TestNotLoggedIn(t *testing.T) {
	challenge := base64.StdEncoding.EncodeToString
	for name, c := range map[string]struct {
		change  func(r *config.Route)
		replies []string
		code    int
		reason  string // enhanced code and words of the text
		logins  int32
	}{
		"wrong password":       {nil, []string{"535 5.7.8 wrong"}, 535, `4.7.8 not logged in as "alice": wrong`, 1},
		"not now":              {nil, []string{"454 4.7.0 later"}, 454, "4.7.0 later", 1},
		"the mechanism is not": {func(r *config.Route) { r.Mechanism = "PLAIN" }, []string{"504 5.5.4 no"}, 504, "4.7.8 no", 1},
		"no such mechanism":    {func(r *config.Route) { r.Mechanism = "SCRAM-SHA-1" }, nil, 0, "4.7.8 offers no AUTH", 0},
		"no secret":            {func(r *config.Route) { r.Password = "file:/nowhere/password" }, nil, 0, "4.7.8 no such file", 0},
		"in clear":             {func(r *config.Route) { r.AuthInClear = false }, nil, 0, "4.7.11 under TLS only", 0},
		"taken without proof":  {nil, []string{"235 2.7.0 fine"}, 0, "4.7.8 without a proof", 1},
		"no end of questions": {
			func(r *config.Route) { r.Mechanism = "LOGIN" }, []string{"334 " + challenge([]byte("a")), "334 " + challenge([]byte("b")), "334 Yw==", "501 5.5.4 cancelled"}, 501,
			"4.7.8 more than the mechanism has to say", 1,
		},
		"never cancelled": {
			func(r *config.Route) { r.Mechanism = "PLAIN" }, slices.Repeat([]string{"334 "}, 9), 0, "4.7.8 does not come to an end", 1,
		},
		"expensive": {
			nil, []string{"334 " + challenge([]byte("r=x,s=eHh4,i=2000000000")), "501 5.5.4 cancelled"}, 501, "4.7.8 wants 2000000000 iterations", 1,
		},
		"a challenge in no base64": {nil, []string{"334 ????"}, 0, "4.4.1 malformed challenge", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var logins atomic.Int32
			f := listen(t, guarded(&logins, c.replies...))
			route := as(f.route("*"), "alice", secretFile(t, "wrong"))
			route.TLS, route.AuthInClear = config.TLSOff, true
			if c.change != nil {
				c.change(&route)
			}
			cfg := settings(t, route)
			cfg.Queue.RetryMin, cfg.Queue.RetryMax = time.Hour, time.Hour
			cfg.Engine.Loops, cfg.Egress.Connections = 1, 20
			r := start(t, cfg)
			const messages = 30
			for i := range messages {
				r.send("s@sender.example", text(i, 100), "a@far.example")
			}
			r.record("deferral", "a@far.example", messages)
			code, words, _ := strings.Cut(c.reason, " ")
			for _, e := range r.records("deferral") {
				if e.Code != c.code || e.Enhanced != code || !strings.Contains(e.Text, words) {
					t.Fatalf("%+v", e)
				}
			}
			if n := logins.Load(); n != c.logins {
				t.Errorf("tried %d times", n)
			}
			f.none()
			if n := len(r.records("bounce", "delivery", "expiry")); n > 0 {
				t.Errorf("%d are settled", n)
			}
			if st := r.sites(0); len(st) != 1 || st[0].Failures != 1 || time.Until(st[0].Backoff) < time.Minute {
				t.Errorf("%+v", st)
			}
		})
	}
}

// TestTokens: what is shown to a host for which there is a token.
func TestTokens(t *testing.T) {
	for mechanism, want := range map[string]string{
		"XOAUTH2": "user=alice\x01auth=Bearer tok.en\x01\x01", "OAUTHBEARER": "n,a=alice,\x01host=127.0.0.1\x01port=", "": "n,a=alice,",
	} {
		t.Run(mechanism, func(t *testing.T) {
			t.Parallel()
			lines := make(chan string, 10)
			f := listen(t, func(p *peer) {
				p.receive(manners{extensions: append(slices.Clone(everything), "AUTH XOAUTH2 PLAIN OAUTHBEARER"), answer: func(_ *peer, line string) string {
					if strings.HasPrefix(line, "AUTH ") {
						lines <- line
						return "235 2.7.0 ok"
					}
					return ""
				}})
			})
			route := f.route("*")
			route.User, route.Token, route.Mechanism, route.TLS, route.AuthInClear = "alice", secretFile(t, "tok.en"), mechanism, config.TLSOff, true
			cfg := settings(t, route)
			if err := cfg.Validate(); err != nil {
				t.Fatal(err)
			}
			r := start(t, cfg)
			r.send("s@sender.example", hello, "a@far.example")
			f.next()
			words := strings.Fields(receive(t, lines))
			shown, err := base64.StdEncoding.DecodeString(words[2])
			if err != nil || !strings.HasPrefix(string(shown), want) || !strings.Contains(string(shown), "\x01auth=Bearer tok.en\x01\x01") {
				t.Errorf("%q %q, %v", words[1], shown, err)
			}
			r.awaitEmpty()
		})
	}
}

// TestConnectionsWithLogin: routes to one host share connections only if they have the same credentials.
func TestConnectionsWithLogin(t *testing.T) {
	t.Parallel()
	who := make(chan [2]string, 100)
	f := listen(t, func(p *peer) {
		user := ""
		p.receive(manners{extensions: append(slices.Clone(everything), "AUTH PLAIN"), answer: func(_ *peer, line string) string {
			if shown, ok := strings.CutPrefix(line, "AUTH PLAIN "); ok {
				text, _ := base64.StdEncoding.DecodeString(shown)
				user = strings.Split(string(text), "\x00")[1]
				return "235 2.7.0 ok"
			}
			if rcpt, ok := strings.CutPrefix(line, "RCPT TO:"); ok {
				who <- [2]string{rcpt, user}
			}
			return ""
		}})
	})
	secret := secretFile(t, "secret")
	routes := []config.Route{f.route("none.example"), as(f.route("alice.example"), "alice", secret), as(f.route("bob.example"), "bob", secret), as(f.route("alice2.example"), "alice", secret)}
	for i := range routes {
		routes[i].TLS, routes[i].AuthInClear = config.TLSOff, routes[i].User != ""
	}
	cfg := settings(t, routes...)
	cfg.Egress.Idle, cfg.Egress.Connections = time.Hour, 1
	r := start(t, cfg)
	want := map[string]string{"<a@none.example>": "", "<a@alice.example>": "alice", "<a@bob.example>": "bob", "<a@alice2.example>": "alice"}
	for range 3 {
		for rcpt := range want {
			r.send("s@sender.example", hello, strings.Trim(rcpt, "<>"))
		}
	}
	r.awaitEmpty()
	for range 3 * len(want) {
		if got := receive(t, who); got[1] != want[got[0]] {
			t.Errorf("%s by a connection of %q", got[0], got[1])
		}
	}
	if n := f.connections(); n != 3 {
		t.Errorf("%d connections", n)
	}
}
