package scenario

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"mailrace/bench/console"
	"mailrace/bench/ledger"
	"mailrace/bench/load"
	"mailrace/bench/machine"
	"mailrace/bench/result"
)

// RoundTrips are times for the way to the sink and back. The shortest is what the others are compared with.
type RoundTrips []time.Duration

// defaultRTTs are those of a loopback, of a continent, and of the other side of the world.
var defaultRTTs = RoundTrips{0, 20 * time.Millisecond, 100 * time.Millisecond}

// roundTripMost is the longest.
const roundTripMost = 10 * time.Second

// String prints the list as Set reads it.
func (t *RoundTrips) String() string {
	var parts []string
	for _, rtt := range *t {
		parts = append(parts, rtt.String())
	}
	return strings.Join(parts, ",")
}

// Set reads a list; it replaces what was there. No delay is always among them.
func (t *RoundTrips) Set(text string) error {
	list := RoundTrips{0}
	for part := range strings.SplitSeq(text, ",") {
		rtt, err := time.ParseDuration(strings.TrimSpace(part))
		if err != nil || rtt < 0 || rtt > roundTripMost {
			return fmt.Errorf("round trip %q: want a time such as 50ms, up to %s", part, roundTripMost)
		}
		list = append(list, rtt)
	}
	slices.Sort(list)
	*t = slices.Compact(list)
	return nil
}

// WANOptions say how slow the network is, and what is sent over it. The zero value of each field means the default that its comment names.
type WANOptions struct {
	Program     []string      // command of the mailrace binary. Required
	RTTs        RoundTrips    // to the sink, shortest first, 0 among them; default 0, 20 and 100 ms
	Connections int           // of the MTA to the sink where there are many; default 100
	Rounds      int           // default 5
	Duration    time.Duration // of each load; default 5 s
	Warmup      time.Duration // of load before it that is not measured; default 1 s
	Sizes       load.Sizes    // default 10 KiB
	Drain       time.Duration // how long the sink may see nothing new before what is missing counts as lost; default 10 s
	Dir         string        // where spools are made, and removed again; default the current directory
	Keep        bool          // leave configuration, logs and spools behind
	Profile     string        // directory in which profiles of the nodes are left; "" = none are taken

	Progress io.Writer // nil = silent
}

// BindFlags declares the options as flags of `mailrace bench wan`.
//
//	--rtt list   --connections n  --rounds n  --duration d  --warmup d  --size mix
//	--drain d    --dir path       --keep  --profile dir
func (o *WANOptions) BindFlags(fs *flag.FlagSet) {
	o.RTTs = defaultRTTs
	fs.Var(&o.RTTs, "rtt", "`times` of the round trip to the sink; 0 is always measured, too")
	fs.IntVar(&o.Connections, "connections", cmp.Or(o.Connections, 100), "connections of the MTA to the sink where there are many")
	fs.IntVar(&o.Rounds, "rounds", cmp.Or(o.Rounds, defaultRounds), "rounds; each measures all there is")
	fs.DurationVar(&o.Duration, "duration", cmp.Or(o.Duration, defaultDuration), "each load in a round")
	fs.DurationVar(&o.Warmup, "warmup", cmp.Or(o.Warmup, defaultWarmup), "load before it that is not measured")
	fs.Var(&o.Sizes, "size", "octets of a message, or a `mix` such as 4KiB:70,30KiB:25 (default 10KiB)")
	fs.DurationVar(&o.Drain, "drain", cmp.Or(o.Drain, defaultDrain), "how long nothing may arrive before what is missing counts as lost")
	bindPlace(fs, &o.Dir, &o.Keep, &o.Profile)
}

// withDefaults checks the options and fills in what is not set.
func (o WANOptions) withDefaults() (WANOptions, error) {
	if len(o.RTTs) == 0 {
		o.RTTs = defaultRTTs
	}
	o.Connections = cmp.Or(o.Connections, 100)
	o.Rounds = cmp.Or(o.Rounds, defaultRounds)
	o.Duration = cmp.Or(o.Duration, defaultDuration)
	o.Warmup = cmp.Or(o.Warmup, defaultWarmup)
	o.Drain = cmp.Or(o.Drain, defaultDrain)
	if err := setPlace(o.Program, &o.Dir, &o.Sizes, 10<<10, &o.Progress); err != nil {
		return o, err
	}
	switch {
	case o.Rounds < 0 || o.Connections < 0 || o.RTTs[0] != 0 || o.Duration < 0 || o.Warmup < 0 || o.Drain < 0:
		return o, errors.New("rounds, connections and times must be above 0, and the first round trip 0")
	}
	return o, nil
}

