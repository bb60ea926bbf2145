package spool

import (
	"sync"

	"mailrace/proto/message"
)

// Op is one atomic change to a shard: all its parts become durable together, or none does. Parts left zero are absent; several may be
// combined, as when a DSN is appended and the message it is about is removed. All ids of an Op belong to the shard it is enqueued on.
//
// Ownership: from Enqueue to completion the Op, and everything it points to, belongs to the spool and must not be changed. It completes
// by way of Options.Post, and is the caller's again; with a negative Origin nobody is told, and the spool frees it itself. NewOp and Free
// spare the garbage collector the Ops.
type Op struct {
	// Append stores a message: its envelope, its trace header, and the chunks of its body from Stored on, as chunks Stored+1 and so on.
	// It sets Chunks to the number of chunks that the content has. The body must be held (Hold) until completion. A message exists from the
	// sync of its Append on.
	Append *message.Message

	// Chunk stores one chunk of a message ahead of its Append. It is not synced, and gone after a crash unless the Append was.
	Chunk Chunk

	// Abort drops the chunks stored ahead for a message that will never be appended.
	Abort Removal

	// Remove drops a message with all its records.
	Remove Removal

	// Updates note how far recipients are. Latest wins.
	Updates []Update

	// Origin is the number of the event loop to post the completion to, or negative when nobody waits for it.
	Origin int

	// Done belongs to the caller: what to do when the Op completes. Pointers are carried without an allocation.
	Done any

	// Err is why nothing of the Op was done. It is only read at completion. A failure to write is never reported here: it is fatal.
	Err error

	next *Op
}

// Chunk is a piece of content on its way to the spool. Data is freed by the spool as soon as it is written.
type Chunk struct {
	ID    message.ID
	Index int // from 1
	Data  *message.Chunk
}

// Removal names the records of a message.
type Removal struct {
	ID     message.ID
	Chunks int // content chunks: 1..Chunks are dropped

	// Recipients is the number of recipients of the message if an Update was ever enqueued for it, or 0.
	Recipients int
}

// Update is the state of the recipient at Index of the message's Recipients.
type Update struct {
	ID       message.ID
	Index    int
	State    message.State
	Attempts uint16
	Due      int64  // Unix nanoseconds
	Reply    string // at most 1 KiB is kept
}

var opPool = sync.Pool{New: func() any { return new(Op) }}

// NewOp returns an empty Op, with room in Updates from an earlier use. Any goroutine.
func NewOp() *Op { return opPool.Get().(*Op) }

// Free gives a completed Op back. Any goroutine; the caller must not touch it again.
func (op *Op) Free() {
	clear(op.Updates)
	*op = Op{Updates: op.Updates[:0]}
	opPool.Put(op)
}

// durable says that the Op must be synced before it completes.
func (op *Op) durable() bool { return op.Append != nil }

// urgent says that the Op must not wait for company: somebody waits for it, or it holds memory.
func (op *Op) urgent() bool { return op.Append != nil || op.Chunk.Data != nil }
