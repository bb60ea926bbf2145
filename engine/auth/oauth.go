package auth

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"
)

// OAuth says who vouches for tokens: one of Introspection and JWKS is set.
type OAuth struct {
	Introspection          string        // URL that is asked about each token: RFC 7662
	ClientID, ClientSecret string        // who asks there
	JWKS                   string        // URL or file of the keys that sign tokens: RFC 7517. A URL is read again every hour, and when a key is not known
	Issuer                 string        // that tokens must name, or ""
	Audience               string        // that tokens must be for, or ""
	Claim                  string        // of the name of the user; default "email"
	Scope                  string        // that a token must have, or ""; several are parted by spaces
	Timeout                time.Duration // of a request; default 10 seconds
	Cache                  time.Duration // how long a good token is not looked at again; it is never longer than the token's life. 0 = always
}

// Bounds of what an OAuth server may answer.
const (
	answerMax   = 256 << 10 // octets
	keysRefresh = time.Hour
	keysAgain   = time.Minute // at most, because of a key that is not known
	clockSkew   = 30 * time.Second
)

// tokenError is why a token is refused, as RFC 6750 §3.1 names it. To sessions it is ErrCredentials.
type tokenError struct{ status string }

func (e *tokenError) Error() string { return "token refused: " + e.status }
func (e *tokenError) Unwrap() error { return ErrCredentials }

var (
	errTokenForm  = &tokenError{"invalid_request"}
	errToken      = &tokenError{"invalid_token"}
	errTokenScope = &tokenError{"insufficient_scope"}
)

// challenge is the JSON that tells the client. Google's form has numbers, as HTTP has.
func (e *tokenError) challenge(google bool, scope string) []byte {
	status := e.status
	if google {
		status = map[string]string{"invalid_request": "400", "invalid_token": "401", "insufficient_scope": "403"}[status]
	}
	b, _ := json.Marshal(struct {
		Status  string `json:"status"`
		Schemes string `json:"schemes"`
		Scope   string `json:"scope,omitempty"`
	}{status, "bearer", scope})
	return b
}

// principal is whom a token names.
type principal struct {
	name    string
	expires time.Time // zero = it is not said
}

// bearer checks tokens.
type bearer struct {
	o      *OAuth
	ctx    context.Context // ends requests when the node stops
	client *http.Client
	keys   keyfunc.Keyfunc // nil where the server is asked
	cache  *memo[principal]
	log    *slog.Logger
	rarely rate.Sometimes // what tokens can make us log
}

