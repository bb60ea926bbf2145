package router

import (
	"fmt"
	"hash/fnv"
	"math"
	"sync"
	"time"

	"mailrace/proto/message"
)

// A site that is slow, and not failed, may have more mail than memory. What is beyond its share (room.share) is put back: it is parked, no attempt
// is counted, and nobody is told. It is due when the site will have come to it by the rate at which it takes mail (a virtual finishing time), so
// that the index of what is due holds it in its order. The site does not wait for that: when less than half of its share is left in memory it
// asks for what comes next (Env.Fetch), however early. The due time is for when nobody asks: after a restart, or when the site stands still. What is
// due while the site still has no room is put off in the index, without being read, by half of its age: so each message is written a number
// of times that grows with the logarithm of its time in the queue, and nearly always once.
//
// The low bits of the due time are the tag of the site, by which its mail is found in the index; those of all other due times are 0.

const (
	// tagBits of a due time in nanoseconds are 17 ms.
	tagBits = 24
	tagMask = 1<<tagBits - 1

	// aheadMin and aheadMax bound how far ahead something is due that is put back.
	aheadMin = int64(5 * time.Minute)
	aheadMax = int64(time.Hour)

	// firstRate is what is assumed of a site, in recipients a second, until it was measured, and rateSpan how long that takes.
	firstRate = 10
	rateSpan  = int64(time.Second)

	// fetchMax is the most recipients that a site asks for at once.
	fetchMax = 4096
)

// Tag is the tag in the due time of what was put back, or 0.
func Tag(at int64) uint32 { return uint32(at & tagMask) }

// plain is a time without a tag, not before at.
func plain(at int64) int64 { return max((min(at, math.MaxInt64-tagMask)+tagMask)&^tagMask, 1<<tagBits) }

// Plain is a time without a tag, at or before at, for what is to be parked in the order of its arrival.
func Plain(at int64) int64 { return max(at&^tagMask, 1<<tagBits) }

// tag is the same on every run, and never 0. hash is that of the answer.
func (k *siteKey) tag(hash uint64) uint32 {
	h := fnv.New64a()
	fmt.Fprint(h, hash, k.kind, k.port, k.tls, k.how)
	if k.source != nil {
		fmt.Fprint(h, k.source.Name)
	}
	if k.strict || k.shun != 0 {
		fmt.Fprint(h, k.strict, k.shun)
	}
	return max(uint32(h.Sum64()>>(64-tagBits)), 1)
}

// Query is what a site wants of its mail on the disk.
type Query struct {
	Tag        uint32
	From       int64 // nothing of it is due before
	Recipients int   // about so many
}

// backlog is what a site has on the disk beside its queue. Two sites may share one whose tags are the same by chance, which is rare: the second one's
// mail comes when it is due.
type backlog struct {
	tag uint32

	mu      sync.Mutex
	site    *Site          // that asks; nil = it was forgotten
	away    [classes]int64 // recipients on the disk; an estimate
	horizon [classes]int64 // when the last of them will be finished
	coming  int            // messages that are on their way into the index
	from    int64          // nothing in the index is due before; math.MaxInt64 = there is nothing
	queued  int64          // recipients in the queue of the site
	full    bool           // the queue had no room for what came last
	asking  bool           // a Query is under way
	starved bool           // there was nothing to ask for yet
	strays  bool           // what goes elsewhere is being asked for
	closed  bool           // it is none any more
	rate    float64        // recipients a second
	drained int64          // recipients that left the queue since
	since   int64
}

func newBacklog(tag uint32) *backlog { return &backlog{tag: tag, from: math.MaxInt64, rate: firstRate} }

// place gives the time at which n recipients are to come back. It is not noted that they are away: see sent.
func (b *backlog) place(n int, c class, now int64) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	step := b.span(int64(n))
	begin := now + b.span(b.queued)
	// A horizon never comes nearer, whatever the rate: so the times keep the order.
	for l := low; l <= c; l++ { // and those of lower rank wait for them
		if l == c || b.away[l] > 0 {
			b.horizon[l] = min(max(b.horizon[l]+step, begin+step, now+aheadMin), now+aheadMax)
		}
	}
	return b.horizon[c]&^tagMask | int64(b.tag)
}

