package scenario

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"mailrace/bench/console"
	"mailrace/bench/ledger"
	"mailrace/bench/load"
	"mailrace/bench/machine"
	"mailrace/bench/sink"
)

// deepBench is a measurement of queues that drain.
type deepBench struct {
	opts  DeepOptions
	dir   string
	began time.Time
}

// RunDeep measures how fast a long queue drains when its destination, which nobody could connect to, opens: beside what the same node relays then and
// there.
func RunDeep(ctx context.Context, opts DeepOptions) (report DeepReport, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("bench deep: %w", err)
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
	b := &deepBench{opts: opts, dir: dir, began: time.Now()}
	report = DeepReport{Depths: opts.Depths, Sizes: opts.Sizes.String(), Connections: opts.Connections, Duration: opts.Duration, Retry: opts.Retry, Sync: !opts.NoSync}
	watch := machine.Begin()
	for n := range opts.Rounds {
		var round DeepRound
		for _, depth := range opts.Depths {
			m, err := b.measure(ctx, filepath.Join(dir, fmt.Sprintf("round%d-%d", n+1, depth)), depth)
			if err != nil {
				return report, fmt.Errorf("round %d, %s messages: %w", n+1, depthName(depth), err)
			}
			round = append(round, m)
			fmt.Fprintf(opts.Progress, "round %d/%d  %s\n", n+1, opts.Rounds, m.line())
		}
		report.Rounds = append(report.Rounds, round)
	}
	report.Machine = watch.End()
	report.summarize()
	return report, nil
}

// measure runs a node, lets it relay, fills its queue for a destination that is closed, opens that, and waits until all is delivered.
func (b *deepBench) measure(ctx context.Context, dir string, depth int) (m DeepMeasure, err error) {
	remove, err := makeDir(dir, b.opts.Keep)
	if err != nil {
		return m, err
	}
	defer remove()
	closed, err := newClosedPort()
	if err != nil {
		return m, err
	}
	defer closed.close()
	o := b.opts.options()
	relay := &bench{opts: o, kind: Relay, began: b.began, gauge: filepath.Join(dir, "arrived")}
	if relay.sink, err = startSink(ctx, o.Program, sink.Options{Address: "127.0.0.1:0", Gauge: relay.gauge}); err != nil {
		return m, err
	}
	defer relay.sink.stop()
	t := &target{name: MTA, domains: load.Domains{relayDomain}}
	c := configuration{spool: filepath.Join(dir, "spool"), events: "off", route: "discard", retry: b.opts.Retry,
		other: []routeOf{{domain: relayDomain, to: "smtp://" + relay.sink.address}, {domain: heldDomain, to: "smtp://" + closed.address}}}
	if err := t.launch(ctx, &o, dir, c); err != nil {
		return m, err
	}
	defer t.stop()
	if m.Plain, err = relay.measure(ctx, t); err != nil {
		return m, err
	}
	if m.Filled, err = fill(ctx, t, depth, b.opts.filling()); err != nil {
		return m, err
	}
	return m, b.open(ctx, &m, t, closed)
}

// open lets a sink listen where nobody did, and measures what comes.
func (b *deepBench) open(ctx context.Context, m *DeepMeasure, t *target, closed *closedPort) error {
	before, err := t.sample(ctx)
	if err != nil {
		return err
	}
	m.Filled.RSS = before.usage.RSS
	closed.close()
	opened := time.Now()
	far, err := startSink(ctx, b.opts.Program, sink.Options{Address: closed.address})
	if err != nil {
		return err
	}
	defer far.stop()
	rec := record(ctx, t, far, b.began, 0)
	defer rec.end()
	rec.over.Store(true) // there is no generator to wait for
	profiled := t.profiles.beside(ctx, "deep-drain", queueProfile)
	if m.Drain.Account, err = drainRuns(ctx, far, m.Filled.runs, b.opts.Drain); err != nil {
		return err
	}
	after, err := t.sample(ctx)
	if err != nil {
		return t.process.failure(err)
	}
	m.Drain.Samples = rec.end()
	if err := profiled(); err != nil {
		return err
	}
	s, _ := far.report()
	m.drained(&s, opened, &before, &after)
	m.Filled.Left, err = left(ctx, t, 0, b.opts.filling())
	return err
}

// drained fills in what the drain of a queue took.
func (m *DeepMeasure) drained(s *sink.Report, opened time.Time, before, after *sample) {
	d := &m.Drain
	d.Messages = s.Messages
	d.CPU, d.SinkCPU = d.micros(after.usage.CPU-before.usage.CPU), d.micros(s.Process.CPU)
	d.RSSPeak, d.RSS = after.usage.RSSPeak, after.usage.RSS
	if s.Messages == 0 {
		return
	}
	m.First = s.First.Sub(opened)
	if d.Elapsed = s.Newest.Sub(s.First); d.Elapsed > 0 {
		d.Rate = float64(d.Account.Arrived) / d.Elapsed.Seconds()
		d.SinkBusy = float64(s.Process.CPU) / float64(d.Elapsed)
	}
	d.Written = float64(after.usage.Written-before.usage.Written) / float64(s.Messages)
	if syncs := after.syncs - before.syncs; syncs > 0 {
		d.SyncsPerMessage, d.MessagesPerSync = syncs/float64(s.Messages), float64(s.Messages)/syncs
	}
}

// DeepMeasure is one queue that drained.
type DeepMeasure struct {
	Plain  Measure       `json:"plain"`    // what the node relayed before its queue was filled
	Filled Filled        `json:"filled"`   // and how it was
	First  time.Duration `json:"first_ns"` // from when the destination opened to the first delivery
	Drain  Measure       `json:"drain"`    // from then to the last
}

// ratio is the rate of the drain to that of plain relaying.
func (m *DeepMeasure) ratio() float64 {
	if m.Plain.Rate == 0 {
		return 0
	}
	return m.Drain.Rate / m.Plain.Rate
}

// account is of all mail of the measure.
func (m *DeepMeasure) account() ledger.Account { return m.Plain.Account.Add(m.Drain.Account) }

// line is a measure as one line of progress.
func (m *DeepMeasure) line() string {
	return fmt.Sprintf("queue %-9s  plain %7.0f/s  first after %s  drained %7.0f/s (%.2f)  MTA %5s µs  RSS %d to %d MiB  %d lost", depthName(m.Filled.Depth),
		m.Plain.Rate, console.Duration(m.First), m.Drain.Rate, m.ratio(), micros(m.Drain.CPU), m.Filled.RSS>>20, m.Drain.RSSPeak>>20, m.account().Lost)
}
