package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// inFlight is how much the stores may still write when the spool has become full, in memtables of each shard: three of them are flushed, and
// as many WAL files and one more may be made.
const inFlight = 7

// keeper keeps room for the spool. It measures the disks, and says in time that the spool is full; and it makes a disk that is full all the same
// something to wait for.
//
// What is accepted below the mark fits above it, so a full disk is met only where others fill it. Then whatever the stores write takes files of
// the reserve first, and waits when there are none left: removals free space, and the reserve is there for them. A write that waits is no
// failure: nothing completes before it, clients wait, and all goes on when there is space. Only a sync that finds no space is fatal, as
// every sync that fails.
type keeper struct {
	o        Options
	log      *slog.Logger
	disks    []*disk
	reserve  reserve
	full     atomic.Bool
	waiting  atomic.Int32  // writes that wait for space
	told     atomic.Bool   // that some do, since the spool became full
	written  atomic.Int64  // bytes since the room was measured last
	often    int64         // bytes after which it is measured
	patient  atomic.Bool   // writes wait; while the spool is closed they fail
	measure  chan struct{} // wakes the goroutine
	stopped  context.Context
	stop     func()                // by hurry
	reclaim  func(context.Context) // has the stores give back the room of what was removed
	busy     atomic.Bool           // with that
	swollen  func() bool           // whether memory holds more of the stores than it should
	running  sync.WaitGroup
	waits    *metrics.Counter
	unwanted sync.Once // complaint that the room cannot be measured
}

// disk is a file system that is watched.
type disk struct {
	name, dir    string
	marks        marks
	free, inodes atomic.Int64
}

// newKeeper measures the disks for the first time. With no way to measure, as of a file system in memory, the spool never is full.
func newKeeper(o Options, set *metrics.Set, shards int, reclaim func(context.Context), swollen func() bool) (*keeper, error) {
	stopped, stop := context.WithCancel(context.Background())
	k := &keeper{
		o: o, log: o.Log, measure: make(chan struct{}, 1), stopped: stopped, stop: stop, reclaim: reclaim, swollen: swollen,
		waits: set.NewCounter("mailrace_spool_disk_full_waits_total"), reserve: reserve{fs: o.FS, dir: o.FS.PathJoin(o.Path, reserveDir), bytes: o.Reserve},
	}
	if o.Space == nil || o.ReadOnly {
		return k, nil
	}
	k.disks = []*disk{{name: "spool", dir: o.Path}}
	if o.Failover != "" {
		k.disks = append(k.disks, &disk{name: "wal_failover", dir: o.Failover})
	}
	for _, d := range k.disks {
		s, err := o.Space(d.dir)
		if err != nil {
			return nil, err
		}
		d.marks = marksFor(o, s, inFlight*int64(o.MemTableBytes)*int64(shards))
		set.NewGauge(fmt.Sprintf("mailrace_spool_disk_free_bytes{disk=%q}", d.name), func() float64 { return float64(d.free.Load()) })
		set.NewGauge(fmt.Sprintf("mailrace_spool_disk_free_inodes{disk=%q}", d.name), func() float64 { return float64(d.inodes.Load()) })
	}
	k.often = max(k.disks[0].marks.bytes/8, 1)
	k.patient.Store(true)
	set.NewGauge("mailrace_spool_full", func() float64 {
		if k.full.Load() {
			return 1
		}
		return 0
	})
	set.NewGauge("mailrace_spool_reserve_bytes", func() float64 { return float64(k.reserve.size()) })
	return k, k.reserve.open()
}

// start begins to watch.
func (k *keeper) start() {
	if k.disks == nil {
		return
	}
	k.look()
	k.running.Go(k.run)
}

// hurry ends the watch, and the wait of writes: they fail now. The spool is being closed.
func (k *keeper) hurry() {
	k.stop()
	k.patient.Store(false)
}

// hurried says that nobody waits for room any more.
func (k *keeper) hurried() bool { return k.stopped.Err() != nil }

func (k *keeper) run() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-k.measure:
		case <-k.stopped.Done():
			return
		}
		k.look()
		if k.full.Load() && k.busy.CompareAndSwap(false, true) {
			k.running.Go(k.collect)
		}
	}
}

