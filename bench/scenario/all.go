package scenario

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"mailrace/bench/console"
	"mailrace/bench/load"
	"mailrace/bench/machine"
	"mailrace/bench/result"
)

// AllOptions say how much of everything is run.
type AllOptions struct {
	Program []string // command of the mailrace binary. Required
	Quick   bool     // ten minutes at most on two cores; default: each scenario with its own defaults, an hour and more
	Smoke   bool     // a minute: a moment of each, whose counts are good and whose figures are not
	Dir     string   // where spools are made, and removed again; default the current directory
	Profile string   // directory below which each scenario has one with profiles of its nodes; "" = none are taken

	Progress io.Writer // nil = silent
}

// BindFlags declares the options as flags of `mailrace bench all`.
//
//	--quick  --smoke  --dir path  --profile dir
func (o *AllOptions) BindFlags(fs *flag.FlagSet) {
	fs.BoolVar(&o.Quick, "quick", o.Quick, "fewer and shorter rounds: ten minutes at most on two cores")
	fs.BoolVar(&o.Smoke, "smoke", o.Smoke, "a moment of each, a minute or so: for the accounting, not for the figures")
	fs.StringVar(&o.Dir, "dir", cmp.Or(o.Dir, "."), "`directory` that spools are made in, and removed from")
	fs.StringVar(&o.Profile, "profile", o.Profile, "`directory` in which profiles of the nodes are left, in one of its own for each scenario; this takes longer")
}

// allPart is one scenario of all.
type allPart struct {
	name string
	run  func(context.Context) (finished, error)
}

// effort is how much of a scenario is run. What is 0 is left to the scenario's defaults.
type effort struct {
	rounds           int
	duration, warmup time.Duration
	depths           Depths
	restart          int // messages
	bulk             int // likewise
	deep             Depths
	retry            time.Duration // of the node whose queue is deep
	loops, shards    Numbers
	idle             int // connections
	sites, domains   int // of fewer connections the node's own memory would be the most
	shares           Percents
	connections      int // of the MTA over the slow network
}

func (o *AllOptions) effort() effort {
	switch {
	case o.Smoke:
		return effort{rounds: 1, duration: 400 * time.Millisecond, warmup: 100 * time.Millisecond, depths: Depths{0, 5000}, restart: 2000, bulk: 1000, deep: Depths{2000}, retry: 500 * time.Millisecond,
			loops: Numbers{1}, shards: Numbers{1, 2}, idle: 10_000, sites: 5000, domains: 5000, shares: Percents{50}, connections: 20}
	case o.Quick:
		return effort{rounds: 5, duration: 2 * time.Second, warmup: 500 * time.Millisecond, depths: Depths{0, 100_000}, restart: 100_000, bulk: 20_000, deep: Depths{100_000}, idle: 10_000,
			sites: 10_000, domains: 20_000}
	}
	return effort{}
}

// parts are the scenarios in their order.
func (o *AllOptions) parts() []allPart {
	e := o.effort()
	some := func(n int) int { // rounds of what takes longer, or says as much with fewer
		if e.rounds == 0 {
			return 0
		}
		return min(n, e.rounds)
	}
	base := Options{Program: o.Program, Rounds: e.rounds, Duration: e.duration, Warmup: e.warmup, Dir: o.Dir, Backlog: defaultBacklog, Progress: o.Progress}
	measure := func(name string, kind Kind, change func(*Options)) allPart {
		opts := base
		opts.Profile = o.profiles(name)
		change(&opts)
		return allPart{name, func(ctx context.Context) (finished, error) {
			r, err := Run(ctx, kind, opts)
			return &r, err
		}}
	}
	idle := func(name string, secure bool) allPart {
		return allPart{name, func(ctx context.Context) (finished, error) {
			r, err := RunIdle(ctx, IdleOptions{Program: o.Program, Connections: e.idle, TLS: secure, Rounds: some(1), Duration: e.duration, Warmup: e.warmup,
				Dir: o.Dir, Profile: o.profiles(name), Progress: o.Progress})
			return &r, err
		}}
	}
	return []allPart{
		measure("accept", Accept, func(o *Options) { o.TLS = true }),
		measure("relay", Relay, func(o *Options) { o.TLS = true }),
		measure("relay, 100 KiB", Relay, func(o *Options) { o.Sizes, o.Rounds = load.Sizes{{Octets: 100 << 10, Weight: 1}}, some(3) }),
		measure("relay by MX", Relay, func(o *Options) { o.MX, o.TLS, o.Rounds = true, true, some(3) }),
		measure("submission", Submission, func(o *Options) { o.Rounds = some(3) }),
		{"latency", func(ctx context.Context) (finished, error) {
			opts := LatencyOptions{Options: base, Shares: e.shares}
			opts.Profile = o.profiles("latency")
			opts.Rounds = some(3)
			r, err := RunLatency(ctx, opts)
			return &r, err
		}},
		{"depth", func(ctx context.Context) (finished, error) {
			r, err := RunDepth(ctx, DepthOptions{Program: o.Program, Depths: e.depths, Rounds: e.rounds, Duration: e.duration, Warmup: e.warmup,
				Dir: o.Dir, Profile: o.profiles("depth"), Progress: o.Progress})
			return &r, err
		}},
		{"wan", func(ctx context.Context) (finished, error) {
			r, err := RunWAN(ctx, WANOptions{Program: o.Program, Rounds: some(1), Duration: e.duration, Warmup: e.warmup, Connections: e.connections,
				Dir: o.Dir, Profile: o.profiles("wan"), Progress: o.Progress})
			return &r, err
		}},
		{"shards", func(ctx context.Context) (finished, error) {
			opts := ShardsOptions{Options: base, Loops: e.loops, Shards: e.shards}
			opts.Profile = o.profiles("shards")
			opts.Rounds = some(2)
			r, err := RunShards(ctx, opts)
			return &r, err
		}},
		{"restart", func(ctx context.Context) (finished, error) {
			r, err := RunRestart(ctx, RestartOptions{Program: o.Program, Messages: e.restart, Rounds: some(1), Dir: o.Dir, Profile: o.profiles("restart"), Progress: o.Progress})
			return &r, err
		}},
		{"bulk", func(ctx context.Context) (finished, error) {
			r, err := RunBulk(ctx, BulkOptions{Program: o.Program, Messages: e.bulk, Rounds: some(2), Dir: o.Dir, Profile: o.profiles("bulk"), Progress: o.Progress})
			return &r, err
		}},
		{"deep", func(ctx context.Context) (finished, error) {
			r, err := RunDeep(ctx, DeepOptions{Program: o.Program, Depths: e.deep, Retry: e.retry, Rounds: some(2), Duration: e.duration, Warmup: e.warmup,
				Dir: o.Dir, Profile: o.profiles("deep"), Progress: o.Progress})
			return &r, err
		}},
		{"sites", func(ctx context.Context) (finished, error) {
			r, err := RunSites(ctx, SitesOptions{Program: o.Program, Connections: e.sites, Domains: e.domains, Dir: o.Dir, Profile: o.profiles("sites"), Progress: o.Progress})
			return &r, err
		}},
		idle("idle", false),
		idle("idle under TLS", true),
	}
}

