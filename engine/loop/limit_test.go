package loop

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

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

// TestFewerConnections: what cannot be had is said at the start, and what nobody asked for is not.
func TestFewerConnections(t *testing.T) {
	for most, said := range map[int]bool{0: false, 3: false, 1 << 40: true} {
		var log bytes.Buffer
		var m limiter
		if err := m.init(&Options{MaxConnections: most, Log: slog.New(slog.NewTextHandler(&log, nil))}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(log.String(), "fewer connections than configured"); got != said || m.accepted <= 0 {
			t.Errorf("%d: %q, %d accepted", most, log.String(), m.accepted)
		}
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
		// The loop must see the descriptors go before the last is gone, as it does where others take theirs one by one.
		for g.Stats().Refused == 0 && g.Stats().Accepted < int64(len(conns)) {
			runtime.Gosched()
		}
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
