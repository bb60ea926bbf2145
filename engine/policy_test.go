package engine

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"mailrace/engine/config"
	"mailrace/engine/loop"
	"mailrace/proto/message"
)

// zone is a name server whose records a test can change.
type zone struct {
	mu      sync.Mutex
	records map[string][]dns.RR
	broken  map[string]bool // names of TLSA records that get SERVFAIL
	signed  bool            // AD stands in all answers
	at      netip.AddrPort
	odd     map[string]func(w dns.ResponseWriter, q *dns.Msg, m *dns.Msg) // how questions for a name and type, "MX x.example.", are answered; m is the right answer
	asked   map[string]int                                                // how often, by name and type
}

func newZone(t *testing.T, signed bool, lines ...string) *zone {
	t.Helper()
	z := &zone{records: map[string][]dns.RR{}, broken: map[string]bool{}, signed: signed, odd: map[string]func(dns.ResponseWriter, *dns.Msg, *dns.Msg){}, asked: map[string]int{}}
	z.add(t, lines...)
	conn, stream := listenBoth(t)
	for _, s := range []*dns.Server{{PacketConn: conn}, {Listener: stream}} {
		s.Handler = dns.HandlerFunc(z.serve)
		go func() { _ = s.ActivateAndServe() }()
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	z.at = conn.LocalAddr().(*net.UDPAddr).AddrPort()
	return z
}

// listenBoth listens on one port for UDP and TCP.
func listenBoth(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if stream, err := net.Listen("tcp", conn.LocalAddr().String()); err == nil {
			return conn, stream
		}
		conn.Close()
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

func (z *zone) add(t *testing.T, lines ...string) {
	t.Helper()
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.ToLower(rr.Header().Name)
		z.records[name] = append(z.records[name], rr)
	}
}

// fail has a name answered with SERVFAIL.
func (z *zone) fail(name string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.broken[name] = true
}

// alias moves what a name has to another one, and makes it a CNAME.
func (z *zone) alias(t *testing.T, from, to string) {
	t.Helper()
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, rr := range z.records[from] {
		rr.Header().Name = to
	}
	z.records[to] = z.records[from]
	delete(z.records, from)
	rr, err := dns.NewRR(from + " 300 IN CNAME " + to)
	if err != nil {
		t.Fatal(err)
	}
	z.records[from] = []dns.RR{rr}
}

// set changes what is answered.
func (z *zone) set(change func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	change()
}

func (z *zone) serve(w dns.ResponseWriter, q *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	m := new(dns.Msg).SetReply(q)
	m.AuthenticatedData = z.signed
	name := strings.ToLower(q.Question[0].Name)
	rrs, known := z.records[name]
	for _, rr := range rrs {
		if rr.Header().Rrtype == q.Question[0].Qtype {
			m.Answer = append(m.Answer, rr)
		}
		if alias, ok := rr.(*dns.CNAME); ok && q.Question[0].Qtype != dns.TypeCNAME {
			m.Answer = append(m.Answer, alias)
			for _, there := range z.records[alias.Target] {
				if there.Header().Rrtype == q.Question[0].Qtype {
					m.Answer = append(m.Answer, there)
				}
			}
		}
	}
	if !known {
		m.Rcode = dns.RcodeNameError
	}
	if z.broken[name] {
		m.Rcode = dns.RcodeServerFailure
	}
	if m.Rcode != dns.RcodeServerFailure && len(m.Answer) == 0 {
		m.Ns = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: "example.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 60}, Ns: "ns.example.", Mbox: "hostmaster.example.", Minttl: 60}}
	}
	question := dns.TypeToString[q.Question[0].Qtype] + " " + name
	z.asked[question]++
	if odd := z.odd[question]; odd != nil {
		odd(w, q, m)
		return
	}
	_ = w.WriteMsg(m)
}

// webServer serves policies by domain: what pages says for mta-sts.domain.
func webServer(t *testing.T, certificate *tls.Config, page func(domain string) (status int, kind, text string)) (port uint16, asked *atomic.Int32) {
	t.Helper()
	asked = new(atomic.Int32)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		asked.Add(1)
		host, _, _ := strings.Cut(q.Host, ":")
		status, kind, text := page(strings.TrimPrefix(host, "mta-sts."))
		if q.URL.Path != "/.well-known/mta-sts.txt" {
			status = http.StatusNotFound
		}
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Location", "https://mta-sts.good.example/.well-known/mta-sts.txt")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}))
	s.TLS = certificate.Clone()
	s.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(t.Output(), nil), slog.LevelDebug)
	s.StartTLS()
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String()).Port(), asked
}

