package spool

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"mailrace/proto/message"
)

// world is a spool that lives through everything, and the model of it. One goroutine owns it, but for what says otherwise.
type world struct {
	t    *testing.T
	seed uint64
	setup
	rng    *rand.Rand
	tally  *tally
	trace  []string
	clock  atomic.Int64 // Unix nanoseconds, what the spool takes for the time
	life   int
	looked bool // in this life
	made   bool // the spool, completely
	sound  bool // it was closed, and nothing happened since
	moves  int  // of all lives, which expiries of claims are told in

	mem   *vfs.MemFS
	disk  *wreckable // mem with the trouble of this life
	spool *Spool
	fatal chan struct{} // closed by Fatal
	cause error

	mu        sync.Mutex
	histories []*history // by shard; replaced under mu

	highest  map[int]message.ID     // by the shard that minted it: of what was ever on the disk
	flights  map[message.ID]*flight // of Appends in this life
	recovery *lateRecovery          // under way beside the operations

	collected bool               // what belongs to no message was collected in this life
	loose     map[message.ID]int // chunks that went ahead since, of messages that did not come
}

// setup is what does not change in the life of a world, but for resharding.
type setup struct {
	shards   int
	memTable int  // bytes
	space    bool // the disk can be measured, so that a full one is waited for
	failover bool // WALs have two homes, in some lives
	lives    int
	steps    int // in a life, at most
}

func drawSetup(rng *rand.Rand) setup {
	return setup{
		shards: []int{1, 2, 4, 16}[rng.IntN(4)], memTable: []int{32 << 10, 64 << 10, 256 << 10, 2 << 20}[rng.IntN(4)],
		space: rng.IntN(2) == 0, failover: rng.IntN(4) == 0, lives: 12, steps: 20 + rng.IntN(200),
	}
}

// flight is an Op on its way.
type flight struct {
	h       *history
	index   int64 // in its events; -1 = it is none
	durable bool
	err     error
	done    chan struct{}
}

func newWorld(t *testing.T, seed uint64, s setup, rng *rand.Rand, tally *tally) *world {
	w := &world{t: t, seed: seed, setup: s, rng: rng, tally: tally, mem: vfs.NewCrashableMem(), highest: map[int]message.ID{}}
	w.clock.Store(1767323045000000000)
	if err := errors.Join(w.mem.MkdirAll("other", 0o700), syncDir(w.mem, "/")); err != nil {
		t.Fatal(err)
	}
	w.partition(newShelf(), s.shards)
	return w
}

// note writes down what is done, for those who have to find out what went wrong.
func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%d: ", w.life)+fmt.Sprintf(format, args...))
}

