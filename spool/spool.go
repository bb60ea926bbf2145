package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"mailrace/proto/message"
)

// ErrClosed completes Ops that were enqueued after Close began.
var ErrClosed = errors.New("spool is closed")

// errBroken is Close's answer after a Fatal that returned.
var errBroken = errors.New("spool could not be written and was not closed")

// Options say where the spool is and how it behaves.
type Options struct {
	Path   string // directory; made if it does not exist
	Shards int    // 1..message.MaxShards; 0 = as many as the spool has, and for a new one DefaultShards

	// Sync makes an Append complete only after an fdatasync of the WAL. False is for benchmarks only: it breaks the promise of the 250.
	Sync bool

	FS            vfs.FS // nil = the operating system's
	MemTableBytes int    // of each shard; 0 = a share of Memory. Under load two exist, three when the disk lags
	Memory        int64  // memtables of all shards that are being filled, 16 MiB a shard at least; 0 = 256 MiB
	ReadOnly      bool   // only Recover, Scan and Load; nothing in the records is changed

	// MinFree and MinInodes are what must be free on the file system for the spool not to be Full; 0 = what the stores may still write of mail
	// that has been let in, and 10,000 inodes, but no more than a tenth of the file system. Reserve is what the spool keeps in files of its
	// own, in bytes, for the moment when the disk is full all the same; 0 = nothing.
	MinFree, MinInodes, Reserve int64

	// InFlight is a directory, on a file system in memory (/dev/shm), for the table of what is in flight, which outlives the process: see Marker.
	// "" = it does not outlive it, and only a crash of the machine finds something of it, in the shards.
	InFlight string

	// Failover is a directory on another disk. A WAL goes there while the disk of Path does not answer. It must exist, and whatever WALs are in it
	// are read at Open, also when another one is given by then, or none. "" = none. FailoverAfter is how long an operation may take until then; 0 =
	// 100 ms.
	Failover      string
	FailoverAfter time.Duration

	// Space measures the file system of a directory; nil = the operating system does, where FS is its own, and nobody where it is not.
	Space func(dir string) (Space, error)

	Log *slog.Logger // nil = slog.Default()

	// Post hands completed Ops to the event loop origin, once per origin and batch. It is called by a shard's goroutine and must not block;
	// the slice is the callee's to keep.
	Post func(origin int, done []*Op)

	// Indexed is told of every Op that changes the due index, when what it wrote can be read: of the entry that it dropped and of the one
	// that it put in, where there is one. It is called by the shard's goroutine and must not block; nil = nobody wants to know.
	Indexed func(shard int, dropped, added Due)

	// Fatal is told of a write that failed, once, and should end the process: recovery at the next start is the repair. Nil logs and exits
	// with status 2. Should it return, as in a test, nothing completes any more, and the goroutine that met the failure stands still.
	Fatal func(error)

	Now func() time.Time // nil = time.Now

	bulk       bool          // filled by Reshard or Salvage, which write without a WAL and flush
	trouble    func(error)   // of such a store: work in the background failed
	syncDelay  time.Duration // 0 = the constant of that name
	rewriteAge time.Duration // 0 = the constant of that name
	wreck      bool          // read by Salvage: the directories of wal_failover may be gone
	lenient    bool          // read by Salvage: files may be missing or damaged
	inBlocks   bool          // of tests: WALs are written as past a page cache, whatever the file system
}

