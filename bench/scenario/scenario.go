// Package scenario measures an MTA as a black box, beside the ceiling that the same machine has in the same minutes.
//
// The ceiling is our own MTA with a spool that keeps nothing: the same loops, parser and delivery, so the ratio to it is what durability
// costs, whatever the machine. Rounds are interleaved (ceiling, MTA, ceiling, MTA, …), so what disturbs a machine for a while disturbs both. MTA,
// generator and sink are processes of their own, and each is charged for its CPU time. All mail is numbered and accounted for. In each round the
// disk and loopback are measured by themselves, too: they bound an MTA whatever it is made of.
package scenario

import (
	"context"
	"fmt"
	"time"

	"mailrace/bench/ceiling"
	"mailrace/bench/machine"
)

// Run measures a scenario.
func Run(ctx context.Context, kind Kind, opts Options) (report Report, err error) {
	if kind == Submission {
		opts.TLS, opts.Auth = true, true
	}
	opts, err = opts.withDefaults()
	if err != nil {
		return Report{}, fmt.Errorf("bench %s: %w", kind, err)
	}
	if err := opts.suit(kind); err != nil {
		return Report{}, fmt.Errorf("bench %s: %w", kind, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("bench %s: %w", kind, err)
		}
	}()
	report = Report{Kind: kind, Connections: opts.Connections, Sizes: opts.Sizes.String(), Recipients: opts.Recipients,
		Sync: !opts.NoSync, Duration: opts.Duration, MX: opts.MX}
	dir, leave, err := workDir(opts.Dir, opts.Keep, opts.Progress)
	if err != nil {
		return report, err
	}
	defer leave()
	meter, err := ceiling.Open(dir)
	if err != nil {
		return report, err
	}
	defer meter.Close()
	watch := machine.Begin()
	legs, far, err := startLegs(ctx, kind, &opts, dir)
	defer func() { stopLegs(legs, far) }()
	if err != nil {
		return report, err
	}
	for n := range opts.Rounds {
		round := Round{}
		for _, l := range legs {
			m, err := l.bench.measure(ctx, l.target)
			if err != nil {
				return report, fmt.Errorf("round %d, %s: %w", n+1, l.target.name, err)
			}
			round[l.target.name] = m
			fmt.Fprintf(opts.Progress, "round %d/%d  %-7s  %s\n", n+1, opts.Rounds, l.target.name, m.line())
			if l.target.name != Ceiling {
				continue
			}
			rates, err := meter.Measure(ctx, ceilingTime(opts.Duration)) // here, where what the MTA wrote in the round before has come to rest
			if err != nil {
				return report, fmt.Errorf("round %d: %w", n+1, err)
			}
			report.Ceilings = append(report.Ceilings, rates)
		}
		report.Rounds = append(report.Rounds, round)
	}
	report.Machine = watch.End()
	report.summarize()
	return report, far.checkSecure()
}

// leg is one thing that is measured in a round.
type leg struct {
	bench  *bench
	target *target
}

// startLegs starts what is measured, in the order of a round, and in Relay what that delivers to. What was started is returned with an error, too.
func startLegs(ctx context.Context, kind Kind, o *Options, dir string) (legs []leg, far *farSide, err error) {
	b := &bench{opts: *o, kind: kind, began: time.Now()}
	if kind == Relay {
		if far, err = startFar(ctx, o, dir); err != nil {
			return nil, far, err
		}
		b.sink, b.gauge = far.clear, far.clearGauge
	}
	ceiling, err := startTarget(ctx, o, kind, Ceiling, dir, far)
	if err != nil {
		return nil, far, err
	}
	legs = append(legs, leg{b, ceiling})
	mta := &target{name: MTA, address: o.Address, pid: o.PID, metrics: o.Metrics}
	if o.Address != "" {
		if err := awaitBanner(ctx, nil, mta.address); err != nil {
			return legs, far, err
		}
	} else if mta, err = startTarget(ctx, o, kind, MTA, dir, far); err != nil {
		return legs, far, err
	}
	legs = append(legs, leg{b, mta})
	switch {
	case o.TLS && kind == Relay:
		secure := *b
		secure.sink, secure.gauge = far.secure, far.secureGauge
		legs = append(legs, leg{&secure, mta.toTLS(far.domains(o, true))})
	case o.TLS:
		legs = append(legs, leg{b, mta.underTLS()})
	}
	return legs, far, nil
}

// stopLegs ends what startLegs started.
func stopLegs(legs []leg, far *farSide) {
	for _, l := range legs {
		l.target.stop()
	}
	if far != nil {
		far.stop()
	}
}