func newBearer(ctx context.Context, o *OAuth, log *slog.Logger) (*bearer, error) {
	filled := *o
	o = &filled
	o.Claim, o.Timeout = cmp.Or(o.Claim, "email"), cmp.Or(o.Timeout, 10*time.Second)
	b := &bearer{o: o, ctx: ctx, cache: newMemo[principal](cacheMax), log: log, rarely: rate.Sometimes{Interval: 10 * time.Second}}
	b.client = &http.Client{
		Timeout: o.Timeout, Transport: bounded{http.DefaultTransport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if o.JWKS == "" {
		return b, nil
	}
	if !strings.Contains(o.JWKS, "://") {
		raw, err := os.ReadFile(o.JWKS)
		if err == nil {
			b.keys, err = keyfunc.NewJWKSetJSON(raw)
		}
		if err != nil {
			return nil, fmt.Errorf("keys of tokens in %s: %w", o.JWKS, err)
		}
		return b, nil
	}
	anyhow := true // a node must start without its OAuth server, too
	var err error
	b.keys, err = keyfunc.NewDefaultOverrideCtx(ctx, []string{o.JWKS}, keyfunc.Override{
		Client: b.client, HTTPTimeout: o.Timeout, NoErrorReturnFirstHTTPReq: &anyhow,
		RefreshInterval: keysRefresh, RefreshUnknownKID: rate.NewLimiter(rate.Every(keysAgain), 1), RateLimitWaitMax: o.Timeout,
		RefreshErrorHandlerFunc: func(u string) func(context.Context, error) {
			return func(_ context.Context, err error) {
				log.Error("the keys of tokens cannot be read: those at hand stay in use", "url", u, "error", err)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("keys of tokens at %s: %w", o.JWKS, err)
	}
	return b, nil
}

// bounded reads no more of an answer than answerMax.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, answerMax), resp.Body}
	}
	return resp, err
}

// bear finds out whom a token names, who must be the user if that is not "". later is called once, maybe before it returns.
func (x *Exchange) bear(user, secret string, later func(Answer)) {
	a, now := x.a, x.a.now()
	at := x.channel.Client
	if user != "" && a.guard.blocks(user, at, now) {
		later(Answer{Err: ErrLocked})
		return
	}
	key := sha256.Sum256([]byte(secret))
	judge := func(p principal, err error) {
		answer := Answer{Err: err}
		switch {
		case err != nil:
		case user != "" && fold(user) != fold(p.name):
			answer.Err = errToken
		default:
			answer.Until = p.expires
			if answer.User = a.vouched(p.name); answer.User == nil {
				a.bearer.rarely.Do(func() { a.log.Warn("the name in a token is neither a user nor an address", "name", shorten(p.name)) })
				answer.Err = errToken
			}
		}
		if user != "" {
			a.judged(user, at, answer.Err)
		}
		later(answer)
	}
	if p, ok := a.bearer.cache.get(key, now); ok {
		judge(p, nil)
		return
	}
	if !a.bearer.cache.join(key, judge) {
		return
	}
	if !a.tokens.try(func() { a.ask(key, secret) }) {
		a.bearer.cache.settle(key, principal{}, ErrBusy, now, now)
	}
}

// ask checks a token, on a worker.
func (a *Authority) ask(key memoKey, secret string) {
	b := a.bearer
	check := b.introspect
	if b.keys != nil {
		check = b.verify
	}
	p, err := check(secret, a.now())
	now := a.now()
	until := now.Add(b.o.Cache)
	if !p.expires.IsZero() && p.expires.Before(until) {
		until = p.expires
	}
	b.cache.settle(key, p, err, now, until)
}

// methods of signatures: those with a public key.
var methods = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// verify checks a JWT with the keys at hand. RFC 7519, RFC 9068
func (b *bearer) verify(secret string, now time.Time) (principal, error) {
	options := []jwt.ParserOption{
		jwt.WithValidMethods(methods), jwt.WithExpirationRequired(), jwt.WithLeeway(clockSkew), jwt.WithTimeFunc(func() time.Time { return now }),
	}
	if b.o.Issuer != "" {
		options = append(options, jwt.WithIssuer(b.o.Issuer))
	}
	if b.o.Audience != "" {
		options = append(options, jwt.WithAudience(b.o.Audience))
	}
	ctx, cancel := context.WithTimeout(b.ctx, b.o.Timeout)
	defer cancel()
	claims := jwt.MapClaims{}
	if _, err := jwt.ParseWithClaims(secret, claims, b.keys.KeyfuncCtx(ctx), options...); err != nil {
		if ctx.Err() != nil {
			return principal{}, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		}
		if set, readErr := b.keys.VerificationKeySet(ctx); readErr != nil || len(set.Keys) == 0 {
			return principal{}, fmt.Errorf("%w: there are no keys at %s", ErrUnavailable, b.o.JWKS)
		}
		b.log.Debug("token refused", "error", err)
		return principal{}, errToken
	}
	return b.principal(claims)
}

// introspect asks the server. RFC 7662
func (b *bearer) introspect(secret string, now time.Time) (p principal, err error) {
	defer func() {
		if errors.Is(err, ErrUnavailable) {
			b.rarely.Do(func() { b.log.Error("tokens cannot be checked", "url", b.o.Introspection, "error", err) })
		}
	}()
	form := url.Values{"token": {secret}, "token_type_hint": {"access_token"}}
	req, err := http.NewRequestWithContext(b.ctx, http.MethodPost, b.o.Introspection, strings.NewReader(form.Encode()))
	if err != nil {
		return p, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if b.o.ClientID != "" {
		req.SetBasicAuth(url.QueryEscape(b.o.ClientID), url.QueryEscape(b.o.ClientSecret)) // RFC 6749 §2.3.1
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return p, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return p, fmt.Errorf("%w: %s", ErrUnavailable, resp.Status)
	}
	claims := jwt.MapClaims{}
	if err := json.NewDecoder(resp.Body).Decode(&claims); err != nil {
		return p, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if active, _ := claims["active"].(bool); !active {
		return p, errToken
	}
	if p, err = b.principal(claims); err != nil {
		return p, err
	}
	audience, _ := claims.GetAudience()
	issuer, _ := claims.GetIssuer()
	if b.o.Issuer != "" && issuer != b.o.Issuer || b.o.Audience != "" && !slices.Contains(audience, b.o.Audience) ||
		!p.expires.IsZero() && p.expires.Add(clockSkew).Before(now) {
		return principal{}, errToken
	}
	return p, nil
}

// principal reads the name, the life and the scopes.
func (b *bearer) principal(claims jwt.MapClaims) (p principal, err error) {
	if p.name, _ = claims[b.o.Claim].(string); p.name == "" {
		b.rarely.Do(func() { b.log.Warn("a token does not name its user", "claim", b.o.Claim) })
		return p, errToken
	}
	if verified, said := claims["email_verified"].(bool); said && !verified && b.o.Claim == "email" {
		return p, errToken // anybody's claim
	}
	expires, err := claims.GetExpirationTime()
	if err != nil {
		return p, errToken
	}
	if expires != nil {
		p.expires = expires.Time
	}
	has := scopes(claims)
	for _, want := range strings.Fields(b.o.Scope) {
		if !slices.Contains(has, want) {
			return p, errTokenScope
		}
	}
	return p, nil
}

// scopes are those of a token: a string with spaces (RFC 8693 §4.2), or a list, as scp of Microsoft and others.
func scopes(claims jwt.MapClaims) (has []string) {
	for _, claim := range []string{"scope", "scp"} {
		switch is := claims[claim].(type) {
		case string:
			has = append(has, strings.Fields(is)...)
		case []any:
			for _, one := range is {
				if s, ok := one.(string); ok {
					has = append(has, s)
				}
			}
		}
	}
	return has
}
