package engine

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mailrace/engine/acme"
	"mailrace/engine/config"
)

// lookAgain is how often, at most, the files of certificates are looked at.
const lookAgain = time.Second

// certificates are the pairs of [tls] in use, and those that ACME has got. A handshake that comes a second or more after the last look has the files looked at; when one
// has changed, all are read again. What cannot be used is logged, and the old certificates stay. Handshakes call it on their own goroutines.
type certificates struct {
	log   *slog.Logger
	pairs []config.Certificate
	renew func() []tls.Certificate // what ACME has now; nil = nothing. Set before the first handshake
	now   func() time.Time
	inUse atomic.Pointer[[]tls.Certificate] // those of files first

	mu     sync.Mutex // of whoever looks; the others go on with what is in use
	looked time.Time
	stamps []stamp // of chain and key of each pair, when they were last read

	join        sync.Mutex // of what follows
	files, acme []tls.Certificate
}

// stamp tells versions of a file apart.
type stamp struct {
	modified int64 // Unix nanoseconds
	size     int64
}

func newCertificates(pairs []config.Certificate, log *slog.Logger) (*certificates, error) {
	c := &certificates{log: log, pairs: pairs, now: time.Now}
	c.looked, c.stamps = c.now(), c.stat()
	if err := c.read(); err != nil {
		return nil, err
	}
	return c, nil
}

// ready says whether there is a certificate. Once there is, there always will be.
func (c *certificates) ready() bool { return len(*c.inUse.Load()) > 0 }

// take takes certificates into use, of files or of ACME.
func (c *certificates) take(place *[]tls.Certificate, list []tls.Certificate) {
	c.join.Lock()
	defer c.join.Unlock()
	*place = list
	all := slices.Concat(c.files, c.acme)
	c.inUse.Store(&all)
}

// obtained takes into use what ACME has got.
func (c *certificates) obtained(list []tls.Certificate) { c.take(&c.acme, list) }

func (c *certificates) stat() []stamp {
	stamps := make([]stamp, 0, 2*len(c.pairs))
	for _, p := range c.pairs {
		for _, file := range []string{p.Chain, p.Key} {
			var s stamp
			if info, err := os.Stat(file); err == nil {
				s = stamp{info.ModTime().UnixNano(), info.Size()}
			}
			stamps = append(stamps, s)
		}
	}
	return stamps
}

// read takes all pairs into use, or none.
func (c *certificates) read() error {
	list := make([]tls.Certificate, len(c.pairs))
	for i, p := range c.pairs {
		pair, err := tls.LoadX509KeyPair(p.Chain, p.Key)
		if err != nil {
			return fmt.Errorf("certificate %s with key %s: %w", p.Chain, p.Key, err)
		}
		list[i] = pair
	}
	c.take(&c.files, list)
	return nil
}

// look reads the files again if it is time to look and one has changed, and asks ACME for what it has now.
func (c *certificates) look() {
	if !c.mu.TryLock() {
		return
	}
	defer c.mu.Unlock()
	now := c.now()
	if now.Sub(c.looked) < lookAgain {
		return
	}
	c.looked = now
	if c.renew != nil {
		c.obtained(c.renew())
	}
	stamps := c.stat()
	for i := range stamps {
		if stamps[i] == c.stamps[i] {
			continue
		}
		c.stamps = stamps
		if err := c.read(); err != nil {
			c.log.Error("keeping the certificates in use: the new ones are no good", "error", err)
		} else {
			c.log.Info("certificates have changed and were read again")
		}
		return
	}
}

// get finds the certificate for a handshake: the first that fits what the client asks for and can do, or else the first of all.
func (c *certificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.look()
	list := *c.inUse.Load()
	for i := range list {
		if hello.SupportsCertificate(&list[i]) == nil {
			return &list[i], nil
		}
	}
	if len(list) == 0 {
		return nil, errNoCertificate
	}
	return &list[0], nil
}

// errNoCertificate ends the handshakes that come before ACME has got its first certificate, where TLS is from the start.
var errNoCertificate = errors.New("there is no certificate yet")

// earliest is when the first of the certificates in use ends, in Unix seconds; 0 without any.
func (c *certificates) earliest() (end int64) {
	for _, cert := range *c.inUse.Load() {
		if at := cert.Leaf.NotAfter.Unix(); end == 0 || at < end {
			end = at
		}
	}
	return end
}

// openCertificates reads the files of [tls], and begins to get what [tls.acme] asks for; nil where TLS is not configured.
func (n *Node) openCertificates() (*certificates, error) {
	c := &n.cfg.TLS
	if !c.Secure() {
		return nil, nil
	}
	pairs, err := newCertificates(c.Certificates, n.log)
	if err != nil {
		return nil, err
	}
	if a := &c.ACME; len(a.Domains) > 0 {
		roots, err := a.DirectoryRoots()
		if err != nil {
			return nil, fmt.Errorf("acme: %w", err)
		}
		if n.acme, err = acme.Start(acme.Options{
			Domains: a.Domains, Email: a.Email, Directory: a.Directory, Roots: roots, Storage: a.Storage, HTTP: a.HTTP, TLSALPN: a.TLSALPN,
			KeyID: a.EABKeyID, MACKey: a.EABKey, Changed: pairs.obtained, Stats: acme.NewStats(n.metrics), Log: n.log,
		}); err != nil {
			return nil, err
		}
		pairs.renew = n.acme.Certificates
	}
	n.metrics.NewGauge("mailrace_tls_certificate_expiry_timestamp_seconds", func() float64 {
		pairs.look()
		return float64(pairs.earliest())
	})
	return pairs, nil
}

// suites are those of TLS 1.2 that are offered: with forward secrecy, and none with CBC. RFC 9325 §4.2
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// listenerTLS is the TLS of one listener. Each has its own, so that it has session ticket keys of its own, which crypto/tls makes and
// changes daily: a ticket of one listener is worth nothing at another.
// With clients, client certificates are asked for, and those that nobody of them issued are refused.
func (c *certificates) listenerTLS(o *config.TLS, clients *x509.CertPool) *tls.Config {
	t := &tls.Config{
		GetCertificate: c.get, MinVersion: tls.VersionTLS12, CipherSuites: suites,
		NextProtos:                  []string{"smtp"}, // no other protocol can be led here: ALPACA
		DynamicRecordSizingDisabled: true,             // replies fit into one record anyhow
	}
	if clients != nil {
		t.ClientAuth, t.ClientCAs = tls.VerifyClientCertIfGiven, clients
	}
	if o.MinVersion == "1.3" {
		t.MinVersion = tls.VersionTLS13
	}
	return t
}