// WANReport is a finished measurement of a slow network.
type WANReport struct {
	RTTs        RoundTrips    `json:"rtt_ns"`
	Connections int           `json:"connections"`
	Sizes       string        `json:"sizes"`
	Duration    time.Duration `json:"duration_ns"`
	Rounds      []Round       `json:"rounds"` // of what WANTarget names

	// What follows is made of the rounds.
	Median  Round          `json:"median"` // of each figure by itself
	Trips   []WANTrip      `json:"trips"`
	Account ledger.Account `json:"account"` // of all rounds and targets
	Notes   []string       `json:"notes"`
	Machine machine.Report `json:"machine"`
}

// WANTrip is what a round trip makes of the rates.
type WANTrip struct {
	RTT        time.Duration `json:"rtt_ns"`
	Pipelining Spread        `json:"ratio_pipelining"` // rate of the MTA on one connection, with PIPELINING only, to that of a client that waits for each reply
	Chunking   Spread        `json:"ratio_chunking"`   // the same with CHUNKING
	Many       Spread        `json:"ratio_many"`       // rate on many connections to that without the round trip
}

// summarize fills in what is made of the rounds.
func (r *WANReport) summarize() {
	all := Report{Rounds: r.Rounds}
	r.Median, r.Trips, r.Account, r.Notes = Round{}, nil, ledger.Account{}, nil
	near := WANTarget(Many, r.RTTs[0])
	for _, name := range r.names() {
		m := all.median(name)
		r.Median[name], r.Account = m, r.Account.Add(m.Account)
		r.Notes = append(r.Notes, m.notes(name)...)
	}
	for _, rtt := range r.RTTs {
		lockstep := WANTarget(LockStep, rtt)
		r.Trips = append(r.Trips, WANTrip{RTT: rtt, Pipelining: all.ratio(WANTarget(Pipelined, rtt), lockstep),
			Chunking: all.ratio(WANTarget(Chunked, rtt), lockstep), Many: all.ratio(WANTarget(Many, rtt), near)})
	}
	r.Notes = append(r.Notes, noise("node without the round trip", rates(r.Rounds, near))...)
	r.Notes = append(r.Notes, misfortunes(r.Account)...)
}

// names are those of all that is measured in a round, in order.
func (r *WANReport) names() (all []string) {
	for _, rtt := range r.RTTs {
		for _, name := range wanTargets {
			all = append(all, WANTarget(name, rtt))
		}
	}
	return all
}

// Result is the report for people: medians over the rounds, and the ratios.
func (r *WANReport) Result() result.Result {
	about := map[string]string{LockStep: "a client that waits for each reply", Pipelined: "one connection, PIPELINING only", Chunked: "one connection, CHUNKING",
		Many: fmt.Sprintf("%d connections", r.Connections)}
	var rows [][]string
	for _, trip := range r.Trips {
		ratios, to := map[string]Spread{Pipelined: trip.Pipelining, Chunked: trip.Chunking}, "lockstep"
		if trip.RTT != r.RTTs[0] {
			ratios[Many] = trip.Many
		}
		for _, name := range wanTargets {
			m, ratio := r.Median[WANTarget(name, trip.RTT)], "–"
			if name == Many {
				to = r.RTTs[0].String()
			}
			if s, ok := ratios[name]; ok {
				ratio = fmt.Sprintf("%.2f (%.2f to %.2f) of %s", s.Median, s.Min, s.Max, to)
			}
			rows = append(rows, []string{WANTarget(name, trip.RTT), about[name], fmt.Sprintf("%.1f", m.Rate), ratio, micros(m.CPU), micros(m.SinkCPU),
				fmt.Sprint(m.RSSPeak >> 20)})
		}
	}
	return result.Result{Name: "wan", Lead: fmt.Sprintf("round trips of %s, %d rounds of %s, %s", r.RTTs.String(), len(r.Rounds), r.Duration, r.Sizes),
		Parts: []result.Part{{Header: []string{"", "", "messages/s", "ratio", "MTA µs", "sink µs", "RSS MiB"}, Rows: rows}},
		Facts: []string{accounting(r.Account, true)}, Notes: r.Notes, Machine: &r.Machine, Charts: charts(r.Rounds, r.names())}
}

func (r *WANReport) fault() error { return accountFault(r.Account) }

// WANCommand is `mailrace bench wan`: it measures and presents its report.
func WANCommand(ctx context.Context, o WANOptions, out console.Output) error {
	o.Progress = out.Stderr
	r, err := RunWAN(ctx, o)
	if err != nil {
		return err
	}
	return present(out, &r)
}
