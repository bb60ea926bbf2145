package sink

import (
	"sync"
	"sync/atomic"

	"mailrace/bench/ledger"
)

// notices are what came back: the recipients of numbered messages of whom a notification says that they were not reached. Any loop may call the methods.
type notices struct {
	mu   sync.Mutex
	book *ledger.Book
	both map[ledger.RunID]uint64 // recipients that were reached, too
	any  atomic.Bool             // something came back
}

const noticeMost = 64 << 10 // octets of a notification that are looked at

// Returned is how many recipients came back to the sender of a run.
type Returned struct {
	Returned uint64 `json:"returned"`       // distinct
	Twice    uint64 `json:"returned_twice"` // notifications beyond the first
	Both     uint64 `json:"returned_both"`  // recipients of whom one came although they got the message
}

// keep holds the beginning of a message without a sender: it may be a notification.
func (x *session) keep(p []byte) {
	if x.keeps && len(x.notice) < noticeMost {
		x.notice = append(x.notice, p[:min(len(p), noticeMost-len(x.notice))]...)
	}
}

// noteReturned counts what a foreign message says of ours, if it is a notification.
func (x *session) noteReturned() {
	if !x.keeps {
		return
	}
	n, ok := ledger.ReadNotice(x.notice)
	x.notice = x.notice[:0]
	if !ok {
		return
	}
	s := x.sink
	s.back.mu.Lock()
	defer s.back.mu.Unlock()
	s.back.any.Store(true)
	t := s.back.book.Open(n.Run, n.Recipients)
	arrived := s.book.Open(n.Run, n.Recipients) // it is in the report even if nothing of it arrived
	for _, i := range n.Failed {
		if t != nil && t.Add(n.Number, i) && arrived != nil && arrived.Count(n.Number, i) > 0 {
			s.back.both[n.Run]++
		}
	}
}

// reached looks whether a recipient that is reached for the first time had come back before.
func (b *notices) reached(run ledger.RunID, number uint64, recipient int) {
	if !b.any.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.book.Run(run); t != nil && t.Count(number, recipient) > 0 {
		b.both[run]++
	}
}

// of is what came back of a run.
func (b *notices) of(run ledger.RunID) Returned {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.book.Run(run)
	if t == nil {
		return Returned{}
	}
	all := t.Totals()
	return Returned{Returned: all.Distinct, Twice: all.Doubled, Both: b.both[run]}
}
