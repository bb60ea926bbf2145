package scenario

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"mailrace/bench/certificate"
	"mailrace/bench/load"
	"mailrace/bench/machine"
	"mailrace/bench/proc"
)

const (
	idleAddresses = 16               // source addresses of a holder, 127.0.0.2 and up: each has 28,000 ports to one server
	settleStep    = time.Second      // between two looks at the memory of the nodes
	settleLimit   = 15 * time.Second // then it counts as it is
	holdLimit     = 5 * time.Minute  // for all idle connections to be up
)

// idleBench is a measurement of idle connections that runs.
type idleBench struct {
	opts    IdleOptions
	began   time.Time
	dir     string
	chain   string // files of the certificate, or ""
	key     string
	nodes   []*target  // that hold the idle connections, a share each; the first is sent to as well
	alone   *target    // the same without
	slow    [2]*target // for slow clients: one hurries them in a command, one in content and in a handshake. Nobody else meets these deadlines
	holders []*reporter[load.Progress]
}

// RunIdle measures what idle connections cost, and what they take away from a sender.
func RunIdle(ctx context.Context, opts IdleOptions) (report IdleReport, err error) {
	if opts, err = opts.withDefaults(); err != nil {
		return report, fmt.Errorf("bench idle: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("bench idle: %w", err)
		}
	}()
	dir, leave, err := workDir(opts.Dir, opts.Keep, opts.Progress)
	if err != nil {
		return report, err
	}
	defer leave()
	b := &idleBench{opts: opts, dir: dir}
	defer b.stop()
	return b.run(ctx)
}

func (b *idleBench) run(ctx context.Context) (IdleReport, error) {
	r := IdleReport{TLS: b.opts.TLS, Limit: b.opts.Limit, Duration: b.opts.Duration, Senders: b.opts.Senders}
	watch := machine.Begin()
	b.began = time.Now()
	var err error
	if r.Files, err = fileLimit(); err != nil {
		return r, err
	}
	if err := b.start(ctx, r.Files); err != nil {
		return r, err
	}
	r.Nodes = len(b.nodes)
	if r.Before, err = b.memory(); err != nil {
		return r, err
	}
	if r.Connections, err = b.hold(ctx); err != nil {
		return r, err
	}
	if r.After, err = settled(ctx, b.memory, settleStep); err != nil {
		return r, err
	}
	r.Each = (r.After - r.Before) / int64(r.Connections)
	fmt.Fprintf(b.opts.Progress, "%d idle connections, %d bytes each in %d nodes\n", r.Connections, r.Each, r.Nodes)
	for n := range b.opts.Rounds {
		round, err := b.round(ctx, n)
		if err != nil {
			return r, fmt.Errorf("round %d: %w", n+1, err)
		}
		r.Rounds = append(r.Rounds, round)
		fmt.Fprintf(b.opts.Progress, "round %d/%d  alone %7.0f/s, MTA %.1f µs  beside the idle %7.0f/s, MTA %.1f µs\n", n+1, b.opts.Rounds,
			round.Alone.Rate, round.Alone.CPU, round.Beside.Rate, round.Beside.CPU)
	}
	if r.Slow, err = b.slowClients(ctx); err != nil {
		return r, err
	}
	r.Left = b.held()
	if r.End, err = b.memory(); err != nil {
		return r, err
	}
	r.Machine = watch.End()
	r.summarize()
	return r, nil
}

// fileLimit is how many files a process may open here. Go raises the soft limit to the hard one at its start.
func fileLimit() (int, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	return int(min(r.Max, 1<<24)), nil
}

// perNode is how many idle connections a node gets: it keeps descriptors for the mail that goes out and for its files.
func perNode(files int) int { return files * 5 / 8 }

// start runs as many nodes as it takes to hold the connections within the limit of open files, and one that holds none.
func (b *idleBench) start(ctx context.Context, files int) (err error) {
	if b.opts.TLS {
		pair, err := certificate.New("127.0.0.1")
		if err != nil {
			return err
		}
		if b.chain, b.key, err = pair.Write(b.dir); err != nil {
			return err
		}
	}
	n := (b.opts.Connections + perNode(files) - 1) / perNode(files)
	for i := range n {
		t, err := b.node(ctx, fmt.Sprintf("node%d", i+1), patience, patience)
		if err != nil {
			return err
		}
		b.nodes = append(b.nodes, t)
	}
	if b.alone, err = b.node(ctx, "alone", patience, patience); err != nil {
		return err
	}
	if b.slow[0], err = b.node(ctx, "slow1", b.opts.Deadline, patience); err != nil {
		return err
	}
	b.slow[1], err = b.node(ctx, "slow2", patience, b.opts.Deadline)
	return err
}

// patience is the deadline of nodes that nobody is to meet.
const patience = time.Hour

// node runs a node. command is its deadline for a command line, other that for content that falls behind and for a handshake.
func (b *idleBench) node(ctx context.Context, name string, command, other time.Duration) (*target, error) {
	c := configuration{spool: filepath.Join(b.dir, name), events: "off", route: "discard", chain: b.chain, key: b.key,
		connections: b.opts.Connections + 10*b.opts.Senders + 10*b.opts.SlowClients, command: command, window: other, handshake: min(other, handshakeMost)}
	t := &target{name: name}
	return t, t.launch(ctx, &Options{Program: b.opts.Program, Sizes: b.opts.Sizes, Profile: b.opts.Profile, Progress: b.opts.Progress}, b.dir, c)
}

