package scenario

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"mailrace/bench/chart"
	"mailrace/bench/console"
	"mailrace/bench/ledger"
	"mailrace/bench/load"
	"mailrace/bench/machine"
	"mailrace/bench/result"
)

// RestartOptions say how long the queue is. The zero value of each field means the default that its comment names.
type RestartOptions struct {
	Program     []string      // command of the mailrace binary. Required
	Messages    int           // in the queue; default 100,000
	Rounds      int           // each kills a node, and stops one; default 5
	Connections int           // of the generator that fills the queue; default 200
	Sizes       load.Sizes    // of the messages; default 2 KiB
	Loops       int           // event loops of the node; 0 = its default
	Shards      int           // its spool shards; 0 = its default
	Memory      string        // its budget, as in its configuration; "" = its default
	NoSync      bool          // it does not wait for the disk
	Drain       time.Duration // how long the sink may see nothing new before what is missing counts as lost; default 10 s
	Dir         string        // where spools are made, and removed again; default the current directory
	Keep        bool          // leave configuration, logs and spools behind
	Profile     string        // directory in which profiles of the nodes are left; "" = none are taken

	Progress io.Writer // nil = silent
}

// BindFlags declares the options as flags of `mailrace bench restart`.
//
//	--messages n   --rounds n   --connections n  --size mix  --loops n  --shards n
//	--memory size  --no-sync    --drain d        --dir path --keep  --profile dir
func (o *RestartOptions) BindFlags(fs *flag.FlagSet) {
	fs.IntVar(&o.Messages, "messages", cmp.Or(o.Messages, 100_000), "messages in the queue")
	fs.IntVar(&o.Rounds, "rounds", cmp.Or(o.Rounds, defaultRounds), "rounds; each kills a node, and stops one")
	fs.IntVar(&o.Connections, "connections", cmp.Or(o.Connections, defaultConnections), "connections of the generator that fills the queue")
	fs.Var(&o.Sizes, "size", "octets of a message, or a `mix` such as 1KiB:70,20KiB:30 (default 2KiB)")
	bindNode(fs, &o.Loops, &o.Shards, &o.Memory, &o.NoSync)
	fs.DurationVar(&o.Drain, "drain", cmp.Or(o.Drain, defaultDrain), "how long nothing may arrive before what is missing counts as lost")
	bindPlace(fs, &o.Dir, &o.Keep, &o.Profile)
}

func (o RestartOptions) withDefaults() (RestartOptions, error) {
	o.Messages, o.Rounds = cmp.Or(o.Messages, 100_000), cmp.Or(o.Rounds, defaultRounds)
	if len(o.Sizes) == 0 {
		o.Sizes = load.Sizes{{Octets: 2 << 10, Weight: 1}}
	}
	rest, err := o.options().withDefaults()
	if err != nil {
		return o, err
	}
	o.Connections, o.Drain, o.Dir, o.Progress = rest.Connections, rest.Drain, rest.Dir, rest.Progress
	if o.Messages < 1 || o.Messages > depthMost {
		return o, fmt.Errorf("messages: want 1..%d", depthMost)
	}
	return o, nil
}

// options are those of the node.
func (o *RestartOptions) options() Options {
	return Options{Program: o.Program, Rounds: o.Rounds, Connections: o.Connections, Sizes: o.Sizes, Recipients: 1, Loops: o.Loops, Shards: o.Shards,
		Memory: o.Memory, NoSync: o.NoSync, Drain: o.Drain, Dir: o.Dir, Profile: o.Profile, Progress: o.Progress}
}

// RestartMeasure is one start with a queue. Times count from when the process was started.
type RestartMeasure struct {
	Filled    float64        `json:"filled_per_second"`
	Ended     time.Duration  `json:"ended_ns"`     // from the signal to the end of the process before
	Listening time.Duration  `json:"listening_ns"` // until it took a connection
	Accepted  time.Duration  `json:"accepted_ns"`  // until it had acknowledged a message that came over it
	Delivered time.Duration  `json:"delivered_ns"` // until the first message of the queue was delivered
	All       time.Duration  `json:"all_ns"`       // until all of them were
	Rate      float64        `json:"delivered_per_second"`
	RSSPeak   int64          `json:"rss_peak_bytes"`
	Account   ledger.Account `json:"account"`

	Samples []Sample  `json:"samples,omitempty"` // from when it had accepted a message
	began   time.Time // when the process was started
}

