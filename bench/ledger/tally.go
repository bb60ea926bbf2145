package ledger

import (
	"sync"
)

const (
	pageCells = 1 << 16
	maxPages  = 1 << 15 // 2 GiB: a number out of the blue must not exhaust memory
)

type page [pageCells]uint8

// Tally counts, one octet each and at most 255, how often each recipient of each message of a run was acknowledged to the generator,
// or arrived at the sink. Methods may be called by any goroutine.
type Tally struct {
	run        RunID
	recipients int

	mu      sync.Mutex
	pages   map[uint64]*page
	last    uint64 // number of the page cur
	cur     *page
	cells   uint64 // cells above 0
	doubled uint64
	altered uint64
	beyond  uint64 // not counted: out of the range of recipients or of pages

	order     map[way]uint64 // highest number that arrived on a way
	reordered uint64
}

// way is what a stream sends to one recipient: on it order can be told.
type way struct {
	stream int
	path   uint64 // hash of the forward-path
}

// maxWays bounds the ways of a run whose order is judged, some 40 octets each. What comes on others counts as in order.
const maxWays = 1 << 20

// NewTally returns an empty tally of a run whose messages have that many recipients each.
func NewTally(run RunID, recipients int) *Tally {
	return &Tally{run: run, recipients: max(recipients, 1), pages: map[uint64]*page{}, order: map[way]uint64{}}
}

// Run is the run that is counted.
func (t *Tally) Run() RunID { return t.run }

// Recipients is how many recipients each message of the run has.
func (t *Tally) Recipients() int { return t.recipients }

// Add counts one more sight of a message for the recipient with the given index, and reports whether it is the first.
func (t *Tally) Add(number uint64, recipient int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.add(number, recipient)
}

// Arrive is Add for an intact message of a stream, and judges its order: the first sight of it is reordered where a message with a higher number came
// before, of the same stream and for the same forward-path, whose hash is path.
func (t *Tally) Arrive(number uint64, recipient, stream int, path uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.add(number, recipient) {
		return false
	}
	on := way{stream, path}
	highest, known := t.order[on]
	switch {
	case known && number < highest:
		t.reordered++
	case known || len(t.order) < maxWays:
		t.order[on] = number
	}
	return true
}

func (t *Tally) add(number uint64, recipient int) bool {
	if recipient < 0 || recipient >= t.recipients {
		t.beyond++
		return false
	}
	cell := number*uint64(t.recipients) + uint64(recipient)
	p := t.page(cell / pageCells)
	if p == nil {
		t.beyond++
		return false
	}
	at := &p[cell%pageCells]
	if *at < 255 {
		*at++
	}
	if *at == 1 {
		t.cells++
		return true
	}
	t.doubled++
	return false
}

// page returns page n, made on demand, or nil when there are too many.
func (t *Tally) page(n uint64) *page {
	if t.cur != nil && t.last == n {
		return t.cur
	}
	p := t.pages[n]
	if p == nil {
		if len(t.pages) == maxPages {
			return nil
		}
		p = new(page)
		t.pages[n] = p
	}
	t.last, t.cur = n, p
	return p
}

// AddAltered counts a message that arrived changed.
func (t *Tally) AddAltered() {
	t.mu.Lock()
	t.altered++
	t.mu.Unlock()
}

// Count returns how often the recipient of the message was seen.
func (t *Tally) Count(number uint64, recipient int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	cell := number*uint64(t.recipients) + uint64(recipient)
	if p := t.pages[cell/pageCells]; p != nil {
		return int(p[cell%pageCells])
	}
	return 0
}

// Totals of a tally, in recipients.
type Totals struct {
	Distinct uint64 `json:"distinct"` // seen at least once
	Doubled  uint64 `json:"doubled"`  // sights beyond the first
	Altered  uint64 `json:"altered"`  // messages that came changed
	Beyond   uint64 `json:"beyond"`   // sights with a number or recipient that cannot be

	Reordered uint64 `json:"reordered"` // see Account
}

// Totals returns what was counted until now.
func (t *Tally) Totals() Totals {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Totals{Distinct: t.cells, Doubled: t.doubled, Altered: t.altered, Beyond: t.beyond, Reordered: t.reordered}
}

// Account is what became of a run between generator and sink. All but Altered count recipients.
type Account struct {
	Acknowledged   uint64 `json:"acknowledged"`   // the MTA answered 2xx at the end of data
	Arrived        uint64 `json:"arrived"`        // distinct, acknowledged or not
	Lost           uint64 `json:"lost"`           // acknowledged, and never arrived
	Doubled        uint64 `json:"doubled"`        // copies beyond the first
	Altered        uint64 `json:"altered"`        // messages, copies counted, that are not what was sent
	Unacknowledged uint64 `json:"unacknowledged"` // arrived though no 2xx reached the generator

	// Reordered arrived, intact and for the first time, behind a later message that the generator sent on the same connection to the same
	// recipient. SMTP promises no order, so this is no fault.
	Reordered uint64 `json:"reordered"`
}

// Add sums two accounts.
func (a Account) Add(b Account) Account {
	return Account{Acknowledged: a.Acknowledged + b.Acknowledged, Arrived: a.Arrived + b.Arrived, Lost: a.Lost + b.Lost,
		Doubled: a.Doubled + b.Doubled, Altered: a.Altered + b.Altered, Unacknowledged: a.Unacknowledged + b.Unacknowledged,
		Reordered: a.Reordered + b.Reordered}
}

// Clean says that nothing was lost, doubled or altered.
func (a Account) Clean() bool { return a.Lost == 0 && a.Doubled == 0 && a.Altered == 0 }

// Compare accounts for a run: acked is the generator's tally and arrived the sink's, or nil when the sink saw nothing of it.
func Compare(acked, arrived *Tally) Account {
	if arrived == nil {
		arrived = NewTally(acked.run, acked.recipients)
	}
	acked.mu.Lock()
	defer acked.mu.Unlock()
	arrived.mu.Lock()
	defer arrived.mu.Unlock()
	a := Account{Acknowledged: acked.cells, Arrived: arrived.cells, Doubled: arrived.doubled, Altered: arrived.altered, Reordered: arrived.reordered}
	both := uint64(0)
	for n, p := range acked.pages {
		q := arrived.pages[n]
		if q == nil {
			continue
		}
		for i := range p {
			if p[i] > 0 && q[i] > 0 {
				both++
			}
		}
	}
	a.Lost = acked.cells - both
	a.Unacknowledged = arrived.cells - both
	return a
}
