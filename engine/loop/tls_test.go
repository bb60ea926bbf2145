package loop

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// certificate is for example.com, signed by itself.
var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "example.com"}, DNSNames: []string{"example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
})

func serverTLS() *tls.Config { return &tls.Config{Certificates: []tls.Certificate{certificate()}} }

func clientTLS(version uint16) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(certificate().Leaf)
	return &tls.Config{RootCAs: roots, ServerName: "example.com", MinVersion: version, MaxVersion: version}
}

var tlsVersions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

// startTLS runs a group whose accepted connections begin with TLS.
func startTLS(t testing.TB, o Options, make func(*Conn) *scripted) *Group {
	cfg := serverTLS()
	return start(t, o, func(c *Conn) Handler {
		s := make(c)
		open := s.open
		s.open = func(c *Conn) {
			c.StartTLS(cfg, func() {
				if open != nil {
					open(c)
				}
			})
		}
		return s
	})
}

func echo(*Conn) *scripted {
	return &scripted{data: func(c *Conn, p []byte) int {
		_ = c.Write(p)
		return len(p)
	}}
}

func overTLS(t testing.TB, nc net.Conn, version uint16) *tls.Conn {
	t.Helper()
	c := tls.Client(nc, clientTLS(version))
	if err := c.Handshake(); err != nil {
		t.Fatalf("handshake: %v", err)
	}
	return c
}

func eachVersion(t *testing.T, test func(t *testing.T, version uint16)) {
	for _, v := range tlsVersions {
		t.Run(tls.VersionName(v), func(t *testing.T) { test(t, v) })
	}
}

func TestTLSEcho(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		states := make(chan tls.ConnectionState, 1)
		g := startTLS(t, Options{Loops: 1}, func(*Conn) *scripted {
			s := echo(nil)
			s.open = func(c *Conn) {
				state, _ := c.TLS()
				states <- state
				_ = c.Write([]byte("220 hello\r\n"))
			}
			return s
		})
		c := overTLS(t, connect(t, g), version)
		expect(t, c, "220 hello\r\n")
		send(t, c, "over TLS")
		expect(t, c, "over TLS")
		if state := await(t, states, "state"); state.Version != version || state.CipherSuite != c.ConnectionState().CipherSuite {
			t.Errorf("the server sees %v", state)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		expectEnd(t, c, "")
	})
}

// TestTLSDialled lets two connections of the loop talk to each other.
func TestTLSDialled(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		g := startTLS(t, Options{Loops: 2}, echo)
		got, closed := make(chan string, 1), make(chan error, 1)
		cfg := clientTLS(version)
		g.Loops()[0].Dial(Dial{Address: g.Addr(0).String()}, &scripted{
			open: func(c *Conn) {
				c.StartTLS(cfg, func() { _ = c.Writev([][]byte{[]byte("scat"), nil, []byte("tered\n")}) })
				if err := c.Write([]byte("in clear")); !errors.Is(err, ErrHandshake) {
					t.Errorf("Write during the handshake: %v", err)
				}
			},
			data: func(c *Conn, p []byte) int {
				return lines(p, func(line string) { got <- line; c.CloseAfterFlush() })
			},
			closed: func(_ *Conn, err error) { closed <- err },
		})
		if line := await(t, got, "echo"); line != "scattered" {
			t.Errorf("got %q", line)
		}
		if err := await(t, closed, "end"); err != nil {
			t.Error(err)
		}
	})
}

// injector is the wire of a client whose bytes reach the server's loop one by one.
type injector struct {
	net.Conn
	at   *Conn
	step int
}

func (i *injector) Write(p []byte) (int, error) {
	rest := bytes.Clone(p)
	i.at.Loop().Post(func() {
		for len(rest) > 0 {
			n := min(i.step, len(rest))
			i.at.received(rest[:n:n])
			rest = rest[n:]
		}
	})
	return len(p), nil
}

