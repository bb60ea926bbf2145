package mx

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// zone is an authoritative and recursive server in one, on loopback over UDP and TCP, with answers from a script.
type zone struct {
	addr netip.AddrPort

	mu      sync.Mutex
	records map[string][]string // "name TYPE" → records in presentation format
	hooks   map[string]hook
	signed  []string       // zones in which DNSSEC vouches for everything
	asked   map[string]int // "udp name TYPE"
	seen    []seen
}

// hook replaces a reply; it returns false to have the usual reply sent as well.
type hook func(w dns.ResponseWriter, question, reply *dns.Msg) bool

// seen is where a question came from.
type seen struct {
	from string
	id   uint16
}

// garble is a hook that answers what cannot be read: like silence, but there is no need to wait for it.
func garble(w dns.ResponseWriter, question, _ *dns.Msg) bool {
	question.Extra = nil
	p, _ := question.Pack()
	p[2] |= flagQR
	p[7] = 1 // one answer
	w.Write(append(p, 0xc0, 12, 0, 15, 0, 1, 0, 0, 1, 0, 0, 1, 5))
	return true
}

// drop is a hook that answers nothing.
func drop(dns.ResponseWriter, *dns.Msg, *dns.Msg) bool { return true }

// refuse is a hook that answers with an rcode.
func refuse(rcode int) hook {
	return func(_ dns.ResponseWriter, _, reply *dns.Msg) bool {
		reply.Rcode, reply.Answer, reply.AuthenticatedData = rcode, nil, false
		return false
	}
}

func newZone(t testing.TB, lines ...string) *zone {
	t.Helper()
	z := &zone{records: map[string][]string{}, hooks: map[string]hook{}, asked: map[string]int{}}
	z.add(t, lines...)
	pc, l := listenBoth(t)
	z.addr = pc.LocalAddr().(*net.UDPAddr).AddrPort()
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: z}, {Listener: l, Handler: z}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	return z
}

// listenBoth finds a port that is free for UDP and TCP.
func listenBoth(t testing.TB) (net.PacketConn, net.Listener) {
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if pc, err := net.ListenPacket("udp", l.Addr().String()); err == nil {
			return pc, l
		}
		l.Close()
	}
	t.Fatal("no port is free for both")
	return nil, nil
}

// add takes records; "name TYPE" is found from the record itself.
func (z *zone) add(t testing.TB, lines ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil || rr == nil {
			t.Fatalf("record %q: %v", line, err)
		}
		key := strings.TrimSuffix(strings.ToLower(rr.Header().Name), ".") + " " + dns.TypeToString[rr.Header().Rrtype]
		z.records[key] = append(z.records[key], line)
	}
}

// set replaces the records of "name TYPE".
func (z *zone) set(t testing.TB, key string, lines ...string) {
	z.mu.Lock()
	delete(z.records, key)
	z.mu.Unlock()
	z.add(t, lines...)
}

// fail has questions for "name TYPE" answered with an rcode.
func (z *zone) fail(key string, rcode int) { z.hook(key, refuse(rcode)) }

// hook hooks questions for "name TYPE", or all with "*"; nil = none.
func (z *zone) hook(key string, f hook) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.hooks[key] = f
}

// sign has DNSSEC vouch for these zones.
func (z *zone) sign(zones ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.signed = zones
}

// sightings are the questions that came so far.
func (z *zone) sightings() []seen {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Clone(z.seen)
}

func (z *zone) count(key string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked[key]
}

func (z *zone) ServeDNS(w dns.ResponseWriter, question *dns.Msg) {
	q := question.Question[0]
	name := strings.TrimSuffix(strings.ToLower(q.Name), ".")
	key := name + " " + dns.TypeToString[q.Qtype]
	z.mu.Lock()
	z.asked[w.LocalAddr().Network()+" "+key]++
	z.seen = append(z.seen, seen{w.RemoteAddr().String(), question.Id})
	reply := z.reply(question, name, q.Qtype)
	hook := z.hooks[key]
	if hook == nil {
		hook = z.hooks["*"]
	}
	z.mu.Unlock()
	if w.LocalAddr().Network() == "udp" {
		reply.Truncate(udpSize)
	}
	if hook != nil && hook(w, question, reply) {
		return
	}
	w.WriteMsg(reply)
}

func (z *zone) reply(question *dns.Msg, name string, qtype uint16) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(question)
	if question.IsEdns0() != nil {
		m.SetEdns0(udpSize, false)
	}
	m.AuthenticatedData = question.AuthenticatedData && z.vouches(name)
	for range 30 {
		for _, line := range z.records[name+" "+dns.TypeToString[qtype]] {
			rr, _ := dns.NewRR(line)
			m.Answer = append(m.Answer, rr)
		}
		alias := z.records[name+" CNAME"]
		if len(m.Answer) > 0 && m.Answer[len(m.Answer)-1].Header().Rrtype == qtype || len(alias) == 0 {
			break
		}
		rr, _ := dns.NewRR(alias[0])
		m.Answer = append(m.Answer, rr)
		name = strings.TrimSuffix(rr.(*dns.CNAME).Target, ".")
		m.AuthenticatedData = m.AuthenticatedData && z.vouches(name)
	}
	if n := len(m.Answer); n > 0 && m.Answer[n-1].Header().Rrtype == qtype {
		return m
	}
	if !z.exists(name) {
		m.Rcode = dns.RcodeNameError
	}
	soa, _ := dns.NewRR("example. 300 IN SOA ns.example. root.example. 1 2 3 4 120")
	m.Ns = append(m.Ns, soa)
	return m
}

// vouches says whether name is in a signed zone.
func (z *zone) vouches(name string) bool {
	for _, zone := range z.signed {
		if name == zone || strings.HasSuffix(name, "."+zone) {
			return true
		}
	}
	return false
}

func (z *zone) exists(name string) bool {
	for key := range z.records {
		if strings.HasPrefix(key, name+" ") {
			return true
		}
	}
	return false
}

// clock is a time that a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// newResolver returns one that asks the zone, with addresses of the documentation blocks allowed: they stand for public ones in the tests.
func newResolver(t testing.TB, z *zone, change func(*Options)) *Resolver {
	t.Helper()
	o := Options{
		Servers: []netip.AddrPort{z.addr}, Timeout: 20 * time.Second, Rounds: 1, Workers: 8,
		StaleMax: 24 * time.Hour, Entries: 1000,
		Own:   []string{"self.example"},
		Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")},
	}
	if change != nil {
		change(&o)
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// find waits for the answer.
func find(t testing.TB, r *Resolver, kind Kind, name string) *Answer {
	t.Helper()
	got := make(chan *Answer, 1)
	if !r.Lookup(Query{kind, name}, func(a *Answer) { got <- a }) {
		t.Fatal("lookup was not taken")
	}
	return <-got
}

// trusting has the servers on loopback trusted.
func trusting(o *Options) { o.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

// show prints an answer as the tables of the tests write it.
func show(a *Answer) string {
	if a.Class != OK {
		return fmt.Sprintf("%s %d %s", a.Class, a.Code, a.Enhanced)
	}
	var parts []string
	for _, h := range a.Hosts {
		var addrs []string
		for _, addr := range h.Addrs {
			addrs = append(addrs, addr.String())
		}
		parts = append(parts, fmt.Sprintf("%d %s %s", h.Preference, h.Name, strings.Join(addrs, " ")))
	}
	return strings.Join(parts, " | ")
}
