package engine

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailrace/engine/config"
	"mailrace/engine/loop/looptest"
	"mailrace/proto/message"
	"mailrace/spool"
)

// A network is the world of one node within a test: an authoritative name server, mail hosts at addresses of their own with the port of SMTP, and
// a clock that stands while anything is under way, and moves from one thing that is due to the next. So days go by in a moment, and every time
// is exact however slow the machine is.
type network struct {
	*rig
	t     *testing.T
	clock *looptest.Clock
	zone  *zone
	port  uint16 // that mail goes to at all hosts
	begin time.Time
	cfg   *config.Config
	hosts map[string]*host // by name
	web   uint16

	chance bool // draws are not the middle ones
	// crowd says that messages have several recipients, of which some wait in memory while others are at silent hosts. Times are exact to a minute then: there
	// always is somebody who looks at a clock.
	crowd bool

	mu     sync.Mutex
	silent []*peer // that say nothing more
}

// host is a mail host that plays a script.
type host struct {
	*far
	addr string
	net  *network

	until  time.Duration // since the network began: from then on it is polite; 0 = never. It is set before the node starts
	mu     sync.Mutex
	script script
	calls  []time.Duration // of connections, since the network began
}

// script is what a host does at which stage, where it is not polite: "" is the connection, then the verbs, BDAT among them, and "." is the end of
// data. What is longer than a verb is the begin of a command, and goes before it. A reply, hangUp, or silence.
type script map[string]string

const (
	// silence in place of a reply keeps the connection open and says nothing more.
	silence = "\x01"
	// late before a reply has it said lateness later.
	late     = "\x02"
	lateness = 2 * time.Minute
)

// middle makes every draw the middle one: no jitter, and hosts in the order in which they stand.
type middle struct{}

func (middle) Uint64() uint64 { return 1 << 52 }

// newNetwork is a network without hosts and without a node.
func newNetwork(t *testing.T, signed bool) *network {
	t.Helper()
	begin := time.Now().Truncate(time.Second) // certificates are valid now
	n := &network{t: t, clock: looptest.NewClock(begin), begin: begin, hosts: map[string]*host{}, zone: newZone(t, signed)}
	n.cfg = settings(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToMX}})
	n.cfg.Queue = config.Default().Queue
	n.cfg.Egress.Allow, n.cfg.DNS.Servers = loopback, []netip.AddrPort{n.zone.at}
	if signed {
		n.cfg.DNS.TrustAD = loopback
	}
	return n
}

// add puts a host into the network, at an address of 127.0.0.0/8, with its name in the zone. The first one finds the port for all.
func (n *network) add(name, addr string, play script) *host {
	return n.addWith(name, addr, manners{}, play)
}

func (n *network) addWith(name, addr string, m manners, play script) *host {
	n.t.Helper()
	h := &host{addr: addr, script: play, net: n}
	answer := func(p *peer, line string) string { return h.act(p, line) }
	m.answer = answer
	h.far = listenAt(n.t, net.JoinHostPort(addr, fmt.Sprint(n.port)), func(p *peer) { p.receive(m) })
	n.port = netip.MustParseAddrPort(h.l.Addr().String()).Port()
	n.cfg.Egress.Port = n.port
	kind := "A"
	if strings.Contains(addr, ":") {
		kind = "AAAA"
	}
	n.zone.add(n.t, fmt.Sprintf("%s. 300 IN %s %s", name, kind, addr))
	n.hosts[name] = h
	return h
}

// act is the answer of the script.
func (h *host) act(p *peer, line string) string {
	verb := strings.ToUpper(line[:min(4, len(line))])
	if verb == "" {
		h.mu.Lock()
		h.calls = append(h.calls, h.net.clock.Now().Sub(h.net.begin))
		h.mu.Unlock()
	}
	h.mu.Lock()
	reply := h.script[verb]
	for command, special := range h.script {
		if len(command) > len(verb) && strings.HasPrefix(line, command) {
			reply = special
		}
	}
	h.mu.Unlock()
	if h.until != 0 && h.net.clock.Now().Sub(h.net.begin) >= h.until {
		return ""
	}
	if reply == silence {
		h.net.keepSilent(p)
		return hangUp
	}
	if on, isLate := strings.CutPrefix(reply, late); isLate {
		h.net.pause(p)
		return on
	}
	return reply
}

// pause lets lateness go by, with a client that waits.
func (n *network) pause(p *peer) {
	over := make(chan struct{})
	n.mu.Lock()
	n.silent = append(n.silent, p)
	n.mu.Unlock()
	n.clock.Loop().Wake(n.clock.Now().Add(lateness), func() {
		n.mu.Lock()
		n.silent = slices.DeleteFunc(n.silent, func(other *peer) bool { return other == p })
		n.mu.Unlock()
		close(over)
	})
	select {
	case <-over:
	case <-n.t.Context().Done():
	}
}

// keepSilent says nothing until the client has had enough.
func (n *network) keepSilent(p *peer) {
	n.mu.Lock()
	n.silent = append(n.silent, p)
	n.mu.Unlock()
	_, _ = p.r.Peek(1 << 15)
}

// hung is how many connections wait for a host that says nothing. One that the client has closed does not, even if its host has not noticed.
func (n *network) hung() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.silent = slices.DeleteFunc(n.silent, func(p *peer) bool { return !p.stands() })
	return int64(len(n.silent))
}

// stands says whether neither side has closed the connection.
func (p *peer) stands() (stands bool) {
	raw, err := p.raw.(*net.TCPConn).SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) { // an error says that it is closed
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		stands = err == nil && info.State == unix.BPF_TCP_ESTABLISHED
	})
	return stands
}

