package router

import (
	"strings"

	"mailrace/proto/message"
	"mailrace/router/mx"
	"mailrace/router/pool"
)

// fork is where the mail for some hosts parts by sources: each of them is a site of its own there, with its queue, connections, limits and backoff.
// It exists as long as one of these does, and belongs to their loop.
//
// Which source is next is settled per transaction by smooth weighted round robin: each source that can be used gains its weight, the one with the
// most goes, and pays the sum. That is exact (any run as long as the sum of the weights has each source as often as its weight says), needs no
// randomness, and spreads each source evenly over the run. Each fork has a turn of its own, so that the shares hold at each destination and not
// only in all; it begins where the pool's turn on this loop stands, so that they hold as well over many destinations with a message each.
type fork struct {
	sites  []*Site // by source.place
	count  int     // of them
	rungs  []*rung // policies by mail exchangers
	turns  map[*sourcePool]credits
	answer *mx.Answer
	v4, v6 bool // of the answer's addresses
}

// credits are the turn of a pool: the credit of each of its members.
type credits []int64

// step is one choice among all members.
func (t credits) step(p *sourcePool) {
	best, sum := 0, int64(0)
	for i := range p.members {
		t[i] += p.members[i].weight
		sum += p.members[i].weight
		if t[i] > t[best] {
			best = i
		}
	}
	t[best] -= sum
}

// forkOf is the fork of the site with key k, which has no source.
func (s *Scheduler) forkOf(k siteKey, a *mx.Answer) *fork {
	f := s.forks[k]
	if f == nil {
		f = &fork{sites: make([]*Site, len(s.router.sources.all)+1), rungs: s.router.policies.at(a)}
		k.key = strings.Clone(k.key)
		s.forks[k] = f
	}
	if f.answer != a {
		f.answer, f.v4, f.v6 = a, false, false
		for i := range a.Hosts {
			for _, addr := range a.Hosts[i].Addrs {
				f.v4, f.v6 = f.v4 || !addr.Is6(), f.v6 || addr.Is6()
			}
		}
	}
	return f
}

// reaches says whether a source reaches an address of the hosts.
func (f *fork) reaches(src *source) bool { return src.IPv4 && f.v4 || src.IPv6 && f.v6 }

// turn is that of a pool here.
func (f *fork) turn(s *Scheduler, p *sourcePool) credits {
	t := f.turns[p]
	if t == nil {
		all := s.turns[p.place]
		t = append(credits(nil), all...)
		all.step(p)
		if f.turns == nil {
			f.turns = map[*sourcePool]credits{}
		}
		f.turns[p] = t
	}
	return t
}

// busy says whether mail from a source should better go from another: the site failed from it, and waits, or is being tried.
func (f *fork) busy(src *source, now int64) bool {
	site := f.sites[src.place]
	return site != nil && site.failures() > 0 && (site.backoff() > now || site.queue.length > 0 || len(site.links) > 0)
}

// choose is the source that mail of a pool goes from now. probe says that it is out of service and to be tried. Where none can be used it is
// the one that can be first; nil = none reaches the hosts.
func (f *fork) choose(s *Scheduler, p *sourcePool, now int64) (chosen *source, probe bool) {
	for i := range p.members { // before anybody gains from a turn that comes to nothing
		if m := &p.members[i]; m.out() != 0 && f.reaches(m.source) && !f.busy(m.source, now) && m.lease(now) {
			return m.source, true
		}
	}
	t, best, sum := f.turn(s, p), -1, int64(0)
	for i := range p.members {
		m := &p.members[i]
		if m.out() != 0 || !f.reaches(m.source) || f.busy(m.source, now) {
			continue
		}
		t[i] += m.weight
		sum += m.weight
		if best < 0 || t[i] > t[best] {
			best = i
		}
	}
	if best >= 0 {
		t[best] -= sum
		return p.members[best].source, false
	}
	first := int64(0)
	for i := range p.members {
		m := &p.members[i]
		if !f.reaches(m.source) {
			continue
		}
		at := m.out()
		if site := f.sites[m.source.place]; site != nil && at == 0 {
			at = site.backoff()
		}
		if chosen == nil || at < first {
			chosen, first = m.source, at
		}
	}
	return chosen, false
}

// returning is the source from which mail went that was put back to the disk and is here again, if that is in service and the hosts are up from there.
func (f *fork) returning(p *sourcePool, t *Transaction, k siteKey) *source {
	tag := Tag(t.Message.Parked)
	if tag == 0 {
		return nil
	}
	for i := range p.members {
		m := &p.members[i]
		if k.source = m.source; k.tag(t.answer.Hash) != tag {
			continue
		}
		if site := f.sites[m.source.place]; m.out() == 0 && f.reaches(m.source) && (site == nil || site.failures() == 0) {
			return m.source
		}
		break
	}
	return nil
}

// kept is the source from which an attempt for t was made before, if it is in service and the hosts are not down from there: who puts off mail from
// addresses that it does not know (greylisting, RFC 6647) must not see another one each time.
func (f *fork) kept(p *sourcePool, t *Transaction, now int64) *source {
	src := p.signer(&t.Message.Recipients[t.Recipients[0]])
	if src == nil || src.out() != 0 || !f.reaches(src) || f.busy(src, now) {
		return nil
	}
	return src
}

