package mx

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

const cacheShards = 64

// cache remembers answers until they expire, at most so many. When a shard is full, a new answer takes the place of one that expired or was
// not used for the longest (the clock algorithm). Readers of a shard share a lock.
type cache struct {
	seed   maphash.Seed
	shards [cacheShards]cacheShard
}

type cacheShard struct {
	mu      sync.RWMutex
	entries map[Query]*cacheEntry
	ring    []*cacheEntry // all of entries, in which the hand goes round
	hand    int
	limit   int
}

type cacheEntry struct {
	answer  *Answer
	expires int64 // Unix nanoseconds
	used    atomic.Bool
}

// newCache returns a cache of about so many entries.
func newCache(entries int) *cache {
	c := &cache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].entries = map[Query]*cacheEntry{}
		c.shards[i].limit = max(entries/cacheShards, 1)
	}
	return c
}

func (c *cache) shard(q Query) *cacheShard {
	return &c.shards[maphash.String(c.seed, q.Name)%cacheShards]
}

// get returns the answer to q that is valid at now, or nil.
func (c *cache) get(q Query, now time.Time) *Answer {
	s := c.shard(q)
	s.mu.RLock()
	e := s.entries[q]
	var a *Answer
	if e != nil && e.expires > now.UnixNano() {
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
	q := a.Query
	e := &cacheEntry{answer: a, expires: a.Expires.UnixNano()}
	s := c.shard(q)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.entries[q]; old != nil {
		old.answer, old.expires = e.answer, e.expires
		return
	}
	if len(s.ring) < s.limit {
		s.ring = append(s.ring, e)
	} else {
		at := s.victim(now.UnixNano())
		delete(s.entries, s.ring[at].answer.Query)
		s.ring[at] = e
	}
	s.entries[q] = e
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
