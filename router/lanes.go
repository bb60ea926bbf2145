package router

import (
	"math/bits"

	"mailrace/proto/message"
)

// lanes is the queue of a site: of those that wait, the ones of the highest priority go first, and within a priority in their order. Every
// operation takes the same time however many wait. Mail without a priority costs nothing: it has one lane, and the others come into being
// with the first message that asks for one. RFC 6710 §4
type lanes struct {
	normal     queue
	others     *[2*message.PriorityMax + 1]queue // by priority + PriorityMax; that of 0 is not used
	filled     uint32                            // a bit for each of others that is not empty
	length     int
	recipients int
}

// normalLane is the place of priority 0 among the bits of filled.
const normalLane = message.PriorityMax

// priority is what the sender asked for, -9 to 9.
func priority(m *message.Message) int {
	if m.Wishes == nil {
		return 0
	}
	return int(m.Wishes.Priority)
}

// lane is the queue for messages like m.
func (l *lanes) lane(m *message.Message) *queue {
	p := priority(m)
	if p == 0 {
		return &l.normal
	}
	if l.others == nil {
		l.others = new([2*message.PriorityMax + 1]queue)
	}
	return &l.others[p+normalLane]
}

func (l *lanes) push(t *Transaction) {
	l.lane(t.Message).push(t)
	l.count(t, 1)
}

func (l *lanes) pushFront(t *Transaction) {
	l.lane(t.Message).pushFront(t)
	l.count(t, 1)
}

// merge is queue.merge with the last transaction of the priority of t.
func (l *lanes) merge(t *Transaction, limit int) bool {
	if !l.lane(t.Message).merge(t, limit) {
		return false
	}
	l.recipients += t.open
	return true
}

// count notes that t came, or went.
func (l *lanes) count(t *Transaction, d int) {
	l.length += d
	l.recipients += d * t.open
	if p := priority(t.Message); p != 0 {
		if bit := uint32(1) << (p + normalLane); l.others[p+normalLane].first != nil {
			l.filled |= bit
		} else {
			l.filled &^= bit
		}
	}
}

// front is the lane whose turn it is.
func (l *lanes) front() *queue {
	if l.filled != 0 {
		if top := bits.Len32(l.filled) - 1; top > normalLane || l.normal.first == nil {
			return &l.others[top]
		}
	}
	return &l.normal
}

func (l *lanes) pop() *Transaction {
	t := l.front().pop()
	if t != nil {
		l.count(t, -1)
	}
	return t
}

// all calls fn for everything that waits, and takes out what fn says true to.
func (l *lanes) all(fn func(*Transaction) bool) {
	l.sweep(&l.normal, fn)
	for filled := l.filled; filled != 0; filled &= filled - 1 {
		l.sweep(&l.others[bits.TrailingZeros32(filled)], fn)
	}
}

func (l *lanes) sweep(q *queue, fn func(*Transaction) bool) {
	for range q.length {
		t := q.pop()
		if fn(t) {
			l.count(t, -1)
		} else {
			q.push(t)
		}
	}
}
