package router

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"mailrace/proto/message"
	"mailrace/router/mx"
)

// sim runs a router with several loops on one goroutine: a clock that jumps from event to event, DNS out of a map, and scripted hosts. A seed
// reproduces a run.
type sim struct {
	t      testing.TB
	now    time.Time
	events eventHeap
	seq    int
	rand   *rand.Rand
	router *Router
	budget *message.Budget

	domains map[string]*mx.Answer // what DNS says; Expires is set when it is asked
	known   map[mx.Query]*mx.Answer
	lookups int
	refuse  int           // lookups that the resolver has no room for
	latency time.Duration // of DNS

	hosts map[netip.Addr]*host
	dials []string // host names in the order of dialing
	conns map[*Link]*conn
	most  map[string]int // most connections at once, by site; "" = in all
	open  map[string]int
	room  int // connections that this process has room for; 0 = any number, -1 = none

	settled   map[key]message.State
	lateness  map[key]bool // whose deadline was reported
	disk      *disk        // of those that left; nil = they come back by themselves
	parked    int          // messages that left, ever
	away      int          // messages that are parked now
	log       []event      // of Env.Settle
	nextID    message.ID
	recording bool

	unbound map[string]bool // sources that cannot be bound
}

type key struct {
	id message.ID
	i  int
}

// event is one call of Env.Settle.
type event struct {
	at      time.Duration // since the start
	address string
	state   message.State
	out     Outcome
}

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newSim(t testing.TB, loops int, seed uint64, change func(*Options)) *sim {
	s := &sim{
		t: t, now: start, rand: rand.New(rand.NewPCG(seed, 99)), budget: message.NewBudget(1 << 40),
		domains: map[string]*mx.Answer{}, known: map[mx.Query]*mx.Answer{}, latency: 20 * time.Millisecond,
		hosts: map[netip.Addr]*host{}, conns: map[*Link]*conn{}, most: map[string]int{}, open: map[string]int{},
		settled: map[key]message.State{}, lateness: map[key]bool{}, recording: true,
	}
	table, err := NewTable([]Route{{Domains: []string{"*"}}, {Domains: []string{"gone.test"}, Kind: Discard}, {Domains: []string{"relayed.test"}, Kind: Host, Host: "[192.0.2.200]", Port: 2525}})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Table: table, Resolver: s}
	for loop := range loops {
		o.Envs = append(o.Envs, Env{
			Now:    func() time.Time { return s.now },
			After:  func(d time.Duration, fn func()) { s.after(d, fn) },
			Post:   func(fn func()) { s.after(0, fn) },
			Dial:   s.dial,
			Settle: s.settle,
			Wait:   s.wait,
			Rand:   rand.New(rand.NewPCG(seed, uint64(loop))),
		})
	}
	if change != nil {
		change(&o)
	}
	if s.router, err = New(o); err != nil {
		t.Fatal(err)
	}
	return s
}

// Events.

type simEvent struct {
	at  time.Time
	seq int
	fn  func()
}