// withDefaults fills in what was left zero.
func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.Default
		if o.Space == nil {
			o.Space = statfs
		}
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Post == nil {
		o.Post = func(_ int, done []*Op) {
			for _, op := range done {
				op.Free()
			}
		}
	}
	if o.Fatal == nil {
		log := o.Log
		o.Fatal = func(err error) {
			log.Error("FATAL: the spool cannot be written; what was acknowledged is on disk and will be recovered at the next start", "error", err)
			os.Exit(2)
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.rewriteAge == 0 {
		o.rewriteAge = rewriteAge
	}
	if o.syncDelay == 0 {
		o.syncDelay = syncDelay
	}
	return o
}

// Spool is a set of shards. All methods may be called by any goroutine.
type Spool struct {
	options Options
	layout  layout
	shards  []*Shard
	cache   *pebble.Cache
	flights *flights     // nil where the spool is only read
	lock    *pebble.Lock // nil where the caller of openShards holds it
	keeper  *keeper

	failover *failover

	opening sync.WaitGroup
	begun   chan struct{} // closed when the stores are open, or one of them could not be
	cause   error         // why it could not; read when begun is closed, as is took
	took    time.Duration // to open them

	metrics   *metrics.Set
	measuring sync.RWMutex // held by those who ask the stores for figures; guards measured
	measured  bool         // the stores may be asked

	// failed is set before Fatal is called: from then on nothing completes. broken is closed after it returned.
	failed atomic.Bool
	broken chan struct{}
	reason error // of broken

	calm chan struct{} // closed when nothing writes to the stores any more but their own Close
}

// newSpool returns a spool without shards yet.
func newSpool(o Options, l layout) (s *Spool, err error) {
	if o.MemTableBytes == 0 {
		if o.Memory == 0 {
			o.Memory = defaultMemTableBytes
		}
		o.MemTableBytes = max(int(o.Memory)/l.shards, minMemTableBytes)
	}
	s = &Spool{options: o, layout: l, cache: pebble.NewCache(cacheBytes), metrics: metrics.NewSet(), broken: make(chan struct{}), begun: make(chan struct{}), calm: make(chan struct{})}
	if s.failover, err = openFailover(o); err != nil {
		s.cache.Unref()
		return nil, err
	}
	if s.keeper, err = newKeeper(o, s.metrics, l.shards, s.reclaim, s.swollen); err != nil {
		s.cache.Unref()
		return nil, errors.Join(err, s.failover.close())
	}
	return s, nil
}

// Close commits what is enqueued, completes it, and closes the stores. Ops enqueued later complete with ErrClosed, on the goroutine that
// enqueues them. Call it once.
func (s *Spool) Close() error {
	for _, sh := range s.shards {
		sh.refuse()
	}
	s.keeper.hurry()
	ended := make(chan error, 1)
	go func() { ended <- s.finish() }()
	select {
	case err := <-ended:
		return err
	case <-s.broken:
		return s.leaveBroken()
	}
}

// Hurry makes writes that wait for room on the disk fail from now on. Who wants to close a spool that is not open yet, and has others wait for
// that first, calls it before: room may never come. Any goroutine.
func (s *Spool) Hurry() { s.keeper.hurry() }

// finish closes the stores when nothing uses them any more. It may stand still for good when they are broken.
func (s *Spool) finish() error {
	s.opening.Wait()
	s.keeper.running.Wait()
	for _, sh := range s.shards {
		<-sh.done
	}
	close(s.calm)
	if s.failed.Load() {
		<-s.broken
		return s.leaveBroken()
	}
	s.unregisterMetrics()
	var errs []error
	for _, sh := range s.shards {
		err := sh.close()
		if err == nil { // which syncs
			sh.durable()
		}
		errs = append(errs, err)
	}
	s.cache.Unref()
	errs = append(errs, s.failover.close(), s.flights.close())
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// leaveBroken leaves everything as it is: the stores may be in any state, with locks held, and the lock of the directory goes with the process.
func (s *Spool) leaveBroken() error {
	metrics.UnregisterSet(s.metrics, false)
	return s.brokenError()
}

// brokenError says so. It is called when broken is closed.
func (s *Spool) brokenError() error { return fmt.Errorf("%w: %w", errBroken, s.reason) }

// fail is where every failure to write ends. It does not return.
func (s *Spool) fail(err error) {
	if s.failed.CompareAndSwap(false, true) {
		s.reason = err
		s.options.Fatal(err)
		close(s.broken)
	}
	select {} // whoever holds what here must not go on, nor let go of it
}

// reclaim has all shards give back the room of what was removed.
func (s *Spool) reclaim(ctx context.Context) {
	for _, sh := range s.shards {
		if err := sh.reclaim(ctx); err != nil && ctx.Err() == nil {
			s.options.Log.Error("spool: room cannot be reclaimed, will be tried again", "error", err)
		}
	}
}

// swollen says that memtables hold several times what they should: with two homes for WALs, writes do not wait for flushes.
func (s *Spool) swollen() bool {
	if s.failover.dir == "" {
		return false
	}
	held := uint64(0)
	for _, sh := range s.shards {
		held += sh.db.Metrics().MemTable.Size
	}
	return held > swollenMemTables*uint64(s.options.MemTableBytes)*uint64(len(s.shards))
}

// Full says that there is too little room on the disk to let mail in: see Options.MinFree. What is let in all the same is stored, or waits for
// room.
func (s *Spool) Full() bool { return s.keeper.full.Load() }

// Shards is the number of shards.
func (s *Spool) Shards() int { return len(s.shards) }

// Shard is the shard i, 0 <= i < Shards().
func (s *Spool) Shard(i int) *Shard { return s.shards[i] }

// ShardOf is the shard that keeps the message id.
func (s *Spool) ShardOf(id message.ID) *Shard { return s.shards[shardOf(id, len(s.shards))] }

// shardOf is the number of the shard that keeps the message id in a spool of n shards. An id carries the shard that minted it, of however many
// there were then.
func shardOf(id message.ID, n int) int { return id.Shard() % n }
