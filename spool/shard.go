package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"mailrace/proto/message"
)

// lazyDelay is how long removals and updates wait for an Append to ride with. They wait for no sync, so all they cost is the memory of
// their Ops, and what a crash takes back of them is delivered again.
const lazyDelay = 5 * time.Millisecond

// syncDelay is the longest that removals and updates stay without a sync: Pebble keeps what nobody wants synced in the memory of the process until
// a block of 32 KiB is full, and what a kill takes from there is delivered again. Under load the Appends sync it all sooner.
const syncDelay = 100 * time.Millisecond

// gatherMax bounds how long a batch waits to become as large as the one before it, see take.
const gatherMax = time.Millisecond

// Shard is one Pebble store and the committer that is the only one to write to it. Its exported methods may be called by any goroutine.
type Shard struct {
	index  int
	spool  *Spool
	db     *pebble.DB
	log    *slog.Logger
	found  message.ID    // the newest id at Open, and what the mark was
	newest atomic.Uint64 // the id minted last
	known  atomic.Bool   // newest is at least found
	early  bool          // ids were minted before that
	opened atomic.Bool
	stuck  chan error  // see standStill
	leaked atomic.Bool // see get

	// The queue: Ops in the order of their Enqueue, linked through Op.next.
	mu         sync.Mutex
	ready      sync.Cond // signalled when urgent or closing becomes true
	head, tail *Op
	since      time.Time // of head
	urgent     bool      // the committer shall not wait for more
	closing    bool
	lazyTimer  *time.Timer
	appends    int           // of them that must be synced
	goal       int           // as many are worth waiting for
	gathered   bool          // the wait is over
	patience   time.Duration // gatherMax
	gatherTime *time.Timer
	overdue    bool // what is loose must be synced
	syncTimer  *time.Timer

	// The committer's own.
	batch  *pebble.Batch
	marked message.ID    // see mark.go
	took   time.Duration // by the last batch that was synced
	taken  time.Time     // when the first of what was taken last was enqueued
	posts  [][]*Op       // by origin
	loose  bool          // something was written that no sync covers yet; syncTimer runs
	landed []Mark        // of deliveries whose end is written, and not durable yet
	aloft  aloft
	done   chan struct{} // closed when it has ended

	reclaimed int // ops when room was reclaimed last

	damage damage
	homes  homes
	counters
}

// newShard makes shard i, whose store is to be opened.
func newShard(s *Spool, i int) *Shard {
	sh := &Shard{index: i, spool: s, done: make(chan struct{}), stuck: make(chan error, 1), log: s.options.Log.With("shard", i)}
	sh.counters = newCounters(s.metrics, i)
	sh.ready.L = &sh.mu
	sh.lazyTimer = time.AfterFunc(time.Hour, sh.hurry)
	sh.lazyTimer.Stop()
	sh.gatherTime = time.AfterFunc(time.Hour, sh.endGather)
	sh.gatherTime.Stop()
	sh.gathered, sh.patience = true, gatherMax
	sh.syncTimer = time.AfterFunc(time.Hour, sh.demandSync)
	sh.syncTimer.Stop()
	return sh
}

// openShard makes shard i, opens its store, and starts its committer.
func openShard(s *Spool, i int) (*Shard, error) {
	sh := newShard(s, i)
	if err := sh.open(); err != nil {
		return nil, err
	}
	go sh.run()
	return sh, nil
}

