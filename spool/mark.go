package spool

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"mailrace/proto/message"
)

// The mark of a shard is above every id that was removed from it. It goes with the batch that removes, so that a crash takes back both or
// neither; ids that are still there need no mark. With it no id comes twice, even if the shard is empty and the clock went back.

const (
	markVersion = 1
	markSize    = recordHeader + 8

	// markAhead is how far the mark runs ahead, 100 ms of ids: so it is written ten times a second at most. A shard that is opened sooner
	// than that mints ids a moment ahead of the clock.
	markAhead = 100 << (14 + 8)
)

// appendMark appends the record of a mark to dst.
func appendMark(dst []byte, id message.ID) []byte {
	start := len(dst)
	dst = append(dst, markVersion, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(id))
	seal(dst[start:])
	return dst
}

// decodeMark reads the record of a mark.
func decodeMark(b []byte) (message.ID, error) {
	r, err := open(b, markVersion)
	if err != nil {
		return 0, fmt.Errorf("mark: %w", err)
	}
	id := message.ID(r.uint64())
	if err := r.end(); err != nil {
		return 0, fmt.Errorf("mark: %w", err)
	}
	return id, nil
}

// setMark adds the mark to a batch that removes messages up to id, if it is not above them yet. The committer's, or before it runs.
func (sh *Shard) setMark(b *pebble.Batch, id message.ID) error {
	if id <= sh.marked {
		return nil
	}
	sh.marked = id + markAhead
	d := b.SetDeferred(1, markSize)
	d.Key[0] = kindMark
	appendMark(d.Value[:0], sh.marked)
	return d.Finish()
}

// findMark raises found to the mark. One that cannot be read is left to be written over.
func (sh *Shard) findMark() error {
	value, closer, err := sh.db.Get([]byte{kindMark})
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	id, err := decodeMark(value)
	if err != nil {
		sh.corrupt.Inc()
		sh.log.Error("spool: record cannot be read", "key", "6e", "error", err)
	}
	sh.marked = id
	sh.found = max(sh.found, id)
	return closer.Close()
}

// removes is the newest message of which an Op drops records.
func (op *Op) removes() message.ID { return max(op.Remove.ID, op.Abort.ID) }