// String is the measure as one line of progress.
func (m *RestartMeasure) String() string {
	return fmt.Sprintf("listening after %s, accepted %s, delivered %s, all %s (%.0f/s), %d lost, %d doubled", console.Duration(m.Listening),
		console.Duration(m.Accepted), console.Duration(m.Delivered), console.Duration(m.All), m.Rate, m.Account.Lost, m.Account.Doubled)
}

// RestartRound is one round.
type RestartRound struct {
	Kill RestartMeasure `json:"kill"` // by SIGKILL
	Stop RestartMeasure `json:"stop"` // by SIGTERM
}

// RestartReport is a finished measurement of starts with a queue.
type RestartReport struct {
	Messages int            `json:"messages"`
	Sizes    string         `json:"sizes"`
	Sync     bool           `json:"sync"`
	Rounds   []RestartRound `json:"rounds"`

	// What follows is made of the rounds.
	Account ledger.Account `json:"account"`
	Notes   []string       `json:"notes"`
	Machine machine.Report `json:"machine"`
}

// summarize fills in what is made of the rounds.
func (r *RestartReport) summarize() {
	r.Account, r.Notes = ledger.Account{}, nil
	for _, round := range r.Rounds {
		r.Account = r.Account.Add(round.Kill.Account).Add(round.Stop.Account)
	}
	r.Notes = append(r.Notes, misfortunes(r.Account)...)
}

// Result is the report for people: medians over the rounds.
func (r *RestartReport) Result() result.Result {
	durable := "synced before its 250"
	if !r.Sync {
		durable = "NOT synced"
	}
	table := result.Part{Header: []string{"after", "ended in", "listening", "first accept", "first delivery", "all delivered", "messages/s", "RSS MiB"}}
	for _, way := range []struct {
		name string
		of   func(*RestartRound) *RestartMeasure
	}{{"kill -9", func(r *RestartRound) *RestartMeasure { return &r.Kill }}, {"stop", func(r *RestartRound) *RestartMeasure { return &r.Stop }}} {
		median := func(figure func(*RestartMeasure) float64) float64 {
			var values []float64
			for i := range r.Rounds {
				values = append(values, figure(way.of(&r.Rounds[i])))
			}
			return middle(values)
		}
		row := []string{way.name}
		for _, of := range []func(*RestartMeasure) time.Duration{func(m *RestartMeasure) time.Duration { return m.Ended },
			func(m *RestartMeasure) time.Duration { return m.Listening }, func(m *RestartMeasure) time.Duration { return m.Accepted },
			func(m *RestartMeasure) time.Duration { return m.Delivered }, func(m *RestartMeasure) time.Duration { return m.All }} {
			row = append(row, console.Duration(time.Duration(median(func(m *RestartMeasure) float64 { return float64(of(m)) }))))
		}
		table.Rows = append(table.Rows, append(row, fmt.Sprintf("%.0f", median(func(m *RestartMeasure) float64 { return m.Rate })),
			fmt.Sprintf("%.0f", median(func(m *RestartMeasure) float64 { return float64(m.RSSPeak >> 20) }))))
	}
	return result.Result{Name: "restart", Lead: fmt.Sprintf("%d rounds with %s messages of %s in the queue, mail %s; times from the start of the process",
		len(r.Rounds), console.Count(uint64(r.Messages)), r.Sizes, durable), Parts: []result.Part{table}, Facts: []string{accounting(r.Account, true)},
		Notes: r.Notes, Machine: &r.Machine, Charts: r.charts()}
}

// charts draws how the queues were worked off.
func (r *RestartReport) charts() []chart.Chart {
	names := []string{"after kill -9", "after stop"}
	var rounds []Round
	for i := range r.Rounds {
		rounds = append(rounds, Round{names[0]: {Samples: r.Rounds[i].Kill.Samples}, names[1]: {Samples: r.Rounds[i].Stop.Samples}})
	}
	return charts(rounds, names)
}

func (r *RestartReport) fault() error {
	if want := uint64(2 * len(r.Rounds) * r.Messages); r.Account.Acknowledged != want {
		return errors.Join(accountFault(r.Account), fmt.Errorf("%w: %d in place of %d messages", ErrHeld, r.Account.Acknowledged, want))
	}
	return accountFault(r.Account)
}

// RestartCommand is `mailrace bench restart`: it measures and presents the report.
func RestartCommand(ctx context.Context, o RestartOptions, out console.Output) error {
	o.Progress = out.Stderr
	r, err := RunRestart(ctx, o)
	if err != nil {
		return err
	}
	return present(out, &r)
}
