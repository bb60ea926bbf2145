package spool

import (
	"errors"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"mailrace/proto/message"
)

// ErrNoMessage is Load's answer to a message, or a chunk of one, that the spool does not have.
var ErrNoMessage = errors.New("not in the spool")

// ErrUnreadable is Load's answer to a message of which something is missing or cannot be read. No other try will do better. When the message is
// removed, what is left of it is moved aside and kept.
var ErrUnreadable = errors.New("damaged in the spool")

// Load reads n chunks of a message from firstChunk on, where chunk 0 is the trace header and 1 and up are the content, into memory
// of the budget. It blocks on the disk: call it on a worker. The chunks are the caller's to free.
func (s *Spool) Load(id message.ID, firstChunk, n int, b *message.Budget) (chunks []*message.Chunk, err error) {
	if err := s.Wait(); err != nil {
		return nil, err
	}
	sh := s.ShardOf(id)
	chunks = make([]*message.Chunk, 0, n)
	for i := firstChunk; i < firstChunk+n; i++ {
		c, err := sh.loadChunk(id, i, b)
		if err != nil {
			message.FreeAll(chunks)
			err = sh.judge(id, err)
			return nil, fmt.Errorf("spool: message %v, chunk %d: %w", id, i, err)
		}
		chunks = append(chunks, c)
	}
	return chunks, nil
}

// loadChunk reads one chunk.
func (sh *Shard) loadChunk(id message.ID, index int, b *message.Budget) (*message.Chunk, error) {
	var buf [indexKeyLen]byte
	key := buf[:idKeyLen]
	if index == 0 {
		putKey(key, kindEnvelope, id)
	} else {
		key = buf[:]
		putIndexKey(key, kindChunk, id, index)
	}
	value, closer, err := sh.get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, ErrNoMessage
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = closer.Close() }()
	if index == 0 {
		if value, err = envelopeTrace(value); err != nil {
			return nil, err
		}
	}
	if len(value) > message.ChunkSize {
		return nil, fmt.Errorf("%w: chunk of %d octets", errRecord, len(value))
	}
	c := b.NewChunk(len(value))
	c.B = append(c.B, value...)
	return c, nil
}

// errEnough ends a walk early.
var errEnough = errors.New("enough")

// Scan calls fn with every message of a consistent snapshot of each shard, as Recover does but without changing anything, until fn returns
// false. Settled messages that are not removed yet are left out.
func (s *Spool) Scan(fn func(*message.Message) bool) error {
	if err := s.Wait(); err != nil {
		return err
	}
	for _, sh := range s.shards {
		err := sh.scan(fn)
		if errors.Is(err, errEnough) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("scanning shard %d of %s: %w", sh.index, s.options.Path, err)
		}
	}
	return nil
}

func (sh *Shard) scan(fn func(*message.Message) bool) (err error) {
	snapshot := sh.db.NewSnapshot()
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	return sh.visitUnsettled(snapshot, math.MaxUint64, func(m *message.Message, _ bool) error {
		if !fn(m) {
			return errEnough
		}
		return nil
	})
}
