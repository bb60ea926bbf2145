package loop

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
)

// TestTLSCloseLeavesNothing ends connections at every point, while the group closes or before.
func TestTLSCloseLeavesNothing(t *testing.T) {
	const n = 60
	var wait sync.WaitGroup
	accepted, closed := make(chan struct{}, n), make(chan error, n)
	g := startTLS(t, Options{Loops: 2}, func(*Conn) *scripted {
		accepted <- struct{}{}
		s := echo(nil)
		s.closed = func(_ *Conn, err error) { closed <- err }
		return s
	})
	for i := range n {
		wire := connect(t, g)
		wait.Go(func() {
			defer wire.Close()
			cut := &cutter{Conn: wire, left: 40 * i}
			c := tls.Client(cut, clientTLS(tlsVersions[i%2]))
			if c.Handshake() == nil {
				_, _ = c.Write([]byte("x"))
				_, _ = c.Read(make([]byte, 1))
			}
			if i%3 == 0 { // leave it to the group
				_, _ = io.Copy(io.Discard, wire)
			}
		})
	}
	for range n {
		await(t, accepted, "connection")
	}
	for range n / 2 {
		await(t, closed, "end of a connection")
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	wait.Wait()
	for range n - n/2 {
		await(t, closed, "end of a connection")
	}
	g.hands.mu.Lock()
	defer g.hands.mu.Unlock()
	if g.hands.begun != 0 || g.hands.waiting.Len() != 0 {
		t.Errorf("%d handshakes under way, %d wait", g.hands.begun, g.hands.waiting.Len())
	}
}

// cutter lets left bytes out and then fails.
type cutter struct {
	net.Conn
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if len(p) > c.left {
		_, _ = c.Conn.Write(p[:c.left])
		return c.left, fmt.Errorf("cut")
	}
	c.left -= len(p)
	return c.Conn.Write(p)
}

func TestFramer(t *testing.T) {
	stream := []byte{23, 3, 3, 0, 3, 'a', 'b', 'c', 21, 3, 3, 0, 0, 23, 3, 3, 1, 0}
	stream = append(stream, make([]byte, 256)...)
	for room := 1; room < 20; room++ {
		var f framer
		var borders []int
		for at := 0; at < len(stream); {
			n := f.next(stream[at:], room)
			if n < 1 || n > room {
				t.Fatalf("room %d: %d bytes at %d", room, n, at)
			}
			at += n
			if f.atBorder() {
				borders = append(borders, at)
			}
		}
		if fmt.Sprint(borders) != fmt.Sprint([]int{8, 13, len(stream)}) {
			t.Errorf("room %d: borders %v", room, borders)
		}
	}
}
