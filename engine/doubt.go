package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/engine/admin"
	"mailrace/engine/event"
	"mailrace/proto/message"
	"mailrace/router"
	"mailrace/spool"
)

// doubts keeps account of recipients that a delivery may have reached, and carries out what an operator decides about those that wait for it.
type doubts struct {
	node   *Node
	action message.DoubtAction // configured

	resolved   chan struct{} // closed when what was in flight before the start is noted
	recipients atomic.Int64  // that are in doubt, and not settled
	totals     [message.DoubtConnection + 1]*metrics.Counter

	// decided are messages about which a decision is to be carried out as soon as nobody has them in memory.
	count   atomic.Int32 // of decided
	mu      sync.Mutex
	decided map[message.ID]message.DoubtAction
	closed  bool
	running sync.WaitGroup // guarded by mu where it grows
}

func newDoubts(n *Node) *doubts {
	d := &doubts{node: n, decided: map[message.ID]message.DoubtAction{}, resolved: make(chan struct{})}
	if n.cfg.Spool.Path != nullPath { // which has nowhere to wait
		d.action, _ = message.ParseDoubtAction(n.cfg.Queue.InDoubt)
	}
	n.metrics.NewGauge("mailrace_queue_in_doubt_recipients", func() float64 { return float64(max(d.recipients.Load(), 0)) })
	for c := range d.totals {
		d.totals[c] = n.metrics.NewCounter(fmt.Sprintf("mailrace_queue_in_doubt_total{cause=%q}", message.DoubtCause(c)))
	}
	return d
}

// resolve finds out what was in flight when the last process ended. It comes before anything is delivered that was there then.
func (d *doubts) resolve() error {
	n, crashed := d.node, 0
	began := time.Now()
	err := n.store.Resolve(func(m *message.Message, f spool.Flight) {
		crashed++
		d.totals[message.DoubtCrash].Inc()
		r := &m.Recipients[f.Index]
		r.Cast(message.Doubt{Began: f.Began, Attempt: f.Attempt, Peer: f.Peer, Cause: message.DoubtCrash, Action: d.action})
		d.record(n.lanes[0].events, m, f.Index, began.UnixNano(), "")
	}, func() {
		if err := n.events.Sync(); err != nil {
			n.log.Error("the event log cannot be written", "error", err)
		}
	})
	if crashed > 0 {
		n.log.Warn("deliveries were under way when the last process ended; they may have happened: see mailrace queue in-doubt",
			"recipients", crashed, "action", d.action, "took", time.Since(began).Round(time.Millisecond))
	}
	return err
}

// found counts what was in doubt before.
func (d *doubts) found(m *message.Message) {
	for i := range m.Recipients {
		if r := &m.Recipients[i]; r.Doubt != nil && !r.State.Settled() {
			d.recipients.Add(1)
		}
	}
}

// settled follows what became of a recipient, on its loop.
func (d *doubts) settled(a *lane, m *message.Message, i int, o *router.Outcome) {
	r := &m.Recipients[i]
	if o.InDoubt {
		d.totals[message.DoubtConnection].Inc()
		if r.Doubt.Times == 1 {
			d.recipients.Add(1)
		}
		d.record(a.events, m, i, o.Ended, o.Site)
	}
	if o.State.Settled() && !o.Held && !o.Late {
		d.recipients.Add(-1)
	}
}

// record writes that a delivery is in doubt, and what is done about it.
func (d *doubts) record(w *event.Writer, m *message.Message, i int, now int64, site string) {
	r := &m.Recipients[i]
	w.Record(&event.Record{
		Time: now, Type: event.InDoubt, ID: m.ID, Sender: m.From, Recipient: r.Address, Queue: r.Domain(), Site: site, Peer: r.Doubt.Peer,
		Text: doubtTexts[r.Doubt.Action], Cause: r.Doubt.Cause.String(), Action: r.Doubt.Action.String(), Began: r.Doubt.Began, Attempt: int(r.Doubt.Attempt), Size: m.Size,
		Latency: time.Duration(now - m.Arrived), Tenant: m.Tenant, Campaign: m.Campaign,
	})
}

var doubtTexts = [...]string{
	message.DoubtRetry:  "the message may have been delivered, and is delivered again",
	message.DoubtWait:   "the message may have been delivered, and waits for an operator",
	message.DoubtGiveUp: "the message may have been delivered, and is given up",
}

