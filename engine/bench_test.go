package engine

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"mailrace/engine/config"
	"mailrace/proto/smtp"
)

const (
	benchConnections = 50
	benchOctets      = 10 << 10
)

// BenchmarkAccept counts what an accepted message allocates, from the socket to the removal from the spool: it goes to nowhere. The client
// allocates nothing.
func BenchmarkAccept(b *testing.B) {
	benchmarkNode(b, config.Target{Kind: config.ToDiscard}, nil, config.ModeMX)
}

// BenchmarkAcceptTLS is BenchmarkAccept over long-lived connections under TLS 1.3. It includes the client's share of the cryptography, and its
// allocations.
func BenchmarkAcceptTLS(b *testing.B) {
	benchmarkNode(b, config.Target{Kind: config.ToDiscard}, nil, config.ModeSubmissions)
}

// BenchmarkRelay counts what a relayed message allocates, from one socket to the other. Neither client nor server allocates anything.
func BenchmarkRelay(b *testing.B) { benchmarkRelay(b, nil) }

// BenchmarkRelayTLS is BenchmarkRelay with deliveries under TLS 1.3. It includes the server's share of the cryptography, and its allocations.
func BenchmarkRelayTLS(b *testing.B) {
	pair := issue(b, b.TempDir(), "127.0.0.1")
	c, err := tls.LoadX509KeyPair(pair.Chain, pair.Key)
	if err != nil {
		b.Fatal(err)
	}
	benchmarkRelay(b, &tls.Config{Certificates: []tls.Certificate{c}})
}

// benchmarkRelay delivers to a server that offers STARTTLS if secret is given.
func benchmarkRelay(b *testing.B, secret *tls.Config) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	var arrived atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go swallow(c, secret, &arrived)
		}
	}()
	a := l.Addr().(*net.TCPAddr).AddrPort()
	benchmarkNode(b, config.Target{Kind: config.ToHost, Host: a.Addr().String(), Port: a.Port()}, &arrived, config.ModeMX)
}

// swallow is an SMTP server that accepts everything.
func swallow(c net.Conn, secret *tls.Config, arrived *atomic.Int64) {
	defer c.Close()
	var s smtp.Server
	s.Init(&smtp.ServerConfig{Hostname: "sink.test.example", MaxCommands: 1 << 30, MaxSize: 1 << 30, StartTLS: secret != nil})
	s.Greet()
	buf := make([]byte, 0, 64<<10)
	for {
		if _, err := c.Write(s.Pending()); err != nil {
			return
		}
		s.Flushed()
		n, err := c.Read(buf[len(buf):cap(buf)])
		if err != nil {
			return
		}
		buf = buf[:len(buf)+n]
		for done := 0; ; {
			n, ev := s.Feed(buf[done:])
			done += n
			switch ev {
			case smtp.EndOfData:
				arrived.Add(1)
				s.Accept()
			case smtp.Hello, smtp.Mail, smtp.Rcpt, smtp.Data:
				s.Accept()
			case smtp.StartTLS:
				s.Accept()
				c.Write(s.Pending())
				s.Flushed()
				c = tls.Server(c, secret)
				s.Secured()
			case smtp.Quit, smtp.Close:
				c.Write(s.Pending())
				return
			}
			if ev == smtp.NeedInput {
				buf = buf[:copy(buf, buf[done:])]
				break
			}
		}
	}
}

// benchmarkNode sends b.N messages through a node of its own, and waits until all have arrived, if arrived is given.
func benchmarkNode(b *testing.B, to config.Target, arrived *atomic.Int64, mode config.Mode) {
	dir := b.TempDir()
	cfg := config.Default()
	cfg.Hostname = "mta.test.example"
	cfg.TLS.Certificates = []config.Certificate{issue(b, dir, "mta.test.example")}
	cfg.Listeners = []config.Listener{{Address: "127.0.0.1:0", Mode: mode, RelayFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}}
	cfg.Spool.Path = filepath.Join(dir, "spool")
	cfg.Events.Path = filepath.Join(dir, "events.jsonl")
	cfg.Routes = []config.Route{{Domains: []string{"*"}, To: to}}
	if err := cfg.Validate(); err != nil {
		b.Fatal(err)
	}
	n, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	}()

	clients := make([]*benchClient, benchConnections)
	for i := range clients {
		clients[i] = newBenchClient(b, n.Addr(0).String(), mode)
		clients[i].send(b) // warms up the pools on both sides
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	b.SetBytes(benchOctets)
	b.ReportAllocs()
	b.ResetTimer()
	var done sync.WaitGroup
	for _, c := range clients {
		done.Go(func() {
			for left.Add(-1) >= 0 {
				c.send(b)
			}
		})
	}
	done.Wait()
	for arrived != nil && arrived.Load() < int64(b.N+benchConnections) {
		n.busy() // a round through all loops
	}
	b.StopTimer()
}

// benchClient is a connection that sends the same message again and again.
type benchClient struct {
	conn    net.Conn
	body    []byte
	replies []byte
}

var benchEnvelope = []byte("MAIL FROM:<sender@example.com>\r\nRCPT TO:<rcpt@example.net>\r\nDATA\r\n")

// benchHeader is all that a submission must have.
const benchHeader = "Date: Mon, 02 Jan 2026 03:04:05 +0000\r\nFrom: Sender <sender@example.com>\r\nTo: rcpt@example.net\r\nSubject: what you asked for\r\n" +
	"Message-ID: <0123456789@client.test.example>\r\n\r\n"

func newBenchClient(b *testing.B, address string, mode config.Mode) *benchClient {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	if mode == config.ModeSubmissions {
		conn = tls.Client(conn, insecure("mta.test.example"))
	}
	c := &benchClient{conn: conn, replies: make([]byte, 4096)}
	line := append(bytes.Repeat([]byte("x"), 76), "\r\n"...)
	c.body = append(append([]byte(benchHeader), bytes.Repeat(line, (benchOctets-len(benchHeader))/len(line))...), ".\r\n"...)
	c.exchange(b, nil, 1)
	c.exchange(b, []byte("EHLO client.test.example\r\n"), 6)
	return c
}

func (c *benchClient) send(b *testing.B) {
	c.exchange(b, benchEnvelope, 3)
	if _, err := c.conn.Write(c.body); err != nil {
		b.Error(err)
	}
	c.exchange(b, nil, 1)
}

// exchange sends commands and reads that many lines of replies, none of which may be a refusal.
func (c *benchClient) exchange(b *testing.B, commands []byte, lines int) {
	if _, err := c.conn.Write(commands); err != nil {
		b.Error(err)
	}
	for n := 0; bytes.Count(c.replies[:n], []byte("\n")) < lines; {
		m, err := c.conn.Read(c.replies[n:])
		if err != nil {
			b.Error(err)
			return
		}
		if n += m; c.replies[0] != '2' && c.replies[0] != '3' {
			b.Errorf("refused: %s", c.replies[:n])
		}
	}
}
