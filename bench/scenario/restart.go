package scenario

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"mailrace/bench/ledger"
	"mailrace/bench/load"
	"mailrace/bench/machine"
	"mailrace/bench/proc"
	"mailrace/bench/sink"
)

// lookStep is between two tries to reach a node that starts: what its times are exact to.
const lookStep = time.Millisecond

// RunRestart measures how a node with a long queue starts: after a kill, and after a stop.
func RunRestart(ctx context.Context, opts RestartOptions) (report RestartReport, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("bench restart: %w", err)
		}
	}()
	if opts, err = opts.withDefaults(); err != nil {
		return report, err
	}
	report = RestartReport{Messages: opts.Messages, Sizes: opts.Sizes.String(), Sync: !opts.NoSync}
	watch, began := machine.Begin(), time.Now()
	for n := range opts.Rounds {
		var round RestartRound
		for _, way := range []struct {
			name   string
			signal syscall.Signal
			to     *RestartMeasure
		}{{"kill", syscall.SIGKILL, &round.Kill}, {"stop", syscall.SIGTERM, &round.Stop}} {
			if *way.to, err = restart(ctx, &opts, way.name, way.signal, began); err != nil {
				return report, fmt.Errorf("round %d, %s: %w", n+1, way.name, err)
			}
			fmt.Fprintf(opts.Progress, "round %d/%d  %s  %s\n", n+1, opts.Rounds, way.name, way.to)
		}
		report.Rounds = append(report.Rounds, round)
	}
	report.Machine = watch.End()
	report.summarize()
	return report, nil
}

// restart fills the queue of a node, ends it by a signal, starts it again, and waits until all is delivered. The bench began then.
func restart(ctx context.Context, o *RestartOptions, name string, signal syscall.Signal, benchBegan time.Time) (m RestartMeasure, err error) {
	dir, leave, err := workDir(o.Dir, o.Keep, o.Progress)
	if err != nil {
		return m, err
	}
	defer leave()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never greets, so that mail for it stays queued
	if err != nil {
		return m, err
	}
	defer silent.Close()
	far, err := startSink(ctx, o.Program, sink.Options{Address: "127.0.0.1:0"})
	if err != nil {
		return m, err
	}
	defer far.stop()

	t := &target{name: MTA}
	settings := o.options()
	c := configuration{spool: filepath.Join(dir, "spool"), events: "off", route: "discard",
		other: []routeOf{{domain: heldDomain, to: "smtp://" + silent.Addr().String()}}}
	if err := t.launch(ctx, &settings, dir, c); err != nil {
		return m, err
	}
	defer func() { t.stop() }()
	filled, err := fill(ctx, t, o.Messages, &DepthOptions{Program: o.Program, Connections: o.Connections, Held: o.Sizes, Slow: true, Drain: o.Drain,
		Progress: o.Progress})
	if err != nil {
		return m, err
	}
	m.Filled = filled.Rate
	began := time.Now()
	if err := t.process.cmd.Process.Signal(signal); err != nil {
		return m, t.process.failure(err)
	}
	select {
	case <-t.process.exited:
	case <-time.After(stopLimit):
		return m, t.process.failure(fmt.Errorf("still there %s after %s", stopLimit, signal))
	case <-ctx.Done():
		return m, ctx.Err()
	}
	m.Ended = time.Since(began)
	c.other[0].to = "smtp://" + far.address
	if err := m.again(ctx, t, &settings, dir, c); err != nil {
		return m, err
	}
	return m, m.deliver(ctx, t, name, o.Drain, far, filled.runs, benchBegan)
}

// again starts the node and takes the times of what it does until it has accepted a message.
func (m *RestartMeasure) again(ctx context.Context, t *target, o *Options, dir string, c configuration) error {
	m.began = time.Now()
	if err := t.begin(o, dir, c); err != nil {
		return err
	}
	probe, err := m.probe(ctx, t, m.began)
	if err != nil {
		return t.process.failure(err)
	}
	return probe.Close()
}

// deliver waits until the sink has all of the queue.
func (m *RestartMeasure) deliver(ctx context.Context, t *target, name string, drain time.Duration, far *sinkChild, runs []load.Report, benchBegan time.Time) (err error) {
	profiled := t.profiles.beside(ctx, "restart-"+name, queueProfile)
	rec := record(ctx, t, far, benchBegan, 0)
	rec.over.Store(true) // there is no generator
	m.Account, err = drainRuns(ctx, far, runs, drain)
	m.Samples = rec.end()
	if err = errors.Join(err, profiled()); err != nil {
		return err
	}
	if s, _ := far.report(); !s.First.IsZero() {
		m.Delivered, m.All = s.First.Sub(m.began), s.Newest.Sub(m.began)
	}
	if m.All > m.Delivered {
		m.Rate = float64(m.Account.Arrived) / (m.All - m.Delivered).Seconds()
	}
	u, err := proc.Read(t.pid)
	if err != nil {
		return t.process.failure(err)
	}
	m.RSSPeak = u.RSSPeak
	return nil
}

// probe sends a message as soon as the node takes one, and notes when it listened and when it had accepted. The connection stays open.
func (m *RestartMeasure) probe(ctx context.Context, t *target, began time.Time) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	var conn net.Conn
	for conn == nil {
		var err error
		if conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", t.address); err == nil {
			break
		}
		select {
		case <-time.After(lookStep):
		case <-t.process.exited:
			return nil, fmt.Errorf("ended at start: %w", orError(t.process.err))
		case <-ctx.Done():
			return nil, fmt.Errorf("does not listen: %w", err)
		}
	}
	m.Listening = time.Since(began)
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	replies := bufio.NewReader(conn)
	for _, line := range []string{"", "EHLO probe.bench.mailrace\r\n", "MAIL FROM:<probe@bench.mailrace>\r\n", "RCPT TO:<probe@discard.bench.mailrace>\r\n",
		"DATA\r\n", "Subject: probe\r\n\r\n.\r\n"} {
		if _, err := io.WriteString(conn, line); err != nil {
			conn.Close()
			return nil, err
		}
		code, err := readReply(replies)
		if err == nil && code[0] > '3' {
			err = errors.New(code)
		}
		if err != nil {
			conn.Close()
			return nil, fmt.Errorf("%q answered: %w", strings.TrimSpace(line), err)
		}
	}
	m.Accepted = time.Since(began)
	return conn, nil
}

// drainRuns waits until the sink has all that was acknowledged in some runs of the generator, or has seen nothing new for the drain time. What came
// until now is in the account, also what came twice.
func drainRuns(ctx context.Context, far *sinkChild, runs []load.Report, drain time.Duration) (ledger.Account, error) {
	var last ledger.Account
	began := time.Now()
	quiet := time.NewTimer(drain)
	defer quiet.Stop()
	for {
		s, fresh := far.report()
		var now ledger.Account
		for _, r := range runs {
			now = now.Add(accountOf(s, r))
		}
		if now.Lost == 0 && s.At.After(began) {
			return now, nil
		}
		if now != last {
			last = now
			quiet.Reset(drain)
		}
		select {
		case <-fresh:
		case <-quiet.C:
			return now, nil
		case <-far.exited:
			return now, far.failure(orError(far.err))
		case <-ctx.Done():
			return now, ctx.Err()
		}
	}
}
