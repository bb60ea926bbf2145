package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"mailrace/bench/console"
	"mailrace/bench/machine"
	"mailrace/bench/peers"
	"mailrace/bench/proc"
	"mailrace/bench/sink"
)

// Other is the name under which an MTA at an address is measured.
const Other = "other"

// PeerCommand is `mailrace bench peer`: it measures and presents the report.
func PeerCommand(ctx context.Context, o PeerOptions, out console.Output) error {
	o.Progress = out.Stderr
	r, err := RunPeer(ctx, o)
	if err != nil {
		return err
	}
	return present(out, &r)
}

// RunPeer measures other MTAs beside ours. Rounds are interleaved: each measures ours and then every other, with the same generator and sink.
func RunPeer(ctx context.Context, opts PeerOptions) (report PeerReport, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("bench peer: %w", err)
		}
	}()
	if opts, err = opts.withDefaults(); err != nil {
		return report, err
	}
	b := &peerBench{opts: opts, began: time.Now()}
	if report.Peers, err = b.find(ctx); err != nil {
		return report, err
	}
	base, err := os.MkdirTemp(opts.Dir, "mailrace-bench-")
	if err != nil {
		return report, err
	}
	defer os.RemoveAll(base)
	if err := os.Chmod(base, 0o755); err != nil { // peers have users of their own
		return report, err
	}
	if b.dir, err = filepath.Abs(base); err != nil {
		return report, err
	}
	report.Connections, report.Sizes, report.Recipients = opts.Connections, opts.Sizes.String(), opts.Recipients
	report.Duration, report.Backlog = opts.Duration, opts.Backlog
	watch := machine.Begin()
	for _, name := range opts.Scenarios {
		part, err := b.scenario(ctx, Kind(name))
		if err != nil {
			return report, fmt.Errorf("%s: %w", name, err)
		}
		report.Parts = append(report.Parts, part)
	}
	report.Machine = watch.End()
	report.summarize()
	return report, nil
}

// peerBench is a comparison that runs.
type peerBench struct {
	opts  PeerOptions
	peers []peers.Peer // none = the MTA at the address
	dir   string
	began time.Time
}

// find looks for the peers, and says what they are.
func (b *peerBench) find(ctx context.Context) (infos []PeerInfo, err error) {
	if b.opts.Address != "" {
		return []PeerInfo{{Name: Other, Version: b.opts.Address, Counted: len(b.opts.PIDs) > 0}}, nil
	}
	if b.peers, err = peers.Find(b.opts.Only); err != nil {
		return nil, err
	}
	if b.opts.Install {
		if err := peers.Install(ctx, b.opts.Progress, b.peers); err != nil {
			return nil, err
		}
	}
	for _, p := range b.peers {
		version, err := p.Installed(ctx)
		if err != nil {
			return nil, err
		}
		infos = append(infos, PeerInfo{Name: p.Name, Version: version, Durable: p.Durable, Tuned: p.Tuned, Held: p.Held, LockStep: p.LockStep, Counted: true})
	}
	return infos, nil
}

// scenario measures all MTAs in one.
func (b *peerBench) scenario(ctx context.Context, kind Kind) (part PeerPart, err error) {
	o := b.opts.options()
	run := &peerRun{peerBench: b, bench: &bench{opts: o, kind: kind, began: b.began}}
	if run.dir, err = os.MkdirTemp(b.dir, string(kind)+"-"); err != nil {
		return part, err
	}
	if err := os.Chmod(run.dir, 0o755); err != nil {
		return part, err
	}
	defer run.stop()
	if err := run.start(ctx); err != nil {
		return part, err
	}
	part = PeerPart{Kind: kind}
	for n := range b.opts.Rounds {
		round, err := run.round(ctx, n)
		if err != nil {
			return part, fmt.Errorf("round %d: %w", n+1, err)
		}
		part.Rounds = append(part.Rounds, round)
	}
	return part, nil
}

// peerRun is one scenario that runs.
type peerRun struct {
	*peerBench
	bench  *bench
	dir    string // of this scenario
	ours   *target
	others []*running
}

// running is another MTA.
type running struct {
	target   target
	peer     *peers.Peer     // nil = the MTA at the address
	instance *peers.Instance // nil = it does not run
}

