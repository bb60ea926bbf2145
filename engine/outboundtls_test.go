package engine

import (
	"crypto/tls"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mailrace/engine/config"
	"mailrace/proto/message"
	"mailrace/spool"
)

// injected tells a test that its message is stored.
type injected struct {
	composed
	stored chan<- error
}

func (i injected) Completed(op *spool.Op) {
	err := op.Err
	i.composed.Completed(op)
	i.stored <- err
}

// inject brings in a message with whatever a sender could have asked for, as if it had come by SMTP.
func (r *rig) inject(change func(*message.Message), from, content string, to ...string) message.ID {
	r.t.Helper()
	a, stored := r.lanes[0], make(chan error, 1)
	id := r.store.NewID(0)
	a.loop.Post(func() {
		op := spool.NewOp()
		change(a.compose(op, id, from, to, 0, []byte(content)))
		op.Done = injected{composed{a}, stored}
		r.store.(shards).ShardOf(id).Enqueue(op) // as our own mail, for which composed finds room
	})
	if err := receive(r.t, stored); err != nil {
		r.t.Fatal(err)
	}
	return id
}

// certified is a server's TLS with a certificate for names, and the file that makes it trusted.
func certified(t *testing.T, names ...string) (cfg *tls.Config, ca string) {
	t.Helper()
	pair := issue(t, t.TempDir(), names...)
	c, err := tls.LoadX509KeyPair(pair.Chain, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{c}}, pair.Chain
}

// unfriendly is TLS that no client of ours comes to terms with.
var unfriendly = &tls.Config{MaxVersion: tls.VersionTLS11}

// TestT8OutboundTLS: for each policy and each sort of host, how mail gets there, or why it does not. Where TLS is demanded, nothing goes in clear.
func TestT8OutboundTLS(t *testing.T) {
	good, ca := certified(t, "127.0.0.1")
	other, otherCA := certified(t, "other.example")
	old := &tls.Config{Certificates: good.Certificates, MaxVersion: tls.VersionTLS12}
	refuse := func(_ *peer, line string) string {
		if line == "STARTTLS" {
			return "454 4.7.0 not today"
		}
		return ""
	}
	const secret, clear = "TLS", "clear"
	for name, c := range map[string]struct {
		policy config.Security
		host   manners
		ca     string
		want   string // secret, clear, or the enhanced code of the deferral and words of its text
	}{
		"opportunistic":                          {"", manners{tls: good}, "", secret},
		"opportunistic, TLS 1.2":                 {"", manners{tls: old}, "", secret},
		"opportunistic, not offered":             {config.TLSOpportunistic, manners{}, "", clear},
		"opportunistic, refused":                 {config.TLSOpportunistic, manners{tls: good, answer: refuse}, "", clear},
		"opportunistic, the handshake fails":     {config.TLSOpportunistic, manners{tls: unfriendly}, "", clear},
		"off":                                    {config.TLSOff, manners{tls: good}, "", clear},
		"required":                               {config.TLSRequired, manners{tls: good}, "", secret},
		"required, not offered":                  {config.TLSRequired, manners{}, "", "4.7.4 does not offer STARTTLS"},
		"required, refused":                      {config.TLSRequired, manners{tls: good, answer: refuse}, "", "4.7.0 not today"},
		"required, the handshake fails":          {config.TLSRequired, manners{tls: unfriendly}, "", "4.7.5 the handshake failed"},
		"verified":                               {config.TLSVerified, manners{tls: good}, ca, secret},
		"verified, not offered":                  {config.TLSVerified, manners{}, ca, "4.7.4 does not offer STARTTLS"},
		"verified, for another name":             {config.TLSVerified, manners{tls: other}, otherCA, "4.7.5 127.0.0.1"},
		"verified, by whom the system trusts":    {config.TLSVerified, manners{tls: good}, "", "4.7.5 unknown authority"},
		"verified, issued by somebody else":      {config.TLSVerified, manners{tls: good}, otherCA, "4.7.5 unknown authority"},
		"opportunistic, for another name":        {"", manners{tls: other}, ca, secret},
		"required, issued by nobody that counts": {config.TLSRequired, manners{tls: other}, ca, secret},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := listen(t, func(p *peer) { p.receive(c.host) })
			route := f.route("*")
			route.TLS = c.policy
			s := settings(t, route)
			s.Egress.CA = c.ca
			r := start(t, s)
			id := r.send("s@sender.example", hello, "a@far.example")
			if code, words, deferred := strings.Cut(c.want, " "); deferred {
				e := r.record("deferral", "a@far.example", 1)
				if e.Enhanced != code || !strings.Contains(e.Text, words) || e.TLSVersion != "" {
					t.Errorf("deferred: %+v", e)
				}
				f.none()
				return
			}
			l, e := f.next(), r.record("delivery", "a@far.example", 1)
			if l.tls != (c.want == secret) || withoutTrace(t, l.content) != hello || e.ID != id || e.Attempt != 1 {
				t.Errorf("%+v, %+v", l, e)
			}
			wantVersion, wantCipher := "", ""
			if c.want == secret {
				wantVersion, wantCipher = "TLS 1.3", "TLS_"
				if c.host.tls == old {
					wantVersion = "TLS 1.2"
				}
			}
			if e.TLSVersion != wantVersion || !strings.HasPrefix(e.TLSCipher, wantCipher) || wantCipher == "" && e.TLSCipher != "" {
				t.Errorf("%+v", e)
			}
			r.awaitEmpty()
		})
	}
}