// service puts the port of the host in place of the 25 of a TLSA record.
func (f *far) service(record string) string {
	return strings.Replace(record, "_25.", fmt.Sprintf("_%d.", f.l.Addr().(*net.TCPAddr).Port), 1)
}

// byMX is a configuration with one route, by MX to the port of a host, and a name server.
func byMX(t *testing.T, f *far, z *zone, ca string) *config.Config {
	t.Helper()
	c := settings(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToMX}})
	_, port, _ := net.SplitHostPort(f.l.Addr().String())
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	c.Egress.Port, c.Egress.Allow, c.Egress.CA = uint16(n), loopback, ca
	c.DNS.Servers = []netip.AddrPort{z.at}
	if z.signed {
		c.DNS.TrustAD = loopback
	}
	return c
}

// startPoliced is start with web servers at a port.
func startPoliced(t *testing.T, c *config.Config, port uint16) *rig {
	t.Helper()
	n, err := newNode(c, slog.New(slog.NewTextHandler(t.Output(), nil)), world{clock: &loop.MachineClock, webPort: port})
	if err != nil {
		t.Fatal(err)
	}
	return run(t, n)
}

func policyOf(mode string, mx ...string) string {
	return "version: STSv1\r\nmode: " + mode + "\r\nmax_age: 86400\r\nmx: " + strings.Join(mx, "\r\nmx: ") + "\r\n"
}

