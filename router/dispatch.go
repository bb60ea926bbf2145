package router

import (
	"mailrace/proto/message"
	"mailrace/router/mx"
)

// Verdicts that need no DNS.
var (
	noDomain = &mx.Answer{Class: mx.Permanent, Code: 550, Enhanced: "5.1.3", Text: "the address has no valid domain"}
	noRoute  = &mx.Answer{Class: mx.Temporary, Code: 451, Enhanced: "4.3.5", Text: "no route is configured for this domain"}
	// RFC 8689 §4.2.1: the MX lookup must be secured by DNSSEC, here together with DANE, or by MTA-STS.
	noProof = &mx.Answer{Class: mx.Permanent, Code: 550, Enhanced: "5.7.30", Text: "the message asks for REQUIRETLS, and nothing proves which mail exchangers the domain has"}
)

// destination is what recipients must have in common to share a transaction.
type destination struct {
	route  *Route
	key    string     // of the site; or the domain that is being looked up
	answer *mx.Answer // a verdict without hosts
	asking bool
}

// Dispatch takes a message that is in the spool and sees to every recipient that is not settled. It is called on the given loop, with a hold
// of the caller on m (none is needed for a message without a Body); the router takes its own where it keeps the content. It calls nothing
// of Env but Now, Post and After, Wait, and Settle for recipients that have to wait for the release of m or whose deadline has passed.
// With Options.InMemory, Reserve took room for all of them before. Recipients that are Deferred with a Due in the future wait without content until then. All recipients that are not settled are under way
// when it is called (message.Message.SetPending); those of a message that was parked (Parked) waited until now.
func (r *Router) Dispatch(loop int, m *message.Message) {
	s := r.schedulers[loop]
	held, now := len(m.Body) > 0, s.now()
	release := heldUntil(m, now)
	if m.Parked != 0 {
		s.stats.waiting.Add(-int64(m.Unsettled()))
	}
	for i := range m.Recipients {
		switch p := &m.Recipients[i]; {
		case p.State.Settled():
		case p.State == message.Deferred && p.Due > now:
			s.remind(m, i, now)
			s.postponed = append(s.postponed, i)
		case release != 0:
			s.hold(m, i, release, now)
		default:
			p.State = message.Pending
			s.route(m, i, held)
		}
	}
	if len(s.postponed) > 0 {
		s.rest(m, s.postponed) // before the others go anywhere: m may be parked, but not under them
		s.postponed = s.postponed[:0]
	}
	s.send()
}

// route finds the way of recipient i and adds it to the transaction that goes there, to be sent by send. held says whether a transaction takes
// a hold on the content.
func (s *Scheduler) route(m *message.Message, i int, held bool) {
	var d destination
	var q mx.Query
	domain := m.Recipients[i].Domain()
	if domain == "" {
		domain = s.opts.LocalDomain
	}
	name, err := mx.Normal(domain)
	answer := noDomain
	switch {
	case m.Recipients[i].GivenUp():
		answer = giveUp(&m.Recipients[i])
	case err == nil:
		switch d.route = s.opts.Table.Match(name); {
		case d.route == nil:
			answer = noRoute
		case needsProof(m, d.route) && !s.policed(d.route):
			answer = noProof
		default:
			if answer, q, d.asking = s.find(m, d.route, name); !d.asking {
				answer = proven(m, d.route, answer)
			}
		}
	}
	switch {
	case d.asking:
		d.key = q.Name
	case answer == nil: // discard
	case answer.Class == mx.OK:
		d.key = answer.Key
	default:
		d.answer = answer
	}
	t := s.share(d, m, name, held)
	t.answer = answer
	t.add(i)
}

// find returns what is known of the way that route goes for mail to a domain: an answer, or the query that has to be asked. Neither for a Discard
// route.
func (s *Scheduler) find(m *message.Message, route *Route, domain string) (answer *mx.Answer, q mx.Query, asking bool) {
	switch route.Kind {
	case Discard:
		return nil, q, false
	case Local:
		return route.answer, q, false
	case Host:
		q = route.query
	default:
		q = mx.Query{Kind: mx.Exchangers, Name: domain}
	}
	answer, ok := s.resolver(m, route).Cached(q)
	return answer, q, !ok
}

// resolver is who is asked for the way that route goes for a message. One that can do without TLS is nothing that domains have a say in.
// RFC 8689 §5
func (s *Scheduler) resolver(m *message.Message, route *Route) Resolver {
	if s.policed(route) && m.Flags&message.TLSOptional == 0 {
		return s.opts.Policed
	}
	return s.opts.Resolver
}

