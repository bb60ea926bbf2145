package ledger

import (
	"fmt"
	"maps"
	"slices"
	"sync"
)

// Book holds the tallies of every run that a sink meets, and the hashes of foreign messages. Methods may be called by any goroutine.
type Book struct {
	mu         sync.Mutex
	runs       map[RunID]*Tally
	foreign    map[uint64]struct{}
	duplicates uint64
	last       *Tally
}

// maxRuns bounds the tallies that a book opens: messages of further runs are counted as foreign ones.
const maxRuns = 1 << 12

// NewBook returns an empty book.
func NewBook() *Book { return &Book{runs: map[RunID]*Tally{}, foreign: map[uint64]struct{}{}} }

// Open returns the tally of a run, begun if the run is new, or nil when there are too many runs or the run has another number of
// recipients.
func (b *Book) Open(run RunID, recipients int) *Tally {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.last
	if t == nil || t.run != run {
		t = b.runs[run]
	}
	if t == nil {
		if len(b.runs) == maxRuns {
			return nil
		}
		t = NewTally(run, recipients)
		b.runs[run] = t
	}
	b.last = t
	if t.recipients != recipients {
		return nil
	}
	return t
}

// Run returns the tally of a run, or nil when none of it was seen.
func (b *Book) Run(run RunID) *Tally {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.runs[run]
}

// Foreign notes the hash of a foreign message and recipient, and reports whether it is new. It takes some 20 octets each.
func (b *Book) Foreign(hash uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, seen := b.foreign[hash]; seen {
		b.duplicates++
		return false
	}
	b.foreign[hash] = struct{}{}
	return true
}

// ForeignTotals returns how many foreign recipients were seen, and how many sights of them were not the first.
func (b *Book) ForeignTotals() (distinct, duplicates uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return uint64(len(b.foreign)), b.duplicates
}

// Runs returns the tallies of all runs, by run.
func (b *Book) Runs() []*Tally {
	b.mu.Lock()
	defer b.mu.Unlock()
	ts := make([]*Tally, 0, len(b.runs))
	for _, run := range slices.Sorted(maps.Keys(b.runs)) {
		ts = append(ts, b.runs[run])
	}
	return ts
}

// Save writes every tally into the file, one after the other.
func (b *Book) Save(path string) error { return Save(path, b.Runs()...) }

// LoadBook reads what Save wrote.
func LoadBook(path string) (*Book, error) {
	ts, err := Load(path)
	if err != nil {
		return nil, err
	}
	b := NewBook()
	for _, t := range ts {
		if b.runs[t.run] != nil {
			return nil, fmt.Errorf("%s: run %v stands in it twice", path, t.run)
		}
		b.runs[t.run] = t
	}
	return b, nil
}
