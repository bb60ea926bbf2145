package auth

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Names of the mechanisms.
const (
	Plain       = "PLAIN"
	Login       = "LOGIN"
	Scram       = "SCRAM-SHA-256"
	ScramPlus   = "SCRAM-SHA-256-PLUS"
	XOAuth2     = "XOAUTH2"
	OAuthBearer = "OAUTHBEARER"
)

// All are the mechanisms that there are, the best first.
var All = []string{ScramPlus, Scram, Plain, Login, OAuthBearer, XOAuth2}

// Possible are the mechanisms that can be served with a file of users, and with an OAuth server.
func Possible(users, oauth bool) (names []string) {
	for _, name := range All {
		if NeedsOAuth(name) && oauth || !NeedsOAuth(name) && users {
			names = append(names, name)
		}
	}
	return names
}

// NeedsOAuth says whether a mechanism takes tokens rather than passwords.
func NeedsOAuth(mechanism string) bool { return mechanism == XOAuth2 || mechanism == OAuthBearer }

func (a *Authority) serves(mechanism string) bool { return slices.Contains(a.o.Mechanisms, mechanism) }

// Mechanisms are those that are served under TLS, or in clear, where there is nothing to bind to.
func (a *Authority) Mechanisms(tls bool) []string {
	if tls {
		return slices.Clone(a.o.Mechanisms)
	}
	return slices.DeleteFunc(slices.Clone(a.o.Mechanisms), func(m string) bool { return m == ScramPlus })
}

// Channel is what an exchange may know of its connection.
type Channel struct {
	Client netip.Addr // may be invalid
	// Bindings are the channel bindings of a type of RFC 5929 or RFC 9266 that are right for the connection; none if it has none. nil = in clear
	Bindings func(kind string) [][]byte
}

// Answer is what becomes of a response: a challenge that asks for another, a user, or an error of this package.
type Answer struct {
	Challenge []byte // if User and Err are nil; may be empty
	User      *User
	Until     time.Time // when what User has shown expires, as tokens do; zero = never
	Err       error
}

// Exchange is one authentication under way. It is used by one goroutine at a time.
type Exchange struct {
	a         *Authority
	channel   Channel
	mechanism mechanism
	ended     bool
}

// mechanism is the server's side of a mechanism.
type mechanism interface {
	// next takes a response, nil if the client began without one. If it waits, later is called once, on any goroutine, maybe before next returns.
	next(x *Exchange, response []byte, later func(Answer)) (answer Answer, waits bool)
	// name is who is to be authenticated, as far as is known, and as it came.
	name() string
}

// Begin begins an exchange of a mechanism that is served, or else returns nil.
func (a *Authority) Begin(name string, c Channel) *Exchange {
	if !a.serves(name) {
		return nil
	}
	x := &Exchange{a: a, channel: c}
	switch name {
	case Plain:
		x.mechanism = new(plain)
	case Login:
		x.mechanism = new(login)
	case Scram, ScramPlus:
		x.mechanism = &scramServer{plus: name == ScramPlus}
	case XOAuth2, OAuthBearer:
		x.mechanism = &token{google: name == XOAuth2}
	}
	return x
}

// Step gives a response to the exchange, nil where the client began without one; it is not kept. If it waits, later is called once with the
// answer, on any goroutine, maybe before Step returns. It does not block, and may be called by event loops.
func (x *Exchange) Step(response []byte, later func(Answer)) (answer Answer, waits bool) {
	if x.ended {
		return Answer{Err: ErrCredentials}, false
	}
	answer, waits = x.mechanism.next(x, response, later)
	x.ended = !waits && (answer.User != nil || answer.Err != nil)
	return answer, waits
}

// Name is who is to be authenticated, as far as that is known, and as it came: it may hold anything.
func (x *Exchange) Name() string { return x.mechanism.name() }

// password checks a password as the last step of a mechanism.
func (x *Exchange) password(name, password string, later func(Answer)) (Answer, bool) {
	user, err, waits := x.a.check(name, password, x.channel.Client, func(user *User, err error) { later(Answer{User: user, Err: err}) })
	return Answer{User: user, Err: err}, waits
}

var errNoUser = errors.New("no user")

// plain is RFC 4616.
type plain struct{ user string }

func (p *plain) name() string { return p.user }

