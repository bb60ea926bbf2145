// Package load generates mail: numbered messages over many connections, as fast as a server takes them or at a fixed rate, for as little
// CPU as can be. It runs on the event loops and the client machine that the MTA itself is made of, and speaks to any SMTP server.
//
// A message costs a patch of its number and checksum in a template, and one write for the body, the dot and the next envelope. Nothing
// is allocated for it.
package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"mailrace/bench/latency"
	"mailrace/bench/ledger"
	"mailrace/engine/loop"
	"mailrace/proto/smtp"
)

// generator is a run. What is atomic is shared by the loops; the rest does not change once it runs.
type generator struct {
	opts       Options
	client     smtp.ClientConfig
	tls        *tls.Config // nil = in clear
	auth       string      // the command that logs in, or ""
	recipients recipients
	group      *loop.Group
	lanes      []*lane
	began      time.Time
	cpuBefore  time.Duration // of this process, when the run began

	next     atomic.Uint64 // number of the next message
	released atomic.Uint64 // numbers below it may be sent now
	final    atomic.Bool   // released does not rise any more
	sessions atomic.Int64  // that have not ended
	all      []*session    // does not change
	dialled  atomic.Int64  // of all, in their order
	done     chan struct{} // closed when the last session has ended
	up       chan struct{} // closed when the first session may send
	isUp     atomic.Bool
	failure  atomic.Pointer[string]
	suite    atomic.Pointer[tlsSuite] // of the last handshake
}

// lane is what the generator has on one loop: templates that its sessions patch, and the sessions that wait for a message to be due.
type lane struct {
	counters
	gen       *generator
	loop      *loop.Loop
	templates []*ledger.Template // by size
	idle      []*session
	waiting   atomic.Int32 // len(idle), for the pacer
}

// ErrUnreachable is returned when not one message could be sent because no connection came up.
var ErrUnreachable = errors.New("no connection came up")

// Run sends what the options say and returns when all of it has its final reply, or when the context ends and transactions under way
// have ended or their grace is over. The report is good even with an error.
func Run(ctx context.Context, opts Options) (Report, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return Report{}, fmt.Errorf("load: %w", err)
	}
	g := &generator{opts: opts, recipients: newRecipients(opts.Domains, opts.Recipients, opts.Zipf), done: make(chan struct{}), up: make(chan struct{}),
		client: smtp.ClientConfig{Hello: opts.Hello}}
	if g.tls, err = opts.tlsConfig(opts.Address); err != nil {
		return Report{}, fmt.Errorf("load: %w", err)
	}
	if g.auth, err = opts.authPlain(); err != nil {
		return Report{}, fmt.Errorf("load: %w", err)
	}
	if err := g.makeLanes(); err != nil {
		return Report{}, fmt.Errorf("load: %w", err)
	}
	g.cpuBefore = cpu()
	g.group, err = loop.Start(loop.Options{Loops: opts.Loops, OutboundLimit: outboundLimit})
	if err != nil {
		return Report{}, fmt.Errorf("load: %w", err)
	}
	for i, l := range g.group.Loops() {
		g.lanes[i].loop = l
	}
	g.start(ctx)
	if err := g.group.Close(); err != nil {
		return g.report(), fmt.Errorf("load: %w", err)
	}
	r := g.report()
	if opts.Record != "" {
		if err := ledger.Save(opts.Record, opts.Acknowledged); err != nil {
			return r, err
		}
	}
	if r.Connections == 0 && r.Broken > 0 {
		return r, fmt.Errorf("load: %s: %w: %s", opts.Address, ErrUnreachable, r.Failure)
	}
	return r, nil
}

// outboundLimit lets a loop buffer what a busy peer does not take at once; bodies beyond the high mark wait in their template.
const outboundLimit = 2 << 20

func (g *generator) makeLanes() error {
	date := time.Now().Format(time.RFC1123Z)
	for range g.opts.Loops {
		l := &lane{gen: g}
		for _, z := range g.opts.Sizes {
			t, err := ledger.NewTemplate(ledger.Shape{Run: g.opts.Run, Size: z.Octets, Recipients: g.opts.Recipients,
				Sender: g.opts.Sender, Date: date, Dots: g.opts.Dots})
			if err != nil {
				return err
			}
			l.templates = append(l.templates, t)
		}
		g.lanes = append(g.lanes, l)
	}
	return nil
}

