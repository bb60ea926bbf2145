package spool

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"mailrace/proto/message"
)

// Recover calls fn with every committed message, its recipients in the state last noted, without trace and content, shard by shard in the
// order of ids, and says whether it is parked: whether the due index leads to it. Of those it is enough to read the index (Shard.Due). On the way it collects what belongs to no message, removes messages whose recipients are all settled, and moves unreadable
// records aside: they are kept, with the content they name, counted and logged. An error of fn ends it and is returned. A crash in the
// middle does no harm: the next Recover finds the same messages.
//
// Call it once. Mail that came in since Open is left alone, so intake need not wait for it; Ops on a message that it finds may begin as soon
// as fn has it, and on a parked one before. fn may take its time: nothing but the space of what is removed meanwhile waits for it.
func (s *Spool) Recover(fn func(m *message.Message, parked bool) error) error {
	return s.NewRecovery().Run(fn)
}

// ErrStopped is Run's answer when the recovery was stopped.
var ErrStopped = errors.New("recovery was stopped")

// Recovery is a Recover whose moment, at which it sees the spool, is that of NewRecovery. Run must follow.
type Recovery struct {
	spool     *Spool
	snapshots []*pebble.Snapshot // by shard
	failed    error              // why there are none
	stopped   atomic.Bool
}

// NewRecovery begins a recovery, which is done by Run.
func (s *Spool) NewRecovery() *Recovery {
	r := &Recovery{spool: s}
	if r.failed = s.Wait(); r.failed != nil {
		return r
	}
	for _, sh := range s.shards {
		r.snapshots = append(r.snapshots, sh.db.NewSnapshot())
	}
	return r
}

// Run does what Recover does, once. It reads no faster than fn returns.
func (r *Recovery) Run(fn func(m *message.Message, parked bool) error) (err error) {
	if r.failed != nil {
		return r.failed
	}
	for i, sh := range r.spool.shards {
		if err == nil {
			if err = sh.recover(r, r.snapshots[i], fn); err != nil {
				err = fmt.Errorf("recovering shard %d of %s: %w", sh.index, r.spool.options.Path, err)
			}
		}
		err = errors.Join(err, r.snapshots[i].Close())
	}
	return err
}

// Stop makes Run end soon, with ErrStopped unless it has ended. Any goroutine.
func (r *Recovery) Stop() { r.stopped.Store(true) }

func (sh *Shard) recover(of *Recovery, snapshot *pebble.Snapshot, fn func(*message.Message, bool) error) (err error) {
	if sh.spool.options.ReadOnly {
		return sh.visitUnsettled(snapshot, sh.found, fn)
	}
	if err := sh.countAside(snapshot); err != nil {
		return err
	}
	r := &repair{sh: sh, batch: sh.db.NewBatch(), stopped: &of.stopped}
	defer func() { err = errors.Join(err, r.batch.Close()) }()
	indexed := 0
	visit := func(m *message.Message, parked bool) error {
		if r.stopped.Load() {
			return ErrStopped
		}
		if parked {
			indexed++
		}
		if settled(m) {
			return r.remove(m)
		}
		return fn(m, parked)
	}
	if err := walk(snapshot, sh.found, visit, r.moveAside); err != nil {
		return err
	}
	entries, err := r.countDue(snapshot)
	if err != nil {
		return fmt.Errorf("counting what is due: %w", err)
	}
	if entries != indexed {
		if err := sh.unindexed(snapshot, func(m *message.Message) error { return fn(m, false) }); err != nil {
			return fmt.Errorf("looking for messages that the index does not have: %w", err)
		}
	}
	for _, kind := range []byte{kindChunk, kindRecipient} {
		if err := r.collect(snapshot, kind); err != nil {
			return fmt.Errorf("collecting what belongs to no message: %w", err)
		}
	}
	return r.flush(1)
}

// visitUnsettled calls fn with every message up to last that has something left to do, and changes nothing.
func (sh *Shard) visitUnsettled(reader pebble.Reader, last message.ID, fn func(*message.Message, bool) error) error {
	visit := func(m *message.Message, parked bool) error {
		if settled(m) {
			return nil
		}
		return fn(m, parked)
	}
	return walk(reader, last, visit, sh.logUnreadable)
}

// countAside counts the records that earlier recoveries moved aside.
func (sh *Shard) countAside(reader pebble.Reader) error {
	return each(reader, kindCorrupt, func(*pebble.Iterator) error {
		sh.corrupt.Inc()
		return nil
	})
}

// settled says that nothing remains to be done for m.
func settled(m *message.Message) bool {
	for i := range m.Recipients {
		if !m.Recipients[i].State.Settled() {
			return false
		}
	}
	return true
}

