package mx

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

const cacheShards = 64

// cache remembers answers until they expire, at most so many. When a shard is full, a new answer takes the place of one that expired or was
// not used for the longest (the clock algorithm). Readers of a shard share a lock. Entries are found by a seeded hash of 64 bits, so that a
// name is hashed once; of two names with the same hash the newer is remembered.
type cache struct {
	seed   maphash.Seed
	shards [cacheShards]cacheShard
}

type cacheShard struct {
	mu      sync.RWMutex
	entries map[uint64]*cacheEntry
	ring    []*cacheEntry // all of entries, in which the hand goes round
	hand    int
	limit   int
}

type cacheEntry struct {
	hash    uint64
	query   Query // of answer, at hand without following it
	answer  *Answer
	expires int64 // Unix nanoseconds
	used    atomic.Bool
}

// newCache returns a cache of about so many entries.
func newCache(entries int) *cache {
	c := &cache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].entries = map[uint64]*cacheEntry{}
		c.shards[i].limit = max(entries/cacheShards, 1)
	}
	return c
}

// find returns the shard of q and its hash there.
func (c *cache) find(q Query) (*cacheShard, uint64) {
	h := maphash.String(c.seed, q.Name) ^ uint64(q.Kind)
	return &c.shards[h>>32%cacheShards], h
}

// get returns the answer to q that is valid at now, or nil.
func (c *cache) get(q Query, now time.Time) *Answer {
	s, h := c.find(q)
	s.mu.RLock()
	e := s.entries[h]
	var a *Answer
	if e != nil && e.expires > now.UnixNano() && e.query == q {
		a = e.answer
		if !e.used.Load() {
			e.used.Store(true)
		}
	}
	s.mu.RUnlock()
	return a
}

// put remembers a.
func (c *cache) put(a *Answer, now time.Time) {
	s, h := c.find(a.Query)
	e := &cacheEntry{hash: h, query: a.Query, answer: a, expires: a.Expires.UnixNano()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.entries[h]; old != nil {
		old.query, old.answer, old.expires = e.query, e.answer, e.expires
		return
	}
	if len(s.ring) < s.limit {
		s.ring = append(s.ring, e)
	} else {
		at := s.victim(now.UnixNano())
		delete(s.entries, s.ring[at].hash)
		s.ring[at] = e
	}
	s.entries[h] = e
}

// victim moves the hand to the next entry that expired or was not used since the hand passed it, and returns its place.
func (s *cacheShard) victim(now int64) int {
	for {
		at := s.hand
		s.hand = (s.hand + 1) % len(s.ring)
		if e := s.ring[at]; e.expires <= now || !e.used.Swap(false) {
			return at
		}
	}
}

func (c *cache) len() (n int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		n += len(s.entries)
		s.mu.RUnlock()
	}
	return n
}
