package router

import (
	"math"

	"mailrace/proto/message"
	"mailrace/router/mx"
	"mailrace/router/schedule"
)

// counting says whether an outcome ends an attempt.
type counting bool

const (
	attempted counting = true
	backedOff counting = false // the site was not tried: the recipient waits until the site may be
)

// backoffSpread is the part of a site's backoff over which those that wait for it come back behind its end; the first of them is the probe.
const backoffSpread = 10

// deferral is what remains of recipients that wait for their next attempt, as long as others of their message are under way. With its node in
// the wheel and the ticket it takes 72 bytes, and 8 for each recipient if there are several. It does not keep the message in memory when that
// is parked.
type deferral struct {
	ticket  *message.Ticket
	one     int   // index of the recipient
	several []int // their indices, if there are several
}

// settle records what became of recipient i of t's message and tells the engine. Class, Code, Enhanced, Text, Remote, InDoubt, Host and Addr of
// o are set.
func (s *Scheduler) settle(t *Transaction, i int, o *Outcome, c counting) {
	m, now := t.Message, s.now()
	r := &m.Recipients[i]
	if c == attempted && !r.GivenUp() && r.Attempts < math.MaxUint16 {
		r.Attempts++
	}
	o.Route, o.Site = "", ""
	if t.route != nil {
		o.Route = t.route.Name
	}
	if o.source, o.pool = nil, t.pool; t.site != nil {
		o.Site, o.source = t.site.name, t.site.key.source
	}
	if o.InDoubt {
		s.doubt(t, r, o)
	}
	o.Attempt, o.Queued, o.Started, o.Ended, o.Due, o.Notice = int(r.Attempts), t.queued, t.started, now, 0, false
	switch o.Class {
	case Delivered:
		r.State = message.Delivered
		s.stats.delivered.Add(1)
	case Bounced:
		r.State, r.Reply = message.Bounced, o.Reply()
		s.stats.bounced.Add(1)
	default:
		if returned(m, now) && !r.Waits() {
			s.missed = missed(r, o)
			o = &s.missed
			r.State, r.Reply = message.Bounced, o.Reply()
			s.stats.bounced.Add(1)
			break
		}
		s.deferRecipient(t, i, o, c, now)
	}
	o.State = r.State
	if o.source != nil {
		o.source.count(r.State)
	}
	if r.State != message.Deferred && s.router.room.limit > 0 {
		s.router.Unreserve(1)
	}
	s.env.Settle(m, i, o)
	if r.State == message.Deferred {
		s.remind(m, i, now)
	}
}

// deferRecipient notes when recipient i is tried again: at its own backoff, not before its site may be tried, at the latest when its lifetime ends,
// which is its last attempt. One that is deferred after that expires. RFC 5321 §4.5.4.1
func (s *Scheduler) deferRecipient(t *Transaction, i int, o *Outcome, c counting, now int64) {
	r := &t.Message.Recipients[i]
	r.Reply = o.Reply()
	of := s.terms(t, i)
	expire := born(t.Message) + int64(of.lifetime(t.Message.From))
	if r.Waits() { // for an operator: it neither expires nor has a time of its own
		o.Due = r.Due
		t.deferred = append(t.deferred, i)
		s.stats.deferrals.Add(1)
		return
	}
	if now >= expire {
		r.State = message.Expired
		s.stats.expired.Add(1)
		return
	}
	if t.due == 0 || t.dueAttempts != r.Attempts || t.dueRetry != of.retry {
		t.due, t.dueAttempts, t.dueRetry = s.nextAttempt(t, of.retry, int(r.Attempts), c, now), r.Attempts, of.retry
	}
	r.State, r.Due = message.Deferred, min(t.due, expire)
	if w := t.Message.Wishes; w != nil && w.ByMode == message.ByReturn {
		r.Due = min(r.Due, w.Deadline)
	}
	o.Due, o.Notice = r.Due, s.notice(t.Message, i, now)
	t.deferred = append(t.deferred, i)
	s.stats.deferrals.Add(1)
}

