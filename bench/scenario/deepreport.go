package scenario

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"time"

	"mailrace/bench/console"
	"mailrace/bench/ledger"
	"mailrace/bench/load"
	"mailrace/bench/machine"
	"mailrace/bench/result"
)

// DeepOptions say how long the queues are. The zero value of each field means the default that its comment names.
type DeepOptions struct {
	Program     []string      // command of the mailrace binary. Required
	Depths      Depths        // messages behind the closed destination; default 100,000 and 1,000,000
	Rounds      int           // each measures every depth, on a node of its own; default 5
	Duration    time.Duration // of plain relaying before; default 3 s
	Warmup      time.Duration // of that, before it is measured; default 500 ms
	Retry       time.Duration // between two attempts of the node; default 5 s
	Connections int           // of the generator; default 200
	Sizes       load.Sizes    // of all messages; default 2 KiB
	Loops       int           // event loops of the node; 0 = its default
	Shards      int           // its spool shards; 0 = its default
	Memory      string        // its budget, as in its configuration; "" = its default
	NoSync      bool          // it does not wait for the disk
	Drain       time.Duration // how long the sink may see nothing new before what is missing counts as lost; default 30 s
	Dir         string        // where spools are made, and removed again; default the current directory
	Keep        bool          // leave configuration, logs and spools behind
	Profile     string        // directory in which profiles of the nodes are left; "" = none are taken

	Progress io.Writer // nil = silent
}

const (
	deepDuration = 3 * time.Second
	deepRetry    = 5 * time.Second
	deepDrain    = 30 * time.Second
)

// BindFlags declares the options as flags of `mailrace bench deep`.
//
//	--depth list  --rounds n  --duration d  --warmup d     --retry d  --connections n  --size mix
//	--loops n     --shards n  --memory size --no-sync      --drain d  --dir path       --keep  --profile dir
func (o *DeepOptions) BindFlags(fs *flag.FlagSet) {
	fs.Var(&o.Depths, "depth", "`list` of messages behind the closed destination, a node each (default 100000,1000000)")
	fs.IntVar(&o.Rounds, "rounds", cmp.Or(o.Rounds, defaultRounds), "rounds; each measures every depth")
	fs.DurationVar(&o.Duration, "duration", cmp.Or(o.Duration, deepDuration), "of plain relaying before")
	fs.DurationVar(&o.Warmup, "warmup", cmp.Or(o.Warmup, depthWarmup), "of that, before it is measured")
	fs.DurationVar(&o.Retry, "retry", cmp.Or(o.Retry, deepRetry), "between two attempts of the node")
	fs.IntVar(&o.Connections, "connections", cmp.Or(o.Connections, defaultConnections), "connections of the generator")
	fs.Var(&o.Sizes, "size", "octets of a message, or a `mix` such as 4KiB:70,30KiB:25 (default 2KiB)")
	bindNode(fs, &o.Loops, &o.Shards, &o.Memory, &o.NoSync)
	fs.DurationVar(&o.Drain, "drain", cmp.Or(o.Drain, deepDrain), "how long nothing may arrive before what is missing counts as lost")
	bindPlace(fs, &o.Dir, &o.Keep, &o.Profile)
}

func (o DeepOptions) withDefaults() (DeepOptions, error) {
	if len(o.Depths) == 0 {
		o.Depths = Depths{100_000, 1_000_000}
	}
	if len(o.Sizes) == 0 {
		o.Sizes = load.Sizes{{Octets: 2 << 10, Weight: 1}}
	}
	o.Rounds, o.Duration, o.Warmup = cmp.Or(o.Rounds, defaultRounds), cmp.Or(o.Duration, deepDuration), cmp.Or(o.Warmup, depthWarmup)
	o.Retry, o.Drain = cmp.Or(o.Retry, deepRetry), cmp.Or(o.Drain, deepDrain)
	rest, err := o.options().withDefaults()
	if err != nil {
		return o, err
	}
	o.Connections, o.Dir, o.Progress = rest.Connections, rest.Dir, rest.Progress
	if slices.Min(o.Depths) < 1 || slices.Max(o.Depths) > depthMost {
		return o, fmt.Errorf("depths: want 1..%d messages", depthMost)
	}
	return o, nil
}

// options are those of the node, and of plain relaying.
func (o *DeepOptions) options() Options {
	return Options{Program: o.Program, Rounds: o.Rounds, Duration: o.Duration, Warmup: o.Warmup, Connections: o.Connections, Sizes: o.Sizes, Recipients: 1,
		Loops: o.Loops, Shards: o.Shards, Memory: o.Memory, NoSync: o.NoSync, Drain: o.Drain, Backlog: defaultBacklog, Dir: o.Dir, Profile: o.Profile, Progress: o.Progress}
}

// filling are those of the filling. What is between two attempts is held as well.
func (o *DeepOptions) filling() *DepthOptions {
	return &DepthOptions{Program: o.Program, Connections: o.Connections, Held: o.Sizes, Slow: true, Drain: o.Drain, Progress: o.Progress}
}

// DeepRound has the measures of a round, by depth.
type DeepRound []DeepMeasure

