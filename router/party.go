package router

import (
	"slices"
	"strings"

	"mailrace/router/mx"
	"mailrace/router/pool"
	"mailrace/router/schedule"
)

// A Site has the mail and the connections for some hosts, under what is demanded of them: connections that differ in that are not alike, and the failure
// of a demand is that of the domains that make it. What the hosts themselves bear has nothing to do with that. So sites of the same hosts have one
// exchange, which is down, or up, for all of them; and exchanges of one provider have one party, whose connections are counted together. An
// exchange of no provider is a party of its own. All of that is for one source of connections: from another one hosts may be up, and have other limits. Sites of a party have the same owner loop.

// partyKey tells parties apart.
type partyKey struct {
	kind mx.Kind
	rule int    // place of the Provider, or none
	name string // of the exchange, where there is none
	port uint16
	how  Manner // whoever logs in is a customer of its own there

	source *source // hosts see each by itself
}

// party is what sites share whose hosts one provider runs.
type party struct {
	key     partyKey
	limit   int     // of connections
	links   []*Link // of all of its sites
	linked  int     // sites with links
	sites   int
	pause   int64       // no further connections before then: one was refused while others worked
	waiting fifo[*Site] // want a connection while there may be no more
	fed     *Site       // whose turn it is of those that waited
	only    exchange
	several map[string]*exchange // in place of only, where there is a Provider
}

// exchange is a set of hosts.
type exchange struct {
	key   string
	sites []*Site
	health
}

// health is how often something failed, and until when it is left alone.
type health struct {
	failures int               // times in a row that it failed as a whole
	retry    *schedule.Backoff // when that was last; see backoffDelay
	backoff  int64             // not tried before then, Unix nanoseconds; 0 = in use
	remember int64             // kept at least until then, so that its failures count when it is tried again
}

// limitOf is the most connections to a site of route.
func (s *Scheduler) limitOf(route *Route) int {
	if route.Connections > 0 {
		return route.Connections
	}
	return s.opts.SiteConnections
}

// limits are the most connections to a site of a route, and to the Provider of a rule, if that says so.
func (s *Scheduler) limits(route *Route, rule int) (site, all int) {
	site = s.limitOf(route)
	if all = s.router.providers.connections(rule); all > 0 {
		if site = all; route.Connections > 0 {
			site = min(all, route.Connections)
		}
	}
	return site, all
}

// join gives a new site its party and exchange.
func (site *Site) join(t *Transaction) {
	s := site.owner
	name, _ := t.answer.Exchange()
	k := partyKey{kind: site.key.kind, rule: site.key.rule, port: site.key.port, how: site.key.how, source: site.key.source}
	if k.rule == none {
		k.name = name
	}
	p := s.parties[k]
	if p == nil {
		name = strings.Clone(name)
		if k.rule == none {
			k.name = name
		}
		p = &party{key: k}
		s.parties[k] = p
	}
	var all int
	if site.limit, all = s.limits(t.route, k.rule); all == 0 {
		all = max(p.limit, site.limit)
	}
	p.limit = all
	e := &p.only
	if k.rule != none {
		if e = p.several[name]; e == nil {
			if p.several == nil {
				p.several = map[string]*exchange{}
			}
			e = new(exchange)
			name = strings.Clone(name)
			p.several[name] = e
		}
	}
	if e.key == "" {
		e.key = name
	}
	p.sites++
	e.sites = append(e.sites, site)
	site.party, site.exchange = p, e
}

// part takes a site that is forgotten out of its party.
func (site *Site) part() {
	s, p, e := site.owner, site.party, site.exchange
	e.sites = slices.DeleteFunc(e.sites, func(other *Site) bool { return other == site })
	s.clear(&site.own)
	if len(e.sites) == 0 {
		s.clear(&e.health)
		delete(p.several, e.key)
	}
	if p.sites--; p.sites == 0 {
		delete(s.parties, p.key)
	}
}

// clear ends a backoff.
func (s *Scheduler) clear(h *health) {
	if h.backoff != 0 {
		h.backoff = 0
		s.stats.backoff.Add(-1)
	}
}

// backoff is until when the site is not tried, Unix nanoseconds; 0 = it is in use.
func (site *Site) backoff() int64 { return max(site.own.backoff, site.exchange.backoff) }

// failures is how many times in a row the site failed, by itself or with others of the same hosts.
func (site *Site) failures() int { return max(site.own.failures, site.exchange.failures) }

// probing says whether the hosts of the site, which failed, are being tried by a site that shares them.
func (e *exchange) probing() bool {
	return e.failures > 0 && slices.ContainsFunc(e.sites, func(site *Site) bool { return len(site.links) > 0 })
}