// knows says whether t was put back to the disk for these hosts, from any source of the pool.
func (f *fork) knows(p *sourcePool, t *Transaction, k siteKey) bool {
	for i := range p.members {
		if k.source = p.members[i].source; k.tag(t.answer.Hash) == Tag(t.Message.Parked) {
			return true
		}
	}
	return false
}

// pooled says whether mail by a route goes from sources.
func (r *Route) pooled() bool { return r.Kind == MX || r.Pool != "" }

// poolOf is the pool of a message for a domain in normal form, nil = no source.
func (s *Scheduler) poolOf(route *Route, m *message.Message, domain string, rungs []*rung) *sourcePool {
	ss, p := s.router.sources, s.router.policies
	if !route.pooled() {
		return nil
	}
	if p.pools {
		if of := p.of(domain, rungs, route, labelsOf(m)); of.pool != "" {
			return ss.pools[of.pool]
		}
	}
	if route.Pool != "" {
		return ss.pools[route.Pool]
	}
	return ss.root
}

// lead sends t, which is accepted and goes to hosts, to the site of its source.
func (s *Scheduler) lead(t *Transaction) {
	k := s.router.keyFor(t)
	f := s.forkOf(k, t.answer)
	for t != nil {
		p := s.poolOf(t.route, t.Message, t.Domain, f.rungs)
		rest := s.sunder(t, f, p)
		s.leadBy(t, k, f, p)
		t = rest
	}
	f.drop(s, k)
}

// sunder leaves those recipients in t whose mail is of pool p, and returns another transaction for the rest, if there are some.
func (s *Scheduler) sunder(t *Transaction, f *fork, p *sourcePool) *Transaction {
	if !s.router.policies.pools || len(t.Recipients) == 1 {
		return nil
	}
	rest := t.part(func(i int) bool {
		domain := s.router.domain(t.Message, i)
		return domain == t.Domain || s.poolOf(t.route, t.Message, domain, f.rungs) == p
	})
	if rest != nil {
		rest.Domain = s.router.domain(rest.Message, rest.Recipients[0])
	}
	return rest
}

// leadBy is lead for one pool.
func (s *Scheduler) leadBy(t *Transaction, k siteKey, f *fork, p *sourcePool) {
	t.pool = p
	if p == nil {
		s.siteOf(t, k, f).enqueue(t)
		return
	}
	now := s.now()
	src, probe := f.returning(p, t, k), false
	if src == nil {
		if src = f.kept(p, t, now); src == nil {
			src, probe = f.choose(s, p, now)
		}
		k.source = src
		if b := s.router.room.backlog(Tag(t.Message.Parked)); b != nil && (src == nil || k.tag(t.answer.Hash) != b.tag) {
			if f.knows(p, t, k) {
				t.cameBack(b)
			} else {
				s.stray(t, 0)
			}
		}
	}
	if src == nil {
		s.outcome = Outcome{Class: Deferred, Enhanced: "4.4.1", Text: "no source of pool \"" + p.name + "\" has an address of the family of the hosts'"}
		s.settleAll(t, &s.outcome, attempted)
		return
	}
	k.source = src
	site := s.siteOf(t, k, f)
	switch {
	case probe:
		site.probe = true
	case src.out() != 0:
		s.outcome = Outcome{Class: Deferred, Enhanced: "4.3.0", Text: p.outText()}
		s.settleAll(t, &s.outcome, backedOff)
		site.rest(now)
		return
	}
	site.enqueue(t)
}

// drop forgets the fork if it has no sites.
func (f *fork) drop(s *Scheduler, k siteKey) {
	if f.count == 0 {
		k.source = nil
		delete(s.forks, k)
	}
}

// scatter gives the mail of a site whose source is out of service, or refused, to other sources, as if it had just come.
func (site *Site) scatter() {
	s := site.owner
	for t := site.queue.pop(); t != nil; t = site.queue.pop() {
		s.stats.queued.Add(-int64(t.open))
		t.site, t.due = nil, 0
		s.boxes[s.loop].put(t)
	}
}

// untilTried is when the site may be tried, or 0.
func (site *Site) untilTried() int64 {
	if site.key.source == nil {
		return site.backoff()
	}
	until := site.key.source.out()
	if now := site.owner.now(); until != 0 && until <= now { // it is to be tried, but not by what waits for the answer to that here
		until = now + int64(probeLease)
	}
	return max(site.backoff(), until)
}

// adopt makes the fork one of a new site.
func (f *fork) adopt(site *Site) {
	site.fork, site.rungs = f, f.rungs
	f.sites[site.key.source.seat()] = site
	f.count++
}

// lose forgets a site, and the fork with the last one.
func (f *fork) lose(site *Site) {
	f.sites[site.key.source.seat()] = nil
	f.count--
	f.drop(site.owner, site.key)
}

// seat is the place of a source, 0 for none.
func (src *source) seat() int {
	if src == nil {
		return 0
	}
	return src.place
}

// families are those of a source, and the one that goes first.
func (s *Scheduler) families(src *source) pool.Families {
	f := pool.Families{Prefer: s.opts.Prefer}
	if src != nil {
		f.Only4, f.Only6 = !src.IPv6, !src.IPv4
	}
	return f
}
