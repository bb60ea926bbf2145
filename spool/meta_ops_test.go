package spool

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"mailrace/proto/message"
)

// mostLetters is how many messages a world has, about.
const mostLetters = 150

// claimsFrom is before all claims expire, and after all that the clock will tell, Unix nanoseconds.
const claimsFrom = 1 << 61

// step does one random thing.
func (w *world) step() {
	w.moves++
	w.clock.Add(w.rng.Int64N(int64(time.Second)))
	n := w.rng.IntN(40)
	if len(w.flights) > mostLetters/2 {
		n += 6 // fewer come
	}
	switch {
	case n < 10:
		w.append()
	case n < 13:
		w.stream()
	case n < 16:
		w.replace()
	case n < 23:
		w.update()
	case n < 25:
		w.settleRecipients()
	case n < 30:
		w.remove()
	case n < 34:
		w.readBack()
	case n == 34:
		w.expire()
	case n == 35:
		w.flush()
	case n == 36:
		w.lookAgain()
	default:
		if id := w.pick(); id != 0 && w.flights[id] != nil {
			w.await(w.flights[id])
		}
	}
}

// submit hands an Op to the shard i, and notes it in the model where it is an event.
func (w *world) submit(i int, op *Op, e *event) *flight {
	f := &flight{h: w.histories[i], index: -1, done: make(chan struct{})}
	if e != nil {
		w.note("%d. of shard %d: %v", len(f.h.events), i, e)
		f.index, f.durable = int64(len(f.h.events)), e.append != nil
		f.h.events = append(f.h.events, e)
		f.h.now.apply(e)
		f.h.asked.Add(1)
		op.Claim, op.Expire, op.Park, op.Unpark, op.Updates = e.claim, e.expire, e.park, e.unpark, slices.Clone(e.updates)
	}
	op.Done = f
	w.spool.Shard(i).Enqueue(op)
	return f
}

// await waits for an Op, and says whether it was done.
func (w *world) await(f *flight) bool {
	select {
	case <-f.done:
		if f.err != nil {
			w.t.Errorf("life %d: an Op was refused: %v", w.life, f.err)
		}
		return true
	case <-w.fatal:
		return false
	}
}

// settleDown waits until a shard has done all that was asked for.
func (w *world) settleDown(i int) bool {
	f := w.submit(i, NewOp(), nil)
	w.spool.Shard(i).hurry()
	return w.await(f)
}

// home is the history of a message, and the number of its shard.
func (w *world) home(id message.ID) (*history, int) {
	i := shardOf(id, len(w.histories))
	return w.histories[i], i
}

// pick chooses a message that is not settled, and that operations may begin on; 0 = there is none.
func (w *world) pick() message.ID {
	first := w.rng.IntN(len(w.histories))
	for i := range w.histories {
		h := w.histories[(first+i)%len(w.histories)]
		ids := slices.Sorted(maps.Keys(h.now.letters))
		for range min(len(ids), 5) {
			id := ids[w.rng.IntN(len(ids))]
			if w.may(id) && !h.now.letters[id].settled() {
				return id
			}
		}
	}
	return 0
}

// may says that operations on a message may begin: it came in this life and was completed, or the recovery knows it.
func (w *world) may(id message.ID) bool {
	if f := w.flights[id]; f != nil {
		return w.await(f)
	}
	if w.recovery == nil {
		return true
	}
	w.recovery.mu.Lock()
	defer w.recovery.mu.Unlock()
	return w.recovery.free[id]
}

func (w *world) size() int {
	switch w.rng.IntN(12) {
	case 0:
		return 0
	case 1:
		return separateBytes - 2 + w.rng.IntN(4)
	case 2:
		return message.ChunkSize*(1+w.rng.IntN(3)) - 1 + w.rng.IntN(3)
	case 3:
		return w.rng.IntN(200_000)
	}
	return w.rng.IntN(3000)
}

func (w *world) recipients() int {
	if w.rng.IntN(20) == 0 {
		return 1 + w.rng.IntN(100)
	}
	return 1 + w.rng.IntN(3)
}

