package router

import (
	"math"
	"net"
	"strconv"
	"strings"
	"time"

	"mailrace/router/mx"
	"mailrace/router/pool"
)

// rampStart is how many connections a site has until one of them brought something to an end.
const rampStart = 2

// siteKey tells sites apart. What an operator's route leads to never shares a site with what DNS says: addresses that only the operator may
// name must not be reached through somebody's MX record. Nor do routes that want different TLS, or to be spoken to in another manner: their
// connections are not alike.
type siteKey struct {
	kind mx.Kind
	rule int // place of the Provider, or none
	key  string
	port uint16
	tls  TLS
	how  Manner

	strict bool   // for mail that asks for REQUIRETLS: a host that does not do for it is as good as none
	shun   uint32 // stands for the host that comes behind all others, as it left mail of this site in doubt; 0 = there is none

	source *source // that its connections come from; nil = any address of this machine
}

// keyOf is the key of the site that route leads to by answer, for mail that asks for nothing.
func (r *Router) keyOf(route *Route, answer *mx.Answer) siteKey {
	return siteKey{kind: answer.Query.Kind, rule: r.providers.of(answer), key: answer.Key, port: route.Port, tls: route.TLS, how: route.Manner}
}

// keyFor is the key of the site that t goes to, whose answer has hosts, without its source.
func (r *Router) keyFor(t *Transaction) siteKey {
	k := r.keyOf(t.route, t.answer)
	k.strict = strict(t.Message, t.route)
	k.shun = shunKey(t.shuns())
	return k
}

// name is what people read.
func (k *siteKey) name() string {
	switch port := strconv.Itoa(int(k.port)); {
	case k.port == smtpPort:
		return k.key
	case strings.HasPrefix(k.key, "["):
		return k.key + ":" + port
	default:
		return net.JoinHostPort(k.key, port)
	}
}

// Site is a set of mail exchangers with the mail that waits for it and the connections to it. It belongs to its owner loop.
type Site struct {
	owner    *Scheduler
	key      siteKey
	name     string
	route    *Route // of the first transaction
	limit    int    // of connections; see party
	party    *party
	exchange *exchange
	hosts    pool.Hosts
	answer   *mx.Answer
	queue    lanes
	tag      uint32   // of what was put back to the disk
	backlog  *backlog // that, if there may be some
	rungs    []*rung  // policies by mail exchangers
	links    []*Link  // open and opening
	opening  int
	closing  int     // take nothing more
	proved   int     // on which the peer replied for a recipient
	waiting  []*Link // have asked for work in vain, the last one last
	inFlight int     // recipients
	deadline int64   // the next one of what is in the queue, or earlier, Unix nanoseconds; 0 = there is none
	swept    int64   // when the queue was last looked through for them

	tried      int     // addresses that failed since one worked
	broken     int     // links that broke since one worked
	probes     int     // messages that come back for the next try since it failed
	unmet      bool    // since then a host was there, but not as secure as it must be, or refused our credentials
	hope       bool    // since then, or at an address that is passed over, a connection failed in a way in which it may not fail another time
	own        health  // beside that of the exchange: failures of what no other site shares
	pause      int64   // no further connections before then: one was denied while others worked
	lastError  Outcome // of a connection; Class 0 = none since a delivery
	lastReason Reason  // and what it was

	fork  *fork // nil where there are no sources
	probe bool  // its source is out of service, and tried here

	emptySince int64 // without mail and connections

	// In the list of the scheduler with the same name.
	touched, starving, watched, vacant bool
	awaits                             bool // in party.waiting
}

// siteOf returns the site with key k that t goes to. f is the fork that it comes of, nil where there are no sources.
func (s *Scheduler) siteOf(t *Transaction, k siteKey, f *fork) *Site {
	site := s.sites[k]
	if site == nil {
		k.key = strings.Clone(k.key)
		site = &Site{owner: s, key: k, name: k.name(), route: t.route}
		site.join(t)
		site.tag = k.tag(t.answer.Hash)
		if f == nil {
			site.rungs = s.router.policies.at(t.answer)
		} else {
			f.adopt(site)
		}
		site.hosts.Families, site.hosts.Last = s.families(k.source), t.shuns()
		s.sites[k], s.tagged[site.tag] = site, site
		s.stats.sites.Add(1)
	}
	if site.answer != t.answer && (site.answer == nil || t.answer.Expires.After(site.answer.Expires)) {
		site.answer = t.answer
		site.hosts.Update(t.answer.Hosts)
	}
	t.site = site
	return site
}

