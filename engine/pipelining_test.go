package engine

import (
	"fmt"
	"strings"
	"testing"
)

// text makes content of about the given number of octets that names itself.
func text(i, octets int) string {
	const line = "The quick brown fox jumps over the lazy dog, and the dog does not mind it.\r\n"
	return fmt.Sprintf("Subject: message %d\r\nMessage-ID: <%d@sender.example>\r\n\r\n", i, i) + strings.Repeat(line, octets/len(line))
}

// TestPipelining proves by what the server withholds that nothing waits for a reply that it need not wait for: MAIL, RCPT and DATA are there
// before the first of them is answered, and with the end of each message the next envelope. And each group comes in one segment, so it
// was one write.
func TestPipelining(t *testing.T) {
	t.Parallel()
	const messages = 5
	handedIn := make(chan struct{})
	f := listen(t, func(p *peer) {
		<-handedIn
		p.say("220 far.example")
		p.want("EHLO")
		segments := p.segments(t)
		p.say("250-far.example\r\n250 PIPELINING")
		envelope := func() {
			p.want("MAIL FROM:")
			p.want("RCPT TO:")
			p.want("RCPT TO:")
			p.want("DATA")
			if segments++; p.segments(t) != segments {
				t.Errorf("the client wrote %d times, want %d", p.segments(t), segments)
			}
		}
		envelope()
		for i := range messages {
			p.say("250 ok\r\n250 ok\r\n250 ok\r\n354 go on")
			content, _ := p.content()
			if i < messages-1 {
				envelope()
			}
			p.far.mail <- letter{content: content, peer: p.number}
			p.say("250 ok")
		}
		p.gone()
	})
	c := settings(t, f.route("*"))
	c.Egress.Connections = 1
	r := start(t, c)
	for i := range messages {
		r.send("s@sender.example", text(i, 10<<10), "a@far.example", "b@far.example")
	}
	close(handedIn)
	for i := range messages {
		if got := withoutTrace(t, f.next().content); got != text(i, 10<<10) {
			t.Errorf("message %d differs: %.200q", i, got)
		}
	}
	r.awaitEmpty()
	if n := f.connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// lockstep takes mail step by step and complains of every octet that comes before the reply that it must wait for.
func lockstep(p *peer, refuseEHLO bool) {
	step := func(want, reply string) {
		p.want(want)
		if n := p.r.Buffered(); n > 0 {
			p.t.Errorf("%d octets behind %s", n, want)
		}
		p.say(reply)
	}
	p.say("220 far.example")
	if refuseEHLO {
		step("EHLO", "502 5.5.1 what?")
		step("HELO", "250 far.example")
	} else {
		step("EHLO", "250 far.example")
	}
	for {
		line, ok := p.line()
		if !ok || line == "QUIT" {
			return
		}
		if !strings.HasPrefix(line, "MAIL FROM:<s@sender.example>") || p.r.Buffered() > 0 {
			p.t.Errorf("want MAIL alone, got %q and %d octets", line, p.r.Buffered())
		}
		p.say("250 ok")
		step("RCPT TO:<a@", "250 ok")
		step("RCPT TO:<b@", "250 ok")
		step("DATA", "354 go on")
		content, ok := p.content()
		if !ok || p.r.Buffered() > 0 {
			p.t.Errorf("%d octets behind the content", p.r.Buffered())
		}
		p.far.mail <- letter{content: content, peer: p.number}
		p.say("250 ok")
	}
}

// TestLockStep sends to servers that cannot do PIPELINING, or not even EHLO.
func TestLockStep(t *testing.T) {
	for name, refuseEHLO := range map[string]bool{"EHLO without PIPELINING": false, "HELO": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := listen(t, func(p *peer) { lockstep(p, refuseEHLO) })
			c := settings(t, f.route("*"))
			c.Egress.Connections = 1
			r := start(t, c)
			for i := range 3 {
				r.send("s@sender.example", text(i, 2000), "a@far.example", "b@far.example")
			}
			for i := range 3 {
				if got := withoutTrace(t, f.next().content); got != text(i, 2000) {
					t.Errorf("message %d: %q", i, got)
				}
			}
			r.awaitEmpty()
			if n := f.connections(); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// TestConnectionReuse sends many messages over one connection, or as many as the configuration allows.
func TestConnectionReuse(t *testing.T) {
	for name, c := range map[string]struct{ limit, messages, connections int }{
		"without limit": {0, 1100, 1}, "three a connection": {3, 10, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			quits := make(chan int, 100)
			f := listen(t, answering(func(p *peer, line string) string {
				if line == "QUIT" {
					quits <- p.number
				}
				return ""
			}))
			cfg := settings(t, f.route("*"))
			cfg.Egress.Connections, cfg.Egress.Messages = 1, c.limit
			r := start(t, cfg)
			seen := map[int]int{}
			d := r.dial()
			d.say("EHLO client.example", 250)
			for i := range c.messages {
				d.mail("MAIL FROM:<s@sender.example>", text(i, 100), "a@far.example")
				l := f.next() // one by one: an idle connection is used again
				if seen[l.peer]++; c.limit > 0 && seen[l.peer] > c.limit {
					t.Errorf("connection %d took %d messages", l.peer, seen[l.peer])
				}
			}
			r.awaitEmpty()
			r.stop()
			if n := f.connections(); n != c.connections {
				t.Errorf("%d connections, want %d", n, c.connections)
			}
			for range c.connections {
				receive(t, quits)
			}
		})
	}
}
