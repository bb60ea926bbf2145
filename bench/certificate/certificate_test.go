package certificate_test

import (
	"crypto/x509"
	"os"
	"testing"

	"mailrace/bench/certificate"
)

// TestServesItsNames: who trusts the file of the chain takes the certificate for each of its names, and for no other.
func TestServesItsNames(t *testing.T) {
	pair, err := certificate.New("localhost", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	chain, key, err := pair.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{chain, key} {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	authority, err := os.ReadFile(chain)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	own, err := pair.TLS()
	if err != nil {
		t.Fatal(err)
	}
	for name, ok := range map[string]bool{"localhost": true, "127.0.0.1": true, "127.0.0.2": false, "other.example": false} {
		if _, err := own.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
