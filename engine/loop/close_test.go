package loop

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestCloseLeavesNothing compares goroutines and descriptors before and after, with connections in every state.
func TestCloseLeavesNothing(t *testing.T) {
	run := func() {
		const n = 40
		var closed atomic.Int64
		accepted, dialled := make(chan struct{}, n), make(chan struct{}, n)
		g, err := Start(Options{Loops: 2, Listeners: []Listener{{Address: "127.0.0.1:0", New: func(*Conn) Handler {
			return &scripted{
				open:   func(c *Conn) { c.SetDeadline(time.Hour); accepted <- struct{}{} },
				closed: func(*Conn, error) { closed.Add(1) },
			}
		}}}})
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			g.Loops()[i%2].Dial(Dial{Address: g.Addr(0).String()}, &scripted{
				open: func(c *Conn) {
					switch i % 4 {
					case 1:
						c.Pause()
					case 2:
						_ = c.Write(make([]byte, 900<<10))
					case 3:
						c.Close()
					}
					dialled <- struct{}{}
				},
				closed: func(*Conn, error) { closed.Add(1) },
			})
		}
		for range n {
			await(t, accepted, "Open of an accepted connection")
			await(t, dialled, "Open of a dialled connection")
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		await(t, g.Done(), "end")
		if closed.Load() != 2*n {
			t.Errorf("%d of %d connections closed", closed.Load(), 2*n)
		}
	}
	run() // pools of goroutines, epoll of the runtime
	before := files(t)
	run()
	eventually(t, "descriptors and goroutines as before", func() (bool, string) {
		left := leftRunning()
		after := files(t)
		return left == "" && len(after) == len(before), fmt.Sprintf("descriptors %v, were %v\n%s", after, before, left)
	})
}

// leftRunning is the stacks of goroutines of gnet and of this package, but the pool of workers that gnet keeps for the process.
func leftRunning() string {
	var left strings.Builder
	buf := make([]byte, 1<<20)
	for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(stack, "gnet") && !strings.Contains(stack, "ants") || strings.Contains(stack, "engine/loop.(*") {
			left.WriteString(stack + "\n\n")
		}
	}
	return left.String()
}

// eventually waits for what ends by itself, but after the call that causes it has returned.
func eventually(t *testing.T, what string, cond func() (bool, string)) {
	t.Helper()
	for end := time.Now().Add(patience); ; runtime.Gosched() {
		ok, state := cond()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not %s: %s", what, state)
		}
	}
}

func files(t *testing.T) []string {
	t.Helper()
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	var names []string
	for _, e := range dir {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			names = append(names, target)
		}
	}
	return names
}

// TestCloseRaces closes a group while clients connect, send and close, tasks are posted and dials are under way.
func TestCloseRaces(t *testing.T) {
	for range 10 {
		var opened, closed atomic.Int64
		g := start(t, Options{Loops: 2, Log: slog.New(slog.DiscardHandler)}, func(*Conn) Handler {
			opened.Add(1)
			return &scripted{
				data: func(c *Conn, p []byte) int {
					_ = c.Write(p)
					c.Loop().Post(func() { _ = c.Write(p[:0]) })
					return len(p)
				},
				closed: func(c *Conn, _ error) { closed.Add(1); c.Loop().Post(c.Close) },
			}
		})
		ctx, cancel := context.WithCancel(context.Background())
		var wait sync.WaitGroup
		var dials, ended atomic.Int64
		for i := range 4 {
			wait.Add(1)
			go func() {
				defer wait.Done()
				for ctx.Err() == nil {
					if i == 0 {
						dials.Add(1)
						g.Loops()[0].Dial(Dial{Address: g.Addr(0).String()}, &scripted{
							open:   func(c *Conn) { _ = c.Write([]byte("x")) },
							data:   func(c *Conn, p []byte) int { c.Close(); return len(p) },
							closed: func(*Conn, error) { ended.Add(1) },
						})
						runtime.Gosched()
						continue
					}
					if c, err := net.Dial("tcp", g.Addr(0).String()); err == nil {
						_, _ = io.WriteString(c, "x")
						_, _ = c.Read(make([]byte, 1))
						c.Close()
					}
				}
			}()
		}
		for opened.Load() < 20 {
			runtime.Gosched()
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		cancel()
		wait.Wait()
		if opened.Load() != closed.Load() || g.Stats().Open != 0 {
			t.Errorf("%d opened, %d closed, stats %+v", opened.Load(), closed.Load(), g.Stats())
		}
	}
}

// TestLoopsEndByError breaks a listener, which ends gnet's loops.
func TestLoopsEndByError(t *testing.T) {
	opened, done := make(chan struct{}, 1), make(chan error, 1)
	g, err := Start(Options{Loops: 2, Log: slog.New(slog.DiscardHandler), Listeners: []Listener{{Address: "127.0.0.1:0", New: func(*Conn) Handler {
		return &scripted{open: func(*Conn) { opened <- struct{}{} }, closed: func(_ *Conn, err error) { done <- err }}
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	connect(t, g)
	await(t, opened, "Open")
	l := g.Loops()[0]
	l.Post(func() { _ = syscall.Shutdown(l.listeners[0], syscall.SHUT_RDWR) })
	if err := await(t, done, "Closed"); err == nil {
		t.Error("a connection was closed without an error")
	}
	await(t, g.Done(), "end of the loops")
	if g.Err() == nil || g.Close() == nil {
		t.Error("no error")
	}
	if l.Post(func() {}) {
		t.Error("an ended loop takes tasks")
	}
	l.Dial(Dial{Address: g.Addr(0).String()}, &scripted{})
}

// TestClosedByAnotherConnection closes one connection inside Data of another.
func TestClosedByAnotherConnection(t *testing.T) {
	type end struct {
		victim bool
		err    error
	}
	opened, done := make(chan struct{}, 2), make(chan end, 2)
	var victim *Conn // of the loop
	g := start(t, Options{Loops: 1}, func(*Conn) Handler {
		return &scripted{
			open: func(c *Conn) {
				if victim == nil {
					victim = c
				}
				opened <- struct{}{}
			},
			data: func(c *Conn, p []byte) int {
				victim.Close()
				if len(done) != 0 || c.loop.conns.count != 2 {
					t.Error("closed inside a callback of another connection")
				}
				return len(p)
			},
			closed: func(c *Conn, err error) { done <- end{c == victim, err} },
		}
	})
	a := connect(t, g)
	await(t, opened, "Open")
	b := connect(t, g)
	await(t, opened, "Open")
	send(t, b, "x")
	if e := await(t, done, "Closed"); !e.victim || e.err != nil {
		t.Errorf("closed: %+v", e)
	}
	expectEnd(t, a, "")
}
