package engine

import (
	"strings"
	"testing"
	"time"

	"mailrace/engine/config"
)

// large is content that no buffers between us and a peer that does not read can hold.
const large = 20 << 20

// first does something on the first connection and is polite on all others.
func first(does func(p *peer)) func(*peer) {
	return func(p *peer) {
		if p.number > 1 {
			polite(p)
			return
		}
		does(p)
	}
}

// greet does the beginning of a session.
func (p *peer) greet(extensions ...string) {
	p.say("220 far.example")
	p.want("EHLO")
	p.say(strings.Join(append([]string{"250-far.example"}, extensions...), "\r\n250-") + "\r\n250 HELP")
}

// envelope takes a pipelined envelope for one recipient and answers it.
func (p *peer) envelope() {
	p.want("MAIL FROM:")
	p.want("RCPT TO:")
	p.want("DATA")
	p.say("250 ok\r\n250 ok\r\n354 go on")
}

// wait gives peers a time for everything but connecting.
func wait(c *config.Config, d time.Duration) {
	c.Egress.Timeouts = config.Timeouts{Connect: c.Egress.Timeouts.Connect, Greeting: d, Command: d, Mail: d, Rcpt: d, Data: d, Block: d, Final: d}
}

// TestTroublesomePeer meets servers that fail in every way. The message must arrive by another connection: at once where it cannot have been
// taken, and as another attempt where the session was refused or the delivery is in doubt.
func TestTroublesomePeer(t *testing.T) {
	const none = 0
	for name, c := range map[string]struct {
		octets    int
		does      func(p *peer)
		deferrals int // how many attempts are counted before the one that delivers
		code      int
		enhanced  string
		text      string
	}{
		"421 as banner": {none, func(p *peer) { p.say("421 4.3.2 busy") }, 1, 421, "4.3.2", "busy"},
		"554 as banner": {none, func(p *peer) { p.say("554 5.7.1 go away"); p.gone() }, 1, 554, "4.3.0", "go away"},
		"5xx to EHLO and HELO": {none, func(p *peer) {
			p.say("220 far.example")
			p.want("EHLO")
			p.say("550 5.7.1 bad name")
			p.want("HELO")
			p.say("550 5.7.1 bad name")
			p.gone()
		}, 1, 550, "4.3.0", "bad name"},
		"421 to RCPT": {none, func(p *peer) {
			p.greet("PIPELINING")
			p.want("MAIL FROM:")
			p.want("RCPT TO:")
			p.say("250 ok\r\n421 4.3.2 shutting down")
			p.gone()
		}, 1, 421, "4.3.2", "shutting down"},
		"hangs up before the banner": {none, func(p *peer) {}, 1, 0, "4.4.1", "connection lost"},
		"hangs up after MAIL": {none, func(p *peer) {
			p.greet("PIPELINING")
			p.want("MAIL FROM:")
		}, 0, 0, "", ""},
		"hangs up in the content": {large, func(p *peer) {
			p.greet("PIPELINING", "SIZE 100000000")
			p.envelope()
			p.line()
		}, 0, 0, "", ""},
		"hangs up after the final dot": {none, func(p *peer) {
			p.greet("PIPELINING")
			p.envelope()
			p.content()
		}, 1, 0, "4.4.2", "in doubt"},
		"garbage as banner": {none, func(p *peer) { p.say("hello there"); p.gone() }, 1, 0, "4.4.1", ""},
		"garbage as reply to MAIL": {none, func(p *peer) {
			p.greet("PIPELINING")
			p.want("MAIL FROM:")
			p.say("\x00\x01\xff")
			p.gone()
		}, 0, 0, "", ""},
		"endless reply": {none, func(p *peer) {
			p.say("220 far.example")
			p.want("EHLO")
			for {
				if _, err := p.Write([]byte(strings.Repeat("250-more\r\n", 1000))); err != nil {
					return
				}
			}
		}, 1, 0, "4.4.1", ""},
		"endless line": {none, func(p *peer) {
			p.greet("PIPELINING")
			p.want("MAIL FROM:")
			for {
				if _, err := p.Write([]byte("250 more" + strings.Repeat(" and more", 1000))); err != nil {
					return
				}
			}
		}, 0, 0, "", ""},
		"250 in the content": {none, func(p *peer) {
			p.greet("PIPELINING")
			p.want("MAIL FROM:")
			p.want("RCPT TO:")
			p.want("DATA")
			p.say("250 ok\r\n250 ok\r\n354 go on\r\n250 taken before it was sent")
			p.gone()
		}, 0, 0, "", ""},
		"451 in the content": {large, func(p *peer) {
			p.greet("PIPELINING", "SIZE 100000000")
			p.envelope()
			p.line()
			p.say("451 4.3.1 disk full")
			p.gone()
		}, 1, 451, "4.3.1", "disk full"},
		"421 to the end of data": {none, func(p *peer) {
			p.greet("PIPELINING")
			p.envelope()
			p.content()
			p.say("421 4.7.28 unusual rate of mail")
			p.gone()
		}, 1, 421, "4.7.28", "unusual rate"},
		"never greets": {none, (*peer).gone, 1, 0, "4.4.1", "timed out"},
		"never answers MAIL": {none, func(p *peer) {
			p.greet("PIPELINING")
			p.gone()
		}, 0, 0, "", ""},
		"never answers the final dot": {none, func(p *peer) {
			p.greet("PIPELINING")
			p.envelope()
			p.gone()
		}, 1, 0, "4.4.2", "in doubt"},
		"drips a reply that never ends": {none, func(p *peer) {
			p.greet("PIPELINING")
			p.want("MAIL FROM:")
			for {
				if _, err := p.Write([]byte("2")); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		}, 0, 0, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := listen(t, first(c.does))
			cfg := settings(t, f.route("*"))
			cfg.Egress.Connections, cfg.Limits.MessageSize = 1, 100<<20
			wait(cfg, patience)
			if strings.HasPrefix(name, "never") || strings.HasPrefix(name, "drips") {
				wait(cfg, time.Second)
			}
			r := start(t, cfg)
			content := text(1, c.octets)
			r.send("s@sender.example", content, "a@far.example")
			if got := f.next(); withoutTrace(t, got.content) != content || got.peer != 2 {
				t.Errorf("connection %d took %d octets: %.300q", got.peer, len(got.content), got.content)
			}
			if got := r.record("delivery", "a@far.example", 1); got.Attempt != c.deferrals+1 {
				t.Errorf("delivered by attempt %d, want %d", got.Attempt, c.deferrals+1)
			}
			deferrals := r.records("deferral")
			if len(deferrals) != c.deferrals {
				t.Fatalf("deferrals: %+v", deferrals)
			}
			if c.deferrals > 0 {
				if got := deferrals[0]; got.Code != c.code || got.Enhanced != c.enhanced || !strings.Contains(got.Text, c.text) {
					t.Errorf("deferral: %+v", got)
				}
			}
			r.awaitEmpty()
			f.none()
			if n := f.connections(); n != 2 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// TestRefusedInTheContent: who refuses content that is still on its way refuses this message, and no other.
func TestRefusedInTheContent(t *testing.T) {
	t.Parallel()
	f := listen(t, first(func(p *peer) {
		p.greet("PIPELINING", "SIZE 100000000")
		p.envelope()
		p.line()
		p.say("550 5.7.1 spam")
		p.gone()
	}))
	cfg := settings(t, f.route("*"))
	cfg.Egress.Connections, cfg.Limits.MessageSize = 1, 100<<20
	r := start(t, cfg)
	r.send("", text(1, large), "a@far.example")
	if got := r.record("bounce", "a@far.example", 1); got.Code != 550 || got.Enhanced != "5.7.1" || got.Text != "spam" {
		t.Errorf("%+v", got)
	}
	r.send("s@sender.example", text(2, 100), "b@far.example")
	if got := f.next(); withoutTrace(t, got.content) != text(2, 100) || got.peer != 2 {
		t.Errorf("connection %d took %d octets", got.peer, len(got.content))
	}
	r.awaitEmpty()
	if n := len(r.records("deferral")); n != 0 {
		t.Errorf("%d deferrals", n)
	}
}

// TestPeerThatNeverReads sends more than all buffers hold to a server that does not read. What waits in memory is bounded, the session times
// out, and the message goes elsewhere.
func TestPeerThatNeverReads(t *testing.T) {
	t.Parallel()
	peak := make(chan int64, 1)
	var r *rig
	f := listen(t, first(func(p *peer) {
		p.greet("PIPELINING", "SIZE 100000000")
		p.envelope()
		most := int64(0)
		for p.far.connections() == 1 { // until the other side gives up
			most = max(most, r.budget.Used())
			time.Sleep(time.Millisecond)
		}
		peak <- most
	}))
	cfg := settings(t, f.route("*"))
	cfg.Limits.MessageSize, cfg.Egress.Timeouts.Block = 100<<20, 3*time.Second
	r = start(t, cfg)
	content := text(1, large)
	r.send("s@sender.example", content, "a@far.example")
	if got := receive(t, peak); got > 2<<20 {
		t.Errorf("%d bytes of content in memory", got)
	}
	if got := f.next(); withoutTrace(t, got.content) != content || got.peer != 2 {
		t.Errorf("connection %d took %d octets", got.peer, len(got.content))
	}
	r.awaitEmpty()
	if n := len(r.records("deferral")); n != 0 {
		t.Errorf("%d deferrals", n)
	}
}

// TestIdleConnectionClosedByPeer counts no failure and no attempt when a server ends a connection that has nothing to do.
func TestIdleConnectionClosedByPeer(t *testing.T) {
	for name, farewell := range map[string]string{"closes": "", "says 421": "421 4.4.2 idle for too long\r\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			idle := make(chan *peer, 10)
			f := listen(t, func(p *peer) {
				idle <- p
				polite(p)
			})
			cfg := settings(t, f.route("*"))
			cfg.Egress.Idle = time.Hour
			r := start(t, cfg)
			for i := range 3 {
				r.send("s@sender.example", text(i, 100), "a@far.example")
				if got := f.next(); got.peer != i+1 {
					t.Errorf("message %d came by connection %d", i, got.peer)
				}
				r.awaitEmpty()
				p := receive(t, idle)
				if _, err := p.Write([]byte(farewell)); err != nil {
					t.Error(err)
				}
				if farewell == "" {
					p.Close()
				}
				r.await("the end of the connection", func() bool { return r.Status().Connections == 0 })
			}
			if s := r.Status(); s.Deferrals != 0 || s.Backoff != 0 {
				t.Errorf("%+v", s)
			}
			for _, e := range r.records("delivery") {
				if e.Attempt != 1 {
					t.Errorf("attempt %d", e.Attempt)
				}
			}
			for i := range r.lanes {
				for _, s := range r.sites(i) {
					if s.Failures != 0 || s.LastError != "" {
						t.Errorf("site: %+v", s)
					}
				}
			}
		})
	}
}

// TestReplyForNobody sends no content when a server wants it for a transaction without recipients. RFC 2920 §3.1
func TestReplyForNobody(t *testing.T) {
	t.Parallel()
	home := listen(t, polite)
	f := listen(t, first(func(p *peer) {
		p.greet("PIPELINING")
		p.want("MAIL FROM:")
		p.want("RCPT TO:")
		p.want("DATA")
		p.say("250 ok\r\n550 5.1.1 no\r\n354 go on")
		if content, ok := p.content(); !ok || content != "" {
			t.Errorf("content for nobody: %q", content)
		}
		p.say("250 taken for nobody")
		p.gone()
	}))
	r := start(t, settings(t, f.route("far.example"), home.route("*")))
	r.send("s@sender.example", hello, "no@far.example")
	if d := parseReport(t, home.next()); len(d.recipients) != 1 || d.recipients[0].Get("Status") != "5.1.1" {
		t.Errorf("%+v", d)
	}
	r.record("bounce", "no@far.example", 1)
	r.awaitEmpty()
}
