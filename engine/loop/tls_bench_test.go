package loop

import (
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"testing"
)

// BenchmarkTLS is a ping-pong of records on one connection, against the same in clear. The figures include those of the client, which is
// crypto/tls in the common way.
func BenchmarkTLS(b *testing.B) {
	for name, size := range map[string]int{"100B": 100, "16KiB": 16 << 10} {
		for _, version := range []uint16{0, tls.VersionTLS12, tls.VersionTLS13} {
			kind := "clear"
			if version != 0 {
				kind = tls.VersionName(version)
			}
			b.Run(kind+"/"+name, func(b *testing.B) { benchmarkPingPong(b, version, size) })
		}
	}
}

func benchmarkPingPong(b *testing.B, version uint16, size int) {
	reply := []byte("250 ok\r\n")
	left := 0
	handler := func(*Conn) *scripted {
		return &scripted{data: func(c *Conn, p []byte) int {
			for left += len(p); left >= size; left -= size {
				_ = c.Write(reply)
			}
			return len(p)
		}}
	}
	var c net.Conn
	if version == 0 {
		c = connect(b, start(b, Options{Loops: 1}, func(c *Conn) Handler { return handler(c) }))
	} else {
		c = overTLS(b, connect(b, startTLS(b, Options{Loops: 1}, handler)), version)
	}
	p, got := make([]byte, size), make([]byte, len(reply))
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(p); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, got); err != nil {
			b.Fatal(err)
		}
	}
}

// TestTLSIdleMemory holds connections under TLS that took a long message each and are idle now. The figure includes the clients, but for
// what crypto/tls keeps of them.
func TestTLSIdleMemory(t *testing.T) {
	const n, most = 300, 40 << 10
	g := startTLS(t, Options{Loops: 1}, echo)
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse + m.StackInuse)
	}
	before, goroutines := heap(), runtime.NumGoroutine()
	wires := make([]net.Conn, n)
	for i := range wires {
		wires[i] = connect(t, g)
		c := overTLS(t, wires[i], tls.VersionTLS13)
		p := make([]byte, 40<<10)
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, p); err != nil {
			t.Fatal(err)
		}
	}
	each := (heap() - before) / n
	t.Logf("%d bytes for each idle connection", each)
	if each > most {
		t.Errorf("%d bytes for each idle connection, want at most %d", each, most)
	}
	if now := runtime.NumGoroutine(); now > goroutines+20 {
		t.Errorf("%d goroutines, %d before", now, goroutines)
	}
	runtime.KeepAlive(wires)
}
