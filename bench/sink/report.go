package sink

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"mailrace/bench/console"
	"mailrace/bench/ledger"
	"mailrace/bench/proc"
)

// lane holds the counters of one loop, which alone adds to them, so that loops do not share cache lines; anybody may read.
type lane struct {
	connections atomic.Uint64
	open        atomic.Int64
	secured     atomic.Uint64
	inClear     atomic.Uint64
	messages    atomic.Uint64
	recipients  atomic.Uint64
	octets      atomic.Uint64
	altered     atomic.Uint64
	anonymous   atomic.Uint64
	failed      [verbs][3]atomic.Uint64 // by verdict: tempfail, permfail, drop
	first       atomic.Int64            // when the first message was accepted, Unix nanoseconds
	newest      atomic.Int64            // when the last message was accepted, Unix nanoseconds
	_           [64]byte
}

// Failures is what the sink did at a verb instead of accepting.
type Failures struct {
	Tempfail uint64 `json:"tempfail"`
	Permfail uint64 `json:"permfail"`
	Drop     uint64 `json:"drop"`
}

// RunReport is what arrived of a generator's run.
type RunReport struct {
	Run        ledger.RunID `json:"run"`
	Recipients int          `json:"recipients_per_message"`
	ledger.Totals
	Returned
}

// Report is what a sink has seen. All counters are of accepted mail unless their names say otherwise.
type Report struct {
	Address     string              `json:"address"`
	Names       string              `json:"dns,omitempty"` // host:port where DNS is answered
	Connections uint64              `json:"connections"`   // since the start
	Open        int64               `json:"open"`          // now
	Secured     uint64              `json:"secured"`       // connections that went under TLS, since the start
	Messages    uint64              `json:"messages"`
	InClear     uint64              `json:"in_clear"` // messages that did not come under TLS
	Recipients  uint64              `json:"recipients"`
	Octets      uint64              `json:"octets"`             // of content
	Duplicates  uint64              `json:"duplicates"`         // recipients of messages that had been accepted for them before
	Altered     uint64              `json:"altered"`            // numbered messages that are not what was sent
	Reordered   uint64              `json:"reordered"`          // recipients of numbered messages that came behind later ones, as ledger.Account says
	Foreign     uint64              `json:"foreign"`            // distinct recipients of messages that no generator of ours made
	Anonymous   uint64              `json:"anonymous"`          // messages without a Message-ID: their duplicates go unseen
	Failures    map[string]Failures `json:"failures,omitempty"` // of destinations, too

	Destinations []StageReport `json:"destinations,omitempty"` // of the script

	Runs    []RunReport   `json:"runs,omitempty"`
	First   time.Time     `json:"first"`  // when the first message was accepted
	Newest  time.Time     `json:"newest"` // when the last message was accepted
	At      time.Time     `json:"at"`     // of which the report tells
	Busy    float64       `json:"busy"`   // CPU time of each loop from the first message to the last: above proc.BusyLimit the sink may be the limit
	Elapsed time.Duration `json:"elapsed_ns"`
	Process proc.Usage    `json:"process"`
}

// Report sums up what was seen until now. Any goroutine may call it.
func (s *Sink) Report() Report {
	r := Report{Address: s.address, At: time.Now(), Elapsed: time.Since(s.began), Process: proc.Self()}
	if names := s.Names(); names.IsValid() {
		r.Names = names.String()
	}
	var failed []*[verbs][3]atomic.Uint64
	for i := range s.lanes {
		l := &s.lanes[i]
		r.Connections += l.connections.Load()
		r.Open += l.open.Load()
		r.Secured += l.secured.Load()
		r.Messages += l.messages.Load()
		r.InClear += l.inClear.Load()
		r.Recipients += l.recipients.Load()
		r.Octets += l.octets.Load()
		r.Altered += l.altered.Load()
		r.Anonymous += l.anonymous.Load()
		if at := time.Unix(0, l.first.Load()); at.UnixNano() != 0 && (r.First.IsZero() || at.Before(r.First)) {
			r.First = at
		}
		if at := time.Unix(0, l.newest.Load()); at.After(r.Newest) && at.UnixNano() != 0 {
			r.Newest = at
		}
		failed = append(failed, &l.failed)
	}
	r.Failures, r.Destinations = failuresOf(failed...), s.stages.report()
	r.Foreign, r.Duplicates = s.book.ForeignTotals()
	for _, t := range s.book.Runs() {
		run := RunReport{Run: t.Run(), Recipients: t.Recipients(), Totals: t.Totals(), Returned: s.back.of(t.Run())}
		r.Duplicates += run.Doubled
		r.Reordered += run.Reordered
		r.Runs = append(r.Runs, run)
	}
	if took := r.Newest.Sub(r.First); r.Messages > 1 && took > 0 {
		r.Busy = float64(r.Process.CPU-s.cpuBefore) / float64(took) / float64(s.opts.Loops)
	}
	return r
}

// Line is the report as one line of progress; before is the report of the interval's start.
func (r Report) Line(before Report) string {
	rate := 0.0
	if d := (r.Elapsed - before.Elapsed).Seconds(); d > 0 {
		rate = float64(r.Messages-before.Messages) / d
	}
	return fmt.Sprintf("%7.1fs  %s messages  %s/s  %d connections  %d duplicates  %d altered", r.Elapsed.Seconds(),
		console.Count(r.Messages), console.Count(uint64(rate)), r.Open, r.Duplicates, r.Altered)
}

// WriteText writes the report for people.
func (r Report) WriteText(w io.Writer) error {
	rows := [][]string{
		{"connections", console.Count(r.Connections)},
		{"messages", console.Count(r.Messages)},
		{"recipients", console.Count(r.Recipients)},
		{"octets", console.Count(r.Octets)},
		{"duplicates", console.Count(r.Duplicates)},
		{"altered", console.Count(r.Altered)},
		{"reordered", console.Count(r.Reordered)},
	}
	for v := range verbs {
		if f, ok := r.Failures[v.String()]; ok {
			rows = append(rows, []string{v.String() + " failed", fmt.Sprintf("%d 4xx, %d 5xx, %d dropped", f.Tempfail, f.Permfail, f.Drop)})
		}
	}
	for _, d := range r.Destinations {
		rows = append(rows, []string{d.Name, d.String()})
	}
	if r.Messages > 0 {
		rows = append(rows, []string{"CPU per message", console.Duration(r.Process.CPU / time.Duration(r.Messages))})
		rows = append(rows, proc.BusyRow(r.Busy))
	}
	return console.Table(w, []string{"sink " + r.Address, ""}, rows)
}
