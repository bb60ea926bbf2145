package engine

import (
	"cmp"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/proto/message"
	"mailrace/router"
	"mailrace/spool"
)

const (
	// defaultInMemory stands where the configuration says nothing.
	defaultInMemory = 200_000
	// pageMax is how many messages are read at once, and handMax how many of them a loop gets in one task: others want to be served between.
	pageMax = 256
	handMax = 32
	// roomPause is how long what is due waits for room before it is looked again.
	roomPause = 20 * time.Millisecond
	// readPause is how long a shard is left alone that could not be read.
	readPause = time.Second
)

// pager brings parked messages back when they are due, and at the start those that were never parked. It has a goroutine for each shard, which
// reads the due index and the messages, and hands them to the router on the loops, in the order in which they are due, never more than fit into
// memory: what is beyond stays on the disk, and comes when there is room. Another goroutine brings what sites ask for of the mail that was put back
// for them. New mail goes to the disk with its acceptance, in one write, where its site or the memory has no room: see place.
type pager struct {
	node    *Node
	windows []*window
	limit   int          // recipients
	wanted  wanted       // by sites
	behind  atomic.Int32 // windows that have something due and no room for it
	turn    atomic.Uint32
	walk    recovery
	closing chan struct{}
	running sync.WaitGroup

	paged, parked, aside, putOffs *metrics.Counter
	walking                       atomic.Bool
}

func newPager(n *Node) *pager {
	p := &pager{
		node: n, limit: cmp.Or(n.cfg.Queue.InMemory, defaultInMemory), closing: make(chan struct{}),
		wanted:  wanted{bell: make(chan struct{}, 1)},
		parked:  n.metrics.NewCounter("mailrace_queue_parked_messages_total"),
		paged:   n.metrics.NewCounter("mailrace_queue_read_messages_total"),
		aside:   n.metrics.NewCounter("mailrace_queue_overflow_messages_total"),
		putOffs: n.metrics.NewCounter("mailrace_queue_put_off_messages_total"),
	}
	p.walking.Store(true) // until the end of recover
	n.metrics.NewGauge("mailrace_recovery_running", func() float64 {
		if p.walking.Load() {
			return 1
		}
		return 0
	})
	return p
}

// indexed is spool.Options.Indexed.
func (p *pager) indexed(shard int, dropped, added spool.Due) {
	if added.ID != 0 {
		p.parked.Inc()
	}
	p.windows[shard].indexed(dropped, added)
	p.node.doubts.indexed(shard, added)
	if added.ID != 0 {
		p.node.router.Indexed(added.At)
	}
}

// start begins to bring what is due, and to look through the spool for what the index does not have. Nothing was written since the store was
// opened.
func (p *pager) start() {
	p.walk = p.node.store.NewRecovery()
	p.running.Go(p.recover)
	p.running.Go(p.fetchWanted)
	for i, w := range p.windows {
		p.running.Go(func() { p.run(i, w) })
	}
}

// close ends it and returns when nobody reads the store any more.
func (p *pager) close() {
	close(p.closing)
	if p.walk != nil {
		p.walk.Stop()
	}
	p.running.Wait()
}

// run brings what is due of one shard.
func (p *pager) run(shard int, w *window) {
	ring := make(chan struct{}, 1)
	alarm := p.node.clock.Wake(p.node.clock.Now(), func() {
		select {
		case ring <- struct{}{}:
		default:
		}
	})
	defer alarm.Stop()
	behind := false
	for {
		now := p.node.clock.Now()
		pause := p.bring(shard, w, now.UnixNano())
		if late := pause < 0; late != behind {
			if behind = late; late {
				p.behind.Add(1)
			} else {
				p.behind.Add(-1)
			}
		}
		if pause < 0 {
			pause = roomPause
		}
		alarm.Set(now.Add(pause))
		select {
		case <-p.closing:
			return
		case <-w.bell:
		case <-ring:
		}
	}
}

// bring takes out, reads and hands on a page of what is due. It returns how long there is nothing to do, or less than 0 if there is no room for
// what is due now.
func (p *pager) bring(shard int, w *window, now int64) time.Duration {
	err := w.fill(func(after spool.Due, limit int) ([]spool.Due, error) { return p.node.store.Due(shard, after, limit) })
	if err != nil {
		p.node.log.Error("what is due cannot be read, will be tried again", "shard", shard, "error", err)
		return readPause
	}
	due, stale, next := w.take(now, min(p.node.router.Free(), pageMax))
	for _, d := range stale {
		p.drop(d)
	}
	if len(due) == 0 {
		if next != 0 && next <= now {
			return -1
		}
		return sleep(next, now)
	}
	ms, err := p.read(shard, p.putOff(due, now))
	if err != nil {
		return readPause
	}
	found := p.reserve(w, ms)
	p.hand(found, nil)
	if len(found) < len(ms) {
		return -1
	}
	return sleep(next, now)
}

// putOff changes the time of entries whose site still has no room, and returns the others.
func (p *pager) putOff(due []spool.Due, now int64) []spool.Due {
	rest := due[:0]
	for _, d := range due {
		later := p.node.router.PutOff(d.At, d.ID.Time().UnixNano(), now)
		if later == 0 {
			rest = append(rest, d)
			continue
		}
		op := spool.NewOp()
		op.Unpark, op.Park, op.Origin = d, spool.Due{At: later, ID: d.ID}, -1
		p.putOffs.Inc()
		p.node.store.Enqueue(d.ID.Shard(), op)
	}
	return rest
}