// span is how long the site takes for n recipients.
func (b *backlog) span(n int64) int64 {
	return int64(min(float64(n)/b.rate*float64(time.Second), float64(aheadMax)))
}

// sent notes that a message is on its way into the index, with n recipients that were not away. It fails when the backlog was closed.
func (b *backlog) sent(n int, c class) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.coming++
	b.away[c] += int64(n)
	return true
}

// found notes that something came into the index, which was on its way if coming is 1, and wakes the site if that waits for it.
func (b *backlog) found(at int64, coming int) {
	b.mu.Lock()
	b.coming = max(b.coming-coming, 0)
	b.from = min(b.from, at)
	site := b.site
	if !b.starved {
		site = nil
	}
	b.starved = b.starved && site == nil
	b.mu.Unlock()
	if site != nil {
		site.owner.env.Post(func() {
			if site.backlog == b {
				site.ask()
			}
		})
	}
}

// cameBack notes that t is back from the disk, once, however many sites it comes to.
func (t *Transaction) cameBack(b *backlog) {
	if !t.back {
		t.back = true
		b.back(t.open, classOf(t.Message))
	}
}

// back notes that n recipients came back.
func (b *backlog) back(n int, c class) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.away[c] = max(b.away[c]-int64(n), 0)
}

// ahead is how many recipients are in the queue or away that mail of a class has to wait for.
func (b *backlog) ahead(c class) (n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for l := c; l < classes; l++ {
		n += b.away[l]
	}
	return n + b.queued
}

// watch notes the length of the queue, of which n recipients were just taken.
func (b *backlog) watch(queued, n int, now int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.queued = int64(queued)
	b.drained += int64(n)
	if b.since == 0 {
		b.since = now
	}
	d := now - b.since
	if d < rateSpan {
		return
	}
	b.rate = max((b.rate+float64(b.drained)*float64(time.Second)/float64(d))/2, 1e-3)
	b.drained, b.since = 0, now
}

// watchBacklog is backlog.watch, and asks for more. n recipients left the queue.
func (site *Site) watchBacklog(n int) {
	site.backlog.watch(site.queue.recipients, n, site.owner.now())
	site.ask()
}

// adopt makes b the backlog of the site.
func (site *Site) adopt(b *backlog) {
	site.backlog = b
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.site == nil {
		b.site = site
	}
}

// recover is for a site that may deliver again.
func (site *Site) recover() {
	b := site.owner.router.room.backlog(site.tag)
	if b == nil {
		return
	}
	if site.backlog == nil {
		site.adopt(b)
	}
	site.ask()
}

// disown is for a site that takes nothing for a while: what is due is no longer put off.
func (site *Site) disown() {
	if b := site.backlog; b != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.full = false; b.site == site {
			b.site, b.asking = nil, false
		}
		site.backlog = nil
	}
}

// full says whether t has to wait on the disk, since the site has its share of the memory. What comes back waits for nobody but the queue.
func (site *Site) full(t *Transaction) (full bool) {
	s, n := site.owner, int64(t.open)
	if site.backlog == nil {
		if b := s.router.room.backlog(site.tag); b != nil {
			site.adopt(b)
		}
	}
	c, queued := classOf(t.Message), int64(site.queue.recipients)
	switch b := site.backlog; {
	case b == nil:
	case Tag(t.Message.Parked) == site.tag:
		t.cameBack(b)
		c = high // it was asked for when there was room
	default:
		queued = max(queued, b.ahead(c))
	}
	return site.queue.length > 0 && queued+n > shareMin && queued+n > s.router.room.share(c)
}

// putBack lets t, which is in no queue, wait on the disk.
func (site *Site) putBack(t *Transaction, now int64) {
	s := site.owner
	if site.backlog == nil {
		b, _ := s.router.room.open(site.tag)
		site.adopt(b)
	}
	b := site.backlog
	b.mu.Lock()
	b.full, b.queued = true, int64(site.queue.recipients)
	b.mu.Unlock()
	at := nextTurn(t.Message.Arrived, now)&^tagMask | int64(b.tag)
	if Tag(t.Message.Parked) != site.tag {
		at = b.place(t.open, classOf(t.Message), now)
	}
	s.putOff(t, at, now)
}

