package router

import (
	"math"
	"sync"
	"sync/atomic"

	"mailrace/proto/message"
)

// shareMin is how many recipients a site may have in memory however little room there is: some for each of its first connections.
const shareMin = 16

// class is a rank of mail where room is short.
type class uint8

const (
	low class = iota
	normal
	high
	classes
)

func classOf(m *message.Message) class {
	switch p := priority(m); {
	case p < 0:
		return low
	case p > 0:
		return high
	}
	return normal
}

// room is the memory that Options.InMemory bounds, and what is known of sites that have more mail than their share of it. Any goroutine.
type room struct {
	limit int64 // recipients; 0 = there is no bound, and nothing is counted
	held  atomic.Int64

	_       [64]byte
	crowded atomic.Int32 // backlogs
	mu      sync.RWMutex
	sites   map[uint32]*backlog // by tag
}

// Reserve takes room for n recipients, of which those that are settled or leave the memory give theirs back. It fails when there is no room for
// them beside spare more; one message always finds room in an empty memory. Dispatch needs a reservation where Options.InMemory is set. Any goroutine.
func (r *Router) Reserve(n, spare int) bool {
	held := r.room.held.Add(int64(n))
	if held > r.room.limit-int64(spare) && held > int64(n) && r.room.limit > 0 {
		r.room.held.Add(-int64(n))
		return false
	}
	return true
}

// Free is how much room is left: recipients. Any goroutine.
func (r *Router) Free() int { return int(max(r.room.free(), 0)) }

// Unreserve gives back what Reserve took for recipients that Dispatch did not get. Any goroutine.
func (r *Router) Unreserve(n int) { r.room.held.Add(-int64(n)) }

func (r *room) free() int64 { return r.limit - r.held.Load() }

// share is how many recipients a site may have queued in memory, for mail of a class: as many as there is room left. So one slow site takes half of
// the memory at most, a second one half of the rest, and there always is some for others; a site that is fast has no long queue, and may use
// what is free. This is the dynamic threshold of switches with a shared buffer (Choudhury and Hahne, 1998). Urgent mail has twice that,
// bulk mail half.
func (r *room) share(c class) int64 {
	if r.limit == 0 {
		return math.MaxInt64
	}
	free := max(r.free(), 0)
	switch c {
	case low:
		free /= 2
	case high:
		free *= 2
	}
	return max(free, min(shareMin, r.limit/4), 1)
}

// backlog is that of the site with a tag; nil = it has none.
func (r *room) backlog(tag uint32) *backlog {
	if r.crowded.Load() == 0 || tag == 0 {
		return nil
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.sites[tag]
}

// open is backlog, which comes into being if it is none; fresh says so.
func (r *room) open(tag uint32) (b *backlog, fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b = r.sites[tag]; b != nil {
		return b, false
	}
	if r.sites == nil {
		r.sites = map[uint32]*backlog{}
	}
	b = newBacklog(tag)
	r.sites[tag] = b
	r.crowded.Add(1)
	return b, true
}

// close forgets a backlog that has nothing on the disk, nor on its way there.
func (r *room) close(b *backlog) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.coming > 0 || b.from != math.MaxInt64 {
		return false
	}
	b.closed = true
	if r.sites[b.tag] == b {
		delete(r.sites, b.tag)
		r.crowded.Add(-1)
	}
	return true
}
