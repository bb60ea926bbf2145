package egress

import (
	"crypto/x509"
	"errors"

	"mailrace/proto/message"
	"mailrace/proto/tlsrpt"
	"mailrace/router"
	"mailrace/router/mx"

	reports "mailrace/engine/tlsrpt"
)

const (
	toldMost  = 1000 // domains of one connection that are told of it
	aheadMost = 64   // transactions that would have gone over a connection that failed, whose domains are told
)

// reported says whether domains hear of the session in TLS reports: those that are found by MX, whose mail may go under TLS.
func (s *session) reported(target *router.Target) bool {
	return s.opts.Reports != nil && target.Kind == router.MX && target.TLS != router.TLSOff
}

// tell counts the session for the domain of a transaction, for each domain once. Mail that can do without TLS does not count: reports are such mail,
// and shall not be reported. RFC 8460 §4
func (s *session) tell(tx *router.Transaction) {
	target := s.link.Target()
	if !s.reported(&target) || tx.Message.Flags&message.TLSOptional != 0 || len(s.told) == toldMost {
		return
	}
	if _, again := s.told[tx.Domain]; again {
		return
	}
	if s.told == nil {
		s.told = map[string]struct{}{}
	}
	s.told[tx.Domain] = struct{}{}
	r := s.report(&target, tx.Domain)
	j := s.tls.judged.Load()
	switch {
	case s.tls.version == "" && s.try.fault != nil:
		r.Result, r.Reason = failureOf(s.try.fault), reports.Reason(s.try.fault)
	case s.tls.version == "" && s.try.inClear:
		r.Result, r.Reason = tlsrpt.Invalid, "the TLS handshake failed before"
	case s.tls.version == "":
		r.Result = tlsrpt.NoSTARTTLS
	case target.Demand != nil && target.Demand.Kind == mx.DemandTesting && j != nil && j.fault != nil:
		r.Result, r.Reason = failureOf(j.fault), reports.Reason(j.fault)
	}
	s.opts.Reports.Session(&r)
}

// tellFailure counts a session that was not as secure as it must be, for the domains whose mail would have gone over it.
func (s *session) tellFailure(result, reason string) {
	target := s.link.Target()
	if !s.reported(&target) {
		return
	}
	told := map[string]struct{}{}
	s.link.Ahead(aheadMost, func(tx *router.Transaction) {
		if _, again := told[tx.Domain]; again || tx.Message.Flags&message.TLSOptional != 0 {
			return
		}
		told[tx.Domain] = struct{}{}
		r := s.report(&target, tx.Domain)
		r.Result, r.Reason = result, reason
		s.opts.Reports.Session(&r)
	})
}

func (s *session) report(target *router.Target, domain string) reports.Session {
	return reports.Session{Domain: domain, Demand: target.Demand, Host: target.Host, Source: s.source, Peer: target.Addr.Addr()}
}

// failureOf is the type of what went wrong with a handshake. RFC 8460 §4.3.1
func failureOf(err error) string {
	var name x509.HostnameError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &name):
		return tlsrpt.HostMismatch
	case errors.As(err, &authority):
		return tlsrpt.NotTrusted
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return tlsrpt.Expired
	}
	return tlsrpt.Invalid
}
