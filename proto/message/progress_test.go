package message

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestProgress(t *testing.T) {
	var m Message
	m.SetPending(3)
	if m.EndLast(1, true) != Busy || m.Pending() != 3 {
		t.Error("the last of three ended")
	}
	if m.End(1, true) != Busy || m.Pending() != 2 || m.End(1, false) != Busy {
		t.Error("one is under way")
	}
	ticket := m.Ticket()
	if m.Ticket() != ticket || ticket.Message() != &m || !m.Resume(1) {
		t.Error("not resumed")
	}
	if m.End(1, false) != Busy || m.EndLast(1, false) != Waiting || m.Pending() != 2 {
		t.Error("two wait")
	}
	if m.LetGo(); m.Resume(1) || ticket.Message() != nil {
		t.Error("resumed after it was let go")
	}
	m.SetPending(2)
	if m.End(1, true) != Busy || m.EndLast(1, true) != Finished {
		t.Error("not finished")
	}
	m.SetPending(2)
	if m.End(1, false) != Busy || m.EndLast(1, true) != Waiting || m.Pending() != 1 {
		t.Error("one settled last, one waits")
	}
}

// TestProgressOnManyLoops: whatever the loops do at once, exactly one of them has the message to itself in the end.
func TestProgressOnManyLoops(t *testing.T) {
	for range 2000 {
		var m Message
		m.SetPending(4)
		var alone atomic.Int32
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				if i < 2 && m.Ticket().Message() != &m {
					t.Error("let go too early")
				}
				rest := m.EndLast(1, i%2 == 0)
				if rest == Busy {
					rest = m.End(1, i%2 == 0)
				}
				if rest == Busy && i == 3 && m.Resume(1) {
					rest = m.End(1, false)
				}
				if rest == Waiting {
					alone.Add(1)
				}
			})
		}
		all.Wait()
		if alone.Load() != 1 || m.Pending() != 2 {
			t.Fatalf("%d had it to themselves, %d pending", alone.Load(), m.Pending())
		}
	}
}
