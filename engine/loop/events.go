package loop

import (
	"net"
	"time"

	"github.com/panjf2000/gnet/v2"
)

// events is a Group seen as gnet's event handler. gnet calls it on the goroutine of the loop that the connection belongs to.
type events Group

// OnBoot is called before the loops exist.
func (e *events) OnBoot(engine gnet.Engine) gnet.Action {
	e.engine = engine
	return gnet.None
}

// OnTick is called once the loops run; it is gnet's only word that they do. The ticker then sleeps until the end.
func (e *events) OnTick() (time.Duration, gnet.Action) {
	e.tickOnce.Do(func() { close(e.running) })
	return 365 * 24 * time.Hour, gnet.None
}

// OnShutdown is called before gnet closes its pollers. From then on nobody may wake a loop: the descriptor written to could be
// another file already.
func (e *events) OnShutdown(gnet.Engine) {
	for _, l := range (*Group)(e).Loops() {
		l.mu.Lock()
		l.ended = true
		l.mu.Unlock()
		l.writers.Wait()
	}
}

// OnOpen is called for accepted and for enrolled connections.
func (e *events) OnOpen(gc gnet.Conn) ([]byte, gnet.Action) {
	switch ctx := gc.Context().(type) {
	case *probe:
		ctx.open(gc)
		return nil, gnet.None
	case *Conn:
		ctx.open(gc)
		return nil, gnet.None
	}
	l := (*Group)(e).find(gc.EventLoop())
	if l == nil || !l.live {
		e.earlyMu.Lock()
		e.early = append(e.early, gc)
		e.earlyMu.Unlock()
		return nil, gnet.None
	}
	return l.accept(gc)
}

// OnTraffic is called after each read. Bytes of an early connection stay in gnet's buffer.
func (e *events) OnTraffic(gc gnet.Conn) gnet.Action {
	if c, ok := gc.Context().(*Conn); ok {
		l := c.loop
		l.enter(c)
		if p, err := gc.Next(-1); err == nil {
			c.received(p)
		}
		l.leave()
	}
	return gnet.None
}

// OnClose is called before gnet closes the descriptor, also from inside its Write.
func (e *events) OnClose(gc gnet.Conn, err error) gnet.Action {
	c, ok := gc.Context().(*Conn)
	if !ok {
		e.dropEarly(gc)
		return gnet.None
	}
	if err == nil && c.state == stateOpen {
		err = ErrGroupClosed // gnet's loop ends by itself
	}
	c.loop.enter(c)
	c.ended(err)
	c.loop.leave()
	return gnet.None
}

func (e *events) dropEarly(gc gnet.Conn) {
	e.earlyMu.Lock()
	defer e.earlyMu.Unlock()
	for i, other := range e.early {
		if other == gc {
			e.early = append(e.early[:i], e.early[i+1:]...)
			return
		}
	}
}

// find is the loop of el, nil while the group starts.
func (g *Group) find(el gnet.EventLoop) *Loop {
	for _, l := range g.Loops() {
		if l.el == el {
			return l
		}
	}
	return nil
}

// accept makes a Conn of an accepted connection, or has it closed.
func (l *Loop) accept(gc gnet.Conn) ([]byte, gnet.Action) {
	i := l.group.listenerOf(gc.LocalAddr())
	listener := &l.group.opts.Listeners[i]
	if !l.group.limit.admit(gc.Fd()) {
		if gc.Fd() >= l.group.limit.fd {
			l.restListeners()
		}
		return listener.Busy, gnet.Close
	}
	c := &Conn{loop: l, gc: gc, listener: int32(i), half: -1}
	l.enter(c)
	defer l.leave()
	gc.SetContext(c)
	l.conns.add(c)
	if c.Handler = listener.New(c); c.Handler == nil {
		gc.SetContext(nil)
		l.conns.remove(c)
		c.state, c.gc = stateDone, nil
		l.group.limit.release(true)
		l.group.limit.refused.Add(1)
		return nil, gnet.Close
	}
	c.begin()
	return nil, gnet.None
}

// restListeners stops accepting until the process has descriptors again: gnet ends its loops when accept(2) finds none.
func (l *Loop) restListeners() {
	if l.resting {
		return
	}
	l.group.log.Warn("open files run out: accepting no connections for now", "loop", l.index)
	l.setResting(true)
	var look Timer
	look.Fire = func() {
		if fd, err := l.lowestFree(); err != nil || fd >= l.group.limit.fd {
			l.After(restInterval, &look)
			return
		}
		l.setResting(false)
	}
	l.After(restInterval, &look)
}

func (l *Loop) setResting(on bool) {
	if err := l.rest(on); err != nil {
		l.group.log.Error("watching the listeners", "loop", l.index, "error", err)
	}
}

// open takes over a connection that was dialled.
func (c *Conn) open(gc gnet.Conn) {
	c.loop.enter(c)
	c.gc = gc
	c.loop.conns.add(c)
	c.begin()
	c.loop.leave()
}

func (c *Conn) begin() {
	c.opened = true
	c.Handler.Open(c)
}

// goLive opens the connections that were accepted before the group was ready.
func (l *Loop) goLive() {
	l.live = true
	e := (*events)(l.group)
	e.earlyMu.Lock()
	var mine, others []gnet.Conn
	for _, gc := range e.early {
		if gc.EventLoop() == l.el {
			mine = append(mine, gc)
		} else {
			others = append(others, gc)
		}
	}
	e.early = others
	e.earlyMu.Unlock()
	for _, gc := range mine {
		out, action := l.accept(gc)
		if out != nil {
			_, _ = gc.Write(out)
		}
		if action == gnet.Close {
			_ = l.el.Close(gc)
		} else if gc.InboundBuffered() > 0 {
			e.OnTraffic(gc)
		}
	}
}

// listenerOf finds the listener by the address it was bound to, which gnet gives as the local address of what it accepts.
func (g *Group) listenerOf(a net.Addr) int {
	if tcp, ok := a.(*net.TCPAddr); ok {
		for i, e := range g.listeners {
			if e.is(tcp) {
				return i
			}
		}
	}
	panic("BUG: connection of an unknown listener")
}
