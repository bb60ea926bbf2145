package scenario

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailrace/bench/console"
	"mailrace/bench/ledger"
	"mailrace/bench/machine"
	"mailrace/bench/result"
)

// Numbers are settings that are tried, each once, the least first. As a flag they read "1,2,4".
type Numbers []int

const (
	numberMost = 4096 // of a setting
	nodesMost  = 64   // that run side by side
)

func (l Numbers) String() string { return Percents(l).String() }

// Set reads a list; it replaces what was there.
func (l *Numbers) Set(text string) error {
	var list Numbers
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 1 || n > numberMost {
			return fmt.Errorf("%q: want a number, 1..%d", part, numberMost)
		}
		list = append(list, n)
	}
	slices.Sort(list)
	*l = slices.Compact(list)
	return nil
}

// ShardsPoint is one way to set a node up, and to use it.
type ShardsPoint struct {
	Loops       int `json:"loops"`
	Shards      int `json:"shards"`
	Connections int `json:"connections"`
}

func (p ShardsPoint) String() string {
	return fmt.Sprintf("%d loops, %d shards, %d connections", p.Loops, p.Shards, p.Connections)
}

// ShardsOptions say what is tried. The zero value of each field means the default that its comment names.
type ShardsOptions struct {
	Options               // Rounds is 3 by default, Duration 2 s, Warmup 500 ms; its Loops, Shards and Connections do not count
	Loops, Shards Numbers // default for loops: 1 and the cores; for shards: 1, the cores and twice as many
	ConnectionsOf Numbers // the generator; default 20 and 200
	Relay         bool    // mail goes on to a sink; default: it is discarded once it is durable
}

// BindFlags declares the options as flags of `mailrace bench shards`.
//
//	--loops list   --shards list  --connections list  --relay      --rounds n   --duration d  --warmup d
//	--size mix     --memory size  --no-sync           --drain d    --dir path   --keep
//	--profile dir
func (o *ShardsOptions) BindFlags(fs *flag.FlagSet) {
	o.setTimes()
	bindSome(fs, &o.Options, "rounds", "duration", "warmup", "size", "memory", "no-sync", "drain", "dir", "keep", "profile")
	fs.Var(&o.Loops, "loops", "event loops: a `list` (default 1 and the cores)")
	fs.Var(&o.Shards, "shards", "spool shards: a `list` (default 1, the cores and twice as many)")
	fs.Var(&o.ConnectionsOf, "connections", "connections of the generator: a `list` (default 20,200)")
	fs.BoolVar(&o.Relay, "relay", o.Relay, "mail goes on to a sink, in place of being discarded once it is durable")
}

// setTimes fills in those defaults that are not the ones of Options.
func (o *ShardsOptions) setTimes() {
	if o.Duration == 0 {
		o.Duration = 2 * time.Second
	}
	if o.Warmup == 0 {
		o.Warmup = 500 * time.Millisecond
	}
}

func (o ShardsOptions) withDefaults() (_ ShardsOptions, err error) {
	cores := runtime.GOMAXPROCS(0)
	list := func(to *Numbers, values ...int) {
		if len(*to) == 0 {
			slices.Sort(values)
			*to = slices.Compact(values)
		}
	}
	list(&o.Loops, 1, cores)
	list(&o.Shards, 1, cores, 2*cores)
	list(&o.ConnectionsOf, 20, defaultConnections)
	o.setTimes()
	o.Options.Connections = slices.Max(o.ConnectionsOf)
	if o.Options, err = o.Options.withDefaults(); err != nil {
		return o, err
	}
	if n := len(o.nodes()); n > nodesMost {
		return o, fmt.Errorf("%d nodes for all loops and shards: want at most %d", n, nodesMost)
	}
	return o, nil
}

func (o *ShardsOptions) kind() Kind {
	if o.Relay {
		return Relay
	}
	return Accept
}

// nodes are the points that need a node of their own.
func (o *ShardsOptions) nodes() (all []ShardsPoint) {
	for _, loops := range o.Loops {
		for _, shards := range o.Shards {
			all = append(all, ShardsPoint{Loops: loops, Shards: shards})
		}
	}
	return all
}

// grid are all points.
func (o *ShardsOptions) grid() (all []ShardsPoint) {
	for _, n := range o.nodes() {
		for _, connections := range o.ConnectionsOf {
			n.Connections = connections
			all = append(all, n)
		}
	}
	return all
}

// ShardsReport is a finished sweep.
type ShardsReport struct {
	Kind     Kind          `json:"kind"`
	Grid     []ShardsPoint `json:"grid"`
	Sizes    string        `json:"sizes"`
	Sync     bool          `json:"sync"`
	Duration time.Duration `json:"duration_ns"`
	Rounds   []Round       `json:"rounds"` // by the points' texts, and the ceiling with each number of connections

	// What follows is made of the rounds.
	Median  Round          `json:"median"`
	Best    ShardsPoint    `json:"best"`  // of the highest median rate
	Close   []ShardsPoint  `json:"close"` // that were as fast as it in one of the rounds: which is better is not known
	Account ledger.Account `json:"account"`
	Notes   []string       `json:"notes"`
	Machine machine.Report `json:"machine"`
}

