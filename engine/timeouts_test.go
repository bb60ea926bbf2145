package engine

import (
	"strings"
	"testing"
	"time"

	"mailrace/engine/config"
)

// TestTimeouts: each thing that a server does not do ends the session when its own time is over, and no other.
func TestTimeouts(t *testing.T) {
	const short = 2 * time.Second // the second connection must keep it on a busy machine
	for name, c := range map[string]struct {
		set   func(*config.Timeouts)
		does  func(p *peer)
		doubt bool // the message may have arrived
	}{
		"greeting": {func(w *config.Timeouts) { w.Greeting = short }, func(*peer) {}, false},
		"EHLO":     {func(w *config.Timeouts) { w.Command = short }, func(p *peer) { p.say("220 far.example") }, false},
		"MAIL":     {func(w *config.Timeouts) { w.Mail = short }, func(p *peer) { p.greet("PIPELINING") }, false},
		"RCPT":     {func(w *config.Timeouts) { w.Rcpt = short }, func(p *peer) { p.greet("PIPELINING"); p.say("250 ok") }, false},
		"DATA": {func(w *config.Timeouts) { w.Data = short }, func(p *peer) {
			p.greet("PIPELINING")
			p.say("250 ok\r\n250 ok")
		}, false},
		"content": {func(w *config.Timeouts) { w.Block = short }, nil, false},
		"end of data": {func(w *config.Timeouts) { w.Final = short }, func(p *peer) {
			p.greet("PIPELINING", "SIZE 100000000")
			p.envelope()
			p.content()
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			left := make(chan struct{})
			f := listen(t, first(func(p *peer) {
				if c.does == nil { // it reads nothing of the content
					p.greet("PIPELINING", "SIZE 100000000")
					p.envelope()
					<-left
					return
				}
				c.does(p)
				p.gone()
			}))
			cfg := settings(t, f.route("*"))
			cfg.Limits.MessageSize, cfg.Egress.Connections = 100<<20, 1
			wait(cfg, time.Hour)
			c.set(&cfg.Egress.Timeouts)
			r := start(t, cfg)
			content := hello
			if c.does == nil {
				content = text(1, large)
			}
			r.send("s@sender.example", content, "a@far.example")
			if got := f.next(); got.peer != 2 {
				t.Errorf("came by connection %d", got.peer)
			}
			close(left)
			r.awaitEmpty()
			if doubt := len(r.records("deferral")) > 0 && strings.Contains(r.records("deferral")[0].Text, "in doubt"); doubt != c.doubt {
				t.Errorf("in doubt: %v", doubt)
			}
		})
	}
}