// putOff lets the open recipients of t, which is in no queue, wait until at without an attempt.
func (s *Scheduler) putOff(t *Transaction, at, now int64) {
	m := t.Message
	end := int64(math.MaxInt64)
	for place, i := range t.Recipients {
		if t.settled[place] {
			continue
		}
		if expire := s.expiry(t, i); now < expire {
			end = min(end, expire)
		} else {
			s.outcome = Outcome{Class: Deferred, Enhanced: "4.4.7", Text: "the hosts of the domain take less mail than there is for them, its turn did not come"}
			t.settled[place] = true
			t.open--
			s.settle(t, i, &s.outcome, backedOff)
		}
	}
	s.park(t)
	if t.open == 0 {
		t.free()
		return
	}
	if w := m.Wishes; w != nil && w.ByMode != message.ByNone {
		at = plain(at) // nobody puts it off, since the index does not tell deadlines
		if w.Deadline > now {
			end = min(end, w.Deadline)
		}
	}
	if at >= end {
		at = plain(end)
	}
	waiting := t.deferred[:0]
	for place, i := range t.Recipients {
		if !t.settled[place] {
			m.Recipients[i].State, m.Recipients[i].Due = message.Pending, at
			waiting = append(waiting, i)
		}
	}
	s.stats.putBack.Add(int64(len(waiting)))
	s.lay(m, waiting, false)
	t.deferred = waiting[:0]
	t.free()
}

// nextTurn is when a message is due that was due and found no room: its age grows geometrically from one time to the next.
func nextTurn(arrived, now int64) int64 { return now + max((now-arrived)/2, aheadMin) }

// ask asks for more of what is on the disk when the queue runs low. It is called when it became shorter.
func (site *Site) ask() {
	s := site.owner
	if s.draining || site.failures() > 0 || s.env.Fetch == nil {
		return
	}
	share, queued := s.router.room.share(normal), int64(site.queue.recipients)
	if queued > share/2 {
		return
	}
	site.fetch(int(max(min((share-queued)/2, fetchMax), 1))) // they shrink the share as they come
}

// fetch asks for about n recipients of what is on the disk, unless that is done already, or forgets the backlog if there is nothing.
func (site *Site) fetch(n int) {
	s, b := site.owner, site.backlog
	b.mu.Lock()
	if b.asking || b.site != site {
		b.mu.Unlock()
		return
	}
	b.full = false
	q := Query{Tag: b.tag, From: b.from, Recipients: n}
	starved := b.from == math.MaxInt64
	if b.starved = starved; !starved {
		b.from, b.asking = math.MaxInt64, true
	}
	b.mu.Unlock()
	switch {
	case !starved:
		s.env.Fetch(q)
	case s.router.room.close(b):
		site.backlog = nil
	}
}

// Fetched ends a Query: what was found has been dispatched on this loop. next is when what was not found is due, at the earliest; math.MaxInt64 =
// there is no more. It is called on the loop that asked.
func (r *Router) Fetched(loop int, tag uint32, next int64) {
	b := r.room.backlog(tag)
	if b == nil {
		return
	}
	b.mu.Lock()
	b.from = min(b.from, next)
	site := b.site
	b.strays = b.strays && site == nil && next != math.MaxInt64
	strays := b.strays
	if site != nil && site.owner != r.schedulers[loop] { // another one with the same tag
		site = nil
	} else {
		b.asking = false
	}
	b.mu.Unlock()
	switch {
	case site != nil:
		site.ask()
	case strays:
		r.schedulers[loop].env.Fetch(Query{Tag: tag, From: next, Recipients: fetchMax})
	}
}

