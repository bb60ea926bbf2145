package auth

import (
	"net/netip"
	"sync"
	"time"
)

// Bounds of what guard remembers. It forgets something when they are reached, and never grows.
const (
	guardNames = 1 << 16
	guardHomes = 1 << 16
	homeTime   = 7 * 24 * time.Hour
)

// guard counts failed tries by name, so that a password that many addresses guess at is not guessed for long, and costs few hashes. Addresses at
// which the user has been right are left out of that: who attacks an account must not lock its owner out. Addresses as such are counted by the
// doors.
type guard struct {
	most   int // failed tries of a name in a window; 0 = any number
	window time.Duration

	mu    sync.Mutex
	names map[string]*tries
	homes map[home]time.Time // until when
}

// tries are the failures of a name in the running window, by its number, and in the one before.
type tries struct {
	window      int64
	now, before int
}

// home is a user at an address, or in a /64 of IPv6.
type home struct {
	name string
	at   netip.Prefix
}

func homeOf(name string, at netip.Addr) home {
	bits := 32
	if at = at.Unmap(); at.Is6() {
		bits = 64
	}
	p, _ := at.WithZone("").Prefix(bits)
	return home{fold(name), p}
}

func newGuard(most int, window time.Duration) *guard {
	return &guard{most: most, window: window, names: map[string]*tries{}, homes: map[home]time.Time{}}
}

// blocks says whether a name may not be tried from an address now.
func (g *guard) blocks(name string, at netip.Addr, now time.Time) bool {
	if g.most == 0 {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.names[fold(name)]
	if t == nil {
		return false
	}
	n, part := g.time(now)
	if t.turn(n); t.now+int(float64(t.before)*part) < g.most {
		return false
	}
	until, known := g.homes[homeOf(name, at)]
	return !known || !now.Before(until) || !at.IsValid() // who is somewhere unknown is not at home
}

// failed counts a failed try.
func (g *guard) failed(name string, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, _ := g.time(now)
	t := g.names[fold(name)]
	if t == nil {
		if len(g.names) >= guardNames {
			g.sweep(n)
		}
		t = &tries{window: n}
		g.names[fold(name)] = t
	}
	t.turn(n)
	t.now++
}

// sweep makes room, by a look at a few: names without failures in this window and the one before go, or else any.
func (g *guard) sweep(window int64) {
	looked := 0
	for name, t := range g.names {
		if looked++; looked == fewLooks && len(g.names) >= guardNames || t.window+1 < window {
			delete(g.names, name)
		}
		if looked == fewLooks {
			return
		}
	}
}

// right notes that a user was right at an address.
func (g *guard) right(name string, at netip.Addr, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	h := homeOf(name, at)
	if _, ok := g.homes[h]; !ok && len(g.homes) >= guardHomes {
		for old := range g.homes {
			delete(g.homes, old)
			break
		}
	}
	g.homes[h] = now.Add(homeTime)
}

// time is the number of the window, and what part of the last one still lies within a window from now.
func (g *guard) time(now time.Time) (window int64, part float64) {
	ns, w := now.UnixNano(), int64(g.window)
	return ns / w, 1 - float64(ns%w)/float64(w)
}

func (t *tries) turn(window int64) {
	if window <= t.window {
		return
	}
	if t.before = 0; window == t.window+1 {
		t.before = t.now
	}
	t.now, t.window = 0, window
}
