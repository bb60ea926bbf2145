package scenario

import (
	"context"
	"errors"
	"fmt"

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
	dir, leave, err := workDir(opts.Dir, opts.Keep, opts.Progress)
	if err != nil {
		return report, err
	}
	defer leave()
	watch := machine.Begin()
	legs, far, err := startLegs(ctx, opts.kind(), &opts.Options, dir)
	defer func() { stopLegs(legs, far) }()
	if err != nil {
		return report, err
	}
	mta := legs[len(legs)-1] // under TLS, if that is asked for
	for n := range opts.Rounds {
		round, err := latencyRound(ctx, legs[0], mta, &opts, n)
		if err != nil {
			return report, fmt.Errorf("round %d: %w", n+1, err)
		}
		report.Rounds = append(report.Rounds, round)
	}
	report.Machine = watch.End()
	report.summarize()
	return report, far.checkSecure()
}

// latencyRound measures the most that the ceiling accepts, the most that the MTA does, and then the shares of that.
func latencyRound(ctx context.Context, null, mta leg, opts *LatencyOptions, n int) (Round, error) {
	round := Round{}
	measure := func(name string, of leg, rate float64) (Measure, error) {
		b := *of.bench
		b.rate = rate
		m, err := b.measure(ctx, of.target)
		if err != nil {
			return m, fmt.Errorf("%s: %w", name, err)
		}
		round[name] = m
		fmt.Fprintf(opts.Progress, "round %d/%d  %-7s  %7.0f/s  MTA %5s µs  p50 %s  p99 %s  max %s\n", n+1, opts.Rounds, name, m.Rate, micros(m.CPU),
			console.Duration(m.P50), console.Duration(m.P99), console.Duration(m.Max))
		return m, nil
	}
	if _, err := measure(Ceiling, null, 0); err != nil {
		return nil, err
	}
	most, err := measure(Most, mta, 0)
	if err != nil {
		return nil, err
	}
	if most.Messages == 0 {
		return nil, errors.New("nothing was accepted")
	}
	for _, share := range opts.Shares {
		if _, err := measure(shareName(share), mta, max(1, most.Rate*float64(share)/100)); err != nil {
			return nil, err
		}
	}
	return round, nil
}

// Most is the name of the closed loop in a round: each connection sends when it has its reply.
const Most = "most"

// shareName is the name of an open loop in a round.
func shareName(percent int) string { return fmt.Sprintf("%d%%", percent) }
