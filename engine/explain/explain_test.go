package explain

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"mailrace/engine/config"
	"mailrace/router"
	"mailrace/router/mx"
	"mailrace/router/pool"
)

var update = flag.Bool("update", false, "write the files in testdata anew")

// moment is when the tests begin.
var moment = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is a name server with a clock. Its answers are validated.
type world struct {
	addr netip.AddrPort
	now  atomic.Int64 // Unix nanoseconds
	down atomic.Bool  // it has no verdict
}

func newWorld(t *testing.T, zone string) *world {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{addr: conn.LocalAddr().(*net.UDPAddr).AddrPort()}
	w.now.Store(moment.UnixNano())
	var records []dns.RR
	for line := range strings.Lines(zone) {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		if rr != nil {
			records = append(records, rr)
		}
	}
	s := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(to dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.AuthenticatedData, m.Rcode = true, dns.RcodeNameError
		for _, rr := range records {
			if rr.Header().Name == q.Question[0].Name {
				if m.Rcode = dns.RcodeSuccess; rr.Header().Rrtype == q.Question[0].Qtype {
					m.Answer = append(m.Answer, rr)
				}
			}
		}
		if w.down.Load() {
			m.Answer, m.Rcode = nil, dns.RcodeServerFailure
		}
		_ = to.WriteMsg(m)
	})}
	go func() { _ = s.ActivateAndServe() }()
	t.Cleanup(func() { _ = s.Shutdown() })
	return w
}

func (w *world) Now() time.Time { return time.Unix(0, w.now.Load()) }