func (p *plain) next(x *Exchange, response []byte, later func(Answer)) (Answer, bool) {
	if response == nil {
		return Answer{}, false
	}
	identity, rest, one := bytes.Cut(response, []byte{0})
	user, password, two := bytes.Cut(rest, []byte{0})
	p.user = string(user)
	if !one || !two || bytes.IndexByte(password, 0) >= 0 || len(identity) > 0 && fold(string(identity)) != fold(p.user) {
		return Answer{Err: ErrCredentials}, false // nobody may speak for others
	}
	return x.password(p.user, string(password), later)
}

// login is draft-murchison-sasl-login: obsolete, and what many programs know.
type login struct {
	user  string
	named bool
}

func (l *login) name() string { return l.user }

func (l *login) next(x *Exchange, response []byte, later func(Answer)) (Answer, bool) {
	switch {
	case response == nil:
		return Answer{Challenge: []byte("Username:")}, false
	case !l.named:
		l.user, l.named = string(response), true
		return Answer{Challenge: []byte("Password:")}, false
	}
	return x.password(l.user, string(response), later)
}

// token is OAUTHBEARER (RFC 7628) or XOAUTH2, which is Google's and Microsoft's form of it.
type token struct {
	google bool
	user   string // "" = whom the token names
	failed bool   // the client was told why, and has to say that it knows
}

func (t *token) name() string { return t.user }

func (t *token) next(x *Exchange, response []byte, later func(Answer)) (Answer, bool) {
	if t.failed || x.a.bearer == nil {
		return Answer{Err: ErrCredentials}, false
	}
	if response == nil {
		return Answer{}, false
	}
	parse := parseBearer
	if t.google {
		parse = parseXOAuth2
	}
	user, secret, ok := parse(response)
	if t.user = user; !ok {
		return t.refuse(x, errTokenForm), false
	}
	x.bear(t.user, secret, func(a Answer) {
		var refusal *tokenError
		if errors.As(a.Err, &refusal) {
			a = t.refuse(x, refusal)
		}
		later(a)
	})
	return Answer{}, true
}

// refuse tells the client why, as RFC 7628 §3.2.2 wants it; the exchange fails after the client's answer to that.
func (t *token) refuse(x *Exchange, why *tokenError) Answer {
	t.failed = true
	return Answer{Challenge: why.challenge(t.google, x.a.bearer.o.Scope)}
}

// parseXOAuth2 reads "user=" {name} "^Aauth=Bearer " {token} "^A^A".
func parseXOAuth2(response []byte) (user, secret string, ok bool) {
	fields, ok := strings.CutSuffix(string(response), "\x01\x01")
	name, auth, two := strings.Cut(fields, "\x01")
	user, named := strings.CutPrefix(name, "user=")
	secret, bears := cutBearer(auth)
	return user, secret, ok && two && named && bears
}

// parseBearer reads what RFC 7628 §3.1 calls client-resp.
func parseBearer(response []byte) (user, secret string, ok bool) {
	header, fields, two := strings.Cut(string(response), "\x01")
	flag, rest, hasName := strings.Cut(header, ",")
	name, end, hasEnd := strings.Cut(rest, ",")
	if user, ok = "", true; name != "" {
		var named bool
		user, named = strings.CutPrefix(name, "a=")
		user = strings.NewReplacer("=2C", ",", "=3D", "=").Replace(user)
		ok = named && user != ""
	}
	ok = ok && two && hasName && hasEnd && end == "" && (flag == "n" || flag == "y")
	fields, closed := strings.CutSuffix(fields, "\x01\x01")
	for field := range strings.SplitSeq(fields, "\x01") {
		key, _, pair := strings.Cut(field, "=")
		ok = ok && pair && key != ""
		if key == "auth" {
			if secret != "" {
				return user, "", false
			}
			secret, _ = cutBearer(field)
		}
	}
	return user, secret, ok && closed && secret != ""
}

// cutBearer reads "auth=Bearer " {token}. RFC 6750 §2.1
func cutBearer(field string) (secret string, ok bool) {
	const prefix = "auth=bearer "
	if len(field) <= len(prefix) || !strings.EqualFold(field[:len(prefix)], prefix) {
		return "", false
	}
	secret = strings.Trim(field[len(prefix):], " ")
	for _, c := range []byte(secret) {
		if c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return "", false
		}
	}
	return secret, secret != ""
}