// nextAttempt draws the time of the next attempt.
func (s *Scheduler) nextAttempt(t *Transaction, retry *schedule.Backoff, attempts int, c counting, now int64) int64 {
	due := now
	if c == attempted {
		due += int64(retry.Delay(attempts, s.rand))
	}
	if t.site == nil {
		return due
	}
	if until := t.site.untilTried(); until > now {
		due = max(due, until+s.rand.Int64N((until-now)/backoffSpread+1))
	}
	return t.site.key.source.sign(due)
}

// park lets what t deferred wait.
func (s *Scheduler) park(t *Transaction) {
	if len(t.deferred) > 0 {
		if t.site != nil {
			t.site.shelve(t, s.now())
		}
		s.rest(t.Message, t.deferred)
		t.deferred = t.deferred[:0]
	}
}

// rest lets recipients of m wait, which are under way no more, as they were settled.
func (s *Scheduler) rest(m *message.Message, recipients []int) { s.lay(m, recipients, true) }

// lay lets recipients of m wait, which are under way no more. If none is, the message leaves the memory; otherwise they wait on the wheel, those
// that are due together as one. noted says that there is something to note of them.
func (s *Scheduler) lay(m *message.Message, recipients []int, noted bool) {
	s.stats.waiting.Add(int64(len(recipients)))
	changed := recipients
	if !noted {
		changed = nil
	}
	if s.opts.Park && m.EndLast(len(recipients), false) == message.Waiting {
		s.env.Wait(m, changed, s.router.Leave(m))
		return
	}
	if noted {
		s.env.Wait(m, changed, 0)
	}
	for rest := recipients; len(rest) > 0; {
		n, due := 1, m.Recipients[rest[0]].Due
		for n < len(rest) && m.Recipients[rest[n]].Due == due {
			n++
		}
		s.wait(m, rest[:n], due)
		rest = rest[n:]
	}
	if s.opts.Park && m.End(len(recipients), false) == message.Waiting { // the others ended meanwhile
		s.env.Wait(m, nil, s.router.Leave(m))
	}
}

// wait puts recipients that are due together onto the wheel.
func (s *Scheduler) wait(m *message.Message, recipients []int, due int64) {
	n := &schedule.Node[deferral]{Value: deferral{ticket: m.Ticket(), one: recipients[0]}}
	if len(recipients) > 1 {
		n.Value.several = append([]int(nil), recipients...)
	}
	if s.wheel.Len() == 0 {
		s.wheel.Advance(s.now(), nil) // it may have stood still for long
	}
	s.wheel.Add(n, wakeAt(m, recipients, due))
	if at, ok := s.wheel.Next(); ok {
		s.alarm(at)
	}
}

// due dispatches afresh what the wheel hands out, unless its message has left since.
func (s *Scheduler) due(n *schedule.Node[deferral]) {
	d := &n.Value
	if d.several == nil {
		d.several = []int{d.one}
	}
	m := d.ticket.Message()
	if m == nil || s.opts.Park && !m.Resume(len(d.several)) {
		return
	}
	s.stats.waiting.Add(-int64(len(d.several)))
	if due := m.Recipients[d.several[0]].Due; m.Wishes != nil && due > s.now() { // it is but the deadline
		for _, i := range d.several {
			s.remind(m, i, s.now())
		}
		s.rest(m, d.several)
		return
	}
	for _, i := range d.several {
		m.Recipients[i].State = message.Pending
		s.route(m, i, false)
	}
	s.send()
}

// settleAll settles every open recipient of t, which no connection holds, with o and frees t.
func (s *Scheduler) settleAll(t *Transaction, o *Outcome, c counting) {
	for i, r := range t.Recipients {
		if !t.settled[i] {
			s.settle(t, r, o, c)
		}
	}
	s.park(t)
	t.free()
}

// verdict is the outcome of a lookup that found no hosts.
func verdict(a *mx.Answer) Outcome {
	o := Outcome{Class: Deferred, Code: a.Code, Enhanced: a.Enhanced, Text: a.Text}
	if a.Class == mx.Permanent {
		o.Class = Bounced
	}
	return o
}