// TestTLSSplit cuts handshake and records at every byte.
func TestTLSSplit(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		for _, step := range []int{1, 2, 3, 7, 1000} {
			opened := make(chan *Conn, 1)
			cfg := serverTLS()
			g := start(t, Options{Loops: 1}, func(c *Conn) Handler {
				s := echo(c)
				s.open = func(c *Conn) { c.StartTLS(cfg, func() { _ = c.Write([]byte("hello")) }); opened <- c }
				return s
			})
			wire := &injector{Conn: connect(t, g), step: step}
			wire.at = await(t, opened, "connection")
			c := overTLS(t, wire, version)
			expect(t, c, "hello")
			for _, size := range []int{1, 100, 16 << 10, 40_000} {
				text := strings.Repeat("x", size)
				send(t, c, text)
				expect(t, c, text)
			}
			c.CloseWrite()
			expectEnd(t, c, "")
		}
	})
}

// TestTLSBulk sends more than all buffers hold, against a handler that pauses and a client that reads late.
func TestTLSBulk(t *testing.T) {
	const total = 6 << 20
	eachVersion(t, func(t *testing.T, version uint16) {
		var resume Timer
		received, sum := 0, byte(0)
		sums := make(chan byte, 1)
		g := startTLS(t, Options{Loops: 1}, func(c *Conn) *scripted {
			out := 0
			pump := func(c *Conn) {
				for out < total && !c.Full() {
					piece := bytes.Repeat([]byte{byte(out >> 10)}, min(100_000, total-out))
					if c.Writev([][]byte{piece[:10], piece[10:]}) != nil {
						return
					}
					out += len(piece)
				}
			}
			return &scripted{
				data: func(c *Conn, p []byte) int {
					received += len(p)
					for _, b := range p {
						sum += b
					}
					if received == total {
						sums <- sum
						pump(c)
						return len(p)
					}
					c.Pause()
					resume.Stop()
					resume.Fire = c.Resume
					c.Loop().After(time.Millisecond, &resume)
					return len(p)
				},
				drained: pump,
			}
		})
		c := overTLS(t, connect(t, g), version)
		content := make([]byte, total)
		want := byte(0)
		for i := range content {
			content[i] = byte(i * 7)
			want += content[i]
		}
		if _, err := c.Write(content); err != nil {
			t.Fatal(err)
		}
		back := make([]byte, total)
		if _, err := io.ReadFull(c, back); err != nil {
			t.Fatal(err)
		}
		for i := 0; i < total; {
			n := min(100_000, total-i)
			if b := byte(i >> 10); back[i] != b || back[i+n-1] != b {
				t.Fatalf("wrong bytes behind %d", i)
			}
			i += n
		}
		if await(t, sums, "the last byte") != want {
			t.Error("the server received other bytes than were sent")
		}
	})
}

// TestTLSClearText: what stands in clear behind the start of TLS is not carried over. T1
func TestTLSClearTextT1(t *testing.T) {
	closed := make(chan error, 1)
	cfg := serverTLS()
	g := start(t, Options{Loops: 1}, func(*Conn) Handler {
		return &scripted{
			data: func(c *Conn, p []byte) int {
				if c.Handshaking() {
					t.Error("Data during the handshake")
				}
				_ = c.Write([]byte("go\n"))
				c.StartTLS(cfg, func() { t.Error("the handshake ended well") })
				return bytes.IndexByte(p, '\n') + 1
			},
			closed: func(_ *Conn, err error) { closed <- err },
		}
	})
	c := connect(t, g)
	send(t, c, "STARTTLS\nMAIL FROM:<a@b>\n"+strings.Repeat("x", 20_000))
	if err := await(t, closed, "end"); !errors.Is(err, ErrClearText) {
		t.Errorf("closed with %v", err)
	}
}

// TestTLSCloseNotifyT7: the connection is dead at close_notify; what follows in clear is not looked at.
func TestTLSCloseNotifyT7(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		closed := make(chan error, 1)
		data := make(chan string, 9)
		g := startTLS(t, Options{Loops: 1}, func(*Conn) *scripted {
			return &scripted{
				data:   func(c *Conn, p []byte) int { data <- string(p); return len(p) },
				closed: func(_ *Conn, err error) { closed <- err },
			}
		})
		wire := connect(t, g)
		c := overTLS(t, wire, version)
		send(t, c, "BDAT 9\r\nabc")
		if got := await(t, data, "data"); got != "BDAT 9\r\nabc" {
			t.Errorf("got %q", got)
		}
		c.CloseWrite()
		_, _ = wire.Write([]byte("Z"))
		if err := await(t, closed, "end"); !errors.Is(err, io.EOF) {
			t.Errorf("closed with %v", err)
		}
		if len(data) > 0 {
			t.Errorf("got %q behind close_notify", <-data)
		}
	})
}

