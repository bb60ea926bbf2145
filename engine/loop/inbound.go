package loop

import (
	"errors"
	"fmt"
	"io"

	"github.com/panjf2000/gnet/v2/pkg/pool/byteslice"
	"golang.org/x/sys/unix"
)

const (
	joinWindow = 4 << 10 // new bytes that are copied behind kept ones, to complete them
	keepMin    = 512     // smallest buffer for kept bytes
)

// Pause stops Data until Resume. It costs nothing by itself: bytes that arrive are kept, and when the next read could take them over the
// inbound limit the socket is no longer read, so that TCP holds the peer back.
//
// A peer that closes its sending direction meanwhile can still be answered: the connection lives on for writing until Resume has
// presented what was kept, and Closed follows with io.EOF when the handler is not paused any more.
func (c *Conn) Pause() { c.paused = true }

// Resume ends Pause. Kept bytes are presented when the running callback or task has returned.
func (c *Conn) Resume() {
	if !c.paused {
		return
	}
	c.paused, c.resumed = false, true
	c.loop.unsettle(c)
}

// Kept is the number of bytes that Data has not consumed, which Resume presents.
func (c *Conn) Kept() int { return len(c.keep) }

// received takes the bytes of one read. This is where wire bytes come in: under TLS they are opened here, and the plaintext is passed on.
func (c *Conn) received(p []byte) {
	switch s := c.sec; {
	case s == nil || c.state != stateOpen:
		c.deliver(p)
	case s.hand != nil:
		s.hand.feed(p)
	default:
		s.open(p)
	}
}

// deliver takes bytes of the handler's protocol.
func (c *Conn) deliver(p []byte) {
	switch {
	case c.state == stateFlushing || c.state == stateLinger:
		c.unread = true
	case c.state != stateOpen:
	case c.paused:
		c.keepBytes(p)
		c.checkKept()
	case len(c.keep) == 0:
		c.keepBytes(p[c.data(p):])
		c.checkKept()
	default:
		c.join(p)
	}
}

// data calls the handler and returns how much of p it consumed.
func (c *Conn) data(p []byte) int {
	n := c.Handler.Data(c, p)
	if n < 0 || n > len(p) {
		panic(fmt.Sprintf("BUG: handler %T consumed %d of %d bytes", c.Handler, n, len(p)))
	}
	return n
}

// join presents p behind the kept bytes. Only as much of p is copied as completes them; the bulk is presented in place.
func (c *Conn) join(p []byte) {
	old := len(c.keep)
	w := min(len(p), joinWindow)
	c.keepBytes(p[:w])
	n := c.data(c.keep)
	c.consume(n)
	if w < len(p) && c.state == stateOpen {
		switch {
		case c.paused || c.resumed || c.Handshaking():
			c.keepBytes(p[w:])
		case n >= old: // what is kept now is a part of p
			c.releaseKept()
			p = p[n-old:]
			c.keepBytes(p[c.data(p):])
		default:
			c.keepBytes(p[w:])
			c.consume(c.data(c.keep))
		}
	}
	c.checkKept()
}

// presentKept follows Resume.
func (c *Conn) presentKept() {
	if c.state != stateOpen || c.paused {
		return
	}
	if len(c.keep) > 0 {
		c.consume(c.data(c.keep))
		c.checkKept()
	}
	if c.state != stateOpen || c.paused || c.resumed {
		return
	}
	if c.sec != nil && c.sec.ended {
		c.sec.farewell()
		c.setClosing(io.EOF)
		return
	}
	if c.half >= 0 {
		c.setClosing(c.err)
		return
	}
	c.setReadOff(false)
}

// checkKept holds the kept bytes within the inbound limit.
func (c *Conn) checkKept() {
	limit := c.loop.group.opts.InboundLimit
	switch {
	case c.state != stateOpen || c.resumed || c.half >= 0:
	case c.paused && len(c.keep) > limit-readBuffer:
		if c.readOff {
			c.watchEvents() // gnet turned reading on again when it wrote
		} else {
			c.setReadOff(true)
		}
	case !c.paused && len(c.keep) > limit:
		c.setClosing(ErrInboundLimit)
	}
}

// keepBytes appends p to the kept bytes.
func (c *Conn) keepBytes(p []byte) {
	if len(p) == 0 {
		return
	}
	if c.state != stateOpen {
		c.unread = true
		return
	}
	if need := len(c.keep) + len(p); need > cap(c.keep) {
		buf := c.pool
		if need > cap(buf) {
			buf = byteslice.Get(max(need, keepMin))
		}
		n := copy(buf[:cap(buf)], c.keep)
		if need > cap(c.pool) {
			byteslice.Put(c.pool)
			c.pool = buf
		}
		c.keep = buf[:n]
	}
	c.keep = append(c.keep, p...)
}

// consume drops n kept bytes.
func (c *Conn) consume(n int) {
	if c.keep = c.keep[n:]; len(c.keep) == 0 {
		c.releaseKept()
	}
}

func (c *Conn) releaseKept() {
	byteslice.Put(c.pool)
	c.pool, c.keep = nil, nil
}

// ended takes the end of the connection from gnet, which closes its descriptor as soon as this returns.
func (c *Conn) ended(err error) {
	if c.state == stateOpen && c.paused && errors.Is(err, io.EOF) && !c.Handshaking() && c.halve(err) {
		return
	}
	c.gone(err)
}

// halve keeps a connection alive whose peer sent its end of stream while the handler was paused: gnet cannot be told not to close, so the
// socket is held by a second descriptor, for writing only. It fails if unsent bytes would be lost.
func (c *Conn) halve(err error) bool {
	if c.gc.OutboundBuffered() > 0 && (c.gc.Flush() != nil || c.gc.OutboundBuffered() > 0) {
		return false
	}
	fd, dupErr := unix.FcntlInt(uintptr(c.gc.Fd()), unix.F_DUPFD_CLOEXEC, 0)
	if dupErr != nil {
		return false
	}
	c.half, c.gc, c.err = int32(fd), nil, err
	return true
}
