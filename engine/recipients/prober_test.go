package recipients

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"mailrace/engine/loop"
	"mailrace/proto/smtp"
	"mailrace/router"
	"mailrace/router/mx"
)

// patience is how long a test waits for an event before it fails. It is no measure of speed.
const patience = 30 * time.Second

// question is what the directory asks a host.
type question struct {
	target router.Target
	rcpt   string
	limit  time.Duration
	done   func(*smtp.Reply) // to be called on the loop
}

// hosts answers the resolver's questions: by name.
type hosts map[string][]string

func (h hosts) Lookup(q mx.Query, done func(*mx.Answer)) bool {
	if q.Name == "no-room.example" {
		return false
	}
	a := &mx.Answer{Query: q, Class: mx.OK}
	for _, addr := range h[q.Name] {
		a.Hosts = append(a.Hosts, mx.Host{Name: "mx." + q.Name, Addrs: []netip.Addr{netip.MustParseAddr(addr)}})
	}
	if len(a.Hosts) == 0 {
		a.Class = mx.Temporary
	}
	done(a)
	return true
}

// rig is a directory on a loop, with what it asks.
type rig struct {
	t     *testing.T
	d     *Directory
	group *loop.Group
	asked chan question
}

func open(t *testing.T, tables ...Table) *rig {
	t.Helper()
	r := &rig{t: t, asked: make(chan question, 10_000)}
	routes, err := router.NewTable([]router.Route{
		{Domains: []string{"*"}, Kind: router.MX, Port: 2525},
		{Domains: []string{"fixed.example"}, Kind: router.Host, Host: "relay.example", Port: 26, TLS: router.TLSVerified},
		{Domains: []string{"sink.example"}, Kind: router.Discard},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.group, err = loop.Start(loop.Options{Loops: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.group.Close() })
	for i := range tables {
		if tables[i].Probe {
			tables[i].Known, tables[i].Unknown = time.Hour, time.Hour
		}
	}
	r.d, err = Open(Options{
		Tables: tables, Routes: routes, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Resolver: hosts{"a.example": {"192.0.2.1", "192.0.2.2"}, "b.example": {"192.0.2.99", "192.0.2.3"}, "relay.example": {"192.0.2.4"}},
		Source: func(route *router.Route, domain string, a *mx.Answer, to netip.Addr) (string, bool) {
			return "for " + domain, to != netip.MustParseAddr("192.0.2.99")
		},
		Ask: func(_ *loop.Loop, target router.Target, rcpt string, limit time.Duration, done func(*smtp.Reply)) {
			r.asked <- question{target, rcpt, limit, done}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.d.Close)
	return r
}

// on runs something on the loop.
func (r *rig) on(do func(l *loop.Loop)) {
	r.t.Helper()
	done := make(chan struct{})
	l := r.group.Loops()[0]
	l.Post(func() { do(l); close(done) })
	receive(r.t, done)
}

func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("waited in vain")
		panic("not reached")
	}
}

// check asks for a recipient. What it is told comes at once, or later, through the channel.
func (r *rig) check(rcpt string) <-chan string {
	r.t.Helper()
	told := make(chan string, 1)
	r.on(func(l *loop.Loop) {
		path, _, err := smtp.ParsePath([]byte("<"+rcpt+">"), true)
		if err != nil {
			r.t.Error(err)
			return
		}
		refusal, known := r.d.Check(l, &path, func(refusal *smtp.Reply) { told <- text(refusal) })
		clear(path.Path) // nothing may point there any more
		if known {
			told <- text(refusal)
		}
	})
	return told
}

func text(r *smtp.Reply) string {
	if r == nil {
		return "fine"
	}
	return fmt.Sprintf("%d %s", r.Code, r.Enhanced)
}

// answer answers the next question.
func (r *rig) answer(code int, enhanced string) question {
	r.t.Helper()
	q := receive(r.t, r.asked)
	r.on(func(*loop.Loop) { q.done(&smtp.Reply{Code: code, Enhanced: enhanced}) })
	return q
}

func (r *rig) expect(told <-chan string, want string) {
	r.t.Helper()
	if got := receive(r.t, told); got != want {
		r.t.Errorf("told %q, want %q", got, want)
	}
}

func (r *rig) none() {
	r.t.Helper()
	r.on(func(*loop.Loop) {})
	r.on(func(*loop.Loop) {})
	if len(r.asked) > 0 {
		r.t.Errorf("asked %+v", <-r.asked)
	}
}

func TestDirectory(t *testing.T) {
	path := t.TempDir() + "/recipients.txt"
	write(t, path, "ann@list.example\nann@below.list.example\n", 1)
	r := open(t, Table{Domains: []string{"list.example", "*.list.example"}, File: path, Delimiter: "+"}, Table{Domains: []string{"*.probe.list.example"}, Probe: true})
	for rcpt, want := range map[string]string{
		"ann@list.example": "fine", "Ann+x@LIST.example": "fine", "bob@list.example": "550 5.1.1", "bob@other.example": "fine", "postmaster": "fine",
		"Postmaster@list.example": "fine", "ann@below.list.example": "fine", "bob@below.list.example": "550 5.1.1", "ann@[192.0.2.1]": "fine", "bob@probe.list.example": "550 5.1.1",
	} {
		if got := receive(t, r.check(rcpt)); got != want {
			t.Errorf("%s: %s, want %s", rcpt, got, want)
		}
	}
	told := r.check("bob@x.probe.list.example") // the most specific table wins; its hosts are not known
	r.expect(told, "fine")
	write(t, path, "bob@list.example\n", 2)
	r.d.Refresh()
	r.expect(r.check("bob@list.example"), "fine")
	r.expect(r.check("ann@list.example"), "550 5.1.1")
	if _, err := Open(Options{Tables: []Table{{File: path + ".not"}}}); err == nil {
		t.Error("a list without a file")
	}
}

// TestProbe asks the next host once for all who want to know, and remembers what it said of the recipient (A15: of nothing else).
func TestProbe(t *testing.T) {
	r := open(t, Table{Domains: []string{"a.example", "b.example", "fixed.example", "sink.example", "nowhere.example", "no-room.example"}, Probe: true})
	one, two := r.check("ann@a.example"), r.check("ANN@A.example")
	q := r.answer(250, "2.1.5")
	if q.rcpt != "ann@a.example" || q.target.Addr != netip.MustParseAddrPort("192.0.2.1:2525") || q.target.Host != "mx.a.example" || q.target.Source != "for a.example" || q.limit <= 0 || q.limit > probeLimit/2 {
		t.Errorf("%+v", q)
	}
	r.expect(one, "fine")
	r.expect(two, "fine")
	r.expect(r.check("ann@a.example"), "fine")
	for i, c := range []struct {
		code           int
		enhanced, want string
		remembered     bool
	}{
		{550, "5.1.1", "550 5.1.1", true},
		{550, "", "550 5.1.1", true},
		{553, "5.1.3", "550 5.1.1", true},
		{550, "5.2.1", "550 5.1.1", true},
		{251, "", "fine", true},
		{550, "5.7.1", "fine", false}, // of us
		{554, "", "fine", false},
		{552, "5.2.2", "fine", false}, // full is not absent
		{450, "4.2.1", "fine", false},
		{421, "", "fine", false},
		{0, "", "fine", false}, // the host said nothing of it
	} {
		rcpt := fmt.Sprintf("u%d@b.example", i)
		for again := range 2 {
			told := r.check(rcpt)
			if again == 0 || !c.remembered {
				r.answer(c.code, c.enhanced)
			}
			r.expect(told, c.want)
		}
	}
	r.none()
	told := r.check("ann@fixed.example")
	if q := r.answer(550, "5.1.1"); q.target.Addr != netip.MustParseAddrPort("192.0.2.4:26") || q.target.TLS != router.TLSVerified || q.target.Kind != router.Host {
		t.Errorf("%+v", q.target)
	}
	r.expect(told, "550 5.1.1")
	for _, rcpt := range []string{"ann@sink.example", "ann@nowhere.example", "ann@no-room.example"} {
		r.expect(r.check(rcpt), "fine")
	}
	r.none()
}

// TestProbeFailsOver to the next address, and leaves a domain alone none of whose hosts can be asked.
func TestProbeFailsOver(t *testing.T) {
	r := open(t, Table{Domains: []string{"a.example"}, Probe: true, Defer: true})
	told := r.check("ann@a.example")
	for i, addr := range []string{"192.0.2.1:2525", "192.0.2.2:2525"} {
		q := receive(t, r.asked)
		if q.target.Addr.String() != addr {
			t.Errorf("%d: %v", i, q.target.Addr)
		}
		r.on(func(*loop.Loop) { q.done(nil) })
	}
	r.expect(told, "450 4.1.1")
	r.expect(r.check("ann@a.example"), "450 4.1.1")
	r.expect(r.check("bob@a.example"), "450 4.1.1")
	r.none()
}

// TestProbesAreBounded: so many at once, for a domain and in all, and the others in their turn; beyond the queue nothing is known.
func TestProbesAreBounded(t *testing.T) {
	var domains []string
	resolver := hosts{}
	for i := range 10 {
		domains = append(domains, fmt.Sprintf("d%d.example", i))
		resolver[domains[i]] = []string{"192.0.2.9"}
	}
	r := open(t, Table{Domains: domains, Probe: true, Defer: true})
	r.d.prober.o.Resolver = resolver
	var told []<-chan string
	for i := range 20 {
		told = append(told, r.check(fmt.Sprintf("u%d@d0.example", i)))
	}
	r.on(func(*loop.Loop) {})
	if n := len(r.asked); n != domainProbesMax {
		t.Fatalf("%d probes for a domain", n)
	}
	for i := range queueMax + 10 - (20 - domainProbesMax) + probesMax - domainProbesMax {
		told = append(told, r.check(fmt.Sprintf("u%d@d%d.example", i, 1+i%9)))
	}
	r.on(func(*loop.Loop) {})
	if n := len(r.asked); n != probesMax {
		t.Fatalf("%d probes", n)
	}
	at, most := 0, 0
	for range len(told) - 10 {
		most = max(most, len(r.asked))
		r.answer(250, "")
		r.on(func(*loop.Loop) {})
		at++
	}
	fine, later := 0, 0
	for _, c := range told {
		switch got := receive(t, c); got {
		case "fine":
			fine++
		case "450 4.1.1":
			later++
		default:
			t.Errorf("told %q", got)
		}
	}
	if later != 10 || fine != len(told)-10 || most > probesMax {
		t.Errorf("%d of %d found out, %d not, %d at once", fine, len(told), later, most)
	}
	r.none()
	if p := r.d.prober; len(p.flights)+len(p.queue)+len(p.running)+p.total != 0 {
		t.Errorf("left over: %d, %d, %d, %d", len(p.flights), len(p.queue), len(p.running), p.total)
	}
}

func TestLocalParts(t *testing.T) {
	for in, want := range map[string]string{"Ann": "ann", `"Ann"`: "ann", `"a\"b"`: `a"b`, `"a\\b"`: `a\b`, `"`: `"`, `""`: "", "ÜX": "Üx"} {
		if got := string(appendLocal(nil, []byte(in))); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
	if v := []string{there.String(), absent.String(), unsure.String()}; !slices.Equal(v, strings.Fields("known unknown unsure")) {
		t.Error(v)
	}
}
