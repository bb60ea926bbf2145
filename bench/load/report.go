package load

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"mailrace/bench/console"
	"mailrace/bench/latency"
	"mailrace/bench/ledger"
	"mailrace/bench/proc"
)

// counters are those of one loop, which alone adds to them, so that loops do not share cache lines; anybody may read.
type counters struct {
	started   atomic.Uint64
	accepted  atomic.Uint64
	tempfail  atomic.Uint64
	permfail  atomic.Uint64
	lost      atomic.Uint64
	rcpts     atomic.Uint64
	octets    atomic.Uint64
	opened    atomic.Uint64
	open      atomic.Int64
	broken    atomic.Uint64
	newest    atomic.Int64 // when the last transaction ended, in nanoseconds since the start
	_         [40]byte
	histogram latency.Histogram
}

// Progress is how far a run is. The times are those of accepted messages: from the first octet of the envelope, or from when the message
// was due if a rate is set, to the final reply. Where envelopes are pipelined behind the body before, that includes the wait for the reply
// to that body.
type Progress struct {
	Elapsed     time.Duration   `json:"elapsed_ns"`
	CPU         time.Duration   `json:"cpu_ns"`      // of this process, during the run
	Started     uint64          `json:"started"`     // transactions
	Accepted    uint64          `json:"accepted"`    // 2xx to the end of data
	Tempfail    uint64          `json:"tempfail"`    // 4xx to the message or to all its recipients
	Permfail    uint64          `json:"permfail"`    // 5xx
	Lost        uint64          `json:"lost"`        // the connection ended before the final reply: delivered or not, nobody knows
	Recipients  uint64          `json:"recipients"`  // of accepted messages
	Octets      uint64          `json:"octets"`      // content of accepted messages
	Connections uint64          `json:"connections"` // opened since the start
	Open        int64           `json:"open"`        // now
	Idle        int64           `json:"idle"`        // of those, that are up and wait for a message to send
	Broken      uint64          `json:"broken"`      // connections that failed, could not be opened, or were ended by the server
	Latency     latency.Summary `json:"latency"`
	Recent      latency.Summary `json:"recent"`            // likewise, since the progress before; not in a report
	Failure     string          `json:"failure,omitempty"` // the last reason why a connection broke or a message was refused
}

// Report is a finished run.
type Report struct {
	Run  ledger.RunID `json:"run"`
	Next uint64       `json:"next"` // the first number that was not used: First of a run that goes on
	Progress
	Began   time.Time     `json:"began"`
	Sending time.Duration `json:"sending_ns"`    // from the start to the last final reply
	Busy    float64       `json:"busy"`          // CPU time of each loop in Elapsed: above proc.BusyLimit the generator may be the limit
	Rate    float64       `json:"rate"`          // accepted messages per second of Sending
	TLS     string        `json:"tls,omitempty"` // version and cipher suite of the last handshake

	Curve []time.Duration `json:"curve_ns,omitempty"` // latencies at latency.Shares
}

func (g *generator) progress() Progress {
	p := Progress{Elapsed: time.Since(g.began), CPU: cpu() - g.cpuBefore}
	for _, l := range g.lanes {
		p.Started += l.started.Load()
		p.Accepted += l.accepted.Load()
		p.Tempfail += l.tempfail.Load()
		p.Permfail += l.permfail.Load()
		p.Lost += l.lost.Load()
		p.Recipients += l.rcpts.Load()
		p.Octets += l.octets.Load()
		p.Connections += l.opened.Load()
		p.Open += l.open.Load()
		p.Idle += int64(l.waiting.Load())
		p.Broken += l.broken.Load()
	}
	p.Latency = g.latencies().Summary()
	if failure := g.failure.Load(); failure != nil {
		p.Failure = *failure
	}
	return p
}

// latencies are those of all loops.
func (g *generator) latencies() *latency.Histogram {
	h := new(latency.Histogram)
	for _, l := range g.lanes {
		h.Merge(&l.histogram)
	}
	return h
}

func (g *generator) report() Report {
	r := Report{Run: g.opts.Run, Next: g.next.Load(), Progress: g.progress(), Began: g.began, Curve: g.latencies().Curve()}
	if suite := g.suite.Load(); suite != nil {
		r.TLS = suite.version + " " + suite.cipher
	}
	for _, l := range g.lanes {
		r.Sending = max(r.Sending, time.Duration(l.newest.Load()))
	}
	if r.Sending > 0 {
		r.Rate = float64(r.Accepted) / r.Sending.Seconds()
	}
	r.Busy = float64(r.CPU) / float64(r.Elapsed) / float64(g.opts.Loops)
	return r
}

// Line is the progress as one line; before is that of the interval's start.
func (p Progress) Line(before Progress) string {
	rate := 0.0
	if d := (p.Elapsed - before.Elapsed).Seconds(); d > 0 {
		rate = float64(p.Accepted-before.Accepted) / d
	}
	return fmt.Sprintf("%7.1fs  %s accepted  %s/s  %d connections  p50 %s  p99 %s  %d 4xx  %d 5xx  %d lost", p.Elapsed.Seconds(),
		console.Count(p.Accepted), console.Count(uint64(rate)), p.Open, console.Duration(p.Latency.P50), console.Duration(p.Latency.P99),
		p.Tempfail, p.Permfail, p.Lost)
}

// WriteText writes the report for people.
func (r Report) WriteText(w io.Writer) error {
	rows := [][]string{
		{"accepted", console.Count(r.Accepted)},
		{"refused 4xx", console.Count(r.Tempfail)},
		{"refused 5xx", console.Count(r.Permfail)},
		{"lost", console.Count(r.Lost)},
		{"recipients", console.Count(r.Recipients)},
		{"octets", console.Count(r.Octets)},
		{"connections", console.Count(r.Connections)},
		{"broken connections", console.Count(r.Broken)},
		{"time", console.Duration(r.Sending)},
		{"messages/s", fmt.Sprintf("%.0f", r.Rate)},
		{"latency p50", console.Duration(r.Latency.P50)},
		{"latency p99", console.Duration(r.Latency.P99)},
		{"latency p99.9", console.Duration(r.Latency.P999)},
		{"latency max", console.Duration(r.Latency.Max)},
	}
	if r.TLS != "" {
		rows = append(rows, []string{"TLS", r.TLS})
	}
	if r.Accepted > 0 {
		rows = append(rows, []string{"CPU per message", console.Duration(r.CPU / time.Duration(r.Accepted))})
	}
	rows = append(rows, proc.BusyRow(r.Busy))
	if r.Failure != "" {
		rows = append(rows, []string{"last failure", r.Failure})
	}
	return console.Table(w, []string{"run " + r.Run.String(), ""}, rows)
}

// cpu is the CPU time of this process until now.
func cpu() time.Duration { return proc.Self().CPU }
