package policy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mailrace/engine/keep"
	"mailrace/engine/keep/keeptest"
	"mailrace/proto/mtasts"
	"mailrace/router/mx"
)

// fake is a DNS of answers that a test sets.
type fake struct {
	mu sync.Mutex
	of map[mx.Query]*mx.Answer
}

func (f *fake) set(q mx.Query, a mx.Answer) *mx.Answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	a.Query = q
	f.of[q] = &a
	return &a
}

func (f *fake) Cached(q mx.Query) (*mx.Answer, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, ok := f.of[q]
	return a, ok
}

func (f *fake) Find(_ context.Context, q mx.Query) (*mx.Answer, error) {
	if a, ok := f.Cached(q); ok {
		return a, nil
	}
	return &mx.Answer{Query: q, Expires: time.Unix(1<<40, 0)}, nil
}

func (f *fake) Lookup(q mx.Query, done func(*mx.Answer)) bool {
	a, _ := f.Find(context.Background(), q)
	done(a)
	return true
}

func (f *fake) Allowed(netip.Addr) bool { return true }

// clock is what the time is.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// rig is a resolver with a DNS, a clock, and a web server that says what a test sets.
type rig struct {
	*Resolver
	dns   *fake
	clock *clock
	file  string

	mu    sync.Mutex
	page  func(w http.ResponseWriter)
	asked int
}

func newRig(t *testing.T) *rig {
	t.Helper()
	g := &rig{dns: &fake{of: map[mx.Query]*mx.Answer{}}, clock: &clock{now: time.Unix(1_800_000_000, 0)}, file: filepath.Join(t.TempDir(), "policies.json")}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		g.mu.Lock()
		g.asked++
		page := g.page
		g.mu.Unlock()
		page(w)
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	certificate, roots := certify(t, "mta-sts.a.example")
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.StartTLS()
	t.Cleanup(server.Close)
	at := netip.MustParseAddrPort(server.Listener.Addr().String())
	for _, name := range []string{"mta-sts.a.example", "mta-sts.b.example"} {
		g.dns.set(mx.Query{Kind: mx.Addresses, Name: name}, mx.Answer{Hosts: []mx.Host{{Name: name, Addrs: []netip.Addr{at.Addr()}}}})
	}
	g.dns.set(mx.Query{Kind: mx.Exchangers, Name: "a.example"}, mx.Answer{Key: "mx.a.example", Hosts: []mx.Host{{Name: "mx.a.example"}}, Expires: time.Unix(1<<40, 0)})
	g.open(Options{DNS: g.dns, STS: true, DANE: true, File: g.file, Roots: roots, Port: at.Port(), Now: g.clock.Now, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() { g.Close() })
	return g
}

func (g *rig) open(o Options) { g.Resolver = New(o) }

// restart is the end of the resolver, and another one with the same file.
func (g *rig) restart() {
	g.Close()
	g.open(g.opts)
}

// text sets the id in DNS and what the web server says.
func (g *rig) text(id, policy string) {
	g.dns.set(mx.TextsOf("_mta-sts.a.example"), mx.Answer{Records: &mx.Records{Texts: []string{"v=STSv1; id=" + id}}, Expires: g.clock.Now().Add(time.Minute)})
	g.serve(func(w http.ResponseWriter) { _, _ = io.WriteString(w, policy) })
}

func (g *rig) serve(page func(w http.ResponseWriter)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.page = page
}

func (g *rig) fetches() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.asked
}

// find waits for the answer for a.example, and returns the key of the site or the text of the verdict.
func (g *rig) find(t *testing.T) string {
	t.Helper()
	found := make(chan *mx.Answer, 1)
	if !g.Lookup(mx.Query{Kind: mx.Exchangers, Name: "a.example"}, func(a *mx.Answer) { found <- a }) {
		t.Fatal("busy")
	}
	a := <-found
	if a.Class == mx.OK {
		return a.Key
	}
	return a.Text
}

