package tlsrpt

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestReason: what fails in one way has one reason, whatever the ports and the time.
func TestReason(t *testing.T) {
	broken := func(port int) error {
		return &net.OpError{Op: "read", Net: "tcp", Source: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: port}, Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 25},
			Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	}
	ended := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	expired := func(now string) error {
		return x509.CertificateInvalidError{Cert: &x509.Certificate{NotAfter: ended}, Reason: x509.Expired, Detail: "current time " + now + " is after " + ended.Format(time.RFC3339)}
	}
	for _, c := range []struct {
		one, other error
		want       string
	}{
		{broken(40_001), broken(40_002), "read: read: connection reset by peer"},
		{fmt.Errorf("of the host: %w", broken(40_001)), fmt.Errorf("of the host: %w", broken(40_002)), "of the host: read: read: connection reset by peer"},
		{
			&url.Error{Op: "Get", URL: "https://mta-sts.a.example/", Err: &net.OpError{Op: "socks connect", Net: "tcp", Addr: &net.TCPAddr{Port: 1}, Err: broken(40_001)}},
			&url.Error{Op: "Get", URL: "https://mta-sts.a.example/", Err: &net.OpError{Op: "socks connect", Net: "tcp", Addr: &net.TCPAddr{Port: 2}, Err: broken(40_002)}},
			`Get "https://mta-sts.a.example/": socks connect: read: read: connection reset by peer`,
		},
		{errors.Join(broken(40_001), errors.New("gone")), errors.Join(broken(40_002), errors.New("gone")), "read: read: connection reset by peer\ngone"},
		{
			&tls.CertificateVerificationError{Err: expired("2026-11-22T12:00:00Z")}, &tls.CertificateVerificationError{Err: expired("2026-11-22T12:00:01Z")},
			"tls: failed to verify certificate: x509: certificate has expired or is not yet valid: it is valid from 0001-01-01T00:00:00Z to 2026-11-01T00:00:00Z",
		},
		{x509.CertificateInvalidError{Reason: x509.Expired}, x509.CertificateInvalidError{Reason: x509.Expired}, "x509: certificate has expired or is not yet valid: "},
		{errors.New("timed out"), errors.New("timed out"), "timed out"},
	} {
		if one, other := Reason(c.one), Reason(c.other); one != other || one != c.want {
			t.Errorf("%q and %q, want %q", one, other, c.want)
		}
	}
}
