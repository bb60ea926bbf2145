package engine

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"

	"mailrace/engine/config"
)

// TestRelayCertificates: who proves a listed name with a certificate of the right issuer may relay, also in a resumed session, and nobody else.
func TestRelayCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	load := func(names ...string) (tls.Certificate, []byte) {
		pair := issue(t, dir, names...)
		c, err := tls.LoadX509KeyPair(pair.Chain, pair.Key)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(pair.Chain)
		if err != nil {
			t.Fatal(err)
		}
		return c, text
	}
	app, first := load("App.example.com")
	below, second := load("something", "a.apps.example.com")
	other, third := load("other.example.com")
	c := secured(t)
	c.TLS.ClientCA = filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(c.TLS.ClientCA, append(append(first, second...), third...), 0o600); err != nil {
		t.Fatal(err)
	}
	forged, _ := load("app.example.com") // the name is right, the issuer is not
	for i := range c.Listeners {
		c.Listeners[i].RelayFrom, c.Listeners[i].RelayCertificates = nil, []string{"app.example.com", "*.apps.example.com"}
	}
	c.Listeners = append(c.Listeners, config.Listener{Address: "127.0.0.1:0", Mode: config.ModeSubmissions})
	r := start(t, c)
	rcpt := func(d *dialog, code int) {
		t.Helper()
		d.say("MAIL FROM:<s@example.com>", 250)
		d.say("RCPT TO:<r@far.example>", code)
		d.say("QUIT", 221)
		d.end()
	}
	for listener := range 3 {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for name, holder := range map[string]struct {
				certificate tls.Certificate
				code        int
			}{"app": {app, 250}, "below": {below, 250}, "other": {other, 550}} {
				cfg := insecure("mta.test.example")
				cfg.MinVersion, cfg.MaxVersion = version, version
				cfg.Certificates = []tls.Certificate{holder.certificate}
				cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
				for _, resumed := range []bool{false, true} {
					d, conn := r.dialTLS(listener, cfg)
					if got := conn.ConnectionState().DidResume; got != resumed {
						t.Errorf("%s: resumed %v", name, got)
					}
					rcpt(d, holder.code)
				}
			}
			cfg := insecure("mta.test.example")
			cfg.MinVersion, cfg.MaxVersion = version, version
			d, _ := r.dialTLS(listener, cfg)
			rcpt(d, 550)
		}
		if listener < 2 {
			d := &dialog{t, connect(t, r.Addr(listener).String())}
			d.expect(220)
			d.say("EHLO client.example", 250)
			rcpt(d, 550)
		}
	}
	cfg := insecure("mta.test.example")
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &forged, nil }
	wire := tls.Client(connect(t, r.Addr(2).String()), cfg)
	if _, err := wire.Read(make([]byte, 1)); err == nil {
		t.Error("a certificate of another issuer was taken")
	}
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		t.Error("a listener without the policy asks for a certificate")
		return &app, nil
	}
	d, _ := r.dialTLS(3, cfg)
	rcpt(d, 550)
}