// start opens the connections, waits for the end, and lets transactions under way end.
func (g *generator) start(ctx context.Context) {
	g.began = time.Now()
	g.next.Store(g.opts.First)
	last := uint64(ledger.MaxNumber)
	if g.opts.Messages > 0 {
		last = min(last, g.opts.First+g.opts.Messages)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up, expired := g.expiry()
	var pacer sync.WaitGroup
	switch {
	case g.opts.Rate > 0:
		g.released.Store(g.opts.First)
		pacer.Go(func() { g.pace(ctx, last) })
	case g.opts.Gauge != "":
		g.released.Store(g.opts.First)
		pacer.Go(func() { g.follow(ctx, last) })
	case g.opts.Hold: // nothing is released until the end
		g.released.Store(g.opts.First)
	default:
		g.released.Store(last)
		g.final.Store(true)
	}
	g.sessions.Store(int64(g.opts.Connections))
	for i := range g.opts.Connections {
		s := newSession(g.lanes[i%len(g.lanes)])
		s.stream = i % ledger.Streams
		if n := len(g.opts.From); n > 0 {
			s.from = g.opts.From[i%n]
		}
		g.all = append(g.all, s)
	}
	first := len(g.all)
	if g.opts.Hold {
		first = min(first, holdDials)
	}
	for range first {
		g.dialNext()
	}
	ticker := time.NewTicker(g.opts.Interval)
	defer ticker.Stop()
	recent := new(latency.Histogram)
	ended, over := ctx.Done(), (<-chan time.Time)(nil)
	for running := true; running; {
		select {
		case <-g.done:
			running = false
		case <-over:
			running = false
		case <-up:
			up, expired = nil, time.After(g.opts.Duration)
		case <-expired:
			expired = nil
			cancel()
		case <-ended:
			ended, over = nil, time.After(g.opts.Grace)
			g.stop()
		case <-ticker.C:
			if g.opts.Progress != nil {
				p, now := g.progress(), g.latencies()
				p.Recent, recent = now.Since(recent).Summary(), now
				g.opts.Progress(p)
			}
		}
	}
	cancel()
	pacer.Wait()
}

// expiry is what the time of the run counts from, and when it ends: from the first session that may send, so that a busy machine cannot spend the time
// on connecting; where lost connections are opened again, from now, since there may never be one.
func (g *generator) expiry() (up <-chan struct{}, expired <-chan time.Time) {
	switch {
	case g.opts.Duration == 0:
		return nil, nil
	case g.opts.Reconnect:
		return nil, time.After(g.opts.Duration)
	}
	return g.up, nil
}

// sessionUp notes that a session may send. Any loop calls it.
func (g *generator) sessionUp() {
	if !g.isUp.Load() && g.isUp.CompareAndSwap(false, true) {
		close(g.up)
	}
}

// holdDials is how many connections that are to be held come up at a time: thousands of handshakes at once would miss their deadline.
const holdDials = 128

// dialNext opens the next connection that was not opened yet, if there is one. Any loop calls it.
func (g *generator) dialNext() {
	if i := g.dialled.Add(1) - 1; i < int64(len(g.all)) {
		g.all[i].dial()
	}
}

// stop lets no further transaction start, and no further connection come up for the first time.
func (g *generator) stop() {
	for i := g.dialled.Swap(int64(len(g.all))); i < int64(len(g.all)); i++ {
		g.sessionEnded()
	}
	g.released.Store(0)
	g.final.Store(true)
	g.wake()
}

// release raises the number below which messages may be sent, unless the run was stopped.
func (g *generator) release(from, to uint64) bool { return g.released.CompareAndSwap(from, to) }

// wake lets the idle sessions of all lanes look for work.
func (g *generator) wake() {
	for _, l := range g.lanes {
		if g.final.Load() || l.waiting.Load() > 0 {
			l.loop.Post(l.wake)
		}
	}
}

// wake runs on the loop. Sessions are taken from the end: those used last are the warmest.
func (l *lane) wake() {
	for len(l.idle) > 0 && (l.gen.final.Load() || l.gen.next.Load() < l.gen.released.Load()) {
		s := l.idle[len(l.idle)-1]
		l.idle = l.idle[:len(l.idle)-1]
		l.waiting.Store(int32(len(l.idle)))
		s.idle = false
		s.begin()
		s.flush()
	}
}

// supply is what take has to offer.
type supply uint8

const (
	taken   supply = iota // a number to send
	notYet                // none is due: wait
	nothing               // and none will be
)

// take gives out the next number that is due. Any loop calls it.
func (g *generator) take() (uint64, supply) {
	for {
		final := g.final.Load() // before released: the last release comes before final
		n := g.next.Load()
		if n >= g.released.Load() {
			if final {
				return 0, nothing
			}
			return 0, notYet
		}
		if g.next.CompareAndSwap(n, n+1) {
			return n, taken
		}
	}
}

// due is when message n is to be sent, since the start. Only with a rate.
func (g *generator) due(n uint64) time.Duration {
	return time.Duration(float64(n-g.opts.First) / g.opts.Rate * float64(time.Second))
}

// sessionEnded is called once for each session.
func (g *generator) sessionEnded() {
	if g.sessions.Add(-1) == 0 {
		close(g.done)
	}
}

// fail remembers why something went wrong.
func (g *generator) fail(reason string) { g.failure.Store(&reason) }
