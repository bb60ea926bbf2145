package router

import (
	"math"
	"slices"
	"time"

	"mailrace/proto/message"
)

// A site that failed is tried again with the few messages that waited for that. Whatever else it has is shelved: it is parked once, with the tag of the
// site, until somebody must hear of it, and that is the end of its lifetime or its next notice. No probe reads or writes any of it. When
// the site delivers again it asks for it, as for what was put back (backlog), in the order in which it expires. Should those few be gone when the
// site is to be tried, it asks for as many. Mail with a deadline, and mail that waits for several sites, which each have a time of their own, is not shelved: it
// comes back whenever its site may be tried, which costs a read and a write each time, and no memory meanwhile.

// probesMost is how many messages of a site that failed come back by themselves when it may be tried again.
const probesMost = 8

// shelfMost is how long a message is shelved at most: then its way is found afresh, for its domain may have other hosts by now.
const shelfMost = 12 * time.Hour

// shelve lets the recipients that t deferred, which is all that is left of its message, wait for the site. It leaves alone what probes it.
func (site *Site) shelve(t *Transaction, now int64) {
	s, m := site.owner, t.Message
	if s.router.room.limit == 0 || s.env.Fetch == nil || site.backoff() <= now || m.Pending() != len(t.deferred) {
		return
	}
	if site.fork != nil && site.fork.serves(t.pool) {
		return
	}
	if w := m.Wishes; w != nil && w.ByMode != message.ByNone {
		return
	}
	end := now + int64(shelfMost)
	for _, i := range t.deferred {
		if r := &m.Recipients[i]; r.State != message.Deferred || r.Waits() || r.GivenUp() {
			return
		}
		end = min(end, s.expiry(t, i), s.nextNotice(m, i))
	}
	if site.probes++; site.probes <= probesMost || end <= site.backoff() {
		return
	}
	if site.backlog == nil {
		b, _ := s.router.room.open(site.tag)
		site.adopt(b)
	}
	at := plain(end) | int64(site.tag)
	for _, i := range t.deferred {
		m.Recipients[i].State, m.Recipients[i].Due = message.Pending, at
	}
	s.stats.shelved.Add(int64(len(t.deferred)))
}

// unshelve notes that t is back, whose site is still backed off.
func (site *Site) unshelve(t *Transaction) {
	if b := site.owner.router.room.backlog(site.tag); b != nil && Tag(t.Message.Parked) == site.tag {
		t.cameBack(b)
	}
}

// askProbes asks for some of what is shelved, where all that was to come by itself is gone, and reports whether the site is to be kept for that.
func (site *Site) askProbes() bool {
	s := site.owner
	b := s.router.room.backlog(site.tag)
	if s.draining || site.failures() == 0 || s.env.Fetch == nil || b == nil || b.waiting() == 0 {
		return false
	}
	if site.backlog == nil {
		site.adopt(b)
	}
	n := probesMost
	if site.fork != nil && site.fork.serves(nil) {
		n = fetchMax
	}
	site.fetch(n)
	return site.backlog != nil
}

// stray sees to what is shelved with t, which waited for one site and goes elsewhere now, to the one with that tag (0 = to none): its domain has other
// hosts, or demands something else of them. The rest may have to follow, and nobody else would ask for it.
func (s *Scheduler) stray(t *Transaction, tag uint32) {
	from := Tag(t.Message.Parked)
	b := s.router.room.backlog(from)
	if b == nil || from == tag || s.env.Fetch == nil || s.draining {
		return
	}
	t.cameBack(b)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.strays || b.closed {
		return
	}
	b.strays = true
	if site := b.site; site != nil {
		site.owner.env.Post(func() {
			b.mu.Lock()
			b.strays = false
			b.mu.Unlock()
			if site.backlog == b {
				site.fetch(fetchMax)
			}
		})
		return
	}
	q := Query{Tag: from, From: b.from, Recipients: fetchMax} // Fetched goes on
	if q.From == math.MaxInt64 {
		q.From = 1
	}
	s.env.Fetch(q)
}

// serves says whether mail of a pool can go to the hosts from a source from which they are not down; nil = from any that was tried.
func (f *fork) serves(p *sourcePool) bool {
	if p == nil {
		return slices.ContainsFunc(f.sites, func(site *Site) bool { return site != nil && site.failures() == 0 && site.proved > 0 })
	}
	for i := range p.members {
		m := &p.members[i]
		if site := f.sites[m.source.place]; m.out() == 0 && f.reaches(m.source) && (site == nil || site.failures() == 0) {
			return true
		}
	}
	return false
}

// release asks for what sites of the same hosts have shelved that other sources than that of the site cannot deliver.
func (site *Site) release() {
	if site.fork == nil {
		return
	}
	for _, other := range site.fork.sites {
		if other != nil && other.failures() > 0 {
			if b := site.owner.router.room.backlog(other.tag); b != nil {
				if other.backlog == nil {
					other.adopt(b)
				}
				other.fetch(fetchMax)
			}
		}
	}
}