func certify(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

const (
	enforceA = "version: STSv1\nmode: enforce\nmx: mx.a.example\nmax_age: 100000\n"
	enforceB = "version: STSv1\nmode: enforce\nmx: mx.b.example\nmax_age: 100000\n"
)

// TestPolicyChanges: a new id brings a new policy; without any, and without a web server, the known one holds until its end, also after a restart.
func TestPolicyChanges(t *testing.T) {
	g := newRig(t)
	step := func(what, want string, fetches int) {
		t.Helper()
		if got := g.find(t); !strings.Contains(got, want) || g.fetches() != fetches {
			t.Errorf("%s: %q after %d fetches, want %q after %d", what, got, g.fetches(), want, fetches)
		}
	}
	g.text("1", enforceA)
	step("first", "mx.a.example/sts", 1)
	step("again", "mx.a.example/sts", 1)
	g.clock.pass(2 * time.Minute)
	g.text("2", enforceB)
	step("a new id", "does not name its mail exchanger mx.a.example", 2)
	g.clock.pass(2 * time.Minute)
	g.text("3", enforceA)
	step("another one", "mx.a.example/sts", 3)
	g.clock.pass(2 * time.Minute)
	g.text("4", "no policy")
	step("one that is none", "mx.a.example/sts", 4)
	g.clock.pass(2 * time.Minute)
	step("it is not fetched again so soon", "mx.a.example/sts", 4)
	g.dns.set(mx.TextsOf("_mta-sts.a.example"), mx.Answer{Expires: g.clock.Now()})
	g.restart()
	step("after a restart", "mx.a.example/sts", 4)
	g.dns.set(mx.TextsOf("_mta-sts.a.example"), mx.Answer{Class: mx.Temporary, Expires: g.clock.Now()})
	step("no verdict of DNS", "mx.a.example/sts", 4)
	g.clock.pass(100_000 * time.Second)
	step("its time is over", "mx.a.example", 4)
	if got := g.find(t); got != "mx.a.example" {
		t.Errorf("its time is over: %q", got)
	}
}

// TestRefresh: a policy is fetched again before its end, unless it has not been used for long.
func TestRefresh(t *testing.T) {
	g := newRig(t)
	g.text("1", strings.Replace(enforceA, "100000", "31557600", 1))
	g.find(t)
	g.sts.refreshAged()
	if n := g.fetches(); n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
	g.clock.pass(25 * time.Hour)
	g.sts.refreshAged()
	if n := g.fetches(); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
	// The sweep does not count as use.
	for range 31 {
		g.clock.pass(25 * time.Hour)
		g.sts.refreshAged()
	}
	if n := g.fetches(); n < 20 || n > 32 {
		t.Errorf("%d fetches", n)
	}
	g.clock.pass(365 * 24 * time.Hour)
	g.sts.refreshAged()
	if n := g.sts.cache.len(); n != 0 {
		t.Errorf("%d policies are remembered beyond their time", n)
	}
}

// TestD17Fetch: what a web server says that is no policy, or not in the right way.
func TestD17Fetch(t *testing.T) {
	good := func(w http.ResponseWriter) { _, _ = io.WriteString(w, enforceA) }
	for name, c := range map[string]struct {
		domain string
		page   func(w http.ResponseWriter)
		fault  string
	}{
		"good":             {"a.example", good, ""},
		"for another name": {"b.example", good, "certificate"},
		"a redirect":       {"a.example", func(w http.ResponseWriter) { w.Header().Set("Location", "/"); w.WriteHeader(302) }, "status 302"},
		"not found":        {"a.example", func(w http.ResponseWriter) { w.WriteHeader(404) }, "status 404"},
		"HTML": {"a.example", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, enforceA)
		}, "not text/plain"},
		"huge": {"a.example", func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, enforceA+strings.Repeat("x: y\n", mtasts.PolicyMax))
		}, "longer than"},
		"a huge header": {"a.example", func(w http.ResponseWriter) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
			w.WriteHeader(200)
		}, "header"},
		"cut off": {"a.example", func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "1000")
			w.Header().Set("Content-Type", "text/plain")
		}, "EOF"},
		"no such host": {"c.example", good, ""},
		"no policy":    {"a.example", func(w http.ResponseWriter) { _, _ = io.WriteString(w, "hello") }, "not a field"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.serve(c.page)
			g.dns.set(mx.Query{Kind: mx.Addresses, Name: "mta-sts.c.example"}, mx.Answer{Class: mx.Permanent, Text: "no such host"})
			p, err := g.sts.web.fetch(context.Background(), c.domain)
			if name == "good" {
				if err != nil || !p.Allows("mx.a.example") {
					t.Errorf("%+v, %v", p, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%+v, %v, want %q", p, err, c.fault)
			}
		})
	}
}

// TestFileOfPolicies: what cannot be read is done without, and room is bounded.
func TestFileOfPolicies(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for _, text := range []string{"", "{", `{"form":2}`, `{"form":1,"policies":{"a":null,"b":{"mode":"x"},"c":{"mode":"enforce","max_age":-1}}}`} {
		file := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if n := newCache(keep.Disk{}, file, log).len(); n != 0 {
			t.Errorf("%q: %d policies", text, n)
		}
	}
	c := newCache(keep.Disk{}, filepath.Join(t.TempDir(), "none", "f"), log)
	if c.pause() != savePause {
		t.Errorf("%v between writes of nothing", c.pause())
	}
	long := make([]string, 100)
	for i := range long {
		long[i] = strings.Repeat("x", 255)
	}
	for i := range 3000 {
		c.put(strings.Repeat("d", i%200)+string(rune('a'+i%26))+time.Duration(i).String(), &stored{Policy: mtasts.Policy{Mode: mtasts.Enforce, MX: long, MaxAge: time.Hour}, Used: int64(i)})
	}
	if c.bytes > cacheBytes || c.len() < 500 {
		t.Errorf("%d policies in %d octets", c.len(), c.bytes)
	}
	if perSecond := c.bytes / int(c.pause()/time.Second); perSecond > 250_000 {
		t.Errorf("%d octets a second are written", perSecond)
	}
	if err := c.write(); err == nil {
		t.Error("written into a folder that is not there")
	}
}