// called are the times of the connections so far, since the network began. They are without fractions of a second: a time in the index may be up to
// 4 ms late, as it has a tag in it, and a loop 5 ms.
func (h *host) called() (times []time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, at := range h.calls {
		times = append(times, at.Truncate(time.Second))
	}
	return times
}

// serve starts the node, or starts it again.
func (n *network) serve() *network {
	n.t.Helper()
	w := world{clock: n.clock.Loop(), webPort: n.web}
	if !n.chance {
		w.rand = func() *rand.Rand { return rand.New(middle{}) }
	}
	node, err := newNode(n.cfg, slog.New(slog.NewTextHandler(n.t.Output(), nil)), w)
	if err != nil {
		n.t.Fatal(err)
	}
	n.rig = run(n.t, node)
	return n
}

// fence is an operation of no consequence; its end is the end of all before it.
type fence chan struct{}

func (f fence) Completed(op *spool.Op) {
	op.Free()
	f <- struct{}{}
}

// turn returns when the loops have run what was posted to them, and the shards have written what they were given.
func (n *network) turn() {
	n.t.Helper()
	for shard := range n.pager.windows {
		f := make(fence, 1)
		op := spool.NewOp()
		op.Done, op.Origin = f, 0
		op.Chunk = spool.Chunk{ID: n.store.NewID(shard), Index: 1, Data: n.budget.AppendContent(nil, []byte("."), 1)[0]} // so that it does not wait for company
		n.store.Enqueue(shard, op)
		receive(n.t, f)
	}
	for _, a := range n.lanes {
		turned := make(chan struct{})
		a.loop.Post(func() { a.loop.Post(func() { close(turned) }) })
		receive(n.t, turned)
	}
}

// due is when the first parked message is due, as far as the index is in memory; ok is false without one. out is how many were read, and are not
// parked again or removed.
func (n *network) due() (at time.Time, ok bool, out int64) {
	for _, w := range n.pager.windows {
		w.mu.Lock()
		out += int64(len(w.out))
		if len(w.entries) > 0 {
			if first := time.Unix(0, w.entries[0].At); !ok || first.Before(at) {
				at, ok = first, true
			}
		}
		w.mu.Unlock()
	}
	return at, ok, out
}

// moves says what is under way; "" = everything waits for the clock. What a silent host keeps waiting does.
func (n *network) moves() string {
	n.turn()
	t, hung, now := n.router.Totals(), n.hung(), n.clock.Now()
	at, due, out := n.due()
	switch held := int64(n.pager.limit - n.router.Free()); {
	case t.Resolving > 0:
		return "lookups"
	case t.Connections-t.Idle > hung || t.Transactions > 0 && hung == 0:
		return fmt.Sprintf("%d connections, %d of them idle, %d silent, %d transactions", t.Connections, t.Idle, hung, t.Transactions)
	case n.batches.Load() > 0 || n.pager.walking.Load():
		return "mail comes in"
	case n.reporting.Load() > 0 && !n.gathering():
		return "reports"
	case due && !at.After(now) || out > n.router.Active()+n.reporting.Load():
		return "what is due"
	case n.router.Active() != held && !(n.crowd && hung > 0):
		return fmt.Sprintf("%d recipients in memory, of which the router has %d", held, n.router.Active())
	}
	return ""
}

// gathering says whether reports wait for company, and for the clock.
func (n *network) gathering() bool {
	count := make(chan int, len(n.lanes))
	for _, a := range n.lanes {
		a.loop.Post(func() { count <- len(a.gathered) })
	}
	sum := int64(0)
	for range n.lanes {
		sum += int64(receive(n.t, count))
	}
	return sum == n.reporting.Load()
}

// settle waits until nothing is under way.
func (n *network) settle() {
	n.t.Helper()
	what := "nothing"
	defer func() {
		if n.t.Failed() && what != "" {
			n.t.Log("still under way:", what)
		}
	}()
	n.await("a network that stands still", func() bool {
		for range 3 { // what one thing leads to may be posted from loop to loop
			if what = n.moves(); what != "" {
				return false
			}
		}
		return true
	})
}

// pass lets time go by, from one thing that is due to the next, until something holds, or for as long as is given.
func (n *network) pass(most time.Duration, until func() bool) bool {
	n.t.Helper()
	end := n.clock.Now().Add(most)
	for {
		n.settle()
		if until != nil && until() {
			return true
		}
		at, ok, _ := n.due()
		if next, set := n.clock.Next(); set && (!ok || next.Before(at)) {
			at, ok = next, true
		}
		if !ok || at.After(end) {
			n.clock.MoveTo(end)
			n.settle()
			return until != nil && until()
		}
		if n.crowd {
			at = at.Truncate(time.Minute).Add(time.Minute)
		}
		n.clock.MoveTo(at)
	}
}

// expect lets time go by until a recipient comes to a state, one of delivery, bounce and expiry, and returns its record.
func (n *network) expect(state, recipient string) (found record) {
	n.t.Helper()
	if !n.pass(30*24*time.Hour, func() bool {
		for _, e := range n.records(state) {
			if e.Recipient == recipient {
				found = e
				return true
			}
		}
		return false
	}) {
		n.t.Fatalf("no %s of %s: %+v", state, recipient, n.records())
	}
	return found
}

// mailAt lets time go by until a host has mail, and returns the first of it.
func (n *network) mailAt(h *host) letter {
	n.t.Helper()
	if !n.pass(time.Hour, func() bool { return len(h.mail) > 0 }) {
		n.t.Fatalf("no mail at %s", h.addr)
	}
	return h.next()
}

// submit brings in a message.
func (n *network) submit(change func(*message.Message), to ...string) message.ID {
	n.t.Helper()
	if change == nil {
		change = func(*message.Message) {}
	}
	return n.inject(change, "s@sender.example", hello, to...)
}
