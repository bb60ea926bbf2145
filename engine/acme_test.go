package engine

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"

	"mailrace/engine/acme"
	"mailrace/engine/config"
)

// authority is Let's Encrypt's test server. It finds every name at 127.0.0.1, and asks there at ports of its own.
type authority struct {
	directory string
	pem       string         // file of who issued its own certificate
	own       *x509.CertPool // the same
	roots     *x509.CertPool // who issues what it gives out
	http, tls string         // addresses that it asks at
	db        *db.MemoryStore
	open      chan struct{} // requests wait until it is closed
}

// startAuthority runs one whose certificates are good for so many seconds. Keys are those of external accounts, which it then demands.
func startAuthority(t *testing.T, seconds uint64, keys map[string]string) *authority {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	a := &authority{db: db.NewMemoryStore(), open: make(chan struct{}), http: freePort(t), tls: freePort(t)}
	quiet := log.New(t.Output(), "pebble ", 0)
	names, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	resolver := &dns.Server{Listener: names, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1)}}
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = resolver.ActivateAndServe() }()
	t.Cleanup(func() { _ = resolver.Shutdown() })
	port := func(address string) int {
		at, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		return at.Port
	}
	issuer := ca.New(quiet, a.db, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {ValidityPeriod: seconds}})
	verifier := va.New(quiet, port(a.http), port(a.tls), true, names.Addr().String(), a.db)
	for id, key := range keys {
		if err := a.db.AddExternalAccountKeyByID(id, key); err != nil {
			t.Fatal(err)
		}
	}
	front := wfe.New(quiet, a.db, verifier, issuer, []string{"pebble.example"}, true, len(keys) > 0, 0, 0)
	handler := front.Handler()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-a.open:
			handler.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	a.directory = server.URL + wfe.DirectoryPath
	a.own, a.roots = x509.NewCertPool(), x509.NewCertPool()
	a.own.AddCert(server.Certificate())
	a.roots.AppendCertsFromPEM(issuer.GetRootCert(0).PEM())
	a.pem = filepath.Join(t.TempDir(), "directory.pem")
	if err := os.WriteFile(a.pem, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

// freePort is an address on loopback that nobody listens on now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// settings are those of a node that gets its certificates from the authority.
func (a *authority) settings(t *testing.T, domains ...string) *config.Config {
	c := secured(t)
	c.TLS.Certificates = nil
	c.TLS.ACME = config.ACME{Domains: domains, Directory: a.directory, DirectoryCA: a.pem, Storage: filepath.Join(t.TempDir(), "acme"), HTTP: a.http, Agree: true}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return c
}

// verified is a client's TLS that trusts the authority alone.
func (a *authority) verified(name string) *tls.Config {
	return &tls.Config{ServerName: name, RootCAs: a.roots}
}

// TestACME: a node takes mail while it has no certificate, and offers TLS once it has. The next start finds the certificates in the storage, which
// nobody else can read.
func TestACME(t *testing.T) {
	a := startAuthority(t, 90*24*3600, nil)
	c := a.settings(t, "mta.test.example", "other.test.example")
	file := issue(t, t.TempDir(), "file.test.example")
	r := start(t, c)
	d := r.dial()
	if offer := d.say("EHLO client.example", 250); strings.Contains(offer, "STARTTLS") {
		t.Errorf("STARTTLS without a certificate: %q", offer)
	}
	d.say("STARTTLS", 502)
	d.mail("MAIL FROM:<s@example.com>", hello, "r@far.example")
	if err := tls.Client(connect(t, r.Addr(2).String()), insecure("")).Handshake(); err == nil {
		t.Error("a handshake without a certificate ended well")
	}
	close(a.open)
	r.await("both certificates", func() bool { return len(r.acme.Certificates()) == 2 })
	for listener := range c.Listeners {
		for _, name := range c.TLS.ACME.Domains {
			d, conn := r.dialTLS(listener, a.verified(name))
			if got := conn.ConnectionState().PeerCertificates[0].DNSNames; len(got) != 1 || got[0] != name {
				t.Errorf("%q gets the certificate of %q", name, got)
			}
			d.say("QUIT", 221)
		}
	}
	r.stop()
	_ = filepath.WalkDir(c.TLS.ACME.Storage, func(path string, e fs.DirEntry, _ error) error {
		info, err := e.Info()
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
		return nil
	})

	again := secured(t)
	again.TLS.Certificates, again.TLS.ACME = []config.Certificate{file}, c.TLS.ACME
	r = start(t, again)
	r.await("the certificates in the storage", func() bool { return len(r.acme.Certificates()) == 2 })
	for name, want := range map[string]string{"": "file.test.example", "file.test.example": "file.test.example", "other.test.example": "other.test.example",
		"nobody.example": "file.test.example"} {
		_, conn := r.dialTLS(0, insecure(name))
		if got := conn.ConnectionState().PeerCertificates[0].DNSNames; got[0] != want {
			t.Errorf("%q gets the certificate of %q, want %q", name, got, want)
		}
	}
}

// manage starts a manager for one name.
func (a *authority) manage(t *testing.T, o acme.Options) *acme.Manager {
	t.Helper()
	// certmagic remembers for the life of the process which names it could not renew.
	o.Domains = []string{fmt.Sprintf("mta%d.test.example", time.Now().UnixNano())}
	o.Directory, o.Roots, o.Storage = a.directory, a.own, filepath.Join(t.TempDir(), "acme")
	o.Changed = func([]tls.Certificate) {}
	o.Log, o.RetryMin, o.RetryMax = slog.New(slog.NewTextHandler(t.Output(), nil)), 50*time.Millisecond, time.Second
	if o.Stats == nil {
		o.Stats = acme.NewStats(metrics.NewSet())
	}
	m, err := acme.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// awaitSerial waits for a certificate other than the last.
func awaitSerial(t *testing.T, m *acme.Manager, last string) string {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if all := m.Certificates(); len(all) == 1 && all[0].Leaf.SerialNumber.String() != last {
			return all[0].Leaf.SerialNumber.String()
		}
	}
	t.Fatal("no other certificate came")
	return ""
}

// TestACMERenewal: a certificate that is good for a minute is renewed well before, again and again.
func TestACMERenewal(t *testing.T) {
	a := startAuthority(t, 60, nil)
	close(a.open)
	o := acme.Options{TLSALPN: a.tls, Look: 50 * time.Millisecond, RenewalPart: 0.99, NoARI: true}
	m := a.manage(t, o)
	serial := awaitSerial(t, m, "")
	for range 2 {
		serial = awaitSerial(t, m, serial)
	}
}

// TestACMEAccount: an external account is bound, where one is demanded.
func TestACMEAccount(t *testing.T) {
	key := base64.RawURLEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	a := startAuthority(t, 3600, map[string]string{"our id": key})
	close(a.open)
	awaitSerial(t, a.manage(t, acme.Options{HTTP: a.http, TLSALPN: a.tls, KeyID: "our id", MACKey: key}), "")
}

// TestACMETriesAgain until it gets a certificate: at first somebody else answers the authority's questions, and wrongly.
func TestACMETriesAgain(t *testing.T) {
	a := startAuthority(t, 3600, nil)
	l, err := net.Listen("tcp", a.http)
	if err != nil {
		t.Fatal(err)
	}
	other := &http.Server{Handler: http.NotFoundHandler()}
	go func() { _ = other.Serve(l) }()
	close(a.open)
	stats := acme.NewStats(metrics.NewSet())
	m := a.manage(t, acme.Options{HTTP: a.http, Stats: stats})
	for end := time.Now().Add(patience); stats.Failed.Get() == 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if m.Certificates() != nil {
			t.Fatal("a certificate was obtained by somebody else's answer")
		}
	}
	_ = other.Close()
	awaitSerial(t, m, "")
	if failed, obtained := stats.Failed.Get(), stats.Obtained.Get(); failed == 0 || obtained != 1 {
		t.Errorf("%d attempts failed, %d certificates were obtained", failed, obtained)
	}
}
