package loop

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestPostOrderAndBatching(t *testing.T) {
	g := start(t, Options{Loops: 1}, nil)
	l := g.Loops()[0]
	const posters, each = 8, 500
	got := make([][]int, posters)
	var wait sync.WaitGroup
	for p := range posters {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for i := range each {
				l.Post(func() { got[p] = append(got[p], i) })
			}
		}()
	}
	wait.Wait()
	done := make(chan struct{})
	l.Post(func() { close(done) })
	await(t, done, "last task")
	for p := range got {
		if len(got[p]) != each || !slices.IsSorted(got[p]) {
			t.Errorf("poster %d: %d tasks, in order %v", p, len(got[p]), slices.IsSorted(got[p]))
		}
	}
}

// TestPostWakesOnce posts while the loop is held up: all tasks run in one drain.
func TestPostWakesOnce(t *testing.T) {
	g := start(t, Options{Loops: 1}, nil)
	l := g.Loops()[0]
	held, release, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	l.Post(func() { close(held); <-release })
	await(t, held, "task")
	depths := map[bool]int{}
	for range 100 {
		l.Post(func() { depths[l.draining]++ })
	}
	l.mu.Lock()
	queued := len(l.queue)
	l.mu.Unlock()
	l.Post(func() { close(done) })
	close(release)
	await(t, done, "last task")
	if queued != 100 || depths[true] != 100 {
		t.Errorf("%d queued, %v run while draining", queued, depths)
	}
}

// TestPostForeverDoesNotStarve has a task that always posts itself again; sockets are still served.
func TestPostForeverDoesNotStarve(t *testing.T) {
	g := start(t, Options{Loops: 1}, func(*Conn) Handler {
		return &scripted{data: func(c *Conn, p []byte) int { _ = c.Write(p); return len(p) }}
	})
	l := g.Loops()[0]
	var stop atomic.Bool
	defer stop.Store(true)
	var again func()
	again = func() {
		if !stop.Load() {
			l.Post(again)
		}
	}
	l.Post(again)
	c := connect(t, g)
	send(t, c, "x")
	expect(t, c, "x")
}

func TestTimersOfLoop(t *testing.T) {
	g := start(t, Options{Loops: 1}, nil)
	l := g.Loops()[0]
	fired := make(chan string, 10)
	l.Post(func() {
		never := &Timer{Fire: func() { fired <- "never" }}
		l.After(time.Second, never)
		l.After(10*time.Millisecond, &Timer{Fire: func() {
			never.Stop()
			fired <- "first"
			l.After(0, &Timer{Fire: func() {
				fired <- "soon"
				l.After(30*time.Millisecond, &Timer{Fire: func() { fired <- "last" }})
			}})
		}})
	})
	for _, want := range []string{"first", "soon", "last"} {
		if got := await(t, fired, want); got != want {
			t.Errorf("%s fired, want %s", got, want)
		}
	}
}

func TestThousandConnectionsEachOfOneLoop(t *testing.T) {
	const n = 1000
	var opened [3]atomic.Int64
	var closed atomic.Int64
	all := make(chan struct{})
	g := start(t, Options{Loops: 3, Setup: func(l *Loop) { l.Value = goroutine() }}, func(c *Conn) Handler {
		owner := goroutine()
		check := func(what string) {
			if id := goroutine(); id != owner || id != c.Loop().Value {
				t.Errorf("%s on goroutine %s, opened on %s", what, id, owner)
			}
		}
		return &scripted{
			open: func(c *Conn) { check("Open"); opened[c.Loop().Index()].Add(1) },
			data: func(c *Conn, p []byte) int { check("Data"); _ = c.Write(p); return len(p) },
			closed: func(*Conn, error) {
				check("Closed")
				if closed.Add(1) == n {
					close(all)
				}
			},
		}
	})
	conns := make([]*net.TCPConn, n)
	for i := range conns {
		conns[i] = connect(t, g)
	}
	for i, c := range conns {
		send(t, c, fmt.Sprintf("hello %04d", i))
	}
	for i, c := range conns {
		expect(t, c, fmt.Sprintf("hello %04d", i))
	}
	if open := g.Stats().Open; open != n {
		t.Errorf("%d open", open)
	}
	for _, c := range conns {
		c.Close()
	}
	await(t, all, "Closed of all")
	for i := range opened {
		if opened[i].Load() == 0 {
			t.Errorf("loop %d got no connection", i)
		}
	}
}