// TestTLSPolicies: for each policy of a domain, and each sort of host, how mail gets there, or why it waits (T8, D17, D18). Nothing bounces.
func TestTLSPolicies(t *testing.T) {
	names := []string{"mx.good.example", "mta-sts.good.example"}
	good, ca := certified(t, names...)
	other, _ := certified(t, "other.example")
	leaf, err := x509.ParseCertificate(good.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	ee := "_25._tcp.mx.good.example. 300 IN TLSA 3 1 1 " + hex.EncodeToString(sum[:])
	ta := "_25._tcp.mx.good.example. 300 IN TLSA 2 0 0 " + hex.EncodeToString(leaf.Raw)
	wrong := "_25._tcp.mx.good.example. 300 IN TLSA 3 1 1 " + strings.Repeat("00", 32)
	ofDomain, _ := certified(t, "good.example")
	ofAlias, _ := certified(t, "real.example")
	domainTA, aliasTA := "_25._tcp.mx.good.example. 300 IN TLSA 2 0 0 "+hex.EncodeToString(ofDomain.Certificates[0].Certificate[0]), "_25._tcp.mx.good.example. 300 IN TLSA 2 0 0 "+hex.EncodeToString(ofAlias.Certificates[0].Certificate[0])
	unusable := "_25._tcp.mx.good.example. 300 IN TLSA 1 1 1 " + hex.EncodeToString(sum[:])
	mx, enforce, testing1 := "mx.good.example", policyOf("enforce", "*.good.example"), policyOf("testing", "mx.good.example")
	for name, c := range map[string]struct {
		policy  string // "" = none
		records []string
		signed  bool
		host    *tls.Config // nil = no STARTTLS
		ca      string
		site    string
		want    string // policy and verdict of the delivery, or "defer", enhanced code and words
	}{
		"no policy":                        {"", nil, false, good, ca, mx, " encrypted"},
		"enforce":                          {enforce, nil, false, good, ca, mx + "/sts", "sts verified"},
		"enforce, no STARTTLS":             {enforce, nil, false, nil, ca, mx + "/sts", "defer 4.7.4 MTA-STS policy of the domain demands TLS, and the host does not offer"},
		"enforce, the handshake fails":     {enforce, nil, false, unfriendly, ca, mx + "/sts", "defer 4.7.5 MTA-STS"},
		"enforce, for another name":        {enforce, nil, false, other, ca, mx + "/sts", "defer 4.7.5 MTA-STS"},
		"enforce, another host":            {policyOf("enforce", "*.mx.good.example"), nil, false, good, ca, "", "defer 4.7.5 does not name its mail exchanger mx.good.example"},
		"testing":                          {testing1, nil, false, good, ca, mx + "/testing", "testing verified"},
		"testing, no STARTTLS":             {testing1, nil, false, nil, ca, mx + "/testing", "testing clear"},
		"testing, the handshake fails":     {testing1, nil, false, unfriendly, ca, mx + "/testing", "testing clear"},
		"testing, for another name":        {testing1, nil, false, other, ca, mx + "/testing", "testing encrypted"},
		"none":                             {policyOf("none", "x"), nil, false, nil, ca, mx, " "},
		"the policy cannot be read":        {"<html>", nil, false, nil, ca, mx, " "},
		"DANE-EE":                          {"", []string{ee}, true, good, ca, mx + "/dane", "dane verified"},
		"DANE-EE among others":             {"", []string{wrong, unusable, ee}, true, good, ca, mx + "/dane", "dane verified"},
		"DANE-TA":                          {"", []string{ta}, true, good, "", mx + "/dane@good.example", "dane verified"},
		"DANE-TA, for the domain":          {"", []string{domainTA}, true, ofDomain, "", mx + "/dane@good.example", "dane verified"},
		"DANE-TA, for its alias":           {"", []string{aliasTA, "alias"}, true, ofAlias, "", mx + "/dane@good.example", "dane verified"},
		"DANE-EE, another certificate":     {"", []string{ee}, true, other, ca, mx + "/dane", "defer 4.7.5 no TLSA record of mx.good.example allows the certificate"},
		"DANE, no STARTTLS":                {"", []string{ee}, true, nil, ca, mx + "/dane", "defer 4.7.4 DANE"},
		"DANE that nobody vouches for":     {"", []string{wrong}, false, good, ca, mx, " encrypted"},
		"unusable":                         {"", []string{unusable}, true, other, ca, mx + "/encrypted", "encrypted encrypted"},
		"unusable, no STARTTLS":            {"", []string{unusable}, true, nil, ca, mx + "/encrypted", "defer 4.7.4 DANE"},
		"no verdict":                       {"", []string{"broken"}, true, good, ca, "", "defer 4.7.5 DANE: it is not known which certificate mx.good.example may have"},
		"DANE before MTA-STS, met":         {policyOf("enforce", "x.example"), []string{ee}, true, good, ca, mx + "/dane", "dane verified"},
		"DANE before MTA-STS, not met":     {enforce, []string{wrong}, true, good, ca, mx + "/dane", "defer 4.7.5 no TLSA record"},
		"signed, without TLSA but MTA-STS": {enforce, nil, true, good, ca, mx + "/sts", "sts verified"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := listen(t, func(p *peer) { p.receive(manners{tls: c.host}) })
			port, _ := webServer(t, good, func(string) (int, string, string) { return 200, "text/plain; charset=utf-8", c.policy })
			z := newZone(t, c.signed, "good.example. 300 IN MX 10 mx.good.example.", "mx.good.example. 300 IN A 127.0.0.1", "mta-sts.good.example. 300 IN A 127.0.0.1")
			if c.policy != "" {
				z.add(t, `_mta-sts.good.example. 300 IN TXT "v=STSv1; id=1;"`)
			}
			for _, record := range c.records {
				if record == "alias" {
					z.alias(t, "good.example.", "real.example.")
				} else if record == "broken" {
					z.fail(f.service("_25._tcp.mx.good.example."))
				} else {
					z.add(t, f.service(record))
				}
			}
			s := byMX(t, f, z, ca)
			if c.ca == "" { // the web server is trusted, the host is not
				_, s.Egress.CA = certified(t, "nobody.example")
			}
			r := startPoliced(t, s, port)
			r.send("s@sender.example", hello, "a@good.example")
			if words, deferred := strings.CutPrefix(c.want, "defer "); deferred {
				code, words, _ := strings.Cut(words, " ")
				e := r.record("deferral", "a@good.example", 1)
				if e.Enhanced != code || !strings.Contains(e.Text, words) || withoutPort(e.Site) != c.site || c.site != "" && e.TLSVerdict != "failed" {
					t.Errorf("%+v", e)
				}
				f.none()
				return
			}
			l, e := f.next(), r.record("delivery", "a@good.example", 1)
			if got := e.TLSPolicy + " " + e.TLSVerdict; got != c.want || withoutPort(e.Site) != c.site || l.tls != (e.TLSVersion != "") {
				t.Errorf("%q, want %q: %+v", got, c.want, e)
			}
			r.awaitEmpty()
		})
	}
}

