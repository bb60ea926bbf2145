package scenario

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"mailrace/bench/console"
	"mailrace/bench/load"
	"mailrace/bench/machine"
	"mailrace/bench/result"
)

// defaultSlow is the deadline of slow clients.
const defaultSlow = 5 * time.Second

// IdleOptions say how many connections are idle, and what is sent beside them. The zero value of each field means the default that its
// comment names.
type IdleOptions struct {
	Program     []string      // command of the mailrace binary. Required
	Connections int           // idle ones; default 50,000
	TLS         bool          // all connections are under TLS 1.3
	Limit       int           // most bytes that one may cost in the node; default 10 KiB in clear, 40 KiB under TLS
	Rounds      int           // each measures a node without them and one with them; default 5
	Duration    time.Duration // of the load on each; default 5 s
	Warmup      time.Duration // of load before it that is not measured; default 1 s
	Senders     int           // connections of the sender; default 50
	Sizes       load.Sizes    // of what it sends; default 10 KiB
	SlowClients int           // of each kind; default 100
	Deadline    time.Duration // that they are given; default 5 s
	Dir         string        // where spools are made, and removed again; default the current directory
	Keep        bool          // leave configuration, logs and spool behind
	Profile     string        // directory in which profiles of the nodes are left; "" = none are taken

	Progress io.Writer // nil = silent
}

// BindFlags declares the options as flags of `mailrace bench idle`.
//
//	--connections n  --tls            --limit octets  --rounds n       --duration d  --warmup d  --senders n  --size mix
//	--slow n         --deadline d     --dir path      --keep  --profile dir
func (o *IdleOptions) BindFlags(fs *flag.FlagSet) {
	fs.IntVar(&o.Connections, "connections", cmp.Or(o.Connections, 50_000), "idle connections")
	fs.BoolVar(&o.TLS, "tls", o.TLS, "all connections are under TLS 1.3")
	fs.IntVar(&o.Limit, "limit", o.Limit, "most `octets` that an idle connection may cost in the node (default 10240, with --tls 40960)")
	fs.IntVar(&o.Rounds, "rounds", cmp.Or(o.Rounds, defaultRounds), "rounds; each measures a node without idle connections and one with them")
	fs.DurationVar(&o.Duration, "duration", cmp.Or(o.Duration, defaultDuration), "load on each in a round")
	fs.DurationVar(&o.Warmup, "warmup", cmp.Or(o.Warmup, defaultWarmup), "load before it that is not measured")
	fs.IntVar(&o.Senders, "senders", cmp.Or(o.Senders, 50), "connections of the sender")
	fs.Var(&o.Sizes, "size", "octets of a message, or a `mix` such as 4KiB:70,30KiB:25 (default 10KiB)")
	fs.IntVar(&o.SlowClients, "slow", cmp.Or(o.SlowClients, 100), "slow clients of each kind")
	fs.DurationVar(&o.Deadline, "deadline", cmp.Or(o.Deadline, defaultSlow), "deadline that slow clients are given")
	bindPlace(fs, &o.Dir, &o.Keep, &o.Profile)
}

func (o IdleOptions) withDefaults() (IdleOptions, error) {
	o.Connections = cmp.Or(o.Connections, 50_000)
	o.Rounds = cmp.Or(o.Rounds, defaultRounds)
	o.Duration = cmp.Or(o.Duration, defaultDuration)
	o.Warmup = cmp.Or(o.Warmup, defaultWarmup)
	o.Senders = cmp.Or(o.Senders, 50)
	o.SlowClients = cmp.Or(o.SlowClients, 100)
	o.Deadline = cmp.Or(o.Deadline, defaultSlow)
	if o.Limit == 0 {
		if o.Limit = 10 << 10; o.TLS {
			o.Limit = 40 << 10
		}
	}
	if err := setPlace(o.Program, &o.Dir, &o.Sizes, 10<<10, &o.Progress); err != nil {
		return o, err
	}
	switch {
	case o.Connections < 0 || o.Rounds < 0 || o.Duration < 0 || o.Warmup < 0 || o.Senders < 0 || o.SlowClients < 0 || o.Limit < 0:
		return o, errors.New("counts, times and the limit must be above 0")
	case o.Deadline < time.Second || o.Deadline > time.Minute:
		return o, errors.New("deadline: want 1s to 1m")
	}
	return o, nil
}

// IdleMeasure is what a sender met.
type IdleMeasure struct {
	Rate float64       `json:"messages_per_second"`
	CPU  float64       `json:"mta_cpu_us"` // microseconds of the MTA per message
	P99  time.Duration `json:"p99_ns"`
	RSS  int64         `json:"rss_bytes"` // of the node, at the end

	GeneratorBusy float64 `json:"generator_busy"` // share of one core

	Samples []Sample        `json:"samples,omitempty"`
	Curve   []time.Duration `json:"curve_ns,omitempty"` // of the replies, at latency.Shares
}

// IdleRound is one round.
type IdleRound struct {
	Alone  IdleMeasure `json:"alone"`  // at a node without idle connections
	Beside IdleMeasure `json:"beside"` // at a node with its share of them
}

