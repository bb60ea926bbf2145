package router

import (
	"sync"

	"mailrace/proto/message"
	"mailrace/router/mx"
	"mailrace/router/schedule"
)

// Transaction is a message for some of its recipients at one site: what stands between MAIL and the reply to the end of data. Before that it is
// the entry in the queue of its site. It is handed out by Link.Next and belongs to that connection until Done, or until the Gone of the link;
// then its memory serves another.
type Transaction struct {
	Message    *message.Message
	Recipients []int  // indices in Message.Recipients, in the order of RCPT; not to be changed
	Domain     string // normal form of the domain of the first recipient

	// Held says that Message.Body holds the content, and stays until Done. Otherwise Message.Body must not be touched, other loops may be
	// freeing it; the content is read from the spool into chunks of the reader's own.
	Held bool

	route  *Route     // nil where no route matches
	answer *mx.Answer // nil while its lookup is under way, and of a Discard route
	owner  *Scheduler // of its site
	site   *Site
	pool   *sourcePool // of its sources
	link   *Link       // that it was handed out on
	next   *Transaction

	queued, started int64 // Unix nanoseconds
	requeues        int
	open            int    // recipients that are not settled
	settled         []bool // of each recipient
	deferred        []int  // indices in Message.Recipients that wait for their next attempt
	due             int64  // of those with dueAttempts attempts, by dueRetry: one draw of the jitter keeps them together
	dueAttempts     uint16
	dueRetry        *schedule.Backoff
	back            bool // that it came back from the disk is noted: cameBack
	sent            bool
	answered        bool // the peer replied for a recipient
}

var transactions = sync.Pool{New: func() any { return new(Transaction) }}

// newTransaction returns an empty one for m that takes no hold.
func newTransaction(m *message.Message, domain string, now int64) *Transaction {
	t := transactions.Get().(*Transaction)
	t.Message, t.Domain, t.queued = m, domain, now
	return t
}

// free gives up the content and the memory.
func (t *Transaction) free() {
	t.drop()
	*t = Transaction{Recipients: t.Recipients[:0], settled: t.settled[:0], deferred: t.deferred[:0]}
	transactions.Put(t)
}

// hold keeps the content in memory.
func (t *Transaction) hold() {
	t.Message.Hold(1)
	t.Held = true
}

// drop gives the content up: it will be read from the spool.
func (t *Transaction) drop() {
	if t.Held {
		t.Held = false
		t.Message.Release()
	}
}

// add appends recipient i of the message.
func (t *Transaction) add(i int) {
	t.Recipients = append(t.Recipients, i)
	t.settled = append(t.settled, false)
	t.open++
}

// Sent says that the final dot was handed to the transport: from now on the peer may have taken the message, whatever becomes of the
// connection. RFC 5321 §4.2.5
func (t *Transaction) Sent() { t.sent = true }

// Unsent takes Sent back: the peer ended the session, and said so, before it looked at the message.
func (t *Transaction) Unsent() { t.sent = false }

// Settle tells what became of Recipients[i] (i is the place in Recipients, not in the message). The Class, Code, Enhanced, Text and Remote of
// o are used and its other fields overwritten; o belongs to the caller again afterwards. A recipient that is settled already is left as it
// is, so that after the reply to the end of data every i can be settled without asking which were refused at RCPT. Env.Settle is called
// inside.
func (t *Transaction) Settle(i int, o *Outcome) {
	if t.settled[i] {
		return
	}
	t.settled[i] = true
	t.open--
	if o.Remote && o.Code != 0 || o.Class == Delivered {
		t.answered = true
	}
	o.Host, o.Addr, o.InDoubt = t.link.target.Host, t.link.target.Addr, false
	t.owner.settle(t, t.Recipients[i], o, attempted)
}

// SettleAll settles all recipients that are not settled yet with one reply.
func (t *Transaction) SettleAll(o *Outcome) {
	for i := range t.Recipients {
		t.Settle(i, o)
	}
}

// Settled says whether Recipients[i] is settled.
func (t *Transaction) Settled(i int) bool { return t.settled[i] }

// Done ends the transaction. Recipients that are not settled go back to the queue, to be tried elsewhere at once. t must not be used afterwards.
func (t *Transaction) Done() { t.link.done(t) }

// compact leaves only the recipients that are not settled.
func (t *Transaction) compact() {
	kept := t.Recipients[:0]
	for i, r := range t.Recipients {
		if !t.settled[i] {
			kept = append(kept, r)
		}
	}
	t.Recipients, t.settled = kept, t.settled[:len(kept)]
	clear(t.settled)
}

// queue is a FIFO of transactions.
type queue struct {
	first, last *Transaction
	length      int
	recipients  int
}

func (q *queue) push(t *Transaction) {
	if t.next = nil; q.last == nil {
		q.first = t
	} else {
		q.last.next = t
	}
	q.last = t
	q.length++
	q.recipients += t.open
}

func (q *queue) pushFront(t *Transaction) {
	if t.next = q.first; q.first == nil {
		q.last = t
	}
	q.first = t
	q.length++
	q.recipients += t.open
}

func (q *queue) pop() *Transaction {
	t := q.first
	if t == nil {
		return nil
	}
	if q.first = t.next; q.first == nil {
		q.last = nil
	}
	t.next = nil
	q.length--
	q.recipients -= t.open
	return t
}

// merge puts the recipients of t into the last transaction of the queue if it is of the same message and route and both fit into the limit. So
// recipients whose names were found one after the other still share a transaction.
func (q *queue) merge(t *Transaction, limit int) bool {
	last := q.last
	if last == nil || last.Message != t.Message || last.route != t.route || last.requeues > 0 || last.open+t.open > limit {
		return false
	}
	for _, i := range t.Recipients {
		last.add(i)
	}
	q.recipients += t.open
	return true
}
