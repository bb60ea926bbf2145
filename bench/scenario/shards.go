package scenario

import (
	"context"
	"fmt"
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
	null  *target   // the ceiling
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
	dir, leave, err := workDir(opts.Dir, opts.Keep, opts.Progress)
	if err != nil {
		return report, err
	}
	defer leave()
	s := &shardsBench{opts: opts, dir: dir}
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

// start runs the ceiling, a node for each number of loops and shards, and the sink if mail goes on.
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
	settings := s.opts.Options
	settings.Loops, settings.Shards, c.spool = 0, 0, nullSpool
	s.null = &target{name: Ceiling}
	if err := s.null.launch(ctx, &settings, s.dir, c); err != nil {
		return err
	}
	for _, n := range s.opts.nodes() {
		t := &target{name: fmt.Sprintf("loops-%d-shards-%d", n.Loops, n.Shards)}
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
	if s.null != nil {
		s.null.stop()
	}
	for _, t := range s.nodes {
		t.stop()
	}
	if s.bench != nil && s.bench.sink != nil {
		s.bench.sink.stop()
	}
}

// round measures the ceiling with each number of connections and each point of the grid; every other round begins with the last.
func (s *shardsBench) round(ctx context.Context, n int, grid []ShardsPoint) (Round, error) {
	round, nodes := Round{}, s.opts.nodes()
	measure := func(name string, connections int, t *target) error {
		b := *s.bench
		b.opts.Connections = connections
		m, err := b.measure(ctx, t)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		round[name] = m
		fmt.Fprintf(s.opts.Progress, "round %d/%d  %s  %s\n", n+1, s.opts.Rounds, name, m.line())
		return nil
	}
	for _, connections := range s.opts.ConnectionsOf {
		if err := measure(ceilingAt(connections), connections, s.null); err != nil {
			return nil, err
		}
	}
	order := slices.Clone(grid)
	if n%2 == 1 {
		slices.Reverse(order)
	}
	for _, p := range order {
		t := s.nodes[slices.Index(nodes, ShardsPoint{Loops: p.Loops, Shards: p.Shards})]
		if err := measure(p.String(), p.Connections, t); err != nil {
			return nil, err
		}
	}
	return round, nil
}

// ceilingAt is the name of the ceiling in a round, with so many connections. It has the loops that a node has by default.
func ceilingAt(connections int) string {
	return fmt.Sprintf("%s, %d connections", Ceiling, connections)
}
