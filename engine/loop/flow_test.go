package loop

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestDataSplitAndCoalesced(t *testing.T) {
	got := make(chan string, 100)
	g := start(t, Options{Loops: 1}, func(*Conn) Handler {
		return &scripted{data: func(c *Conn, p []byte) int {
			return lines(p, func(line string) {
				got <- line
				_ = c.Write([]byte("k"))
			})
		}}
	})
	c := connect(t, g)
	for _, part := range []string{"o", "n", "e\ntw", "o\nthree\nfour\nfi", "ve\n"} {
		send(t, c, part)
		expect(t, c, strings.Repeat("k", strings.Count(part, "\n")))
	}
	for _, want := range []string{"one", "two", "three", "four", "five"} {
		if line := await(t, got, want); line != want {
			t.Errorf("line %q, want %q", line, want)
		}
	}
}

// TestDataInOrderWhateverIsConsumed feeds a long stream to handlers that consume in odd portions, pause and resume.
func TestDataInOrderWhateverIsConsumed(t *testing.T) {
	stream := make([]byte, 3<<20)
	for i := range stream {
		stream[i] = byte(i % 251)
	}
	consume := map[string]func(n int, c *Conn, p []byte) int{
		"everything":               func(_ int, _ *Conn, p []byte) int { return len(p) },
		"all but a few":            func(n int, _ *Conn, p []byte) int { return max(0, len(p)-n%7) },
		"nothing every other time": func(n int, _ *Conn, p []byte) int { return len(p) * (n % 2) },
		"half":                     func(_ int, _ *Conn, p []byte) int { return (len(p) + 1) / 2 },
		"paused after each": func(_ int, c *Conn, p []byte) int {
			c.Pause()
			c.Loop().Post(c.Resume)
			return (len(p) + 1) / 2
		},
		"paused and resumed at once": func(_ int, c *Conn, p []byte) int {
			c.Pause()
			c.Resume()
			return (len(p) + 1) / 2
		},
	}
	for name, fn := range consume {
		t.Run(name, func(t *testing.T) {
			var at, calls int
			done := make(chan struct{})
			g := start(t, Options{Loops: 1}, func(*Conn) Handler {
				return &scripted{data: func(c *Conn, p []byte) int {
					if !bytes.Equal(p, stream[at:at+len(p)]) {
						t.Errorf("call %d: wrong bytes at %d", calls, at)
						c.Close()
						return 0
					}
					calls++
					n := fn(calls, c, p)
					if at+len(p) == len(stream) {
						n = len(p)
					}
					at += n
					if at == len(stream) {
						close(done)
					}
					return n
				}, closed: func(_ *Conn, err error) {
					if at != len(stream) {
						t.Errorf("closed with %v after %d bytes", err, at)
						close(done)
					}
				}}
			})
			c := connect(t, g)
			go c.Write(stream)
			await(t, done, "end of the stream")
		})
	}
}

func TestInboundLimit(t *testing.T) {
	done := make(chan error, 1)
	g := start(t, Options{Loops: 1}, func(*Conn) Handler {
		return &scripted{
			data:   func(*Conn, []byte) int { return 0 },
			closed: func(_ *Conn, err error) { done <- err },
		}
	})
	c := connect(t, g)
	go io.Copy(c, endless{})
	if err := await(t, done, "Closed"); !errors.Is(err, ErrInboundLimit) {
		t.Errorf("closed with %v", err)
	}
}

// endless yields bytes without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestPauseHoldsThePeerBack lets a writer run into a paused connection until TCP takes nothing more.
func TestPauseHoldsThePeerBack(t *testing.T) {
	conns := make(chan *Conn, 1)
	var received atomic.Int64
	g := start(t, Options{Loops: 1}, func(*Conn) Handler {
		return &scripted{
			open: func(c *Conn) { c.Pause(); conns <- c },
			data: func(c *Conn, p []byte) int { received.Add(int64(len(p))); return len(p) },
		}
	})
	client := connect(t, g)
	c := await(t, conns, "Open")
	// The writer blocks when both socket buffers are full: the deadline then ends its write. How long that takes does not matter.
	_ = client.SetWriteBuffer(64 << 10)
	var sent int
	stalled := false
	buf := make([]byte, 64<<10)
	for sent < 1<<30 && !stalled {
		_ = client.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := client.Write(buf)
		sent += n
		stalled = err != nil
	}
	if !stalled {
		t.Fatalf("the peer wrote %d bytes to a paused connection", sent)
	}
	kept := make(chan int, 1)
	c.Loop().Post(func() { kept <- len(c.keep) })
	if n := await(t, kept, "count"); n > defaultInboundLimit || received.Load() != 0 {
		t.Errorf("%d bytes kept, %d delivered while paused", n, received.Load())
	}
	_ = client.SetWriteDeadline(time.Now().Add(patience))
	all := make(chan struct{})
	c.Loop().Post(func() {
		total := int64(sent) + 4
		c.Handler.(*scripted).data = func(c *Conn, p []byte) int {
			if received.Add(int64(len(p))) == total {
				close(all)
			}
			return len(p)
		}
		c.Resume()
	})
	send(t, client, "last")
	await(t, all, "rest of the stream")
}