// withoutPort is the hosts in the name of a site.
func withoutPort(site string) string {
	hosts, _, _ := strings.Cut(site, ":")
	return hosts
}

// TestPoliciesOfNeighbours: of domains with the same host, the policy of one does not hold up the mail of another, and where the same is demanded they
// share a connection.
func TestPoliciesOfNeighbours(t *testing.T) {
	t.Parallel()
	good, ca := certified(t, "mx.good.example", "mta-sts.one.example", "mta-sts.two.example", "mta-sts.bad.example")
	f := listen(t, func(p *peer) { p.receive(manners{tls: good}) })
	port, _ := webServer(t, good, func(domain string) (int, string, string) {
		if domain == "bad.example" {
			return 200, "text/plain", policyOf("enforce", "elsewhere.example")
		}
		return 200, "text/plain", policyOf("enforce", "mx.good.example")
	})
	z := newZone(t, false, "mx.good.example. 300 IN A 127.0.0.1")
	for _, domain := range []string{"one", "two", "bad", "free"} {
		z.add(t, domain+".example. 300 IN MX 10 mx.good.example.", "mta-sts."+domain+".example. 300 IN A 127.0.0.1")
		if domain != "free" {
			z.add(t, `_mta-sts.`+domain+`.example. 300 IN TXT "v=STSv1; id=1;"`)
		}
	}
	r := startPoliced(t, byMX(t, f, z, ca), port)
	connection := map[string]int{}
	for _, domain := range []string{"bad", "free", "one", "two"} {
		r.send("s@sender.example", hello, "a@"+domain+".example")
		if domain == "bad" {
			r.record("deferral", "a@bad.example", 1)
			continue
		}
		connection[domain] = f.next().peer
	}
	for address, want := range map[string]struct{ site, verdict string }{
		"a@one.example": {"mx.good.example/sts", "deliver"}, "a@free.example": {"mx.good.example", "deliver"}, "a@bad.example": {"", "wait"},
	} {
		e, err := r.Explain(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		site := ""
		if e.Site != nil {
			site = withoutPort(e.Site.Name)
		}
		if site != want.site || e.Verdict.Would != want.verdict || (e.DNS.Hosts[0].Dropped != "") != (want.site == "") || (e.DNS.Hosts[0].Demand == "sts") != (address == "a@one.example") {
			t.Errorf("%s is explained by %+v, %+v at %q", address, e.Verdict, e.DNS, site)
		}
	}
	if connection["one"] != connection["two"] || connection["one"] == connection["free"] {
		t.Errorf("connections: %v", connection)
	}
}

// TestPolicyOfTheDomain: over a connection that goes over to another domain, records and reports are of the policy of that one.
func TestPolicyOfTheDomain(t *testing.T) {
	t.Parallel()
	good, ca := certified(t, "mx.good.example", "mta-sts.strict.example")
	f := listen(t, func(p *peer) { p.receive(manners{tls: good}) })
	port, _ := webServer(t, good, func(string) (int, string, string) { return 200, "text/plain", policyOf("enforce", "mx.good.example") })
	z := newZone(t, false, "mx.good.example. 300 IN A 127.0.0.1", "strict.example. 300 IN MX 10 mx.good.example.", "free.example. 300 IN MX 10 mx.good.example.",
		"mta-sts.strict.example. 300 IN A 127.0.0.1", `_mta-sts.strict.example. 300 IN TXT "v=STSv1; id=1;"`)
	s := byMX(t, f, z, ca)
	s.Egress.Idle = patience
	r := startPoliced(t, s, port)
	var peers []int
	for _, c := range []struct{ to, policy string }{{"a@strict.example", "sts"}, {"a@free.example", ""}} {
		r.send("s@sender.example", hello, c.to)
		peers = append(peers, f.next().peer)
		if e := r.record("delivery", c.to, 1); e.TLSPolicy != c.policy || e.TLSVerdict != "verified" {
			t.Errorf("%+v, want policy %q", e, c.policy)
		}
	}
	if peers[0] != peers[1] {
		t.Errorf("connections: %v", peers)
	}
}

// TestD17PoliciesOfStrangers: redirects are not followed, nor addresses that are not public, and a policy that is known holds when all of it
// fails, also after a restart (RFC 8461 §3.3, §5.1).
func TestD17PoliciesOfStrangers(t *testing.T) {
	t.Parallel()
	good, ca := certified(t, "mx.good.example", "mta-sts.good.example")
	var page atomic.Pointer[[3]string]
	page.Store(&[3]string{"200", "text/plain", policyOf("enforce", "mx.good.example")})
	f := listen(t, func(p *peer) { p.receive(manners{}) })
	port, asked := webServer(t, good, func(string) (int, string, string) {
		p := page.Load()
		status, _ := strconv.Atoi(p[0])
		return status, p[1], p[2]
	})
	z := newZone(t, false, "good.example. 300 IN MX 10 mx.good.example.", "mx.good.example. 300 IN A 127.0.0.1", "mta-sts.good.example. 300 IN A 127.0.0.1",
		`_mta-sts.good.example. 300 IN TXT "v=STSv1; id=1;"`)
	c := byMX(t, f, z, ca)
	r := startPoliced(t, c, port)
	r.send("s@sender.example", hello, "a@good.example")
	r.record("deferral", "a@good.example", 1)
	if n := asked.Load(); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	r.stop()
	page.Store(&[3]string{"302", "text/plain", ""})
	z.mu.Lock()
	delete(z.records, "_mta-sts.good.example.")
	z.mu.Unlock()
	seen := len(r.records("deferral"))
	r = startPoliced(t, c, port)
	r.record("deferral", "a@good.example", seen+1)
	r.stop()
	z.add(t, `_mta-sts.good.example. 300 IN TXT "v=STSv1; id=2;"`)
	r = startPoliced(t, c, port)
	r.await("the new policy to be fetched", func() bool { return asked.Load() == 2 })
	r.record("deferral", "a@good.example", len(r.records("deferral"))+1)
	f.none()
}

// TestD17NotPublic: a policy is not fetched from where mail would not go.
func TestD17NotPublic(t *testing.T) {
	t.Parallel()
	good, ca := certified(t, "mx.good.example", "mta-sts.good.example")
	f := listenAt(t, "127.0.0.7:0", polite)
	port, asked := webServer(t, good, func(string) (int, string, string) {
		return 200, "text/plain", policyOf("enforce", "mx.good.example")
	})
	z := newZone(t, false, "good.example. 300 IN MX 10 mx.good.example.", "mx.good.example. 300 IN A 127.0.0.7", "mta-sts.good.example. 300 IN A 127.0.0.1",
		`_mta-sts.good.example. 300 IN TXT "v=STSv1; id=1;"`)
	c := byMX(t, f, z, ca)
	c.Egress.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.7/32")}
	r := startPoliced(t, c, port)
	r.send("s@sender.example", hello, "a@good.example")
	f.next()
	r.awaitEmpty()
	if n := asked.Load(); n != 0 {
		t.Errorf("asked %d times", n)
	}
}

// TestRequireTLSByPolicy: what DANE, MTA-STS or DNSSEC proves of an MX host is enough for REQUIRETLS. RFC 8689 §4.2.1
func TestRequireTLSByPolicy(t *testing.T) {
	good, ca := certified(t, "mx.good.example", "mta-sts.good.example")
	other, _ := certified(t, "other.example")
	leaf, err := x509.ParseCertificate(good.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(leaf.Raw)
	for name, c := range map[string]struct {
		text, tlsa string
		signed     bool
		host       *tls.Config
		want       string // "" = delivered; or event and enhanced code
	}{
		"MTA-STS":                      {`_mta-sts.good.example. 300 IN TXT "v=STSv1; id=1;"`, "", false, good, ""},
		"DANE":                         {"", "_25._tcp.mx.good.example. 300 IN TLSA 3 0 1 " + hex.EncodeToString(sum[:]), true, good, ""},
		"DNSSEC":                       {"", "", true, good, ""},
		"DNSSEC, of another name":      {"", "", true, other, "deferral 4.7.10"},
		"neither":                      {"", "", false, good, "bounce 5.7.30"},
		"TLSA records, none is usable": {"", "_25._tcp.mx.good.example. 300 IN TLSA 1 0 1 " + hex.EncodeToString(sum[:]), true, good, "bounce 5.7.30"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := listen(t, func(p *peer) { p.receive(manners{tls: c.host, secret: []string{"REQUIRETLS"}}) })
			port, _ := webServer(t, good, func(string) (int, string, string) { return 200, "text/plain", policyOf("enforce", "mx.good.example") })
			z := newZone(t, c.signed, "good.example. 300 IN MX 10 mx.good.example.", "mx.good.example. 300 IN A 127.0.0.1", "mta-sts.good.example. 300 IN A 127.0.0.1")
			for _, line := range []string{c.text, c.tlsa} {
				if line != "" {
					z.add(t, f.service(line))
				}
			}
			r := startPoliced(t, byMX(t, f, z, ca), port)
			r.inject(func(m *message.Message) { m.Flags |= message.RequireTLS }, "s@sender.example", hello, "a@good.example")
			if event, enhanced, _ := strings.Cut(c.want, " "); event != "" {
				if e := r.record(event, "a@good.example", 1); e.Enhanced != enhanced {
					t.Errorf("%+v", e)
				}
				return
			}
			if l := f.next(); !l.tls || !strings.HasSuffix(l.mail, " REQUIRETLS") {
				t.Errorf("%+v", l)
			}
			r.awaitEmpty()
		})
	}
}

// TestProbesFollowPolicies: a host that does not show what its domain demands is not asked for recipients, and one that does is asked under TLS.
func TestProbesFollowPolicies(t *testing.T) {
	good, ca := certified(t, "mx.good.example", "mta-sts.good.example")
	other, _ := certified(t, "other.example")
	leaf, err := x509.ParseCertificate(good.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	tlsa := "_25._tcp.mx.good.example. 300 IN TLSA 3 1 1 " + hex.EncodeToString(sum[:])
	for name, c := range map[string]struct {
		policy, tlsa string
		host         *tls.Config
		code         int // 550 = the host was asked
	}{
		"enforce":                      {policyOf("enforce", "mx.good.example"), "", good, 550},
		"enforce, no STARTTLS":         {policyOf("enforce", "mx.good.example"), "", nil, 450},
		"enforce, the handshake fails": {policyOf("enforce", "mx.good.example"), "", unfriendly, 450},
		"enforce, for another name":    {policyOf("enforce", "mx.good.example"), "", other, 450},
		"enforce, another host":        {policyOf("enforce", "x.good.example"), "", good, 450},
		"testing, for another name":    {policyOf("testing", "mx.good.example"), "", other, 550},
		"DANE":                         {"", tlsa, good, 550},
		"DANE, another certificate":    {"", tlsa, other, 450},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := listen(t, func(p *peer) {
				p.receive(manners{tls: c.host, answer: func(_ *peer, line string) string {
					if strings.HasPrefix(line, "RCPT") {
						return "550 5.1.1 no such user"
					}
					return ""
				}})
			})
			port, _ := webServer(t, good, func(string) (int, string, string) { return 200, "text/plain", c.policy })
			z := newZone(t, c.tlsa != "", "good.example. 300 IN MX 10 mx.good.example.", "mx.good.example. 300 IN A 127.0.0.1", "mta-sts.good.example. 300 IN A 127.0.0.1")
			if c.policy != "" {
				z.add(t, `_mta-sts.good.example. 300 IN TXT "v=STSv1; id=1;"`)
			} else {
				z.add(t, f.service(c.tlsa))
			}
			s := byMX(t, f, z, ca)
			known := config.DefaultRecipients()
			known.Domains, known.Probe, known.Defer = []string{"good.example"}, true, true
			s.Listeners = []config.Listener{{Address: "127.0.0.1:0", Mode: config.ModeMX, RelayDomains: known.Domains}}
			s.Recipients = []config.Recipients{known}
			startPoliced(t, s, port).rcpt("unknown@good.example", c.code)
		})
	}
}
