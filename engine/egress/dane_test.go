package egress

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"math/big"
	"strings"
	"testing"
	"time"

	"mailrace/router/mx"
)

// authority issues certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// issue makes a certificate for names, of an authority if it has none.
func (a *authority) issue(t *testing.T, ends time.Time, names ...string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: names, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: ends,
		IsCA: len(names) == 0, BasicConstraintsValid: true,
	}
	template.Subject.CommonName = strings.Join(names, ",") + "of the test"
	parent, signer := template, key
	if a != nil {
		parent, signer = a.certificate, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{c, key}
}

// record is the TLSA record that means a certificate.
func record(usage, selector, matching uint8, c *x509.Certificate) mx.TLSA {
	data := c.Raw
	if selector == 1 {
		data = c.RawSubjectPublicKeyInfo
	}
	switch matching {
	case 1:
		sum := sha256.Sum256(data)
		data = sum[:]
	case 2:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return mx.TLSA{Usage: usage, Selector: selector, Matching: matching, Data: data}
}

// TestD18Records: which certificates the records of a host allow. RFC 7672 §3
func TestD18Records(t *testing.T) {
	soon, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	root := (*authority)(nil).issue(t, soon)
	middle := root.issue(t, soon)
	leaf := middle.issue(t, soon, "mx.example.net").certificate
	expired := middle.issue(t, past, "mx.example.net").certificate
	stranger := (*authority)(nil).issue(t, soon, "mx.example.net").certificate
	whole := []*x509.Certificate{leaf, middle.certificate, root.certificate}
	for name, c := range map[string]struct {
		records    []mx.TLSA
		base, host string
		shown      []*x509.Certificate
		fault      string
	}{
		"3 0 0":                                {[]mx.TLSA{record(3, 0, 0, leaf)}, "mx.example.net", "mx.example.net", whole, ""},
		"3 0 1":                                {[]mx.TLSA{record(3, 0, 1, leaf)}, "mx.example.net", "mx.example.net", whole, ""},
		"3 1 2":                                {[]mx.TLSA{record(3, 1, 2, leaf)}, "mx.example.net", "mx.example.net", whole, ""},
		"3 1 0, for another name, and expired": {[]mx.TLSA{record(3, 1, 0, expired)}, "other.example", "other.example", []*x509.Certificate{expired}, ""},
		"3, of an authority":                   {[]mx.TLSA{record(3, 1, 1, root.certificate)}, "mx.example.net", "mx.example.net", whole, "no TLSA record"},
		"3, of the key by the digest of all":   {[]mx.TLSA{{Usage: 3, Selector: 0, Matching: 1, Data: record(3, 1, 1, leaf).Data}}, "mx.example.net", "mx.example.net", whole, "no TLSA record"},
		"2 0 1, of the root":                   {[]mx.TLSA{record(2, 0, 1, root.certificate)}, "mx.example.net", "mx.example.net", whole, ""},
		"2 1 1, of the authority between":      {[]mx.TLSA{record(2, 1, 1, middle.certificate)}, "mx.example.net", "mx.example.net", whole[:2], ""},
		"2 0 0, which is not shown":            {[]mx.TLSA{record(2, 0, 0, root.certificate)}, "mx.example.net", "mx.example.net", whole[:2], ""},
		"2 0 1, which is not shown":            {[]mx.TLSA{record(2, 0, 1, root.certificate)}, "mx.example.net", "mx.example.net", whole[:2], "no TLSA record"},
		"2, for the name before the alias":     {[]mx.TLSA{record(2, 1, 1, root.certificate)}, "alias.example.org", "mx.example.net", whole, ""},
		"2, for another name":                  {[]mx.TLSA{record(2, 1, 1, root.certificate)}, "mx.example.org", "mx.example.org", whole, "valid for mx.example.net"},
		"2, for the domain of the mail":        {[]mx.TLSA{record(2, 1, 1, root.certificate)}, "mx.example.org", "mx.example.org", whole, ""},
		"3, for the domain of the mail":        {[]mx.TLSA{record(3, 1, 1, stranger)}, "mx.example.org", "mx.example.org", whole, "no TLSA record"},
		"2, expired":                           {[]mx.TLSA{record(2, 1, 1, root.certificate)}, "mx.example.net", "mx.example.net", []*x509.Certificate{expired, middle.certificate, root.certificate}, "expired"},
		"2, shown but not its issuer":          {[]mx.TLSA{record(2, 1, 1, root.certificate)}, "mx.example.net", "mx.example.net", []*x509.Certificate{stranger, root.certificate}, "unknown authority"},
		"one of several":                       {[]mx.TLSA{record(3, 1, 1, stranger), record(2, 1, 1, root.certificate)}, "mx.example.net", "mx.example.net", whole, ""},
		"none of several":                      {[]mx.TLSA{record(3, 1, 1, stranger), record(2, 0, 1, stranger)}, "mx.example.net", "mx.example.net", whole, "no TLSA record of mx.example.net"},
	} {
		t.Run(name, func(t *testing.T) {
			d := &mx.Demand{Kind: mx.DemandDANE, Base: c.base, TLSA: c.records}
			if strings.HasPrefix(name, "2, for the domain") {
				d.Names = []string{"a.example", "mx.example.net"}
			}
			err := checkDANE(d, c.host, c.shown)
			if c.fault == "" && err != nil || c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
				t.Errorf("%v, want %q", err, c.fault)
			}
		})
	}
}