// TestTLSAnswersAfterCloseNotify: a client that sent close_notify while the handler was paused still gets its answer.
func TestTLSAnswersAfterCloseNotify(t *testing.T) {
	for _, end := range []string{"close_notify", "close_notify and end of stream"} {
		t.Run(end, func(t *testing.T) {
			paused, closed := make(chan *Conn, 1), make(chan error, 1)
			g := startTLS(t, Options{Loops: 1}, func(*Conn) *scripted {
				first := true
				return &scripted{
					data: func(c *Conn, p []byte) int {
						if first {
							first = false
							c.Pause()
							paused <- c
							return 4
						}
						_ = c.Write(append([]byte("250 "), p...))
						return len(p)
					},
					closed: func(_ *Conn, err error) { closed <- err },
				}
			})
			wire := connect(t, g)
			c := overTLS(t, wire, tls.VersionTLS13)
			send(t, c, "mail")
			on := await(t, paused, "pause")
			send(t, c, "more")
			c.CloseWrite()
			if end != "close_notify" {
				wire.CloseWrite()
			}
			seen := make(chan bool, 1)
			for ok := false; !ok; {
				on.Loop().Post(func() { seen <- on.sec.ended && (end == "close_notify" || on.half >= 0) })
				ok = await(t, seen, "state")
			}
			on.Loop().Post(on.Resume)
			expectEnd(t, c, "250 more")
			if err := await(t, closed, "end"); !errors.Is(err, io.EOF) {
				t.Errorf("closed with %v", err)
			}
		})
	}
}

// TestTLSCloseAfterFlush: the last bytes arrive, and close_notify behind them.
func TestTLSCloseAfterFlush(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		for name, finish := range map[string]func(*Conn){"CloseAfterFlush": (*Conn).CloseAfterFlush, "Close": (*Conn).Close} {
			last := "bye"
			if name == "CloseAfterFlush" { // Close sends no more than the kernel takes
				last = strings.Repeat(last, 100_000)
			}
			g := startTLS(t, Options{Loops: 1}, func(*Conn) *scripted {
				return &scripted{data: func(c *Conn, p []byte) int {
					_ = c.Write([]byte(last))
					finish(c)
					return len(p)
				}}
			})
			c := overTLS(t, connect(t, g), version)
			send(t, c, "QUIT")
			expectEnd(t, c, last) // io.ErrUnexpectedEOF without close_notify
		}
	})
}

// TestTLSRefused: handshakes that must fail, and do so with an error for Closed.
func TestTLSRefused(t *testing.T) {
	huge := append([]byte{22, 3, 1, 0x40, 0}, 1, 0xff, 0xff, 0xff) // a ClientHello of 16 MiB
	huge = append(huge, make([]byte, 0x4000-4)...)
	long := append([]byte{22, 3, 1, 0xff, 0xff}, make([]byte, 70_000)...)
	cases := map[string][]byte{
		"garbage": []byte("GET / HTTP/1.1\r\n\r\n"), "a huge ClientHello": huge, "a record that is too long": long, "an empty record": {22, 3, 1, 0, 0, 23, 3, 1, 0, 0},
		"an alert": {21, 3, 3, 0, 2, 2, 40},
	}
	for name, hello := range cases {
		t.Run(name, func(t *testing.T) {
			closed := make(chan error, 1)
			g := startTLS(t, Options{Loops: 1}, func(*Conn) *scripted {
				return &scripted{
					open:   func(*Conn) { t.Error("the handshake ended well") },
					data:   func(_ *Conn, p []byte) int { t.Errorf("got %q", p); return len(p) },
					closed: func(_ *Conn, err error) { closed <- err },
				}
			})
			c := connect(t, g)
			_, _ = c.Write(hello)
			var failed *HandshakeError
			if err := await(t, closed, "end"); !errors.As(err, &failed) {
				t.Errorf("closed with %v", err)
			}
		})
	}
}

