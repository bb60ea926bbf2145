package loop

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/panjf2000/gnet/v2"
)

// echoLines is a session as the protocol machines use a connection: a deadline for each read, whole lines consumed, one write.
type echoLines struct{ scripted }

func (*echoLines) Data(c *Conn, p []byte) int {
	c.SetDeadline(time.Minute)
	n := bytes.LastIndexByte(p, '\n') + 1
	_ = c.Write(p[:n])
	return n
}

// pinger exchanges messages with a server without allocating.
type pinger struct {
	net.Conn
	out, in []byte
}

func newPinger(t testing.TB, address string, out string) *pinger {
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &pinger{c, []byte(out), make([]byte, len(out))}
}

func (p *pinger) ping(t testing.TB) {
	if _, err := p.Write(p.out); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(p, p.in); err != nil {
		t.Fatal(err)
	}
}

func TestAllocations(t *testing.T) {
	g := start(t, Options{Loops: 1, Log: slog.New(slog.DiscardHandler)}, func(*Conn) Handler { return &echoLines{} })
	t.Run("read, deadline and write", func(t *testing.T) {
		p := newPinger(t, g.Addr(0).String(), "hello\n")
		if n := testing.AllocsPerRun(500, func() { p.ping(t) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
	t.Run("line in two reads", func(t *testing.T) {
		// The second line is not whole in the first read. It is echoed after the next write.
		p := newPinger(t, g.Addr(0).String(), "hello\nwor")
		rest := []byte("ld\n")
		p.in = p.in[:6]
		tail := make([]byte, 6)
		if n := testing.AllocsPerRun(500, func() {
			p.ping(t)
			_, _ = p.Write(rest)
			_, _ = io.ReadFull(p, tail)
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
	t.Run("posted task", func(t *testing.T) {
		const batch = 64
		tasks := make([]signal, batch)
		done := make(chan struct{}, 1)
		tasks[batch-1].done = done
		l := g.Loops()[0]
		n := testing.AllocsPerRun(200, func() {
			for i := range tasks {
				l.PostTask(&tasks[i])
			}
			<-done
		})
		// gnet allocates for each waking of the loop; the loop may be woken several times while it keeps up with the poster.
		if n >= batch/2 {
			t.Errorf("%v allocations for %d tasks", n, batch)
		}
		t.Logf("%v allocations for %d tasks", n, batch)
	})
	t.Run("pause and resume", func(t *testing.T) {
		g := start(t, Options{Loops: 1}, func(*Conn) Handler { return &parked{} })
		p := newPinger(t, g.Addr(0).String(), "hello\n")
		// One posted task a round, which wakes the loop or not: what is left are gnet's two allocations for waking.
		if n := testing.AllocsPerRun(500, func() { p.ping(t) }); n > 2 {
			t.Errorf("%v allocations", n)
		}
	})
}

// parked answers from a posted task, like a session that waits for its commit.
type parked struct {
	scripted
	c *Conn
}

func (s *parked) Data(c *Conn, p []byte) int {
	s.c = c
	c.Pause()
	c.Loop().PostTask(s)
	return len(p)
}

func (s *parked) Run() {
	_ = s.c.Write(hello)
	s.c.Resume()
}

var hello = []byte("hello\n")

type signal struct{ done chan struct{} }

func (s *signal) Run() {
	if s.done != nil {
		s.done <- struct{}{}
	}
}

// bareEcho is the same session on gnet alone, without a deadline.
type bareEcho struct {
	gnet.BuiltinEventEngine
	engine  gnet.Engine
	running chan struct{}
	once    sync.Once
}

func (e *bareEcho) OnBoot(engine gnet.Engine) gnet.Action {
	e.engine = engine
	return gnet.None
}

func (e *bareEcho) OnTick() (time.Duration, gnet.Action) {
	e.once.Do(func() { close(e.running) })
	return time.Hour, gnet.None
}

func (e *bareEcho) OnTraffic(c gnet.Conn) gnet.Action {
	p, _ := c.Peek(-1)
	n := bytes.LastIndexByte(p, '\n') + 1
	_, _ = c.Write(p[:n])
	_, _ = c.Discard(n)
	return gnet.None
}

// BenchmarkEcho is what this package costs on top of gnet: one connection, lines of 64 bytes, one in flight or 64 pipelined ones.
func BenchmarkEcho(b *testing.B) {
	line := string(bytes.Repeat([]byte("x"), 63)) + "\n"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	bareAddress := l.Addr().String()
	l.Close()
	bare := &bareEcho{running: make(chan struct{})}
	ended := make(chan error, 1)
	go func() {
		ended <- gnet.Rotate(bare, []string{"tcp://" + bareAddress}, gnet.WithNumEventLoop(1), gnet.WithReusePort(true), gnet.WithTicker(true),
			gnet.WithLogger(gnetLogger{slog.New(slog.DiscardHandler)}))
	}()
	<-bare.running
	defer func() { _ = bare.engine.Stop(b.Context()); <-ended }()
	g := start(b, Options{Loops: 1, Log: slog.New(slog.DiscardHandler)}, func(*Conn) Handler { return &echoLines{} })
	for _, server := range []struct{ name, address string }{{"gnet", bareAddress}, {"loop", g.Addr(0).String()}} {
		b.Run(server.name, func(b *testing.B) {
			p := newPinger(b, server.address, line)
			b.ReportAllocs()
			for b.Loop() {
				p.ping(b)
			}
		})
	}
}

// BenchmarkReceived is the cost of this package for one read, without a socket.
func BenchmarkReceived(b *testing.B) {
	g := start(b, Options{Loops: 1, Log: slog.New(slog.DiscardHandler)}, nil)
	l := g.Loops()[0]
	done := make(chan struct{})
	l.Post(func() {
		defer close(done)
		c := &Conn{loop: l, half: -1, Handler: &deadlineOnly{}}
		p := make([]byte, 1000)
		b.ReportAllocs()
		for b.Loop() {
			l.depth--
			l.enter(c)
			c.received(p)
			l.depth++
			l.leave()
		}
		c.timer.Stop()
	})
	<-done
}

type deadlineOnly struct{ scripted }

func (*deadlineOnly) Data(c *Conn, p []byte) int {
	c.SetDeadline(time.Minute)
	return len(p)
}

// BenchmarkPostTask posts from another goroutine, in batches as a committer does.
func BenchmarkPostTask(b *testing.B) {
	g := start(b, Options{Loops: 1, Log: slog.New(slog.DiscardHandler)}, nil)
	l := g.Loops()[0]
	const batch = 64
	tasks := make([]signal, batch)
	done := make(chan struct{}, 1)
	tasks[batch-1].done = done
	b.ReportAllocs()
	for b.Loop() {
		for i := range tasks {
			l.PostTask(&tasks[i])
		}
		<-done
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch, "ns/task")
}

// BenchmarkConnect opens, uses and closes connections, as clients do that send one message each.
func BenchmarkConnect(b *testing.B) {
	g := start(b, Options{Loops: 1, Log: slog.New(slog.DiscardHandler)}, func(*Conn) Handler { return &echoLines{} })
	b.ReportAllocs()
	for b.Loop() {
		c, err := net.Dial("tcp", g.Addr(0).String())
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.WriteString(c, "x\n")
		_, _ = c.Read(make([]byte, 2))
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
}
