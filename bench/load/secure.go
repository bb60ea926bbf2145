package load

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
)

// Ways to TLS, in Options.TLS.
const (
	STARTTLS    = "starttls" // behind EHLO. RFC 3207
	ImplicitTLS = "implicit" // from the first octet. RFC 8314 §3.3
)

// Secure says how connections are secured, and as whom the generator logs in. Its zero value is neither.
type Secure struct {
	TLS          string // STARTTLS or ImplicitTLS; "" = in clear
	TLSVersion   string // "1.2" or "1.3", and no other; "" = the best that the server has
	CA           string // PEM file: who issued the server's certificate; "" = those that the system trusts
	Insecure     bool   // take any certificate
	User         string // AUTH PLAIN before the first message; "" = none
	PasswordFile string // holds the user's password, in its first line
}

// fault is what is wrong with s, or nil.
func (s *Secure) fault() error {
	switch {
	case s.TLS != "" && s.TLS != STARTTLS && s.TLS != ImplicitTLS:
		return fmt.Errorf("tls %q: want %s or %s", s.TLS, STARTTLS, ImplicitTLS)
	case s.TLSVersion != "" && s.TLSVersion != "1.2" && s.TLSVersion != "1.3":
		return fmt.Errorf("tls version %q: want 1.2 or 1.3", s.TLSVersion)
	case s.TLS == "" && (s.TLSVersion != "" || s.CA != "" || s.Insecure):
		return fmt.Errorf("a version and certificates are of TLS: want %s or %s", STARTTLS, ImplicitTLS)
	case s.CA != "" && s.Insecure:
		return errors.New("certificates are either verified or not: want a CA or insecure")
	case (s.User == "") != (s.PasswordFile == ""):
		return errors.New("a user needs a password file, and the other way round")
	}
	return nil
}

// tlsConfig is what all connections to address share; nil in clear. Nothing is resumed: each connection costs a whole handshake, as those of
// many clients do.
func (s *Secure) tlsConfig(address string) (*tls.Config, error) {
	if s.TLS == "" {
		return nil, nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	cfg := &tls.Config{ServerName: cmp.Or(host, "localhost"), InsecureSkipVerify: s.Insecure, MinVersion: tls.VersionTLS12,
		DynamicRecordSizingDisabled: true} // bodies are bulk from their first record
	switch s.TLSVersion {
	case "1.2":
		cfg.MaxVersion = tls.VersionTLS12
	case "1.3":
		cfg.MinVersion = tls.VersionTLS13
	}
	if s.CA != "" {
		data, err := os.ReadFile(s.CA)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		if cfg.RootCAs = x509.NewCertPool(); !cfg.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("ca: %s holds no certificate in PEM form", s.CA)
		}
	}
	return cfg, nil
}

// authPlain is the command that logs in, with its line end; "" without a user. RFC 4616 §2
func (s *Secure) authPlain() (string, error) {
	if s.User == "" {
		return "", nil
	}
	data, err := os.ReadFile(s.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	password, _, _ := strings.Cut(string(data), "\n")
	password = strings.TrimSuffix(password, "\r")
	if password == "" || strings.ContainsRune(s.User+password, 0) {
		return "", fmt.Errorf("password: %s begins with an empty line, or there is a NUL", s.PasswordFile)
	}
	return "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+s.User+"\x00"+password)) + "\r\n", nil
}