// arrival is an Op that appends a message to the shard i, half of the time with a claim.
func (w *world) arrival(i, size int) (*Op, *event) {
	e := &event{append: newSample(w.rng, w.spool.Shard(i).NewID(), size, w.recipients())}
	id := e.append.envelope.ID
	if w.rng.IntN(2) == 0 {
		e.claim = Claim{Key: NewClaimKey("", fmt.Sprint(id, e.append.salt)), ID: id, Expires: claimsFrom + int64(1+w.moves+w.rng.IntN(300))}
	}
	if w.rng.IntN(10) == 0 { // held from the beginning
		e.park = Due{At: 1 + w.rng.Int64N(1<<50), ID: id}
		e.updates = []Update{{ID: id, Due: e.park.At, Parked: true}}
	}
	op := NewOp()
	op.Append = e.append.message()
	return op, e
}

// append asks for a message, and sometimes waits for it.
func (w *world) append() {
	i := w.rng.IntN(len(w.histories))
	op, e := w.arrival(i, w.size())
	w.send(i, op, e)
}

func (w *world) send(i int, op *Op, e *event) {
	f := w.submit(i, op, e)
	w.flights[e.append.envelope.ID] = f
	w.tally.messages.Add(1)
	if w.rng.IntN(3) == 0 {
		w.await(f)
	}
}

// stream sends chunks ahead, and then appends, aborts, or forgets the message.
func (w *world) stream() {
	i := w.rng.IntN(len(w.histories))
	op, e := w.arrival(i, message.ChunkSize*2+w.rng.IntN(message.ChunkSize))
	m, keep := op.Append, w.rng.IntN(2) == 0
	ahead := 1 + w.rng.IntN(2)
	w.note("%d chunks of %v go ahead", ahead, m.ID)
	for c := range ahead {
		chunk := NewOp()
		chunk.Chunk = Chunk{ID: m.ID, Index: c + 1, Data: m.Body[c], Keep: keep}
		w.submit(i, chunk, nil)
	}
	w.loose[m.ID] = ahead
	m.Stored = ahead
	if !keep {
		m.Body = m.Body[ahead:]
	}
	switch w.rng.IntN(4) {
	case 0:
		w.note("they are dropped")
		abort := NewOp()
		abort.Abort = Removal{ID: m.ID, Chunks: ahead}
		w.submit(i, abort, nil)
		delete(w.loose, m.ID)
	case 1:
		w.note("they are forgotten")
	default:
		delete(w.loose, m.ID)
		w.send(i, op, e)
	}
}

// replace appends a message in one Op with the removal of another, or with the end of a recipient of it, as a report does.
func (w *world) replace() {
	id := w.pick()
	if id == 0 {
		return
	}
	h, i := w.home(id)
	l := h.now.letters[id]
	op, e := w.arrival(i, w.rng.IntN(3000))
	if e.park.ID != 0 { // one entry of the index an Op
		e.park, e.updates = Due{}, nil
	}
	if w.rng.IntN(2) == 0 {
		op.Remove = l.removal()
		e.remove, e.unpark = id, h.now.entry(id)
	} else {
		u := w.outcome(l, w.rng.IntN(len(l.states)))
		u.State = message.Bounced
		e.updates = append(e.updates, u)
	}
	w.send(i, op, e)
}

func (l *letter) removal() Removal {
	r := Removal{ID: l.envelope.ID, Chunks: l.envelope.Chunks}
	if l.updated {
		r.Recipients = len(l.states)
	}
	return r
}

// outcome is an update of a recipient. A message that was parked once stays so.
func (w *world) outcome(l *letter, index int) Update {
	return Update{
		ID: l.envelope.ID, Index: index, State: message.State(w.rng.IntN(2)), Attempts: uint16(w.rng.IntN(1 << 16)), Due: int64(w.rng.Uint64()),
		Reply: strings.Repeat("4", w.rng.IntN(1+[]int{10, 100, 2000}[w.rng.IntN(3)])), Late: w.rng.IntN(2) == 0, Noticed: uint8(w.rng.IntN(5)),
		Parked: slices.Contains(l.parked, true),
	}
}

// update notes how far recipients are, and parks the message half of the time, sometimes until a time far ahead.
func (w *world) update() {
	id := w.pick()
	if id == 0 {
		return
	}
	h, i := w.home(id)
	l := h.now.letters[id]
	e := &event{}
	for range 1 + w.rng.IntN(3) {
		u := w.outcome(l, w.rng.IntN(len(l.states)))
		if w.rng.IntN(6) == 0 && len(l.states) > 1 && len(e.updates) == 0 {
			u.State = message.Delivered
		}
		e.updates = append(e.updates, u)
	}
	if w.rng.IntN(2) == 0 {
		e.park = Due{At: 1 + w.rng.Int64N([]int64{10, 1000, 1 << 50}[w.rng.IntN(3)]), ID: id}
		e.unpark = h.now.entry(id)
		for i := range e.updates {
			e.updates[i].Parked = true
		}
	}
	w.submit(i, NewOp(), e)
}

