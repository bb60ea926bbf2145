// Package scenario measures an MTA as a black box, beside the ceiling that the same machine has in the same minutes.
//
// The ceiling is our own MTA with a spool that keeps nothing: the same loops, parser and delivery, so the ratio to it is what durability
// costs, whatever the machine. Rounds are interleaved (ceiling, MTA, ceiling, MTA, …), so what disturbs a machine for a while disturbs both. MTA,
// generator and sink are processes of their own, and each is charged for its CPU time. All mail is numbered and accounted for.
package scenario

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"mailrace/bench/sink"
)

// Run measures a scenario.
func Run(ctx context.Context, kind Kind, opts Options) (report Report, err error) {
	opts, err = opts.withDefaults()
	if err != nil {
		return Report{}, fmt.Errorf("bench %s: %w", kind, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("bench %s: %w", kind, err)
		}
	}()
	report = Report{Kind: kind, Connections: opts.Connections, Sizes: opts.Sizes.String(), Recipients: opts.Recipients,
		Sync: !opts.NoSync, Duration: opts.Duration}
	base, err := os.MkdirTemp(opts.Dir, "mailrace-bench-")
	if err != nil {
		return report, err
	}
	dir, err := filepath.Abs(base)
	if err != nil {
		return report, err
	}
	if opts.Keep {
		fmt.Fprintln(opts.Progress, "kept in", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	b := &bench{opts: opts, kind: kind}
	if kind == Relay {
		if opts.Backlog >= 0 {
			b.gauge = filepath.Join(dir, "arrived")
		}
		b.sink, err = startSink(ctx, opts.Program, sink.Options{Address: opts.SinkAddress, NoVerify: opts.NoVerify, Gauge: b.gauge})
		if err != nil {
			return report, err
		}
		defer b.sink.stop()
	}
	targets, err := b.targets(ctx, dir)
	for _, t := range targets {
		defer t.stop()
	}
	if err != nil {
		return report, err
	}
	if opts.TLS {
		targets = append(targets, targets[len(targets)-1].underTLS())
	}
	for n := range opts.Rounds {
		round := Round{}
		for _, t := range targets {
			m, err := b.measure(ctx, t)
			if err != nil {
				return report, fmt.Errorf("round %d, %s: %w", n+1, t.name, err)
			}
			round[t.name] = m
			fmt.Fprintf(opts.Progress, "round %d/%d  %-7s  %s\n", n+1, opts.Rounds, t.name, m.line())
		}
		report.Rounds = append(report.Rounds, round)
	}
	report.summarize()
	return report, nil
}

// targets starts what is measured, in the order of a round. What was started is returned with an error, too.
func (b *bench) targets(ctx context.Context, dir string) ([]*target, error) {
	sinkAddress := ""
	if b.sink != nil {
		sinkAddress = b.sink.address
	}
	ceiling, err := startTarget(ctx, &b.opts, b.kind, Ceiling, dir, sinkAddress)
	if err != nil {
		return nil, err
	}
	if b.opts.Address != "" {
		other := &target{name: MTA, address: b.opts.Address, pid: b.opts.PID, metrics: b.opts.Metrics}
		return []*target{ceiling, other}, awaitBanner(ctx, nil, other.address)
	}
	mta, err := startTarget(ctx, &b.opts, b.kind, MTA, dir, sinkAddress)
	if err != nil {
		return []*target{ceiling}, err
	}
	return []*target{ceiling, mta}, nil
}
