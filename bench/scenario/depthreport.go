package scenario

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mailrace/bench/console"
	"mailrace/bench/ledger"
	"mailrace/bench/machine"
	"mailrace/bench/result"
)

// depthFloor is the share of the rate at the shortest queue below which a note says so. Rates are not judged.
const depthFloor = 0.8

// ErrHeld is returned when a queue is not what it was filled to: some of it was lost, or other mail is stuck in it.
var ErrHeld = errors.New("the queue at the end is not what it was filled to")

// DepthMeasure is one node in one round.
type DepthMeasure struct {
	Accept Measure `json:"accept"` // mail is discarded once it is durable
	Relay  Measure `json:"relay"`  // mail goes out to the sink
}

func accepting(m *DepthMeasure) *Measure { return &m.Accept }
func relaying(m *DepthMeasure) *Measure  { return &m.Relay }

// DepthRound holds the measures of all nodes, by depth.
type DepthRound []DepthMeasure

// DepthReport is a finished measurement of queues of several depths.
type DepthReport struct {
	Depths      Depths        `json:"depths"`
	Connections int           `json:"connections"`
	Sizes       string        `json:"sizes"`
	Held        string        `json:"held_sizes"`
	Slow        bool          `json:"slow"` // what waits is queued, not deferred
	Sync        bool          `json:"sync"`
	Duration    time.Duration `json:"duration_ns"`
	Filled      []Filled      `json:"filled"` // by depth, as what follows
	Rounds      []DepthRound  `json:"rounds"`

	// What follows is made of the rounds. The ratios are those of the rate to the one at the shortest queue in the same round.
	Median      DepthRound     `json:"median"`
	AcceptRatio []Spread       `json:"accept_ratio"`
	RelayRatio  []Spread       `json:"relay_ratio"`
	Account     ledger.Account `json:"account"` // of what came and went
	Notes       []string       `json:"notes"`
	Machine     machine.Report `json:"machine"`
}

// summarize fills in what is made of the rounds.
func (r *DepthReport) summarize() {
	for i, depth := range r.Depths {
		accept := r.column(i, accepting)
		relay := r.column(i, relaying)
		m := DepthMeasure{medianOf(accept), medianOf(relay)}
		r.Median = append(r.Median, m)
		r.Account = r.Account.Add(m.Accept.Account).Add(m.Relay.Account)
		r.AcceptRatio = append(r.AcceptRatio, ratios(accept, r.column(0, accepting)))
		r.RelayRatio = append(r.RelayRatio, ratios(relay, r.column(0, relaying)))
		r.Notes = append(r.Notes, m.Accept.notes("accept at "+depthName(depth))...)
		r.Notes = append(r.Notes, m.Relay.notes("relay at "+depthName(depth))...)
		r.noteRatio("accept", depth, r.AcceptRatio[i])
		r.noteRatio("relay", depth, r.RelayRatio[i])
		if f := r.Filled[i]; f.Left != f.Depth {
			r.Notes = append(r.Notes, fmt.Sprintf("QUEUE: filled with %d messages, and it has %d at the end", f.Depth, f.Left))
		}
	}
	for _, kind := range depthKinds {
		rounds, names := r.rounds(kind)
		r.Notes = append(r.Notes, noise(names[0], rates(rounds, names[0]))...)
	}
	r.Notes = append(r.Notes, misfortunes(r.Account)...)
}

// noteRatio notes a rate that is much below that at the shortest queue.
func (r *DepthReport) noteRatio(what string, depth int, s Spread) {
	if s.Median > 0 && s.Median < depthFloor {
		r.Notes = append(r.Notes, fmt.Sprintf("%s at %s keeps %.2f of the rate at %s: less than %.1f", what, depthName(depth), s.Median,
			depthName(r.Depths[0]), depthFloor))
	}
}

// depthKind is one of the two things that are measured at each node.
type depthKind struct {
	name string
	of   func(*DepthMeasure) *Measure
}

var depthKinds = []depthKind{{"accept at", accepting}, {"relay at", relaying}}