// profiles is where a scenario leaves them.
func (o *AllOptions) profiles(name string) string {
	if o.Profile == "" {
		return ""
	}
	return filepath.Join(o.Profile, strings.NewReplacer(" ", "-", ",", "").Replace(name))
}

// AllReport is what all scenarios reported, by name. It is encoded as JSON.
type AllReport struct {
	Scenarios map[string]finished `json:"scenarios"`
	Failures  map[string]string   `json:"failures,omitempty"` // why a scenario has no report, or what its report shows that must not be
	Took      time.Duration       `json:"took_ns"`
}

// AllCommand is `mailrace bench all`: it runs the scenarios one after the other and presents each report when it is there, and one page with all of
// them at the end. A scenario that fails does not keep the others from running.
func AllCommand(ctx context.Context, o AllOptions, out console.Output) error {
	o.Progress = out.Stderr
	if len(o.Program) == 0 {
		return errors.New("bench all: the command of the mailrace binary is missing")
	}
	return runAll(ctx, o.parts(), out)
}

func runAll(ctx context.Context, parts []allPart, out console.Output) error {
	before := machine.Begin().End()
	report := AllReport{Scenarios: map[string]finished{}, Failures: map[string]string{}}
	page := result.Page{Title: "mailrace bench all", Command: out.Command, Version: out.Version}
	var errs []error
	for i, part := range parts {
		fmt.Fprintf(out.Stderr, "== %s (%d of %d)\n", part.name, i+1, len(parts))
		r, err := part.run(ctx)
		if err == nil {
			shown := r.Result()
			shown.Name, shown.Machine = part.name, sinceAll(shown.Machine, &before)
			page.Results, report.Scenarios[part.name] = append(page.Results, shown), r
			if !out.JSON {
				errs = append(errs, shown.WriteText(out.Stdout))
				fmt.Fprintln(out.Stdout)
			}
			err = r.fault()
		} else {
			page.Results = append(page.Results, result.Result{Name: part.name, Notes: []string{"FAILED: " + err.Error()}})
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", part.name, err)
			errs, report.Failures[part.name] = append(errs, err), err.Error()
		}
		if ctx.Err() != nil {
			break // what is there is presented
		}
	}
	report.Took = time.Since(before.Began)
	fmt.Fprintf(out.Stderr, "%d scenarios in %s, %d failed\n", len(page.Results), console.Duration(report.Took), len(report.Failures))
	if out.JSON {
		errs = append(errs, json.NewEncoder(out.Stdout).Encode(&report))
	}
	if out.HTML != "" {
		errs = append(errs, result.Save(out.HTML, page))
	}
	return errors.Join(errs...)
}

// sinceAll is the machine with the load that it had before all: that before one of the scenarios is of the scenario before it.
func sinceAll(m, before *machine.Report) *machine.Report {
	if m == nil {
		return nil
	}
	one := *m
	one.Load[0] = before.Load[0]
	return &one
}
