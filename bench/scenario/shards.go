package scenario

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"mailrace/bench/machine"
	"mailrace/bench/sink"
)

// shardsBench is a sweep that runs.
type shardsBench struct {
	opts  ShardsOptions
	dir   string
	bench *bench
	nodes []*target // by the grid's loops and shards
}

// RunShards measures one node for each number of loops and shards, with each number of connections.
func RunShards(ctx context.Context, opts ShardsOptions) (report ShardsReport, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("bench shards: %w", err)
		}
	}()
	if opts, err = opts.withDefaults(); err != nil {
		return report, err
	}
	base, err := os.MkdirTemp(opts.Dir, "mailrace-bench-")
	if err != nil {
		return report, err
	}
	s := &shardsBench{opts: opts}
	if s.dir, err = filepath.Abs(base); err != nil {
		return report, err
	}
	if opts.Keep {
		fmt.Fprintln(opts.Progress, "kept in", s.dir)
	} else {
		defer os.RemoveAll(s.dir)
	}
	defer s.stop()
	report = ShardsReport{Kind: opts.kind(), Grid: opts.grid(), Sizes: opts.Sizes.String(), Sync: !opts.NoSync, Duration: opts.Duration}
	watch := machine.Begin()
	if err := s.start(ctx); err != nil {
		return report, err
	}
	for n := range opts.Rounds {
		round, err := s.round(ctx, n, report.Grid)
		if err != nil {
			return report, fmt.Errorf("round %d: %w", n+1, err)
		}
		report.Rounds = append(report.Rounds, round)
	}
	report.Machine = watch.End()
	report.summarize()
	return report, nil
}

// start runs a node for each number of loops and shards, and the sink if mail goes on.
func (s *shardsBench) start(ctx context.Context) (err error) {
	s.bench = &bench{opts: s.opts.Options, kind: s.opts.kind(), began: time.Now()}
	c := configuration{events: "off", route: "discard"}
	if s.opts.Relay {
		s.bench.gauge = filepath.Join(s.dir, "arrived")
		if s.bench.sink, err = startSink(ctx, s.opts.Program, sink.Options{Address: defaultSinkAddress, Gauge: s.bench.gauge}); err != nil {
			return err
		}
		c.route = "smtp://" + s.bench.sink.address
	}
	for _, n := range s.opts.nodes() {
		t := &target{name: fmt.Sprintf("loops-%d-shards-%d", n.Loops, n.Shards)}
		settings := s.opts.Options
		settings.Loops, settings.Shards = n.Loops, n.Shards
		c.spool = filepath.Join(s.dir, t.name)
		s.nodes = append(s.nodes, t)
		if err := t.launch(ctx, &settings, s.dir, c); err != nil {
			return err
		}
	}
	return nil
}

func (s *shardsBench) stop() {
	for _, t := range s.nodes {
		t.stop()
	}
	if s.bench != nil && s.bench.sink != nil {
		s.bench.sink.stop()
	}
}

// round measures each point of the grid; every other round begins with the last.
func (s *shardsBench) round(ctx context.Context, n int, grid []ShardsPoint) (Round, error) {
	round, nodes := Round{}, s.opts.nodes()
	order := slices.Clone(grid)
	if n%2 == 1 {
		slices.Reverse(order)
	}
	for _, p := range order {
		b := *s.bench
		b.opts.Connections = p.Connections
		t := s.nodes[slices.Index(nodes, ShardsPoint{Loops: p.Loops, Shards: p.Shards})]
		m, err := b.measure(ctx, t)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		round[p.String()] = m
		fmt.Fprintf(s.opts.Progress, "round %d/%d  %s  %s\n", n+1, s.opts.Rounds, p, m.line())
	}
	return round, nil
}
