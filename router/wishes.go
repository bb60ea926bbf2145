package router

import (
	"time"

	"mailrace/proto/message"
)

// What the sender of a message asked for about the time of its delivery: not before its release (FUTURERELEASE, RFC 4865), and until its
// deadline (DELIVERBY, RFC 2852). After the deadline a message ByReturn is not attempted any more, and one ByNotify is reported once and goes
// on. An attempt under way at the deadline goes to its end.

// dateLayout is how times are told to people.
const dateLayout = "2006-01-02 15:04:05 MST"

// heldUntil is the release of m if it is to be waited for, or 0.
func heldUntil(m *message.Message, now int64) int64 {
	if m.Wishes == nil || m.Wishes.Release <= now {
		return 0
	}
	return m.Wishes.Release
}

// hold makes recipient i wait for its release. Nothing was attempted.
func (s *Scheduler) hold(m *message.Message, i int, release, now int64) {
	r := &m.Recipients[i]
	s.outcome = Outcome{
		Class: Deferred, State: message.Deferred, Held: true, Text: "held until " + time.Unix(0, release).UTC().Format(dateLayout) + ", as its sender asked",
		Attempt: int(r.Attempts), Queued: now, Ended: now, Due: release,
	}
	r.State, r.Due, r.Reply = message.Deferred, release, s.outcome.Text
	s.env.Settle(m, i, &s.outcome)
	s.postponed = append(s.postponed, i)
}

// born is when the lifetime of m begins: that of a message that was held with its release. RFC 4865 §4.2
func born(m *message.Message) int64 {
	if m.Wishes != nil {
		return max(m.Arrived, m.Wishes.Release)
	}
	return m.Arrived
}

// returned says whether m is to be returned because its deadline has passed.
func returned(m *message.Message, now int64) bool {
	return m.Wishes != nil && m.Wishes.ByMode == message.ByReturn && m.Wishes.Deadline <= now
}

// timed says whether something is to be done about the open recipients of t at a deadline still to come.
func (t *Transaction) timed(now int64) bool {
	w := t.Message.Wishes
	return w != nil && w.ByMode != message.ByNone && w.Deadline > now
}

// missed is the outcome for a recipient of a message that is returned at its deadline; last is what its last attempt came to. RFC 2852 §4.1.3
func missed(r *message.Recipient, last *Outcome) Outcome {
	o := *last
	o.Class, o.Code, o.Enhanced, o.Remote = Bounced, 0, "5.4.7", false
	o.Text = "not delivered by the time that its sender set"
	said := r.Reply
	if last.Text != "" {
		said = last.Reply()
	}
	if said != "" {
		o.Text += "; at last: " + said
	}
	return o
}

// late sees to t, which no connection holds, when the deadline of its message has passed. It reports whether t is settled and gone.
func (s *Scheduler) late(t *Transaction, now int64) bool {
	w := t.Message.Wishes
	switch {
	case w == nil || w.ByMode == message.ByNone || w.Deadline > now:
		return false
	case w.ByMode == message.ByReturn:
		s.outcome = Outcome{Class: Deferred}
		s.settleAll(t, &s.outcome, backedOff)
		return true
	}
	for place, i := range t.Recipients {
		if !t.settled[place] {
			s.remind(t.Message, i, now)
		}
	}
	return false
}

// reminds says whether somebody is still to be told when recipient i misses its deadline. One that passed before we got the message was reported
// by who had it then.
func reminds(m *message.Message, i int) bool {
	w := m.Wishes
	return w != nil && w.ByMode == message.ByNotify && w.Deadline > m.Arrived && !m.Recipients[i].Late
}

// remind tells once that the deadline of a recipient passed whose delivery goes on. RFC 2852 §4.1.3
func (s *Scheduler) remind(m *message.Message, i int, now int64) {
	if !reminds(m, i) || m.Wishes.Deadline > now {
		return
	}
	r := &m.Recipients[i]
	r.Late = true
	s.reminder = Outcome{
		Class: Deferred, State: r.State, Late: true, Enhanced: "4.4.7", Text: "not delivered by the time that its sender set, attempts go on",
		Attempt: int(r.Attempts), Queued: now, Ended: now, Due: r.Due,
	}
	if r.Reply != "" {
		s.reminder.Text += "; so far: " + r.Reply
	}
	s.env.Settle(m, i, &s.reminder)
}

// wakeAt is when the wheel is to hand out recipients of m that are due later: then, or at a deadline before that is to be reported.
func wakeAt(m *message.Message, recipients []int, due int64) int64 {
	for _, i := range recipients {
		if reminds(m, i) {
			return min(m.Wishes.Deadline, due)
		}
	}
	return due
}

// wakeMessage is when a parked message is to be dispatched: when the first of its recipients is due, or late. The time has a tag if all of them were
// put back for the same site.
func wakeMessage(m *message.Message) (at int64) {
	tag, tagged := uint32(0), true
	for i := range m.Recipients {
		r := &m.Recipients[i]
		if r.State.Settled() {
			continue
		}
		due := wakeAt(m, []int{i}, r.Due)
		tagged = tagged && r.State == message.Pending && due == r.Due && (at == 0 || Tag(due) == tag)
		if tag = Tag(due); at == 0 || due < at {
			at = due
		}
	}
	if tagged && tag != 0 {
		return at
	}
	return plain(at)
}

// put puts t into the queue of the site.
func (site *Site) put(t *Transaction, at end) {
	if t.Message.Wishes != nil && t.Message.Wishes.ByMode != message.ByNone {
		site.expect(t.Message.Wishes.Deadline)
	}
	if at == atFront {
		site.queue.pushFront(t)
	} else {
		site.queue.push(t)
	}
}

// expect notes that something in the queue has a deadline.
func (site *Site) expect(deadline int64) {
	if deadline = max(deadline, 1); site.deadline == 0 || deadline < site.deadline {
		site.deadline = deadline
	}
}

// sweep sees to what is late in the queue. Sites with mail that waits are looked at every Options.GrowAfter at least, and no more often, however
// many deadlines there are: what becomes late in between is found out when a link takes it.
func (site *Site) sweep(now int64) {
	s := site.owner
	if site.deadline == 0 || site.deadline > now || now-site.swept < int64(s.opts.GrowAfter) {
		return
	}
	site.deadline, site.swept = 0, now
	var overdue []*Transaction
	site.queue.all(func(t *Transaction) bool {
		switch {
		case t.timed(now):
			site.expect(t.Message.Wishes.Deadline)
		case returned(t.Message, now):
			overdue = append(overdue, t)
			return true
		default:
			s.late(t, now)
		}
		return false
	})
	for _, t := range overdue {
		s.stats.queued.Add(-int64(t.open))
		s.late(t, now)
	}
}
