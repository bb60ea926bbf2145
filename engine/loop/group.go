package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/panjf2000/gnet/v2"
	errorx "github.com/panjf2000/gnet/v2/pkg/errors"
	"golang.org/x/sys/unix"
)

// Group is a set of event loops that share listeners, limits and a pool of dialling goroutines. Its methods may be called by any goroutine
// but, where it is said, those of its loops.
type Group struct {
	opts      Options
	log       *slog.Logger
	limit     limiter
	dials     dialer
	hands     handshakes
	listeners []endpoint // what Options.Listeners are bound to
	loops     atomic.Pointer[[]*Loop]
	engine    gnet.Engine
	client    *gnet.Client // instead of an engine, when there are no listeners

	tickOnce sync.Once
	running  chan struct{} // gnet's loops run
	earlyMu  sync.Mutex
	early    []gnet.Conn // accepted before the group was ready

	closeOnce sync.Once
	stopOnce  sync.Once
	closing   atomic.Bool
	done      chan struct{}
	err       error // of gnet; valid after done is closed
}

// Start opens the listeners and runs the loops. When it returns the group listens and every loop has run Options.Setup.
func Start(o Options) (*Group, error) {
	g := &Group{opts: o.withDefaults(), running: make(chan struct{}), done: make(chan struct{})}
	g.log = g.opts.Log
	g.dials.init(g)
	g.hands.init()
	if err := g.limit.init(&g.opts); err != nil {
		return nil, err
	}
	for _, l := range g.opts.Listeners {
		at, fd, err := reserve(l.Address)
		if err == nil {
			defer unix.Close(fd)
			if slices.Contains(g.listeners, at) {
				err = errors.New("the address is given twice")
			}
		}
		if err != nil {
			return nil, fmt.Errorf("loop: listen on %q: %w", l.Address, err)
		}
		g.listeners = append(g.listeners, at)
	}
	if err := g.boot(); err != nil {
		return nil, err
	}
	if err := g.attach(); err != nil {
		g.stop()
		return nil, err
	}
	if g.opts.Setup != nil {
		g.onAll(g.opts.Setup)
	}
	g.onAll((*Loop).goLive)
	return g, nil
}

// boot starts gnet: an engine that accepts or, as gnet's engine does not go without listeners, a client.
func (g *Group) boot() error {
	options := gnet.Options{
		NumEventLoop:   g.opts.Loops,
		ReusePort:      true,
		ReuseAddr:      true,
		Ticker:         true,
		ReadBufferCap:  readBuffer,
		WriteBufferCap: max(64<<10, g.opts.OutboundLimit/4),
		Logger:         gnetLogger{g.log},
	}
	if len(g.opts.Listeners) == 0 {
		options.Ticker = false
		client, err := gnet.NewClient((*events)(g), gnet.WithOptions(options))
		if err != nil {
			return fmt.Errorf("loop: start: %w", err)
		}
		if err := client.Start(); err != nil {
			return fmt.Errorf("loop: start: %w", err)
		}
		g.client = client
		return nil
	}
	var addresses []string
	for _, l := range g.listeners {
		addresses = append(addresses, l.url())
	}
	go func() {
		err := gnet.Rotate((*events)(g), addresses, gnet.WithOptions(options))
		g.end(err)
	}()
	select {
	case <-g.running:
		return nil
	case <-g.done:
		return fmt.Errorf("loop: start: %w", g.err)
	}
}

// end notes that gnet has ended.
func (g *Group) end(err error) {
	if !g.closing.Load() {
		if err == nil {
			err = ErrGroupClosed // gnet logs the cause and keeps it to itself
		}
		g.err = err
		g.log.Error("event loops ended", "error", err)
	}
	close(g.done)
}

// onAll runs fn on every loop and waits until all have. Not for the goroutines of the loops.
func (g *Group) onAll(fn func(*Loop)) {
	var wait sync.WaitGroup
	for _, l := range g.Loops() {
		wait.Add(1)
		if !l.Post(func() { defer wait.Done(); fn(l) }) {
			wait.Done()
		}
	}
	wait.Wait()
}

