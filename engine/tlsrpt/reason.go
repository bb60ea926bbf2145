package tlsrpt

import (
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"time"
)

// Reason is what went wrong, in words that are the same each time that it goes wrong: without the addresses and the ports of a connection, and without
// the time of day, so that sessions which fail in one way are one row of a report. Addresses have fields of their own there. RFC 8460 §4.4
func Reason(err error) string {
	text := err.Error()
	var op *net.OpError
	for inner := err; errors.As(inner, &op); inner = op.Err {
		text = strings.ReplaceAll(text, op.Error(), op.Op+": "+op.Err.Error())
	}
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Detail != "" {
		text = strings.ReplaceAll(text, invalid.Detail, "it is valid from "+invalid.Cert.NotBefore.UTC().Format(time.RFC3339)+" to "+invalid.Cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return text
}
