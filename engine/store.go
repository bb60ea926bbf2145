package engine

import (
	"errors"
	"math"
	"sync/atomic"
	"time"

	"mailrace/proto/message"
	"mailrace/spool"
)

// nullPath is the spool path that keeps nothing.
const nullPath = "null:"

// store is where the node keeps messages: the spool, or nothing at all where the ceiling of everything else is measured.
type store interface {
	// Wait returns when the store is open, or cannot be. Before that IDs can be minted and operations enqueued, which wait; all other methods wait too.
	Wait() error
	// NewID mints an ID on the home shard of a loop.
	NewID(loop int) message.ID
	// NewIDBeside mints an ID on the shard that keeps another message, so that one operation can hold both.
	NewIDBeside(id message.ID) message.ID
	Enqueue(shard int, op *spool.Op)
	// NewRecovery begins to read back what is kept.
	NewRecovery() recovery
	// Marker returns a marker of deliveries in flight, for one loop; nil = nobody wants to know of them.
	Marker() *spool.Marker
	// Resolve tells what was in flight when the last process ended, see spool.Spool.
	Resolve(fn func(m *message.Message, f spool.Flight), noted func()) error
	// Due reads a page of the index of a shard, and Read messages that it has, see spool.Shard.
	Due(shard int, after spool.Due, limit int) ([]spool.Due, error)
	Read(shard int, ids []message.ID) ([]*message.Message, error)
	// Claims calls fn with each idempotency key that is kept, once.
	Claims(fn func(spool.Claim) error) error
	// Expire drops the keys that expire before a moment, in Unix nanoseconds.
	Expire(before int64)
	Load(id message.ID, first, n int, b *message.Budget) ([]*message.Chunk, error)
	Scan(fn func(*message.Message) bool) error
	// Full says that there is too little room on the disk to let mail in.
	Full() bool
	// Keeps says whether content may leave memory before it is delivered.
	Keeps() bool
	// Hurry makes Wait return soon, with an error where the store waits for room on the disk. Close is to follow.
	Hurry()
	Close() error
}

// recovery reads back what a store keeps, see spool.Recovery.
type recovery interface {
	Run(fn func(m *message.Message, parked bool) error) error
	Stop()
}

// shards is the spool as a store.
type shards struct {
	*spool.Spool
	pager *pager
}

func (s shards) NewID(loop int) message.ID            { return s.Shard(loop % s.Shards()).NewID() }
func (s shards) NewIDBeside(id message.ID) message.ID { return s.ShardOf(id).NewID() }
func (s shards) Keeps() bool                          { return true }
func (s shards) NewRecovery() recovery                { return s.Spool.NewRecovery() }

// Enqueue finds room for new mail first. That of our own may come with notes of another message: it is seen to when it is there.
func (s shards) Enqueue(shard int, op *spool.Op) {
	if op.Append != nil && !ofOurs(op) {
		s.pager.place(op)
	}
	s.Shard(shard % s.Shards()).Enqueue(op)
}

// ofOurs says that op appends a message that this node itself brings in.
func ofOurs(op *spool.Op) bool {
	_, own := op.Done.(composed)
	return own
}

func (s shards) Due(shard int, after spool.Due, limit int) ([]spool.Due, error) {
	return s.Shard(shard).Due(nil, after, math.MaxInt64, limit)
}

func (s shards) Read(shard int, ids []message.ID) ([]*message.Message, error) {
	return s.Shard(shard).Read(nil, ids)
}

// nothing is a store that forgets: every operation completes at once. It breaks every promise, is there to measure what the spool costs,
// and says so at start.
type nothing struct {
	now  func() time.Time
	last atomic.Uint64
}

func newNothing(n *Node) *nothing {
	n.log.Warn(`[spool] path = "null:" keeps nothing: mail that was answered with 250 is lost when this process ends. Only for measuring`)
	return &nothing{now: n.clock.Now}
}

func (s *nothing) NewID(int) message.ID {
	for {
		last := s.last.Load()
		id := message.NextID(message.ID(last), s.now(), 0)
		if s.last.CompareAndSwap(last, uint64(id)) {
			return id
		}
	}
}

func (s *nothing) NewIDBeside(message.ID) message.ID { return s.NewID(0) }

// Enqueue completes the operation on the caller's loop, before it returns.
func (s *nothing) Enqueue(_ int, op *spool.Op) { complete(op) }

func (s *nothing) Resolve(func(*message.Message, spool.Flight), func()) error { return nil }

func (s *nothing) Wait() error                                        { return nil }
func (s *nothing) Marker() *spool.Marker                              { return nil }
func (s *nothing) Claims(func(spool.Claim) error) error               { return nil }
func (s *nothing) Expire(int64)                                       {}
func (s *nothing) NewRecovery() recovery                              { return s }
func (s *nothing) Stop()                                              {}
func (s *nothing) Run(func(*message.Message, bool) error) error       { return nil }
func (s *nothing) Due(int, spool.Due, int) ([]spool.Due, error)       { return nil, nil }
func (s *nothing) Read(int, []message.ID) ([]*message.Message, error) { return nil, nil }
func (s *nothing) Scan(func(*message.Message) bool) error             { return nil }
func (s *nothing) Full() bool                                         { return false }
func (s *nothing) Keeps() bool                                        { return false }
func (s *nothing) Hurry()                                             {}
func (s *nothing) Close() error                                       { return nil }

func (s *nothing) Load(message.ID, int, int, *message.Budget) ([]*message.Chunk, error) {
	return nil, errors.New("this node keeps nothing")
}

// completer is what Op.Done holds where somebody waits.
type completer interface{ Completed(*spool.Op) }

// complete tells the owner of an operation, on the loop of its Origin.
func complete(op *spool.Op) {
	if op.Origin < 0 {
		op.Free()
		return
	}
	op.Done.(completer).Completed(op)
}

// completions is a batch of operations on its way back to their loop.
type completions []*spool.Op

// Run completes them in order.
func (c completions) Run() {
	for _, op := range c {
		complete(op)
	}
}
