package loop

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

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