// TestTLSBadRecord: a record that was tampered with ends an established connection.
func TestTLSBadRecord(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		closed := make(chan error, 1)
		g := startTLS(t, Options{Loops: 1}, func(*Conn) *scripted {
			return &scripted{
				data:   func(_ *Conn, p []byte) int { t.Errorf("got %q", p); return len(p) },
				closed: func(_ *Conn, err error) { closed <- err },
			}
		})
		wire := connect(t, g)
		c := overTLS(t, wire, version)
		_, _ = wire.Write(append([]byte{23, 3, 3, 0, 40}, make([]byte, 40)...))
		if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "bad record MAC") {
			t.Errorf("the client got %v", err)
		}
		if err := await(t, closed, "end"); err == nil || !strings.Contains(err.Error(), "bad record MAC") {
			t.Errorf("closed with %v", err)
		}
	})
}

// TestTLSSlowHandshakeT11: the deadline of the connection is that of the handshake, however far it got.
func TestTLSSlowHandshakeT11(t *testing.T) {
	cases := map[string]func(net.Conn){
		"nothing":        func(net.Conn) {},
		"a part":         func(c net.Conn) { _, _ = c.Write([]byte{22, 3, 1, 2, 0, 1, 0, 1}) },
		"no answer":      func(c net.Conn) { _ = tls.Client(silent{c}, clientTLS(tls.VersionTLS13)).Handshake() },
		"no answer, 1.2": func(c net.Conn) { _ = tls.Client(silent{c}, clientTLS(tls.VersionTLS12)).Handshake() },
	}
	for name, client := range cases {
		t.Run(name, func(t *testing.T) {
			closed, late := make(chan error, 1), false
			cfg := serverTLS()
			g := start(t, Options{Loops: 1}, func(*Conn) Handler {
				return &scripted{
					open: func(c *Conn) {
						c.SetDeadline(50 * time.Millisecond)
						c.StartTLS(cfg, func() { t.Error("the handshake ended well") })
					},
					timeout: func(c *Conn) { late = true; c.CloseAfterFlush() },
					closed:  func(_ *Conn, err error) { closed <- err },
				}
			})
			client(connect(t, g))
			if err := await(t, closed, "end"); err != nil || !late {
				t.Errorf("closed with %v, timeout %v", err, late)
			}
		})
	}
}

// silent is a wire whose peer's answers do not arrive: the first read ends what is on top.
type silent struct{ net.Conn }

func (silent) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestTLSTicketsT10: a session is resumed where its ticket came from, and nowhere else.
func TestTLSTicketsT10(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		first, second := startTLS(t, Options{Loops: 1}, echo), startTLS(t, Options{Loops: 1}, echo)
		cfg := clientTLS(version)
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		for i, step := range []struct {
			g       *Group
			resumed bool
		}{{first, false}, {first, true}, {second, false}} {
			c := tls.Client(connect(t, step.g), cfg)
			send(t, c, "x")
			expect(t, c, "x") // the ticket comes with it
			if got := c.ConnectionState().DidResume; got != step.resumed {
				t.Errorf("connection %d: resumed %v, want %v", i, got, step.resumed)
			}
			c.Close()
		}
	})
}

// TestTLSOpenSSL changes keys within a session, and asks for renegotiation, which is refused.
func TestTLSOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("no openssl: make test installs what the tests need")
	}
	run := func(version string, steps ...string) {
		t.Helper()
		g := startTLS(t, Options{Loops: 1}, func(*Conn) *scripted {
			return &scripted{data: func(c *Conn, p []byte) int {
				return lines(p, func(line string) { _ = c.Write([]byte("<" + line + ">\n")) })
			}}
		})
		cmd := exec.Command("openssl", "s_client", "-connect", g.Addr(0).String(), version)
		in, _ := cmd.StdinPipe()
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = cmd.Stdout
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		out := bufio.NewReader(pipe)
		for i := 0; i < len(steps); i += 2 { // what to send, and the line to wait for
			_, _ = io.WriteString(in, steps[i])
			for line := ""; !strings.Contains(line, steps[i+1]); {
				if line, err = out.ReadString('\n'); err != nil {
					t.Fatalf("behind %q no %q: %v", steps[i], steps[i+1], err)
				}
			}
		}
		_ = in.Close()
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	}
	run("-tls1_3", "", "Verify return code", "one\n", "<one>", "K\n", "KEYUPDATE", "two\n", "<two>", "k\n", "KEYUPDATE", "three\n", "<three>")
	run("-tls1_2", "", "Verify return code", "one\n", "<one>", "R\n", "RENEGOTIATING", "", ":error:")
}
