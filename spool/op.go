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
	// Append stores a message: its envelope, its trace header, and the last Chunks-Stored chunks of its Body, as the chunks Stored+1 to
	// Chunks. Those before have gone ahead; whether they still are in Body is the caller's choice. The body must be held (Hold) until
	// completion. Recipients are pending at first: their states are for Updates. A message exists from the sync of its Append on.
	Append *message.Message

	// Claim notes to which idempotency key the message of Append belongs. Its ID is that message's, whatever stands here.
	Claim Claim

	// Expire drops the claims of the shard that expire before: Unix nanoseconds, 0 = none. Such an Op belongs to whatever shard it is
	// enqueued on, if it has no other part.
	Expire int64

	// Chunk stores one chunk of a message ahead of its Append. It is not synced, and gone after a crash unless the Append was.
	Chunk Chunk

	// Abort drops the chunks stored ahead for a message that will never be appended.
	Abort Removal

	// Remove drops a message with all its records.
	Remove Removal

	// Park puts the message into the due index: until it is due, or a little later, nobody needs to have it in memory. At least one of
	// the Updates of this Op, or of the one that parked it first, must say Parked. The entry can be read when Options.Indexed is told of it.
	Park Due

	// Unpark drops an entry of the index: with the Op that parks its message anew, or removes it. It is dropped before others are put in.
	Unpark Due

	// Updates note how far recipients are. Latest wins.
	Updates []Update

	// Marks are those of deliveries of which this Op notes what became of them. They are taken away when that is durable.
	Marks []Mark

	// Origin is the number of the event loop to post the completion to, or negative when nobody waits for it.
	Origin int

	// Done belongs to the caller: what to do when the Op completes. Pointers are carried without an allocation.
	Done any

	// Err is why nothing of the Op was done. It is only read at completion. A failure to write is never reported here: it is fatal.
	Err error

	next *Op
}

// Chunk is a piece of content on its way to the spool.
type Chunk struct {
	ID    message.ID
	Index int // from 1
	Data  *message.Chunk

	// Keep leaves Data to the caller, to be delivered from memory; it must not be changed or freed before completion. Otherwise the spool
	// frees Data as soon as it has copied it.
	Keep bool
}

// release frees the data unless it is the caller's.
func (c *Chunk) release() {
	if c.Data != nil && !c.Keep {
		c.Data.Free()
	}
	c.Data = nil
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
	Late     bool   // its deadline passed and was reported
	Parked   bool   // the message has an entry in the due index, by this Op or an earlier one
	Noticed  uint8  // delays that were reported
	Doubt    *message.Doubt
}

var opPool = sync.Pool{New: func() any { return new(Op) }}

// NewOp returns an empty Op, with room in Updates from an earlier use. Any goroutine.
func NewOp() *Op { return opPool.Get().(*Op) }

// Free gives a completed Op back. Any goroutine; the caller must not touch it again.
func (op *Op) Free() {
	clear(op.Updates)
	*op = Op{Updates: op.Updates[:0], Marks: op.Marks[:0]}
	opPool.Put(op)
}

// durable says that the Op must be synced before it completes.
func (op *Op) durable() bool { return op.Append != nil }

// urgent says that the Op must not wait for company: somebody waits for it, or it holds memory.
func (op *Op) urgent() bool { return op.Append != nil || op.Chunk.Data != nil }

// size is about the number of bytes that the Op adds to a batch.
func (op *Op) size() int {
	n := 64 * (1 + len(op.Updates))
	if op.Chunk.Data != nil {
		n += len(op.Chunk.Data.B)
	}
	if m := op.Append; m != nil {
		n += len(m.Trace) + 64*len(m.Recipients)
		for _, c := range unstored(m) {
			n += len(c.B)
		}
	}
	return n
}

// unstored are the chunks of a message's body that its Append has to store.
func unstored(m *message.Message) []*message.Chunk {
	return m.Body[len(m.Body)-(m.Chunks-m.Stored):]
}

// id is the id of the message that the Op is about, or of one of them.
func (op *Op) id() message.ID {
	switch {
	case op.Append != nil:
		return op.Append.ID
	case op.Chunk.Data != nil:
		return op.Chunk.ID
	case op.Remove.ID != 0:
		return op.Remove.ID
	case len(op.Updates) > 0:
		return op.Updates[0].ID
	case op.Park.ID != 0:
		return op.Park.ID
	case op.Unpark.ID != 0:
		return op.Unpark.ID
	}
	return op.Abort.ID
}