// Place says whether a message that is about to be stored must wait on the disk, for its site has more mail than its share: then it is to be parked at
// that time, with its acceptance, and never dispatched before; 0 = it is to be dispatched. The Due of its recipients is set. now is the
// time. Any goroutine that has m to itself.
func (r *Router) Place(m *message.Message, now int64) (at int64) {
	if r.room.crowded.Load() == 0 || heldUntil(m, now) != 0 || m.Wishes != nil && m.Wishes.ByMode != message.ByNone {
		return 0
	}
	b := r.destination(m)
	if b == nil {
		return 0
	}
	n, c := len(m.Recipients), classOf(m)
	if ahead := b.ahead(c) + int64(n); ahead <= shareMin || ahead <= r.room.share(c) {
		return 0
	}
	if at = b.place(n, c, now); !b.sent(n, c) {
		return 0
	}
	for i := range m.Recipients {
		m.Recipients[i].Due = at
	}
	r.schedulers[0].stats.putBack.Add(int64(n))
	return at
}

// destination is the backlog of the only site that m goes to, as far as is known without asking.
func (r *Router) destination(m *message.Message) (b *backlog) {
	domain := ""
	for i := range m.Recipients {
		d := m.Recipients[i].Domain()
		if i > 0 && d == domain {
			continue
		}
		domain = d
		key, hash, ok := r.siteKey(m, d)
		if !ok {
			return nil
		}
		of := r.room.backlog(key.tag(hash))
		if of == nil || b != nil && b != of {
			return nil
		}
		b = of
	}
	return b
}

// goes notes that a message of n recipients goes to the disk, to come back at at. Any goroutine.
func (r *Router) goes(at int64, n int, c class) {
	tag := Tag(at)
	if tag == 0 {
		return
	}
	for {
		b, fresh := r.room.open(tag)
		if fresh {
			r.seekSite(b)
		}
		if b.sent(n, c) {
			return
		}
	}
}

// seekSite has the site adopt b that did not make it, if there is one now.
func (r *Router) seekSite(b *backlog) {
	for _, s := range r.schedulers {
		s.env.Post(func() {
			if site := s.tagged[b.tag]; site != nil && site.backlog == nil && r.room.backlog(b.tag) == b {
				site.adopt(b)
				site.ask()
			}
		})
	}
}

// Indexed notes that an entry came into the index of what is due. Any goroutine.
func (r *Router) Indexed(at int64) {
	if b := r.room.backlog(Tag(at)); b != nil {
		b.found(at, 1)
	}
}

// PutOff says when what is due at at, of a message that arrived then, is due instead, since its site still has no room; 0 = it is to be dispatched.
// The entry in the index is to be changed, and nothing else. Any goroutine.
func (r *Router) PutOff(at, arrived, now int64) int64 {
	b := r.room.backlog(Tag(at))
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	at = nextTurn(arrived, now)&^tagMask | int64(b.tag)
	if b.closed || !b.full || at >= arrived+int64(r.policies.shortest) {
		return 0
	}
	b.coming++
	return at
}

// Found notes, at a start, that a message is parked: the site that it was put back for can ask for it. Any goroutine.
func (r *Router) Found(m *message.Message) {
	if r.room.limit == 0 {
		return
	}
	at := int64(0)
	for i := range m.Recipients {
		p := &m.Recipients[i]
		switch {
		case p.State.Settled():
		case p.State != message.Pending || at != 0 && Tag(p.Due) != Tag(at):
			return
		case at == 0 || p.Due < at:
			at = p.Due
		}
	}
	if Tag(at) == 0 {
		return
	}
	b, fresh := r.room.open(Tag(at))
	b.mu.Lock()
	b.away[classOf(m)] += int64(m.Unsettled())
	b.mu.Unlock()
	b.found(1, 0) // it may have been put off since
	if fresh {
		r.seekSite(b)
		r.scout(b.tag, at)
	}
}

// scout has some of what is parked from a time on dispatched at a start, so that the site which it waits for comes into being: nothing of it may be due
// for long.
func (r *Router) scout(tag uint32, from int64) {
	s := r.schedulers[int(tag)%len(r.schedulers)]
	if s.env.Fetch != nil {
		s.env.Post(func() { s.env.Fetch(Query{Tag: tag, From: from &^ tagMask, Recipients: probesMost}) })
	}
}
