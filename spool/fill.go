package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"mailrace/proto/message"
)

const (
	// fillBytes is how much is held in memory, for all shards together, of what is filled without a WAL, before it is flushed.
	fillBytes = 64 << 20
	// fillBatchBytes is the most of a batch of such a store.
	fillBatchBytes = 256 << 10
)

// fillers fill the shards of a new spool, which have no WAL, in the order of keys.
type fillers []*filler

// filler fills one shard.
type filler struct {
	sh      *Shard
	last    []byte // up to this key, records are in the shard since before
	batch   *pebble.Batch
	limit   int // bytes between flushes
	pending int // bytes since the last
	flushed <-chan struct{}
}

// newFillers makes a filler for each shard of s, and says from which key on one of them lacks records; nil = from the first.
func newFillers(s *Spool) (fs fillers, from []byte, err error) {
	for i, sh := range s.shards {
		f := &filler{sh: sh, batch: sh.db.NewBatch(), limit: max(fillBytes/len(s.shards), fillBatchBytes)}
		it, err := sh.db.NewIter(nil)
		if err != nil {
			return nil, nil, err
		}
		if it.Last() {
			f.last = bytes.Clone(it.Key())
		}
		if err := errors.Join(it.Error(), it.Close()); err != nil {
			return nil, nil, fmt.Errorf("shard %d: %w", i, err)
		}
		if i == 0 || bytes.Compare(f.last, from) < 0 {
			from = f.last
		}
		fs = append(fs, f)
	}
	return fs, from, nil
}

// of is the filler of the shard that a record belongs to; it stands on the record.
func (fs fillers) of(key []byte, it *pebble.Iterator) (*filler, error) {
	k := kindOf(key)
	if k < 0 {
		return nil, fmt.Errorf("record %x is of a kind that this program does not know", key)
	}
	var value []byte
	if kinds[k].valued {
		var err error
		if value, err = valueOf(it); err != nil {
			return nil, err
		}
	}
	return fs[shardOf(ownerOf(key, value), len(fs))], nil
}

// mark puts a mark into every shard.
func (fs fillers) mark(ctx context.Context, id message.ID) error {
	key, value := []byte{kindMark}, appendMark(nil, id)
	for _, f := range fs {
		if f.has(key) {
			continue
		}
		if err := f.set(ctx, key, value); err != nil {
			return err
		}
	}
	return nil
}

// has says that a record is in the shard since before.
func (f *filler) has(key []byte) bool { return f.last != nil && bytes.Compare(key, f.last) <= 0 }

// set writes a record, whose key is above all before.
func (f *filler) set(ctx context.Context, key, value []byte) error {
	if err := f.batch.Set(key, value, nil); err != nil {
		return err
	}
	if f.batch.Len() < fillBatchBytes {
		return nil
	}
	f.pending += f.batch.Len()
	if err := f.apply(); err != nil || f.pending < f.limit {
		return err
	}
	return f.flush(ctx)
}

// apply writes the batch to the memtable.
func (f *filler) apply() error {
	if f.batch.Empty() {
		return nil
	}
	if err := f.sh.db.Apply(f.batch, pebble.NoSync); err != nil {
		return fmt.Errorf("shard %d: %w", f.sh.index, err)
	}
	f.batch.Reset()
	return nil
}

// flush begins to make durable what was written, and waits for the flush before that.
func (f *filler) flush(ctx context.Context) error {
	if err := f.wait(ctx); err != nil {
		return err
	}
	f.pending = 0
	var err error
	f.flushed, err = f.sh.db.AsyncFlush()
	return err
}

// wait waits for the flush that is under way.
func (f *filler) wait(ctx context.Context) error {
	if f.flushed == nil {
		return nil
	}
	select {
	case <-f.flushed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// finish makes everything durable.
func (fs fillers) finish(ctx context.Context) error {
	for _, f := range fs {
		if err := errors.Join(f.apply(), f.flush(ctx)); err != nil {
			return err
		}
	}
	for _, f := range fs {
		if err := errors.Join(f.wait(ctx), f.batch.Close()); err != nil {
			return err
		}
	}
	return nil
}
