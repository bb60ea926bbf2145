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
	cacheWays  = 6
	cacheTries = 4 // of a reader who meets a writer, before it takes the lock
)

// cache remembers answers, at most so many, also expired ones, until their places are wanted. It is set-associative: the name says in which
// set of six places its answer is, and a new answer takes a place that is free or was not used for the longest (the clock algorithm). A set is
// two lines of memory side by side, which the processor fetches together, so that a lookup waits for memory once, however many names there
// are, and readers take no lock. A place is known by a second hash of the name, of 64 bits. Both hashes are seeded at random, so nobody can
// make two names meet; by chance it happens once in 90,000 years of a million new names a second.
//
// Libraries were measured first: with a million names, maypok86/otter/v2 and hashicorp/golang-lru/v2 take four times as long for a lookup and
// three to five times the memory of a place, as does a map, for each goes through a table, a node and the key itself; dgraph-io/ristretto/v2 drops
// answers under load. go test -run '^$' -bench Cached ./router/mx
type cache struct {
	set, tag maphash.Seed
	sets     []cacheSet
	locks    [cacheLocks]struct {
		sync.Mutex          // of those who write into every 64th set
		_          [56]byte // the next lock is in another line
	}
	filled atomic.Int64 // places
}

// cacheSet is 128 bytes. It is read without a lock: what was read between two equal, even values of version is of a piece.
type cacheSet struct {
	version atomic.Uint32                    // odd = somebody writes
	used    atomic.Uint32                    // bit i: place i was used since the hand passed. From bit 8 on: where the hand is
	tags    [cacheWays]atomic.Uint64         // of each place; 0 = free
	entries [cacheWays]atomic.Pointer[entry] //
	due     [cacheWays]atomic.Uint32         // Unix seconds: from then on the entry is to be looked at: it expired, or is to be refreshed, or is stale
}

const cacheHand = 8

// newCache returns a cache of about so many entries. Memory that no entry was in yet is not resident.
func newCache(entries int) *cache {
	return &cache{set: maphash.MakeSeed(), tag: maphash.MakeSeed(), sets: make([]cacheSet, (entries+cacheWays-1)/cacheWays)}
}

// find returns where q belongs, and the tag by which it is known there.
func (c *cache) find(q Query) (at uint64, tag uint64) {
	at, _ = bits.Mul64(maphash.String(c.set, q.Name)+uint64(q.Kind)<<56, uint64(len(c.sets)))
	return at, max(maphash.String(c.tag, q.Name)+uint64(q.Kind), 1)
}

// get returns the entry of q, or nil, also if it expired long ago. due says that this has to be checked, or that the entry is to be refreshed;
// busy, that it was used since it was put there, or since the cache looked for a victim.
func (c *cache) get(q Query, now int64) (e *entry, due, busy bool) {
	at, tag := c.find(q)
	set := &c.sets[at]
	for range cacheTries {
		version := set.version.Load()
		e, due, busy = set.get(tag, now)
		if version&1 == 0 && set.version.Load() == version {
			return e, due, busy
		}
	}
	lock := &c.locks[at%cacheLocks]
	lock.Lock()
	defer lock.Unlock()
	return set.get(tag, now)
}

func (s *cacheSet) get(tag uint64, now int64) (e *entry, due, busy bool) {
	for i := range s.tags {
		if s.tags[i].Load() != tag {
			continue
		}
		if busy = s.used.Load()&(1<<i) != 0; !busy {
			s.used.Or(1 << i)
		}
		return s.entries[i].Load(), now >= int64(s.due[i].Load()), busy
	}
	return nil, false, false
}

// peek is get that leaves no trace.
func (c *cache) peek(q Query) *entry {
	at, tag := c.find(q)
	lock := &c.locks[at%cacheLocks]
	lock.Lock()
	defer lock.Unlock()
	set := &c.sets[at]
	for i := range set.tags {
		if set.tags[i].Load() == tag {
			return set.entries[i].Load()
		}
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
	lock := &c.locks[at%cacheLocks]
	lock.Lock()
	defer lock.Unlock()
	set := &c.sets[at]
	i := set.place(tag)
	if set.tags[i].Load() == 0 {
		c.filled.Add(1)
	}
	set.version.Add(1)
	set.tags[i].Store(tag)
	set.entries[i].Store(e)
	set.due[i].Store(due)
	set.used.And(^uint32(1 << i))
	set.version.Add(1)
}

// claim says whether the caller is to have e, which is due, asked for again: one of all who want to know is. In refreshPause it is due again, if
// that failed.
func (c *cache) claim(e *entry, now time.Time) bool {
	at, tag := c.find(e.Query)
	lock := &c.locks[at%cacheLocks]
	lock.Lock()
	defer lock.Unlock()
	set := &c.sets[at]
	for i := range set.tags {
		if set.tags[i].Load() == tag && set.entries[i].Load() == e && int64(set.due[i].Load()) <= now.Unix() {
			set.due[i].Store(uint32(min(e.Expires.Unix(), now.Add(refreshPause).Unix())))
			return true
		}
	}
	return false
}

// place returns the place for a tag: its own, or one that is free, or that of what is missed least.
func (s *cacheSet) place(tag uint64) int {
	free := -1
	for i := range s.tags {
		switch s.tags[i].Load() {
		case tag:
			return i
		case 0:
			free = i
		}
	}
	if free >= 0 {
		return free
	}
	state := s.used.Load()
	hand := int(state>>cacheHand) % cacheWays
	for state&(1<<hand) != 0 {
		state &^= 1 << hand
		hand = (hand + 1) % cacheWays
	}
	s.used.Store(state&(1<<cacheHand-1) | uint32((hand+1)%cacheWays)<<cacheHand)
	return hand
}

// len is the number of answers in the cache, expired ones included.
func (c *cache) len() int { return int(c.filled.Load()) }
