package policy

import (
	"crypto/tls"
	"errors"

	"mailrace/proto/mtasts"
	"mailrace/proto/tlsrpt"
	"mailrace/router/mx"

	reports "mailrace/engine/tlsrpt"
)

// errPolicy is part of the errors of policies that cannot be read.
var errPolicy = errors.New("not a policy")

// report tells of the hosts of a domain that may not get its mail, each time that is found out. RFC 8460 §4.3
func (r *Resolver) report(a *mx.Answer, p *mtasts.Policy, found []*mx.Answer) {
	if r.opts.Reports == nil {
		return
	}
	for i := range a.Hosts {
		if _, fault := demandOf(&a.Hosts[i], p, found, i); fault != "" {
			s := reports.Session{Domain: a.Query.Name, Policy: tlsrpt.STS, Host: a.Hosts[i].Name, Result: tlsrpt.Invalid, Reason: fault}
			if found != nil && found[i].Class != mx.OK {
				s.Policy, s.Result = tlsrpt.TLSA, tlsrpt.DNSSECInvalid
			}
			r.opts.Reports.Session(&s)
		}
	}
}

// reportFetch tells of a policy that could not be fetched.
func (r *Resolver) reportFetch(domain string, err error) {
	s := reports.Session{Domain: domain, Policy: tlsrpt.STS, Result: tlsrpt.STSFetchError, Reason: reports.Reason(err)}
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certificate):
		s.Result = tlsrpt.STSWebPKIFailed
	case errors.Is(err, errPolicy):
		s.Result = tlsrpt.STSInvalid
	}
	r.opts.Reports.Session(&s)
}
