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
	"mailrace/bench/ledger"
	"mailrace/bench/load"
	"mailrace/bench/machine"
	"mailrace/bench/result"
)

// WANOptions say how slow the network is, and what is sent over it. The zero value of each field means the default that its comment names.
type WANOptions struct {
	Program     []string      // command of the mailrace binary. Required
	RTT         time.Duration // round trip to the sink; default 50 ms
	Connections int           // of the MTA to the sink where there are many; default 100
	Rounds      int           // default 3
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
//	--rtt d      --connections n  --rounds n  --duration d  --warmup d  --size mix
//	--drain d    --dir path       --keep  --profile dir
func (o *WANOptions) BindFlags(fs *flag.FlagSet) {
	fs.DurationVar(&o.RTT, "rtt", cmp.Or(o.RTT, defaultRTT), "round trip to the sink")
	fs.IntVar(&o.Connections, "connections", cmp.Or(o.Connections, 100), "connections of the MTA to the sink where there are many")
	fs.IntVar(&o.Rounds, "rounds", cmp.Or(o.Rounds, 3), "rounds; each measures all there is")
	fs.DurationVar(&o.Duration, "duration", cmp.Or(o.Duration, defaultDuration), "each load in a round")
	fs.DurationVar(&o.Warmup, "warmup", cmp.Or(o.Warmup, defaultWarmup), "load before it that is not measured")
	fs.Var(&o.Sizes, "size", "octets of a message, or a `mix` such as 4KiB:70,30KiB:25 (default 10KiB)")
	fs.DurationVar(&o.Drain, "drain", cmp.Or(o.Drain, defaultDrain), "how long nothing may arrive before what is missing counts as lost")
	bindPlace(fs, &o.Dir, &o.Keep, &o.Profile)
}

// withDefaults checks the options and fills in what is not set.
func (o WANOptions) withDefaults() (WANOptions, error) {
	o.RTT = cmp.Or(o.RTT, defaultRTT)
	o.Connections = cmp.Or(o.Connections, 100)
	o.Rounds = cmp.Or(o.Rounds, 3)
	o.Duration = cmp.Or(o.Duration, defaultDuration)
	o.Warmup = cmp.Or(o.Warmup, defaultWarmup)
	o.Drain = cmp.Or(o.Drain, defaultDrain)
	if err := setPlace(o.Program, &o.Dir, &o.Sizes, 10<<10, &o.Progress); err != nil {
		return o, err
	}
	switch {
	case o.Rounds < 0 || o.Connections < 0 || o.RTT < 0 || o.Duration < 0 || o.Warmup < 0 || o.Drain < 0:
		return o, errors.New("rounds, connections and times must be above 0")
	}
	return o, nil
}

// WANReport is a finished measurement of a slow network.
type WANReport struct {
	RTT         time.Duration `json:"rtt_ns"`
	Connections int           `json:"connections"`
	Sizes       string        `json:"sizes"`
	Duration    time.Duration `json:"duration_ns"`
	Rounds      []Round       `json:"rounds"`

	// What follows is made of the rounds.
	Median     Round          `json:"median"`           // of each figure by itself
	Chunking   Spread         `json:"ratio_chunking"`   // rate of the MTA on one connection, with CHUNKING, to that of a client that waits for each reply
	Pipelining Spread         `json:"ratio_pipelining"` // the same with PIPELINING only
	Many       Spread         `json:"ratio_far"`        // rate on many connections with the round trip to that without
	Account    ledger.Account `json:"account"`          // of all rounds and targets
	Notes      []string       `json:"notes"`
	Machine    machine.Report `json:"machine"`
}

// summarize fills in what is made of the rounds.
func (r *WANReport) summarize() {
	all := Report{Rounds: r.Rounds}
	r.Median, r.Account, r.Notes = Round{}, ledger.Account{}, nil
	for _, name := range wanTargets {
		m := all.median(name)
		r.Median[name], r.Account = m, r.Account.Add(m.Account)
		r.Notes = append(r.Notes, m.notes(name)...)
	}
	r.Chunking, r.Pipelining, r.Many = all.ratio(Chunked, LockStep), all.ratio(Pipelined, LockStep), all.ratio(Far, Near)
	r.Notes = append(r.Notes, noise("node without the round trip", rates(r.Rounds, Near))...)
	r.Notes = append(r.Notes, misfortunes(r.Account)...)
}

// Result is the report for people: medians over the rounds, and the ratios.
func (r *WANReport) Result() result.Result {
	about := map[string]string{LockStep: "a client that waits for each reply", Pipelined: "one connection, PIPELINING only", Chunked: "one connection, CHUNKING",
		Near: fmt.Sprintf("%d connections, no round trip", r.Connections), Far: fmt.Sprintf("%d connections", r.Connections)}
	ratios := map[string]Spread{Pipelined: r.Pipelining, Chunked: r.Chunking, Far: r.Many}
	to := map[string]string{Pipelined: LockStep, Chunked: LockStep, Far: Near}
	var rows [][]string
	for _, name := range wanTargets {
		m, ratio := r.Median[name], "–"
		if s, ok := ratios[name]; ok {
			ratio = fmt.Sprintf("%.2f (%.2f to %.2f) of %s", s.Median, s.Min, s.Max, to[name])
		}
		rows = append(rows, []string{name, about[name], fmt.Sprintf("%.1f", m.Rate), ratio, micros(m.CPU), micros(m.SinkCPU), fmt.Sprint(m.RSSPeak >> 20)})
	}
	return result.Result{Name: "wan", Lead: fmt.Sprintf("round trip %s, %d rounds of %s, %s", r.RTT, len(r.Rounds), r.Duration, r.Sizes),
		Parts: []result.Part{{Header: []string{"", "", "messages/s", "ratio", "MTA µs", "sink µs", "RSS MiB"}, Rows: rows}},
		Facts: []string{accounting(r.Account, true)}, Notes: r.Notes, Machine: &r.Machine, Charts: charts(r.Rounds, wanTargets)}
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
