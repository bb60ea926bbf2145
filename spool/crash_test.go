package spool

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"mailrace/proto/message"
)

var (
	crashSeed   = flag.Uint64("crash.seed", 0, "seed of the crash test (0 = from the clock)")
	crashRounds = flag.Int("crash.rounds", 25, "crashes in the crash test")
)

// fate is what the model knows of a message. A crash may fall between an Op and its sync, so each fact is noted twice: when it was asked
// for, and when it was told to be done.
type fate struct {
	size, recipients int
	chunks           int
	asked, acked     bool // Append
	removal          bool // Remove asked for
	aborted          bool
	insteadOf        message.ID // removed by the Op that appended this one
	history          [][]Update // by recipient, as asked for; the state before any is implied
	claim            Claim      // asked for with the Append
	parks            []int64    // when it was to be due, as asked for
}

// world is the model of a spool that crashes.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	disk   *vfs.MemFS
	spool  *Spool
	shards int

	reshardings int

	fates  map[message.ID]*fate
	ids    []message.ID
	flying map[chan *Op]message.ID // of Appends

	began   int64 // before all claims expire, Unix nanoseconds
	clock   int64 // moments since then
	expired int64 // claims that expire before it may be gone
}

// TestCrash runs random operations and takes the disk away at a random moment, with any share of what was not synced lost. What a 250 was
// sent for is there afterwards, what was not asked for is not, and a second recovery, after a crash in the first, finds the same.
func TestCrash(t *testing.T) {
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("to run it again: -crash.seed=%d", seed)
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 0)), disk: vfs.NewCrashableMem(), fates: map[message.ID]*fate{}}
	w.shards = 1 + w.rng.IntN(3)
	w.began = time.Now().Add(time.Hour).UnixNano()
	w.open()
	total := 0
	for range *crashRounds {
		for range w.rng.IntN(120) {
			w.step()
		}
		w.crash()
		total += w.check()
		if t.Failed() {
			return
		}
	}
	t.Logf("%d shards, %d crashes, %d reshardings, %d messages, %d found again", w.shards, *crashRounds, w.reshardings, len(w.ids), total)
	mustClose(t, w.spool)
}

func (w *world) open() {
	o := testOptions(w.t, w.disk)
	o.Shards = w.shards
	o.MemTableBytes = 256 << 10 // flushes, rotations of the WAL and compactions within a round
	w.spool = mustOpen(w.t, o)
	w.flying = map[chan *Op]message.ID{}
}

// step does one random thing.
func (w *world) step() {
	w.clock++
	switch n := w.rng.IntN(20); {
	case n < 9 && w.rng.IntN(40) == 0:
		w.expired = w.began + w.clock
		w.spool.Expire(w.expired)
	case n < 9:
		w.append(0)
	case n < 11:
		w.stream()
	case n < 14:
		w.update()
	case n < 16:
		w.remove()
	case n < 17:
		if id := w.pick(); id != 0 {
			w.append(id)
		}
	default:
		w.await()
	}
}

// append asks for a message, in one Op with the removal of another of the same shard when that is given.
func (w *world) append(insteadOf message.ID) {
	sh := w.spool.Shard(w.rng.IntN(w.shards))
	if insteadOf != 0 {
		sh = w.spool.ShardOf(insteadOf)
	}
	size := w.rng.IntN(3000)
	if w.rng.IntN(10) == 0 {
		size = w.rng.IntN(200_000)
	}
	m := newMessage(sh, size, 1+w.rng.IntN(3))
	f := w.note(m)
	op := &Op{Append: m}
	if insteadOf != 0 {
		f.insteadOf = insteadOf
		op.Remove, op.Unpark = w.removal(insteadOf), w.unpark(insteadOf)
	}
	w.enqueue(op)
}

// note begins the fate of a message.
func (w *world) note(m *message.Message) *fate {
	f := &fate{size: int(m.Size), recipients: len(m.Recipients), chunks: m.Chunks, history: make([][]Update, len(m.Recipients))}
	w.fates[m.ID] = f
	w.ids = append(w.ids, m.ID)
	return f
}

// enqueue asks for a message, half of the time with a claim.
func (w *world) enqueue(op *Op) {
	id := op.Append.ID
	w.fates[id].asked = true
	if w.rng.IntN(2) == 0 {
		op.Claim = Claim{Key: NewClaimKey("", id.String()), ID: id, Expires: w.began + w.clock + w.rng.Int64N(200)}
		w.fates[id].claim = op.Claim
	}
	w.flying[begin(w.spool, op)] = id
}

