package router

import (
	"testing"
	"time"

	"mailrace/proto/message"
)

// TestTurnsSurviveProbes: a source that is tried costs the others nothing of their turn, so that the shares are exact when it is back.
func TestTurnsSurviveProbes(t *testing.T) {
	s := pooled(t, 1, "a b c", map[string]string{"p": "a:5 b:3 c:2"}, nil)
	f, owner, p := &fork{sites: make([]*Site, 4), v4: true}, s.router.schedulers[0], s.router.sources.pools["p"]
	last := p.members[2].source
	for range 20 {
		last.until.Store(1) // it is out, and may be tried
		if src, probe := f.choose(owner, p, owner.now()); src != last || !probe {
			t.Fatalf("chosen %s, probe %v", src.title(), probe)
		}
	}
	last.until.Store(0)
	got := map[string]int{}
	for range 100 {
		src, _ := f.choose(owner, p, owner.now())
		got[src.title()]++
	}
	if got["a"] != 50 || got["b"] != 30 || got["c"] != 20 {
		t.Errorf("from %v", got)
	}
}

// TestBackOnce: what came back from the disk is counted once, also if its source goes out of service and another one takes it.
func TestBackOnce(t *testing.T) {
	s := newDiskSim(t, 1, 20_000, 1, func(o *Options) {
		o.Sources = []Source{{Name: "a", IPv4: true}, {Name: "b", IPv4: true}}
		o.Pools, o.Pool = []Pool{{Name: "p", Members: []Member{{"a", 1}, {"b", 1}}}}, "p"
	})
	s.mx("slow.test", "10 mx.slow.test 192.0.2.1")
	s.host("192.0.2.1").latency = time.Hour
	m := s.message("u@slow.test")
	s.disk.accept(0, m)
	s.run(time.Second)
	var site *Site
	for _, other := range s.router.schedulers[0].sites {
		site = other
	}
	b, _ := s.router.room.open(site.tag)
	b.away[normal], b.coming = 5, 1 // others are on their way to the disk
	again := s.message("v@slow.test")
	again.Parked = time.Minute.Nanoseconds()&^tagMask | int64(site.tag)
	again.Recipients[0].State = message.Deferred
	s.disk.accept(0, again)
	s.run(2 * time.Second)
	if got := b.waiting(); got != 4 {
		t.Fatalf("%d are away", got)
	}
	s.router.schedulers[0].takeOut(site.key.source, false, "refused")
	s.run(3 * time.Second)
	if got := b.waiting(); got != 4 {
		t.Errorf("%d are away", got)
	}
}
