package router

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mailrace/proto/message"
)

func TestFailover(t *testing.T) {
	for _, c := range []struct {
		name  string
		down  string
		order string // of dials; [xy] = in either order
	}{
		{"all up", "", "a"},
		{"best down", "1 11", "a a b|a a c"},
		{"first address down", "1", "a a"},
		{"best and both seconds down", "1 11 2 3", "a a b c d|a a c b d"},
		{"all down", "1 11 2 3 4", "a a b c d|a a c b d"},
	} {
		seen := map[string]bool{}
		for seed := range uint64(20) {
			s := newSim(t, 2, seed, nil)
			s.mx("x.test", "10 a 192.0.2.1 192.0.2.11", "20 b 192.0.2.2", "20 c 192.0.2.3", "30 d 192.0.2.4")
			for _, n := range []string{"1", "11", "2", "3", "4"} {
				s.host("192.0.2." + n).down = slices.Contains(strings.Fields(c.down), n)
			}
			s.send(0, "u@x.test")
			s.run(10 * time.Second)
			got := strings.Join(s.dials, " ")
			if seen[got] = true; !slices.Contains(strings.Split(c.order, "|"), got) {
				t.Fatalf("%s: dialed %s, want %s", c.name, got, c.order)
			}
			want := "delivered@0s"
			if c.name == "all down" {
				want = "deferred@0s"
			}
			if got := s.history("u@x.test"); got != want {
				t.Fatalf("%s: %s", c.name, got)
			}
		}
		if len(seen) != strings.Count(c.order, "|")+1 {
			t.Errorf("%s: orders %v", c.name, seen)
		}
	}
}

func TestRefusedSessions(t *testing.T) {
	for _, banner := range []Outcome{busy, {Class: Bounced, Code: 554, Enhanced: "5.7.1", Text: "go away", Remote: true}} {
		s := newSim(t, 1, 1, nil)
		s.mx("x.test", "10 a 192.0.2.1", "20 b 192.0.2.2")
		s.host("192.0.2.1").banner = &banner
		s.host("192.0.2.2").banner = &banner
		s.send(0, "u@x.test")
		s.run(10 * time.Second)
		if strings.Join(s.dials, " ") != "a b" || s.history("u@x.test") != "deferred@0s" {
			t.Errorf("%d: dialed %v, %s", banner.Code, s.dials, s.history("u@x.test"))
		}
		if o := s.log[0].out; o.Code != banner.Code || o.Host != "b" || o.Enhanced[0] != '4' || !o.Remote {
			t.Errorf("%+v", o)
		}
	}
}

// TestDenied: credentials that one address refuses are not tried at another. The site waits longer and longer between tries, however much mail
// comes, and goes on when they are right again.
func TestDenied(t *testing.T) {
	wrong := Outcome{Class: Bounced, Code: 535, Enhanced: "5.7.8", Text: "wrong password"}
	s := newSim(t, 1, 1, func(o *Options) { o.Jitter = -1 })
	s.mx("x.test", "10 a 192.0.2.1 192.0.2.2", "20 b 192.0.2.3")
	s.host("192.0.2.1").denied = &wrong
	for _, other := range []string{"192.0.2.2", "192.0.2.3"} {
		s.host(other).denied = &wrong
	}
	s.send(0, "u@x.test")
	for range 100 {
		s.send(0, "v@x.test")
	}
	s.run(time.Minute)
	if len(s.dials) != 1 || s.history("u@x.test") != "deferred@0s" {
		t.Fatalf("dialed %v, %s", s.dials, s.history("u@x.test"))
	}
	if o := s.log[0].out; o.Code != 535 || o.Enhanced != "4.7.8" || o.Class != Deferred || o.Text != "wrong password" {
		t.Errorf("%+v", o)
	}
	s.run(time.Hour)
	if n := len(s.dials); n < 2 || n > 5 {
		t.Errorf("%d tries in an hour", n)
	}
	for _, h := range s.hosts {
		h.denied = nil
	}
	s.run(4 * time.Hour)
	if got := s.history("u@x.test"); !strings.Contains(got, "delivered@") || strings.Contains(got, "bounced") {
		t.Error(got)
	}
}