// DeepReport is a finished measurement of queues that drain.
type DeepReport struct {
	Depths      Depths        `json:"depths"`
	Sizes       string        `json:"sizes"`
	Connections int           `json:"connections"`
	Duration    time.Duration `json:"duration_ns"` // of plain relaying
	Retry       time.Duration `json:"retry_ns"`
	Sync        bool          `json:"sync"`
	Rounds      []DeepRound   `json:"rounds"`

	// What follows is made of the rounds.
	Ratio   []Spread       `json:"ratio"` // by depth: rate of the drain to that of plain relaying by the same node
	Account ledger.Account `json:"account"`
	Notes   []string       `json:"notes"`
	Machine machine.Report `json:"machine"`
}

// column is one measure of a depth over the rounds.
func (r *DeepReport) column(i int, of func(*DeepMeasure) *Measure) (all []Measure) {
	for _, round := range r.Rounds {
		all = append(all, *of(&round[i]))
	}
	return all
}

func plainOf(m *DeepMeasure) *Measure { return &m.Plain }
func drainOf(m *DeepMeasure) *Measure { return &m.Drain }

// summarize fills in what is made of the rounds.
func (r *DeepReport) summarize() {
	r.Ratio, r.Account, r.Notes = nil, ledger.Account{}, nil
	var plain []float64
	for i, depth := range r.Depths {
		r.Ratio = append(r.Ratio, ratios(r.column(i, drainOf), r.column(i, plainOf)))
		drain := medianOf(r.column(i, drainOf))
		r.Notes = append(r.Notes, drain.notes("queue "+depthName(depth))...)
		for _, round := range r.Rounds {
			r.Account = r.Account.Add(round[i].account())
			plain = append(plain, round[i].Plain.Rate)
		}
	}
	r.Notes = append(r.Notes, noise("plain relaying", plain)...)
	r.Notes = append(r.Notes, misfortunes(r.Account)...)
}

// fault is what the report shows that must not be.
func (r *DeepReport) fault() error {
	errs := []error{accountFault(r.Account)}
	for _, round := range r.Rounds {
		for _, m := range round {
			if held := m.Drain.Account.Acknowledged; held != uint64(m.Filled.Depth) || m.Filled.Left != 0 {
				errs = append(errs, fmt.Errorf("%w: %d of %d messages at first, %d at the end", ErrHeld, held, m.Filled.Depth, m.Filled.Left))
			}
		}
	}
	return errors.Join(errs...)
}

// Result is the report for people: medians over the rounds.
func (r *DeepReport) Result() result.Result {
	durable := "synced before its 250"
	if !r.Sync {
		durable = "NOT synced"
	}
	table := result.Part{Header: []string{"queue", "filled/s", "RSS MiB", "first after", "drained in", "messages/s", "plain/s", "ratio", "least", "most", "MTA µs", "plain µs",
		"sink µs", "messages/sync", "disk KiB", "most RSS MiB"}}
	rounds, names := make([]Round, len(r.Rounds)), []string(nil)
	for i, depth := range r.Depths {
		plain, drain := medianOf(r.column(i, plainOf)), medianOf(r.column(i, drainOf))
		of := func(figure func(*DeepMeasure) float64) float64 {
			var values []float64
			for _, round := range r.Rounds {
				values = append(values, figure(&round[i]))
			}
			return middle(values)
		}
		table.Rows = append(table.Rows, []string{depthName(depth), figure("%.0f", of(func(m *DeepMeasure) float64 { return m.Filled.Rate })),
			fmt.Sprintf("%.0f", of(func(m *DeepMeasure) float64 { return float64(m.Filled.RSS >> 20) })),
			console.Duration(time.Duration(of(func(m *DeepMeasure) float64 { return float64(m.First) }))), console.Duration(drain.Elapsed),
			fmt.Sprintf("%.0f", drain.Rate), fmt.Sprintf("%.0f", plain.Rate), figure("%.3f", r.Ratio[i].Median), figure("%.3f", r.Ratio[i].Min),
			figure("%.3f", r.Ratio[i].Max), micros(drain.CPU), micros(plain.CPU), micros(drain.SinkCPU), figure("%.1f", drain.MessagesPerSync),
			figure("%.1f", drain.Written/(1<<10)), fmt.Sprint(drain.RSSPeak >> 20)})
		name := "queue " + depthName(depth)
		names = append(names, name+", plain", name)
		for n, round := range r.Rounds {
			if rounds[n] == nil {
				rounds[n] = Round{}
			}
			rounds[n][name+", plain"], rounds[n][name] = round[i].Plain, round[i].Drain
		}
	}
	return result.Result{Name: "deep", Lead: fmt.Sprintf("%d rounds of queues behind a destination that was closed, and opens; %s of plain relaying before, %s, %d connections, tried every %s, mail %s",
		len(r.Rounds), r.Duration, r.Sizes, r.Connections, r.Retry, durable), Parts: []result.Part{table}, Facts: []string{accounting(r.Account, true)}, Notes: r.Notes,
		Machine: &r.Machine, Charts: charts(rounds, names)}
}

// DeepCommand is `mailrace bench deep`: it measures and presents the report.
func DeepCommand(ctx context.Context, o DeepOptions, out console.Output) error {
	o.Progress = out.Stderr
	r, err := RunDeep(ctx, o)
	if err != nil {
		return err
	}
	return present(out, &r)
}
