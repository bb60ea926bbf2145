package engine

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"mailrace/engine/config"
	"mailrace/proto/message"
)

// chunking is what a peer offers that takes whole messages one behind the other.
var chunking = []string{"PIPELINING", "CHUNKING", "8BITMIME", "SIZE"}

// whole reads a whole message that came by BDAT to one recipient, without a word. reset is the reply to the RSET before it, if there was one.
func (p *peer) whole() (l letter, reset string, ok bool) {
	line, ok := p.line()
	if line == "RSET" {
		reset = "250 reset\r\n"
		line, ok = p.line()
	}
	l = letter{mail: line, peer: p.number, chunked: true}
	for ok && !strings.HasPrefix(line, "BDAT") {
		if line, ok = p.line(); strings.HasPrefix(line, "RCPT") {
			l.to = append(l.to, line)
		}
	}
	size := 0
	if _, err := fmt.Sscanf(line, "BDAT %d LAST", &size); err != nil {
		return l, reset, false
	}
	content := make([]byte, size)
	for n := 0; ok && n < size; {
		got, err := p.r.Read(content[n:])
		n, ok = n+got, err == nil
	}
	l.content = string(content)
	return l, reset, ok
}

// taken is the reply to MAIL, RCPT and BDAT of a message.
const taken = "250 ok\r\n250 ok\r\n250 ok"

// open says who it is, and what it can.
func (p *peer) open() {
	p.say("220 far.example")
	p.want("EHLO")
	p.say("250-far.example\r\n250-" + strings.Join(chunking, "\r\n250-") + "\r\n250 HELP")
}

// unsettled is a rig with messages of n octets, one of which begins lines with dots, for one connection to f.
func unsettled(t *testing.T, f *far, messages, octets int) *rig {
	return unsettledBy(t, f, messages, octets, config.Default().Egress.Window)
}

// unsettledBy is unsettled with a window.
func unsettledBy(t *testing.T, f *far, messages, octets, window int) *rig {
	c := settings(t, f.route("*"))
	c.Engine.Loops, c.Egress.Connections, c.Egress.Window = 1, 1, window
	r := start(t, c)
	for i := range messages {
		dots := func(m *message.Message) { m.Flags |= message.LeadingDots }
		r.inject(dots, fmt.Sprintf("s%d@sender.example", i), dotted(i, octets), fmt.Sprintf("a%d@far.example", i))
	}
	return r
}

// dotted is content with lines that begin with dots.
func dotted(i, octets int) string { return text(i, octets) + ".\r\n..\r\n.end\r\n" }

