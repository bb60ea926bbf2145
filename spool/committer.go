package spool

import (
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"mailrace/proto/message"
)

// batchBytes is where a batch is cut: what waits beyond it goes into the next. A batch is one record of the WAL, in memory while it is
// written; it grows beyond this by one Op at most.
const batchBytes = 4 << 20

// run is the committer. It takes whatever has gathered while it was busy, so batches grow with the load and with the time that a sync
// takes, and a lone message is synced at once.
//
// Building and applying the next batch while this one is being synced (ApplyNoSyncWait, and SyncWait on a goroutine of its own that completes, two
// batches in flight) was measured beside it, in interleaved rounds on two busy cores with other work on them, messages of 10 KiB. One shard alone
// (BenchmarkAccept, medians of 4 rounds) for 1, 20 and 200 clients who wait: 690, 10,700 and 43,000 messages a second, against 980, 6,100 and 35,500;
// 126, 24 and 13.8 µs of CPU each, against 144, 22 and 12.9; 1, 13 and 140 of them to a sync, against 1, 20 and 199. In a whole node of two shards
// (bench accept, medians of 3), where cores are what is short, for 20 and 200 connections: 5,200 and 9,700 a second, against 10,400 and 15,000; 87 and
// 37 µs, against 48 and 31; 5.9 and 40 to a sync, against 9.3 and 67. There smaller batches cost more than the overlap gains.
func (sh *Shard) run() {
	defer close(sh.done)
	for {
		list, late := sh.take()
		switch {
		case list != nil:
			sh.queueSeconds.UpdateDuration(sh.taken)
			if sh.early {
				list = sh.refuseUsed(list)
			}
		case late:
			sh.syncLoose()
		default:
			return
		}
		for list != nil {
			list = sh.commit(list, late)
			late = late && sh.loose
		}
	}
}

// syncLoose syncs what was written before.
func (sh *Shard) syncLoose() {
	if err := sh.db.LogData(nil, pebble.Sync); err != nil {
		sh.spool.fail(fmt.Errorf("shard %d: syncing the WAL: %w", sh.index, err))
	}
	sh.syncs.Inc()
	sh.lateSyncs.Inc()
	sh.durable()
}

// durable notes that all that was written is durable.
func (sh *Shard) durable() {
	sh.loose = false
	if len(sh.landed) > 0 {
		sh.spool.flights.free(sh.landed)
		sh.landed = sh.landed[:0]
	}
}

// commit writes as much of list as one batch takes, syncs it if any of it must be durable or late is set, and completes it. It returns the rest of
// list.
//
// The steps: encode every Op into the batch; let the chunks go that it copied; write the batch to the WAL and the memtable; wait for the
// sync; complete. Nothing of a batch completes unless all of it was written.
func (sh *Shard) commit(list *Op, late bool) (rest *Op) {
	durable, indexed := false, false
	n, stored, size, mail := 0, 0, 0, 0
	last := list
	for op := list; op != nil && size < batchBytes; op = op.next {
		durable = durable || op.durable()
		indexed = indexed || op.Park.ID != 0 || op.Unpark.ID != 0
		size += op.size()
		if m := op.Append; m != nil {
			stored++
			mail += int(m.Size) + envelopeSize(m)
		}
		last = op
		n++
	}
	rest, last.next = last.next, nil
	var aside []Removal
	if sh.damage.count.Load() > 0 {
		aside = sh.takeDamaged(list, last)
	}
	for _, encode := range encoders {
		for op := list; op != nil; op = op.next {
			if err := encode(sh.batch, op); err != nil {
				sh.spool.fail(fmt.Errorf("shard %d: encoding a batch: %w", sh.index, err))
			}
		}
	}
	for _, r := range aside {
		if err := sh.moveAside(sh.batch, r); err != nil {
			sh.spool.fail(fmt.Errorf("shard %d: moving message %v aside: %w", sh.index, r.ID, err))
		}
	}
	removed := message.ID(0)
	for op := list; op != nil; op = op.next {
		removed = max(removed, op.removes())
		sh.landed = append(sh.landed, op.Marks...)
	}
	if err := sh.setMark(sh.batch, removed); err != nil {
		sh.spool.fail(fmt.Errorf("shard %d: encoding a batch: %w", sh.index, err))
	}
	if err := sh.noteFlights(sh.batch); err != nil {
		sh.spool.fail(fmt.Errorf("shard %d: encoding a batch: %w", sh.index, err))
	}
	began := time.Now()
	sh.apply(durable || late)
	if late && !durable {
		sh.lateSyncs.Inc()
	}
	if durable {
		sh.took = time.Since(began)
		sh.syncSeconds.Update(sh.took.Seconds())
	}
	if sh.spool.failed.Load() {
		select {} // some other goroutine met the end: whatever this one believes, nobody is told any more
	}
	sh.batches.Inc()
	sh.ops.Add(n)
	sh.stored.Add(stored)
	sh.mail.Add(mail)
	if indexed {
		sh.announce(list)
	}
	sh.complete(list, &sh.posts)
	return rest
}

// apply commits the batch and empties it, and sees to it that it is synced, now or soon. It does not return from a failure.
func (sh *Shard) apply(sync bool) {
	sync = sync && sh.spool.options.Sync
	sh.bytes.Add(sh.batch.Len())
	mode := pebble.NoSync
	if sync {
		mode = pebble.Sync
		sh.syncs.Inc()
	}
	if err := sh.db.Apply(sh.batch, mode); err != nil {
		sh.spool.fail(fmt.Errorf("shard %d: committing a batch: %w", sh.index, err))
	}
	sh.batch.Reset()
	switch {
	case sync || !sh.spool.options.Sync: // or as durable as it gets
		sh.durable()
	case !sh.loose:
		sh.loose = true
		sh.syncTimer.Reset(sh.spool.options.syncDelay)
	}
}

// announce tells what changed in the due index.
func (sh *Shard) announce(list *Op) {
	if sh.spool.options.Indexed == nil {
		return
	}
	for op := list; op != nil; op = op.next {
		if op.Park.ID != 0 || op.Unpark.ID != 0 {
			sh.spool.options.Indexed(sh.index, op.Unpark, op.Park)
		}
	}
}

// complete gives the Ops of a list back: to their origins, once each, or to the pool. posts is scratch space.
func (sh *Shard) complete(list *Op, posts *[][]*Op) {
	for list != nil {
		op := list
		list, op.next = op.next, nil
		if op.Origin < 0 {
			op.Free()
			continue
		}
		for op.Origin >= len(*posts) {
			*posts = append(*posts, nil)
		}
		(*posts)[op.Origin] = append((*posts)[op.Origin], op)
	}
	for origin, done := range *posts {
		if len(done) > 0 {
			sh.spool.options.Post(origin, done)
			(*posts)[origin] = make([]*Op, 0, len(done)) // about as many will come again
		}
	}
}
