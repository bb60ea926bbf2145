package spool

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"mailrace/proto/message"
)

// ErrUsedID completes Ops of a message whose id was minted before the stores were open, by a clock that is behind what they hold: the id may
// have been used before. Another try gets a better one.
var ErrUsedID = errors.New("the id may have been used before: the clock went back")

// Open opens the spool at o.Path, or makes it. One process at a time can have it open. Messages found are not read yet: see Recover.
func Open(o Options) (*Spool, error) {
	s, err := Begin(o)
	if err != nil {
		return nil, err
	}
	if err := s.Wait(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Begin is Open for those who have something else to do meanwhile. It refuses what can be refused at once: a spool that somebody else has open, one
// that has another number of shards, a disk that is missing. The stores open behind it, all at the same time, and that takes as long as
// replaying their WALs: what the memtables held is read, and what is left of it is flushed, several seconds for some hundred MiB on a slow disk.
//
// Ids can be minted and Ops enqueued at once. They are committed, and so answered for, when all stores are open: until then a shard is like
// one with a very slow sync. All other methods wait. If a store does not open, everything that waits fails.
func Begin(o Options) (*Spool, error) {
	o = o.withDefaults()
	lock, err := lockDirectory(o)
	if err != nil {
		return nil, fmt.Errorf("spool %s: %w", o.Path, err)
	}
	l, err := prepareLayout(o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("spool %s: %w", o.Path, err), lock.Close())
	}
	s, err := newSpool(o, l)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("spool %s: %w", o.Path, err), lock.Close())
	}
	s.lock = lock
	s.layShards()
	if !o.ReadOnly {
		if s.flights, err = openFlights(o, s.metrics); err != nil {
			err = fmt.Errorf("spool %s: a table of what is in flight: %w", o.Path, err)
			s.begin(err)
			return nil, errors.Join(err, s.Close())
		}
	}
	if !o.Sync && !o.ReadOnly {
		o.Log.Warn("spool is not synced: acknowledged mail is lost when the machine goes down")
	}
	s.opening.Go(s.open)
	return s, nil
}

// Wait returns when the stores are open, or with the reason why one of them is not.
func (s *Spool) Wait() error {
	select {
	case <-s.begun:
		return s.cause
	case <-s.broken: // a write failed in a store that was open already
		return s.brokenError()
	}
}

// open is what goes on behind Begin.
func (s *Spool) open() {
	began := time.Now()
	err := s.openStores()
	if err == nil {
		if err = errors.Join(s.failover.recovered(), s.layout.finish(s.options)); err != nil {
			err = fmt.Errorf("spool %s: %w", s.options.Path, err)
		}
	}
	if err == nil {
		s.took = time.Since(began)
		s.keeper.start()
		s.registerMetrics()
	}
	s.begin(err)
}

// openShards opens the shards of a layout. The caller holds the lock of the directory.
func openShards(o Options, l layout) (*Spool, error) {
	s, err := newSpool(o, l)
	if err != nil {
		return nil, fmt.Errorf("spool %s: %w", o.Path, err)
	}
	s.layShards()
	err = s.openStores()
	if s.begin(err); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// layShards makes the shards, whose stores are not open yet.
func (s *Spool) layShards() {
	for i := range s.layout.shards {
		s.shards = append(s.shards, newShard(s, i))
	}
}

// openStores opens the stores of all shards, and returns the first of the failures.
func (s *Spool) openStores() error {
	errs := make([]error, len(s.shards))
	var all sync.WaitGroup
	for i, sh := range s.shards {
		all.Go(func() {
			if err := sh.open(); err != nil {
				errs[i] = fmt.Errorf("spool %s: shard %d of %d: %w", s.options.Path, i, len(s.shards), err)
			}
		})
	}
	all.Wait()
	return cmp.Or(errs...)
}

// begin starts the committers, or tells those who wait why there are none. Once.
func (s *Spool) begin(err error) {
	s.cause = err
	for _, sh := range s.shards {
		if err == nil {
			go sh.run()
		} else {
			sh.giveUp(err)
		}
	}
	close(s.begun)
}

// open opens or creates the store, and finds the newest id in it.
func (sh *Shard) open() error {
	s := sh.spool
	if err := sh.openStore(); err != nil {
		return err
	}
	if err := errors.Join(sh.findNewest(), sh.findMark()); err != nil && !s.options.lenient {
		return sh.shut(fmt.Errorf("finding the newest message: %w", err))
	}
	sh.know(sh.found)
	sh.batch = sh.db.NewBatchWithSize(batchBytes/8, pebble.WithMaxRetainedSizeBytes(2*batchBytes))
	switch {
	case s.options.ReadOnly:
		sh.refuse()
	case s.options.bulk: // its last key must be that of the copy
	default: // Recover may remove the newest
		if err := errors.Join(sh.setMark(sh.batch, sh.found), sh.db.Apply(sh.batch, pebble.NoSync)); err != nil {
			return sh.shut(fmt.Errorf("marking the newest message: %w", err))
		}
	}
	sh.batch.Reset()
	return nil
}

// shut closes a store that is of no use.
func (sh *Shard) shut(cause error) error {
	err := errors.Join(cause, sh.db.Close())
	sh.db = nil
	return err
}

// giveUp completes what was enqueued on a shard that never began.
func (sh *Shard) giveUp(cause error) {
	sh.refuse()
	list, _ := sh.take()
	sh.fail(list, cause)
	close(sh.done)
}

// fail completes a list of Ops of which nothing was done.
func (sh *Shard) fail(list *Op, cause error) {
	for op := list; op != nil; op = op.next {
		op.Err = cause
		op.Chunk.release()
	}
	sh.complete(list, new([][]*Op))
}

// know makes NewID mint nothing but what is above found, and notes whether it has minted something before.
func (sh *Shard) know(found message.ID) {
	for {
		last := sh.newest.Load()
		if sh.newest.CompareAndSwap(last, max(last, uint64(found))) {
			sh.early = last != 0
			sh.known.Store(true)
			return
		}
	}
}

// refuseUsed takes the Ops out of a list whose ids were minted too early and may have been used: a message must not be mixed up with another.
// It is called for what was found in the queue; what is left of the list goes on.
func (sh *Shard) refuseUsed(list *Op) (left *Op) {
	used := func(id message.ID) bool { return id != 0 && id <= sh.found }
	var refused *Op
	ends := [2]**Op{&left, &refused}
	for op := list; op != nil; {
		to := 0
		if op.Append != nil && used(op.Append.ID) || used(op.Chunk.ID) || used(op.Abort.ID) {
			to = 1
		}
		*ends[to], ends[to] = op, &op.next
		op, op.next = op.next, nil
	}
	sh.fail(refused, ErrUsedID)
	return left
}
