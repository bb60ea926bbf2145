package router

import "sync"

// mailbox carries transactions from one loop to another (or to itself). The sender posts once for all that it puts in until the receiver
// empties it, so a busy pair of loops pays one wake-up for each batch. Only the two loops of the pair contend for its lock.
type mailbox struct {
	to      *Scheduler
	deliver func() // b.empty, allocated once

	mu      sync.Mutex
	filled  []*Transaction
	emptied []*Transaction // the other of two buffers, the receiver's
	posted  bool
}

// put is called on the sender's loop.
func (b *mailbox) put(t *Transaction) {
	b.mu.Lock()
	b.filled = append(b.filled, t)
	post := !b.posted
	b.posted = true
	b.mu.Unlock()
	if post {
		b.to.env.Post(b.deliver)
	}
}

// empty is called on the receiver's loop.
func (b *mailbox) empty() {
	b.mu.Lock()
	batch := b.filled
	b.filled, b.posted = b.emptied[:0], false
	b.emptied = nil
	b.mu.Unlock()
	for i, t := range batch {
		batch[i] = nil
		b.to.accept(t)
	}
	b.mu.Lock()
	b.emptied = batch
	b.mu.Unlock()
	b.to.kickTouched()
}
