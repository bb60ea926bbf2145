package ingress

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"golang.org/x/sys/unix"

	"mailrace/engine/loop"
	"mailrace/proto/message"
	"mailrace/proto/smtp"
	"mailrace/spool"
)

// patience is how long a test waits for an event before it fails. It is no measure of speed.
const patience = 30 * time.Second

// shelf is a store under the test's control. It completes operations at once, or holds them until the test lets them go.
type shelf struct {
	held chan *spool.Op // nil = complete at once
	loop *loop.Loop
	full atomic.Bool

	mu       sync.Mutex
	last     message.ID
	appended []message.ID
	chunks   int
	aborted  []spool.Removal
}

func (s *shelf) NewID(int) message.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = message.NextID(s.last, time.Now(), 0)
	return s.last
}

func (s *shelf) Keeps() bool { return true }

func (s *shelf) Full() bool { return s.full.Load() }

func (s *shelf) Enqueue(_ int, op *spool.Op) {
	s.mu.Lock()
	switch {
	case op.Append != nil:
		s.appended = append(s.appended, op.Append.ID)
	case op.Chunk.Data != nil:
		s.chunks++
	default:
		s.aborted = append(s.aborted, op.Abort)
	}
	s.mu.Unlock()
	if s.held != nil {
		s.held <- op
		return
	}
	s.complete(op, nil)
}

// complete answers for an operation.
func (s *shelf) complete(op *spool.Op, err error) {
	op.Err = err
	s.loop.Post(func() { op.Done.(interface{ Completed(*spool.Op) }).Completed(op) })
}

// counts are how many messages, chunks and aborts came.
func (s *shelf) counts() (appended, chunks, aborted int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.appended), s.chunks, len(s.aborted)
}

// forget sets the counts to zero.
func (s *shelf) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.appended, s.chunks, s.aborted = nil, 0, nil
}

// arrival is a message that was passed on, with its content.
type arrival struct {
	*message.Message
	content string
}

// rig is a door on a loop, with what tests look at.
type rig struct {
	t        testing.TB
	door     *Door
	store    *shelf
	group    *loop.Group
	accepted chan arrival
	timeouts chan struct{} // a session's deadline passed
}

// watched tells of the deadlines of a session.
type watched struct {
	loop.Handler
	rig *rig
}

func (w watched) Timeout(c *loop.Conn) {
	select {
	case w.rig.timeouts <- struct{}{}:
	default:
	}
	w.Handler.Timeout(c)
}

// open opens a door that completes what it stores at once, unless change says otherwise.
func open(t testing.TB, change func(d *Door, s *shelf)) *rig {
	t.Helper()
	r := &rig{t: t, store: &shelf{}, accepted: make(chan arrival, 100_000), timeouts: make(chan struct{}, 1000)}
	r.door = &Door{
		SMTP: &smtp.ServerConfig{Hostname: "mta.test.example"}, RelayFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Budget: message.NewBudget(64 << 20), Store: r.store, Pace: Pace{Command: patience, Data: patience},
		Stats: NewStats(metrics.NewSet()),
	}
	r.door.Accepted = func(_ *loop.Loop, m *message.Message) {
		a := arrival{Message: m}
		for _, c := range m.Body {
			a.content += string(c.B)
		}
		r.accepted <- a
		m.Release()
	}
	if change != nil {
		change(r.door, r.store)
	}
	r.door.OpenRooms(1)
	var err error
	r.group, err = loop.Start(loop.Options{
		Loops: 1, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Setup: func(l *loop.Loop) { r.store.loop = l },
		Listeners: []loop.Listener{{Address: "127.0.0.1:0", New: func(c *loop.Conn) loop.Handler { return watched{r.door.New(c), r} }}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.group.Close() })
	return r
}

// hold makes the store hold what it gets.
func hold(_ *Door, s *shelf) { s.held = make(chan *spool.Op, 10_000) }

// sessions asks the loop for the number of sessions; what was posted to the loop before has been done then.
func (r *rig) sessions() int {
	n := make(chan int, 1)
	l := r.group.Loops()[0]
	l.Post(func() { n <- r.door.Sessions(l) })
	return receive(r.t, n)
}

// barrier returns when the loop has done what it had to do.
func (r *rig) barrier() { r.sessions() }

// await polls a condition that has no other way to tell.
func (r *rig) await(what string, holds func() bool) {
	r.t.Helper()
	limit, look := time.After(patience), time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !holds() {
		select {
		case <-look.C:
		case <-limit:
			r.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// awaitQuiet waits until there is no session and no content in memory: nothing leaked.
func (r *rig) awaitQuiet() {
	r.t.Helper()
	r.await("the end of all sessions, and free memory", func() bool { return r.sessions() == 0 && r.door.Budget.Used() == 0 })
}

func receive[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("waited in vain")
		panic("not reached")
	}
}

// client is one side of a dialogue.
type client struct {
	*net.TCPConn
	t testing.TB
	r *bufio.Reader
}

// connect opens a connection without a word.
func (r *rig) connect() *client {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.group.Addr(0).String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	return &client{conn.(*net.TCPConn), r.t, bufio.NewReader(conn)}
}

// greet opens a session.
func (r *rig) greet() *client {
	r.t.Helper()
	c := r.connect()
	c.expect(220)
	c.say("EHLO client.example", 250)
	return c
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// say sends a line and returns the reply, which must have the code.
func (c *client) say(line string, code int) string {
	c.t.Helper()
	c.send(line + "\r\n")
	return c.expect(code)
}

// envelope begins a transaction as far as 354.
func (c *client) envelope() {
	c.t.Helper()
	c.say("MAIL FROM:<s@sender.example>", 250)
	c.say("RCPT TO:<a@far.example>", 250)
	c.say("DATA", 354)
}

// expect reads a reply.
func (c *client) expect(code int) string {
	c.t.Helper()
	reply, err := c.reply()
	if err != nil || !strings.HasPrefix(reply, fmt.Sprint(code)) {
		c.t.Fatalf("want %d, got %q, %v", code, reply, err)
	}
	return reply
}

func (c *client) reply() (string, error) {
	var reply strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		reply.WriteString(line)
		if err != nil || len(line) < 4 || line[3] != '-' {
			return reply.String(), err
		}
	}
}

// end expects the server to close.
func (c *client) end() {
	c.t.Helper()
	if rest, err := c.r.ReadString('\n'); err == nil || rest != "" || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("want the end of the connection, got %q, %v", rest, err)
	}
	c.Close()
}

// silent checks that nothing came in.
func (c *client) silent() {
	c.t.Helper()
	if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
		c.t.Fatal(err)
	}
	if p, err := c.r.Peek(1); err == nil {
		c.t.Errorf("unasked: %q", p)
	}
	c.r.Reset(c.TCPConn)
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
}

// segments is how many segments with data came in so far. On loopback a write of less than 64 KiB is one.
func (c *client) segments() (n int) {
	c.t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			c.t.Error(err)
			return
		}
		n = int(info.Data_segs_in)
	}); err != nil {
		c.t.Error(err)
	}
	return n
}