// handshakeMost is the longest that a node lets a handshake take.
const handshakeMost = 10 * time.Minute

func (b *idleBench) stop() {
	for _, h := range b.holders {
		h.stop()
	}
	for _, t := range append(b.nodes, b.alone, b.slow[0], b.slow[1]) {
		if t != nil {
			t.stop()
		}
	}
}

// secure is how all connections of the bench begin.
func (b *idleBench) secure() load.Secure {
	if !b.opts.TLS {
		return load.Secure{}
	}
	return load.Secure{TLS: load.STARTTLS, TLSVersion: "1.3", CA: b.chain}
}

// hold opens the idle connections, by one process for each node, and returns how many there are.
func (b *idleBench) hold(ctx context.Context) (total int, err error) {
	var from load.Addresses
	address := netip.MustParseAddr("127.0.0.1")
	for range idleAddresses {
		address = address.Next()
		from = append(from, address)
	}
	for i, t := range b.nodes {
		share := (b.opts.Connections - total) / (len(b.nodes) - i)
		total += share
		o := load.Options{Address: t.address, Connections: share, Hold: true, From: from, Sender: "sender@bench.mailrace",
			Interval: time.Second / 4, Secure: b.secure(), Timeout: holdLimit}
		h, err := startReporter[load.Progress](ctx, "holder", b.opts.Program, append([]string{"load", "--json"}, o.Args()...))
		if err != nil {
			return total, err
		}
		b.holders = append(b.holders, h)
		for { // one after the other: a listener's backlog has an end
			p, fresh := h.report()
			if int(p.Idle) == share {
				break
			}
			if p.Broken > 0 {
				return total, h.failure(fmt.Errorf("%d of %d connections failed: %s", p.Broken, share, p.Failure))
			}
			select {
			case <-fresh:
			case <-h.exited:
				return total, h.failure(fmt.Errorf("ended: %w", orError(h.err)))
			case <-ctx.Done():
				return total, ctx.Err()
			}
		}
	}
	return total, nil
}

// held is how many of the idle connections are up now.
func (b *idleBench) held() (n int) {
	for _, h := range b.holders {
		p, _ := h.report()
		n += int(p.Idle)
	}
	return n
}

// memory is what the nodes that hold the idle connections have resident.
func (b *idleBench) memory() (rss int64, err error) {
	for _, t := range b.nodes {
		u, err := proc.Read(t.pid)
		if err != nil {
			return 0, t.process.failure(err)
		}
		rss += u.RSS
	}
	return rss, nil
}

// settled waits until the memory of nodes stays what it is for some time, and returns it.
func settled(ctx context.Context, memory func() (int64, error), still time.Duration) (int64, error) {
	last, err := memory()
	for waited, same := time.Duration(0), -settleStep; err == nil && waited < settleLimit; waited += settleStep { // the first step does not count
		select {
		case <-time.After(settleStep):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		var now int64
		if now, err = memory(); err != nil {
			break
		}
		if same += settleStep; now-last > last/500 || last-now > last/500 {
			same = 0
		}
		if last = now; same >= still {
			break
		}
	}
	return last, err
}

// round sends to the node without idle connections, and to one with its share of them; in every other round the other way round.
func (b *idleBench) round(ctx context.Context, n int) (r IdleRound, err error) {
	type side struct {
		t  *target
		to *IdleMeasure
	}
	sides := []side{{b.alone, &r.Alone}, {b.nodes[0], &r.Beside}}
	if n%2 == 1 {
		slices.Reverse(sides)
	}
	for _, side := range sides {
		o := load.Options{Address: side.t.address, Connections: b.opts.Senders, Duration: b.opts.Warmup, Sizes: b.opts.Sizes,
			Sender: "sender@bench.mailrace", Secure: b.secure()}
		if _, err := runLoad(ctx, b.opts.Program, o); err != nil {
			return r, err
		}
		before, err := side.t.sample(ctx)
		if err != nil {
			return r, err
		}
		o.Duration = b.opts.Duration
		rec := record(ctx, side.t, nil, b.began, o.Duration)
		sent, err := runRecorded(ctx, b.opts.Program, o, rec)
		samples := rec.end()
		if err != nil {
			return r, err
		}
		after, err := side.t.sample(ctx)
		if err != nil {
			return r, err
		}
		if sent.Accepted == 0 {
			return r, errors.New("nothing was accepted: " + sent.Failure)
		}
		*side.to = IdleMeasure{Rate: sent.Rate, CPU: float64((after.usage.CPU - before.usage.CPU).Microseconds()) / float64(sent.Accepted),
			P99: sent.Latency.P99, RSS: after.usage.RSS, GeneratorBusy: float64(sent.CPU) / float64(sent.Elapsed), Samples: samples, Curve: sent.Curve}
		if err := side.t.profiles.under(ctx, side.t.name, o.Duration, func() error {
			_, err := runLoad(ctx, b.opts.Program, o)
			return err
		}); err != nil {
			return r, err
		}
	}
	return r, nil
}
