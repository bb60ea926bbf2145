package engine

import (
	"strings"
	"time"

	"mailrace/engine/egress"
	"mailrace/proto/dsn"
	"mailrace/proto/message"
	"mailrace/router"
	"mailrace/spool"
)

// reported says whether the sender of m is told what became of a recipient. Of a success only where nobody else tells: a host that offers DSN took
// over that duty. RFC 3461 §5.2
func (a *lane) reported(m *message.Message, i int, o *router.Outcome) bool {
	notify := m.Recipients[i].Notify
	switch {
	case narrows(m, o):
		return true
	case m.From == "": // RFC 5321 §4.5.5: there is no sender to tell
		return o.State != message.Delivered && a.doubleBounce(&m.Recipients[i])
	case o.State == message.Delivered:
		return notify.Success() && (o.Silent || !o.Remote) || notify != message.NotifyNever && traced(m.Wishes, o)
	}
	return notify.Failure()
}

// doubleBounce counts mail from the null reverse-path that failed, which nearly always is a notification, and says whether the postmaster is told
// of it: not where it was for the postmaster, so that nothing goes round.
func (a *lane) doubleBounce(r *message.Recipient) bool {
	a.node.stats.doubleBounces.Inc()
	to := a.node.cfg.DSN.DoubleBounceTo
	return to != "" && !strings.EqualFold(to, r.Address)
}

// traced says whether the sender is told that a message was relayed that has a deadline: where it asked for a trace, and where it wants to hear of
// delays, which the next host does not tell of. RFC 2852 §4.1.4
func traced(w *message.Wishes, o *router.Outcome) bool {
	return w != nil && o.Remote && (w.ByMode != message.ByNone && w.ByTrace || w.ByMode == message.ByNotify && o.Untimed)
}

// narrows says whether m may be a notification of ours that does not get through because it returns a message of 8 bits: another one takes its place.
func narrows(m *message.Message, o *router.Outcome) bool {
	return m.From == "" && m.Client == "" && len(m.Recipients) == 1 && m.Flags&(message.Body8Bit|message.SMTPUTF8) == message.Body8Bit &&
		o.State == message.Bounced && !o.Remote && o.Enhanced == egress.StatusConversion
}

// narrow puts a notification that returns the header section only in the place of m, which returns a message of 8 bits, content is all of it, and
// says whether that is done.
func (a *lane) narrow(m *message.Message, vs []verdict, content []*message.Chunk) bool {
	narrow, flags, ok := dsn.HeadersOnly(joined(content), m.ID)
	if !ok {
		return false
	}
	op := spool.NewOp()
	report := a.compose(op, a.node.store.NewIDBeside(m.ID), "", []string{m.Recipients[0].Address}, flags|m.Flags&message.RequireTLS, narrow)
	report.Wishes = m.Wishes
	a.resolveReported(m, op, vs)
	return true
}

// joined is the content in chunks, which it may be a part of.
func joined(chunks []*message.Chunk) (content []byte) {
	if len(chunks) == 1 {
		return chunks[0].B
	}
	for _, c := range chunks {
		content = append(content, c.B...)
	}
	return content
}

// returnedChunks is how many chunks of m its DSN needs: those of the header section, or all.
func (a *lane) returnedChunks(m *message.Message, vs []verdict) int {
	if a.returnsAll(m) || narrows(m, &vs[0].outcome) {
		return m.Chunks
	}
	return min(m.Chunks, 1)
}

// returnsAll says whether the DSN returns all of m, if it reports a failure.
func (a *lane) returnsAll(m *message.Message) bool {
	if m.From == "" { // the postmaster should see what its notifications said
		return m.Size <= a.node.cfg.DSN.ReturnMax
	}
	return m.DSN != nil && m.DSN.Return == message.ReturnFull && m.Size <= a.node.cfg.DSN.ReturnMax && m.Flags&message.RequireTLS == 0
}

// report spools a DSN for verdicts on m. original is the begin of its content.
func (a *lane) report(m *message.Message, vs []verdict, original []*message.Chunk) {
	if narrows(m, &vs[0].outcome) {
		if a.narrow(m, vs, original) {
			return
		}
		if !a.doubleBounce(&m.Recipients[0]) {
			a.resolveReported(m, spool.NewOp(), vs)
			return
		}
	}
	r := a.newReport(m, original)
	for i := range vs {
		rcpt := recipient(&m.Recipients[vs[i].recipient], &vs[i].outcome)
		if rcpt.Action == dsn.Delayed {
			rcpt.RetryUntil = a.node.router.Expiry(m, vs[i].recipient)
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
	report := a.compose(op, r.ID, "", []string{r.To}, flags, content)
	if m.Wishes != nil && m.Wishes.Priority != 0 { // and as urgent: RFC 6710 §4.4
		report.Wishes = &message.Wishes{Priority: m.Wishes.Priority}
	}
	a.node.stats.dsns.Inc()
	a.resolveReported(m, op, vs)
}

// newReport is a report on m without recipients.
func (a *lane) newReport(m *message.Message, original []*message.Chunk) *dsn.Report {
	c := &a.node.cfg.DSN
	r := &dsn.Report{
		ReportingMTA: a.node.cfg.Hostname, ID: a.node.store.NewIDBeside(m.ID), Date: a.loop.Now(), To: m.From, Original: m.ID,
		Arrived: m.Arrival(), SMTPUTF8: m.Flags&message.SMTPUTF8 != 0, ReturnMax: int(c.ReturnMax),
	}
	if m.From == "" {
		r.To, r.Double = c.DoubleBounceTo, true
	} else {
		r.Template = a.node.templates.of(m.From)
	}
	if m.DSN != nil {
		r.EnvelopeID = m.DSN.EnvelopeID
	}
	r.Content = joined(original)
	r.Full = a.returnsAll(m) && len(original) == m.Chunks
	return r
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
	if o.Started != 0 {
		d.LastAttempt = time.Unix(0, o.Ended)
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
