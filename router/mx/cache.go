package mx

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

const (
	cacheShards = 64
	cacheWays   = 8
)

// cache remembers answers until they expire, at most so many. It is set-associative: the name says in which set of eight places its answer
// is, and a new answer takes a place that is free, expired, or was not used for the longest (the clock algorithm). So a lookup touches
// three lines of memory, however many names there are. A place is known by a second hash of the name, of 64 bits. Both hashes are seeded at
// random, so nobody can make two names meet; by chance it happens once in 70,000 years of a million new names a second.
type cache struct {
	set    maphash.Seed
	tag    maphash.Seed
	shards [cacheShards]cacheShard
}

// cacheShard is a part of the sets under one lock, which readers share.
type cacheShard struct {
	mu   sync.RWMutex
	sets []cacheSet
	len  int
	_    [64]byte // the next shard's lock is in another line
}

type cacheSet struct {
	tags   [cacheWays]uint64 // of each place; 0 = free
	places [cacheWays]cachePlace
	hand   int
}

type cachePlace struct {
	answer  *Answer
	expires uint32        // Unix seconds
	used    atomic.Uint32 // 1 = since the hand passed
}

// newCache returns a cache of about so many entries.
func newCache(entries int) *cache {
	c := &cache{set: maphash.MakeSeed(), tag: maphash.MakeSeed()}
	sets := (entries + cacheShards*cacheWays - 1) / (cacheShards * cacheWays)
	for i := range c.shards {
		c.shards[i].sets = make([]cacheSet, sets)
	}
	return c
}

// find returns where q belongs and the tag by which it is known there.
func (c *cache) find(q Query) (*cacheShard, *cacheSet, uint64) {
	h := maphash.String(c.set, q.Name) + uint64(q.Kind)
	s := &c.shards[h%cacheShards]
	at, _ := bits.Mul64(h, uint64(len(s.sets)))
	return s, &s.sets[at], max(maphash.String(c.tag, q.Name)+uint64(q.Kind), 1)
}

// get returns the answer to q that is valid at now, or nil.
func (c *cache) get(q Query, now time.Time) *Answer {
	s, set, tag := c.find(q)
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i := range set.tags {
		if set.tags[i] != tag {
			continue
		}
		p := &set.places[i]
		if int64(p.expires) <= now.Unix() {
			return nil
		}
		if p.used.Load() == 0 {
			p.used.Store(1)
		}
		return p.answer
	}
	return nil
}

// put remembers a.
func (c *cache) put(a *Answer, now time.Time) {
	s, set, tag := c.find(a.Query)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := set.place(tag, now.Unix())
	if set.tags[i] == 0 {
		s.len++
	}
	p := &set.places[i]
	if set.tags[i] != tag {
		p.used.Store(0)
	}
	set.tags[i] = tag
	p.answer, p.expires = a, uint32(a.Expires.Unix())
}

// place returns the place for a tag: its own, or one that is free, or that of what is missed least.
func (set *cacheSet) place(tag uint64, now int64) int {
	free := -1
	for i := range set.tags {
		if set.tags[i] == tag {
			return i
		}
		if free < 0 && (set.tags[i] == 0 || int64(set.places[i].expires) <= now) {
			free = i
		}
	}
	if free >= 0 {
		return free
	}
	for {
		at := set.hand
		set.hand = (set.hand + 1) % cacheWays
		if set.places[at].used.Swap(0) == 0 {
			return at
		}
	}
}

// len is the number of answers in the cache, expired ones included.
func (c *cache) len() (n int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		n += s.len
		s.mu.RUnlock()
	}
	return n
}