// collect reclaims room. A store writes and compacts when mail comes in; while none does, what was removed would hold its room for good. It takes
// a tenth of the time at most.
func (k *keeper) collect() {
	defer k.busy.Store(false)
	began, waits := time.Now(), k.waits.Get()
	k.reclaim(k.stopped)
	rest := time.NewTimer(restAfter(time.Since(began), k.waits.Get() > waits))
	defer rest.Stop()
	select {
	case <-rest.C:
	case <-k.stopped.Done():
	}
}

// restAfter is for how long no room is reclaimed after that took some time. Where writes waited for room meanwhile, it stood still, perhaps for hours,
// and what was removed since is wanted at once.
func restAfter(took time.Duration, waited bool) time.Duration {
	if waited {
		return min(9*took, lookEvery)
	}
	return 9 * took
}

// look measures the room, and makes the reserve whole when there is enough.
func (k *keeper) look() {
	k.written.Store(0)
	was := k.full.Load()
	var short *disk
	spare := int64(-1) // of the spool's own disk, above the mark
	for i, d := range k.disks {
		s, err := k.o.Space(d.dir)
		if err != nil {
			k.unwanted.Do(func() { k.log.Error("spool: the room on the disk cannot be measured", "error", err) })
			continue
		}
		d.free.Store(s.Free)
		d.inodes.Store(s.FreeInodes)
		if d.marks.below(s, was) {
			short = d
		}
		if i == 0 {
			spare = s.Free - d.marks.bytes - d.marks.bytes/8
		}
	}
	full := short != nil
	if !full && !k.reserve.whole() {
		lacking := k.reserve.missing() > spare || k.reserve.fill() != nil
		full = lacking && was // what was given up comes back before mail does
	}
	if k.swollen() {
		k.declare(true, "spool: the disk does not keep up with what is in memory: no mail is taken until it does", "path", k.o.Path)
		return
	}
	k.declare(full || k.waiting.Load() > 0, nearlyFull, k.figures(short)...)
}

// declare notes whether the spool is full, and logs a change.
func (k *keeper) declare(full bool, message string, args ...any) {
	if k.full.Swap(full) == full {
		return
	}
	if !full {
		k.told.Store(false)
		k.log.Info("spool: there is room again, mail is taken")
		return
	}
	k.log.Error(message, args...)
}

const nearlyFull = "spool: the disk is nearly full: no mail is taken, delivery goes on. Free some space, and it is taken again"

// figures are what a log line says of the disk that is short of room, if one is known.
func (k *keeper) figures(short *disk) []any {
	if short == nil {
		return []any{"path", k.o.Path}
	}
	return []any{"path", short.dir, "free_bytes", short.free.Load(), "min_free", short.marks.bytes,
		"free_inodes", short.inodes.Load(), "min_inodes", short.marks.inodes}
}

// wrote notes bytes that were written, and has the room measured when they are many.
func (k *keeper) wrote(n int) {
	if k.disks == nil || k.written.Add(int64(n)) < k.often {
		return
	}
	select {
	case k.measure <- struct{}{}:
	default:
	}
}

// isFull says that err means that there is no room: no blocks, no inodes, or no quota.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// await makes room after a write that failed with err, or waits for it, and says whether to try again. It is called by whoever writes.
func (k *keeper) await(what, name string, err error) bool {
	if !isFull(err) || k.disks == nil {
		return false
	}
	if k.reserve.release() {
		k.declare(true, nearlyFull, k.figures(nil)...)
		return true
	}
	if !k.patient.Load() {
		return false
	}
	k.waiting.Add(1)
	if k.told.CompareAndSwap(false, true) {
		k.log.Error("spool: the disk is full, and so is the reserve: writes wait. Nothing is lost; free some space, and they go on",
			"operation", what, "path", name, "error", err)
	}
	defer k.waiting.Add(-1)
	k.waits.Inc()
	k.declare(true, nearlyFull, k.figures(nil)...)
	timer := time.NewTimer(tryEvery)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-k.stopped.Done():
	}
	return true
}