// TestSiteBackoff: a site that is down costs one round of dials for each period, however much mail waits, and comes back with one connection.
func TestSiteBackoff(t *testing.T) {
	s := newSim(t, 2, 1, nil)
	s.mx("x.test", "10 a 192.0.2.1", "20 b 192.0.2.2")
	s.host("192.0.2.1").down, s.host("192.0.2.2").down = true, true
	for range 1000 {
		s.send(0, "u@x.test")
	}
	s.run(time.Minute)
	if len(s.dials) != 2 {
		t.Errorf("%d dials", len(s.dials))
	}
	if n := s.router.Totals(); n.Deferred != 1000 || n.Backoff != 1 || n.Queued != 0 || n.Connections != 0 {
		t.Errorf("%+v", n)
	}
	if s.budget.Used() != 0 {
		t.Error("deferred mail keeps its content in memory")
	}
	late := s.send(1, "late@x.test") // it waits without an attempt
	s.run(2 * time.Minute)
	if r := late.Recipients[0]; r.State != message.Deferred || r.Attempts != 0 || !strings.Contains(r.Reply, "refused") || len(s.dials) != 2 {
		t.Errorf("%+v, %d dials", r, len(s.dials))
	}
	s.run(30 * time.Minute)
	if n := len(s.dials); n < 4 || n > 8 {
		t.Errorf("%d dials in half an hour", n)
	}
	s.host("192.0.2.1").down = false
	s.finish(1001)
	if got := s.host("192.0.2.1").got; len(got) != 1001 {
		t.Errorf("%d delivered", len(got))
	}
}

func TestSitesAreDescribed(t *testing.T) {
	s := newSim(t, 1, 1, nil)
	s.mx("x.test", "10 a 192.0.2.1")
	s.mx("y.test", "10 b 192.0.2.2")
	s.host("192.0.2.1").down = true
	s.host("192.0.2.2")
	s.send(0, "u@x.test")
	s.send(0, "u@y.test")
	s.run(time.Second)
	sites := s.router.Sites(0)
	slices.SortFunc(sites, func(a, b SiteStatus) int { return strings.Compare(a.Site, b.Site) })
	if len(sites) != 2 {
		t.Fatalf("%+v", sites)
	}
	if x := sites[0]; x.Site != "10a" || x.Failures != 1 || x.Backoff.IsZero() || x.LastError != "4.4.1 connection refused" || x.Connections != 0 {
		t.Errorf("%+v", x)
	}
	if y := sites[1]; y.Site != "10b" || y.Connections != 1 || y.Idle != 1 || y.LastError != "" {
		t.Errorf("%+v", y)
	}
	s.finish(2)
}

func TestLostConnections(t *testing.T) {
	for _, c := range []struct {
		name string
		fate fate
		want map[string]string
	}{
		{"before the dot", lostBeforeDot, map[string]string{"0@x.test": "delivered", "1@x.test": "delivered", "2@x.test": "delivered"}},
		{"after the dot", lostAfterDot, map[string]string{"0@x.test": "deferred", "1@x.test": "delivered", "2@x.test": "delivered"}},
		{"421", says421, map[string]string{"0@x.test": "delivered", "1@x.test": "delivered", "2@x.test": "delivered"}},
	} {
		s := newSim(t, 1, 1, func(o *Options) { o.SiteConnections = 1 })
		s.mx("x.test", "10 a 192.0.2.1", "20 b 192.0.2.2")
		a := s.host("192.0.2.1")
		s.host("192.0.2.2")
		a.window = 3
		once := c.fate
		a.breaks = func(int, *Transaction) fate { f := once; once = fine; return f }
		for i := range 3 {
			s.send(0, fmt.Sprintf("%d@x.test", i))
		}
		s.run(10 * time.Second)
		for address, want := range c.want {
			if got := s.history(address); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %s: %s, want %s", c.name, address, got, want)
			}
		}
		for _, e := range s.log {
			if e.out.InDoubt != (e.state == message.Deferred) || e.out.InDoubt && (e.out.Enhanced != "4.4.2" || e.out.Host != "a") {
				t.Errorf("%s: %+v", c.name, e.out)
			}
		}
		s.finish(3)
	}
}

