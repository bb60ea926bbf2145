package router

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"mailrace/proto/message"
)

// TestSlowSiteThatNobodyAsks: should nobody bring what a site asks for, its mail comes when it is due, and what is due too early is written a few
// times at most.
func TestSlowSiteThatNobodyAsks(t *testing.T) {
	const limit, n = 1000, 10_000
	s := newDiskSim(t, 2, limit, 1, fiveConnections)
	s.disk.asked = false
	h := s.slowSite(10)
	for i := range n {
		s.disk.accept(i%2, s.message(fmt.Sprintf("u%d@slow.test", i)))
		s.disk.check()
	}
	s.finishDisk(n)
	if len(h.got) != n {
		t.Errorf("%d of %d arrived", len(h.got), n)
	}
	most, text := s.disk.written()
	t.Logf("index writes × messages: %s", text)
	if most > 12 {
		t.Errorf("written %d times", most)
	}
}

// TestBacklogFollowsTheRate: a site that becomes a hundred times as fast is served at once, and one that becomes slower or fails does not have its
// mail written again and again.
func TestBacklogFollowsTheRate(t *testing.T) {
	const limit, n = 1000, 8000
	for name, c := range map[string]struct {
		change func(h *host)
		done   time.Duration // all is delivered by then
		most   int           // writes of a message
	}{
		"faster": {func(h *host) { h.latency /= 100 }, 2 * time.Minute, 2},
		"slower": {func(h *host) { h.latency *= 4 }, 2 * time.Hour, 9},
		"fails":  {func(h *host) { h.down = true }, 3 * time.Hour, 9}, // its attempts, too
	} {
		t.Run(name, func(t *testing.T) {
			s := newDiskSim(t, 2, limit, 1, fiveConnections)
			s.recording = false
			h := s.slowSite(10)
			for i := range n {
				s.disk.accept(i%2, s.message(fmt.Sprintf("u%d@slow.test", i)))
			}
			s.run(time.Minute)
			c.change(h)
			if s.run(20 * time.Minute); h.down {
				h.down = false
			}
			s.run(c.done)
			if len(h.got) != n {
				t.Errorf("%d of %d are delivered after %v", len(h.got), n, c.done)
			}
			most, text := s.disk.written()
			if t.Logf("index writes × messages: %s; %d queries", text, s.disk.queries); most > c.most {
				t.Errorf("written %d times", most)
			}
			s.finishDisk(n)
		})
	}
}

// TestManySlowSites: each of many slow sites gets its part of the memory, and others always find room.
func TestManySlowSites(t *testing.T) {
	const limit, sites, each = 2000, 30, 500
	s := newDiskSim(t, 4, limit, 3, fiveConnections)
	s.recording = false
	s.mx("fast.test", "10 mx.fast.test 192.0.2.250")
	s.host("192.0.2.250")
	for i := range sites {
		s.mx(fmt.Sprintf("s%d.test", i), fmt.Sprintf("10 mx%d.test 192.0.2.%d", i, i+1))
		s.host(fmt.Sprintf("192.0.2.%d", i+1)).latency = 2 * time.Second
	}
	for i := range each {
		for site := range sites {
			s.disk.accept(site%4, s.message(fmt.Sprintf("u%d@s%d.test", i, site)))
		}
		s.run(s.now.Sub(start) + 10*time.Millisecond)
		s.disk.check()
	}
	others := 0
	for range 60 {
		m := s.message(fmt.Sprintf("o%d@fast.test", others))
		s.disk.accept(others%4, m)
		others++
		s.run(s.now.Sub(start) + time.Second)
		if got := len(s.host("192.0.2.250").got); got != others || s.disk.writes[m.ID] > 0 {
			t.Fatalf("%d of %d messages to the fast site are delivered, with %d recipients in memory", got, others, s.router.room.held.Load())
		}
	}
	s.finishDisk(sites*each + others)
	_, text := s.disk.written()
	t.Logf("index writes × messages: %s; %d queries", text, s.disk.queries)
	for i := range sites {
		if got := len(s.host(fmt.Sprintf("192.0.2.%d", i+1)).got); got != each {
			t.Errorf("site %d got %d", i, got)
		}
	}
}

