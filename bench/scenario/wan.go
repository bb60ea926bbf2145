package scenario

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"mailrace/bench/load"
	"mailrace/bench/machine"
	"mailrace/bench/sink"
)

// What is measured in a round of `mailrace bench wan` with each round trip, in this order.
const (
	LockStep  = "lockstep"   // a client that waits for each reply, on one connection
	Pipelined = "pipelining" // the MTA, on one connection to a sink that offers PIPELINING and not CHUNKING
	Chunked   = "chunking"   // the MTA, on one connection to a sink that offers both
	Many      = "many"       // the MTA, on many connections
)

var wanTargets = []string{LockStep, Pipelined, Chunked, Many}

// WANTarget is the name of a target with a round trip in the rounds of a WANReport.
func WANTarget(name string, rtt time.Duration) string { return name + " " + rtt.String() }

// RunWAN measures how mail leaves over a slow network.
func RunWAN(ctx context.Context, opts WANOptions) (report WANReport, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("bench wan: %w", err)
		}
	}()
	if opts, err = opts.withDefaults(); err != nil {
		return report, err
	}
	report = WANReport{RTTs: opts.RTTs, Connections: opts.Connections, Sizes: opts.Sizes.String(), Duration: opts.Duration}
	dir, leave, err := workDir(opts.Dir, opts.Keep, opts.Progress)
	if err != nil {
		return report, err
	}
	defer leave()
	watch := machine.Begin()
	w := wanBench{opts: opts, dir: dir, began: time.Now()}
	defer w.stop()
	if err := w.start(ctx); err != nil {
		return report, err
	}
	for n := range opts.Rounds {
		round := Round{}
		for _, rtt := range opts.RTTs {
			for i, leg := range w.legs {
				w.lines[i].slow(rtt)
				name := WANTarget(wanTargets[i], rtt)
				m, err := leg.bench.measure(ctx, leg.target)
				if err != nil {
					return report, fmt.Errorf("round %d, %s: %w", n+1, name, err)
				}
				round[name] = m
				fmt.Fprintf(opts.Progress, "round %d/%d  %-16s  %s\n", n+1, opts.Rounds, name, m.line())
			}
		}
		report.Rounds = append(report.Rounds, round)
	}
	report.Machine = watch.End()
	report.summarize()
	return report, nil
}

// wanBench is what runs.
type wanBench struct {
	opts  WANOptions
	dir   string
	legs  []leg
	sinks []*sinkChild
	lines []*delayLine // of each leg
	began time.Time
}

// start starts sinks, delay lines and MTAs. What was started is there with an error, too.
func (w *wanBench) start(ctx context.Context) error {
	for _, plain := range []bool{false, true} {
		gauge := filepath.Join(w.dir, fmt.Sprintf("arrived-%d", len(w.sinks)))
		s, err := startSink(ctx, w.opts.Program, sink.Options{Address: "127.0.0.1:0", NoChunking: plain, Gauge: gauge})
		if err != nil {
			return err
		}
		w.sinks = append(w.sinks, s)
	}
	for _, name := range wanTargets {
		if err := w.addLeg(ctx, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// backlogs are how many messages the generator is ahead of the sink: enough to fill the way, and so few that they arrive soon after the end.
const (
	backlogPipelined = 10
	backlogChunked   = 500
	backlogMany      = 6000
)

// addLeg starts what one measurement needs.
func (w *wanBench) addLeg(ctx context.Context, name string) error {
	n := 0
	o := Options{Program: w.opts.Program, Duration: w.opts.Duration, Warmup: w.opts.Warmup, Sizes: w.opts.Sizes, Recipients: 1, Drain: w.opts.Drain, Egress: 1,
		Profile: w.opts.Profile, Progress: w.opts.Progress}
	switch name {
	case LockStep:
		o.LockStep, o.Connections = true, 1
	case Pipelined:
		n, o.Connections, o.Backlog = 1, backlogPipelined/2, backlogPipelined
	case Chunked:
		o.Connections, o.Backlog = backlogChunked/10, backlogChunked
	default:
		o.Connections, o.Backlog, o.Egress = 2*w.opts.Connections, backlogMany, w.opts.Connections
	}
	line, err := delayed(w.sinks[n].address)
	if err != nil {
		return err
	}
	w.lines = append(w.lines, line)
	o.Backlog *= meanSize(o.Sizes)
	b := &bench{opts: o, kind: Relay, sink: w.sinks[n], began: w.began}
	t := &target{name: name, address: line.address()}
	if name != LockStep {
		b.gauge = filepath.Join(w.dir, fmt.Sprintf("arrived-%d", n))
		dir := filepath.Join(w.dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if t, err = startTarget(ctx, &o, Relay, MTA, dir, &farSide{clear: &sinkChild{address: line.address()}}); err != nil {
			return err
		}
		t.name = name
	}
	w.legs = append(w.legs, leg{b, t})
	return nil
}

// meanSize is the mean number of octets of a message, 1 at least.
func meanSize(sizes load.Sizes) int {
	octets, weight := 0, 0
	for _, z := range sizes {
		octets, weight = octets+z.Octets*z.Weight, weight+z.Weight
	}
	return max(octets/weight, 1)
}

func (w *wanBench) stop() {
	for _, leg := range w.legs {
		leg.target.stop()
	}
	for _, line := range w.lines {
		line.close()
	}
	for _, s := range w.sinks {
		s.stop()
	}
}
