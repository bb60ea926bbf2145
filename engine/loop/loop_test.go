package loop

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"
)

// patience bounds every wait in the tests; it is never reached unless something is broken.
const patience = 20 * time.Second

// scripted is a Handler made of functions; those that are nil do nothing. Data without a function consumes everything.
type scripted struct {
	open    func(*Conn)
	data    func(*Conn, []byte) int
	drained func(*Conn)
	timeout func(*Conn)
	closed  func(*Conn, error)
}

func (s *scripted) Open(c *Conn) {
	if s.open != nil {
		s.open(c)
	}
}

func (s *scripted) Data(c *Conn, p []byte) int {
	if s.data != nil {
		return s.data(c, p)
	}
	return len(p)
}

func (s *scripted) Drained(c *Conn) {
	if s.drained != nil {
		s.drained(c)
	}
}

func (s *scripted) Timeout(c *Conn) {
	if s.timeout != nil {
		s.timeout(c)
	}
}

func (s *scripted) Closed(c *Conn, err error) {
	if s.closed != nil {
		s.closed(c, err)
	}
}

// start runs a group with one listener whose connections get the handler that make returns.
func start(t testing.TB, o Options, make func(*Conn) Handler) *Group {
	t.Helper()
	if make != nil {
		o.Listeners = []Listener{{Address: "127.0.0.1:0", New: make}}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	}
	g, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return g
}

type testWriter struct{ testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.Logf("%s", bytes.TrimSpace(p))
	return len(p), nil
}

// connect dials listener 0 with the standard library.
func connect(t testing.TB, g *Group) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", g.Addr(0).String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// await receives from ch.
func await[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

func send(t testing.TB, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatalf("sending %.40q: %v", s, err)
	}
}

// expect reads exactly the bytes of want.
func expect(t testing.TB, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got[:n], err, want)
	}
}

// expectEnd reads want and then the end of the stream.
func expectEnd(t testing.TB, c net.Conn, want string) {
	t.Helper()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q and the end", got, err, want)
	}
}

// lines consumes whole lines and gives each to fn; what follows the last one is left.
func lines(p []byte, fn func(line string)) int {
	n := 0
	for {
		i := bytes.IndexByte(p[n:], '\n')
		if i < 0 {
			return n
		}
		fn(string(p[n : n+i]))
		n += i + 1
	}
}

func TestEcho(t *testing.T) {
	g := start(t, Options{Loops: 2}, func(*Conn) Handler {
		return &scripted{data: func(c *Conn, p []byte) int {
			_ = c.Write(p)
			return len(p)
		}}
	})
	c := connect(t, g)
	send(t, c, "hello")
	expect(t, c, "hello")
	c.CloseWrite()
	expectEnd(t, c, "")
}

func TestOpenClosedOnceInOrder(t *testing.T) {
	boom := errors.New("boom")
	cases := []struct {
		name   string
		open   func(*Conn)
		data   func(*Conn, []byte) int
		client func(*net.TCPConn)
		want   error
		events string
	}{
		{name: "peer closes", client: func(c *net.TCPConn) { c.Close() }, want: io.EOF, events: "open closed "},
		{name: "closed in open", open: func(c *Conn) { c.Close(); c.Close() }, events: "open closed "},
		{name: "closed in open after a write", open: func(c *Conn) { _ = c.Write([]byte("bye")); c.Close() }, events: "open closed "},
		{name: "closed in data", data: func(c *Conn, p []byte) int { c.Close(); _ = c.Write(p); return 0 }, events: "open data closed "},
		{name: "closed after flush in data", data: func(c *Conn, p []byte) int { c.CloseAfterFlush(); c.CloseAfterFlush(); return len(p) }, events: "open data closed "},
		{name: "flush then close", data: func(c *Conn, p []byte) int { c.CloseAfterFlush(); c.Close(); return len(p) }, events: "open data closed "},
		{name: "closed by a posted task", data: func(c *Conn, p []byte) int { c.Loop().Post(c.Close); return len(p) }, events: "open data closed "},
		{name: "error decided on the loop", data: func(c *Conn, p []byte) int { c.setClosing(boom); c.Close(); return len(p) }, want: boom, events: "open data closed "},
		{name: "paused then peer closes", data: func(c *Conn, p []byte) int {
			c.Pause()
			c.Loop().Post(c.Resume)
			return len(p)
		}, client: func(c *net.TCPConn) { send(t, c, "x"); c.Close() }, want: io.EOF, events: "open data closed "},
		{name: "closed while paused", data: func(c *Conn, p []byte) int { c.Pause(); c.Resume(); c.Pause(); c.Close(); return 0 }, events: "open data closed "},
		{name: "timeout", open: func(c *Conn) { c.SetDeadline(time.Millisecond) }, events: "open timeout closed "},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			done := make(chan error, 2)
			var events string
			g := start(t, Options{Loops: 1}, func(*Conn) Handler {
				return &scripted{
					open: func(c *Conn) {
						events += "open "
						if tc.open != nil {
							tc.open(c)
						}
					},
					data: func(c *Conn, p []byte) int {
						events += "data "
						if tc.data != nil {
							return tc.data(c, p)
						}
						return len(p)
					},
					timeout: func(c *Conn) { events += "timeout "; c.Close() },
					closed:  func(_ *Conn, err error) { events += "closed "; done <- err },
				}
			})
			c := connect(t, g)
			if tc.client != nil {
				tc.client(c)
			} else if tc.data != nil {
				send(t, c, "x")
			}
			if err := await(t, done, "Closed"); !errors.Is(err, tc.want) || (tc.want == nil && err != nil) {
				t.Errorf("closed with %v, want %v", err, tc.want)
			}
			if err := g.Close(); err != nil {
				t.Error(err)
			}
			if events != tc.events || len(done) != 0 {
				t.Errorf("callbacks %q, want %q", events, tc.events)
			}
			if s := g.Stats(); s.Open != 0 || s.Accepted != 1 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}
