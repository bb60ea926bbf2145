package engine

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"mailrace/engine/config"
)

// lookAgain is how often, at most, the files of certificates are looked at.
const lookAgain = time.Second

// certificates are the pairs of [tls] in use. A handshake that comes a second or more after the last look has the files looked at; when one
// has changed, all are read again. What cannot be used is logged, and the old certificates stay. Handshakes call it on their own goroutines.
type certificates struct {
	log   *slog.Logger
	pairs []config.Certificate
	now   func() time.Time
	inUse atomic.Pointer[[]tls.Certificate]

	mu     sync.Mutex // of whoever looks; the others go on with what is in use
	looked time.Time
	stamps []stamp // of chain and key of each pair, when they were last read
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
	c.inUse.Store(&list)
	return nil
}

// look reads the files again if it is time to look and one has changed.
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
	return &list[0], nil
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
