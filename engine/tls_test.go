package engine

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"mailrace/engine/config"
)

// issue writes a certificate for names, signed by itself, and its key to files in dir.
func issue(t testing.TB, dir string, names ...string) config.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pair := config.Certificate{Chain: filepath.Join(dir, names[0]+".pem"), Key: filepath.Join(dir, names[0]+".key")}
	for file, block := range map[string]*pem.Block{pair.Chain: {Type: "CERTIFICATE", Bytes: der}, pair.Key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return pair
}

// secured are settings with a listener of each mode.
func secured(t *testing.T) *config.Config {
	c := settings(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToDiscard}})
	dir := t.TempDir()
	c.TLS.Certificates = []config.Certificate{issue(t, dir, "mta.test.example"), issue(t, dir, "other.test.example", "*.wild.example")}
	c.Listeners = nil
	for _, mode := range []config.Mode{config.ModeMX, config.ModeSubmission, config.ModeSubmissions} {
		c.Listeners = append(c.Listeners, config.Listener{Address: "127.0.0.1:0", Mode: mode, RelayFrom: loopback, StartTLS: true, BinaryMIME: true})
	}
	return c
}

// insecure is a client's TLS that looks at no certificate.
func insecure(name string) *tls.Config {
	return &tls.Config{ServerName: name, InsecureSkipVerify: true}
}

// dialTLS opens a session under TLS with a listener, as its mode asks, and says EHLO.
func (r *rig) dialTLS(listener int, cfg *tls.Config) (*dialog, *tls.Conn) {
	r.t.Helper()
	d := &dialog{r.t, connect(r.t, r.Addr(listener).String())}
	first := r.cfg.Listeners[listener].Mode == config.ModeSubmissions
	if !first {
		d.expect(220)
		if offer := d.say("EHLO client.example", 250); !strings.Contains(offer, "250-STARTTLS\r\n") {
			r.t.Errorf("no STARTTLS in %q", offer)
		}
		d.say("STARTTLS", 220)
	}
	c := tls.Client(d.Conn, cfg)
	if err := c.Handshake(); err != nil {
		r.t.Fatal(err)
	}
	d = &dialog{r.t, &wire{Conn: c, r: bufio.NewReader(c)}}
	if first {
		d.expect(220)
	}
	if offer := d.say("EHLO client.example", 250); strings.Contains(offer, "STARTTLS") {
		r.t.Errorf("STARTTLS under TLS: %q", offer)
	}
	return d, c
}

// TestSecureListeners sends mail through a listener of each mode.
func TestSecureListeners(t *testing.T) {
	t.Parallel()
	f := listen(t, polite)
	c := secured(t)
	c.Routes = []config.Route{f.route("*")}
	r := start(t, c)
	for listener := range c.Listeners {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			cfg := insecure("")
			cfg.MinVersion, cfg.MaxVersion = version, version
			d, conn := r.dialTLS(listener, cfg)
			id := d.mail("MAIL FROM:<s@example.com>", "Subject: x\r\n\r\nx\r\n", "r@far.example")
			cipher := tls.CipherSuiteName(conn.ConnectionState().CipherSuite)
			want := regexp.MustCompile(`^Received: from client\.example \(\[127\.0\.0\.1\]\)\r\n\tby mta\.test\.example with ESMTPS id ` + id +
				`\r\n\tfor <r@far\.example>\r\n\ttls ` + cipher + `; `)
			if got := f.next().content; !want.MatchString(got) {
				t.Errorf("%q", got)
			}
			found := false
			for _, e := range r.records("reception") {
				found = found || e.ID == id && e.TLSVersion == tls.VersionName(version) && e.TLSCipher == cipher
			}
			if !found {
				t.Errorf("no record of %s with %s, %s", id, tls.VersionName(version), cipher)
			}
			d.say("QUIT", 221)
			d.end()
		}
	}
	if n := r.stats.received.Handshakes.Get(); n != 6 {
		t.Errorf("%d handshakes counted", n)
	}
}

// TestT9OtherProtocols: a client of another protocol is turned away, by its ALPN or by its first line.
func TestT9OtherProtocols(t *testing.T) {
	t.Parallel()
	r := start(t, secured(t))
	for listener := range r.cfg.Listeners {
		cfg := insecure("")
		cfg.NextProtos = []string{"h2", "http/1.1"}
		d := &dialog{t, connect(t, r.Addr(listener).String())}
		if listener < 2 {
			d.expect(220)
			d.say("EHLO x", 250)
			d.say("STARTTLS", 220)
		}
		if err := tls.Client(d.Conn, cfg).Handshake(); err == nil || !strings.Contains(err.Error(), "no application protocol") {
			t.Errorf("listener %d: %v", listener, err)
		}
		cfg.NextProtos = []string{"h2", "smtp"}
		if _, conn := r.dialTLS(listener, cfg); conn.ConnectionState().NegotiatedProtocol != "smtp" {
			t.Errorf("listener %d: protocol %q", listener, conn.ConnectionState().NegotiatedProtocol)
		}
	}
	c := tls.Client(connect(t, r.Addr(2).String()), insecure(""))
	d := &dialog{t, &wire{Conn: c, r: bufio.NewReader(c)}}
	d.expect(220)
	d.say("GET / HTTP/1.1", 502)
	d.end()
	if n := r.stats.received.HandshakesFailed.Get(); n != 3 {
		t.Errorf("%d failed handshakes counted", n)
	}
}