// read reads messages that were taken out of a window.
func (p *pager) read(shard int, due []spool.Due) ([]*message.Message, error) {
	if len(due) == 0 {
		return nil, nil
	}
	ids := make([]message.ID, len(due))
	for i, d := range due {
		ids[i] = d.ID
	}
	read, err := p.node.store.Read(shard, ids)
	if err != nil {
		p.node.log.Error("messages that are due cannot be read, will be tried again", "shard", shard, "error", err)
		p.windows[shard].putBack(due)
		return nil, err
	}
	ms := read[:0]
	for i, m := range read {
		if m == nil || m.Unsettled() == 0 { // what is settled is removed by the recovery that is under way
			p.drop(due[i])
			continue
		}
		m.Parked = due[i].At
		ms = append(ms, m)
	}
	return ms, nil
}

// reserve takes room for messages of a shard, and puts back those that find none.
func (p *pager) reserve(w *window, ms []*message.Message) []*message.Message {
	for i, m := range ms {
		if !p.node.router.Reserve(m.Unsettled(), 0) {
			for _, m := range ms[i:] {
				w.putBack([]spool.Due{entry(m)})
			}
			return ms[:i]
		}
	}
	return ms
}

// drop takes an entry out of the index that leads to nothing.
func (p *pager) drop(d spool.Due) {
	op := spool.NewOp()
	op.Unpark, op.Origin = d, -1
	p.node.store.Enqueue(d.ID.Shard(), op)
}

// hand brings messages, for which room was reserved, to a loop, or to all in turn, and waits until the router has them. It returns false when the
// node is closing.
func (p *pager) hand(ms []*message.Message, to *lane) bool {
	p.paged.Add(len(ms))
	done := make(chan struct{}, len(ms)/handMax+1)
	posted := 0
	for len(ms) > 0 {
		part := ms[:min(len(ms), handMax)]
		ms = ms[len(part):]
		for _, m := range part {
			m.SetPending(m.Unsettled())
		}
		a := to
		if a == nil {
			a = p.node.lanes[int(p.turn.Add(1))%len(p.node.lanes)]
		}
		if !a.loop.Post(func() {
			for _, m := range part {
				p.node.router.Dispatch(a.index, m)
			}
			done <- struct{}{}
		}) {
			return false
		}
		posted++
	}
	for range posted {
		select {
		case <-done:
		case <-p.closing:
			return false
		}
	}
	return true
}

// recover looks through the spool behind the back of the loops. What is parked comes by the index; the rest is brought to the router, or
// parked where there is no room.
func (p *pager) recover() {
	began := time.Now()
	n := p.node
	var held []*message.Message
	flush := func() {
		p.hand(held, nil)
		held = nil
	}
	parked := 0
	pace := pacer{node: n}
	err := p.walk.Run(func(m *message.Message, isParked bool) error {
		n.stats.recovered.Inc()
		n.doubts.found(m)
		switch {
		case isParked:
			n.router.Waits(m.Unsettled())
			n.router.Found(m)
			parked++
		case !n.router.Reserve(m.Unsettled(), 0):
			n.setAside(m)
		default:
			if held = append(held, m); len(held) >= pageMax {
				flush()
			}
		}
		pace.wait()
		return nil
	})
	flush()
	p.walking.Store(false)
	found := n.stats.recovered.Get()
	switch {
	case err != nil && !errors.Is(err, spool.ErrStopped):
		n.unreadable(err)
	case found > 0:
		n.log.Info("read back the spool", "messages", found, "parked", parked, "took", time.Since(began).Round(time.Millisecond))
	}
}

// setAside parks a message, no recipient of which was tried, where there is no room for it: it is due since it arrived. Any goroutine.
func (n *Node) setAside(m *message.Message) {
	n.pager.aside.Inc()
	n.router.Waits(m.Unsettled())
	op := spool.NewOp()
	op.Origin = -1
	park(op, m, router.Plain(m.Arrived))
	n.store.Enqueue(m.ID.Shard(), op)
}

// place finds room for the message that op appends, or has it parked with its acceptance: until its site comes to it, if that has more mail than its
// share of the memory, or until there is room for anything. Mail that waits on the disk already has the last part of the room for itself. Any
// goroutine.
func (p *pager) place(op *spool.Op) {
	m, r := op.Append, p.node.router
	at := r.Place(m, m.Arrived)
	if at == 0 {
		spare := 0
		if p.behind.Load() > 0 {
			spare = p.limit / 8
		}
		if r.Reserve(len(m.Recipients), spare) {
			return
		}
		p.aside.Inc()
		at = router.Plain(m.Arrived)
	}
	park(op, m, at)
	m.Parked = at
}

// giveBack gives back the room that place found for messages that were not stored. Any goroutine.
func (p *pager) giveBack(done []*spool.Op) {
	for _, op := range done {
		if m := op.Append; op.Err != nil && m != nil && m.Parked == 0 && !ofOurs(op) {
			p.node.router.Unreserve(len(m.Recipients))
		}
	}
}