// stream sends chunks ahead, and then appends, aborts, or forgets the message.
func (w *world) stream() {
	m := newMessage(w.spool.Shard(w.rng.IntN(w.shards)), message.ChunkSize*2+w.rng.IntN(message.ChunkSize), 1)
	f := w.note(m)
	for i, c := range m.Body[:2] {
		begin(w.spool, &Op{Chunk: Chunk{ID: m.ID, Index: i + 1, Data: c}})
	}
	m.Body, m.Stored = m.Body[2:], 2
	switch w.rng.IntN(3) {
	case 0:
		w.enqueue(&Op{Append: m})
	case 1:
		f.aborted = true
		begin(w.spool, &Op{Abort: Removal{ID: m.ID, Chunks: 2}})
	}
}

// pick chooses a message that was acknowledged and not removed, or 0.
func (w *world) pick() message.ID {
	for range min(len(w.ids), 10) {
		id := w.ids[w.rng.IntN(len(w.ids))]
		if f := w.fates[id]; f.acked && !f.removal {
			return id
		}
	}
	return 0
}

func (w *world) removal(id message.ID) Removal {
	f := w.fates[id]
	f.removal = true
	r := Removal{ID: id, Chunks: f.chunks}
	for _, h := range f.history {
		if len(h) > 0 {
			r.Recipients = f.recipients
		}
	}
	return r
}

// unpark is the entry of the message in the index.
func (w *world) unpark(id message.ID) (d Due) {
	if parks := w.fates[id].parks; len(parks) > 0 {
		d = Due{At: parks[len(parks)-1], ID: id}
	}
	return d
}

func (w *world) remove() {
	if id := w.pick(); id != 0 {
		begin(w.spool, &Op{Remove: w.removal(id), Unpark: w.unpark(id)})
	}
}

func (w *world) update() {
	id := w.pick()
	if id == 0 {
		return
	}
	f := w.fates[id]
	u := Update{ID: id, Index: w.rng.IntN(f.recipients), State: message.Deferred, Attempts: uint16(w.rng.IntN(9)), Due: w.rng.Int64()}
	u.Reply = fmt.Sprint("451 ", u.Due)
	op := &Op{}
	if u.Parked = len(f.parks) > 0; w.rng.IntN(2) == 0 {
		u.Parked = true
		op.Park = Due{At: 1 + w.rng.Int64N(1000), ID: id}
		if n := len(f.parks); n > 0 {
			op.Unpark = Due{At: f.parks[n-1], ID: id}
		}
		f.parks = append(f.parks, op.Park.At)
	}
	f.history[u.Index] = append(f.history[u.Index], u)
	op.Updates = []Update{u}
	begin(w.spool, op)
}

// await waits for one of the Appends.
func (w *world) await() {
	for done, id := range w.flying {
		if err := (<-done).Err; err != nil {
			w.t.Fatal(err)
		}
		w.fates[id].acked = true
		delete(w.flying, done)
		return
	}
}

// reshard gives the spool that is closed another number of shards, with crashes on the way.
func (w *world) reshard() {
	to := []int{1, 1, 2, 2, 4, 4, 16}[w.rng.IntN(7)]
	for crashes := 0; ; crashes++ {
		left, err := crashReshard(w.t, w.disk, w.rng, to, 1+w.rng.IntN(40*to)<<crashes)
		if left == nil {
			if err != nil {
				w.t.Fatal(err)
			}
			break
		}
		w.disk = left
	}
	w.shards = to
	w.reshardings++
}

// crash takes the disk as it is, less what was not synced and is lost, and opens the spool on it. Sometimes recovery crashes too, and
// sometimes the spool gets another number of shards.
func (w *world) crash() {
	for done, id := range w.flying { // what has been told to be done by now
		select {
		case <-done:
			w.fates[id].acked = true
		default:
		}
	}
	left := w.disk.CrashClone(w.loss())
	old := w.spool
	mustClose(w.t, old)
	w.disk = left
	if w.rng.IntN(4) == 0 {
		w.reshard()
	}
	w.open()
	for w.rng.IntN(2) == 0 {
		stop := w.rng.IntN(20)
		stopped := errors.New("stopped")
		err := w.spool.Recover(func(*message.Message, bool) error {
			if stop--; stop < 0 {
				return stopped
			}
			return nil
		})
		if err != nil && !errors.Is(err, stopped) {
			w.t.Fatal(err)
		}
		left := w.disk.CrashClone(w.loss())
		mustClose(w.t, w.spool)
		w.disk = left
		w.open()
	}
}

func (w *world) loss() vfs.CrashCloneCfg {
	return vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 100, w.rng.IntN(101)}[w.rng.IntN(3)], RNG: w.rng}
}

