package engine

import (
	"bufio"
	"crypto/tls"
	"net"
	"runtime"
	"testing"

	"mailrace/engine/config"
)

// heap is what the process holds on its heap and on stacks.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// TestIdleSessions holds sessions that have said EHLO and sent a message, and are silent now. A figure includes the client's socket, but nothing of
// its TLS. `mailrace bench idle` measures the same by processes: there garbage that is not collected yet is a part of it.
func TestIdleSessions(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector's own memory is in the figures")
	}
	const sessions = 400
	for name, c := range map[string]struct {
		mode config.Mode
		most int64
	}{"clear": {config.ModeMX, 5 << 10}, "TLS": {config.ModeSubmissions, 28 << 10}} {
		t.Run(name, func(t *testing.T) {
			r := start(t, secured(t))
			listener := 0
			if c.mode == config.ModeSubmissions {
				listener = 2
			}
			begin := func() net.Conn {
				raw := connect(t, r.Addr(listener).String()).Conn
				conn := raw
				if c.mode == config.ModeSubmissions {
					conn = tls.Client(raw, insecure(""))
				}
				d := &dialog{t, &wire{Conn: conn, r: bufio.NewReaderSize(conn, 512)}}
				d.expect(220)
				d.say("EHLO client.example", 250)
				d.mail("MAIL FROM:<s@example.com>", text(0, 30<<10), "r@far.example")
				return raw
			}
			for range 20 {
				begin() // warms up what is shared
			}
			r.awaitEmpty()
			before := heap()
			wires := make([]net.Conn, sessions)
			for i := range wires {
				wires[i] = begin()
			}
			r.awaitEmpty()
			each := (heap() - before) / sessions
			t.Logf("%d bytes for each idle session", each)
			if each > c.most {
				t.Errorf("%d bytes for each idle session, want at most %d", each, c.most)
			}
			runtime.KeepAlive(wires)
		})
	}
}