// enqueue puts t into the queue, or back onto the wheel while the site is backed off. The site is kicked when the batch is accepted.
func (site *Site) enqueue(t *Transaction) {
	s := site.owner
	if until := site.backoff(); until != 0 {
		if until > s.now() {
			site.unshelve(t)
			s.outcome = site.trouble()
			s.settleAll(t, &s.outcome, backedOff)
			site.rest(s.now())
			return
		}
		s.clear(&site.own)
		s.clear(&site.exchange.health)
	}
	if site.full(t) {
		site.putBack(t, s.now())
		return
	}
	s.stats.queued.Add(int64(t.open))
	if site.queue.merge(t, s.opts.Recipients) {
		t.free()
	} else {
		if t.Held && site.queue.length > 0 && s.opts.Tight != nil && s.opts.Tight() {
			t.drop()
		}
		site.put(t, atBack)
	}
	if !site.touched {
		site.touched = true
		s.touched = append(s.touched, site)
	}
}

// kick wakes links and opens connections for what is in the queue.
func (site *Site) kick() {
	s := site.owner
	if s.draining {
		return
	}
	if src := site.key.source; src != nil && src.out() != 0 && !site.probe {
		site.scatter()
	}
	site.sweep(s.now())
	if !site.party.waiting.empty() {
		site.party.feed(s.now())
	}
	if site.queue.length > 0 && len(site.links) == 0 {
		site.borrow(s.now())
	}
	for site.queue.length > 0 && len(site.waiting) > 0 {
		l := site.nextToWake()
		l.stopWaiting()
		l.conn.Wake()
	}
	site.grow()
	if site.backlog != nil {
		site.watchBacklog(0)
	}
	if site.queue.length > 0 && !site.watched {
		site.watched = true
		at := s.now() + int64(s.opts.GrowAfter)
		s.watched.put(site, at)
		s.alarm(at)
	}
	site.rest(s.now())
}

// nextToWake picks the link to wake: the one that asked last, preferring those with nothing under way. So surplus links become idle.
func (site *Site) nextToWake() *Link {
	n := len(site.waiting)
	for i := n - 1; i >= 0; i-- {
		if len(site.waiting[i].taken) == 0 {
			return site.waiting[i]
		}
	}
	return site.waiting[n-1]
}

// grow opens connections while the queue is longer than those there are take soon. A site begins with rampStart of them and gets more as they
// succeed, at most twice as many with each round of replies: a long queue after a restart is no stampede, and a site that does not answer
// costs one attempt for each address, not twenty. When nothing is left to try and nothing is connected, the site has failed.
func (site *Site) grow() {
	s, now := site.owner, site.owner.now()
	if site.queue.length > 0 && len(site.links) == 0 && site.backoff() > now { // another site of the same hosts failed
		site.deferAll()
		return
	}
	for site.queue.length > 0 && site.wantsLink(now) && site.party.has(site, now) {
		bound := uint16(math.MaxUint16)
		for _, l := range site.links { // a backup is for when the preferred are down, not for when they are busy
			if l.state == linkOpen {
				bound = min(bound, l.address.Preference)
			}
		}
		var a *pool.Address
		if site.tried < s.opts.AddressTries {
			a = site.hosts.Pick(now, bound, s.rand)
		}
		if a == nil {
			if len(site.links) == 0 {
				site.fail(now)
			}
			return
		}
		if s.links >= s.most {
			site.starve()
			return
		}
		site.dial(a)
	}
}

// wantsLink says whether one more connection would help and is allowed.
func (site *Site) wantsLink(now int64) bool {
	s, n := site.owner, len(site.links)-site.closing
	switch {
	case len(site.links) >= site.limit:
		return false
	case n == 0:
		return true
	case max(site.pause, site.party.pause) > now || site.opening >= max(1, n-site.opening) || len(site.links)-site.proved >= max(rampStart, site.proved):
		return false
	case site.failures() > 0: // a site that comes back is probed by one connection until it delivered
		return false
	}
	aged := site.opening == 0 && site.queue.front().first.queued+int64(s.opts.GrowAfter) <= now
	return aged || site.queue.length > n*s.opts.QueueDepth
}

