package router

import (
	"net/netip"
	"slices"

	"mailrace/router/mx"
	"mailrace/router/pool"
)

type linkState uint8

const (
	linkOpening linkState = iota
	linkOpen
	linkClosing // gets no more transactions, and is closed when it has none
	linkClosed  // Conn.Close was called, or it is gone
)

// turn is how many transactions the only link of a site is given before it makes room for a site that has none.
const turn = 20

// shareFrom is how many transactions a link has under way before it looks at the other links of its site: it takes another one only as long as
// there are as many left for each of them. So a short queue goes over all of them at once, and a long one fills the window of each.
const shareFrom = 2

// Link is one connection of a site, from the dial to the end, as both sides see it: the router keeps its state here, egress calls its methods,
// all on the owner loop. It must not be used after Gone.
type Link struct {
	site    *Site
	conn    Conn
	target  Target
	made    *mx.Demand // what it was made to meet: target.Demand may ask for less since
	address *pool.Address
	second  *pool.Address // of target.Second
	state   linkState
	taken   []*Transaction // handed out and not done, in their order
	handed  int            // transactions, ever
	limits  Limits         // of the peer
	domains []string       // of recipients so far, where the peer limits them
	proved  bool           // the peer replied for a recipient on this link

	waiting    bool  // in site.waiting
	idleSince  int64 // Unix nanoseconds; 0 = not in Scheduler.idle
	prev, next *Link // in Scheduler.idle
}

// dial opens a link to a.
func (site *Site) dial(a *pool.Address) {
	s := site.owner
	demand := site.answer.DemandOf(a.Host)
	l := &Link{site: site, address: a, second: site.hosts.Second(a, s.now()), made: demand, target: Target{
		Site: site.name, Route: site.route.Name, Host: a.Host, Addr: netip.AddrPortFrom(a.Addr, site.key.port),
		Kind: site.route.Kind, TLS: site.route.TLS, Demand: demand, Path: site.route.Path, Manner: site.route.Manner,
		Source: site.key.source.title(), RequireTLS: site.key.strict,
	}}
	if l.second != nil {
		l.target.Second = netip.AddrPortFrom(l.second.Addr, site.key.port)
	}
	if src := site.key.source; src != nil {
		src.dials.Add(1)
		src.links.Add(1)
	}
	site.links = append(site.links, l)
	if site.opening++; len(site.links) == 1 {
		site.party.linked++
	}
	site.party.links = append(site.party.links, l)
	s.router.providers.count(site.key.rule, 1)
	s.links++
	s.stats.links.Add(1)
	s.stats.dials.Add(1)
	s.env.Dial(l)
}

// Best says whether no other host of the site is preferred to that of the link.
func (l *Link) Best() bool { return l.site.hosts.Best(l.address) }

// Reached says which address the connection came to, when it is not the first one. It is called once, before Ready or Gone.
func (l *Link) Reached(addr netip.AddrPort) {
	if l.second != nil && addr == l.target.Second {
		l.address, l.second = l.second, l.address
		l.target.Addr, l.target.Second = l.target.Second, l.target.Addr
	}
	l.target.Second = netip.AddrPort{} // egress may dial again, the same address
	l.second = nil                     // it was not tried, or its fault is not known
}

// Ahead calls fn for the first transactions that wait at the site, most at most, which are not to be kept or changed: they are those that the link was
// dialled for.
func (l *Link) Ahead(most int, fn func(*Transaction)) {
	for t := l.site.queue.front().first; t != nil && most > 0; t, most = t.next, most-1 {
		fn(t)
	}
}

// Target is where the link leads.
func (l *Link) Target() Target { return l.target }

// Demand is that of Target, which may change whenever Next gives a transaction: idle links go over to other domains.
func (l *Link) Demand() *mx.Demand { return l.target.Demand }

// Ready says that the session of c stands and c is going to call Next, which keeps to the limits of the peer. Called once, after Env.Dial
// returned.
func (l *Link) Ready(c Conn, limits Limits) {
	l.conn, l.limits, l.state = c, limits, linkOpen
	l.site.opening--
	if src := l.site.key.source; src != nil {
		l.site.probe = false
		if src.out() != 0 {
			l.site.owner.restore(src, "a session with "+l.target.Host+" stands")
		}
	}
}

// Next hands out the next transaction for this connection, or nil. It may be called again before earlier transactions are done (pipelining);
// they are answered in the order of Next. After nil, Conn.Wake tells when to call again, or Conn.Close to end, perhaps before Next returns; who has
// transactions under way calls again after each that is done.
func (l *Link) Next() *Transaction {
	site, s := l.site, l.site.owner
	if l.state != linkOpen {
		return nil
	}
	if l.waiting {
		l.stopWaiting()
	}
	if others := len(site.links) - site.closing - 1; len(l.taken) >= shareFrom && len(l.taken)*others > site.queue.length {
		return nil // it asks again with the next reply
	}
	crowding := !s.starving.empty() && (len(site.links) > 1 || l.handed >= turn)
	if s.draining || l.handed >= s.opts.Messages || crowding || site.party.presses(l) {
		l.retire()
		return nil
	}
	if l.limits.Messages > 0 && l.handed >= l.limits.Messages {
		l.makeRoom()
		return nil
	}
	t, used := l.take()
	if used {
		l.makeRoom()
		return nil
	}
	if t == nil {
		l.waiting = true
		site.waiting = append(site.waiting, l)
		l.becomeIdle()
		if site.backlog != nil {
			site.watchBacklog(0)
		}
		return nil
	}
	t.link, t.started = l, s.now()
	l.handed++
	l.taken = append(l.taken, t)
	site.inFlight += t.open
	s.stats.queued.Add(-int64(t.open))
	s.stats.inFlight.Add(int64(t.open))
	s.stats.transactions.Add(1)
	s.stats.handedOut.Add(1)
	if site.backlog != nil {
		site.watchBacklog(t.open)
	}
	site.grow()
	return t
}