// proved says whether a connection of another site of the same hosts delivers.
func (e *exchange) proved(but *Site) bool {
	return slices.ContainsFunc(e.sites, func(site *Site) bool { return site != but && site.proved > 0 })
}

// failing is what failed when the site did: its own policy or credentials, which no other site shares, or the hosts.
func (site *Site) failing() *health {
	if site.unmet || site.exchange.proved(site) {
		return &site.own
	}
	return &site.exchange.health
}

// has says whether the party may have one more connection, and lets it be that of the site in its turn otherwise.
func (p *party) has(site *Site, now int64) bool {
	others := len(p.links) - len(site.links)
	if others == 0 {
		return true
	}
	free := p.limit - len(p.links)
	if free > 0 && (p.fed == site || free > p.waiting.length()) && p.pause <= now && !site.exchange.probing() {
		return true
	}
	if len(site.links) >= p.share() {
		return false
	}
	if !site.awaits {
		site.awaits = true
		p.waiting.put(site, 0)
	}
	if len(p.links) >= p.limit && len(site.links) == 0 {
		if i := slices.IndexFunc(p.links, func(l *Link) bool { return l.idleSince != 0 }); i >= 0 {
			p.links[i].retire()
		}
	}
	return false
}

// share is how many connections a site may hold while others wait for one.
func (p *party) share() int { return max(p.limit/max(p.linked+p.waiting.length(), 1), 1) }

// presses says whether a connection of the party has to make room for a site that waits.
func (p *party) presses(l *Link) bool {
	return !p.waiting.empty() && len(p.links) >= p.limit && (len(l.site.links) > p.share() || l.handed >= turn)
}

// feed lets sites that wait have a connection, as long as there is room for them.
func (p *party) feed(now int64) {
	if p.fed != nil {
		return
	}
	for n := p.waiting.length(); n > 0 && len(p.links) < p.limit && p.pause <= now; n-- {
		site, _ := p.waiting.due(now)
		if site.awaits = false; site.queue.length > 0 {
			p.fed = site
			site.kick()
		}
	}
	p.fed = nil
}

// borrow takes over an idle connection of another site of the party, if there is one to a host of this site that shows at least what is demanded of it
// here, and reports whether there was. Mail never goes to a host that is not among those of its domain.
func (site *Site) borrow(now int64) bool {
	p := site.party
	if len(p.links) == len(site.links) || site.backoff() > now {
		return false
	}
	for _, l := range p.links {
		if l.site == site || l.idleSince == 0 || l.state != linkOpen || l.handed >= site.owner.opts.Messages {
			continue
		}
		if a := site.meets(l, now); a != nil {
			l.move(site, a)
			site.owner.stats.borrowed.Add(1)
			return true
		}
	}
	return false
}

// meets returns the address among those of the site that a link of another one leads to, if the site could have made the link itself.
func (site *Site) meets(l *Link, now int64) *pool.Address {
	mine, theirs := site.key, l.site.key
	theirs.key, theirs.shun = mine.key, mine.shun // Preferred sees to whom this one shuns
	if mine != theirs || !l.made.Meets(site.answer.DemandOf(l.target.Host)) {
		return nil
	}
	return site.hosts.Preferred(now, l.target.Host, l.target.Addr.Addr())
}

// move makes an idle link one of another site of the party.
func (l *Link) move(to *Site, a *pool.Address) {
	from := l.site
	l.stopWaiting()
	i := slices.Index(from.links, l)
	if from.links = slices.Delete(from.links, i, i+1); len(from.links) == 0 {
		from.party.linked--
	}
	if l.proved {
		from.proved--
		to.proved++
	}
	if to.links = append(to.links, l); len(to.links) == 1 {
		to.party.linked++
	}
	l.site, l.address = to, a
	l.target.Site, l.target.Route, l.target.Demand = to.name, to.route.Name, to.answer.DemandOf(l.target.Host)
	l.waiting = true
	to.waiting = append(to.waiting, l)
	from.rest(from.owner.now())
}

// recovers ends the failures of a site that delivers, and of those that have the same hosts.
func (site *Site) recovers() {
	s, e := site.owner, site.exchange
	site.own.failures = 0
	s.clear(&site.own)
	defer site.release()
	if e.failures == 0 {
		site.recover()
		return
	}
	e.failures = 0
	s.clear(&e.health)
	for _, other := range e.sites {
		if other.own.failures == 0 {
			other.recover()
		}
	}
	site.party.feed(s.now())
}