// Loops are the loops of the group, in the order of their index. The slice must not be changed.
func (g *Group) Loops() []*Loop {
	if p := g.loops.Load(); p != nil {
		return *p
	}
	return nil
}

// Addr is the address that listener i is bound to, with the port that was found if 0 was asked for.
func (g *Group) Addr(i int) net.Addr { return net.TCPAddrFromAddrPort(g.listeners[i].at) }

// StopAccepting makes connects be refused, and returns when they are. Connections that are open live on; those that still waited to be
// accepted are reset. Not for the goroutines of the loops.
func (g *Group) StopAccepting() {
	g.stopOnce.Do(func() {
		g.onAll(func(l *Loop) {
			if err := l.stopListening(); err != nil {
				g.log.Error("stopping to listen", "loop", l.index, "error", err)
			}
		})
	})
}

// Close stops accepting, ends the dials, closes all connections, runs what their handlers still posted, and waits for the loops to
// end. Not for the goroutines of the loops.
func (g *Group) Close() error {
	g.closeOnce.Do(func() {
		g.closing.Store(true)
		g.StopAccepting()
		g.dials.close()
		g.onAll(func(l *Loop) {
			for c := l.conns.head; c != nil; c = c.next {
				c.setClosing(nil)
			}
		})
		g.onAll(func(l *Loop) {
			if l.alarm != nil {
				l.alarm.Stop()
			}
		})
		g.stop()
		g.hands.wait.Wait()
	})
	return g.err
}

// stop ends gnet and waits for it.
func (g *Group) stop() {
	g.closing.Store(true)
	if g.client != nil {
		err := g.client.Stop()
		g.err = err
		g.end(err)
		return
	}
	loops := g.Loops()
	if len(loops) == 0 { // the start failed
		_ = g.engine.Stop(context.Background())
	} else { // gnet's own Stop polls every half second, but the error that one loop ends with ends them all
		l := loops[0]
		l.mu.Lock()
		ended := l.ended
		if !ended {
			l.writers.Add(1)
		}
		l.mu.Unlock()
		if !ended {
			_ = l.el.Execute(context.Background(), gnet.RunnableFunc(func(context.Context) error { return errorx.ErrEngineShutdown }))
			l.writers.Done()
		}
	}
	<-g.done
}

// Done is closed when the loops have ended: after Close, or because of an error.
func (g *Group) Done() <-chan struct{} { return g.done }

// Err says, after Done, why the loops ended without Close; nil if they did not.
func (g *Group) Err() error {
	select {
	case <-g.done:
		return g.err
	default:
		return nil
	}
}

// probe is the context of a connection that is enrolled on a loop at start, to get hold of the loop.
type probe struct {
	loop *Loop
	err  error
}

func (p *probe) open(gc gnet.Conn) {
	l := p.loop
	l.el = gc.EventLoop()
	l.reactor, l.index, p.err = inspect(l.el, gc.Fd())
}

// attach makes a Loop of each of gnet's event loops. gnet hands loops out only by way of a connection: an engine deals them in turn, a
// client takes the one with the fewest connections. So all probes stay until the end.
func (g *Group) attach() error {
	loops := make([]*Loop, g.opts.Loops)
	for range loops {
		p := &probe{loop: &Loop{group: g, clock: g.opts.Clock, epoch: g.opts.Clock.Now()}}
		other, err := g.enrollProbe(p)
		if other != nil {
			defer other.Close()
		}
		if err == nil {
			err = p.err
		}
		i := p.loop.index
		switch {
		case err != nil:
			return err
		case i >= len(loops) || loops[i] != nil:
			return fmt.Errorf("loop: gnet gave event loop %d twice", i)
		}
		loops[i] = p.loop
	}
	g.loops.Store(&loops)
	return nil
}
