// Package spool
package spool

import (
	"errors"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"mailrace/proto/message"
)

// ErrClosed completes Ops that were enqueued after Close began.
var ErrClosed = errors.New("spool is closed")

// Options say where the spool is and how it behaves.
type Options struct {
	Path   string // directory; made if it does not exist
	Shards int    // 1..message.MaxShards; 0 = as many as the spool has, or one per core for a new one

	// Sync makes an Append complete only after an fdatasync of the WAL. False is for benchmarks only: it breaks the promise of the 250.
	Sync bool

	FS            vfs.FS // nil = the operating system's
	MemTableBytes int    // of each shard; 0 = 128 MiB. Two to three of them exist at a time
	ReadOnly      bool   // only Recover, Scan and Load; nothing on disk is changed

	Log *slog.Logger // nil = slog.Default()

	// Post hands completed Ops to the event loop origin, once per origin and batch. It is called by a shard's goroutine and must not block;
	// the slice is the callee's to keep.
	Post func(origin int, done []*Op)

	// Fatal is told of a write that failed. Nothing completes after it. It must not return to normal operation: nil logs and exits with
	// status 2, and recovery at the next start is the repair.
	Fatal func(error)

	Now func() time.Time // nil = time.Now
}

// Spool is a set of shards. All methods may be called by any goroutine.
type Spool struct {
	shards []*Shard
}

// Open opens the spool at o.Path, or makes it. One process at a time can have it open.
func Open(o Options) (*Spool, error) { return nil, ErrClosed }

// Close commits what is enqueued, completes it, and closes the spool.
func (s *Spool) Close() error { return nil }

// Shards is the number of shards.
func (s *Spool) Shards() int { return len(s.shards) }

// Shard is the shard i, 0 <= i < Shards().
func (s *Spool) Shard(i int) *Shard { return s.shards[i] }

// ShardOf is the shard that keeps the message id.
func (s *Spool) ShardOf(id message.ID) *Shard { return s.shards[id.Shard()%len(s.shards)] }

// Recover calls fn with every committed message, its recipients in the state last noted, without trace and content, shard by shard in the
// order of ids. It must be called once, before the first Op of a message found by it. On the way it collects chunks without an envelope,
// removes messages whose recipients are all settled, and moves unreadable records aside (they are kept, counted and logged). An error of
// fn ends it and is returned.
func (s *Spool) Recover(fn func(*message.Message) error) error { return nil }

// Load reads n chunks of a message from firstChunk on, where chunk 0 is the trace header and 1 and up are the content, into memory
// of the budget. It blocks on the disk: call it on a worker. The chunks are the caller's to free.
func (s *Spool) Load(id message.ID, firstChunk, n int, b *message.Budget) ([]*message.Chunk, error) {
	return nil, nil
}

// Scan calls fn with every message of a consistent snapshot of each shard, as Recover does, but changes nothing, until fn returns false.
func (s *Spool) Scan(fn func(*message.Message) bool) error { return nil }

// Shard is one Pebble store with its committer. All methods may be called by any goroutine.
type Shard struct{}

// NewID returns an id above all that this shard knows of.
func (sh *Shard) NewID() message.ID { return 0 }

// Enqueue hands an Op to the committer. It never waits for the disk. Ops of one goroutine are applied in the order in which it enqueued
// them.
func (sh *Shard) Enqueue(op *Op) {}
