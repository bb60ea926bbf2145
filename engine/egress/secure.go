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
	"mailrace/proto/tlsrpt"
	"mailrace/router"
	"mailrace/router/mx"

	reports "mailrace/engine/tlsrpt"
)

// clearFor is how long an address whose handshake failed is spoken to in clear, where that is allowed.
const clearFor = 10 * time.Minute

// TLS is what outbound sessions share for securing connections. Any goroutine.
type TLS struct {
	Now   func() time.Time // when certificates are to be valid; nil = time.Now. Set before the first session, or on the only loop
	roots *x509.CertPool   // nil = the system's
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
	resumed         bool
	policy, verdict string     // as in router.Outcome; policy is of demand
	demand          *mx.Demand // of the domain whose mail is sent
	// judged is whether the certificate is verified; nil where nobody asked. The handshake sets it on its goroutine, and may not come to tell
	// of its end: the peer may close first.
	judged atomic.Pointer[judgement]
}

// judgement is what is wrong with the chain or the name of a certificate, or nil.
type judgement struct {
	fault   error
	resumed bool // it is the certificate of a session before
}

// greeted goes on when EHLO is answered: under TLS where the route wants that and the host can.
func (s *session) greeted() {
	if s.ourselves() {
		return
	}
	target := s.link.Target()
	switch {
	case s.tls.version != "":
		s.welcome()
	case target.TLS == router.TLSOff || s.try.inClear:
		s.unprotected()
	case s.smtp.StartTLS(): // ClientHandshake or ClientTLSRefused follows
	case target.MayBeClear():
		s.unprotected()
	default:
		s.tellFailure(tlsrpt.NoSTARTTLS, "")
		s.fail(&router.Outcome{Class: router.Deferred, Enhanced: "4.7.4", Text: demander(&target) + ", and the host does not offer STARTTLS"})
	}
}

// unprotected goes on in clear.
func (s *session) unprotected() {
	if s.tls.policy != "" {
		s.tls.verdict = verdictClear
	}
	s.welcome()
}

// fail ends a session that is not as secure as it must be.
func (s *session) fail(o *router.Outcome) {
	s.tls.verdict = verdictFailed
	s.close(router.GoneInsecure, o)
}

// Verdicts on the TLS of a session, as they stand in records.
const (
	verdictVerified  = "verified"
	verdictEncrypted = "encrypted"
	verdictClear     = "clear"
	verdictFailed    = "failed"
)

// policyOf names what is demanded of the target, as it stands in records.
func policyOf(target *router.Target) string {
	switch {
	case target.Demand != nil:
		return target.Demand.Kind.String()
	case target.TLS == router.TLSRequired:
		return "required"
	case target.TLS == router.TLSVerified:
		return "verified"
	}
	return ""
}

// demander says who demands TLS of the target.
func demander(target *router.Target) string {
	switch {
	case !target.Demand.Enforced():
		return "TLS is required on this route"
	case target.Demand.Kind == mx.DemandSTS:
		return "The MTA-STS policy of the domain demands TLS"
	}
	return "The TLSA records of the host demand TLS (DANE)"
}

// tlsRefused goes on when the host offered STARTTLS and then refused it.
func (s *session) tlsRefused() {
	s.opts.Stats.Refused.Inc()
	if target := s.link.Target(); target.MayBeClear() {
		s.unprotected()
		return
	}
	o := s.outcome()
	if !strings.HasPrefix(o.Enhanced, "4.7.") {
		o.Enhanced = "4.7.4"
	}
	s.tellFailure(tlsrpt.NoSTARTTLS, o.Reply())
	s.fail(&o)
}

// shake begins the TLS handshake. Until secured is called nothing is read or written.
func (s *session) shake() {
	s.shaking = true
	target := s.link.Target()
	s.conn.StartTLS(s.opts.TLS.config(&target, s.try.afresh, s.verify), s.secured)
}

// serverName is whose certificate is asked for. RFC 7672 §3.2.1
func serverName(target *router.Target) string {
	if target.Demand != nil && target.Demand.Base != "" {
		return target.Demand.Base
	}
	return target.Host
}

// verify judges the certificate, on the goroutine of the handshake.
func (s *session) verify(state tls.ConnectionState) error {
	target := s.link.Target()
	j := s.opts.TLS.judge(&target, &state)
	s.tls.judged.Store(j)
	if j != nil && mustVerify(&target) {
		return j.fault
	}
	return nil
}

