// Package acme gets certificates from an ACME server (RFC 8555), such as Let's Encrypt's, keeps them in a directory, and renews them. The protocol
// and the renewals are certmagic's; here is when it is asked, and what becomes of the answers.
//
// The server makes sure that we are who we say by asking us under the name: by HTTP on port 80 (http-01), or in a TLS handshake on port 443
// (tls-alpn-01, RFC 8737). The listeners for it are open while it asks, and at no other time.
package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// Options say which certificates are wanted, and from whom. The zero value of each field means the default that its comment names.
type Options struct {
	Domains   []string       // lower-case names, each of which gets a certificate of its own; at least one
	Email     string         // where the server's operators reach ours; "" = nowhere
	Directory string         // URL of the server; default Let's Encrypt's
	Roots     *x509.CertPool // who issued the server's own certificate; default those that the system trusts
	Storage   string         // directory of accounts, keys and certificates: made when missing, for this user alone
	HTTP      string         // host:port that http-01 is answered at; "" = it is not
	TLSALPN   string         // host:port that tls-alpn-01 is answered at; "" = it is not. The host must be that of HTTP, if both are given
	KeyID     string         // external account binding, with MACKey: RFC 8555 §7.3.4
	MACKey    string

	// Changed gets the certificates whenever a domain has its first one. It is called on goroutines of the Manager. Renewed ones are found in
	// Certificates.
	Changed func([]tls.Certificate)
	Stats   *Stats
	Log     *slog.Logger // default slog.Default()

	// What follows is for tests.
	RetryMin    time.Duration // between two attempts to get a first certificate, doubling up to RetryMax; default 5 min
	RetryMax    time.Duration // default 12 h
	Look        time.Duration // how often is looked whether a certificate is to be renewed; default 10 min
	RenewalPart float64       // of its lifetime that is left of a certificate that is renewed; default a third
	NoARI       bool          // the server is not asked when it would like renewals: RFC 9773
}

const (
	retryMin = 5 * time.Minute
	retryMax = 12 * time.Hour
)

// Stats are the figures of a Manager.
type Stats struct{ Obtained, Failed *metrics.Counter }

// NewStats registers the figures in a set.
func NewStats(set *metrics.Set) *Stats {
	return &Stats{
		Obtained: set.NewCounter(`mailrace_acme_attempts_total{result="ok"}`),
		Failed:   set.NewCounter(`mailrace_acme_attempts_total{result="failed"}`),
	}
}

// Manager gets and renews certificates until it is closed. Its methods may be called by any goroutine.
type Manager struct {
	opts   Options
	log    *slog.Logger
	first  *certmagic.Config // for the first certificate of each domain
	config *certmagic.Config // for renewals: certmagic tells the server what is replaced only with an issuer that is not wrapped
	cache  *certmagic.Cache
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

// Start begins to get the certificates. Those in the storage are in use at once, and others as soon as they are obtained.
func Start(o Options) (*Manager, error) {
	m := &Manager{opts: o, log: o.Log}
	if m.log == nil {
		m.log = slog.Default()
	}
	if m.opts.RetryMin == 0 {
		m.opts.RetryMin, m.opts.RetryMax = retryMin, retryMax
	}
	issuer := certmagic.ACMEIssuer{
		CA: o.Directory, Email: o.Email, Agreed: true, TrustedRoots: o.Roots, Logger: zap.NewNop(),
		DisableHTTPChallenge: o.HTTP == "", DisableTLSALPNChallenge: o.TLSALPN == "", DisableDistributedSolvers: true,
	}
	for _, l := range []struct {
		address string
		port    *int
	}{{o.HTTP, &issuer.AltHTTPPort}, {o.TLSALPN, &issuer.AltTLSALPNPort}} {
		if l.address == "" {
			continue
		}
		host, port, err := net.SplitHostPort(l.address)
		if err != nil {
			return nil, fmt.Errorf("acme: %w", err)
		}
		if *l.port, err = strconv.Atoi(port); err != nil {
			return nil, fmt.Errorf("acme: port of %q: %w", l.address, err)
		}
		issuer.ListenHost = host
	}
	if o.KeyID != "" {
		issuer.ExternalAccount = &acme.EAB{KeyID: o.KeyID, MACKey: o.MACKey}
	}
	m.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return m.config, nil }, RenewCheckInterval: o.Look, Logger: zap.NewNop(),
	})
	config := certmagic.Config{
		Storage: &certmagic.FileStorage{Path: o.Storage}, RenewalWindowRatio: o.RenewalPart, DisableARI: o.NoARI, OnEvent: m.event, Logger: zap.NewNop(),
		OCSP: certmagic.OCSPConfig{DisableStapling: true}, // mail clients do not ask for it
	}
	m.first, m.config = certmagic.New(m.cache, config), certmagic.New(m.cache, config)
	m.first.Issuers = []certmagic.Issuer{unattended{certmagic.NewACMEIssuer(m.first, issuer)}}
	m.config.Issuers = []certmagic.Issuer{certmagic.NewACMEIssuer(m.config, issuer)}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	for _, domain := range o.Domains {
		m.wait.Go(func() { m.get(ctx, domain) })
	}
	return m, nil
}

