package loop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
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

func TestDial(t *testing.T) {
	g := start(t, Options{Loops: 2}, func(c *Conn) Handler {
		return &scripted{open: func(c *Conn) { _ = c.Write([]byte("220 hi")) }}
	})
	out := start(t, Options{Loops: 2}, nil)
	for i, l := range out.Loops() {
		got, done := make(chan string, 1), make(chan error, 1)
		l.Dial(Dial{Address: g.Addr(0).String(), Local: netip.MustParseAddr("127.0.0.2"), Timeout: patience}, &scripted{
			open: func(c *Conn) {
				if c.Loop() != l || c.Listener() != -1 || c.Remote().String() != g.Addr(0).String() || c.Local().Addr().String() != "127.0.0.2" {
					t.Errorf("loop %d, listener %d, %s to %s", c.Loop().Index(), c.Listener(), c.Local(), c.Remote())
				}
			},
			data:   func(c *Conn, p []byte) int { got <- string(p); c.Close(); return len(p) },
			closed: func(_ *Conn, err error) { done <- err },
		})
		if s := await(t, got, "banner"); s != "220 hi" {
			t.Errorf("loop %d: banner %q", i, s)
		}
		if err := await(t, done, "Closed"); err != nil {
			t.Errorf("loop %d: %v", i, err)
		}
	}
	out.Close()
	if s := out.Stats(); s.Dialled != 2 || s.Open != 0 || s.DialsFailed != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestDialFails(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	full, hold := fullBacklog(t)
	defer hold()
	cases := []struct {
		name string
		dial Dial
		is   func(error) bool
	}{
		{"refused", Dial{Address: address}, func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }},
		{"timeout", Dial{Address: full, Timeout: 50 * time.Millisecond}, func(err error) bool {
			var n net.Error
			return errors.As(err, &n) && n.Timeout()
		}},
		{"bad address", Dial{Address: "nowhere"}, func(err error) bool { return err != nil }},
		{"bad network", Dial{Network: "carrier-pigeon", Address: address}, func(err error) bool { return err != nil }},
	}
	g := start(t, Options{Loops: 1}, nil)
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			done := make(chan error, 1)
			g.Loops()[0].Dial(tc.dial, &scripted{
				open: func(*Conn) { t.Error("Open") },
				closed: func(c *Conn, err error) {
					if c != nil {
						t.Error("Closed with a connection")
					}
					done <- err
				},
			})
			if err := await(t, done, "Closed"); !tc.is(err) {
				t.Errorf("closed with %v", err)
			}
		})
	}
	if s := g.Stats(); s.DialsFailed != int64(len(cases)) || s.Open != 0 {
		t.Errorf("stats %+v", s)
	}
}

// fullBacklog is the address of a listener that answers no further connect.
func fullBacklog(t *testing.T) (address string, release func()) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address = fmt.Sprintf("127.0.0.1:%d", sa.(*syscall.SockaddrInet4).Port)
	var held []net.Conn
	for {
		c, err := net.DialTimeout("tcp", address, 100*time.Millisecond)
		if err != nil {
			break
		}
		held = append(held, c)
	}
	return address, func() {
		for _, c := range held {
			c.Close()
		}
		syscall.Close(fd)
	}
}

func TestCloseCancelsDials(t *testing.T) {
	full, release := fullBacklog(t)
	defer release()
	g := start(t, Options{Loops: 1}, nil)
	const n = maxDials + 50 // some of them wait for their turn
	var failed atomic.Int64
	for range n {
		g.Loops()[0].Dial(Dial{Address: full}, &scripted{closed: func(_ *Conn, err error) {
			if !errors.Is(err, ErrGroupClosed) {
				t.Errorf("closed with %v", err)
			}
			failed.Add(1)
		}})
	}
	g.Close()
	if failed.Load() != n {
		t.Errorf("%d of %d dials ended in Closed", failed.Load(), n)
	}
	g.Loops()[0].Dial(Dial{Address: full}, &scripted{})
	if g.Loops()[0].Post(func() {}) {
		t.Error("a closed group takes tasks")
	}
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

func TestMaxConnections(t *testing.T) {
	closed := make(chan struct{}, 10)
	g, err := Start(Options{Loops: 1, MaxConnections: 2, Listeners: []Listener{{
		Address: "127.0.0.1:0",
		Busy:    []byte("421 busy\r\n"),
		New: func(*Conn) Handler {
			return &scripted{
				open:   func(c *Conn) { _ = c.Write([]byte("220\r\n")) },
				closed: func(*Conn, error) { closed <- struct{}{} },
			}
		},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	a, b := connect(t, g), connect(t, g)
	expect(t, a, "220\r\n")
	expect(t, b, "220\r\n")
	for range 3 {
		expectEnd(t, connect(t, g), "421 busy\r\n")
	}
	a.Close()
	await(t, closed, "Closed")
	expect(t, connect(t, g), "220\r\n")
	if s := g.Stats(); s.Refused != 3 || s.Accepted != 3 || s.Open != 2 {
		t.Errorf("stats %+v", s)
	}
}

func TestLimiter(t *testing.T) {
	var m limiter
	if err := m.init(&Options{MaxConnections: 3, ReserveFiles: 1}); err != nil {
		t.Fatal(err)
	}
	if m.accepted != 3 || m.open <= 3 || m.fd < int(m.open) {
		t.Errorf("limits %d accepted, %d open, descriptors below %d", m.accepted, m.open, m.fd)
	}
	if m.admit(m.fd) {
		t.Error("a descriptor near the limit is admitted")
	}
	m.open = 2
	if !m.admit(5) || !m.acquire() || m.acquire() || m.admit(5) {
		t.Error("the limit of all connections does not hold")
	}
	m.release(false)
	if !m.admit(5) || m.nowAccepted.Load() != 2 || m.nowOpen.Load() != 2 {
		t.Error("a released place is not given again")
	}
}

// TestDescriptorsRunOut connects until the process, which has both ends, has no descriptor left. The loop must outlive it.
func TestDescriptorsRunOut(t *testing.T) {
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 256, Max: old.Max}); err != nil {
		t.Skip(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	}()
	g := start(t, Options{Loops: 1, ReserveFiles: 100, Log: slog.New(slog.DiscardHandler)}, func(*Conn) Handler {
		return &scripted{open: func(c *Conn) { _ = c.Write([]byte("220\r\n")) }}
	})
	var conns []net.Conn
	for {
		c, err := net.Dial("tcp", g.Addr(0).String())
		if err != nil {
			if !errors.Is(err, syscall.EMFILE) {
				t.Fatal(err)
			}
			break
		}
		conns = append(conns, c)
	}
	if s := g.Stats(); s.Refused == 0 || s.Open == 0 {
		t.Errorf("stats %+v with %d clients", s, len(conns))
	}
	for _, c := range conns {
		c.Close()
	}
	expect(t, connect(t, g), "220\r\n") // waits in the backlog while the listener rests
	if err := g.Err(); err != nil {
		t.Error(err)
	}
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
	if after := files(t); len(after) != len(before) {
		t.Errorf("descriptors before %v, after %v", before, after)
	}
	buf := make([]byte, 1<<20)
	for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(stack, "gnet") && !strings.Contains(stack, "ants") || strings.Contains(stack, "engine/loop.(*") {
			t.Errorf("left running: %s", stack)
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
