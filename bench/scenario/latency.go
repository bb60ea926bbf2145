package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"mailrace/bench/console"
	"mailrace/bench/machine"
)

// RunLatency measures how long replies take at several rates, each a share of the most that the MTA accepts.
func RunLatency(ctx context.Context, opts LatencyOptions) (report LatencyReport, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("bench latency: %w", err)
		}
	}()
	if opts, err = opts.withDefaults(); err != nil {
		return report, err
	}
	report = LatencyReport{Kind: opts.kind(), Shares: opts.Shares, Connections: opts.Connections, Sizes: opts.Sizes.String(), Sync: !opts.NoSync,
		Duration: opts.Duration}
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
	watch := machine.Begin()
	legs, far, err := startLegs(ctx, opts.kind(), &opts.Options, dir)
	defer func() {
		for _, l := range legs {
			l.target.stop()
		}
		if far != nil {
			far.stop()
		}
	}()
	if err != nil {
		return report, err
	}
	mta := legs[len(legs)-1] // under TLS, if that is asked for
	for n := range opts.Rounds {
		round, err := latencyRound(ctx, mta, &opts, n)
		if err != nil {
			return report, fmt.Errorf("round %d: %w", n+1, err)
		}
		report.Rounds = append(report.Rounds, round)
	}
	report.Machine = watch.End()
	report.summarize()
	return report, far.checkSecure()
}

// latencyRound measures the most that the MTA accepts, and then the shares of it.
func latencyRound(ctx context.Context, mta leg, opts *LatencyOptions, n int) (Round, error) {
	round := Round{}
	measure := func(name string, rate float64) (Measure, error) {
		b := *mta.bench
		b.rate = rate
		m, err := b.measure(ctx, mta.target)
		if err != nil {
			return m, fmt.Errorf("%s: %w", name, err)
		}
		round[name] = m
		fmt.Fprintf(opts.Progress, "round %d/%d  %-5s  %7.0f/s  MTA %5s µs  p50 %s  p99 %s  max %s\n", n+1, opts.Rounds, name, m.Rate, micros(m.CPU),
			console.Duration(m.P50), console.Duration(m.P99), console.Duration(m.Max))
		return m, nil
	}
	most, err := measure(Most, 0)
	if err != nil {
		return nil, err
	}
	if most.Messages == 0 {
		return nil, errors.New("nothing was accepted")
	}
	for _, share := range opts.Shares {
		if _, err := measure(shareName(share), max(1, most.Rate*float64(share)/100)); err != nil {
			return nil, err
		}
	}
	return round, nil
}

// Most is the name of the closed loop in a round: each connection sends when it has its reply.
const Most = "most"

// shareName is the name of an open loop in a round.
func shareName(percent int) string { return fmt.Sprintf("%d%%", percent) }
