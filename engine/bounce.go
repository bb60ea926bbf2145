package engine

import (
	"strings"

	"mailrace/proto/dsn"
	"mailrace/proto/message"
	"mailrace/router"
	"mailrace/spool"
)

// failure is a recipient that failed for good, and why.
type failure struct {
	recipient int
	outcome   router.Outcome
}

// fail keeps a failure until the end of the turn.
func (a *lane) fail(m *message.Message, i int, o *router.Outcome) {
	f := failure{recipient: i, outcome: *o}
	f.outcome.Text, f.outcome.Enhanced = strings.Clone(o.Text), strings.Clone(o.Enhanced)
	if a.failed == nil {
		a.failed = map[*message.Message][]failure{}
	}
	a.failed[m] = append(a.failed[m], f)
	if len(a.failed) == 1 && len(a.failed[m]) == 1 {
		a.loop.Post(a.reportFailures)
	}
}

// reportFailures settles what failed in this turn. A recipient counts as bounced or expired only when its DSN is as durable as the message
// was: both stand in one operation.
func (a *lane) reportFailures() {
	failed := a.failed
	a.failed = nil
	for m, fs := range failed {
		switch {
		case m.From == "": // RFC 5321 §4.5.5: nobody to tell
			a.node.stats.unreported.Inc()
			a.resolve(m, spool.NewOp(), indices(fs)...)
		case m.Chunks == 0 || !a.node.store.Keeps():
			a.report(m, fs, nil)
		default:
			a.node.load(a.loop, m, 1, 1, func(cs []*message.Chunk, err error) {
				if err != nil {
					// The DSN is more important than the header it returns.
					a.node.log.Error("the header of a failed message cannot be read for its DSN", "id", m.ID, "error", err)
				}
				a.report(m, fs, cs)
				message.FreeAll(cs)
			})
		}
	}
}

func indices(fs []failure) []int {
	is := make([]int, len(fs))
	for i := range fs {
		is[i] = fs[i].recipient
	}
	return is
}

// report spools a DSN for the failures of m. original is the begin of its content.
func (a *lane) report(m *message.Message, fs []failure, original []*message.Chunk) {
	now := a.loop.Now()
	r := dsn.Report{
		ReportingMTA: a.node.cfg.Hostname, ID: a.node.store.NewIDBeside(m.ID), Date: now, To: m.From, Original: m.ID,
		Arrived: m.Arrival(), SMTPUTF8: m.Flags&message.SMTPUTF8 != 0,
	}
	if len(original) > 0 {
		r.Content = original[0].B
	}
	for i := range fs {
		r.Recipients = append(r.Recipients, reported(&m.Recipients[fs[i].recipient], &fs[i].outcome))
	}
	content, flags, err := r.Build()
	if err != nil {
		a.node.log.Error("no DSN can be made for a failed message", "id", m.ID, "error", err)
		a.resolve(m, spool.NewOp(), indices(fs)...)
		return
	}
	op := spool.NewOp()
	a.compose(op, r.ID, "", []string{m.From}, flags, content)
	a.node.stats.dsns.Inc()
	a.resolve(m, op, indices(fs)...)
}

// reported is a failed recipient in the terms of the report.
func reported(r *message.Recipient, o *router.Outcome) dsn.Recipient {
	d := dsn.Recipient{Address: r.Address, Status: o.Enhanced, RemoteMTA: o.Host, Expired: o.State == message.Expired}
	if o.Remote {
		d.Reply = o.Reply()
	} else {
		d.Reason = o.Text
	}
	if d.Status == "" && !d.Expired {
		d.Status = "5.0.0"
	}
	return d
}
