package router

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"mailrace/router/schedule"
)

// vacancy is how long a site without mail and connections is remembered.
const vacancy = time.Minute

// Scheduler owns the sites whose keys hash to its loop, what waits for a lookup there, and what is deferred there. All of it but the
// mailboxes and the stats belongs to that loop.
type Scheduler struct {
	router *Router
	opts   *Options
	env    *Env
	loop   int
	rand   *rand.Rand
	boxes  []*mailbox // to each loop
	stats  stats

	// The message being routed.
	batch     []*Transaction
	asking    []bool // of each in batch: its name must be looked up
	groups    map[destination]*Transaction
	last      destination // of the last in batch
	postponed []int

	lookups  map[question]*lookup
	unasked  []*lookup
	asked    int
	askAgain int64 // 0 = the resolver has room

	sites    map[siteKey]*Site
	tagged   map[uint32]*Site // by tag: one of those that have the same, which is rare
	parties  map[partyKey]*party
	forks    map[siteKey]*fork // of the same keys, without sources
	turns    []credits         // of pools, by their place
	touched  []*Site           // have new mail in the batch being accepted
	starving fifo[*Site]       // need a connection, and none is left to the loop
	watched  fifo[*Site]       // have mail that waits
	vacant   fifo[*Site]       // have neither mail nor connections
	idle     linkList          // links without a transaction, the one that is idle longest first
	links    int               // open and opening, of all sites
	most     int               // of them; less than Options.Connections while there is a shortage
	raise    int64             // when most is raised; 0 = there is none
	draining bool              // no new transactions

	wheel schedule.Wheel[deferral]

	wake    func() // s.woken, allocated once
	armed   int64  // time of the earliest alarm that was asked for; 0 = none
	timers  int    // calls of Env.After that have not fired
	outcome Outcome

	missed, reminder Outcome // of a recipient whose deadline passed
}

func newScheduler(r *Router, loop int) *Scheduler {
	o := &r.opts
	s := &Scheduler{
		router: r, opts: o, env: &o.Envs[loop], loop: loop, rand: o.Envs[loop].Rand,
		groups:  map[destination]*Transaction{},
		lookups: map[question]*lookup{},
		sites:   map[siteKey]*Site{},
		tagged:  map[uint32]*Site{},
		parties: map[partyKey]*party{},
	}
	if s.rand == nil {
		s.rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	if r.sources != nil {
		s.forks = map[siteKey]*fork{}
		for _, p := range r.sources.list {
			t := make(credits, len(p.members))
			for range loop { // not all loops begin with the same source
				t.step(p)
			}
			s.turns = append(s.turns, t)
		}
	}
	s.wake, s.most = s.woken, o.Connections
	return s
}

func (s *Scheduler) now() int64 { return s.env.Now().UnixNano() }

// alarm makes sure that tick runs at the given time or soon after it.
func (s *Scheduler) alarm(at int64) {
	if s.armed != 0 && s.armed <= at {
		return
	}
	s.armed = at
	s.timers++
	s.env.After(time.Duration(at-s.now()), s.wake)
}

// woken is an alarm going off. An alarm that was asked for before an earlier one has nothing to do: the earlier one has armed the next.
func (s *Scheduler) woken() {
	s.timers--
	now := s.now()
	if now < s.armed && s.timers > 0 || s.armed == 0 {
		return
	}
	s.armed = 0
	s.tick(now)
	if at := s.nextTick(); at != 0 {
		s.alarm(at)
	}
}

// tick does everything that is due.
func (s *Scheduler) tick(now int64) {
	if s.draining {
		return
	}
	if s.askAgain != 0 && s.askAgain <= now {
		s.askAgain = 0
		s.askMore()
	}
	s.wheel.Advance(now, s.due)
	for l := s.idle.first; l != nil && l.idleSince+int64(s.opts.IdleTimeout) <= now; l = s.idle.first {
		l.retire()
	}
	for site, ok := s.watched.due(now); ok; site, ok = s.watched.due(now) {
		site.watched = false
		site.kick()
	}
	if s.raise != 0 && s.raise <= now {
		s.relax(now)
	}
	for site, ok := s.vacant.due(now); ok; site, ok = s.vacant.due(now) {
		site.forget(now)
	}
}

// nextTick is the earliest time at which tick has something to do, or 0.
func (s *Scheduler) nextTick() int64 {
	at := s.askAgain
	earlier := func(t int64) {
		if t != 0 && (at == 0 || t < at) {
			at = t
		}
	}
	if s.draining {
		return 0
	}
	if t, ok := s.wheel.Next(); ok {
		earlier(t)
	}
	if s.idle.first != nil {
		earlier(s.idle.first.idleSince + int64(s.opts.IdleTimeout))
	}
	earlier(s.raise)
	earlier(s.watched.next())
	earlier(s.vacant.next())
	return at
}

// kickTouched sets to work what accept put into queues.
func (s *Scheduler) kickTouched() {
	for i := 0; i < len(s.touched); i++ {
		site := s.touched[i]
		s.touched[i] = nil
		site.touched = false
		site.kick()
	}
	s.touched = s.touched[:0]
}

// stats are counted by the loop and read by anyone.
type stats struct {
	queued, resolving, inFlight, waiting                                      atomic.Int64 // recipients
	sites, links, idle, backoff, transactions                                 atomic.Int64
	delivered, deferrals, bounced, expired                                    atomic.Int64 // recipients, ever
	putBack, shelved                                                          atomic.Int64 // recipients, ever
	handedOut, requeued, inDoubt                                              atomic.Int64 // transactions, ever
	dials, borrowed, unreachable, refused, broken, insecure, denied, failures atomic.Int64 // of connections, of sites, ever
	unusable, short                                                           atomic.Int64 // connections, ever
}

// fifo holds values that are due after the same delay each, in the order in which they were put in.
type fifo[T any] struct {
	items []stamped[T]
	head  int
}

type stamped[T any] struct {
	value T
	at    int64
}

func (f *fifo[T]) put(v T, at int64) {
	if f.head > len(f.items)/2 {
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	f.items = append(f.items, stamped[T]{v, at})
}

// next is when the first is due, or 0.
func (f *fifo[T]) next() int64 {
	if f.empty() {
		return 0
	}
	return f.items[f.head].at
}

func (f *fifo[T]) length() int { return len(f.items) - f.head }

func (f *fifo[T]) empty() bool { return f.head == len(f.items) }

// due takes the first out if it is due.
func (f *fifo[T]) due(now int64) (v T, ok bool) {
	if f.empty() || f.items[f.head].at > now {
		return v, false
	}
	v = f.items[f.head].value
	f.items[f.head] = stamped[T]{}
	f.head++
	return v, true
}