// TestPausedStaysOffWhileWriting writes more than the socket takes while reads are off: gnet watches the socket anew then.
func TestPausedStaysOffWhileWriting(t *testing.T) {
	conns := make(chan *Conn, 1)
	g := start(t, Options{Loops: 1, OutboundLimit: 64 << 20}, func(*Conn) Handler {
		return &scripted{data: func(c *Conn, p []byte) int {
			c.Pause()
			select {
			case conns <- c:
			default:
			}
			return 0
		}}
	})
	client := connect(t, g)
	go io.Copy(client, io.LimitReader(endless{}, 16<<20))
	c := await(t, conns, "Data")
	written := make(chan bool, 1)
	const size = 32 << 20
	c.Loop().Post(func() {
		err := c.Write(make([]byte, size))
		written <- err == nil && c.Outbound() > 0
	})
	if !await(t, written, "write") {
		t.Fatal("the socket took all, or the write failed")
	}
	if _, err := io.ReadFull(client, make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	kept := make(chan int, 1)
	c.Loop().Post(func() { kept <- len(c.keep) })
	// One read of 64 KiB may slip through each time gnet has watched the socket anew: when it began to wait and when it was done.
	if n := await(t, kept, "count"); n > defaultInboundLimit+2*readBuffer {
		t.Errorf("%d bytes kept", n)
	}
}

func TestHalfClosedWhilePaused(t *testing.T) {
	var events []string
	done := make(chan error, 1)
	conns := make(chan *Conn, 1)
	g := start(t, Options{Loops: 1}, func(*Conn) Handler {
		return &scripted{
			data: func(c *Conn, p []byte) int {
				return min(len(p), max(lines(p, func(line string) { events = append(events, line) }), 0)) * pauseOnce(c, events, conns)
			},
			closed: func(c *Conn, err error) { done <- err },
		}
	})
	client := connect(t, g)
	send(t, client, "first\n")
	c := await(t, conns, "pause")
	send(t, client, "second\n")
	client.CloseWrite()
	// The end of the stream has been seen when gnet has let go of the connection.
	awaitOnLoop(t, c.Loop(), func() bool { return c.half >= 0 })
	c.Loop().Post(func() {
		_ = c.Write([]byte("reply to first\n"))
		if !c.Remote().IsValid() {
			t.Error("no remote address")
		}
		c.Resume()
	})
	expectEnd(t, client, "reply to first\n")
	if err := await(t, done, "Closed"); !errors.Is(err, io.EOF) {
		t.Errorf("closed with %v", err)
	}
	if got := strings.Join(events, " "); got != "first second" {
		t.Errorf("lines %q", got)
	}
}

// pauseOnce pauses the connection after the first line; it returns 1.
func pauseOnce(c *Conn, events []string, conns chan *Conn) int {
	if len(events) == 1 {
		c.Pause()
		conns <- c
	}
	return 1
}

// awaitOnLoop waits until cond holds, asking on the loop.
func awaitOnLoop(t *testing.T, l *Loop, cond func() bool) {
	t.Helper()
	done := make(chan struct{})
	var ask func()
	ask = func() {
		if cond() {
			close(done)
			return
		}
		l.After(tick, &Timer{Fire: ask})
	}
	l.Post(ask)
	await(t, done, "condition")
}

func TestHalfClosedWhileReadingIsOff(t *testing.T) {
	const size = 4 << 20
	conns := make(chan *Conn, 1)
	done := make(chan error, 1)
	total := 0
	g := start(t, Options{Loops: 1}, func(*Conn) Handler {
		return &scripted{
			open: func(c *Conn) { c.Pause(); conns <- c },
			data: func(c *Conn, p []byte) int {
				if total += len(p); total == size {
					_ = c.Write([]byte("all"))
				}
				return len(p)
			},
			closed: func(_ *Conn, err error) { done <- err },
		}
	})
	client := connect(t, g)
	c := await(t, conns, "Open")
	go func() {
		client.Write(make([]byte, size))
		client.CloseWrite()
	}()
	awaitOnLoop(t, c.Loop(), func() bool { return c.readOff })
	c.Loop().Post(c.Resume)
	expectEnd(t, client, "all")
	if err := await(t, done, "Closed"); !errors.Is(err, io.EOF) || total != size {
		t.Errorf("closed with %v after %d bytes", err, total)
	}
}

func TestResetWhilePaused(t *testing.T) {
	done := make(chan error, 1)
	conns := make(chan *Conn, 1)
	g := start(t, Options{Loops: 1}, func(*Conn) Handler {
		return &scripted{
			open:   func(c *Conn) { c.Pause(); conns <- c },
			closed: func(_ *Conn, err error) { done <- err },
		}
	})
	client := connect(t, g)
	await(t, conns, "Open")
	_ = client.SetLinger(0)
	client.Close()
	if err := await(t, done, "Closed"); err == nil {
		t.Error("a reset gives no error")
	}
}

func TestOutboundLimit(t *testing.T) {
	done := make(chan error, 1)
	refused := make(chan error, 1)
	g := start(t, Options{Loops: 1, OutboundLimit: 256 << 10}, func(*Conn) Handler {
		return &scripted{
			open: func(c *Conn) {
				buf := make([]byte, 64<<10)
				for range 10000 {
					if err := c.Write(buf); err != nil {
						refused <- err
						break
					}
				}
				if c.Outbound() > 256<<10 {
					t.Errorf("%d bytes buffered", c.Outbound())
				}
				if err := c.Write(buf); !errors.Is(err, ErrClosed) {
					t.Errorf("write after the limit: %v", err)
				}
			},
			closed: func(_ *Conn, err error) { done <- err },
		}
	})
	connect(t, g)
	if err := await(t, refused, "refusal"); !errors.Is(err, ErrOutboundLimit) {
		t.Errorf("write: %v", err)
	}
	if err := await(t, done, "Closed"); !errors.Is(err, ErrOutboundLimit) {
		t.Errorf("closed with %v", err)
	}
}

// TestDrained sends bulk to a peer that reads late: the writer stops at the high mark and goes on in Drained.
func TestDrained(t *testing.T) {
	const total = 24 << 20
	sent, most, drained := 0, 0, 0
	full := make(chan struct{}, 1)
	fill := func(c *Conn) {
		buf := make([]byte, 64<<10)
		for sent < total && !c.Full() {
			if err := c.Write(buf); err != nil {
				t.Error(err)
				return
			}
			sent += len(buf)
			most = max(most, c.Outbound())
		}
		if sent == total {
			c.CloseAfterFlush()
			return
		}
		select {
		case full <- struct{}{}:
		default:
		}
	}
	g := start(t, Options{Loops: 1}, func(*Conn) Handler {
		return &scripted{open: fill, drained: func(c *Conn) { drained++; fill(c) }}
	})
	c := connect(t, g)
	await(t, full, "high mark")
	n, err := io.Copy(io.Discard, c)
	if n != total || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	g.Close()
	if most > defaultOutboundLimit/4+64<<10 || drained == 0 {
		t.Errorf("at most %d bytes were buffered, drained %d times", most, drained)
	}
}

func TestWritev(t *testing.T) {
	g := start(t, Options{Loops: 1}, func(*Conn) Handler {
		return &scripted{open: func(c *Conn) {
			var bs [][]byte
			for range 3000 {
				bs = append(bs, []byte("ab"), nil, []byte("c"))
			}
			if err := c.Writev(bs); err != nil {
				t.Error(err)
			}
			_ = c.Writev(nil)
			_ = c.Write(nil)
			c.CloseAfterFlush()
		}}
	})
	expectEnd(t, connect(t, g), strings.Repeat("abc", 3000))
}

// TestLastReplySurvivesUnreadInput answers a peer that goes on sending: without a linger the kernel would reset the connection, and the
// peer would read an error in place of the end.
func TestLastReplySurvivesUnreadInput(t *testing.T) {
	done := make(chan error, 1)
	g := start(t, Options{Loops: 1}, func(*Conn) Handler {
		return &scripted{
			data: func(c *Conn, p []byte) int {
				_ = c.Write([]byte("550 no\r\n"))
				c.CloseAfterFlush()
				return 1
			},
			closed: func(_ *Conn, err error) { done <- err },
		}
	})
	c := connect(t, g)
	send(t, c, strings.Repeat("x", 10000))
	expect(t, c, "550 no\r\n")
	for range 10 {
		send(t, c, strings.Repeat("y", 10000))
	}
	expectEnd(t, c, "")
	c.Close()
	if err := await(t, done, "Closed"); err != nil {
		t.Errorf("closed with %v", err)
	}
}

func TestFlushIsBoundedByDeadline(t *testing.T) {
	done := make(chan error, 1)
	g := start(t, Options{Loops: 1, OutboundLimit: 64 << 20}, func(*Conn) Handler {
		return &scripted{
			open: func(c *Conn) {
				_ = c.Write(make([]byte, 32<<20))
				c.SetDeadline(time.Millisecond)
				c.CloseAfterFlush()
			},
			timeout: func(*Conn) { t.Error("Timeout while closing") },
			closed:  func(_ *Conn, err error) { done <- err },
		}
	})
	connect(t, g)
	if err := await(t, done, "Closed"); err != nil {
		t.Errorf("closed with %v", err)
	}
}

func TestWriteToClosedPeerClosesOnce(t *testing.T) {
	done := make(chan error, 2)
	conns := make(chan *Conn, 1)
	g := start(t, Options{Loops: 1}, func(*Conn) Handler {
		return &scripted{open: func(c *Conn) { conns <- c }, closed: func(_ *Conn, err error) { done <- err }}
	})
	client := connect(t, g)
	c := await(t, conns, "Open")
	_ = client.SetLinger(0)
	inside := make(chan bool, 1)
	c.Loop().Post(func() {
		client.Close() // the reset is here before gnet can read it
		for c.Write([]byte("x")) == nil {
		}
		inside <- len(done) == 0 && errors.Is(c.Write([]byte("x")), ErrClosed)
		c.Close()
		c.Pause()
		c.Resume()
		c.SetDeadline(time.Millisecond)
	})
	if !await(t, inside, "failed write") {
		t.Error("Closed was called inside Write, or a closed connection takes bytes")
	}
	if err := await(t, done, "Closed"); err == nil {
		t.Error("closed without an error")
	}
	g.Close()
	if len(done) != 0 {
		t.Error("Closed twice")
	}
}

func TestDeadlineMovesAndClears(t *testing.T) {
	fired := make(chan string, 4)
	g := start(t, Options{Loops: 1}, func(*Conn) Handler {
		return &scripted{
			open: func(c *Conn) { c.SetDeadline(time.Hour); c.SetDeadline(time.Millisecond) },
			timeout: func(c *Conn) {
				fired <- "timeout"
				_ = c.Write([]byte("t"))
			},
			data: func(c *Conn, p []byte) int {
				c.SetDeadline(time.Millisecond)
				c.SetDeadline(0)
				var mark Timer
				mark.Fire = func() { fired <- "mark" }
				c.Loop().After(50*time.Millisecond, &mark)
				return len(p)
			},
		}
	})
	c := connect(t, g)
	if got := await(t, fired, "timeout"); got != "timeout" {
		t.Fatal(got)
	}
	expect(t, c, "t")
	send(t, c, "x")
	if got := await(t, fired, "mark"); got != "mark" {
		t.Error("a cleared deadline fired")
	}
}

func TestAddresses(t *testing.T) {
	type pair struct{ remote, local string }
	got := make(chan pair, 1)
	g, err := Start(Options{Loops: 1, Listeners: []Listener{{Address: ":0", New: func(c *Conn) Handler {
		return &scripted{open: func(c *Conn) { got <- pair{c.Remote().String(), c.Local().String()} }}
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	_, port, _ := net.SplitHostPort(g.Addr(0).String())
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if p := await(t, got, "Open"); p.remote != c.LocalAddr().String() || p.local != c.RemoteAddr().String() {
		t.Errorf("%+v, the client has %s and %s", p, c.LocalAddr(), c.RemoteAddr())
	}
}
