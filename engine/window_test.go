package engine

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"mailrace/proto/message"
	"mailrace/spool"
)

// TestWindow holds a window against an index in memory that changes at random, in small pages and in large numbers, with changes in the middle of
// a read: every entry that is due is taken once, in order within what is known, and none is forgotten.
func TestWindow(t *testing.T) {
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 1))
		w := newWindow()
		index, out := map[spool.Due]bool{}, map[message.ID]int64{}
		next, now := message.ID(0), int64(1)
		add := func(id message.ID, at int64, was spool.Due) {
			d := spool.Due{At: at, ID: id}
			delete(index, was)
			index[d] = true
			if was.ID != 0 {
				delete(out, id)
			}
			w.indexed(was, d)
		}
		some := func(n int) {
			for range n {
				next++
				add(next, now+rng.Int64N(1000), spool.Due{})
			}
		}
		read := func(after spool.Due, limit int) (page []spool.Due, err error) {
			if rng.IntN(10) == 0 {
				return nil, errors.New("disk")
			}
			some(rng.IntN(3))
			for d := range index {
				if d.Compare(after) > 0 {
					page = append(page, d)
				}
			}
			slices.SortFunc(page, spool.Due.Compare)
			some(rng.IntN(3))
			return page[:min(len(page), limit)], nil
		}
		for range 20_000 { // before the node starts
			next++
			index[spool.Due{At: 1 + rng.Int64N(2000), ID: next}] = true
		}
		for step := range 400 {
			if err := w.fill(read); err == nil && step == 0 && len(w.entries) == 0 {
				t.Fatal("nothing was read")
			}
			if rng.IntN(50) == 0 {
				some(windowMax) // more than it holds
			}
			due, stale, _ := w.take(now, 1+rng.IntN(500))
			if len(stale) > 0 || len(w.entries) > windowMax || !slices.IsSortedFunc(w.entries, spool.Due.Compare) {
				t.Fatalf("seed %d, step %d: %d stale, %d entries", seed, step, len(stale), len(w.entries))
			}
			if rng.IntN(10) == 0 {
				w.putBack(due)
				continue
			}
			for _, d := range due {
				if _, ok := out[d.ID]; ok || !index[d] || d.At > now {
					t.Fatalf("seed %d, step %d: took %v at %d, out %v, in the index %v", seed, step, d, now, ok, index[d])
				}
				out[d.ID] = d.At
			}
			for id, at := range out {
				switch rng.IntN(6) {
				case 0: // removed
					delete(index, spool.Due{At: at, ID: id})
					delete(out, id)
					w.indexed(spool.Due{At: at, ID: id}, spool.Due{})
				case 1:
					add(id, now+rng.Int64N(300), spool.Due{At: at, ID: id})
				case 2:
					add(id, at, spool.Due{At: at, ID: id})
				}
			}
			now += rng.Int64N(20)
		}
		for idle := 0; idle < 100; {
			_ = w.fill(func(after spool.Due, limit int) ([]spool.Due, error) { return read(after, limit) })
			due, _, _ := w.take(math.MaxInt64, 1000)
			for _, d := range due {
				out[d.ID] = d.At
			}
			if len(due) > 0 {
				idle = 0
			}
			idle++
		}
		left := 0
		for d := range index {
			if out[d.ID] != d.At {
				left++
			}
		}
		if left > 20 { // those that the reads added
			t.Errorf("seed %d: %d of %d entries were never taken", seed, left, len(index))
		}
	}
}

// TestWindowOfStaleEntries: a message that is taken by one entry is not taken by another, which is to be dropped.
func TestWindowOfStaleEntries(t *testing.T) {
	w := newWindow()
	w.whole = true
	for _, at := range []int64{10, 20, 30} {
		w.indexed(spool.Due{}, spool.Due{At: at, ID: 7})
	}
	w.indexed(spool.Due{}, spool.Due{At: 20, ID: 7})
	due, stale, next := w.take(25, 10)
	if len(due) != 1 || due[0].At != 10 || len(stale) != 1 || stale[0].At != 20 || next != 30 {
		t.Errorf("%v, %v, next at %d", due, stale, next)
	}
	w.indexed(spool.Due{At: 20, ID: 7}, spool.Due{}) // its entry was dropped
	if w.out[7] != 10 {
		t.Error("the message is said to be in nobody's hands")
	}
	w.indexed(spool.Due{At: 10, ID: 7}, spool.Due{})
	if due, _, next = w.take(30, 10); len(due) != 1 || next != 0 {
		t.Errorf("%v, next at %d", due, next)
	}
}