// TestChunkWindow proves by what the server withholds that whole messages are on their way without a reply: when it has answered the first, it
// reads as many as the window holds before it answers one of them; and all arrive once, in their order, octet for octet.
func TestChunkWindow(t *testing.T) {
	t.Parallel()
	const messages = 101 // the first one, and as many as the window holds
	for name, octets := range map[string]int{"small": 500, "several reads": 9000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			handedIn := make(chan struct{})
			f := listen(t, func(p *peer) {
				<-handedIn
				p.open()
				for _, n := range []int{1, messages - 1} {
					var letters []letter
					var replies []string
					for range n {
						l, reset, ok := p.whole()
						if !ok {
							t.Error("the client sent no whole message before it got a reply")
							return
						}
						letters, replies = append(letters, l), append(replies, reset+taken)
					}
					for i, l := range letters {
						p.far.mail <- l
						p.say(replies[i])
					}
				}
				p.gone()
			})
			r := unsettled(t, f, messages, octets)
			close(handedIn)
			for i := range messages {
				l := f.next()
				if got := withoutTrace(t, l.content); got != dotted(i, octets) || len(l.to) != 1 || !strings.HasPrefix(l.mail, fmt.Sprintf("MAIL FROM:<s%d@", i)) {
					t.Errorf("message %d: %s, %d octets, want %d", i, l.mail, len(got), len(dotted(i, octets)))
				}
			}
			r.awaitEmpty()
			f.none()
			if n := f.connections(); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// TestChunkWindowRefusals: in the midst of a window, each message has its own fate, whatever the server says to it.
func TestChunkWindowRefusals(t *testing.T) {
	t.Parallel()
	f := listen(t, func(p *peer) {
		p.receive(manners{extensions: chunking, answer: func(_ *peer, line string) string {
			if strings.HasPrefix(line, "MAIL FROM:<s3@") || strings.HasPrefix(line, "RCPT TO:<a5@") {
				return "550 5.7.1 not this one"
			}
			return ""
		}})
	})
	r := unsettled(t, f, 20, 500)
	for i := range 20 {
		address := fmt.Sprintf("a%d@far.example", i)
		if i == 3 || i == 5 {
			r.record("bounce", address, 1)
		} else {
			r.record("delivery", address, 1)
		}
	}
	r.awaitEmpty()
}

// TestChunkWindowLost: what was sent whole when the connection is lost is in doubt, and the rest is not; where the server takes its leave with a 421,
// nothing is that it had not begun to answer.
func TestChunkWindowLost(t *testing.T) {
	t.Parallel()
	for name, bye := range map[string]string{"421": "421 4.3.2 going down", "lost": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const messages, before = 30, 3 // answered before the end
			handedIn := make(chan struct{})
			f := listen(t, func(p *peer) {
				if p.number > 1 {
					p.receive(manners{extensions: chunking})
					return
				}
				<-handedIn
				p.open()
				for range before {
					l, reset, _ := p.whole()
					p.far.mail <- l
					p.say(reset + taken)
				}
				first := ""
				for i := range messages - before {
					_, reset, ok := p.whole()
					if !ok {
						t.Error("a message is missing")
					}
					if i == 0 {
						first = reset
					}
				}
				if bye != "" {
					p.say(first + bye)
				}
			})
			r := unsettled(t, f, messages, 500)
			close(handedIn)
			doubtful := 0
			if bye == "" {
				doubtful = messages - before
			}
			for i := range messages {
				address := fmt.Sprintf("a%d@far.example", i)
				r.record("delivery", address, 1)
			}
			if n := len(r.records("in-doubt")); n != doubtful {
				t.Errorf("%d in doubt, want %d", n, doubtful)
			}
			for range messages { // those that were put off come from the spool
				l, i := f.next(), 0
				fmt.Sscanf(l.mail, "MAIL FROM:<s%d@", &i)
				if got := withoutTrace(t, l.content); got != dotted(i, 500) || !l.chunked {
					t.Errorf("%s, by BDAT %v: %q", l.mail, l.chunked, got)
				}
			}
			f.none()
			r.awaitEmpty()
			r.stop()
			if left, _ := filepath.Glob(filepath.Join(r.cfg.Spool.InFlight, "mailrace-*")); len(left) > 0 {
				t.Errorf("marks of what is in flight are left: %v", left)
			}
		})
	}
}

// TestUnknownChunks: a server that offers CHUNKING and does not know BDAT, or ends the connection for it, gets its mail by DATA; and so does one that
// knows it, where there is no window.
func TestUnknownChunks(t *testing.T) {
	t.Parallel()
	for name, reply := range map[string]string{"refused": "500 5.5.1 what?", "closed": hangUp, "not wanted": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var chunks atomic.Int32
			f := listen(t, func(p *peer) {
				p.receive(manners{extensions: chunking, answer: func(_ *peer, line string) string {
					if strings.HasPrefix(line, "BDAT") {
						chunks.Add(1)
						return reply
					}
					return ""
				}})
			})
			const messages = 10
			window, tried := 100, int32(1)
			if reply == "" {
				window, tried = 0, 0
			}
			r := unsettledBy(t, f, messages, 500, window)
			if reply == hangUp {
				r.record("in-doubt", "a0@far.example", 1)
			}
			for range messages {
				if l := f.next(); l.chunked {
					t.Errorf("%s came by BDAT", l.mail)
				}
			}
			if n := chunks.Load(); n != tried {
				t.Errorf("%d chunks", n)
			}
		})
	}
}
