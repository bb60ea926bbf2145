package engine

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailrace/engine/config"
)

var dialer = net.Dialer{Timeout: patience}

// wire is a TCP connection with a reader.
type wire struct {
	net.Conn
	r *bufio.Reader
}

// segments is how many segments with data came in so far. On loopback a write of less than 64 KiB is one.
func (w *wire) segments(t *testing.T) (n int) {
	t.Helper()
	raw, err := w.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			t.Error(err)
			return
		}
		n = int(info.Data_segs_in)
	}); err != nil {
		t.Error(err)
	}
	return n
}

// far is a remote server whose every reply is the test's: it runs a function for each connection.
type far struct {
	t     *testing.T
	l     net.Listener
	mail  chan letter // what peers took with receive
	wait  sync.WaitGroup
	mu    sync.Mutex
	peers []*peer
}

// letter is a message that arrived.
type letter struct {
	mail    string   // the MAIL command
	to      []string // accepted recipients
	content string   // with trace header
	peer    int      // number of the connection
	tls     bool     // it came under TLS
	chunked bool     // by BDAT
}

// peer is one connection of a far server.
type peer struct {
	*far
	wire
	raw     net.Conn // below TLS
	number  int      // from 1
	secured bool
}

// listen starts a server that calls serve on a goroutine for each connection. All end with the test.
func listen(t *testing.T, serve func(*peer)) *far {
	t.Helper()
	return listenAt(t, "127.0.0.1:0", serve)
}

func listenAt(t *testing.T, address string, serve func(*peer)) *far {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return serveAt(t, l, serve)
}

func serveAt(t *testing.T, l net.Listener, serve func(*peer)) *far {
	f := &far{t: t, l: l, mail: make(chan letter, 10_000)}
	f.wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			p := &peer{far: f, raw: c, wire: wire{c, bufio.NewReaderSize(c, 64<<10)}, number: len(f.peers) + 1}
			f.peers = append(f.peers, p)
			f.mu.Unlock()
			f.wait.Go(func() {
				defer p.Close()
				serve(p)
			})
		}
	})
	t.Cleanup(f.close)
	return f
}

func (f *far) close() {
	f.l.Close()
	f.mu.Lock()
	for _, p := range f.peers {
		p.raw.Close()
	}
	f.mu.Unlock()
	f.wait.Wait()
}

// connections is how many connections there were.
func (f *far) connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.peers)
}

// next waits for the next message.
func (f *far) next() letter {
	f.t.Helper()
	return receive(f.t, f.mail)
}

// none checks that no further message arrived.
func (f *far) none() {
	f.t.Helper()
	select {
	case m := <-f.mail:
		f.t.Errorf("one message too many: %s for %v: %.200q", m.mail, m.to, m.content)
	default:
	}
}

// route leads mail for domains here.
func (f *far) route(domains ...string) config.Route {
	at := netip.MustParseAddrPort(f.l.Addr().String())
	return config.Route{Domains: domains, To: config.Target{Kind: config.ToHost, Host: at.Addr().String(), Port: at.Port()}}
}

// everything offered by a server that wants to please.
var everything = []string{"PIPELINING", "SIZE 100000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"}

const (
	// hangUp in place of a reply closes the connection.
	hangUp = "\x00"
	// takeAndHangUp in place of the reply to the end of data does so with the message.
	takeAndHangUp = "\x03"
)

// manners are how a peer receives.
type manners struct {
	extensions []string    // nil = everything
	tls        *tls.Config // offer STARTTLS
	secret     []string    // extensions that are offered under TLS only
	open       []string    // and in clear only
	// answer gives a reply of its own to "" (the connection), a command line, or "." (the end of data); "" leaves it to the good one.
	answer func(p *peer, line string) string
}

// polite takes all mail.
func polite(p *peer) { p.receive(manners{}) }

// answering takes all mail but what answer says no to.
func answering(answer func(p *peer, line string) string) func(*peer) {
	return func(p *peer) { p.receive(manners{answer: answer}) }
}

// receive speaks SMTP until the client is gone.
func (p *peer) receive(m manners) {
	if m.extensions == nil {
		m.extensions = everything
	}
	l := letter{peer: p.number}
	for line, ok := "", true; ok; line, ok = p.line() {
		reply := ""
		if m.answer != nil {
			reply = m.answer(p, line)
		}
		if reply == hangUp || !p.respond(&l, m, line, reply) {
			return
		}
	}
}

