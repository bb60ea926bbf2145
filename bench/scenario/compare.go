package scenario

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"mailrace/bench/machine"
)

// CompareOptions say what two programs are compared by. The zero value of each field means the default that its comment names.
type CompareOptions struct {
	Options        // of both
	Base    string // path of the program that Program is compared with. Required
}

// BindFlags declares the options as flags of `mailrace bench compare`.
//
//	--base path    --rounds n     --duration d  --warmup d  --connections n  --size mix  --recipients n
//	--loops n      --shards n     --egress n    --memory size  --no-sync     --drain d   --dir path      --keep
func (o *CompareOptions) BindFlags(fs *flag.FlagSet) {
	bindSome(fs, &o.Options, "rounds", "duration", "warmup", "connections", "size", "recipients", "loops", "shards", "egress", "memory", "no-sync", "drain",
		"dir", "keep")
	fs.StringVar(&o.Base, "base", o.Base, "`path` of the mailrace program to compare with")
}

func (o CompareOptions) withDefaults() (_ CompareOptions, err error) {
	if o.Base == "" {
		return o, errors.New("the program to compare with is missing: --base path")
	}
	if o.Base, err = filepath.Abs(o.Base); err == nil {
		_, err = os.Stat(o.Base)
	}
	if err != nil {
		return o, fmt.Errorf("the program to compare with: %w", err)
	}
	o.Options, err = o.Options.withDefaults()
	return o, err
}

// Names of what is compared, in a round.
const (
	Base = "base"
	New  = "new" // Program
)

// compareKinds are what both programs are measured at.
var compareKinds = []Kind{Accept, Relay}

// RunCompare measures two programs side by side. Generator and sink are those of Program for both.
func RunCompare(ctx context.Context, opts CompareOptions) (report CompareReport, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("bench compare: %w", err)
		}
	}()
	if opts, err = opts.withDefaults(); err != nil {
		return report, err
	}
	dir, leave, err := workDir(opts.Dir, opts.Keep, opts.Progress)
	if err != nil {
		return report, err
	}
	defer leave()
	report = CompareReport{Base: opts.Base, Connections: opts.Connections, Sizes: opts.Sizes.String(), Sync: !opts.NoSync, Duration: opts.Duration}
	watch, began := machine.Begin(), time.Now()
	for _, kind := range compareKinds {
		rounds, err := compare(ctx, kind, &opts, filepath.Join(dir, string(kind)), began)
		if err != nil {
			return report, fmt.Errorf("%s: %w", kind, err)
		}
		report.Scenarios = append(report.Scenarios, Compared{Kind: kind, Rounds: rounds})
	}
	report.Machine = watch.End()
	report.summarize()
	return report, nil
}

// compare measures both programs in each round; every other round begins with the new one.
func compare(ctx context.Context, kind Kind, o *CompareOptions, dir string, began time.Time) (rounds []Round, err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	b := &bench{opts: o.Options, kind: kind, began: began}
	var legs []leg
	var far *farSide
	defer func() { stopLegs(legs, far) }()
	if kind == Relay {
		if far, err = startFar(ctx, &o.Options, dir); err != nil {
			return nil, err
		}
		b.sink, b.gauge = far.clear, far.clearGauge
	}
	for _, side := range []struct {
		name    string
		program []string
	}{{Base, []string{o.Base}}, {New, o.Program}} {
		own := o.Options
		own.Program = side.program
		place := filepath.Join(dir, side.name)
		if err := os.Mkdir(place, 0o755); err != nil {
			return nil, err
		}
		t, err := startTarget(ctx, &own, kind, MTA, place, far)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", side.name, err)
		}
		t.name = side.name
		legs = append(legs, leg{b, t})
	}
	for n := range o.Rounds {
		round := Round{}
		for _, l := range legs {
			m, err := l.bench.measure(ctx, l.target)
			if err != nil {
				return rounds, fmt.Errorf("round %d, %s: %w", n+1, l.target.name, err)
			}
			round[l.target.name] = m
			fmt.Fprintf(o.Progress, "round %d/%d  %-6s  %-4s  %s\n", n+1, o.Rounds, kind, l.target.name, m.line())
		}
		rounds = append(rounds, round)
		slices.Reverse(legs)
	}
	return rounds, nil
}
