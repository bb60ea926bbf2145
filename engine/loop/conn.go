package loop

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// Conn is one connection. It belongs to a loop: all methods are for that loop's goroutine. A Conn is not used again for another connection,
// so a pointer that is kept too long does no harm: on a closed connection methods do nothing.
type Conn struct {
	// Handler gets the callbacks. It may be replaced on the loop at any time.
	Handler Handler

	gc       gnet.Conn // nil when gnet has closed it
	loop     *Loop
	sec      *secure // the TLS layer, or nil
	listener int32   // -1 when dialled
	half     int32   // descriptor of a half-closed connection that gnet has given up, or -1

	state     connState
	opened    bool // Open was called, so that Closed is owed
	paused    bool
	resumed   bool // kept bytes are to be presented
	readOff   bool // epoll does not watch for input
	over      bool // outbound buffer went over the high mark: Drained is owed
	inPoll    bool // stands in loop.polled
	unsettled bool // stands in loop.unsettled
	unread    bool // input was thrown away: close with a linger
	second    bool // it was dialled to Dial.Second

	err        error  // for Closed
	keep       []byte // bytes that were not consumed: a window of the pooled buffer pool
	pool       []byte
	deadline   time.Duration // since loop.epoch; 0 is none
	timer      Timer
	prev, next *Conn // of loop.conns
}

// connState says what is left to do for a connection.
type connState uint8

const (
	stateOpen     connState = iota
	stateFlushing           // CloseAfterFlush: waits for the outbound buffer to empty
	stateLinger             // written and shut down; reads and discards until the peer closes
	stateClosing            // to be closed as soon as the running callback has returned
	stateGone               // the socket is closed; Closed is owed
	stateDone               // Closed was called
)

// Loop is the loop that owns the connection. Any goroutine may call it.
func (c *Conn) Loop() *Loop { return c.loop }

// Listener is the index in Options.Listeners that the connection came by, or -1 if it was dialled.
func (c *Conn) Listener() int { return int(c.listener) }

// Second says that the connection is one to Dial.Second.
func (c *Conn) Second() bool { return c.second }

// Remote is the address of the peer; invalid for unix sockets and once the connection is closed. It makes a system call: keep the result.
func (c *Conn) Remote() netip.AddrPort { return c.address(unix.Getpeername) }

// Local is the address of this side; see Remote.
func (c *Conn) Local() netip.AddrPort { return c.address(unix.Getsockname) }

