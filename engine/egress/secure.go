package egress

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"mailrace/engine/loop"
	"mailrace/proto/smtp"
	"mailrace/router"
)

const (
	// clearFor is how long an address whose handshake failed is spoken to in clear, where that is allowed.
	clearFor = 10 * time.Minute
	// tickets is how many sessions are kept to be resumed, one for each host name.
	tickets = 4096
)

// TLS is what outbound sessions share for securing connections. Any goroutine.
type TLS struct {
	roots *x509.CertPool // nil = the system's
	cache tls.ClientSessionCache
	clear addresses // whose handshake failed not long ago
}

// NewTLS returns the TLS of outbound sessions. roots are those whose certificates count as verified; nil = the system's.
func NewTLS(roots *x509.CertPool) *TLS {
	return &TLS{roots: roots, cache: tls.NewLRUClientSessionCache(tickets)}
}

// security is the TLS of a session; its fields are empty without.
type security struct {
	version, cipher string
	// judged is whether the certificate is verified; nil where nobody asked. The handshake sets it on its goroutine, and may not come to tell
	// of its end: the peer may close first.
	judged atomic.Pointer[judgement]
}

// judgement is what is wrong with the chain or the name of a certificate, or nil.
type judgement struct{ fault error }

// greeted goes on when EHLO is answered: under TLS where the route wants that and the host can.
func (s *session) greeted() {
	if s.ourselves() {
		return
	}
	policy := s.link.Target().TLS
	switch {
	case s.tls.version != "" || policy == router.TLSOff || s.inClear:
		s.welcome()
	case s.smtp.StartTLS(): // ClientHandshake or ClientTLSRefused follows
	case policy == router.TLSOpportunistic:
		s.welcome()
	default:
		s.close(router.GoneInsecure, &router.Outcome{Class: router.Deferred, Enhanced: "4.7.4", Text: "TLS is required on this route, and the host does not offer STARTTLS"})
	}
}

// tlsRefused goes on when the host offered STARTTLS and then refused it.
func (s *session) tlsRefused() {
	s.opts.Stats.Refused.Inc()
	if s.link.Target().TLS == router.TLSOpportunistic {
		s.welcome()
		return
	}
	o := s.outcome()
	if !strings.HasPrefix(o.Enhanced, "4.7.") {
		o.Enhanced = "4.7.4"
	}
	s.close(router.GoneInsecure, o)
}

// shake begins the TLS handshake. Until secured is called nothing is read or written.
func (s *session) shake() {
	s.shaking = true
	target := s.link.Target()
	s.conn.StartTLS(&tls.Config{
		ServerName: target.Host, MinVersion: tls.VersionTLS12, ClientSessionCache: s.opts.TLS.cache,
		InsecureSkipVerify: true, VerifyConnection: s.verify, // where the route says so, also of sessions that are resumed
		DynamicRecordSizingDisabled: true,
	}, s.secured)
}

// verify judges the certificate, on the goroutine of the handshake. Mail that asks for REQUIRETLS wants to know also where the route does not
// care; but the names of MX hosts come from the DNS, and prove nothing. RFC 8689 §4.2.1
func (s *session) verify(state tls.ConnectionState) error {
	target := s.link.Target()
	if target.TLS != router.TLSVerified && target.Kind != router.Host {
		return nil
	}
	options := x509.VerifyOptions{Roots: s.opts.TLS.roots, DNSName: target.Host, Intermediates: x509.NewCertPool()}
	for _, c := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(c)
	}
	_, fault := state.PeerCertificates[0].Verify(options)
	s.tls.judged.Store(&judgement{fault})
	if target.TLS == router.TLSVerified {
		return fault
	}
	return nil
}

// secured says EHLO again, under TLS. RFC 3207 §4.2
func (s *session) secured() {
	s.shaking = false
	s.opts.Stats.Handshakes.Inc()
	state, _ := s.conn.TLS()
	s.tls.version, s.tls.cipher = tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite)
	s.smtp.Secured()
	s.flush()
}

// insecure ends a session whose handshake did not come to its end, and dials again to speak in clear where the route allows that. The link does not
// notice: nothing is held against the host.
func (s *session) insecure(err error) {
	s.opts.Stats.Failed.Inc()
	target := s.link.Target()
	if target.TLS == router.TLSOpportunistic {
		s.gone = true
		s.conn.Close()
		s.opts.TLS.clear.add(target.Addr, s.loop.Now(), clearFor)
		s.opts.Log.Debug("TLS handshake failed, going on in clear", "host", target.Host, "peer", target.Addr, "error", err)
		s.opts.dial(s.loop, s.link, true)
		return
	}
	var failed *loop.HandshakeError
	if j := s.tls.judged.Load(); target.TLS == router.TLSVerified && j != nil && j.fault != nil {
		err = j.fault
	} else if errors.As(err, &failed) {
		err = failed.Err
	}
	s.close(router.GoneInsecure, &router.Outcome{Class: router.Deferred, Enhanced: "4.7.5", Text: fmt.Sprintf("TLS is required on this route, and the handshake failed: %v", err)})
}

// trusted says whether mail that asks for REQUIRETLS may go here, and if not, why. RFC 8689 §4.2.1. TLS that is missing or proves nothing may be
// the work of somebody on the way, who shall not make mail come back either: it waits for better days, until it expires.
func (s *session) trusted() *router.Outcome {
	later := router.Outcome{Class: router.Deferred, Enhanced: "4.7.10"}
	never := router.Outcome{Class: router.Bounced, Code: 550, Enhanced: "5.7.10"}
	switch j := s.tls.judged.Load(); {
	case s.link.Target().TLS == router.TLSOff:
		never.Text = "The message asks for REQUIRETLS, and TLS is off on this route"
		return &never
	case s.tls.version == "":
		later.Text = "The message asks for REQUIRETLS, and there is no TLS with the next host"
		return &later
	case j == nil:
		never.Text = "The message asks for REQUIRETLS, and nothing proves the name of the next host"
		return &never
	case j.fault != nil:
		later.Text = "The message asks for REQUIRETLS, and the certificate of the next host is not verified: " + j.fault.Error()
		return &later
	case !s.smtp.Extensions().Has(smtp.ExtRequireTLS):
		never.Enhanced, never.Text = "5.7.30", "The message asks for REQUIRETLS, which the next host does not offer"
		return &never
	}
	return nil
}