// judge judges the certificate that the host showed; nil = nobody cares. Mail that asks for REQUIRETLS wants to know also where the route does not;
// but the names of MX hosts come from the DNS, and prove nothing, unless DANE, MTA-STS or DNSSEC vouches for them. RFC 8689 §4.2.1
func (t *TLS) judge(target *router.Target, state *tls.ConnectionState) *judgement {
	switch d := target.Demand; {
	case d != nil && d.Kind == mx.DemandDANE:
		return &judgement{checkDANE(d, target.Host, state.PeerCertificates), state.DidResume}
	case target.TLS == router.TLSVerified || target.Kind == router.Host || d != nil && d.Kind != mx.DemandEncrypted:
		return &judgement{t.checkChain(target.Host, state.PeerCertificates), state.DidResume}
	}
	return nil
}

// mustVerify says whether mail must not go there without a certificate that is verified.
func mustVerify(target *router.Target) bool {
	return target.TLS == router.TLSVerified || target.Demand.Enforced()
}

// checkChain says what is wrong with the certificates that a host showed, by those who count as authorities, or nil.
func (t *TLS) checkChain(host string, shown []*x509.Certificate) error {
	options := x509.VerifyOptions{Roots: t.roots, DNSName: host, CurrentTime: t.present(), Intermediates: x509.NewCertPool()}
	for _, c := range shown[1:] {
		options.Intermediates.AddCert(c)
	}
	_, err := shown[0].Verify(options)
	return err
}

// present is when a certificate is to be valid; zero = now.
func (t *TLS) present() (at time.Time) {
	if t.Now != nil {
		at = t.Now()
	}
	return at
}

// secured says EHLO again, under TLS. RFC 3207 §4.2
func (s *session) secured() {
	s.shaking = false
	s.opts.Stats.Handshakes.Inc()
	state, _ := s.conn.TLS()
	s.tls.resumed = state.DidResume
	s.tls.version, s.tls.cipher = tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite)
	if s.tls.verdict = verdictEncrypted; s.proved() {
		s.tls.verdict = verdictVerified
	}
	s.smtp.Secured()
	s.flush()
}

// insecure ends a session whose handshake did not come to its end, and dials again to speak in clear where the route allows that. The link does not
// notice: nothing is held against the host. So it is where the certificate of a session that was resumed does not do any more: it ended, or the
// host has another one by now.
func (s *session) insecure(err error) {
	s.opts.Stats.Failed.Inc()
	target := s.link.Target()
	var failed *loop.HandshakeError
	if errors.As(err, &failed) {
		err = failed.Err
	}
	if j := s.tls.judged.Load(); j != nil && j.fault != nil && j.resumed {
		s.gone = true
		s.conn.Close()
		s.opts.dial(s.loop, s.link, try{afresh: true})
		return
	}
	if target.MayBeClear() {
		s.gone = true
		s.conn.Close()
		s.opts.TLS.clear.add(target.Addr, s.loop.Now(), clearFor)
		s.opts.Log.Debug("TLS handshake failed, going on in clear", "host", target.Host, "peer", target.Addr, "error", err)
		s.opts.dial(s.loop, s.link, try{inClear: true, fault: err})
		return
	}
	if j := s.tls.judged.Load(); mustVerify(&target) && j != nil && j.fault != nil {
		err = j.fault
	}
	s.tellFailure(failureOf(err), reports.Reason(err))
	s.fail(&router.Outcome{Class: router.Deferred, Enhanced: "4.7.5", Text: fmt.Sprintf("%s, and the handshake failed: %v", demander(&target), err)})
}

// proved says whether the certificate was judged, and found right.
func (s *session) proved() bool {
	j := s.tls.judged.Load()
	return j != nil && j.fault == nil
}

// trustworthy ends a session with a host that mail which asks for REQUIRETLS may not go to, and says whether it goes on.
func (s *session) trustworthy() bool {
	o := s.trusted()
	if o == nil {
		return true
	}
	if s.smtp.Quit() {
		s.writePending()
	}
	s.fail(o)
	return false
}

// trusted says whether mail that asks for REQUIRETLS may go here, and if not, why. RFC 8689 §4.2.1. TLS that is missing or proves nothing may be
// the work of somebody on the way, who shall not make mail come back either: it waits for better days, until it expires.
func (s *session) trusted() *router.Outcome {
	later := router.Outcome{Class: router.Deferred, Enhanced: "4.7.10"}
	never := router.Outcome{Class: router.Bounced, Code: 550, Enhanced: "5.7.10"}
	target := s.link.Target()
	switch j := s.tls.judged.Load(); {
	case target.TLS == router.TLSOff:
		never.Text = "The message asks for REQUIRETLS, and TLS is off on this route"
		return &never
	case s.tls.version == "":
		later.Text = "The message asks for REQUIRETLS, and there is no TLS with the next host"
		return &later
	case target.Kind == router.MX && !target.Demand.Proves():
		later.Text = "The message asks for REQUIRETLS, and neither DANE nor MTA-STS nor DNSSEC proves the name of this host"
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