// settleRecipients notes that all recipients of a message are done with, as before a removal that a crash prevents.
func (w *world) settleRecipients() {
	id := w.pick()
	if id == 0 {
		return
	}
	h, i := w.home(id)
	l := h.now.letters[id]
	e := &event{}
	for index := range l.states {
		u := w.outcome(l, index)
		u.State = message.Delivered + message.State(w.rng.IntN(3))
		e.updates = append(e.updates, u)
	}
	w.submit(i, NewOp(), e)
	if w.rng.IntN(2) == 0 {
		op := NewOp()
		op.Remove = l.removal()
		w.submit(i, op, &event{remove: id, unpark: h.now.entry(id)})
	}
}

func (w *world) remove() {
	id := w.pick()
	if id == 0 {
		return
	}
	h, i := w.home(id)
	op := NewOp()
	op.Remove = h.now.letters[id].removal()
	w.submit(i, op, &event{remove: id, unpark: h.now.entry(id)})
	delete(w.flights, id)
}

// expire drops claims of one shard, or of all.
func (w *world) expire() {
	one := w.rng.IntN(2 * len(w.histories))
	for i := range w.histories {
		if one >= len(w.histories) || one == i {
			w.submit(i, NewOp(), &event{expire: claimsFrom + int64(w.moves)})
		}
	}
}

// flush makes a store write what it has in memory, or rewrite what it has in files.
func (w *world) flush() {
	i := w.rng.IntN(len(w.histories))
	sh := w.spool.Shard(i)
	w.note("flush of shard %d", i)
	flushed := make(chan struct{})
	go func() {
		defer close(flushed)
		if w.rng.IntN(2) == 0 {
			_, _ = sh.db.AsyncFlush()
			return
		}
		_ = sh.reclaim(w.t.Context())
	}()
	select {
	case <-flushed:
	case <-w.fatal:
	}
}

// readBack reads messages, content and a piece of the index of one shard as somebody does who takes up what is due.
func (w *world) readBack() {
	id := w.pick()
	if id == 0 {
		return
	}
	h, i := w.home(id)
	if !w.settleDown(i) {
		return
	}
	sh := w.spool.Shard(i)
	ids := []message.ID{id}
	for other := range h.now.letters {
		if len(ids) < 1+w.rng.IntN(5) && other != id {
			ids = append(ids, other)
		}
	}
	got, err := sh.Read(nil, ids)
	for n, m := range got {
		l := h.now.letters[ids[n]]
		switch {
		case m == nil && l.settled(): // a recovery removes it
		case m == nil:
			w.t.Errorf("life %d: %v cannot be read", w.life, ids[n])
		case l.differs(m) != "":
			w.t.Errorf("life %d: %v was read: %s", w.life, ids[n], l.differs(m))
		}
	}
	l := h.now.letters[id]
	err = errors.Join(err, w.readContent(l), w.readIndex(h.now, sh))
	if err != nil && !w.excused(err) {
		w.t.Errorf("life %d: reading back %v: %v", w.life, id, err)
	}
}

// readContent compares trace header and content of a message, or a part of them.
func (w *world) readContent(l *letter) error {
	e := l.envelope
	first := w.rng.IntN(1 + e.Chunks)
	n := 1 + w.rng.IntN(1+e.Chunks-first)
	chunks, err := w.spool.Load(e.ID, first, n, testBudget)
	if err != nil {
		return err
	}
	defer message.FreeAll(chunks)
	want, from := l.content(), max(first-1, 0)*message.ChunkSize
	want = want[from:min(len(want), (first+n-1)*message.ChunkSize)]
	if first == 0 {
		want = append(slices.Clone(e.Trace), want...)
	}
	var got []byte
	for _, c := range chunks {
		got = append(got, c.B...)
	}
	if !bytes.Equal(got, want) {
		w.t.Errorf("life %d: content of %v from chunk %d, %d of %d: %d octets differ from the %d that came", w.life, e.ID, first, n, e.Chunks, len(got), len(want))
	}
	return nil
}

