package scenario

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailrace/bench/console"
	"mailrace/bench/latency"
	"mailrace/bench/ledger"
	"mailrace/bench/machine"
	"mailrace/bench/result"
)

// Percents are shares in percent, each once, the least first. As a flag they read "25,50,75,90".
type Percents []int

func (p Percents) String() string {
	parts := make([]string, len(p))
	for i, n := range p {
		parts[i] = strconv.Itoa(n)
	}
	return strings.Join(parts, ",")
}

// Set reads a list; it replaces what was there.
func (p *Percents) Set(text string) error {
	var list Percents
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 1 || n > 200 {
			return fmt.Errorf("share %q: want a number of percent, 1..200", part)
		}
		list = append(list, n)
	}
	slices.Sort(list)
	*p = slices.Compact(list)
	return nil
}

// LatencyOptions say at what rates latencies are measured, and of what. The zero value of each field means the default that its comment names.
type LatencyOptions struct {
	Options          // Rounds is 3 by default
	Shares  Percents // of the most that the MTA accepts; default 25, 50, 75, 90
	Relay   bool     // mail goes on to a sink; default: it is discarded once it is durable
}

// BindFlags declares the options as flags of `mailrace bench latency`: those of `mailrace bench accept`, and
//
//	--shares list  --relay
func (o *LatencyOptions) BindFlags(fs *flag.FlagSet) {
	BindFlags(fs, &o.Options)
	fs.Var(&o.Shares, "shares", "`percents` of the most that the MTA accepts, to be sent at fixed times (default 25,50,75,90)")
	fs.BoolVar(&o.Relay, "relay", o.Relay, "mail goes on to a sink, in place of being discarded once it is durable")
}

func (o LatencyOptions) withDefaults() (_ LatencyOptions, err error) {
	if len(o.Shares) == 0 {
		o.Shares = Percents{25, 50, 75, 90}
	}
	o.Options, err = o.Options.withDefaults()
	return o, err
}

func (o *LatencyOptions) kind() Kind {
	if o.Relay {
		return Relay
	}
	return Accept
}

// LatencyReport is a finished measurement of latencies. They count from when a message was due, so that a stall is not hidden by a generator that
// waits for it; only in Ceiling and Most from the envelope.
type LatencyReport struct {
	Kind        Kind          `json:"kind"`
	Shares      Percents      `json:"shares_percent"`
	Connections int           `json:"connections"`
	Sizes       string        `json:"sizes"`
	Sync        bool          `json:"sync"`
	Duration    time.Duration `json:"duration_ns"`
	Rounds      []Round       `json:"rounds"` // by Ceiling, Most, "25%" and so on

	// What follows is made of the rounds.
	Median  Round          `json:"median"` // of each figure by itself
	Ratio   Spread         `json:"ratio"`  // rate of Most to that of the null ceiling in the same round
	Account ledger.Account `json:"account"`
	Notes   []string       `json:"notes"`
	Machine machine.Report `json:"machine"`
}

// names are those of what was measured in a round, in its order.
func (r *LatencyReport) names() []string {
	names := []string{Ceiling, Most}
	for _, share := range r.Shares {
		names = append(names, shareName(share))
	}
	return names
}

// summarize fills in what is made of the rounds.
func (r *LatencyReport) summarize() {
	all := Report{Rounds: r.Rounds}
	r.Median, r.Account, r.Notes = Round{}, ledger.Account{}, nil
	for _, name := range r.names() {
		m := all.median(name)
		r.Median[name], r.Account = m, r.Account.Add(m.Account)
		r.Notes = append(r.Notes, m.notes(name)...)
		if sent := m.Messages + m.Refused; m.Due > sent+m.Due/100 { // a few are due in the last moment
			r.Notes = append(r.Notes, fmt.Sprintf("%s: %d of %d messages were due and not sent in time: the MTA did not keep the rate, and they are in no latency",
				name, m.Due-sent, m.Due))
		}
	}
	r.Ratio = all.ratio(Most, Ceiling)
	r.Notes = append(r.Notes, noise("closed loop", rates(r.Rounds, Most))...)
	r.Notes = append(r.Notes, misfortunes(r.Account)...)
}

// latencyColumns are the shares of messages that the table has a column for. The longest comes behind.
var latencyColumns = []struct {
	name  string
	share float64
}{{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999}}

// Result is the report for people: medians over the rounds.
func (r *LatencyReport) Result() result.Result {
	durable := "synced before its 250"
	if !r.Sync {
		durable = "NOT synced"
	}
	table := result.Part{Header: []string{"", "messages/s", "MTA µs", "generator µs"}}
	for _, c := range latencyColumns {
		table.Header = append(table.Header, c.name)
	}
	table.Header = append(table.Header, "max")
	for _, name := range r.names() {
		m := r.Median[name]
		row := []string{name, fmt.Sprintf("%.0f", m.Rate), micros(m.CPU), micros(m.GeneratorCPU)}
		for _, c := range latencyColumns {
			cell, i := "–", slices.Index(latency.Shares, c.share)
			if i < len(m.Curve) {
				cell = console.Duration(m.Curve[i])
			}
			row = append(row, cell)
		}
		table.Rows = append(table.Rows, append(row, console.Duration(m.Max)))
	}
	goes := "is discarded once it is durable"
	if r.Kind == Relay {
		goes = "goes on to a sink"
	}
	return result.Result{Name: "latency", Lead: fmt.Sprintf("replies to mail that %s, %d rounds of %s at each rate, %d connections, %s, %s", goes,
		len(r.Rounds), r.Duration, r.Connections, r.Sizes, durable), Parts: []result.Part{table},
		Facts: []string{fmt.Sprintf("ratio of \"most\" to the ceiling: %.3f (%.3f to %.3f in %d paired rounds)", r.Ratio.Median, r.Ratio.Min, r.Ratio.Max, len(r.Rounds)),
			"latencies count from when a message was due, at fixed times; of \"ceiling\" and \"most\", which wait for replies, from the envelope",
			accounting(r.Account, r.Kind == Relay)},
		Notes: r.Notes, Machine: &r.Machine, Charts: charts(r.Rounds, r.names())}
}

func (r *LatencyReport) fault() error { return accountFault(r.Account) }

// LatencyCommand is `mailrace bench latency`: it measures and presents the report.
func LatencyCommand(ctx context.Context, o LatencyOptions, out console.Output) error {
	o.Progress = out.Stderr
	r, err := RunLatency(ctx, o)
	if err != nil {
		return err
	}
	return present(out, &r)
}