// unattended is an issuer that takes the address of the configuration, or none. certmagic would ask for one on standard input, or take the name of the
// folder in which it keeps the account without an address for one.
type unattended struct{ *certmagic.ACMEIssuer }

// PreCheck is called before each attempt.
func (unattended) PreCheck(context.Context, []string, bool) error { return nil }

// get gets the certificate of a domain, from the storage or, however long that takes, from the server. Renewals in time are certmagic's.
func (m *Manager) get(ctx context.Context, domain string) {
	for delay := m.opts.RetryMin; ; delay = min(2*delay, m.opts.RetryMax) {
		err := m.load(ctx, domain)
		if err == nil || ctx.Err() != nil {
			return
		}
		m.log.Warn("there is no certificate yet", "domain", domain, "again_in", delay, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
	}
}

// load takes the certificate in the storage into use, and gets one first if there is none, or only one that has expired.
func (m *Manager) load(ctx context.Context, domain string) error {
	stored, err := m.first.CacheManagedCertificate(ctx, domain)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = m.first.ObtainCertSync(ctx, domain)
	case err == nil && stored.Expired():
		err = m.first.RenewCertSync(ctx, domain, false)
	case err == nil:
		m.opts.Changed(m.Certificates())
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := m.first.CacheManagedCertificate(ctx, domain); err != nil {
		return err
	}
	m.opts.Changed(m.Certificates())
	return nil
}

// event takes notice of what certmagic tells about certificates.
func (m *Manager) event(_ context.Context, name string, data map[string]any) error {
	switch name {
	case "cert_obtained":
		m.opts.Stats.Obtained.Inc()
		m.log.Info("certificate obtained", "domain", data["identifier"], "renewal", data["renewal"])
	case "cert_failed":
		m.opts.Stats.Failed.Inc()
		m.log.Error("certificate not obtained", "domain", data["identifier"], "renewal", data["renewal"], "error", data["error"])
	}
	return nil
}

// Certificates are the newest ones for each domain that has one, in the order of the domains. They must not be changed.
func (m *Manager) Certificates() []tls.Certificate {
	var all []tls.Certificate
	for _, domain := range m.opts.Domains {
		if c := m.certificate(domain); c != nil {
			all = append(all, *c)
		}
	}
	return all
}

// certificate is the newest one for a domain, or nil.
func (m *Manager) certificate(domain string) (newest *tls.Certificate) {
	for _, c := range m.cache.AllMatchingCertificates(domain) {
		if newest == nil || c.Leaf.NotAfter.After(newest.Leaf.NotAfter) {
			newest = &c.Certificate
		}
	}
	return newest
}

// Close ends what is under way, and the renewals.
func (m *Manager) Close() {
	m.cancel()
	m.wait.Wait()
	m.cache.Stop()
}
