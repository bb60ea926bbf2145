package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"mailrace/bench/load"
	"mailrace/bench/machine"
	"mailrace/bench/sink"
)

// bulkBench is a measurement of bulk mail that runs.
type bulkBench struct {
	opts  BulkOptions
	dir   string
	began time.Time
}

// RunBulk measures mail for domains by popularity over hundreds of sites, which do well in one leg of a round and behave as the world does in the
// other.
func RunBulk(ctx context.Context, opts BulkOptions) (report BulkReport, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("bench bulk: %w", err)
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
	b := &bulkBench{opts: opts, dir: dir, began: time.Now()}
	report = BulkReport{Messages: opts.Messages, Domains: opts.Domains, Sites: opts.Sites, Zipf: opts.Zipf, Sizes: opts.Sizes.String(),
		Recipients: opts.Recipients, Connections: opts.Connections, Sync: !opts.NoSync}
	watch := machine.Begin()
	for n := range opts.Rounds {
		round := BulkRound{}
		for _, name := range bulkLegs {
			m, err := b.leg(ctx, n, name)
			if err != nil {
				return report, fmt.Errorf("round %d, %s: %w", n+1, name, err)
			}
			round[name] = m
			fmt.Fprintf(opts.Progress, "round %d/%d  %-5s  %s\n", n+1, opts.Rounds, name, m.line())
		}
		report.Rounds = append(report.Rounds, round)
	}
	report.Machine = watch.End()
	report.summarize()
	return report, nil
}

// leg runs a node and a sink of its own, sends all messages, and waits until each recipient has its mail or has come back.
func (b *bulkBench) leg(ctx context.Context, round int, name string) (m BulkMeasure, err error) {
	dir := filepath.Join(b.dir, fmt.Sprintf("%s%d", name, round+1))
	remove, err := makeDir(dir, b.opts.Keep)
	if err != nil {
		return m, err
	}
	defer remove()
	plan := planBulk(b.opts.Sites, name == Bulk)
	script := filepath.Join(dir, "sites.toml")
	if err := os.WriteFile(script, []byte(plan.script), 0o644); err != nil {
		return m, err
	}
	far, err := startSink(ctx, b.opts.Program, sink.Options{Address: "0.0.0.0:0", Script: script, DNS: "127.0.0.1:0", Sites: plan.sites, Seed: b.opts.Seed})
	if err != nil {
		return m, err
	}
	defer far.stop()
	t := &target{name: name}
	c := configuration{spool: filepath.Join(dir, "spool"), events: "off", route: "mx", retry: b.opts.Retry, providers: plan.providers, messages: bulkMessages}
	first, _ := far.report()
	if c.names, err = netip.ParseAddrPort(first.Names); err != nil {
		return m, err
	}
	if _, c.port, err = net.SplitHostPort(far.address); err != nil {
		return m, err
	}
	settings := b.opts.options()
	if err := t.launch(ctx, &settings, dir, c); err != nil {
		return m, err
	}
	defer t.stop()
	return m, b.send(ctx, &m, t, far)
}

// send sends the mail and measures what becomes of it.
func (b *bulkBench) send(ctx context.Context, m *BulkMeasure, t *target, far *sinkChild) error {
	before, err := t.sample(ctx)
	if err != nil {
		return err
	}
	sinkBefore, _ := far.report()
	rec := record(ctx, t, far, b.began, 0)
	defer rec.end()
	o := b.opts
	profiled := t.profiles.beside(ctx, "bulk-"+t.name, queueProfile)
	r, err := runRecorded(ctx, o.Program, load.Options{Address: t.address, Connections: min(o.Connections, o.Messages), Messages: uint64(o.Messages), Sizes: o.Sizes,
		Recipients: o.Recipients, Domains: load.MadeUpDomains(o.Domains), Zipf: o.Zipf, Sender: bulkSender}, rec)
	if err != nil {
		return err
	}
	if err := b.await(ctx, m, t, far, r); err != nil {
		return err
	}
	m.Samples = rec.end()
	after, err := t.sample(ctx)
	if err = errors.Join(err, profiled()); err != nil {
		return err
	}
	m.charge(&r, &before, &after)
	m.Accepting = r.Rate
	sinkAfter, _ := far.report()
	m.chargeSink(&r, &sinkBefore, &sinkAfter)
	m.Destinations = sinkAfter.Destinations
	for _, s := range m.Samples {
		m.Queue = max(m.Queue, int(s.Queue))
	}
	if m.Elapsed > 0 {
		m.Rate = float64(m.Account.Arrived+m.Returned.Returned) / m.Elapsed.Seconds()
	}
	if m.most > 0 {
		m.Most = 0.9 * float64(r.Recipients) / m.most.Seconds()
	}
	return m.outcomes(ctx, t)
}

// await waits until every recipient of a run has its mail or has come back, or nothing new is seen for the drain time; then what is missing is lost.
func (b *bulkBench) await(ctx context.Context, m *BulkMeasure, t *target, far *sinkChild, sent load.Report) error {
	var last sink.RunReport
	quiet := time.NewTimer(b.opts.Drain)
	defer quiet.Stop()
	for {
		r, fresh := far.report()
		now := runOf(r, sent)
		m.Account, m.Returned = accountOf(r, sent), now.Returned
		settled := now.Distinct + now.Returned.Returned - now.Both
		m.Account.Lost = sent.Recipients - min(settled, sent.Recipients)
		if settled*10 >= sent.Recipients*9 && m.most == 0 {
			m.most = time.Since(sent.Began)
		}
		if settled >= sent.Recipients {
			return nil
		}
		if now != last {
			last = now
			quiet.Reset(b.opts.Drain)
		}
		select {
		case <-fresh:
		case <-quiet.C:
			return nil
		case <-far.exited:
			return far.failure(orError(far.err))
		case <-t.process.exited:
			return t.process.failure(fmt.Errorf("ended under load: %w", orError(t.process.err)))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// runOf is what a sink says of a generator's run.
func runOf(s sink.Report, r load.Report) sink.RunReport {
	for _, run := range s.Runs {
		if run.Run == r.Run {
			return run
		}
	}
	return sink.RunReport{}
}

// outcomes are what the node says of its attempts.
func (m *BulkMeasure) outcomes(ctx context.Context, t *target) error {
	page, err := metricsPage(ctx, t.metrics)
	if err != nil {
		return t.process.failure(err)
	}
	for _, of := range []struct {
		name string
		to   *int
	}{{"deferred", &m.Deferred}, {"bounced", &m.Bounced}} {
		n, err := sumMetric(bytes.NewReader(page), fmt.Sprintf("mailrace_router_outcomes_total{outcome=%q}", of.name))
		if err != nil {
			return err
		}
		*of.to = int(n)
	}
	return nil
}

// refused is how many recipients of numbered messages the sink refused for good, by verb. Those refused at the end of data are messages; with one
// recipient each they are as many.
func (m *BulkMeasure) refused() (n uint64) {
	for _, d := range m.Destinations {
		n += d.Failures["rcpt"].Permfail + d.Failures["dot"].Permfail
	}
	return n
}

// over is how often a destination had to enforce a cap that the node was told: connections, and messages of one.
func (m *BulkMeasure) over() (n uint64) {
	for _, d := range m.Destinations {
		n += uint64(d.Over.Connections + d.Over.Messages)
	}
	return n
}
