package egress

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"

	"mailrace/router/mx"
)

// Usages of TLSA records. RFC 7218 §2.1
const (
	daneTA = 2 // an authority of the domain's own, which issued the certificate for the name of the host
	daneEE = 3 // the certificate, or its key, whatever its names and dates. RFC 7672 §3.1.1
)

// checkDANE says what is wrong with the certificates that a host showed, the first of which is its own, or nil: one of the records allows them.
// RFC 7672 §3
func checkDANE(d *mx.Demand, host string, shown []*x509.Certificate) error {
	fault := fmt.Errorf("no TLSA record of %s allows the certificate", d.Base)
	for i := range d.TLSA {
		record := &d.TLSA[i]
		switch record.Usage {
		case daneEE:
			if associated(record, shown[0]) {
				return nil
			}
		case daneTA:
			err := checkAuthority(record, d, host, shown)
			if err == nil {
				return nil
			}
			if !errors.Is(err, errNoAuthority) {
				fault = err
			}
		}
	}
	return fault
}

var errNoAuthority = errors.New("the authority is not among the certificates")

// checkAuthority verifies the chain up to the authority of a record, for the name under which the records stand, or the host as MX names it, or the
// domain of the mail. RFC 7672 §3.2.2
func checkAuthority(record *mx.TLSA, d *mx.Demand, host string, shown []*x509.Certificate) error {
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), DNSName: d.Base}
	found := false
	for i, c := range shown {
		if associated(record, c) {
			options.Roots.AddCert(c)
			found = true
		} else if i > 0 {
			options.Intermediates.AddCert(c)
		}
	}
	if record.Selector == 0 && record.Matching == 0 { // it need not be shown. RFC 7671 §5.2.2
		if c, err := x509.ParseCertificate(record.Data); err == nil {
			options.Roots.AddCert(c)
			found = true
		}
	}
	if !found {
		return errNoAuthority
	}
	_, err := shown[0].Verify(options)
	for i := -1; err != nil && i < len(d.Names); i++ {
		if options.DNSName = host; i >= 0 {
			options.DNSName = d.Names[i]
		}
		if _, other := shown[0].Verify(options); other == nil {
			return nil
		}
	}
	return err
}

// associated says whether a record means the certificate. RFC 6698 §2.1
func associated(record *mx.TLSA, c *x509.Certificate) bool {
	part := c.Raw
	if record.Selector == 1 {
		part = c.RawSubjectPublicKeyInfo
	}
	switch record.Matching {
	case 1:
		sum := sha256.Sum256(part)
		part = sum[:]
	case 2:
		sum := sha512.Sum512(part)
		part = sum[:]
	}
	return bytes.Equal(part, record.Data)
}