// IdleReport is a finished measurement of idle connections.
type IdleReport struct {
	Connections int            `json:"connections"` // idle ones, at all nodes together
	TLS         bool           `json:"tls"`
	Nodes       int            `json:"nodes"`            // that they are spread over, because of Files
	Files       int            `json:"files"`            // that a process may open on this machine
	Before      int64          `json:"rss_before_bytes"` // of all nodes
	After       int64          `json:"rss_after_bytes"`
	End         int64          `json:"rss_end_bytes"` // after the rounds
	Each        int64          `json:"bytes_per_connection"`
	Limit       int            `json:"limit_bytes"`
	Left        int            `json:"left"` // idle connections that were still up at the end
	Senders     int            `json:"senders"`
	Duration    time.Duration  `json:"duration_ns"`
	Rounds      []IdleRound    `json:"rounds"`
	Ratio       Spread         `json:"ratio"` // of the rate beside the idle connections to that without
	Slow        []SlowClients  `json:"slow"`
	Notes       []string       `json:"notes"`
	Machine     machine.Report `json:"machine"`
}

func (r *IdleReport) summarize() {
	var ratios []float64
	for _, round := range r.Rounds {
		ratios = append(ratios, round.Beside.Rate/round.Alone.Rate)
	}
	r.Ratio = spreadOf(ratios)
	rounds, names := r.rounds()
	r.Notes = noise("sender alone", rates(rounds, names[0]))
	all := Report{Rounds: rounds}
	for _, name := range names {
		m := all.median(name)
		r.Notes = append(r.Notes, m.notes(name)...)
	}
}

// What a measurement of idle connections ends with when it shows what must not be.
var (
	ErrIdleCost = errors.New("idle connections cost too much")
	ErrIdleLost = errors.New("idle connections were lost")
	ErrSlow     = errors.New("slow clients are still there")
)

// fault is what the report shows that must not be. Times are not judged.
func (r *IdleReport) fault() error {
	var errs []error
	if r.Each > int64(r.Limit) {
		errs = append(errs, fmt.Errorf("%w: %d bytes each, want at most %d", ErrIdleCost, r.Each, r.Limit))
	}
	if r.Left != r.Connections {
		errs = append(errs, fmt.Errorf("%w: %d of %d are left", ErrIdleLost, r.Left, r.Connections))
	}
	for _, s := range r.Slow {
		if s.Gone != s.Clients {
			errs = append(errs, fmt.Errorf("%w: %d of %d, in the %s", ErrSlow, s.Clients-s.Gone, s.Clients, s.Kind))
		}
	}
	return errors.Join(errs...)
}

// rounds are the measures under names.
func (r *IdleReport) rounds() (rounds []Round, names []string) {
	names = []string{"alone", "beside the idle"}
	for _, round := range r.Rounds {
		named := Round{}
		for i, m := range []IdleMeasure{round.Alone, round.Beside} {
			named[names[i]] = Measure{Rate: m.Rate, GeneratorBusy: m.GeneratorBusy, Samples: m.Samples, Curve: m.Curve}
		}
		rounds = append(rounds, named)
	}
	return rounds, names
}

// Result is the report for people.
func (r *IdleReport) Result() result.Result {
	kind := "in clear"
	if r.TLS {
		kind = "under TLS 1.3"
	}
	mib := func(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }
	median := func(of func(*IdleRound) float64) float64 {
		var values []float64
		for i := range r.Rounds {
			values = append(values, of(&r.Rounds[i]))
		}
		return middle(values)
	}
	rows := [][]string{
		{"RSS of the nodes before", mib(r.Before)}, {"with the idle connections", mib(r.After)}, {"after the rounds", mib(r.End)},
		{"bytes for each connection", fmt.Sprintf("%d (limit %d)", r.Each, r.Limit)},
		{"still up at the end", console.Count(uint64(r.Left))},
		{"sender alone, messages/s", fmt.Sprintf("%.0f", median(func(x *IdleRound) float64 { return x.Alone.Rate }))},
		{"beside them", fmt.Sprintf("%.0f", median(func(x *IdleRound) float64 { return x.Beside.Rate }))},
		{"MTA µs per message, alone", micros(median(func(x *IdleRound) float64 { return x.Alone.CPU }))},
		{"beside them", micros(median(func(x *IdleRound) float64 { return x.Beside.CPU }))},
		{"ratio of the rates", fmt.Sprintf("%.3f (%.3f to %.3f in %d rounds)", r.Ratio.Median, r.Ratio.Min, r.Ratio.Max, len(r.Rounds))},
	}
	for _, s := range r.Slow {
		rows = append(rows, []string{"slow in the " + s.Kind, s.String()})
	}
	rounds, names := r.rounds()
	return result.Result{Name: "idle", Lead: fmt.Sprintf("%s connections %s, held by %d nodes (a process may open %s files here)",
		console.Count(uint64(r.Connections)), kind, r.Nodes, console.Count(uint64(r.Files))), Parts: []result.Part{{Header: []string{"", ""}, Rows: rows}},
		Notes: r.Notes, Machine: &r.Machine, Charts: charts(rounds, names)}
}

// IdleCommand is `mailrace bench idle`: it measures and presents the report.
func IdleCommand(ctx context.Context, o IdleOptions, out console.Output) error {
	o.Progress = out.Stderr
	r, err := RunIdle(ctx, o)
	if err != nil {
		return err
	}
	return present(out, &r)
}
