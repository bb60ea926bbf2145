package router

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mailrace/proto/message"
)

func TestDeliversInOrder(t *testing.T) {
	s := newSim(t, 3, 1, func(o *Options) { o.SiteConnections = 1 })
	s.mx("a.test", "10 mx.test 192.0.2.1")
	h := s.host("192.0.2.1")
	h.window = 4
	var want []string
	for i := range 200 {
		address := fmt.Sprintf("u%d@A.Test", i)
		want = append(want, address)
		s.send(0, address)
	}
	s.finish(200)
	if !slices.Equal(h.got, want) {
		t.Errorf("order: %v", h.got[:20])
	}
	if s.lookups != 1 {
		t.Errorf("%d lookups", s.lookups)
	}
	if h.most != 1 {
		t.Errorf("%d connections", h.most)
	}
}

func TestRecipientsShareTransactions(t *testing.T) {
	for _, warm := range []bool{false, true} {
		s := newSim(t, 4, 1, func(o *Options) { o.Recipients = 3 })
		s.mx("a.test", "10 mx1.test 192.0.2.1")
		s.mx("b.test", "10 mx1.test 192.0.2.1")
		s.mx("c.test", "10 mx2.test 192.0.2.2")
		h1, h2 := s.host("192.0.2.1"), s.host("192.0.2.2")
		n := 0
		if warm {
			s.send(1, "w@a.test", "w@b.test", "w@c.test")
			s.run(time.Second)
			h1.takes, h2.takes, n = nil, nil, 3
		}
		s.send(1, "1@a.test", "2@c.test", "3@b.test", "4@a.test", "5@b.test", "6@c.test", "7@a.test", "8@gone.test", "9@a.test")
		s.finish(n + 9)
		if len(h2.takes) != 1 || len(h2.takes[0]) != 2 {
			t.Errorf("warm %v: c.test: %v", warm, h2.takes)
		}
		total := 0
		for _, take := range h1.takes {
			total += len(take)
		}
		if len(h1.takes) > 3 || total != 6 || warm && len(h1.takes) != 2 {
			t.Errorf("warm %v: mx1: %v", warm, h1.takes)
		}
	}
}