// goroutine is the number of the running goroutine.
func goroutine() string {
	buf := make([]byte, 64)
	return strings.Fields(string(buf[:runtime.Stack(buf, false)]))[1]
}

func TestStopAcceptingRefuses(t *testing.T) {
	g := start(t, Options{Loops: 2}, func(*Conn) Handler {
		return &scripted{data: func(c *Conn, p []byte) int { _ = c.Write(p); return len(p) }}
	})
	c := connect(t, g)
	send(t, c, "a")
	expect(t, c, "a")
	g.StopAccepting()
	g.StopAccepting()
	for range 10 {
		if _, err := net.Dial("tcp", g.Addr(0).String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("connect: %v", err)
		}
	}
	send(t, c, "b")
	expect(t, c, "b")
}

func TestNewMayRefuse(t *testing.T) {
	g := start(t, Options{Loops: 1}, func(*Conn) Handler { return nil })
	expectEnd(t, connect(t, g), "")
	if s := g.Stats(); s.Refused != 1 || s.Open != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestStartErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	other := start(t, Options{Loops: 1}, func(*Conn) Handler { return nil })
	none := func(*Conn) Handler { return nil }
	cases := map[string][]Listener{
		"taken":                  {{Address: taken.Addr().String(), New: none}},
		"taken by another group": {{Address: other.Addr(0).String(), New: none}},
		"not an address":         {{Address: "127.0.0.1", New: none}},
		"not of this machine":    {{Address: "192.0.2.1:25", New: none}},
	}
	for name, listeners := range cases {
		if g, err := Start(Options{Loops: 1, Listeners: listeners}); err == nil {
			g.Close()
			t.Errorf("%s: no error", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

func TestSameAddressTwice(t *testing.T) {
	none := func(*Conn) Handler { return nil }
	port := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}()
	g, err := Start(Options{Loops: 1, Listeners: []Listener{{Address: port, New: none}, {Address: port, New: none}}})
	if err == nil {
		g.Close()
		t.Error("no error")
	}
}

func TestTwoListeners(t *testing.T) {
	say := func(s string) func(*Conn) Handler {
		return func(c *Conn) Handler {
			return &scripted{open: func(c *Conn) { _ = c.Write([]byte(fmt.Sprint(s, c.Listener()))); c.Close() }}
		}
	}
	g, err := Start(Options{Loops: 2, Listeners: []Listener{
		{Address: "127.0.0.1:0", New: say("a")}, {Address: "[::1]:0", New: say("b")}, {Address: "localhost:0", New: say("c")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for i, want := range []string{"a0", "b1", "c2"} {
		c, err := net.Dial("tcp", g.Addr(i).String())
		if err != nil {
			t.Fatal(err)
		}
		expectEnd(t, c, want)
		c.Close()
	}
}

// TestEarlyConnections connects while the group is still setting up: nothing is opened before every loop is ready, and nothing is lost.
func TestEarlyConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	var ready atomic.Int64
	conns := make(chan net.Conn, 20)
	g, err := Start(Options{Loops: 2,
		Setup: func(*Loop) {
			for range 10 {
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.WriteString(c, "early")
				conns <- c
			}
			ready.Add(1)
		},
		Listeners: []Listener{{Address: address, New: func(*Conn) Handler {
			if ready.Load() != 2 {
				t.Error("opened before the loops are ready")
			}
			return &scripted{data: func(c *Conn, p []byte) int { _ = c.Write(p); return len(p) }}
		}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for range 20 {
		c := <-conns
		expect(t, c, "early")
		c.Close()
	}
}

func TestGnetLogsToOurLogger(t *testing.T) {
	var b strings.Builder
	var mu sync.Mutex
	log := slog.New(slog.NewTextHandler(lockedWriter{&mu, &b}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	g := start(t, Options{Loops: 1, Log: log}, func(*Conn) Handler { return nil })
	g.Close()
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(b.String(), "Launching gnet") || strings.Contains(b.String(), "level=ERROR") || strings.Contains(b.String(), "level=WARN") {
		t.Errorf("log: %s", b.String())
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(p)
}