// start starts the sink, where mail goes on, and all MTAs.
func (r *peerRun) start(ctx context.Context) (err error) {
	c := configuration{events: "off", route: "discard", spool: filepath.Join(r.dir, "spool")}
	if r.bench.kind == Relay {
		r.bench.gauge = filepath.Join(r.dir, "arrived")
		if r.bench.sink, err = startSink(ctx, r.opts.Program, sink.Options{Address: r.bench.opts.SinkAddress, Gauge: r.bench.gauge}); err != nil {
			return err
		}
		c.route = "smtp://" + r.bench.sink.address
	}
	r.ours = &target{name: MTA}
	if err := r.ours.launch(ctx, &r.bench.opts, r.dir, c); err != nil {
		return err
	}
	if r.opts.Address != "" {
		t := target{name: Other, address: r.opts.Address}
		if len(r.opts.PIDs) > 0 {
			t.peer = processes(r.opts.PIDs)
		}
		r.others = []*running{{target: t}}
		return awaitBanner(ctx, nil, t.address)
	}
	for i := range r.peers {
		other := &running{target: target{name: r.peers[i].Name, lockStep: r.peers[i].LockStep != ""}, peer: &r.peers[i]}
		r.others = append(r.others, other)
	}
	errs := make([]error, len(r.others))
	var all sync.WaitGroup
	for i, other := range r.others {
		all.Go(func() { errs[i] = r.startPeer(ctx, other) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// startPeer starts a peer, anew and with nothing in its queue, and waits until it accepts mail.
func (r *peerRun) startPeer(ctx context.Context, other *running) error {
	address, err := freeAddress()
	if err != nil {
		return err
	}
	o := peers.Options{Dir: r.dir, Listen: address, Connections: r.opts.Connections, Cores: runtime.NumCPU()}
	for _, z := range r.opts.Sizes {
		o.Largest = max(o.Largest, z.Octets)
	}
	if r.bench.sink != nil {
		o.Next = r.bench.sink.address
	}
	if other.instance, err = other.peer.Start(ctx, o); err != nil {
		return err
	}
	other.target.address, other.target.peer = address, other.instance
	return awaitPeer(ctx, other.instance)
}

// awaitPeer waits until a peer accepts mail, or has ended.
func awaitPeer(ctx context.Context, i *peers.Instance) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-i.Exited():
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := awaitBanner(ctx, nil, i.Address); err != nil {
		return i.Failure(err)
	}
	return nil
}

func (r *peerRun) stop() {
	if r.ours != nil {
		r.ours.stop()
	}
	for _, other := range r.others {
		other.stop()
	}
	if r.bench.sink != nil {
		r.bench.sink.stop()
	}
}

func (r *running) stop() {
	if r.instance != nil {
		r.instance.Stop()
		r.instance = nil
	}
}

// round measures ours and every other. Peers that hold what they accepted begin each round with an empty queue.
func (r *peerRun) round(ctx context.Context, n int) (Round, error) {
	round := Round{}
	measure := func(t *target) error {
		m, err := r.bench.measure(ctx, t)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		round[t.name] = m
		fmt.Fprintf(r.opts.Progress, "%s %d/%d  %-9s  %s\n", r.bench.kind, n+1, r.opts.Rounds, t.name, m.line())
		return nil
	}
	if err := measure(r.ours); err != nil {
		return nil, err
	}
	for _, other := range r.others {
		if n > 0 && r.bench.kind == Accept && other.peer != nil {
			other.stop()
			if err := r.startPeer(ctx, other); err != nil {
				return nil, err
			}
		}
		if err := measure(&other.target); err != nil {
			if other.instance != nil {
				err = other.instance.Failure(err)
			}
			return nil, err
		}
	}
	return round, nil
}

// processes are those of an MTA that runs already, with all that descend from them.
type processes []int

// Usage is what they have used.
func (p processes) Usage() (proc.Usage, error) { return proc.Tree(p...) }

// CPU is the CPU time of Usage.
func (p processes) CPU() (time.Duration, error) {
	u, err := proc.Tree(p...)
	return u.CPU, err
}

// Syncs are not counted.
func (p processes) Syncs() (uint64, bool) { return 0, false }

// EndSyncs ends nothing.
func (p processes) EndSyncs() {}