// openStore opens the store. What Pebble cannot live with it may meet on a goroutine of its own, which writes what WALs held, while its Open waits
// for that: so whoever meets it stands still, in standStill, and perhaps Open does too. The lock of the store goes with the process then.
func (sh *Shard) openStore() error {
	dir, o := sh.spool.layout.shardDir(sh.spool.options, sh.index), sh.pebbleOptions(sh.spool.options)
	sh.spool.failover.apply(sh, dir, o)
	type result struct {
		db  *pebble.DB
		err error
	}
	ended := make(chan result, 1)
	go func() {
		db, err := pebble.Open(dir, o)
		ended <- result{db, err}
	}()
	select {
	case r := <-ended:
		if r.err != nil {
			return r.err
		}
		sh.db = r.db
	case err := <-sh.stuck:
		return err
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.opened.Store(true)
	select {
	case err := <-sh.stuck:
		sh.db = nil // nobody may close it
		return err
	default:
		return nil
	}
}

// standStill ends the opening of the store with an error, or else the process. It does not return.
func (sh *Shard) standStill(err error) {
	sh.mu.Lock()
	opened := sh.opened.Load()
	if !opened {
		select {
		case sh.stuck <- err:
		default: // told already
		}
	}
	sh.mu.Unlock()
	if opened {
		sh.spool.fail(err)
	}
	select {}
}

// reclaim makes the store give back the room of what was removed, if anything happened since the last time. One goroutine at a time may call it.
func (sh *Shard) reclaim(ctx context.Context) error {
	n := int(sh.ops.Get())
	if n == sh.reclaimed {
		return nil
	}
	sh.reclaimed = n
	return sh.db.Compact(ctx, []byte{0}, []byte{kindCorrupt}, false)
}

// findNewest raises found to the highest id that has an envelope or a chunk.
func (sh *Shard) findNewest() error {
	for _, kind := range []byte{kindChunk, kindEnvelope} {
		it, err := iterate(sh.db, kind)
		if err != nil {
			return err
		}
		if it.Last() {
			sh.found = max(sh.found, recordID(it.Key()))
		}
		if err := errors.Join(it.Error(), it.Close()); err != nil {
			return err
		}
	}
	return nil
}

// NewID returns an id above all that this shard knows of. As long as it does not know what its store holds, that is a moment ahead of the clock,
// as the mark of a process that ended just now may be.
func (sh *Shard) NewID() message.ID {
	now := sh.spool.options.Now()
	for {
		last := sh.newest.Load()
		id := message.NextID(message.ID(last), now, sh.index)
		if last == 0 && !sh.known.Load() {
			id += markAhead
		}
		if sh.newest.CompareAndSwap(last, uint64(id)) {
			return id
		}
	}
}

// Enqueue hands an Op to the committer. It never waits for the disk. Ops of one goroutine are applied in the order in which it enqueued
// them. An Op that must be synced, or that holds a chunk, is committed as soon as the batch before it is done; all others wait up to 5 ms
// for such a one.
func (sh *Shard) Enqueue(op *Op) {
	if id := op.id(); id != 0 && sh.spool.ShardOf(id) != sh || op.Remove.ID != 0 && sh.spool.ShardOf(op.Remove.ID) != sh {
		panic(fmt.Sprintf("BUG: message %v, removal of %v, enqueued on shard %d", op.id(), op.Remove.ID, sh.index))
	}
	op.next, op.Err = nil, nil
	urgent := op.urgent()
	sh.mu.Lock()
	if sh.closing {
		sh.mu.Unlock()
		sh.fail(op, ErrClosed)
		return
	}
	first := sh.head == nil
	if first {
		sh.head, sh.since = op, time.Now()
	} else {
		sh.tail.next = op
	}
	sh.tail = op
	if op.durable() {
		sh.appends++
	}
	wake := urgent && (!sh.urgent || sh.appends == sh.goal)
	sh.urgent = sh.urgent || urgent
	if first && !urgent {
		sh.lazyTimer.Reset(lazyDelay)
	}
	sh.mu.Unlock()
	if wake {
		sh.ready.Signal()
	}
}

// hurry ends the wait of Ops that had no company.
func (sh *Shard) hurry() {
	sh.mu.Lock()
	sh.urgent = sh.head != nil
	sh.mu.Unlock()
	sh.ready.Signal()
}

// refuse makes Enqueue refuse from now on, and the committer end when it has committed what is queued.
func (sh *Shard) refuse() {
	sh.mu.Lock()
	sh.closing = true
	sh.mu.Unlock()
	sh.lazyTimer.Stop()
	sh.gatherTime.Stop()
	sh.syncTimer.Stop()
	sh.ready.Signal()
}

// demandSync ends the time that something may be loose.
func (sh *Shard) demandSync() {
	sh.mu.Lock()
	sh.overdue = true
	sh.mu.Unlock()
	sh.ready.Signal()
}

// endGather ends the wait for a batch to grow.
func (sh *Shard) endGather() {
	sh.mu.Lock()
	sh.gathered = true
	sh.mu.Unlock()
	sh.ready.Signal()
}

// take waits for work and takes all there is. late says that what was written before must be synced now, and then there may be nothing to take;
// otherwise an empty list says that the shard is closed and nothing is left.
//
// Clients that got their 250 together come back together, but not at once, and a batch that went with the first of them would leave
// the others to wait for its sync. So a batch waits until it is somewhat larger than the one before, for half the time that one took at most.
// A lone message never waits: its goal is itself.
func (sh *Shard) take() (list *Op, late bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.goal > sh.appends && sh.goal > 1 && !sh.closing {
		sh.gathered = false
		sh.gatherTime.Reset(min(sh.took/2, sh.patience))
	}
	for !sh.closing && (!sh.overdue || !sh.loose) && (!sh.urgent || !sh.gathered && sh.appends < sh.goal) {
		sh.ready.Wait()
	}
	late, sh.overdue = sh.overdue && sh.loose && !sh.closing, false
	list = sh.head
	sh.taken = sh.since
	sh.goal = sh.appends + sh.appends/4
	sh.gathered = true
	sh.head, sh.tail, sh.urgent, sh.appends = nil, nil, false, 0
	return list, late
}
