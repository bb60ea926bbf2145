package loop

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// openWindow is the most plaintext that one call of Data gets of a connection under TLS, and the most that is sealed for one write.
const openWindow = 64 << 10

// secure is the TLS layer of a connection: the net.Conn under its tls.Conn, which runs where the bytes are.
//
// While the handshake lasts, crypto/tls runs on a goroutine of the pool and blocks in Read as it would on a socket; see handshake. After it,
// crypto/tls is called on the loop, with the bytes of one read from the socket as all there is to read. When they are used up Read returns
// errWait. Because that is a temporary net.Error, crypto/tls keeps the part of a record that it has and goes on from there at the next call.
type secure struct {
	c             *Conn
	tls           *tls.Conn
	up            func()
	carry         bool       // bytes that were not consumed belong to TLS
	hand          *handshake // nil once the handshake is done
	in            []byte     // wire bytes of the running call of open
	frame         framer
	ended         bool // nothing is read any more: close_notify or an error
	local, remote net.Addr
}

// StartTLS puts TLS between the wire and the handler: as the server if the connection was accepted, as the client if it was dialled. The
// handshake begins when the running callback or task has returned, and runs on the pool of the group. Bytes in clear that the handler has
// not consumed by then are not carried over: the connection is closed with ErrClearText. RFC 3207 §4.2
//
// Until the handshake is done no Data is called, Write fails with ErrHandshake, and CloseAfterFlush closes at once. Then up is called on
// the loop, before the first Data. If the handshake fails the connection is closed, and Closed gets a HandshakeError. The handler's
// deadline goes on meanwhile, and Timeout is called when it passes.
//
// cfg may be shared by many connections. Calling StartTLS again does nothing.
func (c *Conn) StartTLS(cfg *tls.Config, up func()) {
	if c.state != stateOpen || c.sec != nil || c.gc == nil {
		return
	}
	s := &secure{c: c, up: up, local: c.gc.LocalAddr(), remote: c.gc.RemoteAddr()}
	client := c.listener < 0
	if client {
		s.tls = tls.Client(s, cfg)
	} else {
		s.tls = tls.Server(s, cfg)
	}
	s.hand = newHandshake(s, client)
	c.sec = s
	c.loop.unsettle(c)
}

// StartTLSAtOnce is StartTLS for connections on which nothing but TLS is spoken, behind a header at most that the handler has consumed:
// the bytes that it has not are the first of TLS.
func (c *Conn) StartTLSAtOnce(cfg *tls.Config, up func()) {
	if c.sec == nil {
		if c.StartTLS(cfg, up); c.sec != nil {
			c.sec.carry = true
		}
	}
}

// startHandshake begins what StartTLS asked for, when the running callback or task has returned.
func (c *Conn) startHandshake() {
	h := c.sec.hand
	switch {
	case len(c.keep) == 0:
		h.begin()
	case c.sec.carry && !h.begun:
		h.feed(c.keep)
		c.releaseKept()
	default:
		c.setClosing(ErrClearText)
	}
}

// TLS is the state of the TLS session. ok is false without one, and while the handshake lasts.
func (c *Conn) TLS() (state tls.ConnectionState, ok bool) {
	if c.sec == nil || c.sec.hand != nil {
		return state, false
	}
	return c.sec.tls.ConnectionState(), true
}

// Handshaking reports whether StartTLS was called and the handshake is not done.
func (c *Conn) Handshaking() bool { return c.sec != nil && c.sec.hand != nil }

// Errors of connections under TLS.
var (
	ErrClearText = errors.New("loop: bytes in clear behind the start of TLS")
	ErrHandshake = errors.New("loop: the TLS handshake is not done")
)

// HandshakeError is what Closed gets when a TLS handshake failed.
type HandshakeError struct{ Err error }

func (e *HandshakeError) Error() string { return "loop: TLS handshake: " + e.Err.Error() }
func (e *HandshakeError) Unwrap() error { return e.Err }

// open decrypts wire bytes and delivers what they hold. What crypto/tls itself wants to send (an alert, an answer to KeyUpdate) leaves
// before the handler is called, as the buffer for it is shared by the connections of the loop.
func (s *secure) open(p []byte) {
	c, l := s.c, s.c.loop
	if l.opened == nil {
		l.opened = make([]byte, openWindow)
	}
	s.in = p
	for !s.ended && c.state == stateOpen {
		n, err := s.fill(l.opened)
		_ = s.flush()
		if n > 0 {
			c.deliver(l.opened[:n])
		}
		if err == errWait {
			s.in = nil
			return
		}
		if err != nil {
			s.end(err)
		}
	}
	c.unread = c.unread || len(s.in) > 0
	s.in = nil
}

