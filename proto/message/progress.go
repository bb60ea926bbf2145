package message

import "sync/atomic"

// Rest is what is left of a message.
type Rest uint8

const (
	// Busy: recipients are under way: routed, queued, or with a connection.
	Busy Rest = iota
	// Waiting: none is under way and some are deferred. Who is told so has the message to itself.
	Waiting
	// Finished: all are settled. Who is told so has the message to itself.
	Finished
)

const unsettled = 1 << 32

// SetPending sets how many recipients are not settled; all of them are under way.
func (m *Message) SetPending(n int) { m.progress.Store(int64(n)*unsettled | int64(n)) }

// Pending is how many recipients are not settled. Any loop.
func (m *Message) Pending() int { return int(m.progress.Load() / unsettled) }

// UnderWay is how many recipients are under way, and not deferred. Any loop.
func (m *Message) UnderWay() int { return int(m.progress.Load() % unsettled) }

// Unsettled counts the recipients that are not settled, by their states.
func (m *Message) Unsettled() (n int) {
	for i := range m.Recipients {
		if !m.Recipients[i].State.Settled() {
			n++
		}
	}
	return n
}

// End notes that n recipients are under way no more: they are settled, or else deferred. Any loop.
func (m *Message) End(n int, settled bool) Rest { return rest(m.progress.Add(-ending(n, settled))) }

// EndLast is End if no others are under way; otherwise it changes nothing and returns Busy. So what is to be noted of the last ones can be noted
// by who has the message to itself.
func (m *Message) EndLast(n int, settled bool) Rest {
	for {
		p := m.progress.Load()
		if p%unsettled != int64(n) {
			return Busy
		}
		if after := p - ending(n, settled); m.progress.CompareAndSwap(p, after) {
			return rest(after)
		}
	}
}

func ending(n int, settled bool) int64 {
	if settled {
		return int64(n)*unsettled + int64(n)
	}
	return int64(n)
}

func rest(progress int64) Rest {
	switch {
	case progress == 0:
		return Finished
	case progress%unsettled == 0:
		return Waiting
	}
	return Busy
}

// Resume notes that n deferred recipients are under way again. It fails if none was any more: then somebody has the message to itself, and it is
// no longer the caller's. Any loop.
func (m *Message) Resume(n int) bool {
	for {
		p := m.progress.Load()
		if p%unsettled == 0 {
			return false
		}
		if m.progress.CompareAndSwap(p, p+int64(n)) {
			return true
		}
	}
}

// Ticket leads to a message as long as nobody let it go: what waits with a ticket does not keep the message in memory.
type Ticket struct{ message atomic.Pointer[Message] }

// Ticket returns the ticket of the message, always the same. Any loop that has recipients under way.
func (m *Message) Ticket() *Ticket {
	if t := m.ticket.Load(); t != nil {
		return t
	}
	t := new(Ticket)
	t.message.Store(m)
	if m.ticket.CompareAndSwap(nil, t) {
		return t
	}
	return m.ticket.Load()
}

// Message is the message, or nil when it was let go. Any loop.
func (t *Ticket) Message() *Message { return t.message.Load() }

// LetGo voids the ticket. It is for who has the message to itself.
func (m *Message) LetGo() {
	if t := m.ticket.Load(); t != nil {
		t.message.Store(nil)
	}
}