// makeRoom ends a link that the peer takes no more on. What waits gets another at once, where the site may have one more.
func (l *Link) makeRoom() {
	l.retire()
	l.site.grow()
}

// takeBack ends the time of t on the link.
func (l *Link) takeBack(t *Transaction) {
	if l.taken[0] == t {
		n := copy(l.taken, l.taken[1:])
		l.taken[n] = nil
		l.taken = l.taken[:n]
	} else {
		l.taken = slices.DeleteFunc(l.taken, func(x *Transaction) bool { return x == t })
	}
	n, s := len(t.Recipients), l.site.owner
	l.site.inFlight -= n
	s.stats.inFlight.Add(-int64(n))
	s.stats.transactions.Add(-1)
	s.park(t)
}

// done is Transaction.Done.
func (l *Link) done(t *Transaction) {
	site := l.site
	l.takeBack(t)
	if t.answered {
		l.works()
	}
	again := t.open > 0
	if again {
		t.requeues++
		site.requeue(t, nil, atBack)
	} else {
		t.free()
	}
	if len(l.taken) == 0 {
		if l.state == linkClosing {
			l.close()
		} else if l.waiting {
			l.becomeIdle()
		}
	}
	if again {
		site.kick()
	}
}

// works notes that the peer answers: what failed before counts no longer.
func (l *Link) works() {
	site := l.site
	site.hosts.Works(l.address)
	if site.failures() > 0 {
		site.recovers()
	}
	if src := site.key.source; src != nil {
		src.works(site.owner.now())
	}
	site.tried, site.broken, site.unmet = 0, 0, false
	site.hope = site.hope && site.hosts.PassesOver(site.owner.now())
	if site.lastError.Class != 0 {
		site.lastError = Outcome{}
	}
	if !l.proved {
		l.proved = true
		site.proved++
		site.vouch()
		site.grow()
	}
}

// end is an end of a queue.
type end bool

const (
	atFront end = true
	atBack  end = false
)

// requeue puts t into the queue again for the recipients that are not settled, unless that happened too often: then they are deferred with o, or
// the last error of the site.
func (site *Site) requeue(t *Transaction, o *Outcome, at end) {
	s := site.owner
	t.compact()
	t.link, t.sent, t.answered, t.due = nil, false, false, 0
	if t.requeues <= s.opts.Requeues {
		site.put(t, at)
		s.stats.queued.Add(int64(t.open))
		s.stats.requeued.Add(1)
		return
	}
	switch {
	case o != nil:
		s.outcome = *o
	case site.lastError.Class != 0:
		s.outcome = site.lastError
	default:
		s.outcome = Outcome{Class: Deferred, Enhanced: "4.4.2", Text: "no connection brought the transaction to its end"}
	}
	s.settleAll(t, &s.outcome, attempted)
}

// retire lets the link end when it has no transactions under way.
func (l *Link) retire() {
	if l.state != linkOpen {
		return
	}
	l.stopWaiting()
	l.state = linkClosing
	l.site.closing++
	if len(l.taken) == 0 {
		l.close()
	}
}

func (l *Link) close() {
	l.state = linkClosed
	l.conn.Close()
}

// stopWaiting takes the link out of the lists of those that wait for work.
func (l *Link) stopWaiting() {
	if l.waiting {
		l.waiting = false
		w := l.site.waiting
		i := slices.Index(w, l)
		l.site.waiting = slices.Delete(w, i, i+1)
	}
	if l.idleSince != 0 {
		s := l.site.owner
		s.idle.remove(l)
		l.idleSince = 0
		s.stats.idle.Add(-1)
	}
}

// becomeIdle lets the time of a waiting link run that has nothing under way.
func (l *Link) becomeIdle() {
	s := l.site.owner
	if len(l.taken) > 0 || l.idleSince != 0 {
		return
	}
	l.idleSince = s.now()
	s.idle.append(l)
	s.stats.idle.Add(1)
	s.alarm(l.idleSince + int64(s.opts.IdleTimeout))
	if !s.starving.empty() {
		l.retire()
	}
}

// linkList is a list of links in the order in which they became idle.
type linkList struct{ first, last *Link }

func (list *linkList) append(l *Link) {
	if l.prev = list.last; l.prev == nil {
		list.first = l
	} else {
		l.prev.next = l
	}
	list.last = l
}

func (list *linkList) remove(l *Link) {
	if l.prev == nil {
		list.first = l.next
	} else {
		l.prev.next = l.next
	}
	if l.next == nil {
		list.last = l.prev
	} else {
		l.next.prev = l.prev
	}
	l.prev, l.next = nil, nil
}