// decide carries out what an operator decides about messages with recipients that wait for it, at once where nobody has them in memory, and
// otherwise as soon as that is so. ids nil = all there are. It is done for the recipients that wait now. Any goroutine but those of the loops.
func (d *doubts) decide(ctx context.Context, ids []message.ID, action message.DoubtAction) (admin.Decision, error) {
	done := admin.Decision{Action: action.String(), Unknown: []string{}}
	if d.node.pager == nil {
		return done, errors.New("this node keeps nothing")
	}
	if !d.enter() {
		return done, errStopping
	}
	defer d.running.Done()
	select { // nothing of what was there is delivered before
	case <-d.resolved:
	case <-d.node.pager.closing:
		return done, errStopping
	case <-ctx.Done():
		return done, ctx.Err()
	}
	waiting, err := d.waiting(ctx, ids)
	if err != nil {
		return done, err
	}
	for _, id := range ids {
		if waiting[id] == 0 {
			done.Unknown = append(done.Unknown, id.String())
		}
	}
	d.mu.Lock()
	for id, recipients := range waiting {
		done.Messages++
		done.Recipients += recipients
		d.decided[id] = action
	}
	d.count.Store(int32(len(d.decided)))
	d.mu.Unlock()
	if len(waiting) == 0 {
		return done, nil
	}
	for shard := range d.node.pager.windows {
		if err := d.carryOut(ctx, shard); err != nil {
			return done, err
		}
	}
	return done, nil
}

var errStopping = errors.New("this node is stopping")

// enter makes close wait until running.Done is called, or fails when the node is closed.
func (d *doubts) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.running.Add(1)
	}
	return !d.closed
}

// waiting are the messages with recipients that wait for a decision, with their number.
func (d *doubts) waiting(ctx context.Context, ids []message.ID) (map[message.ID]int, error) {
	wanted := map[message.ID]bool{}
	for _, id := range ids {
		wanted[id] = true
	}
	found := map[message.ID]int{}
	err := d.node.store.Scan(func(m *message.Message) bool {
		if ids == nil || wanted[m.ID] {
			for i := range m.Recipients {
				if m.Recipients[i].Waits() {
					found[m.ID]++
				}
			}
		}
		return ctx.Err() == nil
	})
	return found, errors.Join(err, ctx.Err())
}

// carryOut looks through the due index of a shard for messages that are decided about.
func (d *doubts) carryOut(ctx context.Context, shard int) error {
	after := spool.Due{}
	for ctx.Err() == nil {
		page, err := d.node.store.Due(shard, after, windowMax)
		if err != nil {
			return fmt.Errorf("reading what waits: %w", err)
		}
		for _, due := range page {
			if err := d.release(shard, due); err != nil {
				return err
			}
		}
		if len(page) < windowMax {
			return nil
		}
		after = page[len(page)-1]
	}
	return ctx.Err()
}

// indexed hears of each entry of the due index, from the goroutine of its shard.
func (d *doubts) indexed(shard int, added spool.Due) {
	if d.count.Load() == 0 || added.ID == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.decided[added.ID]; !ok || d.closed {
		return
	}
	d.running.Go(func() {
		if err := d.release(shard, added); err != nil {
			d.node.log.Error("a message in doubt cannot be read, decide again", "id", added.ID, "error", err)
		}
	})
}

// release does what was decided about a message that waits on the disk, and has the pager bring it. It does nothing where nothing was decided, or where
// somebody has the message: then it is indexed again some time.
func (d *doubts) release(shard int, due spool.Due) error {
	w := d.node.pager.windows[shard]
	d.mu.Lock()
	action, ok := d.decided[due.ID]
	if ok = ok && w.claim(due); ok {
		delete(d.decided, due.ID)
		d.count.Store(int32(len(d.decided)))
	}
	d.mu.Unlock()
	if !ok {
		return nil
	}
	ms, err := d.node.store.Read(shard, []message.ID{due.ID})
	if err != nil || ms[0] == nil {
		w.putBack([]spool.Due{due})
		return err
	}
	m, now := ms[0], d.node.clock.Now().UnixNano()
	m.Parked = due.At
	op := spool.NewOp()
	op.Origin = -1
	for i := range m.Recipients {
		if r := &m.Recipients[i]; r.Waits() {
			r.Decide(action, now)
			note(op, m, i)
			d.record(d.node.lanes[0].events, m, i, now, "")
		}
	}
	park(op, m, router.Plain(now)) // in the same write: the entry that there is may never be due. The claim ends with it
	d.node.store.Enqueue(m.ID.Shard(), op)
	return nil
}

// close waits for decisions that are being carried out.
func (d *doubts) close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.running.Wait()
}
