package engine

import (
	"time"

	"mailrace/engine/event"
	"mailrace/engine/loop"
	"mailrace/proto/message"
	"mailrace/router"
	"mailrace/spool"
)

// lane is what the node keeps for one event loop: it joins ingress, spool, router and egress there. Only that loop touches it.
type lane struct {
	node   *Node
	loop   *loop.Loop
	index  int
	events *event.Writer

	// concluded collects what became of recipients until the end of the loop's turn, and gathered what is to be told of messages that are at home
	// here, so that the sender gets one DSN for all that ended together.
	concluded map[*message.Message][]verdict
	gathered  map[*message.Message]*gathered
	waiting   int  // verdicts in gathered
	looking   bool // look is armed
	look      loop.Timer
}

// accepted takes over a message that is durable, and passes it to the router, unless it was parked: see pager.place.
func (a *lane) accepted(m *message.Message) {
	a.recordReception(m)
	if m.Parked != 0 {
		a.node.router.Waits(len(m.Recipients))
		m.Release()
		return
	}
	if a.node.store.Keeps() && a.node.budget.Tight() {
		m.Release() // the spool has it
		a.node.router.Dispatch(a.index, m)
		return
	}
	a.node.router.Dispatch(a.index, m)
	m.Release()
}

func (a *lane) recordReception(m *message.Message) {
	now := a.loop.Now().UnixNano()
	r := event.Record{
		Time: now, Type: event.Reception, ID: m.ID, Sender: m.From, Recipients: len(m.Recipients),
		Peer: m.Peer, TLSVersion: m.TLSVersion, TLSCipher: m.TLSCipher, Size: m.Size, Latency: time.Duration(now - m.Arrived),
		User: m.User, Tenant: m.Tenant, Campaign: m.Campaign,
	}
	if len(m.Recipients) > 0 {
		r.Recipient = m.Recipients[0].Address
	}
	if w := m.Wishes; w != nil {
		r.Release, r.Deadline, r.Priority = w.Release, w.Deadline, int(w.Priority)
	}
	a.events.Record(&r)
}

// eventTypes are the records of the states that a recipient can come to.
var eventTypes = [...]event.Type{
	message.Deferred: event.Deferral, message.Delivered: event.Delivery, message.Bounced: event.Bounce, message.Expired: event.Expiry,
}

// settle notes what became of a recipient: in the event log, and in the spool if it is the end.
func (a *lane) settle(m *message.Message, i int, o *router.Outcome) {
	rcpt := &m.Recipients[i]
	what := eventTypes[o.State]
	switch {
	case o.Held:
		what = event.Hold
	case o.Late:
		what = event.Delay
	default:
		a.node.stats.outcomes[o.State].Inc()
	}
	a.events.Record(&event.Record{
		Time: o.Ended, Type: what, ID: m.ID, Sender: m.From, Recipient: rcpt.Address, Queue: rcpt.Domain(),
		Site: o.Site, Source: o.Source, From: o.From(), Pool: o.Pool(), Peer: o.Addr, TLSVersion: o.TLSVersion, TLSCipher: o.TLSCipher, TLSResumed: o.TLSResumed, TLSPolicy: o.TLSPolicy, TLSVerdict: o.TLSVerdict,
		Code: o.Code, Enhanced: o.Enhanced, Text: o.Text,
		Attempt: o.Attempt, Size: m.Size, Latency: time.Duration(o.Ended - m.Arrived), Tenant: m.Tenant, Campaign: m.Campaign,
	})
	if rcpt.Doubt != nil {
		a.node.doubts.settled(a, m, i, o)
	}
	switch {
	case o.State == message.Deferred && !o.Late: // noted when it waits
		if o.Notice {
			a.conclude(m, i, o)
		}
		return
	case o.Late:
		op := spool.NewOp()
		note(op, m, i)
		a.enqueue(m, op)
		if m.From != "" && rcpt.Notify.Delay() {
			a.conclude(m, i, o)
		}
		return
	case a.reported(m, i, o):
		a.conclude(m, i, o)
		return
	case o.State != message.Delivered:
		a.node.stats.unreported.Inc()
	}
	a.resolve(m, spool.NewOp(), i)
}

// wait notes recipients that are deferred, and parks their message where nothing else of it is under way.
func (a *lane) wait(m *message.Message, recipients []int, due int64) {
	op := spool.NewOp()
	landed(op, m, recipients)
	for _, i := range recipients {
		note(op, m, i)
	}
	if due != 0 {
		park(op, m, due)
	}
	a.enqueue(m, op)
}

// resolve notes in op that recipients of m are settled, and removes the message with the last of them, or parks it if all others wait. Other loops
// may be settling other recipients of m: a note must be on its way to the shard before this one counts as settled, or it could arrive behind the
// removal.
func (a *lane) resolve(m *message.Message, op *spool.Op, recipients ...int) {
	landed(op, m, recipients)
	left := m.EndLast(len(recipients), true)
	if left != message.Finished {
		for _, i := range recipients {
			note(op, m, i)
		}
	}
	if left == message.Busy {
		a.enqueue(m, op)
		if left = m.End(len(recipients), true); left == message.Busy {
			return
		}
		op = spool.NewOp()
	}
	if left == message.Finished {
		op.Remove, op.Unpark = removal(m), entry(m)
	} else {
		park(op, m, a.node.router.Leave(m))
	}
	a.enqueue(m, op)
}

// landed takes the marks of recipients along with what became of them.
func landed(op *spool.Op, m *message.Message, recipients []int) {
	for _, i := range recipients {
		if r := &m.Recipients[i]; r.Mark != 0 {
			op.Marks = append(op.Marks, spool.Mark(r.Mark))
			r.Mark = 0
		}
	}
}

// note adds the state of a recipient to op.
func note(op *spool.Op, m *message.Message, i int) {
	r := &m.Recipients[i]
	op.Updates = append(op.Updates, spool.Update{
		ID: m.ID, Index: i, State: r.State, Attempts: r.Attempts, Due: r.Due, Reply: r.Reply, Late: r.Late, Noticed: r.Noticed, Doubt: r.Doubt, Parked: m.Parked != 0,
	})
}

// entry is the one that m has in the index of what is due, if it has one.
func entry(m *message.Message) (d spool.Due) {
	if m.Parked != 0 {
		d = spool.Due{At: m.Parked, ID: m.ID}
	}
	return d
}

// park adds to op that nobody needs m until it is due. All Updates of op are of m.
func park(op *spool.Op, m *message.Message, due int64) {
	op.Unpark, op.Park = entry(m), spool.Due{At: due, ID: m.ID}
	for i := 0; len(op.Updates) == 0 && m.Parked == 0; i++ {
		if !m.Recipients[i].State.Settled() {
			note(op, m, i) // from the first time on a record says so
		}
	}
	for i := range op.Updates {
		op.Updates[i].Parked = true
	}
}

func (a *lane) enqueue(m *message.Message, op *spool.Op) {
	if op.Done == nil {
		op.Origin = -1
	}
	a.node.store.Enqueue(m.ID.Shard(), op)
}

// removal names all records of a message. Notes exist of messages with several recipients, and of one that was deferred, late, in doubt, or parked before.
func removal(m *message.Message) spool.Removal {
	r := spool.Removal{ID: m.ID, Chunks: m.Chunks}
	if len(m.Recipients) > 1 || m.Recipients[0].Due != 0 || m.Recipients[0].Late || m.Recipients[0].Doubt != nil || m.Parked != 0 {
		r.Recipients = len(m.Recipients)
	}
	return r
}