// readIndex compares a piece of the index.
func (w *world) readIndex(s *shelf, sh *Shard) error {
	all := slices.SortedFunc(maps.Keys(s.due), Due.Compare)
	after, until, limit := Due{}, int64(1<<62), 1+w.rng.IntN(10)
	if len(all) > 0 && w.rng.IntN(2) == 0 {
		after = all[w.rng.IntN(len(all))]
	}
	if len(all) > 0 && w.rng.IntN(2) == 0 {
		until = all[w.rng.IntN(len(all))].At
	}
	got, err := sh.Due(nil, after, until, limit)
	if err != nil {
		return err
	}
	want := slices.DeleteFunc(all, func(d Due) bool { return d.Compare(after) <= 0 || d.At > until })
	if want = want[:min(len(want), limit)]; !slices.Equal(got, want) {
		w.t.Errorf("life %d: due after %v until %d, %d of them: %v, should be %v", w.life, after, until, limit, got, want)
	}
	return nil
}

// lookAgain compares all that the spool shows with the model.
func (w *world) lookAgain() {
	for i := range w.histories {
		if !w.settleDown(i) {
			return
		}
	}
	in, err := w.sightOf(w.spool)
	if err != nil {
		if !w.excused(err) {
			w.t.Errorf("life %d: reading: %v", w.life, err)
		}
		return
	}
	for i, h := range w.histories {
		now := history{base: h.now.clone()}
		_, faults := now.settle(in.of(i, len(w.histories)), 0, 0)
		for _, fault := range faults {
			w.t.Errorf("life %d: shard %d of %d, looked at again: %s", w.life, i, len(w.histories), fault)
		}
	}
	if w.collected {
		w.countRecords()
	}
	for _, h := range w.histories {
		for _, l := range h.now.letters {
			if l.settled() || w.rng.IntN(4) > 0 {
				continue
			}
			if err := w.readContent(l); err != nil && !w.excused(err) {
				w.t.Errorf("life %d: content of %v: %v", w.life, l.envelope.ID, err)
			}
		}
	}
}

// clear removes everything, and shows that nothing is left.
func (w *world) clear() {
	w.life++
	w.begin(trouble{})
	w.spool = mustOpen(w.t, w.options(0))
	w.flights, w.loose = map[message.ID]*flight{}, map[message.ID]int{}
	w.shards = w.spool.Shards()
	w.look()
	if err := w.spool.Recover(func(*message.Message, bool) error { return nil }); err != nil {
		w.t.Fatal(err)
	}
	for i, h := range w.histories {
		for d := range maps.Clone(h.now.due) {
			w.submit(i, NewOp(), &event{unpark: d})
		}
		for _, l := range maps.Clone(h.now.letters) {
			op := NewOp()
			op.Remove = l.removal()
			w.submit(i, op, &event{remove: l.envelope.ID})
		}
		w.submit(i, NewOp(), &event{expire: 1 << 62})
		w.settleDown(i)
	}
	w.countRecords()
	mustClose(w.t, w.spool)
	w.spool = mustOpen(w.t, w.options(0))
	w.countRecords()
	mustClose(w.t, w.spool)
	w.verify()
}

// run lets a world live, and die.
func (w *world) run() {
	defer func() {
		if w.t.Failed() {
			w.t.Logf("the operations of seed %d (%+v):\n%s", w.seed, w.setup, strings.Join(w.trace, "\n"))
		}
	}()
	for range w.rng.IntN(8) { // crashes while the stores are made, and opened for the first times
		w.live(makeTrouble(w.rng, int64(60*w.setup.shards), true, false, false), endByCrash)
		if w.t.Failed() {
			return
		}
	}
	for range w.lives {
		changes := int64(30+w.steps) * int64(2+w.rng.IntN(20))
		if w.rng.IntN(4) == 0 {
			changes = int64(20 * len(w.histories)) // while it is opened
		}
		kind := w.rng.IntN(10)
		t := makeTrouble(w.rng, changes, kind < 3, kind >= 3 && kind < 6, kind == 6 && w.space)
		w.live(t, ending(w.rng.IntN(3)))
		if w.t.Failed() {
			return
		}
		if !w.made {
			continue
		}
		if w.rng.IntN(4) == 0 {
			w.reshard()
		}
		if w.rng.IntN(4) == 0 {
			w.verify()
		}
		if w.rng.IntN(8) == 0 {
			w.salvage()
		}
		if w.t.Failed() {
			return
		}
	}
	w.clear()
}

func newRNG(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }
