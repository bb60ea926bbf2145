package engine

import (
	"strings"

	"mailrace/proto/dsn"
	"mailrace/proto/message"
	"mailrace/router"
	"mailrace/spool"
)

// verdict is what became of a recipient in the end, or that its delivery takes long.
type verdict struct {
	recipient int
	outcome   router.Outcome
}

// conclude keeps a verdict that its sender is told of until the end of the turn.
func (a *lane) conclude(m *message.Message, i int, o *router.Outcome) {
	v := verdict{recipient: i, outcome: *o}
	v.outcome.Text, v.outcome.Enhanced = strings.Clone(o.Text), strings.Clone(o.Enhanced)
	if a.concluded == nil {
		a.concluded = map[*message.Message][]verdict{}
	}
	vs := a.concluded[m]
	if n := len(vs); n > 0 && vs[n-1].recipient == i { // late and delayed at once
		return
	}
	a.concluded[m] = append(vs, v)
	if len(a.concluded) == 1 && len(vs) == 0 {
		a.loop.Post(a.reportVerdicts)
	}
}

// reported says whether the sender of m is told what became of a recipient. Of a success only where nobody else tells: a host that offers DSN took
// over that duty. RFC 3461 §5.2
func reported(m *message.Message, i int, o *router.Outcome) bool {
	notify := m.Recipients[i].Notify
	switch {
	case m.From == "": // RFC 5321 §4.5.5: there is nobody to tell
		return false
	case o.State == message.Delivered:
		return notify.Success() && (o.Silent || !o.Remote) || notify != message.NotifyNever && traced(m.Wishes, o)
	}
	return notify.Failure()
}

// traced says whether the sender is told that a message was relayed that has a deadline: where it asked for a trace, and where it wants to hear of
// delays, which the next host does not tell of. RFC 2852 §4.1.4
func traced(w *message.Wishes, o *router.Outcome) bool {
	return w != nil && o.Remote && (w.ByMode != message.ByNone && w.ByTrace || w.ByMode == message.ByNotify && o.Untimed)
}

// reportVerdicts settles what was concluded in this turn. A recipient counts as settled only when its DSN is as durable as the message was:
// both stand in one operation.
func (a *lane) reportVerdicts() {
	concluded := a.concluded
	a.concluded = nil
	for m, vs := range concluded {
		switch {
		case m.Chunks == 0 || !a.node.store.Keeps():
			a.report(m, vs, nil)
		default:
			a.node.load(a.loop, m, 1, 1, func(cs []*message.Chunk, err error) {
				if err != nil && len(settled(vs)) > 0 { // one that is merely delayed may be delivered and gone by now
					// The DSN is more important than what it returns.
					a.node.log.Error("a message cannot be read for its DSN", "id", m.ID, "error", err)
				}
				a.report(m, vs, cs)
				message.FreeAll(cs)
			})
		}
	}
}

// settled are the recipients whose verdict is the last word.
func settled(vs []verdict) (is []int) {
	for i := range vs {
		if vs[i].outcome.State.Settled() {
			is = append(is, vs[i].recipient)
		}
	}
	return is
}

// report spools a DSN for verdicts on m. original is the begin of its content.
func (a *lane) report(m *message.Message, vs []verdict, original []*message.Chunk) {
	now := a.loop.Now()
	r := dsn.Report{
		ReportingMTA: a.node.cfg.Hostname, ID: a.node.store.NewIDBeside(m.ID), Date: now, To: m.From, Original: m.ID,
		Arrived: m.Arrival(), SMTPUTF8: m.Flags&message.SMTPUTF8 != 0,
	}
	if m.DSN != nil {
		r.EnvelopeID, r.Full = m.DSN.EnvelopeID, m.DSN.Return == message.ReturnFull && m.Chunks == 1 && m.Flags&message.RequireTLS == 0
	}
	if len(original) > 0 {
		r.Content = original[0].B
	}
	for i := range vs {
		rcpt := recipient(&m.Recipients[vs[i].recipient], &vs[i].outcome)
		if rcpt.Action == dsn.Delayed {
			rcpt.RetryUntil = a.node.router.Expiry(m)
		}
		rcpt.Original = m.DSN.Original(vs[i].recipient)
		r.Recipients = append(r.Recipients, rcpt)
	}
	content, flags, err := r.Build()
	if err != nil {
		a.node.log.Error("no DSN can be made for a message", "id", m.ID, "error", err)
		a.resolveReported(m, spool.NewOp(), vs)
		return
	}
	op := spool.NewOp()
	flags |= m.Flags & message.RequireTLS // what it reports is as confidential: RFC 8689 §5
	report := a.compose(op, r.ID, "", []string{m.From}, flags, content)
	if m.Wishes != nil && m.Wishes.Priority != 0 { // and as urgent: RFC 6710 §4.4
		report.Wishes = &message.Wishes{Priority: m.Wishes.Priority}
	}
	a.node.stats.dsns.Inc()
	a.resolveReported(m, op, vs)
}

// resolveReported settles those recipients that vs are the end of. What the others were told is noted elsewhere.
func (a *lane) resolveReported(m *message.Message, op *spool.Op, vs []verdict) {
	if is := settled(vs); len(is) > 0 {
		a.resolve(m, op, is...)
	} else {
		a.enqueue(m, op)
	}
}

// recipient is one in the terms of the report.
func recipient(r *message.Recipient, o *router.Outcome) dsn.Recipient {
	d := dsn.Recipient{Address: r.Address, Status: o.Enhanced, RemoteMTA: o.Host, Expired: o.State == message.Expired}
	switch {
	case !o.State.Settled():
		d.Action = dsn.Delayed
	case o.State != message.Delivered:
	case o.Remote:
		d.Action = dsn.Relayed
	default:
		d.Action = dsn.Delivered
	}
	if o.Remote {
		d.Reply = o.Reply()
	} else {
		d.Reason = o.Text
	}
	switch {
	case d.Status == "" && d.Action == dsn.Failed && !d.Expired:
		d.Status = "5.0.0"
	case d.Expired && !o.Remote && strings.HasPrefix(d.Status, "4.7."):
		d.Status = "5" + d.Status[1:] // the sender shall hear that it was a matter of security, not of time
	}
	return d
}