// TestFailedHandshakeIsRemembered: the host is spoken to in clear at once, without an attempt being counted, and also by the next connections.
func TestFailedHandshakeIsRemembered(t *testing.T) {
	t.Parallel()
	said := make(chan string, 100)
	f := listen(t, func(p *peer) {
		p.receive(manners{tls: unfriendly, answer: func(_ *peer, line string) string {
			if line == "STARTTLS" {
				said <- line
			}
			return ""
		}})
	})
	s := settings(t, f.route("*"))
	s.Engine.Loops, s.Egress.Messages = 1, 1 // a connection for each message
	r := start(t, s)
	for i := range 3 {
		r.send("s@sender.example", text(i, 100), "a@far.example")
		if l := f.next(); l.tls || l.peer != i+2 {
			t.Errorf("message %d by connection %d, TLS %v", i, l.peer, l.tls)
		}
	}
	r.awaitEmpty()
	if len(said) != 1 || len(r.records("deferral")) > 0 {
		t.Errorf("STARTTLS was tried %d times, deferrals: %v", len(said), r.records("deferral"))
	}
	for _, st := range r.sites(0) {
		if st.Failures != 0 || !st.Backoff.IsZero() {
			t.Errorf("the site is blamed: %+v", st)
		}
	}
}

// TestStalledHandshake: a host that says no more after its 220 is left, and gets mail in clear where that is allowed.
func TestStalledHandshake(t *testing.T) {
	t.Parallel()
	f := listen(t, first(func(p *peer) {
		p.greet("STARTTLS")
		p.want("STARTTLS")
		p.say("220 2.0.0 go ahead")
		p.gone()
	}))
	s := settings(t, f.route("*"))
	s.Egress.Timeouts.Connect = 3 * time.Second
	r := start(t, s)
	r.send("s@sender.example", hello, "a@far.example")
	if l := f.next(); l.peer != 2 || l.tls {
		t.Errorf("%+v", l)
	}
	r.awaitEmpty()
	if d := r.records("deferral"); len(d) > 0 {
		t.Errorf("%+v", d)
	}
}

// resumable is a host with TLS that tells of each session whether it is one of before, and the settings of a node that verifies its certificate and sends it
// each message over another connection.
func resumable(t *testing.T) (f *far, c *config.Config, resumed chan bool) {
	cfg, ca := certified(t, "127.0.0.1")
	resumed = make(chan bool, 10)
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		resumed <- s.DidResume
		return nil
	}
	f = listen(t, func(p *peer) { p.receive(manners{tls: cfg}) })
	route := f.route("*")
	route.TLS = config.TLSVerified
	c = settings(t, route)
	c.Engine.Loops, c.Egress.Messages, c.Egress.CA = 1, 1, ca
	return f, c, resumed
}

// TestSessionsAreResumed: the second connection to a host costs no full handshake.
func TestSessionsAreResumed(t *testing.T) {
	t.Parallel()
	f, s, resumed := resumable(t)
	r := start(t, s)
	for i := range 2 {
		r.send("s@sender.example", hello, "a@far.example")
		f.next()
		if got, e := receive(t, resumed), r.record("delivery", "a@far.example", i+1); got != (i > 0) || e.TLSResumed != got || e.TLSVerdict != "verified" {
			t.Errorf("connection %d: resumed %v, %+v", i+1, got, e)
		}
		r.awaitEmpty()
	}
}

// TestSessionsThatAreOver: the certificate of a session that is resumed is judged again, and where it does not do any more the host is asked for its
// present one at once.
func TestSessionsThatAreOver(t *testing.T) {
	t.Parallel()
	f, s, resumed := resumable(t)
	s.Queue.RetryMin, s.Queue.RetryMax = time.Hour, time.Hour
	r := start(t, s)
	r.send("s@sender.example", hello, "a@far.example")
	f.next()
	r.awaitEmpty()
	r.lanes[0].loop.Post(func() { r.outbound.TLS.Now = func() time.Time { return time.Now().Add(24 * time.Hour) } })
	r.send("s@sender.example", hello, "b@far.example")
	if e := r.record("deferral", "b@far.example", 1); !strings.Contains(e.Text, "expired") || e.TLSVerdict != "failed" {
		t.Errorf("%+v", e)
	}
	f.none()
	for i, want := range []bool{false, true, false} {
		if got := receive(t, resumed); got != want {
			t.Errorf("connection %d: resumed %v", i+1, got)
		}
	}
}

