package engine

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailrace/engine/config"
)

// stranger is a listener for mail to far.example.
var stranger = []config.Listener{{Address: "127.0.0.1:0", Mode: config.ModeMX, RelayDomains: []string{"far.example"}}}

// asking has the next host asked who is there in far.example.
func asking(t *testing.T, f *far) *config.Config {
	c := settings(t, f.route("*"))
	known := config.DefaultRecipients()
	known.Domains, known.Probe = []string{"far.example"}, true
	c.Listeners, c.Recipients = stranger, []config.Recipients{known}
	return c
}

// rcpt begins a transaction and names one recipient.
func (r *rig) rcpt(rcpt string, code int) {
	r.t.Helper()
	d := r.dial()
	d.say("EHLO client.example", 250)
	d.say("MAIL FROM:<s@sender.example>", 250)
	d.say("RCPT TO:<"+rcpt+">", code)
	d.Close()
}

// TestListedRecipientsA3: mail for others is refused at RCPT, so that there is nothing to return, by a list that follows its file.
func TestListedRecipientsA3(t *testing.T) {
	t.Parallel()
	f := listen(t, polite)
	c := settings(t, f.route("*"))
	known := config.DefaultRecipients()
	known.Domains, known.File = []string{"far.example"}, filepath.Join(t.TempDir(), "recipients.txt")
	if err := os.WriteFile(known.File, []byte("# there\na@far.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Listeners, c.Recipients = stranger, []config.Recipients{known}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	r := start(t, c)
	d := r.dial()
	d.say("EHLO client.example", 250)
	d.say("MAIL FROM:<s@sender.example>", 250)
	if got := d.say("RCPT TO:<unknown@far.example>", 550); !strings.HasPrefix(got, "550 5.1.1 ") {
		t.Errorf("%q", got)
	}
	d.say("RCPT TO:<A@Far.Example>", 250)
	d.say("DATA", 354)
	d.say(stuff(hello)+".", 250)
	if l := f.next(); len(l.to) != 1 || l.to[0] != "A@Far.Example" {
		t.Errorf("%v", l.to)
	}
	if err := os.WriteFile(known.File, []byte("unknown@far.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.recipients.Refresh()
	r.rcpt("unknown@far.example", 250)
	r.rcpt("a@far.example", 550)
	r.awaitEmpty()
	if n := r.stats.dsns.Get(); n != 0 {
		t.Errorf("%d notifications", n)
	}
	if err := CheckRecipients(c); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(known.File, []byte("a@far.example\n\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CheckRecipients(c); err == nil || !strings.Contains(err.Error(), `recipients.txt:3: "b" is no recipient`) {
		t.Errorf("%v", err)
	}
	known.File += ".not"
	c.Recipients = []config.Recipients{known}
	if n, err := New(c, nil); err == nil {
		n.close()
		t.Error("a node without its list")
	}
}

// TestProbedRecipientsA3 asks the next host, once for each recipient, and in an envelope of nobody.
func TestProbedRecipientsA3(t *testing.T) {
	t.Parallel()
	var probes, null atomic.Int32
	f := listen(t, func(p *peer) {
		p.receive(manners{extensions: everything, answer: func(_ *peer, line string) string {
			switch {
			case strings.HasPrefix(line, "RCPT TO:<unknown@"):
				probes.Add(1)
				return "550 5.1.1 no such user"
			case line == "MAIL FROM:<>":
				null.Add(1)
			}
			return ""
		}})
	})
	r := start(t, asking(t, f))
	d := r.dial()
	d.say("EHLO client.example", 250)
	d.send("MAIL FROM:<s@sender.example>\r\nRCPT TO:<unknown@far.example>\r\nRCPT TO:<a@far.example>\r\nRCPT TO:<unknown@far.example>\r\nDATA\r\n")
	for _, code := range []int{250, 550, 250, 550, 354} {
		d.expect(code)
	}
	d.say(stuff(hello)+".", 250)
	if l := f.next(); len(l.to) != 1 || withoutTrace(t, l.content) != hello {
		t.Errorf("%+v", l)
	}
	for range 3 {
		r.rcpt("unknown@far.example", 550)
		r.rcpt("a@far.example", 250)
	}
	f.none()
	if probes.Load() != 1 || null.Load() != 2 {
		t.Errorf("asked %d times for the unknown one, %d times in all", probes.Load(), null.Load())
	}
}

// TestContentSaysNothingA15: what becomes of content says nothing about its recipient, and neither does a refusal that is about us.
func TestContentSaysNothingA15(t *testing.T) {
	t.Parallel()
	f := listen(t, func(p *peer) {
		p.receive(manners{extensions: everything, answer: func(_ *peer, line string) string {
			switch {
			case line == ".":
				return "550 5.1.1 the content is bad, and whoever says so lies"
			case strings.HasPrefix(line, "RCPT TO:<blocked@"):
				return "550 5.7.1 we do not like your address"
			case strings.HasPrefix(line, "RCPT TO:<later@"):
				return "450 4.2.0 greylisted"
			}
			return ""
		}})
	})
	r := start(t, asking(t, f))
	d := r.dial()
	d.say("EHLO client.example", 250)
	d.mail("MAIL FROM:<>", hello, "a@far.example")
	r.record("bounce", "a@far.example", 1)
	r.rcpt("a@far.example", 250)
	for range 2 {
		r.rcpt("blocked@far.example", 250)
		r.rcpt("later@far.example", 250)
	}
}

// TestProbesUnderTLS keep to the policy of the route: what cannot be asked as it says is not asked.
func TestProbesUnderTLS(t *testing.T) {
	t.Parallel()
	good, ca := certified(t, "127.0.0.1")
	for name, c := range map[string]struct {
		policy config.Security
		host   manners
		ca     string
		code   int // 550 = the host was asked
	}{
		"opportunistic":                      {"", manners{tls: good}, "", 550},
		"opportunistic, not offered":         {"", manners{}, "", 550},
		"opportunistic, the handshake fails": {"", manners{tls: unfriendly}, "", 550},
		"off":                                {config.TLSOff, manners{tls: good}, "", 550},
		"required":                           {config.TLSRequired, manners{tls: good}, "", 550},
		"required, not offered":              {config.TLSRequired, manners{}, "", 450},
		"required, the handshake fails":      {config.TLSRequired, manners{tls: unfriendly}, "", 450},
		"verified":                           {config.TLSVerified, manners{tls: good}, ca, 550},
		"verified, issued by nobody we know": {config.TLSVerified, manners{tls: good}, "", 450},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var secret atomic.Bool
			c.host.answer = func(p *peer, line string) string {
				if strings.HasPrefix(line, "RCPT") {
					secret.Store(p.secured)
					return "550 5.1.1 no such user"
				}
				return ""
			}
			f := listen(t, func(p *peer) { p.receive(c.host) })
			s := asking(t, f)
			s.Routes[0].TLS, s.Egress.CA, s.Recipients[0].Defer = c.policy, c.ca, true
			r := start(t, s)
			r.rcpt("unknown@far.example", c.code)
			if want := c.host.tls == good && c.policy != config.TLSOff && c.code == 550; secret.Load() != want {
				t.Errorf("asked under TLS: %v, want %v", secret.Load(), want)
			}
		})
	}
}

// TestProbesOfHostsThatFail are told what the configuration says, and the dialogue goes on.
func TestProbesOfHostsThatFail(t *testing.T) {
	t.Parallel()
	for name, serve := range map[string]func(*peer){
		"refuses":         func(p *peer) { p.say("554 5.7.1 go away"); p.gone() },
		"hangs up":        func(*peer) {},
		"no SMTP":         func(p *peer) { p.say("HTTP/1.1 400 what"); p.gone() },
		"refuses <>":      func(p *peer) { p.receive(manners{answer: starting("MAIL", "550 5.7.1 no")}) },
		"hangs up, RCPT":  func(p *peer) { p.receive(manners{answer: starting("RCPT", hangUp)}) },
		"says 421 later":  func(p *peer) { p.receive(manners{answer: starting("RCPT", "421 4.3.2 stopping")}) },
		"does not listen": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := listen(t, serve)
			if serve == nil {
				f.l.Close()
			}
			for _, code := range []int{250, 450} {
				s := asking(t, f)
				s.Recipients[0].Defer = code == 450
				s.Egress.Timeouts.Connect = time.Second
				r := start(t, s)
				r.rcpt("a@far.example", code)
				r.rcpt("postmaster", 550) // not here: it is our host's, which this listener takes no mail for
				r.stop()
			}
		})
	}
}

// starting answers lines that begin with a word.
func starting(verb, reply string) func(*peer, string) string {
	return func(_ *peer, line string) string {
		if strings.HasPrefix(line, verb) {
			return reply
		}
		return ""
	}
}

// TestProbesByOtherDoors ask a store by LMTP, and a host that begins with TLS. Mailboxes on this machine are for everybody.
func TestProbesByOtherDoors(t *testing.T) {
	t.Parallel()
	good, ca := certified(t, "127.0.0.1")
	socket := filepath.Join(t.TempDir(), "lmtp")
	unknown := func(p *peer) {
		p.receive(manners{answer: func(_ *peer, line string) string {
			switch {
			case strings.HasPrefix(line, "RCPT TO:<unknown@"):
				return "550 5.1.1 no such user"
			case strings.HasPrefix(line, "LHLO"), strings.HasPrefix(line, "EHLO") && p.secured:
				return "250 far.example"
			case strings.HasPrefix(line, "EHLO"):
				return "500 5.5.1 LMTP is spoken here"
			}
			return ""
		}})
	}
	for name, target := range map[string]func(t *testing.T) config.Target{
		"lmtp": func(t *testing.T) config.Target {
			to := listen(t, unknown).route().To
			to.Kind = config.ToLMTP
			return to
		},
		"socket": func(t *testing.T) config.Target {
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			serveAt(t, l, unknown)
			return config.Target{Kind: config.ToSocket, Path: socket}
		},
		"smtps": func(t *testing.T) config.Target {
			to := listen(t, func(p *peer) {
				if p.secure(good) {
					unknown(p)
				}
			}).route().To
			to.Kind = config.ToHostTLS
			return to
		},
		"maildir": func(t *testing.T) config.Target {
			_, route := maildirs(t, "{local}")
			return route.To
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := asking(t, listen(t, polite))
			s.Routes[0].To, s.Egress.CA, s.Recipients[0].Defer = target(t), ca, true
			r := start(t, s)
			code := 550
			if name == "maildir" {
				code = 250
			}
			r.rcpt("unknown@far.example", code)
			r.rcpt("known@far.example", 250)
		})
	}
}