// rounds are the measures of a kind under names by depth.
func (r *DepthReport) rounds(kind depthKind) (rounds []Round, names []string) {
	for _, depth := range r.Depths {
		names = append(names, kind.name+" "+depthName(depth))
	}
	for _, round := range r.Rounds {
		named := Round{}
		for i := range round {
			named[names[i]] = *kind.of(&round[i])
		}
		rounds = append(rounds, named)
	}
	return rounds, names
}

// column is one figure of the node with index i over the rounds.
func (r *DepthReport) column(i int, of func(*DepthMeasure) *Measure) (all []Measure) {
	for _, round := range r.Rounds {
		all = append(all, *of(&round[i]))
	}
	return all
}

// ratios is the spread of the ratios of rates in the same rounds.
func ratios(of, to []Measure) Spread {
	var all []float64
	for n := range of {
		if to[n].Rate > 0 {
			all = append(all, of[n].Rate/to[n].Rate)
		}
	}
	return spreadOf(all)
}

// fault is what the report shows that must not be.
func (r *DepthReport) fault() error {
	var errs []error
	if !r.Account.Clean() {
		errs = append(errs, ErrAccounting)
	}
	for _, f := range r.Filled {
		if f.Left != f.Depth {
			errs = append(errs, fmt.Errorf("%w: %d in place of %d messages", ErrHeld, f.Left, f.Depth))
		}
	}
	return errors.Join(errs...)
}

// depthName is a depth for people.
func depthName(depth int) string { return console.Count(uint64(depth)) }

// Result is the report for people: how the queues were filled, and medians over the rounds.
func (r *DepthReport) Result() result.Result {
	durable := "synced before its 250"
	if !r.Sync {
		durable = "NOT synced"
	}
	waits := "is deferred"
	if r.Slow {
		waits = "is queued for a slow host"
	}
	all := result.Result{Name: "depth", Notes: r.Notes, Machine: &r.Machine, Facts: []string{fmt.Sprintf("accounting: %s acknowledged, %d lost, %d doubled, %d altered",
		console.Count(r.Account.Acknowledged), r.Account.Lost, r.Account.Doubled, r.Account.Altered)},
		Lead: fmt.Sprintf("%d rounds of %s accepting and %s relaying %s beside %s that %s, %d connections, mail %s", len(r.Rounds), r.Duration,
			r.Duration, r.Sizes, r.Held, waits, r.Connections, durable)}
	filled := result.Part{Header: []string{"queue", "filled in s", "messages/s", "MTA µs", "disk KiB", "RSS MiB", "disk MiB"}}
	for _, f := range r.Filled {
		filled.Rows = append(filled.Rows, []string{depthName(f.Depth), figure("%.1f", f.Elapsed.Seconds()), figure("%.0f", f.Rate), micros(f.CPU),
			figure("%.1f", f.Written/(1<<10)), fmt.Sprint(f.RSS >> 20), fmt.Sprint(f.Disk >> 20)})
	}
	all.Parts = append(all.Parts, filled)
	for k, kind := range depthKinds {
		part := result.Part{Header: []string{kind.name, "messages/s", "ratio", "least", "most", "MTA µs", "generator µs", "sink µs", "disk KiB",
			"messages/sync", "p50", "p99", "RSS MiB"}}
		for i, depth := range r.Depths {
			m, ratio := kind.of(&r.Median[i]), [][]Spread{r.AcceptRatio, r.RelayRatio}[k][i]
			part.Rows = append(part.Rows, []string{depthName(depth), fmt.Sprintf("%.0f", m.Rate), figure("%.3f", ratio.Median), figure("%.3f", ratio.Min),
				figure("%.3f", ratio.Max), micros(m.CPU), micros(m.GeneratorCPU), micros(m.SinkCPU), figure("%.1f", m.Written/(1<<10)),
				figure("%.1f", m.MessagesPerSync), console.Duration(m.P50), console.Duration(m.P99), fmt.Sprint(m.RSS >> 20)})
		}
		all.Parts = append(all.Parts, part)
		all.Charts = append(all.Charts, charts(r.rounds(kind))...)
	}
	return all
}

// DepthCommand is `mailrace bench depth`: it measures and presents the report.
func DepthCommand(ctx context.Context, o DepthOptions, out console.Output) error {
	o.Progress = out.Stderr
	r, err := RunDepth(ctx, o)
	if err != nil {
		return err
	}
	return present(out, &r)
}