// respond takes a command and answers it; reply is the answer if it is not empty. It returns false when the dialogue is over.
func (p *peer) respond(l *letter, m manners, line, reply string) bool {
	good, verb := "250 2.0.0 Ok", strings.ToUpper(line[:min(4, len(line))])
	switch verb {
	case "":
		good = "220 far.example ESMTP"
	case "EHLO":
		good = "250-far.example"
		offers := append(slices.Clone(m.extensions), "HELP")
		if p.secured {
			offers = append(offers, m.secret...)
		} else {
			offers = append(offers, m.open...)
			if m.tls != nil {
				offers = append(offers, "STARTTLS")
			}
		}
		for _, e := range offers {
			good += "\r\n250-" + e
		}
		i := strings.LastIndex(good, "250-")
		good = good[:i] + "250 " + good[i+4:]
	case "MAIL":
		if l.mail != "" {
			good = "503 5.5.1 nested MAIL"
		}
	case "RCPT":
		if l.mail == "" {
			good = "503 5.5.1 no MAIL"
		}
	case "RSET":
		*l = letter{peer: p.number}
	case "DATA":
		good = "354 go on"
		if len(l.to) == 0 {
			good = "554 5.5.1 no valid recipients"
		}
	case "STAR":
		good = "220 2.0.0 go ahead"
	case "BDAT":
		return p.chunk(l, line, reply)
	case "QUIT":
		good = "221 2.0.0 Bye"
	}
	answer := reply
	if reply == "" {
		answer = good
	}
	p.say(answer)
	accepted := answer[0] == '2' || answer[0] == '3'
	switch {
	case !accepted:
	case verb == "MAIL":
		*l = letter{mail: line, peer: p.number, tls: p.secured}
	case verb == "STAR":
		return p.secure(m.tls)
	case verb == "RCPT":
		l.to = append(l.to, strings.TrimSuffix(strings.TrimPrefix(line, "RCPT TO:<"), ">"))
	case verb == "DATA":
		var ok bool
		if l.content, ok = p.content(); !ok {
			return false
		}
		end := ""
		if m.answer != nil {
			end = m.answer(p, ".")
		}
		switch {
		case end == hangUp:
			return false
		case end == takeAndHangUp:
			p.far.mail <- *l
			return false
		case end != "":
			p.say(end)
		default:
			p.far.mail <- *l
			p.say("250 2.0.0 Ok")
		}
		*l = letter{peer: p.number}
	case verb == "QUIT":
		return false
	}
	return true
}

// chunk takes a message that comes in one.
func (p *peer) chunk(l *letter, line, reply string) bool {
	var size int
	if _, err := fmt.Sscanf(line, "BDAT %d LAST", &size); err != nil {
		p.t.Errorf("%q: %v", line, err)
		return false
	}
	content := make([]byte, size)
	if _, err := io.ReadFull(p.r, content); err != nil {
		return false
	}
	l.content, l.chunked = string(content), true
	switch {
	case reply != "":
		p.say(reply)
	case len(l.to) == 0:
		p.say("554 5.5.1 no valid recipients")
	default:
		p.far.mail <- *l
		p.say("250 2.0.0 Ok")
		*l = letter{peer: p.number}
	}
	return true
}

// secure is the handshake behind STARTTLS.
func (p *peer) secure(cfg *tls.Config) bool {
	c := tls.Server(p.Conn, cfg)
	if err := c.HandshakeContext(p.t.Context()); err != nil {
		return false
	}
	p.wire, p.secured = wire{c, bufio.NewReaderSize(c, 64<<10)}, true
	return true
}

// line reads a command without its CRLF, or reports that there are no more.
func (p *peer) line() (string, bool) {
	line, err := p.r.ReadString('\n')
	if err != nil {
		return "", false
	}
	return strings.TrimSuffix(line, "\r\n"), true
}

// want reads a command that must begin with prefix.
func (p *peer) want(prefix string) string {
	line, ok := p.line()
	if !ok || !strings.HasPrefix(line, prefix) {
		p.t.Errorf("connection %d: want %s, got %q", p.number, prefix, line)
	}
	return line
}

// say sends a reply.
func (p *peer) say(reply string) { fmt.Fprintf(p, "%s\r\n", reply) }

// content reads what follows a 354, without dot-stuffing, or reports that it did not come to its end.
func (p *peer) content() (string, bool) {
	var content strings.Builder
	for {
		line, err := p.r.ReadSlice('\n')
		switch {
		case err != nil && err != bufio.ErrBufferFull:
			return content.String(), false
		case string(line) == ".\r\n":
			return content.String(), true
		case len(line) > 0 && line[0] == '.':
			line = line[1:]
		}
		content.Write(line)
	}
}

// gone waits until the client has closed the connection.
func (p *peer) gone() {
	_ = p.SetReadDeadline(time.Now().Add(patience))
	for {
		if _, err := p.r.Discard(1); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				p.t.Errorf("connection %d stays open", p.number)
			}
			return
		}
	}
}
