package engine

import (
	"cmp"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/proto/message"
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
	// arrivalsMax is how many messages a lane takes between two looks at the room that is left.
	arrivalsMax = 16
)

// pager brings parked messages back when they are due, and at the start those that were never parked. It has a goroutine for each shard, which
// reads the due index and the messages, and hands them to the router on the loops, in the order in which they are due, never more than fit into
// memory: what is beyond stays on the disk, and comes when there is room.
type pager struct {
	node    *Node
	windows []*window
	limit   int64
	handing atomic.Int64 // recipients on their way to a loop
	behind  atomic.Int32 // windows that have something due and no room for it
	turn    atomic.Uint32
	walk    recovery
	closing chan struct{}
	running sync.WaitGroup

	paged, parked, aside *metrics.Counter
	walking              atomic.Bool
}

func newPager(n *Node) *pager {
	p := &pager{
		node: n, limit: int64(cmp.Or(n.cfg.Queue.InMemory, defaultInMemory)), closing: make(chan struct{}),
		parked: n.metrics.NewCounter("mailrace_queue_parked_messages_total"),
		paged:  n.metrics.NewCounter("mailrace_queue_read_messages_total"),
		aside:  n.metrics.NewCounter("mailrace_queue_overflow_messages_total"),
	}
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
}

// start begins to bring what is due, and to look through the spool for what the index does not have. Nothing was written since the store was
// opened.
func (p *pager) start() {
	p.walk = p.node.store.NewRecovery()
	p.walking.Store(true)
	p.running.Go(p.recover)
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

// room is how many more recipients fit into memory.
func (p *pager) room() int { return int(p.limit - p.node.router.Active() - p.handing.Load()) }

// run brings what is due of one shard.
func (p *pager) run(shard int, w *window) {
	timer := time.NewTimer(0)
	behind := false
	for {
		pause := p.bring(shard, w)
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
		timer.Reset(pause)
		select {
		case <-p.closing:
			return
		case <-w.bell:
		case <-timer.C:
		}
	}
}

// bring takes out, reads and hands on a page of what is due. It returns how long there is nothing to do, or less than 0 if there is no room for
// what is due.
func (p *pager) bring(shard int, w *window) time.Duration {
	err := w.fill(func(after spool.Due, limit int) ([]spool.Due, error) { return p.node.store.Due(shard, after, limit) })
	if err != nil {
		p.node.log.Error("what is due cannot be read, will be tried again", "shard", shard, "error", err)
		return readPause
	}
	now := time.Now().UnixNano()
	due, stale, next := w.take(now, max(min(p.room(), pageMax), 0))
	for _, d := range stale {
		p.drop(d)
	}
	if len(due) == 0 {
		if next != 0 && next <= now {
			return -1
		}
		return sleep(next, now)
	}
	ids := make([]message.ID, len(due))
	for i, d := range due {
		ids[i] = d.ID
	}
	read, err := p.node.store.Read(shard, ids)
	if err != nil {
		p.node.log.Error("messages that are due cannot be read, will be tried again", "shard", shard, "error", err)
		w.putBack(due)
		return readPause
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
	p.paged.Add(len(ms))
	p.hand(ms)
	return sleep(next, now)
}

// drop takes an entry out of the index that leads to nothing.
func (p *pager) drop(d spool.Due) {
	op := spool.NewOp()
	op.Unpark, op.Origin = d, -1
	p.node.store.Enqueue(d.ID.Shard(), op)
}

// hand brings messages to the loops in turn, and waits until the router has them.
func (p *pager) hand(ms []*message.Message) {
	for _, m := range ms {
		m.SetPending(m.Unsettled())
	}
	done := make(chan int, len(ms)/handMax+1)
	posted := 0
	for len(ms) > 0 {
		part := ms[:min(len(ms), handMax)]
		ms = ms[len(part):]
		n := int64(0)
		for _, m := range part {
			n += int64(m.Pending())
		}
		a := p.node.lanes[int(p.turn.Add(1))%len(p.node.lanes)]
		p.handing.Add(n)
		if !a.loop.Post(func() {
			for _, m := range part {
				p.node.router.Dispatch(a.index, m)
			}
			p.handing.Add(-n)
			done <- 1
		}) {
			return // the node is closing
		}
		posted++
	}
	for range posted {
		select {
		case <-done:
		case <-p.closing:
			return
		}
	}
}

// recover looks through the spool behind the back of the loops. What is parked comes by the index; the rest is brought to the router, or
// parked where there is no room.
func (p *pager) recover() {
	began := time.Now()
	n := p.node
	var held []*message.Message
	flush := func() {
		p.hand(held)
		held = nil
	}
	parked := 0
	err := p.walk.Run(func(m *message.Message, isParked bool) error {
		n.stats.recovered.Inc()
		n.doubts.found(m)
		switch {
		case isParked:
			n.router.Waits(m.Unsettled())
			parked++
		case p.room() <= len(held):
			n.setAside(m)
		default:
			if held = append(held, m); len(held) >= pageMax {
				flush()
			}
		}
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
	park(op, m, max(m.Arrived, 1))
	n.store.Enqueue(m.ID.Shard(), op)
}

// crowded says that a message that was accepted must wait on the disk. Mail that waits there already has the last part of the room for itself.
func (a *lane) crowded() bool {
	p := a.node.pager
	if p == nil {
		return false
	}
	if a.arrivals++; a.arrivals >= arrivalsMax {
		a.arrivals = 0
		free := int64(p.room())
		if p.behind.Load() > 0 {
			free -= p.limit / 8
		}
		a.full = free <= 0
	}
	return a.full
}
