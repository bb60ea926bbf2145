package loop

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// iovMax is the most slices that writev(2) takes.
const iovMax = 1024

// Write sends p, or buffers what the socket does not take; p is the caller's again when Write returns. Beyond the outbound limit the
// connection is closed with ErrOutboundLimit: writers of bulk stop when Full says so, and go on in Drained. After an error Closed follows,
// so the result may be ignored.
func (c *Conn) Write(p []byte) error {
	if c.state != stateOpen {
		return ErrClosed
	}
	if len(p) == 0 {
		return nil
	}
	return c.transmit(p, nil)
}

// Writev sends the slices in one system call, else like Write. The slices of bs may be cut by the call, their bytes are not
// changed.
func (c *Conn) Writev(bs [][]byte) error {
	for len(bs) > 0 {
		if c.state != stateOpen {
			return ErrClosed
		}
		n := min(len(bs), iovMax)
		if err := c.transmit(nil, bs[:n]); err != nil {
			return err
		}
		bs = bs[n:]
	}
	return nil
}

// transmit writes p or, if p is nil, bs. This is where bytes go out to the wire: under TLS they are sealed here.
func (c *Conn) transmit(p []byte, bs [][]byte) error {
	if c.sec != nil {
		return c.sec.seal(p, bs)
	}
	return c.send(p, bs)
}

// send writes wire bytes.
func (c *Conn) send(p []byte, bs [][]byte) error {
	if c.half >= 0 {
		return c.transmitHalf(p, bs)
	}
	if before := c.gc.OutboundBuffered(); before > 0 && before+size(p, bs) > c.loop.group.opts.OutboundLimit {
		c.setClosing(ErrOutboundLimit)
		return ErrOutboundLimit
	}
	var err error
	if p != nil {
		_, err = c.gc.Write(p)
	} else {
		_, err = c.gc.Writev(bs)
	}
	if c.gc == nil { // gnet closed it
		return fmt.Errorf("loop: write: %w", err)
	}
	if out := c.gc.OutboundBuffered(); out > 0 {
		return c.buffered(out)
	}
	return nil
}

func size(p []byte, bs [][]byte) int {
	n := len(p)
	for _, b := range bs {
		n += len(b)
	}
	return n
}

// transmitHalf writes to a connection that gnet has given up. Replies are small and the socket is fresh, so what it does not take is
// not buffered: the connection is closed.
func (c *Conn) transmitHalf(p []byte, bs [][]byte) error {
	if p != nil {
		bs = [][]byte{p}
	}
	n, err := unix.Writev(int(c.half), bs)
	if err == nil && n < size(nil, bs) || err == unix.EAGAIN {
		err = ErrOutboundLimit
	}
	if err != nil {
		err = fmt.Errorf("loop: write: %w", err)
		c.setClosing(err)
	}
	return err
}

// buffered looks after a connection whose socket did not take all.
func (c *Conn) buffered(out int) error {
	if out > c.loop.group.opts.OutboundLimit {
		c.setClosing(ErrOutboundLimit)
		return ErrOutboundLimit
	}
	if out >= c.HighWater() {
		c.over = true
	}
	if c.readOff {
		c.watchEvents() // gnet turned reading on when it began to wait for the socket
	}
	if c.over || c.readOff {
		c.watch()
	}
	return nil
}

// Outbound is the number of bytes that wait for the peer to read.
func (c *Conn) Outbound() int {
	if c.gc == nil {
		return 0
	}
	return c.gc.OutboundBuffered()
}

// HighWater is the number of outbound bytes at which a writer should stop.
func (c *Conn) HighWater() int { return c.loop.group.opts.OutboundLimit / 4 }

// Full reports that the outbound buffer has reached the high mark and not yet fallen to the low mark: Drained will be called.
func (c *Conn) Full() bool { return c.over }

// watch has the outbound buffer looked at on every tick, as gnet does not tell when a socket took bytes again. The socket's own buffer
// bridges the ticks.
func (c *Conn) watch() {
	if c.inPoll {
		return
	}
	l := c.loop
	c.inPoll = true
	l.polled = append(l.polled, c)
	if !l.pollT.Armed() {
		l.pollT.Fire = l.poll
		l.After(tick, &l.pollT)
	}
}

// poll looks at the watched connections.
func (l *Loop) poll() {
	list := l.polled
	l.polled = l.polledB[:0]
	for i, c := range list {
		list[i] = nil
		c.inPoll = false
		if c.checkOutbound() {
			c.watch()
		}
		l.settleAll()
	}
	l.polledB = list[:0]
}

// checkOutbound does what a fallen outbound buffer allows, and reports whether the connection must be watched further.
func (c *Conn) checkOutbound() bool {
	if c.state > stateFlushing || c.gc == nil {
		return false
	}
	if c.over && c.Outbound() <= c.HighWater()/4 {
		c.over = false
		if c.state == stateOpen {
			c.Handler.Drained(c)
		}
	}
	out := c.Outbound()
	if c.state == stateFlushing {
		if out == 0 {
			c.loop.unsettle(c)
		}
		return out > 0
	}
	if c.readOff && out == 0 {
		c.watchEvents() // gnet turned reading on when it had written all
	}
	return c.over || c.readOff && out > 0
}

// setReadOff stops or continues reading from the socket.
func (c *Conn) setReadOff(off bool) {
	if c.gc == nil || c.readOff == off {
		return
	}
	c.readOff = off
	c.watchEvents()
	if off && c.Outbound() > 0 {
		c.watch()
	}
}

// watchEvents tells epoll which events of the socket are wanted.
func (c *Conn) watchEvents() {
	if c.gc == nil {
		return
	}
	if err := c.loop.modify(c.gc.Fd(), !c.readOff, c.Outbound() > 0); err != nil {
		c.setClosing(err)
	}
}

// linger follows when all was written: close at once, or shut down and discard what the peer still sends.
func (c *Conn) linger() {
	fd := c.fd()
	if !c.unread {
		n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
		c.unread = err == nil && n > 0
	}
	if !c.unread || c.half >= 0 || unix.Shutdown(fd, unix.SHUT_WR) != nil {
		c.setClosing(nil)
		return
	}
	c.state = stateLinger
	c.bound(min(lingerLimit, max(time.Millisecond, c.deadline-c.loop.Now().Sub(c.loop.epoch))))
}