// summarize fills in what is made of the rounds.
func (r *ShardsReport) summarize() {
	all := Report{Rounds: r.Rounds}
	r.Median, r.Account, r.Notes, r.Close = Round{}, ledger.Account{}, nil, nil
	for _, p := range r.Grid {
		m := all.median(p.String())
		r.Median[p.String()], r.Account = m, r.Account.Add(m.Account)
		r.Notes = append(r.Notes, m.notes(p.String())...)
	}
	if len(r.Grid) == 0 {
		return
	}
	r.Best = slices.MaxFunc(r.Grid, func(a, b ShardsPoint) int {
		return int(r.Median[a.String()].Rate - r.Median[b.String()].Rate)
	})
	for _, p := range r.Grid {
		if p != r.Best && all.ratio(p.String(), r.Best.String()).Max >= 1 {
			r.Close = append(r.Close, p)
		}
	}
	for _, connections := range r.connections() {
		name := ceilingAt(connections)
		m := all.median(name)
		r.Median[name], r.Account = m, r.Account.Add(m.Account)
		r.Notes = append(append(r.Notes, m.notes(name)...), noise(name, rates(r.Rounds, name))...)
	}
	r.Notes = append(r.Notes, noise("best", rates(r.Rounds, r.Best.String()))...)
	r.Notes = append(r.Notes, misfortunes(r.Account)...)
}

// connections are those of the grid, each once.
func (r *ShardsReport) connections() (all []int) {
	for _, p := range r.Grid {
		all = append(all, p.Connections)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Result is the report for people: medians over the rounds, the fastest first, and what to write into a configuration.
func (r *ShardsReport) Result() result.Result {
	durable := "synced before its 250"
	if !r.Sync {
		durable = "NOT synced"
	}
	all := Report{Rounds: r.Rounds}
	table := result.Part{Header: []string{"loops", "shards", "connections", "messages/s", "ratio to the best", "least", "most", "to the ceiling", "MTA µs",
		"messages/sync", "p50", "p99", "RSS MiB"}}
	order := slices.Clone(r.Grid)
	slices.SortStableFunc(order, func(a, b ShardsPoint) int { return int(r.Median[b.String()].Rate - r.Median[a.String()].Rate) })
	var names []string
	for _, p := range order {
		m, ratio, null := r.Median[p.String()], all.ratio(p.String(), r.Best.String()), all.ratio(p.String(), ceilingAt(p.Connections))
		names = append(names, p.String())
		table.Rows = append(table.Rows, []string{strconv.Itoa(p.Loops), strconv.Itoa(p.Shards), strconv.Itoa(p.Connections), fmt.Sprintf("%.0f", m.Rate),
			fmt.Sprintf("%.3f", ratio.Median), fmt.Sprintf("%.3f", ratio.Min), fmt.Sprintf("%.3f", ratio.Max),
			figure("%.3f", null.Median), micros(m.CPU), figure("%.1f", m.MessagesPerSync),
			console.Duration(m.P50), console.Duration(m.P99), fmt.Sprint(m.RSS >> 20)})
	}
	lines := result.Part{Text: fmt.Sprintf("best here, with %d connections:\n\n[engine]\nloops = %d\n\n[spool]\nshards = %d", r.Best.Connections, r.Best.Loops,
		r.Best.Shards)}
	var facts []string
	if len(r.Close) > 0 {
		facts = append(facts, fmt.Sprintf("%d others were as fast in one of the rounds: which of them is better is not known", len(r.Close)))
	}
	return result.Result{Name: "shards", Lead: fmt.Sprintf("%s, %d rounds of %s at each point, %s, mail %s", r.Kind, len(r.Rounds), r.Duration, r.Sizes, durable),
		Parts: []result.Part{table, lines}, Facts: append(facts, accounting(r.Account, r.Kind == Relay)), Notes: r.Notes, Machine: &r.Machine,
		Charts: charts(r.Rounds, names[:min(len(names), shardsCharted)])}
}

// shardsCharted is how many points the charts have, of the fastest.
const shardsCharted = 4

func (r *ShardsReport) fault() error { return accountFault(r.Account) }

// ShardsCommand is `mailrace bench shards`: it measures and presents the report.
func ShardsCommand(ctx context.Context, o ShardsOptions, out console.Output) error {
	o.Progress = out.Stderr
	r, err := RunShards(ctx, o)
	if err != nil {
		return err
	}
	return present(out, &r)
}