// fill reads plaintext into buf until it is full or the wire bytes are used up, which is errWait.
func (s *secure) fill(buf []byte) (n int, err error) {
	for n < len(buf) {
		k, err := s.tls.Read(buf[n:])
		drained := k > 0 && k < len(buf)-n
		n += k
		if err != nil {
			return n, err
		}
		if drained && len(s.in) == 0 && s.frame.atBorder() {
			return n, errWait
		}
	}
	return n, nil
}

// end closes the connection after close_notify or an error. After close_notify, as after the end of the stream, a paused handler may still
// answer; not a byte more is read.
func (s *secure) end(err error) {
	c := s.c
	s.ended = true
	if err != io.EOF {
		if c.state == stateOpen {
			c.setClosing(fmt.Errorf("loop: TLS: %w", err))
		}
		return
	}
	if c.state == stateOpen && !c.paused && !c.resumed {
		s.farewell()
		c.setClosing(io.EOF)
	}
}

// seal encrypts p or, if p is nil, bs, and sends it.
func (s *secure) seal(p []byte, bs [][]byte) error {
	if s.hand != nil {
		return ErrHandshake
	}
	l := s.c.loop
	for len(p) > 0 || len(bs) > 0 {
		if s.c.state != stateOpen {
			return ErrClosed
		}
		piece := p
		if p != nil {
			piece = p[:min(len(p), openWindow)]
			p = p[len(piece):]
		} else {
			l.joined, bs = join(l.joined[:0], bs)
			piece = l.joined
		}
		if _, err := s.tls.Write(piece); err != nil {
			err = fmt.Errorf("loop: TLS: %w", err)
			s.c.setClosing(err)
			return err
		}
		if err := s.flush(); err != nil {
			return err
		}
	}
	return nil
}

// join appends up to openWindow bytes of bs to dst and returns what is left of bs.
func join(dst []byte, bs [][]byte) ([]byte, [][]byte) {
	for len(bs) > 0 && len(dst) < openWindow {
		n := min(len(bs[0]), openWindow-len(dst))
		dst = append(dst, bs[0][:n]...)
		if bs[0] = bs[0][n:]; len(bs[0]) == 0 {
			bs = bs[1:]
		}
	}
	return dst, bs
}

// flush sends what crypto/tls has written.
func (s *secure) flush() error {
	l := s.c.loop
	if len(l.sealed) == 0 {
		return nil
	}
	wire := l.sealed
	l.sealed = wire[:0]
	if s.c.state != stateOpen {
		return ErrClosed
	}
	return s.c.send(wire, nil)
}

// farewell sends close_notify.
func (s *secure) farewell() {
	if s.hand == nil && s.c.state == stateOpen && s.tls.CloseWrite() == nil {
		_ = s.flush()
	}
}

// errWait is what Read returns when the bytes at hand are used up.
var errWait net.Error = wait{}

type wait struct{}

func (wait) Error() string   { return "loop: wait for more bytes" }
func (wait) Timeout() bool   { return true }
func (wait) Temporary() bool { return true }

// Read is called by crypto/tls. It never gives bytes of two records at once, so that the buffer of crypto/tls stays as small as a record,
// and holds no bytes of the next one when the handshake ends.
func (s *secure) Read(p []byte) (int, error) {
	if s.hand != nil {
		return s.hand.read(p)
	}
	n := s.frame.next(s.in, len(p))
	if n == 0 {
		return 0, errWait
	}
	copy(p, s.in[:n])
	s.in = s.in[n:]
	return n, nil
}

// Write is called by crypto/tls.
func (s *secure) Write(p []byte) (int, error) {
	if s.hand != nil {
		return s.hand.write(p)
	}
	l := s.c.loop
	l.sealed = append(l.sealed, p...)
	return len(p), nil
}

// The rest of net.Conn. Closing and deadlines are the connection's.

func (s *secure) Close() error                     { return nil }
func (s *secure) LocalAddr() net.Addr              { return s.local }
func (s *secure) RemoteAddr() net.Addr             { return s.remote }
func (s *secure) SetDeadline(time.Time) error      { return nil }
func (s *secure) SetReadDeadline(time.Time) error  { return nil }
func (s *secure) SetWriteDeadline(time.Time) error { return nil }

// framer finds the borders of TLS records in a stream of wire bytes. RFC 8446 §5.1
type framer struct {
	header [recordHeader]byte
	have   int // bytes of header that were seen of the record under way
	left   int // bytes of the record's body still to come, once the header is complete
}

const recordHeader = 5

// atBorder reports whether the last record is complete.
func (f *framer) atBorder() bool { return f.have == 0 && f.left == 0 }

// next is how many of the bytes in, and at most room, belong to the record under way; they count as taken.
func (f *framer) next(in []byte, room int) (n int) {
	in = in[:min(len(in), room)]
	if f.left == 0 {
		n = copy(f.header[f.have:], in)
		if f.have += n; f.have < recordHeader {
			return n
		}
		f.have, f.left = 0, int(f.header[3])<<8|int(f.header[4])
	}
	body := min(f.left, len(in)-n)
	f.left -= body
	return n + body
}
