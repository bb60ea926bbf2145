package engine

import (
	"slices"
	"sync"
	"time"

	"mailrace/proto/message"
	"mailrace/spool"
)

// windowMax is how many entries of a shard's due index are in memory, 16 bytes each; it is filled again when it is empty, with half as many.
const windowMax = 8192

// window is the begin of a shard's due index, in memory: those entries of which nobody has the message. What is parked meanwhile comes in by
// indexed, from the goroutine of the shard; what is due is taken out by the pager.
type window struct {
	mu      sync.Mutex
	bell    chan struct{} // rings when there is an earlier first entry
	entries []spool.Due   // in their order
	until   spool.Due     // the index behind it is not here
	whole   bool          // there is nothing behind
	reading bool          // a page is being read
	fresh   []spool.Due   // what came behind until meanwhile

	// out are the messages that were taken and are not parked again or removed, with the time of their entry.
	out map[message.ID]int64
}

func newWindow() *window {
	return &window{bell: make(chan struct{}, 1), out: map[message.ID]int64{}}
}

// indexed follows the changes of the index, see spool.Options.Indexed.
func (w *window) indexed(dropped, added spool.Due) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if at, ok := w.out[dropped.ID]; ok && at == dropped.At {
		delete(w.out, dropped.ID)
	}
	if at, ok := w.out[added.ID]; added.ID == 0 || ok && at == added.At { // it was read, and taken, before we heard of it
		return
	}
	switch {
	case w.whole || added.Compare(w.until) <= 0:
		w.insert(added)
	case w.reading:
		w.fresh = append(w.fresh, added)
	}
}

// insert puts an entry into its place, once. When there are too many, the later ones are forgotten, to be read again.
func (w *window) insert(d spool.Due) {
	i, there := slices.BinarySearchFunc(w.entries, d, spool.Due.Compare)
	if there {
		return
	}
	w.entries = slices.Insert(w.entries, i, d)
	if len(w.entries) > windowMax {
		w.entries = w.entries[:windowMax*3/4]
		w.until, w.whole = w.entries[len(w.entries)-1], false
	}
	if i == 0 {
		select {
		case w.bell <- struct{}{}:
		default:
		}
	}
}

// fill reads the next page when all that is here was taken.
func (w *window) fill(read func(after spool.Due, limit int) ([]spool.Due, error)) error {
	w.mu.Lock()
	if len(w.entries) > 0 || w.whole {
		w.mu.Unlock()
		return nil
	}
	after := w.until
	w.reading, w.fresh = true, nil
	w.mu.Unlock()

	page, err := read(after, windowMax/2)

	w.mu.Lock()
	defer w.mu.Unlock()
	w.reading = false
	if err != nil || w.until != after {
		return err
	}
	if w.whole = len(page) < windowMax/2; !w.whole {
		w.until = page[len(page)-1]
	}
	for _, d := range page {
		if at, ok := w.out[d.ID]; !ok || at != d.At {
			w.insert(d)
		}
	}
	for _, d := range w.fresh {
		if w.whole || d.Compare(w.until) <= 0 {
			w.insert(d)
		}
	}
	w.fresh = nil
	return nil
}

// take takes out up to limit entries that are due. stale are entries of messages that somebody has by another one. next is when there is more
// to take, 0 = it is not known of any.
func (w *window) take(now int64, limit int) (due, stale []spool.Due, next int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for ; n < len(w.entries) && w.entries[n].At <= now && len(due) < limit; n++ {
		d := w.entries[n]
		if at, ok := w.out[d.ID]; !ok {
			w.out[d.ID] = d.At
			due = append(due, d)
		} else if at != d.At {
			stale = append(stale, d)
		}
	}
	w.entries = slices.Delete(w.entries, 0, n)
	switch {
	case len(w.entries) > 0:
		next = w.entries[0].At
	case !w.whole:
		next = now
	}
	return due, stale, next
}

// taken says that somebody has the message of an entry, or of another one of the same message.
func (w *window) taken(d spool.Due) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.out[d.ID]
	return ok
}

// claim takes out an entry that was found in the index, due or not, unless somebody has it.
func (w *window) claim(d spool.Due) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.out[d.ID]; ok {
		return false
	}
	w.out[d.ID] = d.At
	if i, there := slices.BinarySearchFunc(w.entries, d, spool.Due.Compare); there {
		w.entries = slices.Delete(w.entries, i, i+1)
	}
	return true
}

// putBack undoes take and claim.
func (w *window) putBack(due []spool.Due) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range due {
		delete(w.out, d.ID)
		if w.whole || d.Compare(w.until) <= 0 {
			w.insert(d)
		}
	}
}

// sleep is how long to wait for next.
func sleep(next, now int64) time.Duration {
	if next == 0 {
		return time.Hour
	}
	return min(max(time.Duration(next-now), 0), time.Hour)
}