func (c *Conn) address(of func(int) (unix.Sockaddr, error)) netip.AddrPort {
	fd := c.fd()
	if fd < 0 {
		return netip.AddrPort{}
	}
	sa, err := of(fd)
	if err != nil {
		return netip.AddrPort{}
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 && a.Is6() {
			a = a.WithZone(strconv.Itoa(int(sa.ZoneId)))
		}
		return netip.AddrPortFrom(a, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// fd is the descriptor, or -1.
func (c *Conn) fd() int {
	if c.gc != nil {
		return c.gc.Fd()
	}
	return int(c.half)
}

// SetDeadline makes Timeout be called when d has passed, unless it is called again before; 0 takes the deadline away. It is cheap enough
// for every read: it stores the moment, and the wheel looks at it when the timer that is already armed fires.
func (c *Conn) SetDeadline(d time.Duration) {
	if c.state != stateOpen {
		return
	}
	if d <= 0 {
		c.deadline = 0
		return
	}
	c.bound(d)
}

// bound sets the deadline. The timer in the wheel is moved only if it would come too late.
func (c *Conn) bound(d time.Duration) {
	l := c.loop
	c.deadline = l.Now().Sub(l.epoch) + d
	if !c.timer.Armed() || ticks(c.deadline) < c.timer.when {
		c.armDeadline()
	}
}

// ticks is the first tick not before d.
func ticks(d time.Duration) int64 { return int64((d + tick - 1) / tick) }

func (c *Conn) armDeadline() {
	if c.timer.Fire == nil {
		c.timer.Fire = c.expire
	}
	c.loop.armTick(&c.timer, ticks(c.deadline))
}

// expire runs when the timer fires: the deadline may have moved on meanwhile.
func (c *Conn) expire() {
	switch {
	case c.deadline == 0 || c.state >= stateClosing:
	case ticks(c.deadline) > c.loop.wheel.Now():
		c.armDeadline()
	case c.state == stateOpen:
		c.deadline = 0
		c.Handler.Timeout(c)
		c.loop.settleAll()
	default: // waited long enough for the peer
		c.setClosing(nil)
	}
}

// Close closes the connection when the running callback or task has returned. What the kernel takes of the outbound buffer is sent, the
// rest is dropped. Closed follows with a nil error. Calling it again does nothing.
func (c *Conn) Close() {
	if c.sec != nil {
		c.sec.farewell()
	}
	c.setClosing(nil)
}

// setClosing makes settle close the socket; err is for Closed.
func (c *Conn) setClosing(err error) {
	if c.state >= stateClosing {
		return
	}
	c.state, c.err = stateClosing, err
	c.loop.unsettle(c)
}

// CloseAfterFlush closes the connection when all that was written has been sent. No Data is delivered any more. If input was left unread,
// the sending direction is shut down and input discarded for up to two seconds: closing at once would make the kernel reset the
// connection, and the peer could lose the last reply. A deadline that is set, or else 30 s, bounds the wait for a peer that does not read.
// Closed follows with a nil error.
func (c *Conn) CloseAfterFlush() { c.closeAfterFlush(false) }

// LingerAfterFlush is CloseAfterFlush for a peer that is sending still: though nothing of it is unread now, what comes next would make the
// kernel reset the connection, too. So input is discarded until the peer closes, for two seconds at most.
func (c *Conn) LingerAfterFlush() { c.closeAfterFlush(true) }

func (c *Conn) closeAfterFlush(linger bool) {
	if c.state != stateOpen {
		return
	}
	if c.sec != nil {
		if c.Handshaking() {
			c.setClosing(nil)
			return
		}
		if c.sec.farewell(); c.state != stateOpen {
			return
		}
	}
	c.state = stateFlushing
	c.unread = c.unread || linger || len(c.keep) > 0 || c.readOff
	if c.deadline == 0 {
		c.bound(flushLimit)
	}
	c.setReadOff(false)
	if c.Outbound() > 0 {
		c.watch()
	}
	c.loop.unsettle(c)
}

// settle does for the connection whatever is due; it is called with no callback of the connection on the stack.
func (c *Conn) settle() {
	if c.state == stateFlushing && c.Outbound() == 0 {
		c.linger()
	}
	if c.state == stateClosing {
		if !c.loop.draining && c != c.loop.current {
			c.loop.postpone(c)
			return
		}
		c.shut()
	}
	if c.state == stateGone {
		c.finish()
		return
	}
	if c.Handshaking() && c.state == stateOpen {
		c.startHandshake()
	}
	if c.resumed {
		c.resumed = false
		c.presentKept()
	}
}

// shut closes the socket. gnet calls back, which leads to gone.
func (c *Conn) shut() {
	if c.half >= 0 {
		_ = unix.Close(int(c.half))
		c.half = -1
		c.gone(c.err)
		return
	}
	if err := c.loop.el.Close(c.gc); err != nil {
		c.loop.group.log.Warn("closing a connection", "error", err)
	}
}

// gone notes that the socket is closed. An error that was decided on before stands.
func (c *Conn) gone(err error) {
	if c.state >= stateGone {
		return
	}
	if c.state == stateOpen {
		c.err = err
	}
	c.state, c.gc = stateGone, nil
	c.loop.unsettle(c)
}

// finish gives back what the connection holds and calls Closed.
func (c *Conn) finish() {
	c.state = stateDone
	c.timer.Stop()
	c.releaseKept()
	if c.Handshaking() {
		c.sec.hand.abort()
	}
	c.loop.conns.remove(c)
	c.loop.group.limit.release(c.listener >= 0)
	if c.opened {
		c.Handler.Closed(c, c.err)
	}
}

// connList links the connections of a loop.
type connList struct {
	head  *Conn
	count int
}

func (l *connList) add(c *Conn) {
	if c.next = l.head; c.next != nil {
		c.next.prev = c
	}
	l.head = c
	l.count++
}

func (l *connList) remove(c *Conn) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		l.head = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.next, c.prev = nil, nil
	l.count--
}