func TestDiscardAndVerdicts(t *testing.T) {
	s := newSim(t, 2, 1, nil)
	s.send(0, "x@gone.test", "x@absent.test", "x@-bad-", "postmaster")
	s.finish(4)
	for address, want := range map[string]string{"x@gone.test": "delivered@0s", "x@absent.test": "bounced@0s", "x@-bad-": "bounced@0s", "postmaster": "bounced@0s"} {
		if got := s.history(address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
	for _, e := range s.log {
		if e.address == "x@absent.test" && (e.out.Code != 550 || e.out.Enhanced != "5.1.2" || e.out.Attempt != 1 || e.out.Site != "") {
			t.Errorf("%+v", e.out)
		}
	}
}

func TestHostRoute(t *testing.T) {
	s := newSim(t, 2, 1, nil)
	h := s.host("192.0.2.200")
	m := s.send(0, "x@relayed.test")
	s.finish(1)
	if len(h.got) != 1 || m.Recipients[0].State != message.Delivered || s.lookups != 0 {
		t.Error("not relayed")
	}
	if o := s.log[0].out; o.Site != "192.0.2.200:2525" || o.Route != "192.0.2.200:2525" || o.Addr.String() != "192.0.2.200:2525" || o.Host != "192.0.2.200" {
		t.Errorf("%+v", o)
	}
}

func TestOutcomesOfEachRecipient(t *testing.T) {
	s := newSim(t, 2, 1, func(o *Options) { o.Jitter = -1 })
	s.mx("a.test", "10 mx.test 192.0.2.1")
	h := s.host("192.0.2.1")
	tries := 0
	h.reply = func(tx *Transaction, i int) Outcome {
		switch address := tx.Message.Recipients[tx.Recipients[i]].Address; {
		case address == "never@a.test":
			return never
		case strings.HasPrefix(address, "later") && tries < 4:
			tries++
			return later
		}
		return delivered
	}
	m := s.send(0, "later1@a.test", "never@a.test", "later2@a.test", "now@a.test")
	s.run(time.Minute)
	if r := m.Recipients[0]; r.State != message.Deferred || r.Reply != "451 4.2.0 later" || r.Attempts != 1 || r.Due < start.Add(5*time.Minute).UnixNano() {
		t.Errorf("%+v", r)
	}
	if r := m.Recipients[1]; r.State != message.Bounced || r.Reply != "550 5.1.1 no such user" {
		t.Errorf("%+v", r)
	}
	if n := s.router.Totals().Deferred; n != 2 {
		t.Errorf("%d deferred", n)
	}
	s.finish(4)
	for _, address := range []string{"later1@a.test", "later2@a.test"} {
		if got := s.history(address); got != "deferred@0s deferred@5m0s delivered@15m0s" {
			t.Errorf("%s: %s", address, got)
		}
	}
	// what was deferred together comes back together
	if last := h.takes[len(h.takes)-1]; len(last) != 2 {
		t.Errorf("at last %v", last)
	}
}

// TestFiveDays asserts the exact time of each attempt of a recipient that is deferred until it expires.
func TestFiveDays(t *testing.T) {
	s := newSim(t, 2, 1, func(o *Options) { o.Jitter = -1 })
	s.mx("a.test", "10 mx.test 192.0.2.1")
	s.host("192.0.2.1").reply = func(*Transaction, int) Outcome { return later }
	s.host("192.0.2.1").latency = 0
	s.latency = 0
	m := s.send(0, "x@a.test")
	s.finish(1)
	want := []time.Duration{0}
	for _, d := range []time.Duration{5, 10, 20, 40, 80, 160} {
		want = append(want, want[len(want)-1]+d*time.Minute)
	}
	for at := want[len(want)-1] + 4*time.Hour; at < 5*24*time.Hour; at += 4 * time.Hour {
		want = append(want, at)
	}
	want = append(want, 5*24*time.Hour)
	var got []time.Duration
	for i, e := range s.log {
		got = append(got, e.at.Round(time.Second))
		if e.out.Attempt != i+1 || (e.state == message.Expired) != (i == len(want)-1) {
			t.Errorf("attempt %d: %+v", i+1, e)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("attempts at %v,\nwant %v", got, want)
	}
	if r := m.Recipients[0]; r.State != message.Expired || r.Reply != "451 4.2.0 later" {
		t.Errorf("%+v", r)
	}
}

func TestConnectionLimits(t *testing.T) {
	s := newSim(t, 2, 1, func(o *Options) { o.SiteConnections, o.Connections, o.Messages = 4, 16, 10 })
	const sites, each = 30, 60
	for i := range sites {
		s.mx(fmt.Sprintf("d%d.test", i), fmt.Sprintf("10 mx%d 192.0.2.%d", i, i+1))
		s.host(fmt.Sprintf("192.0.2.%d", i+1)).latency = time.Duration(i+1) * 20 * time.Millisecond
	}
	for n := range each {
		for i := range sites {
			s.send(n%2, fmt.Sprintf("u@d%d.test", i))
		}
	}
	s.finish(sites * each)
	if s.most[""] > 16 || s.most[""] < 12 {
		t.Errorf("%d connections at once", s.most[""])
	}
	for site, n := range s.most {
		if site != "" && n > 4 {
			t.Errorf("%s: %d connections at once", site, n)
		}
	}
	if n := len(s.dials); n < sites*each/10 {
		t.Errorf("%d dials: connections are used for more than 10 messages", n)
	}
}

// TestConnectionsAreShared: with fewer connections than busy sites each site gets its turn.
func TestConnectionsAreShared(t *testing.T) {
	s := newSim(t, 1, 1, func(o *Options) { o.Connections = 2 })
	for i := range 6 {
		s.mx(fmt.Sprintf("d%d.test", i), fmt.Sprintf("10 mx%d 192.0.2.%d", i, i+1))
		s.host(fmt.Sprintf("192.0.2.%d", i+1))
	}
	for range 2000 {
		for i := range 5 {
			s.send(0, fmt.Sprintf("u@d%d.test", i))
		}
	}
	s.run(time.Second)
	s.send(0, "u@d5.test")
	s.run(3 * time.Second)
	if got := s.history("u@d5.test"); !strings.HasPrefix(got, "delivered") {
		t.Errorf("starved: %q", got)
	}
	for i := range 5 {
		if n := len(s.host(fmt.Sprintf("192.0.2.%d", i+1)).got); n < 40 {
			t.Errorf("site %d: %d delivered", i, n)
		}
	}
	s.finish(10_001)
}

// TestUselessSessions: a host that closes each session before it takes anything is given up, and not dialed in a circle.
func TestUselessSessions(t *testing.T) {
	for _, reason := range []Reason{GoneClosed, GoneBroken} {
		s := newSim(t, 1, 1, nil)
		s.mx("x.test", "10 a 192.0.2.1", "20 b 192.0.2.2")
		for _, addr := range []string{"192.0.2.1", "192.0.2.2"} {
			s.host(addr).closes = &reason
		}
		s.send(0, "u@x.test")
		s.run(time.Minute)
		if got := strings.Join(s.dials, " "); !strings.HasPrefix(s.history("u@x.test"), "deferred") || len(s.dials) > 5 {
			t.Errorf("%v: dialed %s, %s", reason, got, s.history("u@x.test"))
		}
	}
}

func TestConnectionsGrowWithTheQueue(t *testing.T) {
	s := newSim(t, 1, 1, nil)
	s.mx("x.test", "10 a 192.0.2.1", "20 backup 192.0.2.2")
	h, backup := s.host("192.0.2.1"), s.host("192.0.2.2")
	h.latency = 200 * time.Millisecond
	for range 8 {
		s.send(0, "u@x.test")
	}
	s.run(300 * time.Millisecond)
	if h.most != 1 {
		t.Errorf("%d connections for a short queue", h.most)
	}
	for range 1000 {
		s.send(0, "u@x.test")
	}
	s.run(30 * time.Second)
	if h.most != 20 || backup.most != 0 {
		t.Errorf("%d connections, %d to the backup", h.most, backup.most)
	}
	if n := s.router.Totals().Connections; n != 0 {
		t.Errorf("%d connections are kept idle", n)
	}
	s.finish(1008)
}

// TestStuckConnection: mail behind a connection that hangs gets another after a while.
func TestStuckConnection(t *testing.T) {
	s := newSim(t, 1, 1, nil)
	s.mx("x.test", "10 a 192.0.2.1")
	h := s.host("192.0.2.1")
	s.send(0, "u@x.test")
	s.run(25 * time.Millisecond) // the session is about to stand
	h.latency = 10 * time.Minute // of its first reply
	s.run(time.Second)
	h.latency = 10 * time.Millisecond
	s.run(90 * time.Second)
	s.send(0, "v@x.test")
	s.run(92 * time.Second)
	if got := s.history("v@x.test"); got != "delivered@1m31s" {
		t.Errorf("%q", got)
	}
	s.finish(2)
}

func TestIdleConnectionsAreReused(t *testing.T) {
	s := newSim(t, 2, 1, nil)
	s.mx("x.test", "10 a 192.0.2.1")
	h := s.host("192.0.2.1")
	for range 10 {
		s.send(0, "u@x.test")
		s.run(s.now.Sub(start) + 4*time.Second)
	}
	if len(s.dials) != 1 {
		t.Errorf("%d dials", len(s.dials))
	}
	for _, c := range s.conns { // the peer closes it: no failure
		c.end(GoneClosed, nil)
	}
	s.send(0, "u@x.test")
	s.finish(11)
	if len(h.got) != 11 || len(s.dials) != 2 {
		t.Errorf("%d delivered over %d connections", len(h.got), len(s.dials))
	}
}

// TestMailDoesNotWaitForQuit: mail that comes while the only connection says QUIT gets another at once.
func TestMailDoesNotWaitForQuit(t *testing.T) {
	s := newSim(t, 1, 1, func(o *Options) { o.GrowAfter = time.Hour })
	s.mx("x.test", "10 a 192.0.2.1")
	h := s.host("192.0.2.1")
	s.send(0, "u@x.test")
	s.run(4 * time.Second)
	h.latency = time.Minute // of the QUIT
	s.run(6 * time.Second)
	h.latency = 10 * time.Millisecond
	s.send(0, "v@x.test")
	s.run(7 * time.Second)
	if got := s.history("v@x.test"); got != "delivered@6s" || len(s.dials) != 2 {
		t.Errorf("%q, %d dials", got, len(s.dials))
	}
	s.finish(2)
}

func TestResolverWithoutRoom(t *testing.T) {
	s := newSim(t, 1, 1, func(o *Options) { o.Lookups = 3 })
	s.refuse = 2
	for i := range 20 {
		s.mx(fmt.Sprintf("d%d.test", i), "10 a 192.0.2.1")
	}
	s.host("192.0.2.1")
	for i := range 20 {
		s.send(0, fmt.Sprintf("u@d%d.test", i))
	}
	if n := s.router.Totals().Resolving; n != 20 {
		t.Errorf("%d wait", n)
	}
	s.finish(20)
	if s.lookups != 20 {
		t.Errorf("%d lookups", s.lookups)
	}
}

func TestRecovered(t *testing.T) {
	s := newSim(t, 2, 1, nil)
	s.mx("x.test", "10 a 192.0.2.1")
	s.host("192.0.2.1")
	m := s.message("0@x.test", "1@x.test", "2@x.test", "3@x.test", "4@x.test", "5@x.test")
	for i, r := range []message.Recipient{
		{State: message.Delivered},
		{State: message.Deferred, Due: start.Add(time.Hour).UnixNano(), Attempts: 3},
		{State: message.Deferred, Due: start.Add(time.Hour).UnixNano(), Attempts: 3},
		{State: message.Deferred, Due: start.Add(2 * time.Hour).UnixNano(), Attempts: 3},
		{State: message.Deferred, Due: start.Add(-time.Hour).UnixNano(), Attempts: 2},
		{State: message.Bounced},
	} {
		r.Address = m.Recipients[i].Address
		m.Recipients[i] = r
	}
	s.router.Dispatch(1, m)
	if n := s.router.Totals().Deferred; n != 3 {
		t.Errorf("%d wait", n)
	}
	s.finish(4)
	for address, want := range map[string]string{"0@x.test": "", "1@x.test": "delivered@1h0m0s", "2@x.test": "delivered@1h0m0s", "3@x.test": "delivered@2h0m0s", "4@x.test": "delivered@0s", "5@x.test": ""} {
		if got := s.history(address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}

func TestDrain(t *testing.T) {
	s := newSim(t, 1, 1, func(o *Options) { o.SiteConnections = 2 })
	s.mx("x.test", "10 a 192.0.2.1")
	h := s.host("192.0.2.1")
	h.latency, h.window = 100*time.Millisecond, 2
	for range 100 {
		s.send(0, "u@x.test")
	}
	s.run(time.Second)
	under := s.router.Totals().Transactions
	done := len(h.got)
	s.router.Drain(0)
	s.run(10 * time.Second)
	if got := s.router.Totals(); got.Transactions != 0 || got.Connections != 0 {
		t.Errorf("%+v", got)
	}
	if len(h.got) != done+int(under) || under == 0 {
		t.Errorf("%d delivered with %d under way, then %d", done, under, len(h.got))
	}
}

func TestTightMemory(t *testing.T) {
	tight := false
	s := newSim(t, 1, 1, func(o *Options) { o.Tight = func() bool { return tight } })
	s.mx("x.test", "10 a 192.0.2.1")
	h := s.host("192.0.2.1")
	h.latency = time.Second
	s.send(0, "u@x.test")
	s.run(100 * time.Millisecond)
	tight = true
	used := s.budget.Used()
	for range 100 {
		s.send(0, "u@x.test")
	}
	s.run(200 * time.Millisecond)
	if s.budget.Used() != used {
		t.Errorf("%d bytes held, before %d", s.budget.Used(), used)
	}
	s.finish(101)
}