type eventHeap []simEvent

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at.Before(h[j].at) || h[i].at.Equal(h[j].at) && h[i].seq < h[j].seq
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(simEvent)) }
func (h *eventHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

func (s *sim) after(d time.Duration, fn func()) {
	s.seq++
	heap.Push(&s.events, simEvent{s.now.Add(max(d, 0)), s.seq, fn})
}

// run goes on until nothing is left to happen, or the time is reached.
func (s *sim) run(until time.Duration) {
	end := start.Add(until)
	for len(s.events) > 0 && !s.events[0].at.After(end) {
		e := heap.Pop(&s.events).(simEvent)
		s.now = e.at
		e.fn()
	}
	s.now = end
}

// DNS.

// mx makes a domain whose exchangers are given as "preference name address…".
func (s *sim) mx(domain string, exchangers ...string) {
	a := &mx.Answer{Query: mx.Query{Kind: mx.Exchangers, Name: domain}}
	var names []string
	for _, x := range exchangers {
		f := strings.Fields(x)
		h := mx.Host{Name: f[1]}
		fmt.Sscan(f[0], &h.Preference)
		for _, addr := range f[2:] {
			h.Addrs = append(h.Addrs, netip.MustParseAddr(addr))
		}
		a.Hosts = append(a.Hosts, h)
		names = append(names, f[0]+f[1])
	}
	a.Key = strings.Join(names, ",")
	for _, c := range []byte(a.Key) {
		a.Hash = a.Hash*31 + uint64(c)
	}
	s.domains[domain] = a
}

func (s *sim) Cached(q mx.Query) (*mx.Answer, bool) {
	a := s.known[q]
	if a == nil && q.Kind == mx.Addresses {
		a = &mx.Answer{Query: q, Key: q.Name, Hosts: []mx.Host{{Name: q.Name, Addrs: []netip.Addr{netip.MustParseAddr(q.Name)}}}, Expires: s.now.Add(time.Hour)}
		s.known[q] = a
	}
	return a, a != nil && a.Expires.After(s.now)
}

func (s *sim) Lookup(q mx.Query, done func(*mx.Answer)) bool {
	if s.refuse > 0 {
		s.refuse--
		return false
	}
	s.lookups++
	s.after(s.latency, func() {
		a := &mx.Answer{Query: q, Class: mx.Permanent, Code: 550, Enhanced: "5.1.2", Text: "no such domain"}
		if known := s.domains[q.Name]; known != nil {
			*a = *known
		}
		a.Query, a.Expires = q, s.now.Add(5*time.Minute)
		s.known[q] = a
		done(a)
	})
	return true
}

// Hosts.

// host is the script of one address.
type host struct {
	down     bool
	blocks   string                       // source from which it is down
	banner   *Outcome                     // refuses the session
	bannerTo func(source string) *Outcome // likewise
	// insecure: it has no TLS that a demanding route would take.
	insecure bool
	lacks    bool    // REQUIRETLS
	closes   *Reason // ends it before anything is taken
	latency  time.Duration
	limits   Limits
	denied   *Outcome // what it says to our credentials; nil = it takes them
	window   int      // transactions that a connection takes before the first is answered; 0 = 1
	// reply answers for recipient i; nil = delivered.
	reply func(t *Transaction, i int) Outcome
	// breaks is asked before the n-th transaction (from 0) of a connection is answered.
	breaks func(n int, t *Transaction) fate
	got    []string // addresses of recipients that it took, in order
	takes  [][]string
	conns  int
	most   int

	sessions map[*conn][]string // what each took, if it is to be kept
}

type fate int

const (
	fine          fate = iota
	lostBeforeDot      // nothing of the transactions that are under way was sent
	lostAfterDot       // the first was sent, unanswered
	lostAfterDots      // all were
	says421            // all were sent, and it looked at none
)

var (
	delivered = Outcome{Class: Delivered, Code: 250, Enhanced: "2.0.0", Text: "ok", Remote: true}
	later     = Outcome{Class: Deferred, Code: 451, Enhanced: "4.2.0", Text: "later", Remote: true}
	never     = Outcome{Class: Bounced, Code: 550, Enhanced: "5.1.1", Text: "no such user", Remote: true}
	busy      = Outcome{Class: Deferred, Code: 421, Enhanced: "4.7.0", Text: "too busy", Remote: true}
)

func (s *sim) host(addr string) *host {
	a := netip.MustParseAddr(addr)
	if s.hosts[a] == nil {
		s.hosts[a] = &host{latency: 10 * time.Millisecond}
	}
	return s.hosts[a]
}

// conn is the egress side of a link.
type conn struct {
	sim     *sim
	link    *Link
	host    *host
	site    string // that dialed
	under   []*Transaction
	n       int
	gone    bool
	closing bool
	answer  bool // an answer is scheduled
}

func (s *sim) count(site string, d int) {
	for _, k := range []string{"", site} {
		s.open[k] += d
		s.most[k] = max(s.most[k], s.open[k])
	}
}

func (s *sim) dial(l *Link) {
	target := l.Target()
	h := s.hosts[target.Addr.Addr()]
	if h == nil {
		s.t.Fatalf("no host at %v", target.Addr)
	}
	s.dials = append(s.dials, target.Host)
	if p := l.site.party; len(p.links) > p.limit {
		s.t.Fatalf("%d connections to the hosts of %s, at most %d are allowed", len(p.links), target.Site, p.limit)
	}
	c := &conn{sim: s, link: l, host: h, site: target.Site}
	s.conns[l] = c
	s.count(target.Site, 1)
	h.conns++
	h.most = max(h.most, h.conns)
	s.after(h.latency, func() {
		banner := h.banner
		if h.bannerTo != nil {
			banner = h.bannerTo(target.Source)
		}
		switch {
		case s.unbound[target.Source]:
			c.end(GoneUnusable, &Outcome{Text: "cannot assign requested address"})
		case s.room != 0 && s.open[""] > s.room:
			c.short()
		case h.down || h.blocks != "" && target.Source == h.blocks:
			c.end(GoneUnreachable, &Outcome{Text: "connection refused"})
		case h.insecure && (target.TLS >= TLSRequired || target.Demand.Enforced()):
			c.end(GoneInsecure, &Outcome{Enhanced: "4.7.5", Text: "bad certificate"})
		case h.lacks && target.RequireTLS:
			c.end(GoneInsecure, &Outcome{Class: Bounced, Code: 550, Enhanced: "5.7.30", Text: "no REQUIRETLS"})
		case h.denied != nil:
			o := *h.denied
			c.end(GoneDenied, &o)
		case banner != nil:
			o := *banner
			c.end(GoneRefused, &o)
		default:
			l.Ready(c, h.limits)
			if h.closes != nil {
				c.end(*h.closes, nil)
				return
			}
			c.pull()
		}
	})
}

// short ends a dial that this process has no room for.
func (c *conn) short() {
	c.gone = true
	c.host.conns--
	delete(c.sim.conns, c.link)
	c.sim.count(c.site, -1)
	c.link.Short()
}

func (c *conn) end(r Reason, o *Outcome) {
	if c.gone {
		return
	}
	c.gone = true
	c.host.conns--
	delete(c.sim.conns, c.link)
	c.sim.count(c.site, -1)
	c.link.Gone(r, o)
}

func (c *conn) Wake() {
	if c.sim.rand.IntN(2) == 0 {
		c.pull()
	} else {
		c.sim.after(0, c.pull)
	}
}

func (c *conn) Close() {
	if len(c.under) > 0 || c.closing {
		c.sim.t.Fatal("closed with transactions under way, or twice")
	}
	c.closing = true
	c.sim.after(c.host.latency, func() { c.end(GoneClosed, nil) })
}

func (c *conn) pull() {
	for !c.gone && !c.closing && len(c.under) < max(c.host.window, 1) {
		t := c.link.Next()
		if t == nil {
			return
		}
		if len(t.Recipients) == 0 || len(t.Recipients) > c.sim.router.opts.Recipients {
			c.sim.t.Fatalf("a transaction of %d recipients", len(t.Recipients))
		}
		if t.Held && len(t.Message.Body) == 0 && t.Message.Size > 0 {
			c.sim.t.Fatal("content is said to be held and is not")
		}
		c.belongs(t)
		c.under = append(c.under, t)
		c.schedule()
	}
}

// belongs asserts that the host is among those of the domain of each recipient, and that the connection meets what is demanded of it there.
func (c *conn) belongs(t *Transaction) {
	target := c.link.Target()
	for _, i := range t.Recipients {
		a := c.sim.domains[t.Message.Recipients[i].Domain()]
		if a == nil || target.Kind != MX {
			continue
		}
		if !slices.ContainsFunc(a.Hosts, func(h mx.Host) bool { return h.Name == target.Host && slices.Contains(h.Addrs, target.Addr.Addr()) }) {
			c.sim.t.Fatalf("mail for %s goes to %s, which is not among the hosts of its domain", t.Message.Recipients[i].Address, target.Host)
		}
		if !c.link.made.Meets(a.DemandOf(target.Host)) {
			c.sim.t.Fatalf("mail for %s goes over a connection made for less than its domain demands", t.Message.Recipients[i].Address)
		}
	}
}

func (c *conn) schedule() {
	if !c.answer && len(c.under) > 0 {
		c.answer = true
		c.sim.after(c.host.latency, c.respond)
	}
}

// respond answers the oldest transaction.
func (c *conn) respond() {
	if c.answer = false; c.gone || len(c.under) == 0 {
		return
	}
	t, h := c.under[0], c.host
	f := fine
	if h.breaks != nil {
		f = h.breaks(c.n, t)
	}
	c.n++
	switch f {
	case lostAfterDot, lostAfterDots:
		for _, t := range c.under[:max(1, len(c.under)*int(f-lostAfterDot))] {
			t.Sent()
		}
		fallthrough
	case lostBeforeDot:
		c.end(GoneBroken, &Outcome{Text: "reset by peer"})
		return
	case says421:
		for _, t := range c.under {
			t.Sent()
			t.Unsent()
		}
		o := busy
		c.end(GoneRefused, &o)
		return
	}
	t.Sent()
	var took []string
	for i, r := range t.Recipients {
		o := delivered
		if h.reply != nil {
			o = h.reply(t, i)
		}
		if o.Class == Delivered {
			took = append(took, t.Message.Recipients[r].Address)
		}
		t.Settle(i, &o)
	}
	h.got = append(h.got, took...)
	h.takes = append(h.takes, took)
	if h.sessions != nil {
		h.sessions[c] = append(h.sessions[c], took...)
	}
	c.under = c.under[1:]
	t.Done()
	c.schedule()
	c.pull()
}

// Messages.

func (s *sim) message(recipients ...string) *message.Message {
	s.nextID++
	m := &message.Message{ID: s.nextID, Arrived: s.now.UnixNano(), From: "sender@test", Size: 100}
	for _, r := range recipients {
		m.Recipients = append(m.Recipients, message.Recipient{Address: r})
	}
	m.SetPending(len(recipients))
	return m
}

// send accepts a message and dispatches it on a loop, as ingress does.
func (s *sim) send(loop int, recipients ...string) *message.Message {
	return s.dispatch(loop, s.message(recipients...))
}

// wish is send for a sender who asks for something.
func (s *sim) wish(loop int, w message.Wishes, recipients ...string) *message.Message {
	m := s.message(recipients...)
	m.Wishes = &w
	return s.dispatch(loop, m)
}

func (s *sim) dispatch(loop int, m *message.Message) *message.Message {
	m.Body = s.budget.AppendContent(nil, make([]byte, 100), 100)
	m.Hold(1)
	s.router.Dispatch(loop, m)
	m.Release()
	return m
}

func (s *sim) settle(m *message.Message, i int, o *Outcome) {
	r := &m.Recipients[i]
	k := key{m.ID, i}
	was, ok := s.settled[k]
	if ok && was.Settled() {
		s.t.Fatalf("%s settled twice: %v, then %v", r.Address, was, o.State)
	}
	if o.Late {
		if !r.Late || r.State != o.State || was.Settled() || s.lateness[k] {
			s.t.Fatalf("%s: late, or late again: %+v", r.Address, r)
		}
		if s.lateness[k] = true; s.recording {
			s.log = append(s.log, event{s.now.Sub(start), r.Address, o.State, *o})
		}
		return
	}
	s.settled[k] = o.State
	if r.State != o.State || o.Queued == 0 || o.Ended != s.now.UnixNano() || o.Route == "" && o.Code != 451 && o.Code != 550 && !o.Held {
		s.t.Fatalf("%s: recipient %+v, outcome %+v", r.Address, r, o)
	}
	born := m.Arrived
	if m.Wishes != nil {
		born = max(born, m.Wishes.Release)
	}
	if (o.State == message.Deferred) != (o.Due != 0) || o.Due != 0 && (o.Due != r.Due || o.Due <= s.now.UnixNano() || o.Due > max(s.router.Expiry(m, i).UnixNano(), born) && !r.Waits()) {
		s.t.Fatalf("%s: %v due at %v", r.Address, o.State, time.Unix(0, o.Due))
	}
	if s.recording {
		s.log = append(s.log, event{s.now.Sub(start), r.Address, o.State, *o})
	}
	if o.State.Settled() && s.router.opts.Park && m.End(1, true) == message.Waiting {
		s.park(m, s.router.Leave(m))
	}
}

func (s *sim) wait(m *message.Message, recipients []int, park int64) {
	for _, i := range recipients {
		if r := &m.Recipients[i]; r.State != message.Deferred && (r.State != message.Pending || Tag(r.Due) == 0) {
			s.t.Fatalf("waits: %+v", m.Recipients[i])
		}
	}
	if park != 0 {
		s.park(m, park)
	}
}

// park forgets a message, and dispatches what was noted of it on any loop when it is due. Whoever still touches the one that left meets no
// recipients.
func (s *sim) park(m *message.Message, at int64) {
	if m.Pending() != m.Unsettled() || m.Pending() == 0 || at == 0 {
		s.t.Fatalf("parked until %d with %d pending: %+v", at, m.Pending(), m.Recipients)
	}
	read := &message.Message{ID: m.ID, Arrived: m.Arrived, From: m.From, Size: m.Size, Wishes: m.Wishes, Tenant: m.Tenant, Campaign: m.Campaign, Recipients: m.Recipients, Parked: at}
	read.SetPending(read.Unsettled())
	m.Recipients = nil
	s.parked++
	if s.disk != nil {
		s.disk.park(read)
		return
	}
	s.away++
	s.after(time.Duration(at-s.now.UnixNano()), func() {
		s.away--
		s.router.Dispatch(s.rand.IntN(len(s.router.schedulers)), read)
	})
}

// finish runs until everything is settled and asserts that nothing is left over.
func (s *sim) finish(recipients int) {
	s.t.Helper()
	s.run(8 * 24 * time.Hour)
	final := 0
	for _, state := range s.settled {
		if state.Settled() {
			final++
		}
	}
	if final != recipients {
		s.t.Errorf("%d of %d recipients are settled", final, recipients)
	}
	if s.budget.Used() != 0 {
		s.t.Errorf("%d bytes of content are still held", s.budget.Used())
	}
	if got := s.router.Totals(); got != (Totals{}) {
		s.t.Errorf("left over: %+v", got)
	}
	if len(s.conns) != 0 {
		s.t.Errorf("%d connections are still open", len(s.conns))
	}
}

// history is what happened to an address: "deferred@1m0s delivered@6m0s".
func (s *sim) history(address string) string {
	var parts []string
	for _, e := range s.log {
		if e.address == address {
			what := e.state.String()
			switch {
			case e.out.Held:
				what = "held"
			case e.out.Late:
				what = "late"
			}
			parts = append(parts, fmt.Sprintf("%s@%v", what, e.at.Round(time.Second)))
		}
	}
	return strings.Join(parts, " ")
}