// explainer is one for a configuration, in this world.
func (w *world) explainer(t *testing.T, file string) *Explainer {
	t.Helper()
	c, err := config.Parse("mailrace.toml", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	r, err := mx.New(mx.Options{
		Servers: []netip.AddrPort{w.addr}, Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Own: []string{c.Hostname}, Allow: c.Egress.Allow, StaleMax: time.Hour, Now: w.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	routes := []router.Route{{Domains: []string{"*"}}}
	if len(c.Routes) > 0 {
		routes = nil
	}
	for _, configured := range c.Routes {
		to := router.Route{Domains: configured.Domains, Host: configured.To.Host, Port: configured.To.Port, Path: configured.To.Path, Connections: configured.Connections}
		switch configured.To.Kind {
		case config.ToDiscard:
			to.Kind = router.Discard
		case config.ToHost, config.ToHostTLS, config.ToLMTP:
			to.Kind = router.Host
		case config.ToSocket, config.ToMaildir:
			to.Kind = router.Local
		}
		routes = append(routes, to)
	}
	table, err := router.NewTable(routes)
	if err != nil {
		t.Fatal(err)
	}
	return &Explainer{Config: c, Table: table, Resolver: r, Now: w.Now}
}

// showing is a node in which every site looks like this.
func showing(v router.SiteView) func(*router.Route, *mx.Answer, string, func(router.SiteView)) {
	return func(_ *router.Route, _ *mx.Answer, _ string, done func(router.SiteView)) { go done(v) }
}

// demanding is one by which the first host of each domain must show a certificate, the second one nothing, and others get no mail.
type demanding struct{ *mx.Resolver }

func (d demanding) Find(ctx context.Context, q mx.Query) (*mx.Answer, error) {
	a, err := d.Resolver.Find(ctx, q)
	if err != nil {
		return nil, err
	}
	judged := *a
	judged.Hosts, judged.Records, judged.Key = a.Hosts[:2], &mx.Records{Demands: []mx.Demand{{Kind: mx.DemandDANE}, {}}}, "judged"
	return &judged, nil
}

// denying is one by which no host may get mail.
type denying struct{}

func (denying) Find(_ context.Context, q mx.Query) (*mx.Answer, error) {
	return &mx.Answer{Query: q, Class: mx.Temporary, Code: 451, Enhanced: "4.7.5", Text: "MTA-STS: the policy names others"}, nil
}

const zone = `
_smtp._tls.far.example. 3600 TXT "v=TLSRPTv1; rua=mailto:tls@far.example,https://far.example/tls"
far.example. 3600 MX 10 mx1.far.example.
far.example. 3600 MX 20 mx2.far.example.
far.example. 3600 MX 20 gone.far.example.
far.example. 3600 MX 30 part.far.example.
far.example. 3600 MX 40 lo.far.example.
far.example. 3600 MX 50 mail.example.com.
far.example. 3600 MX 60 last.far.example.
mx1.far.example. 300 A 198.41.0.4
mx1.far.example. 600 AAAA 2a00::4
mx2.far.example. 900 A 198.41.0.5
part.far.example. 1200 A 198.41.0.6
part.far.example. 1200 A 10.0.0.1
lo.far.example. 1200 A 127.0.0.1
null.example. 600 MX 0 .
self.example. 600 MX 0 mail.example.com.
xn--bcher-kva.example. 600 A 198.41.0.7
store.example. 600 A 10.0.0.9
literal.example. 600 MX 5 mx2.far.example.
`

const head = `hostname = "mail.example.com"
[[listener]]
address = "127.0.0.1:2525"
mode    = "mx"
`

const routes = head + `[[route]]
domains = ["void.example", "*.void.example"]
to = "discard"
[[route]]
domains = ["box.example"]
to = "maildir:///var/mail/{domain}/{user}"
[[route]]
domains = ["lmtp.example"]
to = "lmtp://store.example"
connections = 7
[[route]]
domains = ["socket.example"]
to = "lmtp+unix:///run/lmtp"
[[route]]
domains = ["smart.example"]
to = "smtps://192.0.2.1:4650"
user = "me"
password = "env:MAILRACE_TEST_SECRET"
[[route]]
domains = ["tls.example"]
to = "mx"
tls = "verified"
`

const scheduled = head + `[queue]
retry_max = "2h"
[[policy]]
mx = ["*.far.example"]
retry_min = "7m"
[[policy]]
domains = ["null.example"]
retry = ["1m", "2m"]
[[policy]]
domains = ["null.example"]
tenants = ["shop"]
expire = "1d"
[[policy]]
domains = ["last.far.example", "*.example"]
expire = "2d"
`

const provided = head + `[[provider]]
name = "elsewhere"
mx = ["mx1.far.example"]
[[provider]]
name = "far"
mx = ["*.far.example"]
addresses = ["198.41.0.0/24"]
connections = 9
[[provider]]
name = "idn"
addresses = ["198.41.0.0/16"]
`

const reporting = head + `[tls_report]
contact = "tls@example.com"
`

const pooled = head + `[[source]]
name = "one"
ipv4 = "192.0.2.1"
ipv6 = "2001:db8::1"
ehlo = "one.example.com"
[[source]]
name = "two"
ipv4 = "192.0.2.2"
proxy = "10.0.0.1:9000"
[[source]]
name = "three"
ipv6 = "2001:db8::3"
[[source]]
name = "four"
socks5 = "10.0.0.1:1080"
[[pool]]
name = "bulk"
sources = [{ name = "one", weight = 3 }, "two", "three", "four"]
[[pool]]
name = "single"
sources = ["two"]
[egress]
pool = "single"
[[policy]]
mx = ["*.far.example"]
pool = "bulk"
`

const tuned = head + `[queue]
retry_min = "90s"
expire = "3d"
[egress]
messages = 0
connections = 5
`

// TestExplain holds what is told against files, as a table and as JSON.
func TestExplain(t *testing.T) {
	t.Setenv("MAILRACE_TEST_SECRET", "secret")
	status := func(addr string, failures int, until time.Time) pool.Status {
		return pool.Status{Host: "mx1.far.example", Addr: netip.MustParseAddr(addr), Failures: failures, Until: until}
	}
	busy := router.SiteView{
		SiteStatus: router.SiteStatus{Queued: 12, InFlight: 3, Connections: 4, Idle: 1}, Known: true, Limit: 5, Opening: 1, OnDisk: 70_000, Pause: moment.Add(2 * time.Minute),
		Addresses: []pool.Status{status("198.41.0.4", 2, moment.Add(3*time.Minute)), status("2a00::4", 0, time.Time{})},
	}
	failed := router.SiteView{
		SiteStatus: router.SiteStatus{Failures: 3, Backoff: moment.Add(20 * time.Minute), LastError: "421 4.3.2 \x1b[31mbusy"}, Known: true, Limit: 5,
	}
	for _, c := range []struct {
		name, file, address string
		prepare             func(w *world, e *Explainer)
		view                func(*router.Route, *mx.Answer, string, func(router.SiteView))
	}{
		{name: "mx", file: head, address: "ann@Far.Example"},
		{name: "busy", file: tuned, address: "ann@far.example", view: showing(busy), prepare: func(w *world, e *Explainer) {
			find(e, "far.example")
			w.now.Add(int64(20 * time.Second))
		}},
		{name: "backoff", file: tuned, address: "ann@far.example", view: showing(failed)},
		{name: "next", file: head, address: "ann@far.example", view: showing(router.SiteView{SiteStatus: router.SiteStatus{Connections: 1}, Known: true, Limit: 20, Addresses: []pool.Status{
			status("198.41.0.4", 2, moment.Add(3*time.Minute)), status("2a00::4", 1, moment.Add(time.Minute)),
		}})},
		{name: "vacant", file: head, address: "ann@far.example", view: showing(router.SiteView{Limit: 20})},
		{name: "stale", file: head, address: "ann@far.example", prepare: func(w *world, e *Explainer) {
			find(e, "far.example")
			w.down.Store(true)
			w.now.Add(int64(30 * time.Minute))
		}},
		{name: "provider", file: provided, address: "ann@literal.example", view: showing(router.SiteView{
			SiteStatus: router.SiteStatus{Provider: "far", Queued: 1, Connections: 4}, Known: true, Limit: 9, Shared: 9, SharedLimit: 9,
		})},
		{name: "pool", file: pooled, address: "ann@far.example", view: showing(router.SiteView{
			SiteStatus: router.SiteStatus{Queued: 2, Connections: 1}, Known: true, Limit: 20, Pool: "bulk", Sources: []router.SourceStatus{
				{Source: "one", Weight: 3, Reach: true, Known: true, Status: router.SiteStatus{Queued: 2, Connections: 1}},
				{Source: "two", Weight: 1, Reach: true, Until: moment.Add(3 * time.Minute), Cause: "connect: cannot assign requested address"},
				{Source: "three", Weight: 1},
				{Source: "four", Weight: 1, Reach: true, Known: true, Status: router.SiteStatus{Failures: 2, Backoff: moment.Add(time.Minute), LastError: "554 5.7.1 no"}},
			},
		})},
		{name: "nopool", file: pooled, address: "ann@null.example"},
		{name: "outpool", file: pooled, address: "ann@bücher.example", view: showing(router.SiteView{Pool: "single", Sources: []router.SourceStatus{
			{Source: "two", Weight: 1, Reach: true, Until: moment.Add(3 * time.Minute), Cause: "connect: cannot assign requested address"},
		}})},
		{name: "shared", file: provided, address: "ann@far.example", view: showing(router.SiteView{
			SiteStatus: router.SiteStatus{Queued: 1, Connections: 4}, Known: true, Limit: 20, Shared: 20, SharedLimit: 20,
		})},
		{name: "policy", file: scheduled, address: "ann@far.example"},
		{name: "delays", file: scheduled, address: "ann@null.example"},
		{name: "dane", file: head, address: "ann@far.example", prepare: func(_ *world, e *Explainer) { e.Policed = demanding{e.Resolver} }},
		{name: "denied", file: head, address: "ann@far.example", prepare: func(_ *world, e *Explainer) { e.Policed = denying{} }},
		{name: "down", file: head, address: "ann@far.example", prepare: func(w *world, _ *Explainer) { w.down.Store(true) }},
		{name: "reports", file: reporting, address: "ann@far.example"},
		{name: "noreports", file: reporting, address: "müller@BÜCHER.example"},
		{name: "nullmx", file: head, address: "ann@null.example"},
		{name: "nxdomain", file: head, address: "ann@nobody.example"},
		{name: "self", file: head, address: "ann@self.example"},
		{name: "idn", file: head, address: "müller@BÜCHER.example"},
		{name: "literal", file: head, address: "ann@[198.41.0.4]"},
		{name: "private", file: head, address: "ann@[10.0.0.1]"},
		{name: "discard", file: routes, address: "ann@a.void.example"},
		{name: "maildir", file: routes, address: `"Ann"@box.example`},
		{name: "nomailbox", file: routes, address: `"../../etc"@box.example`},
		{name: "lmtp", file: routes, address: "ann@lmtp.example"},
		{name: "socket", file: routes, address: "ann@socket.example"},
		{name: "smarthost", file: routes, address: "ann@smart.example"},
		{name: "noroute", file: routes, address: "ann@other.example"},
		{name: "postmaster", file: routes, address: "postmaster"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, zone)
			e := w.explainer(t, c.file)
			if c.prepare != nil {
				c.prepare(w, e)
			}
			e.View = c.view
			r, err := e.Explain(t.Context(), c.address)
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := Write(&b, r, false); err != nil {
				t.Fatal(err)
			}
			form, err := json.MarshalIndent(r, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got := strings.ReplaceAll(b.String()+"\n"+string(form)+"\n", w.addr.String(), "192.0.2.53:53")
			golden(t, filepath.Join("testdata", c.name+".txt"), got)
		})
	}
}

func find(e *Explainer, domain string) {
	_, _ = e.Resolver.Find(context.Background(), mx.Query{Kind: mx.Exchangers, Name: domain})
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

// TestColour: a terminal gets colours of ours, and none of others.
func TestColour(t *testing.T) {
	r := &Report{
		Address: Address{Given: "a@b.example", Normal: "a@b.example"}, Site: &Site{Name: "x", State: SiteInUse, LastError: "\x1b[2Jgone\nnow"},
		Verdict: Verdict{Would: Bounce, Text: "550 \x1b]0;title\a"},
	}
	var b strings.Builder
	if err := Write(&b, r, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{bold + "address" + reset + "   a@b.example\n", yellow + "last error: \ufffd[2Jgone\ufffdnow" + reset, red + "bounces" + reset + ": 550 \ufffd]0;title\ufffd\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q does not hold %q", b.String(), want)
		}
	}
}

// TestBadAddress says what is wrong, and where.
func TestBadAddress(t *testing.T) {
	e := newWorld(t, zone).explainer(t, head)
	for address, want := range map[string]string{
		"":                                       "the null path",
		"<>":                                     "the null path",
		"ann":                                    `"ann": there is no domain`,
		"a..b@far.example":                       `the local-part "a..b"`,
		`"ann"b@far.example`:                     `the local-part "\"ann\"b"`,
		"a b@far.example":                        `the local-part "a b"`,
		"a@far..example":                         `the domain "far..example"`,
		"a@far.example>":                         `the domain "far.example>"`,
		"a@far example":                          `the domain "far example"`,
		"a@[1.2.3]":                              `the domain "[1.2.3]": want [192.0.2.1]`,
		"a\xff@far.example":                      "it is not UTF-8",
		"a@xn--a.\u00e4":                         "is no host name",
		"a@b.c@d":                                `the domain "b.c@d"`,
		strings.Repeat("a", 99) + "@far.example": "64 octets",
	} {
		_, err := e.Explain(t.Context(), address)
		if !errors.Is(err, ErrAddress) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", address, err, want)
		}
	}
	for address, want := range map[string]string{
		`"ann"@Far.example`: "ann@far.example", `"a\ b"@far.example`: `"a b"@far.example`, `"a\"b"@far.example`: `"a\"b"@far.example`, `""@far.example`: `""@far.example`,
		`"a@b"@far.example`: `"a@b"@far.example`, "<Postmaster>": "Postmaster@mail.example.com", `"a."@far.example`: `"a."@far.example`,
	} {
		if a, err := parseAddress(address, "mail.example.com"); err != nil || a.Normal != want {
			t.Errorf("%q: %q, %v, want %q", address, a.Normal, err, want)
		}
	}
}

// FuzzAddress: what is taken has a form that is taken again and stays as it is.
func FuzzAddress(f *testing.F) {
	for _, address := range []string{"ann@far.example", `"a\"b"@x`, "müller@bücher.example", "postmaster", "<@a,@b:c@d>", "a@[IPv6:::1]"} {
		f.Add(address)
	}
	f.Fuzz(func(t *testing.T, address string) {
		a, err := parseAddress(address, "mail.example.com")
		if err != nil {
			return
		}
		if again, err := parseAddress(a.Normal, "mail.example.com"); err != nil || again.Normal != a.Normal {
			t.Errorf("%q became %q, that %q, %v", address, a.Normal, again.Normal, err)
		}
	})
}

// TestSilentLoop: a loop that does not answer is waited for as long as who asks waits, and the rest is told.
func TestSilentLoop(t *testing.T) {
	e := newWorld(t, zone).explainer(t, head)
	ctx, cancel := context.WithCancel(t.Context())
	e.View = func(*router.Route, *mx.Answer, string, func(router.SiteView)) { cancel() }
	r, err := e.Explain(ctx, "ann@far.example")
	if err != nil || r.Site.State != SiteUnknown || r.Site.Fault == "" || len(r.DNS.Hosts) == 0 {
		t.Errorf("%+v %v", r, err)
	}
	e.Resolver.Close()
	if r, err = e.Explain(t.Context(), "ann@other.example"); err != nil || r.DNS.From != Unknown || r.Verdict.Would != Wait {
		t.Errorf("%+v %v", r, err)
	}
}
