package spool

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"mailrace/proto/message"
)

// batchBytes is where a batch is cut: what waits beyond it goes into the next. A batch is one record of the WAL, in memory while it is
// written; it grows beyond this by one Op at most.
const batchBytes = 4 << 20

// run is the committer: the only goroutine that writes to the store. It takes whatever has gathered while it was busy, so batches grow
// with the load and with the time that a sync takes, and a lone message is synced at once.
func (sh *Shard) run() {
	defer sh.running.Done()
	for {
		list := sh.take()
		if list == nil {
			return
		}
		for list != nil {
			list = sh.commit(list)
		}
	}
}

// commit writes as much of list as one batch takes, syncs it if any of it must be durable, and completes it. It returns the rest of list.
//
// The steps: encode every Op into the batch, in order; let the chunks go that it copied; write the batch to the WAL and the memtable; wait
// for the sync; complete. Nothing of a batch completes unless all of it was written.
func (sh *Shard) commit(list *Op) (rest *Op) {
	durable := false
	n := 0
	last := list
	for op := list; op != nil && sh.batch.Len() < batchBytes; op = op.next {
		if err := sh.encode(op); err != nil {
			sh.spool.fail(fmt.Errorf("shard %d: encoding a batch: %w", sh.index, err))
		}
		durable = durable || op.durable()
		last = op
		n++
	}
	rest, last.next = last.next, nil
	sh.apply(durable && sh.spool.options.Sync)
	sh.batches.Add(1)
	sh.ops.Add(uint64(n))
	sh.complete(list, &sh.posts)
	return rest
}

// apply commits the batch and empties it. An error ends the goroutine: Pebble calls Fatalf for those it expects, and panics over others.
func (sh *Shard) apply(sync bool) {
	defer func() {
		if r := recover(); r != nil {
			sh.spool.fail(fmt.Errorf("shard %d: committing a batch: %v", sh.index, r))
		}
	}()
	sh.bytes.Add(uint64(sh.batch.Len()))
	mode := pebble.NoSync
	if sync {
		mode = pebble.Sync
		sh.syncs.Add(1)
	}
	if err := sh.db.Apply(sh.batch, mode); err != nil {
		sh.spool.fail(fmt.Errorf("shard %d: committing a batch: %w", sh.index, err))
	}
	sh.batch.Reset()
}

// encode adds an Op to the batch. Errors are of a batch that cannot be built at all.
func (sh *Shard) encode(op *Op) error {
	if c := &op.Chunk; c.Data != nil {
		if err := sh.setChunk(c.ID, c.Index, c.Data.B); err != nil {
			return err
		}
		c.Data.Free()
		c.Data = nil
	}
	if op.Append != nil {
		if err := sh.append(op.Append); err != nil {
			return err
		}
	}
	for i := range op.Updates {
		u := &op.Updates[i]
		d := sh.batch.SetDeferred(indexKeyLen, updateSize(u))
		putIndexKey(d.Key, kindRecipient, u.ID, u.Index)
		appendUpdate(d.Value[:0], u)
		if err := d.Finish(); err != nil {
			return err
		}
	}
	if err := encodeAbort(sh.batch, op.Abort); err != nil {
		return err
	}
	return encodeRemoval(sh.batch, op.Remove)
}

// append adds what is not stored yet of a message, the envelope last: a message exists when its envelope does.
func (sh *Shard) append(m *message.Message) error {
	for i, c := range m.Body[m.Stored:] {
		if err := sh.setChunk(m.ID, m.Stored+i+1, c.B); err != nil {
			return err
		}
	}
	sh.stored.Add(1)
	d := sh.batch.SetDeferred(idKeyLen, envelopeSize(m))
	putKey(d.Key, kindEnvelope, m.ID)
	appendEnvelope(d.Value[:0], m)
	return d.Finish()
}

func (sh *Shard) setChunk(id message.ID, index int, content []byte) error {
	d := sh.batch.SetDeferred(indexKeyLen, len(content))
	putIndexKey(d.Key, kindChunk, id, index)
	copy(d.Value, content)
	return d.Finish()
}

// encodeRemoval adds the removal of a message with all its records to a batch.
func encodeRemoval(b *pebble.Batch, r Removal) error {
	if r.ID == 0 {
		return nil
	}
	d := b.SingleDeleteDeferred(idKeyLen)
	putKey(d.Key, kindEnvelope, r.ID)
	if err := d.Finish(); err != nil {
		return err
	}
	for i := range r.Recipients {
		d := b.DeleteDeferred(indexKeyLen)
		putIndexKey(d.Key, kindRecipient, r.ID, i)
		if err := d.Finish(); err != nil {
			return err
		}
	}
	return encodeAbort(b, r)
}

// encodeAbort adds the removal of a message's chunks to a batch.
func encodeAbort(b *pebble.Batch, r Removal) error {
	for i := range r.Chunks {
		d := b.SingleDeleteDeferred(indexKeyLen)
		putIndexKey(d.Key, kindChunk, r.ID, i+1)
		if err := d.Finish(); err != nil {
			return err
		}
	}
	return nil
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
