package scenario

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"mailrace/bench/load"
	"mailrace/bench/machine"
	"mailrace/bench/proc"
	"mailrace/bench/sink"
)

// relayDomain is the one whose mail nodes of a depth bench relay to the sink; they discard what is for others.
const relayDomain = "relay.bench.mailrace"

// depthBench is a measurement of nodes with queues of several depths that runs.
type depthBench struct {
	opts   DepthOptions
	dir    string
	closed *closedPort // where what waits would go, or
	slow   *sinkChild
	sink   *sinkChild
	accept *bench
	relay  *bench
	nodes  []*target // by depth
}

// RunDepth measures what mail that waits takes away from mail that comes and goes.
func RunDepth(ctx context.Context, opts DepthOptions) (report DepthReport, err error) {
	if opts, err = opts.withDefaults(); err != nil {
		return report, fmt.Errorf("bench depth: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("bench depth: %w", err)
		}
	}()
	dir, leave, err := workDir(opts.Dir, opts.Keep, opts.Progress)
	if err != nil {
		return report, err
	}
	defer leave()
	b := &depthBench{opts: opts, dir: dir}
	defer b.stop()
	return b.run(ctx)
}

func (b *depthBench) run(ctx context.Context) (DepthReport, error) {
	r := DepthReport{Depths: b.opts.Depths, Connections: b.opts.Connections, Sizes: b.opts.Sizes.String(), Held: b.opts.Held.String(), Slow: b.opts.Slow,
		Sync: !b.opts.NoSync, Duration: b.opts.Duration}
	watch := machine.Begin()
	if err := b.start(ctx); err != nil {
		return r, err
	}
	for i, t := range b.nodes {
		f, err := fill(ctx, t, b.opts.Depths[i], &b.opts)
		if err != nil {
			return r, fmt.Errorf("%s: %w", t.name, err)
		}
		r.Filled = append(r.Filled, f)
	}
	if err := b.settle(ctx, r.Filled); err != nil {
		return r, err
	}
	err := b.warm(ctx)
	if err != nil {
		return r, err
	}
	for n := range b.opts.Rounds {
		round, err := b.round(ctx, n)
		if err != nil {
			return r, fmt.Errorf("round %d: %w", n+1, err)
		}
		r.Rounds = append(r.Rounds, round)
	}
	for i, t := range b.nodes {
		if r.Filled[i].Left, err = left(ctx, t, b.opts.Depths[i], &b.opts); err != nil {
			return r, fmt.Errorf("%s: %w", t.name, err)
		}
	}
	r.Machine = watch.End()
	r.summarize()
	return r, nil
}

// start runs the sink and a node for each depth.
func (b *depthBench) start(ctx context.Context) (err error) {
	o := b.opts.options()
	nowhere := ""
	if b.opts.Slow {
		if b.slow, err = startSink(ctx, o.Program, sink.Options{Address: "127.0.0.1:0", Delay: sink.Delays{sink.Dot: holdFor}}); err != nil {
			return err
		}
		nowhere = b.slow.address
	} else {
		if b.closed, err = newClosedPort(); err != nil {
			return err
		}
		nowhere = b.closed.address
	}
	began := time.Now()
	b.accept = &bench{opts: o, kind: Accept, began: began}
	b.relay = &bench{opts: o, kind: Relay, began: began, gauge: filepath.Join(b.dir, "arrived")}
	if b.sink, err = startSink(ctx, o.Program, sink.Options{Address: "127.0.0.1:0", Gauge: b.relay.gauge}); err != nil {
		return err
	}
	b.relay.sink = b.sink
	for _, depth := range b.opts.Depths {
		t := &target{name: fmt.Sprintf("depth%d", depth)}
		b.nodes = append(b.nodes, t)
		c := configuration{spool: filepath.Join(b.dir, t.name), events: "off", route: "discard", retry: holdFor,
			other: []routeOf{{domain: relayDomain, to: "smtp://" + b.sink.address}, {domain: heldDomain, to: "smtp://" + nowhere}}}
		if err := t.launch(ctx, &o, b.dir, c); err != nil {
			return err
		}
	}
	return nil
}

func (b *depthBench) stop() {
	if b.slow != nil { // first: nodes that stop wait for its answers
		b.slow.stop()
	}
	for _, t := range b.nodes {
		t.stop()
	}
	if b.sink != nil {
		b.sink.stop()
	}
	if b.closed != nil {
		b.closed.close()
	}
}

const (
	quietStep  = time.Second / 2 // between two looks at what the nodes write
	quietSteps = 3               // without a change, and all is quiet
	quietLimit = 2 * time.Minute // then the rounds begin as it is
)

// settle waits until the nodes have put away what they were filled with, so that none of them disturbs the measuring of another, and notes what
// they take then.
func (b *depthBench) settle(ctx context.Context, filled []Filled) error {
	if dir, err := os.Open(b.dir); err == nil { // what is in the page cache would be written sometime during the rounds
		_ = unix.Syncfs(int(dir.Fd()))
		_ = dir.Close()
	}
	before, quiet := -1.0, 0
	for waited := time.Duration(0); waited < quietLimit && quiet < quietSteps; waited += quietStep {
		written := 0.0
		for _, t := range b.nodes {
			n, err := scrape(ctx, t.metrics, "mailrace_spool_flushed_bytes_total")
			if err != nil {
				return t.process.failure(err)
			}
			m, err := scrape(ctx, t.metrics, "mailrace_spool_compacted_bytes_total")
			if err != nil {
				return t.process.failure(err)
			}
			written += n + m
		}
		if quiet++; written != before {
			quiet = 0
		}
		before = written
		select {
		case <-time.After(quietStep):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for i, t := range b.nodes {
		u, err := proc.Read(t.pid)
		if err != nil {
			return t.process.failure(err)
		}
		filled[i].RSS = u.RSS
		if n := b.opts.Depths[i]; n > 0 {
			filled[i].Written = float64(u.Written-filled[i].written) / float64(n)
		}
		if filled[i].Disk, err = diskUsage(filepath.Join(b.dir, t.name)); err != nil {
			return err
		}
	}
	return nil
}

// warm lets every node take mail once, for as long as it is measured later, so that none of them does anything for the first time in the rounds:
// the files of its WAL are there, to be written over.
func (b *depthBench) warm(ctx context.Context) error {
	for _, t := range b.nodes {
		if _, err := b.accept.send(ctx, t, b.opts.Duration, nil); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return nil
}

// round measures every node accepting, and then every node relaying, so that what is compared is measured close together; every other round
// begins with the deepest queue.
func (b *depthBench) round(ctx context.Context, n int) (DepthRound, error) {
	r := make(DepthRound, len(b.nodes))
	order := make([]int, len(b.nodes))
	for i := range order {
		order[i] = i
	}
	if n%2 == 1 {
		slices.Reverse(order)
	}
	for _, kind := range []struct {
		*bench
		domains load.Domains
		of      func(*DepthMeasure) *Measure
	}{{b.accept, nil, accepting}, {b.relay, load.Domains{relayDomain}, relaying}} {
		for _, i := range order {
			t := *b.nodes[i]
			t.domains = kind.domains
			m, err := kind.measure(ctx, &t)
			if err != nil {
				return r, fmt.Errorf("%s at %s: %w", kind.kind, t.name, err)
			}
			*kind.of(&r[i]) = m
			fmt.Fprintf(b.opts.Progress, "round %d/%d  queue %-10s %-6s  %s\n", n+1, b.opts.Rounds, depthName(b.opts.Depths[i]), kind.kind, m.line())
		}
	}
	return r, nil
}
