package ingress

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/proto/message"
	"mailrace/spool"
)

// claimShards is the number of locks, and of parts, of a table of claims.
const claimShards = 64

// Claims says which idempotency keys have been used lately, and by which messages, so that an injection that is repeated is not queued again.
// One table serves all doors of a node. It is asked for messages that come with a key only, under one of 64 locks.
//
// A key goes through three states. Whoever takes a free one is its owner until it has called Keep, when its message is durable, or GiveUp;
// those who ask meanwhile wait, in no goroutine, and are told on their loops. Once kept, the key belongs to the message until it expires. The
// spool keeps the same with the message itself, and Restore reads it back.
//
// A claim takes some 70 bytes. Beyond the bound the oldest are forgotten early, and counted.
type Claims struct {
	window time.Duration
	most   int // in a shard
	early  *metrics.Counter
	shards [claimShards]claimShard
}

// claimShard is a part of the table: claims in the order in which they expire, as all last as long, in a ring that grows.
type claimShard struct {
	mu      sync.Mutex
	index   map[spool.ClaimKey]uint32 // where it is: a position from first up to next
	ring    []spool.Claim             // position i is ring[i%len]; the length is a power of two
	first   uint32
	next    uint32
	pending map[spool.ClaimKey]*waiter // that have an owner; those who wait for it, the first in front
	dropped bool                       // claims, since the last Sweep
	held    bool                       // nobody gets a key, see Hold
}

// Claimant waits for the owner of a key.
type Claimant interface {
	// Claimed is called on the claimant's loop. first is the message that the key belongs to; 0 says that its owner has failed, and that the
	// key is the claimant's now.
	Claimed(first message.ID)
}

// Poster is a claimant's loop.
type Poster interface{ Post(fn func()) bool }

type waiter struct {
	loop Poster
	who  Claimant
	next *waiter
	last *waiter // of the list that this one heads
}

// NewClaims makes a table whose claims last for a window, and that holds about max of them. early counts what is forgotten before its time.
func NewClaims(window time.Duration, max int, early *metrics.Counter) *Claims {
	c := &Claims{window: window, most: (max + claimShards - 1) / claimShards, early: early}
	for i := range c.shards {
		c.shards[i].index, c.shards[i].pending = map[spool.ClaimKey]uint32{}, map[spool.ClaimKey]*waiter{}
	}
	return c
}

// Of is a new claim on a key of a tenant, or of a user without one: nobody's mail is taken for a repetition of somebody else's. Mail of neither
// shares its keys.
func (c *Claims) Of(tenant, user, key string, now time.Time) spool.Claim {
	owner := tenant
	if owner == "" && user != "" {
		owner = "\x00" + user // no tenant is called so
	}
	return spool.Claim{Key: spool.NewClaimKey(owner, key), Expires: now.Add(c.window).UnixNano()}
}

func (c *Claims) shard(key spool.ClaimKey) *claimShard { return &c.shards[key[0]%claimShards] }

// Take asks for a key. It returns the message that the key belongs to, or whether the key is the caller's, who then must call Keep or GiveUp,
// once. Where neither is so somebody else is about to use it: who.Claimed will be called on l. Any goroutine.
func (c *Claims) Take(key spool.ClaimKey, now time.Time, l Poster, who Claimant) (first message.ID, mine bool) {
	sh := c.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.expire(now.UnixNano())
	if at, ok := sh.index[key]; ok {
		return sh.at(at).ID, false
	}
	head, ok := sh.pending[key]
	if !ok && !sh.held {
		sh.pending[key] = nil
		return 0, true
	}
	w := &waiter{loop: l, who: who}
	if head == nil {
		head = w
		sh.pending[key] = head
	} else {
		head.last.next = w
	}
	head.last = w
	return 0, false
}

// Keep gives a key to the message that is durable now, and tells those who wait. Any goroutine.
func (c *Claims) Keep(claim spool.Claim) {
	sh := c.shard(claim.Key)
	sh.mu.Lock()
	c.put(sh, claim)
	sh.mu.Unlock()
	c.tell(sh, claim)
}

// tell answers those who wait for the key of a claim that is in the table.
func (c *Claims) tell(sh *claimShard, claim spool.Claim) {
	sh.mu.Lock()
	w := sh.pending[claim.Key]
	delete(sh.pending, claim.Key)
	sh.mu.Unlock()
	for ; w != nil; w = w.next {
		who := w.who
		w.loop.Post(func() { who.Claimed(claim.ID) })
	}
}