// check recovers, compares with the model, and makes the model what was found. It returns how many messages were found.
func (w *world) check() int {
	found := recovered(w.t, w.spool)
	records := 0
	for id, m := range found {
		f := w.fates[id]
		if f == nil || !f.asked || f.aborted {
			w.t.Errorf("%v was recovered and never appended", id)
			continue
		}
		if got := load(w.t, w.spool, id, 1, m.Chunks); string(got) != string(contentOf(id, f.size)) {
			w.t.Errorf("%v: content differs", id)
		}
		if f.insteadOf != 0 && found[f.insteadOf] != nil {
			w.t.Errorf("%v is there, and %v that was removed with its append", id, f.insteadOf)
		}
		records += 1 + m.Chunks + w.checkStates(m, f)
	}
	for _, id := range w.ids {
		f := w.fates[id]
		if f.acked && !f.removal && found[id] == nil {
			w.t.Errorf("%v was acknowledged and is lost", id)
		}
		if f.insteadOf != 0 && found[f.insteadOf] == nil && w.fates[f.insteadOf].acked && found[id] == nil && !f.removal {
			w.t.Errorf("%v is gone without %v that should stand for it", f.insteadOf, id)
		}
	}
	records += w.checkClaims(found) + w.checkIndex(found)
	if n := countKeys(w.t, w.spool); n != records {
		w.t.Errorf("%d records, the messages have %d", n, records)
	}
	w.ids = slices.DeleteFunc(w.ids, func(id message.ID) bool { return found[id] == nil })
	for _, id := range w.ids {
		f := w.fates[id]
		f.acked, f.removal, f.insteadOf = true, false, 0
		if id >= w.spool.ShardOf(id).NewID() {
			w.t.Errorf("a new id is not above %v", id)
		}
	}
	return len(found)
}

// checkIndex holds the index against the messages: those whose states say that they are parked have one entry each, at a time that was asked
// for, and the others none. It returns how many there are.
func (w *world) checkIndex(found map[message.ID]*message.Message) (entries int) {
	parked := map[message.ID]bool{}
	if err := w.spool.Recover(func(m *message.Message, p bool) error { parked[m.ID] = p; return nil }); err != nil {
		w.t.Error(err)
	}
	for i := range w.shards {
		var due []Due
		for after := (Due{}); ; after = due[len(due)-1] {
			n, err := len(due), error(nil)
			if due, err = w.spool.Shard(i).Due(due, after, math.MaxInt64, 1+w.rng.IntN(5)); err != nil {
				w.t.Fatal(err)
			}
			if len(due) == n {
				break
			}
		}
		if !slices.IsSortedFunc(due, Due.Compare) {
			w.t.Errorf("the index is not in order: %v", due)
		}
		entries += len(due)
		for _, d := range due {
			f := w.fates[d.ID]
			if !parked[d.ID] || f == nil || !slices.Contains(f.parks, d.At) || found[d.ID] == nil {
				w.t.Errorf("%v has an entry at %d, asked for was %+v", d.ID, d.At, f)
				continue
			}
			delete(parked, d.ID)
			f.parks = []int64{d.At}
		}
	}
	for id, p := range parked {
		if p {
			w.t.Errorf("%v is parked without an entry", id)
		}
		w.fates[id].parks = nil
	}
	return entries
}

// checkClaims holds the claims against their messages: one is there without the other only where the message was removed, or the claim
// expired. It returns how many there are.
func (w *world) checkClaims(found map[message.ID]*message.Message) int {
	claims := claimsOf(w.t, w.spool)
	for id, f := range w.fates {
		c, there := claims[id]
		switch {
		case there && c != f.claim:
			w.t.Errorf("%v: claim %+v, asked for was %+v", id, c, f.claim)
		case there && !f.acked && found[id] == nil:
			w.t.Errorf("%v was not stored, and its claim was", id)
		case !there && f.claim.Expires > w.expired && (f.acked || found[id] != nil):
			w.t.Errorf("%v was stored without its claim", id)
		case !there && f.claim.Expires != 0 && !f.acked && found[id] == nil:
			f.claim = Claim{} // never came, and never will
		}
	}
	return len(claims)
}

// checkStates compares the states of m's recipients with those that were asked for, and returns how many have a record.
func (w *world) checkStates(m *message.Message, f *fate) (records int) {
	for i, r := range m.Recipients {
		if r.State == message.Pending && r.Reply == "" {
			f.history[i] = nil
			continue
		}
		records++
		at := slices.IndexFunc(f.history[i], func(u Update) bool {
			return u.State == r.State && u.Attempts == r.Attempts && u.Due == r.Due && u.Reply == r.Reply
		})
		if at < 0 {
			w.t.Errorf("%v: recipient %d is %+v, which nobody asked for", m.ID, i, r)
			continue
		}
		f.history[i] = f.history[i][at : at+1]
	}
	return records
}
