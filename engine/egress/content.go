package egress

import (
	"cmp"
	"iter"
	"slices"

	"mailrace/proto/message"
	"mailrace/proto/smtp"
	"mailrace/router"
)

// window is how many chunks of a message are read from the spool and written to the connection at a time: what one large message holds in
// memory, whatever its size.
const window = 4

// delivery is a transaction on its way over the connection.
type delivery struct {
	tx      *router.Transaction
	loaded  []*message.Chunk  // the window that was read from the spool; empty when the body is held in memory
	trace   *message.Chunk    // the trace header where it was read from the spool
	first   int               // number of the first chunk in loaded
	next    int               // number of the next chunk to send, from 1
	bol     bool              // the next octet begins a line
	chunked bool              // it goes by BDAT
	size    int64             // octets of content, with the trace header
	rcpts   []string          // the forward-paths of the envelope
	params  []smtp.RcptParams // of each of them, empty where no recipient has any
	places  []int             // where each of them stands in tx.Recipients
	refused bool              // MAIL was refused
	outcome router.Outcome    // why, if it was

	// rejected are the recipients that were refused. They are settled with the others, at the end of the transaction, so that the sender
	// gets one DSN for all.
	rejected []rejection
}

// rejection is a recipient that was refused, by its place in the transaction.
type rejection struct {
	place   int
	outcome *router.Outcome
}

// accepted are the places of the recipients that were not refused so far, in their order.
func (d *delivery) accepted() iter.Seq[int] {
	return func(yield func(int) bool) {
		slices.SortFunc(d.rejected, func(a, b rejection) int { return cmp.Compare(a.place, b.place) }) // by us first, then by the peer
		refused := d.rejected
		for place := range d.tx.Recipients {
			if len(refused) > 0 && refused[0].place == place {
				refused = refused[1:]
			} else if !yield(place) {
				return
			}
		}
	}
}

// settleRejected settles the recipients that were refused.
func (d *delivery) settleRejected() {
	for i, r := range d.rejected {
		d.tx.Settle(r.place, r.outcome)
		d.rejected[i].outcome = nil
	}
	d.rejected = d.rejected[:0]
}

// needsLoad says whether the chunk to be sent next must be read first.
func (d *delivery) needsLoad() bool {
	if d.tx.Held {
		return false
	}
	return d.next <= d.tx.Message.Chunks && d.next >= d.first+len(d.loaded)
}

// missing says what must be read before the next piece can be sent: n chunks from first on, with the trace header as the first of them, or not. n is 0 when
// all is at hand.
func (d *delivery) missing() (first, n int, withTrace bool) {
	m := d.tx.Message
	first = d.next
	if d.needsLoad() {
		n = min(window, m.Chunks-d.next+1)
	}
	if withTrace = m.Trace == nil && d.trace == nil; withTrace {
		first, n = first-1, n+1
	}
	return first, n, withTrace
}

// take takes what was missing.
func (d *delivery) take(cs []*message.Chunk, withTrace bool) {
	if withTrace {
		d.trace, cs = cs[0], cs[1:]
	}
	d.loaded, d.first = cs, d.next
}

// drop frees what was read and sent.
func (d *delivery) drop() {
	message.FreeAll(d.loaded)
	d.loaded = nil
}

// chunk returns the octets of chunk i, which must be at hand.
func (d *delivery) chunk(i int) []byte {
	if d.tx.Held {
		return d.tx.Message.Body[i-1].B
	}
	return d.loaded[i-d.first].B
}

// traceHeader returns our Received header.
func (d *delivery) traceHeader() []byte {
	if d.trace != nil {
		return d.trace.B
	}
	return d.tx.Message.Trace
}

// damaged is the outcome of a message whose content is lost.
func damaged() *router.Outcome {
	return &router.Outcome{Class: router.Bounced, Enhanced: "5.3.0", Text: "the message was damaged in the queue of this host, and cannot be delivered"}
}

// free gives back what was read from the spool.
func (d *delivery) free() {
	message.FreeAll(d.loaded)
	d.loaded = nil
	if d.trace != nil {
		d.trace.Free()
		d.trace = nil
	}
}

// append adds the next piece of content to iov, at most window chunks, and says whether that was the last. By DATA, content with leading
// dots is stuffed into scratch, which is returned.
func (d *delivery) append(iov [][]byte, scratch []byte) (_ [][]byte, _ []byte, done bool) {
	m := d.tx.Message
	if d.next == 1 {
		iov, d.bol = append(iov, d.traceHeader()), true
	}
	for range window {
		if d.next > m.Chunks || d.needsLoad() {
			break
		}
		p := d.chunk(d.next)
		if m.Flags&message.LeadingDots != 0 && !d.chunked {
			from := len(scratch)
			scratch, d.bol = smtp.AppendStuffed(scratch, p, d.bol)
			p = scratch[from:]
		}
		iov = append(iov, p)
		d.next++
	}
	return iov, scratch, d.next > m.Chunks
}