// TestInDoubt: what is done about a delivery in doubt is what the options say.
func TestInDoubt(t *testing.T) {
	for action, want := range map[message.DoubtAction]string{
		message.DoubtRetry: "deferred@0s delivered@5m0s", message.DoubtWait: "deferred@0s", message.DoubtGiveUp: "bounced@0s",
	} {
		s := newSim(t, 1, 1, func(o *Options) { o.InDoubt, o.SiteConnections = action, 1 })
		s.mx("x.test", "10 a 192.0.2.1")
		once := lostAfterDot
		s.host("192.0.2.1").breaks = func(int, *Transaction) fate { f := once; once = fine; return f }
		m := s.send(0, "0@x.test")
		s.run(10 * 24 * time.Hour) // longer than any message lives
		r := &m.Recipients[0]
		if got := s.history("0@x.test"); got != want {
			t.Errorf("%v: %s, want %s", action, got, want)
		}
		if d := r.Doubt; d == nil || d.Cause != message.DoubtConnection || d.Action != action || d.Times != 1 || d.Attempt != 1 || !d.Peer.IsValid() {
			t.Errorf("%v: %+v", action, d)
		}
		if action == message.DoubtWait && (r.Due != message.Never || r.Attempts != 1 || !r.Waits()) {
			t.Errorf("%v: %+v", action, r)
		}
	}
}

// TestPoison: a message on which every connection breaks is deferred after a few tries and does not hold up the others.
func TestPoison(t *testing.T) {
	s := newSim(t, 1, 1, func(o *Options) { o.Expire = 6 * time.Hour })
	s.mx("x.test", "10 a 192.0.2.1", "20 b 192.0.2.2")
	for _, addr := range []string{"192.0.2.1", "192.0.2.2"} {
		s.host(addr).breaks = func(_ int, tx *Transaction) fate {
			if tx.Message.Recipients[0].Address == "poison@x.test" {
				return lostBeforeDot
			}
			return fine
		}
	}
	s.send(0, "poison@x.test")
	for i := range 50 {
		s.send(0, fmt.Sprintf("%d@x.test", i))
	}
	s.run(time.Minute)
	for i := range 50 {
		if got := s.history(fmt.Sprintf("%d@x.test", i)); got != "delivered@0s" {
			t.Errorf("%d: %s", i, got)
		}
	}
	if got := s.history("poison@x.test"); !strings.HasPrefix(got, "deferred@0s") {
		t.Error(got)
	}
	s.finish(51)
	if got := s.history("poison@x.test"); !strings.HasSuffix(got, "expired@6h0m0s") {
		t.Error(got)
	}
}

// TestBusyHostIsNotDown: a host that refuses further connections while it serves others keeps its mail.
func TestBusyHostIsNotDown(t *testing.T) {
	s := newSim(t, 1, 1, nil)
	s.mx("x.test", "10 a 192.0.2.1", "20 backup 192.0.2.2")
	h, backup := s.host("192.0.2.1"), s.host("192.0.2.2")
	h.breaks = func(int, *Transaction) fate {
		if h.conns >= 2 {
			h.banner = &busy
		}
		return fine
	}
	for range 500 {
		s.send(0, "u@x.test")
	}
	s.finish(500)
	if len(h.got) != 500 || len(backup.got) != 0 {
		t.Errorf("%d, %d to the backup", len(h.got), len(backup.got))
	}
}

// TestInsecureHosts: where TLS is demanded a host that cannot is passed over like one that is down, and says why mail waits; routes that demand
// less go on to the same hosts.
func TestInsecureHosts(t *testing.T) {
	s := newSim(t, 2, 1, func(o *Options) {
		table, err := NewTable([]Route{{Domains: []string{"*"}}, {Domains: []string{"strict.test", "one.test"}, TLS: TLSVerified}})
		if err != nil {
			t.Fatal(err)
		}
		o.Table = table
	})
	for _, domain := range []string{"strict.test", "lax.test"} {
		s.mx(domain, "10 a 192.0.2.1")
	}
	s.mx("one.test", "10 a 192.0.2.1", "20 b 192.0.2.2")
	s.host("192.0.2.1").insecure = true
	s.host("192.0.2.2")
	s.send(0, "u@strict.test")
	s.send(0, "u@lax.test")
	s.send(1, "u@one.test")
	s.run(time.Minute)
	for address, want := range map[string]string{"u@strict.test": "deferred@0s", "u@lax.test": "delivered@0s", "u@one.test": "delivered@0s"} {
		if got := s.history(address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
	for _, e := range s.log {
		if e.address == "u@strict.test" && (e.out.Enhanced != "4.7.5" || e.out.Text != "bad certificate") || e.address == "u@one.test" && e.out.Host != "b" {
			t.Errorf("%s: %+v", e.address, e.out)
		}
	}
	for i := range 2 {
		for _, site := range s.router.Sites(i) {
			if backed := !site.Backoff.IsZero(); backed != (site.Site == "10a" && site.LastError != "") {
				t.Errorf("%+v", site)
			}
		}
	}
	s.host("192.0.2.1").insecure = false
	s.finish(3)
}
