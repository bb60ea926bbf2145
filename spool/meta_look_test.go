package spool

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"mailrace/proto/message"
)

// sightOf is what a spool shows, if it does not stand still before it has shown all.
func (w *world) sightOf(s *Spool) (*sight, error) {
	type result struct {
		in  *sight
		err error
	}
	read := make(chan result, 1)
	go func() { // a store that stands still may hold locks that its readers need
		in, err := w.readAll(s)
		read <- result{in, err}
	}()
	select {
	case r := <-read:
		return r.in, r.err
	case <-w.fatal:
		return nil, w.cause
	}
}

// readAll reads all that a spool shows, and checks that everything is in its shard.
func (w *world) readAll(s *Spool) (*sight, error) {
	in := &sight{map[message.ID]*message.Message{}, map[message.ID]bool{}, map[Due]bool{}, map[claimAt]message.ID{}}
	for i, sh := range s.shards {
		home := func(what string, id message.ID) {
			if shardOf(id, len(s.shards)) != i {
				w.t.Errorf("life %d: %s %v is in shard %d of %d", w.life, what, id, i, len(s.shards))
			}
		}
		snapshot := sh.db.NewSnapshot() // a recovery may run beside this
		err := sh.visitUnsettled(snapshot, 1<<64-1, func(m *message.Message, parked bool) error {
			home("message", m.ID)
			in.messages[m.ID], in.parked[m.ID] = m, parked
			return nil
		})
		if err := errors.Join(err, snapshot.Close()); err != nil {
			return nil, err
		}
		due, err := sh.Due(nil, Due{}, 1<<62, 1<<30)
		if err != nil {
			return nil, err
		}
		for _, d := range due {
			home("entry of", d.ID)
			in.due[d] = true
		}
		err = sh.claims(0, func(c Claim) error {
			home("claim of", c.ID)
			in.claims[claimAt{c.Expires, c.Key}] = c.ID
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return in, nil
}

// of is the part of a sight that a shard of the model has: the spool may have another number of shards by now.
func (in *sight) of(shard, shards int) *sight {
	part := &sight{maps.Clone(in.messages), in.parked, maps.Clone(in.due), maps.Clone(in.claims)}
	maps.DeleteFunc(part.messages, func(id message.ID, _ *message.Message) bool { return shardOf(id, shards) != shard })
	maps.DeleteFunc(part.due, func(d Due, _ bool) bool { return shardOf(d.ID, shards) != shard })
	maps.DeleteFunc(part.claims, func(_ claimAt, id message.ID) bool { return shardOf(id, shards) != shard })
	return part
}

// look compares what was just opened with what may be there, and makes the model what is there. It says whether that could be read.
func (w *world) look() bool {
	in, err := w.sightOf(w.spool)
	if err != nil {
		w.note("reading: %v", err)
		if !w.excused(err) {
			w.t.Fatalf("life %d: reading: %v", w.life, err)
		}
		return false
	}
	all := newShelf()
	b := w.limits()
	for i, h := range w.histories {
		k, faults := h.settle(in.of(i, len(w.histories)), b.low[i], b.high[i])
		for _, fault := range faults {
			w.t.Errorf("life %d: shard %d of %d: %s", w.life, i, len(w.histories), fault)
		}
		for _, e := range h.events[:k] {
			if e.append != nil {
				id := e.append.envelope.ID
				w.highest[id.Shard()] = max(w.highest[id.Shard()], id)
			}
		}
		maps.Copy(all.letters, h.base.letters)
		maps.Copy(all.due, h.base.due)
		maps.Copy(all.claims, h.base.claims)
		w.note("shard %d: %d of %d to %d Ops are there, %d messages", i, k, b.low[i], b.high[i], len(h.base.letters))
	}
	if w.t.Failed() {
		w.t.FailNow()
	}
	w.partition(all, w.spool.Shards())
	w.looked = true
	for i, sh := range w.spool.shards {
		id := sh.NewID()
		for minted, used := range w.highest {
			if minted%w.spool.Shards() == i && id <= used {
				w.t.Errorf("life %d: shard %d: the new id %v is not above %v, which was used", w.life, i, id, used)
			}
		}
	}
	return true
}

// unsettled are the messages of the model that a recovery shows.
func (w *world) unsettled() map[message.ID]*letter {
	all := map[message.ID]*letter{}
	for _, h := range w.histories {
		for id, l := range h.base.clone().letters {
			if !l.settled() {
				all[id] = l
			}
		}
	}
	return all
}

// lateRecovery is a recovery that runs beside the operations of a life.
type lateRecovery struct {
	*Recovery
	want  map[message.ID]*letter
	free  map[message.ID]bool // found already, or parked: operations may begin
	mu    sync.Mutex          // of free
	ended chan error
}

// recover recovers: whole, in part, or beside what comes after it.
func (w *world) recover() {
	want := w.unsettled()
	r := &lateRecovery{want: want, free: map[message.ID]bool{}, ended: make(chan error, 1)}
	for id, l := range want {
		if slices.Contains(l.parked, true) {
			r.free[id] = true
		}
	}
	stop := 1 << 30
	switch w.rng.IntN(6) {
	case 0:
		return // none at all
	case 1:
		stop = w.rng.IntN(1 + len(want))
	case 2, 3: // beside
		r.Recovery, w.recovery = w.spool.NewRecovery(), r
		go func() { r.ended <- r.Run(w.checkFound(r)) }()
		return
	}
	check := w.checkFound(r)
	go func() {
		r.ended <- w.spool.Recover(func(m *message.Message, parked bool) error {
			if stop--; stop < 0 {
				return errEnough
			}
			return check(m, parked)
		})
	}()
	var err error
	select {
	case err = <-r.ended:
	case <-w.fatal: // it stands still
		return
	}
	switch {
	case errors.Is(err, errEnough):
		w.note("recovery was ended by its caller")
	case err != nil:
		w.note("recovery: %v", err)
		if !w.excused(err) {
			w.t.Errorf("life %d: recovery: %v", w.life, err)
		}
	default:
		w.note("recovered %d messages", len(r.want))
		w.recoveredAll(r)
		w.collected = true
		w.countRecords()
	}
}

// checkFound judges the messages that a recovery shows. The function belongs to the goroutine of the recovery.
func (w *world) checkFound(r *lateRecovery) func(*message.Message, bool) error {
	var last message.ID
	found := 0
	return func(m *message.Message, parked bool) error {
		l := r.want[m.ID]
		switch {
		case l == nil:
			w.t.Errorf("life %d: recovery shows %v, which is none, or was shown", w.life, m.ID)
			return nil
		case slices.Contains(l.parked, true) != parked:
			w.t.Errorf("life %d: recovery says of %v that it is parked: %v", w.life, m.ID, parked)
		case l.differs(m) != "":
			w.t.Errorf("life %d: recovery shows %v: %s", w.life, m.ID, l.differs(m))
		case m.ID <= last && shardOf(m.ID, w.spool.Shards()) == shardOf(last, w.spool.Shards()):
			w.t.Errorf("life %d: recovery shows %v after %v", w.life, m.ID, last)
		}
		last = m.ID
		found++
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.want, m.ID)
		r.free[m.ID] = true
		return nil
	}
}

// recoveredAll says what a recovery that came to its end has not shown.
func (w *world) recoveredAll(r *lateRecovery) {
	for id := range r.want {
		w.t.Errorf("life %d: recovery has not shown %v", w.life, id)
	}
}

// stopRecovery waits for the end of a recovery that is under way, or makes it.
func (w *world) stopRecovery() {
	r := w.recovery
	if r == nil {
		return
	}
	w.recovery = nil
	if w.rng.IntN(3) == 0 {
		r.Stop()
	}
	select {
	case err := <-r.ended:
		switch {
		case err == nil:
			w.recoveredAll(r)
		case !errors.Is(err, ErrStopped) && !w.excused(err):
			w.t.Errorf("life %d: recovery: %v", w.life, err)
		}
	case <-w.fatal:
	}
}

// countRecords holds the records that are there against those that the model has.
func (w *world) countRecords() {
	got, want := map[byte]int{}, map[byte]int{}
	for i, sh := range w.spool.shards {
		for k, n := range w.histories[i].now.records() {
			want[k] += n
		}
		for _, k := range []byte{kindChunk, kindDue, kindEnvelope, kindClaim, kindRecipient, kindCorrupt} {
			it, err := iterate(sh.db, k)
			if err != nil {
				w.t.Fatal(err)
			}
			for it.First(); it.Valid(); it.Next() {
				got[k]++
			}
			if err := it.Close(); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	for _, n := range w.loose {
		want[kindChunk] += n
	}
	if !maps.Equal(got, want) {
		w.t.Errorf("life %d: records by kind: %v, should be %v", w.life, got, want)
	}
}