// starve waits for a connection of the loop's share to become free, and has the one that is idle longest closed.
func (site *Site) starve() {
	s := site.owner
	if site.starving || len(site.links) > 0 {
		return
	}
	site.starving = true
	s.starving.put(site, 0)
	s.giveUpIdle()
}

// fail backs the site off as a whole, with the others of its hosts if those are down, and defers what they have queued.
func (site *Site) fail(now int64) {
	if site.tried > 0 && !site.hope {
		site.bounceAll(now)
		return
	}
	s, h := site.owner, site.failing()
	site.accuse()
	failed := []*Site{site}
	if h != &site.own {
		failed = site.exchange.sites
	}
	h.failures++
	delay := int64(site.backoffDelay(h, failed))
	s.clear(h)
	h.backoff, h.remember = now+delay, now+2*delay+int64(vacancy)
	s.stats.backoff.Add(1)
	s.stats.failures.Add(1)
	site.trouble()
	for _, other := range failed {
		other.probes = 0
		if other.unmet = false; len(other.links) > 0 {
			continue // they are the last to try, and will fail likewise
		}
		other.disown()
		other.lastError = site.lastError
		other.deferAll()
		other.rest(now)
	}
}

// trouble is why the site is not in use.
func (site *Site) trouble() Outcome {
	if site.lastError.Class == 0 {
		site.lastError = Outcome{Class: Deferred, Enhanced: "4.4.1", Text: "no host of the site can be tried now"}
	}
	return site.lastError
}

// deferAll defers what is queued, or gives it to another source that delivers here. When the backoff is over every address is tried again.
func (site *Site) deferAll() {
	s := site.owner
	site.tried, site.hope = 0, false
	site.hosts.Forgive()
	if site.fork != nil && site.fork.serves(nil) {
		site.scatter()
		return
	}
	for t := site.queue.pop(); t != nil; t = site.queue.pop() {
		s.stats.queued.Add(-int64(t.open))
		s.outcome = site.trouble()
		s.settleAll(t, &s.outcome, attempted)
	}
}

// bounceAll is fail where each of the hosts says that it will never do for this mail. What comes next asks them anew.
func (site *Site) bounceAll(now int64) {
	s, o := site.owner, site.lastError
	o.Class, o.Code, o.Enhanced, site.lastError = Bounced, 550, "5"+o.Enhanced[1:], Outcome{}
	site.tried, site.unmet = 0, false
	site.hosts.Forgive()
	for t := site.queue.pop(); t != nil; t = site.queue.pop() {
		s.stats.queued.Add(-int64(t.open))
		s.outcome = o
		s.settleAll(t, &s.outcome, attempted)
	}
	site.rest(now)
}

// rest notes that the site has neither mail nor connections now, if so, and has it forgotten when that lasts.
func (site *Site) rest(now int64) {
	if site.queue.length > 0 || len(site.links) > 0 {
		return
	}
	site.emptySince = now
	if !site.vacant {
		site.vacant = true
		site.owner.vacant.put(site, now+int64(vacancy))
		site.owner.alarm(now + int64(vacancy))
	}
}

// forget removes the site if it has been empty for long enough, or looks again later.
func (site *Site) forget(now int64) {
	s := site.owner
	if site.queue.length > 0 || len(site.links) > 0 {
		site.vacant = false
		return
	}
	if now < max(site.emptySince+int64(vacancy), site.own.remember, site.exchange.remember) {
		s.vacant.put(site, now+int64(vacancy))
		return
	}
	if site.askProbes() {
		s.vacant.put(site, now+int64(vacancy))
		return
	}
	site.disown()
	site.part()
	delete(s.sites, site.key)
	if s.tagged[site.tag] == site {
		delete(s.tagged, site.tag)
	}
	if site.fork != nil {
		site.fork.lose(site)
	}
	s.stats.sites.Add(-1)
}

// status describes the site.
func (site *Site) status() SiteStatus {
	st := SiteStatus{
		Site: site.name, Source: site.key.source.title(), Provider: site.owner.router.providers.name(site.key.rule), Route: site.route.Name,
		Queued: site.queue.recipients, InFlight: site.inFlight, Connections: len(site.links), Failures: site.failures(),
	}
	for _, l := range site.links {
		if l.state == linkOpen && len(l.taken) == 0 {
			st.Idle++
		}
	}
	if until := site.backoff(); until > site.owner.now() {
		st.Backoff = time.Unix(0, until)
	}
	if site.lastError.Class != 0 {
		st.LastError = site.lastError.Reply()
	}
	return st
}