// GiveUp passes a key on to the first that waits for it, or frees it. Any goroutine.
func (c *Claims) GiveUp(key spool.ClaimKey) {
	sh := c.shard(key)
	for {
		sh.mu.Lock()
		w := sh.pending[key]
		if w == nil {
			delete(sh.pending, key)
			sh.mu.Unlock()
			return
		}
		if w.next != nil {
			w.next.last = w.last
		}
		sh.pending[key] = w.next
		sh.mu.Unlock()
		if w.loop.Post(func() { w.who.Claimed(0) }) {
			return
		}
	}
}

// Hold has all wait who ask for a key, until Restore says whose the keys are. It is called before anybody asks.
func (c *Claims) Hold() {
	for i := range c.shards {
		c.shards[i].held = true
	}
}

// Restore takes over the claims that the spool has kept. The slice is sorted. They do not last longer than new ones, so that the order in
// which claims expire stays the order in which they came. Those who waited since Hold are told, or get their keys. Any goroutine; once.
func (c *Claims) Restore(claims []spool.Claim, now time.Time) {
	limit := now.Add(c.window).UnixNano()
	slices.SortFunc(claims, func(a, b spool.Claim) int { return cmp.Compare(a.Expires, b.Expires) })
	for _, claim := range claims {
		claim.Expires = min(claim.Expires, limit)
		sh := c.shard(claim.Key)
		sh.mu.Lock()
		c.put(sh, claim)
		sh.mu.Unlock()
	}
	for i := range c.shards {
		c.release(&c.shards[i])
	}
}

// release ends the Hold of a part.
func (c *Claims) release(sh *claimShard) {
	sh.mu.Lock()
	sh.held = false
	var known []spool.Claim
	var free []spool.ClaimKey
	for key := range sh.pending {
		if at, ok := sh.index[key]; ok {
			known = append(known, *sh.at(at))
		} else {
			free = append(free, key)
		}
	}
	sh.mu.Unlock()
	for _, claim := range known {
		c.tell(sh, claim)
	}
	for _, key := range free {
		c.GiveUp(key)
	}
}

// Sweep drops what has expired. It returns the moment before which no claim in the table expires, and whether any was dropped since the last
// Sweep: then the spool may drop those as well. Any goroutine.
//
// While the table overflows, that moment is later than now, and a claim that is being committed could expire before it only if its commit took
// longer than it takes to fill the whole table anew.
func (c *Claims) Sweep(now time.Time) (before int64, dropped bool) {
	full := int64(1<<63 - 1) // when the first claim of a full shard expires
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		sh.expire(now.UnixNano())
		dropped = dropped || sh.dropped
		sh.dropped = false
		if sh.len() == c.most {
			full = min(full, sh.at(sh.first).Expires)
		} else {
			full = min(full, now.UnixNano())
		}
		sh.mu.Unlock()
	}
	return full, dropped
}

// Len is the number of claims. Any goroutine.
func (c *Claims) Len() (n int) {
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		n += sh.len()
		sh.mu.Unlock()
	}
	return n
}

// put appends a claim, in place of the oldest where the shard is full.
func (c *Claims) put(sh *claimShard, claim spool.Claim) {
	if sh.len() == c.most {
		sh.drop()
		c.early.Inc()
	}
	if sh.len() == len(sh.ring) {
		sh.grow()
	}
	*sh.at(sh.next) = claim
	sh.index[claim.Key] = sh.next
	sh.next++
}

func (sh *claimShard) len() int { return int(sh.next - sh.first) }

func (sh *claimShard) at(i uint32) *spool.Claim { return &sh.ring[int(i)&(len(sh.ring)-1)] }

// grow doubles the ring.
func (sh *claimShard) grow() {
	old := sh.ring
	sh.ring = make([]spool.Claim, max(8, 2*len(old)))
	for i := sh.first; i != sh.next; i++ {
		*sh.at(i) = old[int(i)&(len(old)-1)]
	}
}

// expire drops the claims whose time is over.
func (sh *claimShard) expire(now int64) {
	for sh.len() > 0 && sh.at(sh.first).Expires <= now {
		sh.drop()
	}
}

// drop forgets the first claim.
func (sh *claimShard) drop() {
	key := sh.at(sh.first).Key
	if sh.index[key] == sh.first { // not if the spool had two of it
		delete(sh.index, key)
	}
	sh.first++
	sh.dropped = true
}
