package egress

import (
	"bytes"
	"fmt"
	"slices"

	"mailrace/engine/auth/client"
	"mailrace/proto/smtp"
	"mailrace/router"
)

// Login is how sessions with a host begin that wants to know who we are.
type Login struct {
	User      string
	Secret    func() (string, error) // reads the password or token, for each session anew. It may block
	Token     bool                   // it is a token
	Mechanism string                 // "" = the best that the host offers
	InClear   bool                   // also without TLS
}

// mechanism is one of AUTH.
type mechanism struct {
	name  string
	is    smtp.SASL
	token bool // it takes tokens rather than passwords
}

// mechanisms are those there are, the best first.
var mechanisms = []mechanism{
	{client.Scram, smtp.SASLScram, false}, {client.Plain, smtp.SASLPlain, false}, {client.Login, smtp.SASLLogin, false},
	{client.OAuthBearer, smtp.SASLOAuthBearer, true}, {client.XOAuth2, smtp.SASLXOAuth2, true},
}

// challengesMax is how many challenges an exchange has at most. No mechanism takes more than two.
const challengesMax = 4

// login is AUTH under way.
type login struct {
	with       *Login
	mechanism  string
	exchange   *client.Exchange
	challenges int
	fault      error // why the exchange was given up
}

// welcome goes on where nothing is left to be done about TLS: with AUTH, where the route has credentials.
func (s *session) welcome() {
	target := s.link.Target()
	if target.RequireTLS && !s.trustworthy() {
		return
	}
	with := s.opts.Logins[target.Manner.Login]
	if with == nil {
		s.up()
		return
	}
	s.login = &login{with: with}
	if s.tls.version == "" && !with.InClear {
		s.close(router.GoneInsecure, &router.Outcome{
			Class: router.Deferred, Enhanced: "4.7.11", Text: "the route has credentials, which are shown under TLS only, and the session with the host is not",
		})
		return
	}
	offered := s.smtp.Mechanisms()
	i := slices.IndexFunc(mechanisms, func(m mechanism) bool {
		return m.token == with.Token && offered.Has(m.is) && (with.Mechanism == "" || with.Mechanism == m.name)
	})
	if i < 0 {
		s.deny(&router.Outcome{Text: "the route has credentials, and the host offers no AUTH that they are for"})
		return
	}
	s.login.mechanism = mechanisms[i].name
	s.authenticate(mechanisms[i].is, client.Credentials{User: with.User, Host: target.Host, Port: int(target.Addr.Port())})
}

// authenticate begins AUTH. Reading the secret may block, and so may what the mechanism makes of it: that is done beside the loop.
func (s *session) authenticate(mechanism smtp.SASL, c client.Credentials) {
	l := s.login
	var exchange *client.Exchange
	s.beside(func() (initial []byte, err error) {
		if c.Secret, err = l.with.Secret(); err == nil {
			exchange, initial, err = client.Begin(l.mechanism, c)
		}
		return initial, err
	}, func(initial []byte, err error) {
		if err != nil {
			s.deny(&router.Outcome{Text: fmt.Sprintf("our credentials cannot be used: %v", err)})
			return
		}
		l.exchange = exchange
		s.smtp.Auth(mechanism, initial)
	})
}

// challenged answers a challenge.
func (s *session) challenged() {
	l := s.login
	if l.challenges++; l.challenges > challengesMax {
		s.deny(&router.Outcome{Text: "the host does not come to an end with AUTH " + l.mechanism})
		return
	}
	challenge := bytes.Clone(s.smtp.Challenge())
	s.beside(func() ([]byte, error) { return l.exchange.Next(challenge) }, func(response []byte, err error) {
		if err != nil {
			l.fault = err
			s.smtp.AuthResponse(nil) // the refusal follows
			return
		}
		s.smtp.AuthResponse(append([]byte{}, response...))
	})
}

// beside runs fn on a goroutine of its own, and then goes on with what it returned, unless the session has ended.
func (s *session) beside(fn func() ([]byte, error), then func([]byte, error)) {
	go func() {
		b, err := fn()
		s.loop.Post(func() {
			if s.gone {
				return
			}
			then(b, err)
			s.flush()
		})
	}()
}

// authenticated goes on when the host took our credentials.
func (s *session) authenticated() {
	if !s.login.exchange.Proved() {
		s.deny(&router.Outcome{Text: "the host took our credentials without a proof that it knows them"})
		return
	}
	s.opts.Stats.LoggedIn.Inc()
	s.login = nil
	s.up()
}

// authRefused ends a session whose credentials were refused.
func (s *session) authRefused() {
	r := s.smtp.Reply()
	o := &router.Outcome{Code: r.Code, Enhanced: string(r.Enhanced), Text: string(r.Text)}
	if s.login.fault != nil {
		o.Text = fmt.Sprintf("%v; %s", s.login.fault, o.Text)
	}
	s.deny(o)
}

// deny ends a session that cannot log in. It is no fault of the mail, which waits; the site is left alone for a while, or a wrong password, tried
// again and again, would lock the account.
func (s *session) deny(o *router.Outcome) {
	s.opts.Stats.LoginRefused.Inc()
	target := s.link.Target()
	o.Class = router.Deferred
	o.Text = fmt.Sprintf("not logged in as %q: %s", s.login.with.User, o.Text)
	s.opts.Log.Warn("the next host does not let us log in: its mail waits", "route", target.Route, "peer", target.Addr, "user", s.login.with.User,
		"mechanism", s.login.mechanism, "code", o.Code, "error", o.Text)
	s.close(router.GoneDenied, o)
}
