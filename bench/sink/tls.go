package sink

import (
	"crypto/tls"
	"fmt"

	"mailrace/bench/certificate"
)

// Ways to TLS, in Options.TLS.
const (
	startTLS    = "starttls"
	implicitTLS = "implicit"
)

// tlsConfig is what all sessions share; nil without TLS.
func (o *Options) tlsConfig() (*tls.Config, error) {
	if o.TLS == "" {
		return nil, nil
	}
	var pair tls.Certificate
	if o.Chain != "" {
		var err error
		if pair, err = tls.LoadX509KeyPair(o.Chain, o.Key); err != nil {
			return nil, fmt.Errorf("certificate %s: %w", o.Chain, err)
		}
	} else {
		made, err := certificate.New(o.Hostname, "localhost", "127.0.0.1", "::1")
		if err != nil {
			return nil, err
		}
		if pair, err = made.TLS(); err != nil {
			return nil, err
		}
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

// secured goes on under TLS, with nothing of what was said before.
func (x *session) secured() {
	x.shaking, x.private = false, true
	x.lane.secured.Add(1)
	x.server.Secured()
}
