package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// oauthServer answers about tokens, as RFC 7662 says, and counts how often it was asked.
type oauthServer struct {
	*httptest.Server
	asked atomic.Int32
}

func newOAuthServer(t *testing.T) *oauthServer {
	s := &oauthServer{}
	answers := map[string]string{
		"good":      `{"active":true,"email":"alice@example.com","scope":"openid smtp"}`,
		"other":     `{"active":true,"email":"carol@example.org","scope":"smtp"}`,
		"nameless":  `{"active":true,"scope":"smtp"}`,
		"no-mail":   `{"active":true,"email":"carol","scope":"smtp"}`,
		"unproved":  `{"active":true,"email":"alice@example.com","email_verified":false,"scope":"smtp"}`,
		"no-scope":  `{"active":true,"email":"alice@example.com","scope":"smtpx"}`,
		"expired":   `{"active":true,"email":"alice@example.com","scope":"smtp","exp":1}`,
		"issuer":    `{"active":true,"email":"alice@example.com","scope":"smtp","iss":"https://evil.example"}`,
		"audience":  `{"active":true,"email":"alice@example.com","scope":"smtp","aud":["other"]}`,
		"not-json":  `<html>`,
		"very-long": `{"active":true,"email":"alice@example.com","scope":"smtp","x":"` + strings.Repeat("x", answerMax) + `"}`,
		"injected":  `{"active":true,"email":"a\r\nb@example.com","scope":"smtp"}`,
	}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		id, secret, ok := r.BasicAuth()
		switch token := r.PostFormValue("token"); {
		case !ok || id != "mta" || secret != "s%2Fcret":
			w.WriteHeader(http.StatusUnauthorized)
		case token == "moved":
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		case answers[token] != "":
			fmt.Fprint(w, answers[token])
		default:
			fmt.Fprint(w, `{"active":false}`)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// bears runs a mechanism with a token: its last answer, and the challenge before it.
func (r *rig) bears(mechanism, user, token string) (last Answer, challenge string) {
	r.t.Helper()
	response := "user=" + user + "\x01auth=Bearer " + token + "\x01\x01"
	if mechanism == OAuthBearer {
		response = "n,a=" + user + ",\x01host=h.example\x01port=587\x01auth=Bearer " + token + "\x01\x01"
	}
	x := r.Begin(mechanism, Channel{Client: home1})
	last = r.step(x, []byte(response))
	if last.User == nil && last.Err == nil {
		challenge = string(last.Challenge)
		last = r.step(x, []byte("\x01"))
	}
	return last, challenge
}

func TestIntrospection(t *testing.T) {
	t.Parallel()
	s := newOAuthServer(t)
	r := open(t, somebody(), func(o *Options) {
		o.OAuth = &OAuth{
			Introspection: s.URL, ClientID: "mta", ClientSecret: "s/cret", Scope: "smtp", Cache: time.Minute, Issuer: "", Audience: "",
		}
	})
	if got := strings.Join(r.Mechanisms(false), " "); got != "SCRAM-SHA-256 PLAIN LOGIN OAUTHBEARER XOAUTH2" {
		t.Error(got)
	}
	for _, test := range []struct{ user, token, want string }{
		{"alice@example.com", "good", "alice@example.com"},
		{"Alice@example.com", "good", "alice@example.com"},
		{"bob", "good", "invalid_token"},
		{"carol@example.org", "other", "carol@example.org"},
		{"alice@example.com", "other", "invalid_token"},
		{"carol@example.org", "unknown", "invalid_token"},
		{"alice@example.com", "nameless", "invalid_token"},
		{"carol", "no-mail", "invalid_token"},
		{"alice@example.com", "unproved", "invalid_token"},
		{"alice@example.com", "no-scope", "insufficient_scope"},
		{"alice@example.com", "expired", "invalid_token"},
		{"a", "injected", "invalid_token"},
		{"alice@example.com", "not-json", "unavailable"},
		{"alice@example.com", "very-long", "unavailable"},
		{"alice@example.com", "moved", "unavailable"},
		{"alice@example.com", "a b", "invalid_request"},
		{"alice@example.com", "", "invalid_request"},
	} {
		for _, mechanism := range []string{XOAuth2, OAuthBearer} {
			last, challenge := r.bears(mechanism, test.user, test.token)
			var got struct{ Status, Schemes, Scope string }
			_ = json.Unmarshal([]byte(challenge), &got)
			want := test.want
			if mechanism == XOAuth2 {
				want = strings.NewReplacer("invalid_request", "400", "invalid_token", "401", "insufficient_scope", "403").Replace(want)
			}
			switch {
			case last.User != nil && last.User.Name == want:
			case errors.Is(last.Err, ErrUnavailable) && want == "unavailable":
			case last.Err == ErrCredentials && got.Status == want && got.Schemes == "bearer" && got.Scope == "smtp":
			default:
				t.Errorf("%s %s %s: %+v %s", mechanism, test.user, test.token, last, challenge)
			}
		}
	}
	u, _ := r.bears(XOAuth2, "carol@example.org", "other")
	if !u.User.Senders.Allow("carol@example.org") || u.User.Senders.Allow("x@example.org") || r.Current(u.User) != u.User {
		t.Errorf("%+v", u.User)
	}
	asked := s.asked.Load()
	r.bears(XOAuth2, "carol@example.org", "other")
	if s.asked.Load() != asked {
		t.Error("the server was asked twice about a token")
	}
	r.clock.pass(time.Minute)
	r.bears(XOAuth2, "carol@example.org", "other")
	if s.asked.Load() != asked+1 {
		t.Error("the cache does not forget")
	}
	if last, challenge := r.bears(OAuthBearer, "", "good"); last.Err != ErrCredentials || !strings.Contains(challenge, "invalid_request") {
		t.Errorf("an empty a= is none: %+v %s", last, challenge)
	}
	if a := r.step(r.Begin(OAuthBearer, Channel{}), []byte("n,,\x01auth=Bearer good\x01\x01")); a.User == nil {
		t.Errorf("no name is the token's: %+v", a)
	}
	s.Close()
	if last, _ := r.bears(XOAuth2, "alice@example.com", "fresh"); !errors.Is(last.Err, ErrUnavailable) {
		t.Errorf("%+v", last)
	}
}

// TestTokenForms: what is no response of these mechanisms.
func TestTokenForms(t *testing.T) {
	t.Parallel()
	for response, want := range map[string]string{
		"n,a=u@x,\x01auth=Bearer t\x01\x01":                       "u@x t",
		"n,a=u=2Cx=3D,\x01auth=bearer t\x01\x01":                  "u,x= t",
		"y,,\x01host=h\x01port=1\x01auth=Bearer t.~+/-_=\x01\x01": " t.~+/-_=",
		"p=tls-exporter,,\x01auth=Bearer t\x01\x01":               "",
		"n,,\x01auth=Bearer t\x01":                                "",
		"n,,\x01auth=Basic t\x01\x01":                             "",
		"n,,\x01auth=Bearer t\x01auth=Bearer u\x01\x01":           "",
		"n,,\x01\x01":                          "",
		"n,\x01auth=Bearer t\x01\x01":          "",
		"n,,x\x01auth=Bearer t\x01\x01":        "",
		"n,,\x01auth=Bearer t\x01junk\x01\x01": "",
		"n,,\x01auth=Bearer t\"\x01\x01":       "",
		"":                                     "",
	} {
		if user, token, ok := parseBearer([]byte(response)); ok != (want != "") || ok && user+" "+token != want {
			t.Errorf("%q: %q %q %v", response, user, token, ok)
		}
	}
	for response, want := range map[string]string{
		"user=u@x\x01auth=Bearer t\x01\x01": "u@x t",
		"user=\x01auth=Bearer t\x01\x01":    " t",
		"user=u\x01auth=Bearer t\x01":       "",
		"u\x01auth=Bearer t\x01\x01":        "",
		"user=u\x01auth=t\x01\x01":          "",
		"":                                  "",
	} {
		if user, token, ok := parseXOAuth2([]byte(response)); ok != (want != "") || ok && user+" "+token != want {
			t.Errorf("%q: %q %q %v", response, user, token, ok)
		}
	}
}

// signer signs tokens, and shows its key.
func signer(t *testing.T) (sign func(claims jwt.MapClaims) string, jwks string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b := base64.RawURLEncoding
	jwks = fmt.Sprintf(`{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"k1","x":%q,"y":%q}]}`,
		b.EncodeToString(raw[1:33]), b.EncodeToString(raw[33:]))
	return func(claims jwt.MapClaims) string {
		token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
		token.Header["kid"] = "k1"
		s, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}, jwks
}

func TestJWKS(t *testing.T) {
	t.Parallel()
	sign, jwks := signer(t)
	forge, _ := signer(t)
	file := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(file, []byte(jwks), 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, jwks) }))
	t.Cleanup(server.Close)
	for _, source := range []string{file, server.URL} {
		r := open(t, somebody(), func(o *Options) {
			o.OAuth = &OAuth{JWKS: source, Issuer: "https://idp.example", Audience: "smtp.example", Claim: "upn", Scope: "mail.send", Cache: time.Hour}
		})
		now := r.clock.Now()
		claims := func(change func(c jwt.MapClaims)) jwt.MapClaims {
			c := jwt.MapClaims{
				"iss": "https://idp.example", "aud": []string{"x", "smtp.example"}, "upn": "alice@example.com", "scp": []string{"mail.send"}, "exp": now.Add(time.Minute).Unix(),
			}
			if change != nil {
				change(c)
			}
			return c
		}
		none, err := jwt.NewWithClaims(jwt.SigningMethodNone, claims(nil)).SignedString(jwt.UnsafeAllowNoneSignatureType)
		if err != nil {
			t.Fatal(err)
		}
		symmetric, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims(nil)).SignedString([]byte(jwks))
		if err != nil {
			t.Fatal(err)
		}
		for name, test := range map[string]struct{ token, want string }{
			"good":      {sign(claims(nil)), ""},
			"text":      {sign(claims(func(c jwt.MapClaims) { delete(c, "scp"); c["scope"] = "a mail.send" })), ""},
			"issuer":    {sign(claims(func(c jwt.MapClaims) { c["iss"] = "https://evil.example" })), "invalid_token"},
			"audience":  {sign(claims(func(c jwt.MapClaims) { c["aud"] = "other" })), "invalid_token"},
			"expired":   {sign(claims(func(c jwt.MapClaims) { c["exp"] = now.Add(-time.Hour).Unix() })), "invalid_token"},
			"forever":   {sign(claims(func(c jwt.MapClaims) { delete(c, "exp") })), "invalid_token"},
			"early":     {sign(claims(func(c jwt.MapClaims) { c["nbf"] = now.Add(time.Hour).Unix() })), "invalid_token"},
			"scope":     {sign(claims(func(c jwt.MapClaims) { c["scp"] = "mail" })), "insufficient_scope"},
			"other":     {sign(claims(func(c jwt.MapClaims) { c["upn"] = "bob@example.com" })), "invalid_token"},
			"forged":    {forge(claims(nil)), "invalid_token"},
			"none":      {none, "invalid_token"},
			"symmetric": {symmetric, "invalid_token"},
			"garbage":   {"a.b.c", "invalid_token"},
		} {
			last, challenge := r.bears(OAuthBearer, "alice@example.com", test.token)
			if last.User != nil && !last.Until.Equal(now.Add(time.Minute)) {
				t.Errorf("%s: until %v", name, last.Until)
			}
			if ok := last.User != nil; ok != (test.want == "") || !ok && (last.Err != ErrCredentials || !strings.Contains(challenge, test.want)) {
				t.Errorf("%s: %+v %s", name, last, challenge)
			}
		}
		good := sign(claims(nil))
		r.clock.pass(2 * time.Minute) // the cache keeps no token for longer than it lives
		if last, _ := r.bears(OAuthBearer, "alice@example.com", good); last.User != nil {
			t.Error("a token outlives itself")
		}
	}
	server.Close()
	r := open(t, somebody(), func(o *Options) { o.OAuth = &OAuth{JWKS: server.URL} }) // a node starts without its OAuth server
	if last, _ := r.bears(OAuthBearer, "alice@example.com", sign(jwt.MapClaims{"exp": r.clock.Now().Add(time.Hour).Unix()})); !errors.Is(last.Err, ErrUnavailable) {
		t.Errorf("without keys: %+v", last)
	}
	if _, err := New(Options{OAuth: &OAuth{JWKS: "/nowhere/jwks.json"}}); err == nil {
		t.Error("no error")
	}
}
