package spool

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"mailrace/proto/message"
)

// damage is the messages of a shard that were found to be unreadable while they were served. They are not removed, whatever is told to their
// sender: an operator may want what is left.
type damage struct {
	count atomic.Int32 // of ids: nearly always 0, which is all that the committer looks at
	mu    sync.Mutex
	ids   map[message.ID]struct{}
}

// judge says whether an error of a read means that the message is damaged, and notes it then. An error of the disk may pass; a message without
// envelope has been removed.
func (sh *Shard) judge(id message.ID, err error) error {
	switch {
	case errors.Is(err, errRecord), errors.Is(err, pebble.ErrCorruption):
	case errors.Is(err, ErrNoMessage) && sh.exists(id):
	default:
		return err
	}
	d := &sh.damage
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.ids[id]; !known && !sh.spool.options.ReadOnly {
		if d.ids == nil {
			d.ids = map[message.ID]struct{}{}
		}
		d.ids[id] = struct{}{}
		d.count.Add(1)
		sh.damaged.Inc()
		sh.log.Error("spool: a message is damaged; what is left of it will be kept", "id", id, "error", err)
	}
	return fmt.Errorf("%w: %w", ErrUnreadable, err)
}

// exists says whether a message has an envelope record, whatever is in it.
func (sh *Shard) exists(id message.ID) bool {
	var key [idKeyLen]byte
	putKey(key[:], kindEnvelope, id)
	_, closer, err := sh.db.Get(key[:])
	if err == nil {
		_ = closer.Close()
	}
	return !errors.Is(err, pebble.ErrNotFound)
}

// takeDamaged takes the removals of damaged messages out of the Ops of a batch, up to last.
func (sh *Shard) takeDamaged(list, last *Op) (removals []Removal) {
	d := &sh.damage
	d.mu.Lock()
	defer d.mu.Unlock()
	for op := list; ; op = op.next {
		if _, damaged := d.ids[op.Remove.ID]; damaged {
			removals = append(removals, op.Remove)
			delete(d.ids, op.Remove.ID)
			d.count.Add(-1)
			op.Remove = Removal{}
		}
		if op == last {
			return removals
		}
	}
}

// moveAside puts into a batch what moves the records of a message under kindCorrupt. Those that cannot be read stay where they are.
func (sh *Shard) moveAside(b *pebble.Batch, r Removal) error {
	var buf [indexKeyLen]byte
	putKey(buf[:], kindEnvelope, r.ID)
	errs := []error{sh.moveRecord(b, buf[:idKeyLen])}
	for i := range r.Chunks {
		putIndexKey(buf[:], kindChunk, r.ID, i+1)
		errs = append(errs, sh.moveRecord(b, buf[:]))
	}
	for i := range r.Recipients {
		putIndexKey(buf[:], kindRecipient, r.ID, i)
		errs = append(errs, sh.moveRecord(b, buf[:]))
	}
	return errors.Join(errs...)
}

func (sh *Shard) moveRecord(b *pebble.Batch, key []byte) error {
	value, closer, err := sh.db.Get(key)
	if err != nil {
		if !errors.Is(err, pebble.ErrNotFound) {
			sh.log.Error("spool: a record of a damaged message stays where it is", "key", fmt.Sprintf("%x", key), "error", err)
		}
		return nil
	}
	defer func() { _ = closer.Close() }()
	sh.corrupt.Inc()
	return errors.Join(b.Set(append([]byte{kindCorrupt}, key...), value, nil), b.Delete(key, nil))
}
