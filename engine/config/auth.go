package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// Auth is who may send by a user's name. It is enabled by Users or OAuth.
type Auth struct {
	Users         string        // file of users, see User; "" = none. It is read again when it changes
	Mechanisms    []string      // of AUTH, in the order of EHLO; empty = all that can be served
	Workers       int           // hashes of passwords at a time, 0..1024; 0 = one per core
	Queue         int           // tries that may wait for a worker, 1..1000000; then 454
	Cache         time.Duration // how long the right password of a user costs no hash; 0 = always one
	Failures      int           // of a user within FailureWindow, then 454 but from where the user was right of late; 0 = any number
	FailureWindow time.Duration // slides
	FailureDelay  time.Duration // before the answer to the first failed try of a session; doubles with each, of which there are three
	OAuth         OAuth
}

// OAuth is who vouches for tokens. It is enabled by Introspection or JWKS, of which one may be set.
type OAuth struct {
	Introspection string        // URL of RFC 7662
	ClientID      string        // who asks there
	ClientSecret  string        // likewise
	JWKS          string        // URL or file of RFC 7517
	Issuer        string        // that tokens must name; "" = any
	Audience      string        // that tokens must be for; "" = any
	Claim         string        // of the name of the user
	Scope         string        // that tokens must have, several parted by spaces; "" = any
	Timeout       time.Duration // of a request
}

// Enabled says whether tokens are taken.
func (o *OAuth) Enabled() bool { return o.Introspection != "" || o.JWKS != "" }

// Enabled says whether there can be users.
func (a *Auth) Enabled() bool { return a.Users != "" || a.OAuth.Enabled() }

// Authenticates says whether a listener serves AUTH.
func (c *Config) Authenticates(l *Listener) bool {
	if l.Auth != nil {
		return *l.Auth && c.Auth.Enabled()
	}
	return l.Mode != ModeMX && c.Auth.Enabled()
}

// mechanisms are those there are, and whether they take passwords.
var mechanisms = []struct {
	name     string
	password bool
}{{"PLAIN", true}, {"LOGIN", true}, {"SCRAM-SHA-256", true}, {"SCRAM-SHA-256-PLUS", true}, {"XOAUTH2", false}, {"OAUTHBEARER", false}}

// authFields are the keys of [auth].
func authFields(a *Auth) []field {
	return []field{
		{"users", text(&a.Users)},
		{"mechanisms", list(&a.Mechanisms, func(s string) (string, error) { return strings.ToUpper(s), nil })},
		{"workers", integer(&a.Workers)},
		{"queue", integer(&a.Queue)},
		{"cache", duration(&a.Cache)},
		{"failures", integer(&a.Failures)},
		{"failure_window", duration(&a.FailureWindow)},
		{"failure_delay", duration(&a.FailureDelay)},
		{"oauth", table([]field{
			{"introspection", text(&a.OAuth.Introspection)},
			{"client_id", text(&a.OAuth.ClientID)},
			{"client_secret", text(&a.OAuth.ClientSecret)},
			{"jwks", text(&a.OAuth.JWKS)},
			{"issuer", text(&a.OAuth.Issuer)},
			{"audience", text(&a.OAuth.Audience)},
			{"claim", text(&a.OAuth.Claim)},
			{"scope", text(&a.OAuth.Scope)},
			{"timeout", duration(&a.OAuth.Timeout)},
		})},
	}
}

// auth judges [auth]. The file of users is judged when it is read.
func (k *checker) auth(a *Auth) {
	if a.Users != "" {
		if _, err := os.Stat(a.Users); err != nil {
			k.complain("auth.users", `%v: want the file that "mailrace user add" makes`, err)
		}
	}
	var names []string
	for _, m := range mechanisms {
		names = append(names, m.name)
	}
	for i, name := range a.Mechanisms {
		key := fmt.Sprintf("auth.mechanisms[%d]", i)
		at := slices.Index(names, name)
		switch {
		case at < 0:
			k.oneOf(key, name, names...)
		case slices.Index(a.Mechanisms, name) < i:
			k.complain(key, "%s stands here twice", name)
		case mechanisms[at].password && a.Users == "":
			k.complain(key, "%s takes passwords: want users in [auth]", name)
		case !mechanisms[at].password && !a.OAuth.Enabled():
			k.complain(key, "%s takes tokens: want introspection or jwks in [auth.oauth]", name)
		}
	}
	k.within("auth.workers", a.Workers, 0, 1024)
	k.within("auth.queue", a.Queue, 1, 1_000_000)
	k.lasts("auth.cache", a.Cache, 0, 24*time.Hour)
	k.within("auth.failures", a.Failures, 0, 1_000_000)
	k.lasts("auth.failure_window", a.FailureWindow, time.Second, 24*time.Hour)
	k.lasts("auth.failure_delay", a.FailureDelay, 0, 10*time.Second)
	k.oauth(&a.OAuth)
}

func (k *checker) oauth(o *OAuth) {
	if o.Introspection != "" && o.JWKS != "" {
		k.complain("auth.oauth.jwks", "there is introspection, too: want one of them")
	}
	k.endpoint("auth.oauth.introspection", o.Introspection)
	if strings.Contains(o.JWKS, "://") {
		k.endpoint("auth.oauth.jwks", o.JWKS)
	} else if o.JWKS != "" {
		if _, err := os.Stat(o.JWKS); err != nil {
			k.complain("auth.oauth.jwks", "%v: want a file or a URL", err)
		}
	}
	if o.Claim == "" {
		k.complain("auth.oauth.claim", `empty: want the claim that names the user, as in "email"`)
	}
	k.lasts("auth.oauth.timeout", o.Timeout, 100*time.Millisecond, time.Minute)
}

// endpoint judges the URL of a service that is told secrets, or believed: in clear on this machine only.
func (k *checker) endpoint(key, s string) {
	if s == "" {
		return
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		k.complain(key, `%s is not a URL: want one as in "https://idp.example.com/introspect"`, quote(s))
		return
	}
	if a, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && (err != nil || !a.IsLoopback()) {
		k.complain(key, "%s is not secured: want https", quote(s))
	}
}

// listenerAuth judges AUTH of a listener, which must be able to work.
func (k *checker) listenerAuth(key string, l *Listener, c *Config) {
	switch {
	case l.Auth != nil && *l.Auth && !c.Auth.Enabled():
		k.complain(key+".auth", "there are no users: want users in [auth], or [auth.oauth]")
	case !c.Authenticates(l) || l.AuthInClear:
	case !c.TLS.Secure() || l.Mode != ModeSubmissions && !l.StartTLS:
		k.complain(key+".auth", "AUTH is for TLS, of which there is none here: want certificates in [tls] and starttls = true, or auth_in_clear = true")
	}
}