// TestT10TicketOfAnotherListener: a session is resumed where it began only.
func TestT10TicketOfAnotherListener(t *testing.T) {
	t.Parallel()
	r := start(t, secured(t))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		cfg := insecure("mta.test.example")
		cfg.MinVersion, cfg.MaxVersion = version, version
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(8)
		for i, step := range []struct {
			listener int
			resumed  bool
		}{{2, false}, {2, true}, {0, false}, {0, true}, {1, false}, {2, false}} {
			d, conn := r.dialTLS(step.listener, cfg)
			if got := conn.ConnectionState().DidResume; got != step.resumed {
				t.Errorf("%s, connection %d: resumed %v", tls.VersionName(version), i, got)
			}
			d.say("QUIT", 221)
			d.end()
		}
	}
}

// TestWeakTLS: old versions and weak suites are refused, and TLS 1.2 where it is configured so.
func TestWeakTLS(t *testing.T) {
	t.Parallel()
	c := secured(t)
	r := start(t, c)
	strict := secured(t)
	strict.TLS.MinVersion = "1.3"
	s := start(t, strict)
	for name, try := range map[string]struct {
		r   *rig
		cfg *tls.Config
	}{
		"TLS 1.0":         {r, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}},
		"TLS 1.1":         {r, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}},
		"CBC":             {r, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}},
		"RC4":             {r, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA}}},
		"TLS 1.2, strict": {s, &tls.Config{MaxVersion: tls.VersionTLS12}},
	} {
		try.cfg.InsecureSkipVerify = true
		if err := tls.Client(connect(t, try.r.Addr(2).String()), try.cfg).Handshake(); err == nil {
			t.Errorf("%s: the handshake ended well", name)
		}
	}
}

// TestCertificates: each client gets the one for the name it asks for; changed files are taken into use, and bad ones are not.
func TestCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pairs := []config.Certificate{issue(t, dir, "mta.test.example"), issue(t, dir, "other.test.example", "*.wild.example")}
	cs, err := newCertificates(pairs, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	cs.now = func() time.Time { return now }
	get := func(name string) *x509.Certificate {
		t.Helper()
		server, client := net.Pipe()
		defer server.Close()
		defer client.Close()
		served := make(chan error, 1)
		go func() { served <- tls.Server(server, cs.listenerTLS(&config.TLS{MinVersion: "1.2"}, nil)).Handshake() }()
		c := tls.Client(client, insecure(name))
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		if err := receive(t, served); err != nil {
			t.Fatal(err)
		}
		return c.ConnectionState().PeerCertificates[0]
	}
	for name, want := range map[string]string{
		"": "mta.test.example", "mta.test.example": "mta.test.example", "other.test.example": "other.test.example",
		"a.wild.example": "other.test.example", "nobody.example": "mta.test.example",
	} {
		if got := get(name).Subject.CommonName; got != want {
			t.Errorf("%q gets the certificate of %q", name, got)
		}
	}
	old := get("").SerialNumber
	issue(t, dir, "mta.test.example")
	touch(t, pairs[0].Chain, now)
	if get("").SerialNumber.Cmp(old) != 0 {
		t.Error("looked again within a second")
	}
	now = now.Add(lookAgain)
	second := get("").SerialNumber
	if second.Cmp(old) == 0 {
		t.Error("the new certificate is not in use")
	}
	if err := os.WriteFile(pairs[0].Chain, []byte("half a certif"), 0o600); err != nil {
		t.Fatal(err)
	}
	touch(t, pairs[0].Chain, now.Add(time.Second))
	now = now.Add(lookAgain)
	if get("").SerialNumber.Cmp(second) != 0 {
		t.Error("the certificate in use was lost to a bad file")
	}
	if err := os.Remove(pairs[0].Key); err != nil {
		t.Fatal(err)
	}
	now = now.Add(lookAgain)
	if get("").SerialNumber.Cmp(second) != 0 {
		t.Error("the certificate in use was lost with its file")
	}
	issue(t, dir, "mta.test.example")
	now = now.Add(lookAgain)
	if get("").SerialNumber.Cmp(second) == 0 {
		t.Error("the certificate after the bad one is not in use")
	}
	if _, err := newCertificates([]config.Certificate{{Chain: pairs[0].Chain, Key: pairs[1].Key}}, cs.log); err == nil {
		t.Error("a key of another certificate was taken")
	}
}

func touch(t *testing.T, file string, at time.Time) {
	t.Helper()
	if err := os.Chtimes(file, at, at); err != nil {
		t.Fatal(err)
	}
}
