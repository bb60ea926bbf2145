package mx

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

const (
	cacheLocks = 64
	cacheWays  = 3 // places of a line
	cacheTries = 4 // of a reader who meets a writer, before it takes the lock
)

// cache remembers answers, at most so many, also expired ones, until their places are wanted. It is set-associative: the name says in which line
// of three places its answer is, or in the one beside it; a new answer takes a place that is free, or one that was not used for the longest (the
// clock algorithm). A line is one line of the processor's memory, so that a lookup waits for memory once, seldom twice, however many names there
// are, and readers take no lock. A place is known by a second hash of the name, of 64 bits. Both hashes are seeded at random, so nobody can
// make two names meet; by chance it happens once in 90,000 years of a million new names a second.
//
// Libraries were measured first: with a million names, maypok86/otter/v2 and hashicorp/golang-lru/v2 take four times as long for a lookup and
// three to five times the memory of a place, as does a map, for each goes through a table, a node and the key itself; dgraph-io/ristretto/v2 drops
// answers under load. go test -run '^$' -bench Cached ./router/mx
type cache struct {
	set, tag maphash.Seed
	lines    []cacheLine // an even number; 2n and 2n+1 are beside each other
	locks    [cacheLocks]struct {
		sync.Mutex          // of those who write into every 64th pair of lines
		_          [56]byte // the next lock is in another line
	}
	filled atomic.Int64 // places
}

// cacheLine is 64 bytes. It is read without a lock: what was read between two equal, even versions is of a piece.
type cacheLine struct {
	state   atomic.Uint32            // bit i: place i was used since the hand passed. From cacheHand on, where the hand is; from cacheVersion on, the version: odd = somebody writes
	due     [cacheWays]atomic.Uint32 // Unix seconds: from then on the entry is to be looked at: it expired, or is to be refreshed, or is stale
	tags    [cacheWays]atomic.Uint64 // of each place; 0 = free
	entries [cacheWays]atomic.Pointer[entry]
}

const (
	cacheHand    = 4
	cacheVersion = 8
)

// newCache returns a cache of about so many entries. Memory that no entry was in yet is not resident.
func newCache(entries int) *cache {
	pairs := (entries + 2*cacheWays - 1) / (2 * cacheWays)
	return &cache{set: maphash.MakeSeed(), tag: maphash.MakeSeed(), lines: make([]cacheLine, 2*pairs)}
}

// room is the number of places.
func (c *cache) room() int { return len(c.lines) * cacheWays }

// find returns in which line q belongs, and the tag by which it is known there.
func (c *cache) find(q Query) (at, tag uint64) {
	at, _ = bits.Mul64(maphash.String(c.set, q.Name)+uint64(q.Kind)<<56, uint64(len(c.lines)))
	return at, max(maphash.String(c.tag, q.Name)+uint64(q.Kind), 1)
}

// get returns the entry of q, or nil, also if it expired long ago. due says that this has to be checked, or that the entry is to be refreshed;
// busy, that it was used since it was put there, or since the cache looked for a victim.
func (c *cache) get(q Query, now int64) (e *entry, due, busy bool) {
	at, tag := c.find(q)
	for range cacheTries {
		var whole bool
		if e, due, busy, whole = c.lines[at].get(tag, now); e == nil && whole {
			e, due, busy, whole = c.lines[at^1].get(tag, now)
		}
		if whole {
			return e, due, busy
		}
	}
	lock := c.lock(at)
	defer lock.Unlock()
	if e, due, busy, _ = c.lines[at].get(tag, now); e == nil {
		e, due, busy, _ = c.lines[at^1].get(tag, now)
	}
	return e, due, busy
}

// get looks for a tag. whole says that nobody wrote meanwhile.
func (l *cacheLine) get(tag uint64, now int64) (e *entry, due, busy, whole bool) {
	state := l.state.Load()
	for i := range l.tags {
		if l.tags[i].Load() == tag {
			if busy = state&(1<<i) != 0; !busy {
				l.state.Or(1 << i)
			}
			e, due = l.entries[i].Load(), now >= int64(l.due[i].Load())
			break
		}
	}
	return e, due, busy, state>>cacheVersion&1 == 0 && l.state.Load()>>cacheVersion == state>>cacheVersion
}

// lock keeps others from writing into a line and the one beside it.
func (c *cache) lock(at uint64) *sync.Mutex {
	lock := &c.locks[at/2%cacheLocks].Mutex
	lock.Lock()
	return lock
}

// place returns where a tag is: l.entries[i], or nil. The caller has the lock.
func (c *cache) place(at, tag uint64) (l *cacheLine, i int) {
	for _, l := range []*cacheLine{&c.lines[at], &c.lines[at^1]} {
		for i := range l.tags {
			if l.tags[i].Load() == tag {
				return l, i
			}
		}
	}
	return nil, 0
}

// peek is get that leaves no trace.
func (c *cache) peek(q Query) *entry {
	at, tag := c.find(q)
	defer c.lock(at).Unlock()
	if l, i := c.place(at, tag); l != nil {
		return l.entries[i].Load()
	}
	return nil
}

// put remembers e, in place of what was known before.
func (c *cache) put(e *entry) {
	due := min(e.refresh, uint32(e.Expires.Unix()))
	if e.Stale {
		due = 0
	}
	at, tag := c.find(e.Query)
	defer c.lock(at).Unlock()
	l, i := c.place(at, tag)
	if l == nil {
		if l, i = c.place(at, 0); l != nil {
			c.filled.Add(1)
		} else {
			l = &c.lines[at]
			i = l.victim()
		}
	}
	l.state.Add(1 << cacheVersion)
	l.tags[i].Store(tag)
	l.entries[i].Store(e)
	l.due[i].Store(due)
	l.state.And(^uint32(1 << i))
	l.state.Add(1 << cacheVersion)
}

// claim says whether the caller is to have e, which is due, asked for again: one of all who want to know is. In refreshPause it is due again, if
// that failed.
func (c *cache) claim(e *entry, now time.Time) bool {
	at, tag := c.find(e.Query)
	defer c.lock(at).Unlock()
	l, i := c.place(at, tag)
	if l == nil || l.entries[i].Load() != e || int64(l.due[i].Load()) > now.Unix() {
		return false
	}
	l.due[i].Store(uint32(min(e.Expires.Unix(), now.Add(refreshPause).Unix())))
	return true
}

// victim returns the place of what is missed least. The caller has the lock.
func (l *cacheLine) victim() int {
	state := l.state.Load()
	hand := int(state>>cacheHand&3) % cacheWays
	passed := uint32(0)
	for state&(1<<hand)&^passed != 0 {
		passed |= 1 << hand
		hand = (hand + 1) % cacheWays
	}
	l.state.And(^(passed | 3<<cacheHand))
	l.state.Or(uint32((hand+1)%cacheWays) << cacheHand)
	return hand
}

// len is the number of answers in the cache, expired ones included.
func (c *cache) len() int { return int(c.filled.Load()) }