// policed says whether domains have a say in how the hosts of a route are spoken to.
func (s *Scheduler) policed(route *Route) bool {
	return s.opts.Policed != nil && route.Kind == MX && route.TLS != TLSOff
}

// strict says whether m may only go to hosts that do for REQUIRETLS. A notification goes on all the same, rather than be lost (RFC 8689 §5), and so does
// what does not leave this machine.
func strict(m *message.Message, route *Route) bool {
	return m.Flags&message.RequireTLS != 0 && m.From != "" && route.Kind != Local
}

// needsProof says whether m may only go to hosts that prove to be those of its domain. RFC 8689 §4.2.1
func needsProof(m *message.Message, route *Route) bool { return route.Kind == MX && strict(m, route) }

// proven is the answer for m: another one, if m may not go to any of its hosts.
func proven(m *message.Message, route *Route, answer *mx.Answer) *mx.Answer {
	if !needsProof(m, route) || answer.Class != mx.OK {
		return answer
	}
	for i := range answer.Hosts {
		if answer.DemandOf(answer.Hosts[i].Name).Proves() {
			return answer
		}
	}
	return noProof
}

// share returns the transaction of the batch under way that goes to d and has room for one more recipient.
func (s *Scheduler) share(d destination, m *message.Message, domain string, held bool) *Transaction {
	var t *Transaction
	switch n := len(s.batch); {
	case n == 0:
	case s.last == d:
		t = s.batch[n-1]
	default:
		t = s.groups[d]
	}
	if t != nil && len(t.Recipients) < s.opts.Recipients {
		return t
	}
	t = newTransaction(m, domain, s.now())
	if t.route = d.route; held {
		t.hold()
	}
	if len(s.batch) > 0 { // a message for one destination never touches the map
		s.groups[s.last] = s.batch[len(s.batch)-1]
	}
	s.last = d
	s.batch = append(s.batch, t)
	s.asking = append(s.asking, d.asking)
	return t
}

// send hands on the transactions that route collected for one message.
func (s *Scheduler) send() {
	for i, t := range s.batch {
		if s.asking[i] {
			s.ask(t)
		} else {
			s.forward(t)
		}
		s.batch[i] = nil
	}
	s.batch, s.asking, s.last = s.batch[:0], s.asking[:0], destination{}
	if len(s.groups) > 0 {
		clear(s.groups)
	}
}

// forward puts t into the mailbox of the loop that owns its site, or of this loop if it goes to none.
func (s *Scheduler) forward(t *Transaction) {
	owner := s
	if t.answer != nil && t.answer.Class == mx.OK {
		owner = s.router.owner(t.route, t.answer)
	}
	t.owner = owner
	s.boxes[owner.loop].put(t)
}

// owner is the scheduler of the site that route leads to by answer. All sites of a party have the same.
func (r *Router) owner(route *Route, answer *mx.Answer) *Scheduler {
	_, hash := answer.Exchange()
	if rule := r.providers.of(answer); rule != none {
		hash = r.providers.hashes[rule]
	}
	return r.schedulers[(hash+uint64(route.Port))%uint64(len(r.schedulers))]
}

// accept takes t out of a mailbox.
func (s *Scheduler) accept(t *Transaction) {
	switch {
	case t.Message.Wishes != nil && s.late(t, s.now()):
	case t.answer == nil:
		s.outcome = Outcome{Class: Delivered, Text: "discarded"}
		s.settleAll(t, &s.outcome, attempted)
	case t.answer.Class != mx.OK:
		if t.answer.Class == mx.Permanent {
			s.stray(t, 0)
		}
		s.outcome = verdict(t.answer)
		s.settleAll(t, &s.outcome, attempted)
	default:
		if s.router.sources == nil {
			site := s.siteOf(t, s.router.keyFor(t), nil)
			s.stray(t, site.tag)
			site.enqueue(t)
		} else {
			s.lead(t)
		}
	}
}

// siteKey finds the site of a domain of m, as far as that is known without asking and waiting. Any goroutine.
func (r *Router) siteKey(m *message.Message, domain string) (key siteKey, hash uint64, ok bool) {
	s := r.schedulers[0]
	if domain == "" {
		domain = s.opts.LocalDomain
	}
	name, err := mx.Normal(domain)
	if err != nil {
		return key, 0, false
	}
	route := s.opts.Table.Match(name)
	if route == nil || route.Kind == Discard || strict(m, route) || r.sources != nil && route.pooled() { // or it depends on the turn
		return key, 0, false
	}
	answer, _, asking := s.find(m, route, name)
	if asking || answer.Class != mx.OK {
		return key, 0, false
	}
	return r.keyOf(route, answer), answer.Hash, true
}