// partition makes n shards of the model, all of whose past is settled.
func (w *world) partition(all *shelf, n int) {
	histories := make([]*history, n)
	for i := range histories {
		histories[i] = &history{base: newShelf()}
	}
	for id, l := range all.letters {
		if !l.settled() { // others go by themselves, sooner or later
			histories[shardOf(id, n)].base.letters[id] = l
		}
	}
	for d := range all.due {
		histories[shardOf(d.ID, n)].base.due[d] = true
	}
	for at, id := range all.claims {
		histories[shardOf(id, n)].base.claims[at] = id
	}
	for _, h := range histories {
		h.now = h.base.clone()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.histories = histories
}

// limits are the bounds of a crash at this moment. Any goroutine.
func (w *world) limits() bounds {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := bounds{of: w.histories}
	for _, h := range w.histories {
		b.low, b.high = append(b.low, h.acked.Load()), append(b.high, h.asked.Load())
	}
	return b
}

// leave notes between which bounds the disk is that is left.
func (w *world) leave(left *vfs.MemFS, b bounds) {
	w.mem = left
	same := &b.of[0] == &w.histories[0]
	w.made = w.made || w.looked && same
	for i, h := range w.histories {
		if !same { // it was when the spool had been opened, and not yet looked at
			h.acked.Store(0)
			h.asked.Store(0)
			continue
		}
		h.acked.Store(b.low[i])
		h.asked.Store(b.high[i])
	}
}

// options are those of this life.
func (w *world) options(shards int) Options {
	o := Options{
		Path: "mail/spool", Shards: shards, Sync: true, FS: w.disk, MemTableBytes: w.memTable, Post: w.post,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: func() time.Time { return time.Unix(0, w.clock.Load()) },
		Fatal: func(err error) {
			w.cause = err
			close(w.fatal)
		},
	}
	if w.space {
		o.Space, o.Reserve = newRoom().space, int64(w.rng.IntN(2))<<14
	}
	o.inBlocks = w.rng.IntN(2) == 0
	if w.failover && w.rng.IntN(2) == 0 {
		o.Failover = "other"
	}
	return o
}

// post takes completions. It is called by the shards.
func (w *world) post(_ int, done []*Op) {
	for _, op := range done {
		f := op.Done.(*flight)
		f.err = op.Err
		if f.index >= 0 && f.err == nil {
			if f.h.completed.Store(f.index + 1); f.durable {
				f.h.acked.Store(f.index + 1)
			}
		}
		if op.Append != nil {
			op.Append.Release()
		}
		op.Free()
		close(f.done)
	}
}

// ended says that this life is over, whoever wanted that.
func (w *world) ended() bool {
	left, _ := w.disk.crashed()
	return left != nil || w.broken()
}

func (w *world) broken() bool {
	select {
	case <-w.fatal:
		return true
	default:
		return false
	}
}

// excused says that an error is of this life's trouble.
func (w *world) excused(err error) bool {
	return w.disk.met.Load() && strings.Contains(err.Error(), w.disk.trouble.fault.Error()) // Pebble does not wrap all of them
}

// live opens the spool, compares it with the model, does things to it, and ends that, once.
func (w *world) live(t trouble, end ending) {
	w.life++
	w.sound = false
	opening := t.fault != nil && w.rng.IntN(3) == 0
	if opening && w.made {
		w.compact()
	}
	w.begin(t)
	w.disk.armed.Store(opening)
	w.note("life with %d shards, to end by %v;%v", len(w.histories), end, t)
	shards := w.shards
	if w.rng.IntN(2) == 0 {
		shards = 0
	}
	if !w.made {
		shards = w.shards
	}
	s, err := Open(w.options(shards))
	if err != nil {
		w.note("open: %v", err)
		if !w.excused(err) {
			w.t.Fatalf("life %d: open: %v", w.life, err)
		}
		w.crash(nil)
		return
	}
	w.spool = s
	w.disk.armed.Store(true)
	w.shards = s.Shards()
	w.flights, w.loose, w.collected = map[message.ID]*flight{}, map[message.ID]int{}, false
	if !w.look() {
		w.crash(w.spool)
		return
	}
	w.recover()
	for range w.rng.IntN(w.steps) {
		if w.ended() || w.t.Failed() {
			break
		}
		w.step()
		w.tally.operations.Add(1)
	}
	w.endLife(end)
}

// compact leaves nothing to compact: where an Open fails while that is going on, Pebble takes away the files that it reads, and panics.
func (w *world) compact() {
	w.begin(trouble{})
	w.spool = mustOpen(w.t, w.options(0))
	w.look()
	for _, sh := range w.spool.shards {
		if err := errors.Join(sh.db.Flush(), sh.db.Compact(w.t.Context(), []byte{0}, []byte{0xff}, false)); err != nil {
			w.t.Fatal(err)
		}
	}
	mustClose(w.t, w.spool)
	w.shards, w.mem = w.spool.Shards(), w.disk.mem
}

// begin puts trouble on the disk.
func (w *world) begin(t trouble) {
	w.fatal, w.cause, w.recovery = make(chan struct{}), nil, nil
	w.disk, w.looked = newWreckable(w.mem, t, w.limits), false
	if w.rng.IntN(3) > 0 {
		w.clock.Add(w.rng.Int64N(int64(time.Hour)))
	} else {
		w.clock.Add(-w.rng.Int64N(int64(time.Hour)))
	}
}

// ending is how a life ends, if nothing ends it before.
type ending int

const (
	endByClose ending = iota
	endByCrash
	endByCloseAndCrash
)

func (e ending) String() string {
	return [...]string{"Close", "crash", "Close and crash"}[e]
}

// endLife ends a life.
func (w *world) endLife(end ending) {
	w.stopRecovery()
	left, _ := w.disk.crashed()
	if left == nil && !w.broken() && end != endByCrash {
		asked := w.limits().high
		err := w.spool.Close()
		w.note("closed: %v", err)
		if left, _ = w.disk.crashed(); left == nil && err == nil {
			w.closed(asked, end)
			return
		}
		if left == nil && !w.broken() && !w.excused(err) {
			w.t.Errorf("life %d: close: %v", w.life, err)
		}
		w.crash(nil)
		return
	}
	w.crash(w.spool)
}

// closed goes on with a disk on which everything must be that was asked for.
func (w *world) closed(asked []int64, end ending) {
	for i, h := range w.histories {
		if n := h.completed.Load(); n != asked[i] {
			w.t.Errorf("life %d: shard %d was closed with %d of %d Ops completed", w.life, i, n, asked[i])
		}
	}
	left := w.disk.mem
	if end == endByCloseAndCrash {
		left = left.CrashClone(w.disk.trouble.loss)
		w.tally.crashes.Add(1)
	}
	w.sound = end == endByClose
	w.leave(left, bounds{of: w.histories, low: asked, high: asked})
}

// crash goes on with what a crash leaves of the disk: the one that came by itself, or one at this moment. s is still open then, or nil.
func (w *world) crash(s *Spool) {
	if w.broken() {
		w.note("fatal: %v", w.cause)
		w.tally.ended.Add(1)
		if !w.excused(w.cause) {
			w.t.Errorf("life %d: fatal: %v", w.life, w.cause)
		}
	}
	if w.disk.met.Load() {
		w.tally.faults.Add(1)
	}
	left, b := w.disk.crashed()
	if left == nil {
		w.disk.crash()
		left, b = w.disk.crashed()
	}
	w.tally.crashes.Add(1)
	w.note("crash: from %v of %v Ops are there, %d changes of the disk", b.low, b.high, w.disk.changes.Load())
	if s != nil {
		if err := s.Close(); err != nil && !w.broken() && !w.excused(err) {
			w.t.Errorf("life %d: closing what has crashed: %v", w.life, err)
		}
	}
	w.leave(left, b)
}