// TestBacklogKeepsWishes: of a slow site's mail what is urgent overtakes, what has a deadline meets it, what is held waits for its release, and what
// is too old expires without an attempt.
func TestBacklogKeepsWishes(t *testing.T) {
	const limit, n = 400, 3000
	s := newDiskSim(t, 2, limit, 1, func(o *Options) { o.SiteConnections, o.Expire = 5, 20*time.Minute })
	s.slowSite(1) // in 20 minutes it takes 1200
	wish := func(w message.Wishes, address string) {
		m := s.message(address)
		m.Wishes = &w
		s.disk.accept(0, m)
	}
	for i := range n {
		s.disk.accept(i%2, s.message(fmt.Sprintf("u%d@slow.test", i)))
		s.run(s.now.Sub(start) + time.Millisecond)
	}
	wish(message.Wishes{Priority: 5}, "urgent@slow.test")
	wish(message.Wishes{Priority: -5}, "bulk@slow.test")
	wish(message.Wishes{ByMode: message.ByReturn, Deadline: in(5 * time.Minute)}, "return@slow.test")
	wish(message.Wishes{ByMode: message.ByNotify, Deadline: in(5 * time.Minute)}, "notify@slow.test")
	wish(message.Wishes{Release: in(10 * time.Minute)}, "held@slow.test")
	s.finishDisk(n + 5)
	expired := 0
	for _, e := range s.log {
		if e.address == "bulk@slow.test" && e.at < 19*time.Minute {
			t.Errorf("bulk did not wait for the others: %v at %v", e.state, e.at)
		}
		if e.state == message.Expired {
			expired++
			if e.out.Attempt > 0 || e.out.Enhanced != "4.4.7" || e.at < 19*time.Minute {
				t.Fatalf("%+v", e)
			}
		}
	}
	for address, want := range map[string]string{
		"urgent@slow.test": "delivered@10s", "return@slow.test": "bounced@5m0s", "notify@slow.test": "late@5m0s", "held@slow.test": "held@3s",
	} {
		if got := s.history(address); len(got) < len(want) || got[:len(want)] != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
	most, text := s.disk.written()
	t.Logf("index writes × messages: %s; %d expired", text, expired)
	if expired < n-1500 || expired > n-1100 || most > 6 {
		t.Errorf("%d of %d expired, written %d times", expired, n, most)
	}
}

// TestBacklogOverRestart: what was put back before a restart is asked for after it.
func TestBacklogOverRestart(t *testing.T) {
	const limit, n = 500, 4000
	s := newDiskSim(t, 2, limit, 1, fiveConnections)
	s.slowSite(10)
	for i := range n {
		s.disk.accept(i%2, s.message(fmt.Sprintf("u%d@slow.test", i)))
	}
	s.run(time.Second)
	parked := s.disk.entries

	s = newDiskSim(t, 2, limit, 2, fiveConnections)
	s.slowSite(1000)
	h := s.host("192.0.2.1")
	s.nextID = n
	left := s.disk.find(parked)
	s.disk.accept(0, s.message("first@slow.test"))
	s.run(20 * time.Second)
	if len(h.got) != left+1 {
		t.Errorf("%d of %d are delivered", len(h.got), left+1)
	}
	s.finishDisk(left + 1)
}

// TestBacklogAtRandom: whatever happens, every recipient is settled once, and the memory is within its bound.
func TestBacklogAtRandom(t *testing.T) {
	for seed := range uint64(8) {
		const limit = 300
		rng := rand.New(rand.NewPCG(seed, 5))
		s := newDiskSim(t, 1+int(seed)%4, limit, seed, func(o *Options) { o.SiteConnections, o.Lookups, o.Expire = 4, 2, 12*time.Hour })
		s.recording = false
		s.latency = time.Duration(rng.IntN(3000)) * time.Millisecond
		for i := range 6 {
			s.mx(fmt.Sprintf("s%d.test", i), fmt.Sprintf("10 mx%d.test 192.0.2.%d", i/2, i/2+1)) // two domains for each site
			h := s.host(fmt.Sprintf("192.0.2.%d", i/2+1))
			h.latency = time.Duration(rng.IntN(4000)+1) * time.Millisecond
			h.reply = func(*Transaction, int) Outcome {
				return []Outcome{delivered, delivered, delivered, later, never}[rng.IntN(5)]
			}
			h.breaks = func(int, *Transaction) fate {
				if rng.IntN(50) == 0 {
					return fate(rng.IntN(4))
				}
				return fine
			}
		}
		total := 0
		for range 1500 {
			var to []string
			for range 1 + rng.IntN(4)*rng.IntN(2) {
				to = append(to, fmt.Sprintf("u%d@s%d.test", total, rng.IntN(7))) // s6.test does not exist
				total++
			}
			m := s.message(to...)
			if rng.IntN(10) == 0 {
				m.Wishes = &message.Wishes{Priority: int8(rng.IntN(19) - 9)}
			}
			if rng.IntN(20) == 0 {
				m.Wishes = &message.Wishes{ByMode: message.ByMode(rng.IntN(3)), Deadline: s.now.Add(time.Duration(rng.IntN(7200)) * time.Second).UnixNano(),
					Release: s.now.Add(time.Duration(rng.IntN(600)-300) * time.Second).UnixNano()}
			}
			s.disk.accept(rng.IntN(len(s.router.schedulers)), m)
			s.disk.check()
			if rng.IntN(3) == 0 {
				s.run(s.now.Sub(start) + time.Duration(rng.IntN(300))*time.Millisecond)
			}
			if rng.IntN(200) == 0 {
				h := s.host(fmt.Sprintf("192.0.2.%d", 1+rng.IntN(3)))
				h.down = !h.down
			}
		}
		for i := range 3 {
			s.host(fmt.Sprintf("192.0.2.%d", i+1)).down = false
		}
		s.finishDisk(total)
		if s.router.room.crowded.Load() > 3 {
			t.Errorf("seed %d: %d backlogs are left", seed, s.router.room.crowded.Load())
		}
	}
}