// TestDisksThatFail: whichever operation on the file fails, and however the machine goes down then, the next start knows the policy of before or the
// new one, never none; and what could not be written is written later.
func TestDisksThatFail(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	policy := func(id string) *stored {
		return &stored{Policy: mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mx.a.example"}, MaxAge: time.Hour}, ID: id}
	}
	for operation, done := 1, false; !done; operation++ {
		disk := &keeptest.FS{}
		c := newCache(disk, "spool/policies.json", log)
		c.put("a.example", policy("1"))
		if !c.save() {
			t.Fatal("not saved")
		}
		c.put("a.example", policy("2"))
		disk.Fail(operation, true)
		saved := c.save()
		done = disk.Operations() < operation
		disk.Fail(0, false)
		for _, lucky := range []bool{false, true} {
			known := newCache(disk.Crash(lucky), "spool/policies.json", log).peek("a.example")
			if known == nil || known.ID != "2" && (saved || known.ID != "1") {
				t.Errorf("operation %d fails: saved %v, known %+v", operation, saved, known)
			}
		}
		if saved != done || !c.save() || newCache(disk.Crash(false), "spool/policies.json", log).peek("a.example").ID != "2" {
			t.Errorf("operation %d fails: saved %v, and not later", operation, saved)
		}
	}
}

// TestWarmLookup: it does not allocate.
func TestWarmLookup(t *testing.T) {
	g := newRig(t)
	g.text("1", enforceA)
	g.find(t)
	q := mx.Query{Kind: mx.Exchangers, Name: "a.example"}
	if n := testing.AllocsPerRun(100, func() {
		if _, ok := g.Cached(q); !ok {
			t.Fatal("not known")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkWarmLookup is what a policy costs a message whose domain is known.
func BenchmarkWarmLookup(b *testing.B) {
	r := New(Options{DNS: &fake{of: map[mx.Query]*mx.Answer{}}, DANE: true, Log: slog.New(slog.DiscardHandler)})
	defer r.Close()
	q := mx.Query{Kind: mx.Exchangers, Name: "a.example"}
	a := r.opts.DNS.(*fake).set(q, mx.Answer{Key: "mx.a.example", Hosts: []mx.Host{{Name: "mx.a.example"}}, Expires: time.Unix(1<<40, 0)})
	for i := range 100_000 {
		r.known.put(strings.Repeat("x", i%50)+time.Duration(i).String(), verdict{})
	}
	r.known.put("a.example", verdict{a, a, a.Expires})
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := r.Cached(q); !ok {
			b.Fatal("not known")
		}
	}
}

// TestMixedHosts: each host has its own demand, and those that may not get the mail are left out.
func TestMixedHosts(t *testing.T) {
	a := &mx.Answer{Key: "x", Hosts: []mx.Host{{Name: "mx1.a.example", Preference: 1}, {Name: "mx2.a.example", Preference: 1}, {Name: "mx3.a.example", Preference: 2}}}
	p := &mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mx2.a.example"}}
	dane := &mx.Answer{Records: &mx.Records{Base: "mx1.a.example", TLSA: []mx.TLSA{{Usage: 3, Selector: 1, Matching: 1, Data: make([]byte, 32)}}}}
	got := judge(a, p, []*mx.Answer{dane, {}, {Class: mx.Temporary, Text: "bogus"}})
	if got.Key != "mx1.a.example/dane,mx2.a.example/sts" || got.Hash == a.Hash || len(got.Hosts) != 2 {
		t.Errorf("%+v", got)
	}
	if d := got.DemandOf("mx1.a.example"); d == nil || d.Kind != mx.DemandDANE || !d.Proves() || got.DemandOf("mx3.a.example").Enforced() {
		t.Errorf("%+v", d)
	}
	if got := judge(a, nil, []*mx.Answer{{}, {}, {}}); got != a {
		t.Errorf("%+v", got)
	}
	a.Validated = true
	p.Mode = mtasts.Testing
	got = judge(a, p, []*mx.Answer{dane, {}, {Class: mx.Temporary, Text: "bogus"}})
	if got.Key != "mx1.a.example/dane,mx2.a.example/testing/signed" {
		t.Errorf("%+v", got)
	}
	got = judge(a, nil, []*mx.Answer{dane, {}, {}})
	if d := got.DemandOf("mx3.a.example"); got.Key != "mx1.a.example/dane,mx2.a.example/signed;mx3.a.example/signed" || d.Enforced() || !d.Proves() {
		t.Errorf("%+v, %+v", got, d)
	}
}
