package engine

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"

	"mailrace/engine/auth"
	"mailrace/engine/config"
	"mailrace/engine/ingress"
	"mailrace/engine/inject"
)

// UserForms judge what stands in a file of users.
func UserForms() config.UserForms {
	return config.UserForms{Name: auth.CheckName, Password: auth.CheckHash, SCRAM: auth.CheckVerifier, Sender: auth.CheckSender}
}

// CheckUsers reads the file of users that [auth] names, as a node does when it starts.
func CheckUsers(cfg *config.Config) error {
	if cfg.Auth.Users == "" {
		return nil
	}
	_, err := readUsers(cfg.Auth.Users)
	return err
}

// readUsers reads a file of users.
func readUsers(file string) ([]auth.Entry, error) {
	users, err := config.LoadUsers(file, UserForms())
	if err != nil {
		return nil, err
	}
	entries := make([]auth.Entry, len(users))
	for i, u := range users {
		entries[i] = auth.Entry(u)
	}
	return entries, nil
}

// openAuth begins to know users, if there are to be any.
func (n *Node) openAuth() (*auth.Authority, error) {
	c := &n.cfg.Auth
	if !c.Enabled() {
		return nil, nil
	}
	o := auth.Options{
		File: c.Users, Read: readUsers, Mechanisms: c.Mechanisms, Workers: cmp.Or(c.Workers, cores), Queue: c.Queue, Cache: c.Cache,
		Failures: c.Failures, FailureWindow: c.FailureWindow, Metrics: n.metrics, Log: n.log,
	}
	if c.OAuth.Enabled() {
		o.OAuth = &auth.OAuth{
			Introspection: c.OAuth.Introspection, ClientID: c.OAuth.ClientID, ClientSecret: c.OAuth.ClientSecret, JWKS: c.OAuth.JWKS,
			Issuer: c.OAuth.Issuer, Audience: c.OAuth.Audience, Claim: c.OAuth.Claim, Scope: c.OAuth.Scope, Timeout: c.OAuth.Timeout, Cache: c.Cache,
		}
	}
	a, err := auth.New(o)
	if err != nil {
		return nil, fmt.Errorf("users: %w", err)
	}
	n.auth = a
	return a, nil
}

// doorUsers says who may log in at a listener.
func (n *Node) doorUsers(users *auth.Authority, l *config.Listener, pairs *certificates) *ingress.Users {
	u := &ingress.Users{Authority: users, Required: l.Mode != config.ModeMX, Delay: n.cfg.Auth.FailureDelay}
	if pairs != nil {
		u.Endpoints = pairs.endpoints
	}
	return u
}

// injectionUser finds out who injects mail over HTTP from an address. It waits for a worker.
func (n *Node) injectionUser(ctx context.Context, name, password string, at netip.Addr) (*inject.User, error) {
	u, err := n.auth.Password(ctx, name, password, at)
	if errors.Is(err, auth.ErrCredentials) {
		return nil, inject.ErrCredentials
	}
	if err != nil {
		return nil, err
	}
	user := &inject.User{Name: u.Name, Tenant: u.Tenant, Begin: u.Begin, Spend: u.AddRecipients}
	if u.Senders != nil {
		user.MaySend = func(address []byte) bool { return u.Senders.Allow(string(address)) }
	}
	return user, nil
}

// endpoints are the channel bindings tls-server-end-point of the certificates in use: hashes of them, by the hash function of their signatures,
// or SHA-256 where that is no good any more. RFC 5929 §4.1
func (c *certificates) endpoints() (hashes [][]byte) {
	for _, pair := range *c.inUse.Load() {
		h := crypto.SHA256
		if pair.Leaf != nil {
			switch pair.Leaf.SignatureAlgorithm {
			case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
				h = crypto.SHA384
			case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS:
				h = crypto.SHA512
			}
		}
		sum := h.New()
		sum.Write(pair.Certificate[0])
		hashes = append(hashes, sum.Sum(nil))
	}
	return hashes
}