// TestT2ResponseInjection: what stands in clear behind the answer to STARTTLS is not read, and the mail does not go that way.
func TestT2ResponseInjection(t *testing.T) {
	t.Parallel()
	cfg, _ := certified(t, "127.0.0.1")
	f := listen(t, func(p *peer) {
		if p.number > 1 {
			p.receive(manners{tls: cfg})
			return
		}
		p.greet("STARTTLS")
		p.want("STARTTLS")
		p.say("220 2.0.0 go\r\n250-evil\r\n250 PIPELINING")
		p.gone()
	})
	r := start(t, settings(t, f.route("*")))
	r.send("s@sender.example", hello, "a@far.example")
	if e := r.record("deferral", "a@far.example", 1); !strings.Contains(e.Text, "behind the answer to STARTTLS") {
		t.Errorf("%+v", e)
	}
	if l := f.next(); !l.tls {
		t.Errorf("%+v", l)
	}
	r.awaitEmpty()
}

// TestRequireTLS: mail that asks for REQUIRETLS goes to a host that is verified and offers it, or comes back, if need be when its time is over; its report asks for it too, and
// returns no content. RFC 8689 §4.2.1, §5
func TestRequireTLS(t *testing.T) {
	good, ca := certified(t, "127.0.0.1")
	requires := []string{"REQUIRETLS"}
	for name, c := range map[string]struct {
		host   manners
		policy config.Security
		ca     string
		want   string // event, enhanced code and words of the end, or "" for a delivery
	}{
		"all is well":               {manners{tls: good, secret: requires}, "", ca, ""},
		"also where it is verified": {manners{tls: good, secret: requires}, config.TLSVerified, ca, ""},
		"not offered":               {manners{tls: good}, "", ca, "bounce 5.7.30 does not offer"},
		"offered in clear only":     {manners{extensions: requires}, "", ca, "expiry 4.7.10 no TLS"},
		"not verified":              {manners{tls: good, secret: requires}, "", "", "expiry 4.7.10 not verified: x509"},
		"TLS is off":                {manners{tls: good, secret: requires}, config.TLSOff, ca, "bounce 5.7.10 TLS is off"},
		"the handshake fails":       {manners{tls: unfriendly, secret: requires}, "", ca, "expiry 4.7.10 no TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			home := listen(t, func(p *peer) { p.receive(manners{tls: good, secret: requires}) })
			f := listen(t, func(p *peer) { p.receive(c.host) })
			route := f.route("far.example")
			route.TLS = c.policy
			s := settings(t, route, home.route("*"))
			s.Egress.CA, s.Queue.Expire = ca, 200*time.Millisecond
			if c.ca == "" {
				_, s.Egress.CA = certified(t, "127.0.0.1")
			}
			r := start(t, s)
			r.inject(func(m *message.Message) {
				m.Flags |= message.RequireTLS
				m.DSN = &message.DSN{Return: message.ReturnFull}
			}, "s@sender.example", hello, "a@far.example")
			if c.want == "" {
				if l := f.next(); !l.tls || !strings.HasSuffix(l.mail, " REQUIRETLS") {
					t.Errorf("%+v", l)
				}
				r.awaitEmpty()
				return
			}
			kind, words, _ := strings.Cut(c.want, " ")
			code, words, _ := strings.Cut(words, " ")
			e, report := r.record(kind, "a@far.example", 1), home.next()
			if e.Enhanced != code || !strings.Contains(e.Text, words) {
				t.Errorf("%s: %+v", kind, e)
			}
			if status := "Status: 5" + code[1:]; !strings.Contains(report.content, status) {
				t.Errorf("report without %s: %s", status, report.content)
			}
			if d := parseReport(t, report); d.kind != "text/rfc822-headers" || c.ca != "" && !strings.HasSuffix(report.mail, " REQUIRETLS") {
				t.Errorf("report %q returns %s", report.mail, d.kind)
			}
			r.awaitEmpty()
			f.none()
		})
	}
}

// TestRequireTLSByMX: nothing proves an MX record, so that mail comes back before a host is asked. A report goes on all the same.
func TestRequireTLSByMX(t *testing.T) {
	t.Parallel()
	home := listen(t, polite)
	s := settings(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToMX}}, home.route("sender.example"))
	s.DNS.Servers = []netip.AddrPort{newZone(t, false, "far.example. 300 IN MX 10 mx.far.example.", "mx.far.example. 300 IN A 127.0.0.1").at}
	s.Egress.Allow = loopback
	r := start(t, s)
	r.inject(func(m *message.Message) { m.Flags |= message.RequireTLS }, "s@sender.example", hello, "a@far.example")
	if e := r.record("bounce", "a@far.example", 1); e.Enhanced != "5.7.30" {
		t.Errorf("%+v", e)
	}
	if l := home.next(); !strings.Contains(l.content, "5.7.30") {
		t.Errorf("%+v", l)
	}
	r.awaitEmpty()
}