// walk calls visit with every message up to the id last that reader shows, in the order of ids, settled ones too. It calls unreadable with an iterator that
// stands on a record which cannot be decoded; a recipient with such a record is pending as far as visit sees. Errors of visit, of
// unreadable and of the disk end the walk.
func walk(reader pebble.Reader, last message.ID, visit func(m *message.Message, parked bool) error, unreadable func(*pebble.Iterator, error) error) (err error) {
	envelopes, err := iterate(reader, kindEnvelope)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, envelopes.Close()) }()
	states, err := iterate(reader, kindRecipient)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, states.Close()) }()

	states.First()
	for envelopes.First(); envelopes.Valid() && recordID(envelopes.Key()) <= last; envelopes.Next() {
		value, err := valueOf(envelopes)
		if err != nil {
			return err
		}
		m := new(message.Message)
		err = decodeEnvelope(value, m, false)
		if key := envelopes.Key(); err == nil && (len(key) != idKeyLen || recordID(key) != m.ID) {
			err = fmt.Errorf("envelope: %w: names message %v", errRecord, m.ID)
		}
		if err == nil {
			var parked bool
			if parked, err = readStates(states, m, unreadable); err == nil {
				err = visit(m, parked)
			}
		} else {
			err = unreadable(envelopes, err)
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(envelopes.Error(), states.Error())
}

// iterate returns an iterator over the records of a kind, unpositioned.
func iterate(reader pebble.Reader, kind ...byte) (*pebble.Iterator, error) {
	upper := append([]byte(nil), kind...)
	upper[len(upper)-1]++
	return reader.NewIter(&pebble.IterOptions{LowerBound: kind, UpperBound: upper})
}

// each calls fn with an iterator that stands on a record, for each of a kind, in the order of their keys. Errors of fn and of the disk end it.
func each(reader pebble.Reader, kind byte, fn func(*pebble.Iterator) error) (err error) {
	it, err := iterate(reader, kind)
	if err != nil {
		return err
	}
	defer closeAfter(it.Close, &err)
	for it.First(); it.Valid(); it.Next() {
		if err := fn(it); err != nil {
			return err
		}
	}
	return it.Error()
}

// closeAfter closes a walk, whose error is told again by its Close.
func closeAfter(closing func() error, err *error) {
	if e := closing(); *err == nil {
		*err = e
	}
}

// readStates moves states, which runs through the recipient records in step with the envelopes, behind those of m and notes them in m. It
// reports whether one of them says that m is parked.
func readStates(states *pebble.Iterator, m *message.Message, unreadable func(*pebble.Iterator, error) error) (parked bool, err error) {
	for ; states.Valid() && recordID(states.Key()) <= m.ID; states.Next() {
		key := states.Key()
		if recordID(key) < m.ID {
			continue // belongs to no message: Recover collects it
		}
		value, err := valueOf(states)
		if err != nil {
			return parked, err
		}
		u, err := decodeUpdate(value)
		if err == nil && (len(key) != indexKeyLen || u.ID != m.ID || u.Index != keyIndex(key) || u.Index >= len(m.Recipients)) {
			err = fmt.Errorf("recipient: %w: of message %v, index %d", errRecord, u.ID, u.Index)
		}
		if err != nil {
			if err := unreadable(states, err); err != nil {
				return parked, err
			}
			continue
		}
		rcpt := &m.Recipients[u.Index]
		rcpt.State, rcpt.Attempts, rcpt.Due, rcpt.Reply, rcpt.Late, rcpt.Noticed, rcpt.Doubt = u.State, u.Attempts, u.Due, u.Reply, u.Late, u.Noticed, u.Doubt
		parked = parked || u.Parked
	}
	return parked, nil
}

// logUnreadable is for walks that may not change anything.
func (sh *Shard) logUnreadable(it *pebble.Iterator, err error) error {
	sh.log.Error("spool: record cannot be read", "key", fmt.Sprintf("%x", it.Key()), "error", err)
	return nil
}

// repair gathers what a recovery puts right.
type repair struct {
	sh    *Shard
	batch *pebble.Batch

	stopped *atomic.Bool // nil = nobody can
}

// remove removes a message that has no recipient left to serve.
func (r *repair) remove(m *message.Message) error {
	removal := Removal{ID: m.ID, Chunks: m.Chunks, Recipients: len(m.Recipients)}
	if err := errors.Join(removeChunks(r.batch, removal), removeRecords(r.batch, removal)); err != nil {
		return err
	}
	return r.flush(batchBytes)
}

// moveAside keeps an unreadable record under kindCorrupt, and drops it where it stands.
func (r *repair) moveAside(it *pebble.Iterator, cause error) error {
	if err := r.sh.logUnreadable(it, cause); err != nil {
		return err
	}
	r.sh.corrupt.Inc()
	value, err := valueOf(it)
	if err != nil {
		return err
	}
	key := append([]byte{kindCorrupt}, it.Key()...)
	if err := r.batch.Set(key, value, nil); err != nil {
		return err
	}
	if err := r.batch.Delete(it.Key(), nil); err != nil {
		return err
	}
	return r.flush(batchBytes)
}

// collect drops every record of a kind whose message has no envelope, neither a good one nor one that was moved aside.
func (r *repair) collect(reader pebble.Reader, kind byte) (err error) {
	parts, err := iterate(reader, kind)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, parts.Close()) }()
	owners, err := iterate(reader, kindEnvelope)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, owners.Close()) }()
	aside, err := iterate(reader, kindCorrupt, kindEnvelope)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, aside.Close()) }()

	owners.First()
	aside.First()
	for parts.First(); parts.Valid() && recordID(parts.Key()) <= r.sh.found; parts.Next() {
		if r.stopped.Load() {
			return ErrStopped
		}
		id := recordID(parts.Key())
		for owners.Valid() && recordID(owners.Key()) < id {
			owners.Next()
		}
		for aside.Valid() && recordID(aside.Key()[1:]) < id {
			aside.Next()
		}
		if owners.Valid() && recordID(owners.Key()) == id || aside.Valid() && recordID(aside.Key()[1:]) == id {
			continue
		}
		r.sh.orphans.Inc()
		if err := r.batch.Delete(parts.Key(), nil); err != nil {
			return err
		}
		if err := r.flush(batchBytes); err != nil {
			return err
		}
	}
	return errors.Join(parts.Error(), owners.Error(), aside.Error())
}

// flush writes the batch when it has grown to limit bytes. Nothing needs a sync: what a crash takes back is found again.
func (r *repair) flush(limit int) error {
	if r.batch.Empty() || r.batch.Len() < limit {
		return nil
	}
	if err := r.sh.db.Apply(r.batch, pebble.NoSync); err != nil {
		return err
	}
	r.batch.Reset()
	return nil
}
