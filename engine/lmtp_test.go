package engine

import (
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailrace/engine/config"
)

// lhlo does the beginning of a session by LMTP.
func (p *peer) lhlo(extensions ...string) {
	p.say("220 store.example")
	p.want("LHLO mta.test.example")
	p.say(strings.Join(append([]string{"250-store.example"}, extensions...), "\r\n250-") + "\r\n250 HELP")
}

// store leads mail for all domains to f by LMTP.
func (f *far) store() config.Route {
	r := f.route("*")
	r.To.Kind = config.ToLMTP
	return r
}

// take takes a pipelined envelope for so many recipients with its content.
func (p *peer) take(rcpts int) (to []string, content string) {
	p.want("MAIL FROM:")
	replies := "250 ok"
	for range rcpts {
		to = append(to, p.want("RCPT TO:"))
		replies += "\r\n250 ok"
	}
	p.want("DATA")
	p.say(replies + "\r\n354 go on")
	content, _ = p.content()
	return to, content
}

// TestLMTP: the end of data is answered for each recipient, whatever else the server does, and what it said of one holds.
func TestLMTP(t *testing.T) {
	const a, b, c = "a@far.example", "b@far.example", "c@far.example"
	for name, test := range map[string]struct {
		say       string   // behind the end of data of the first connection, which then ends
		delivered []string // by that
		bounced   []string
		doubt     []string
		again     []string // to whom the second connection delivers
	}{
		"each its own":            {"250 ok\r\n550 5.1.1 unknown\r\n452 4.2.2 full", []string{a}, []string{b}, nil, []string{c}},
		"without codes":           {"250 ok\r\n250 ok\r\n450 later", []string{a, b}, nil, nil, []string{c}},
		"of several lines":        {"250-ok\r\n250 ok\r\n550-5.2.1 no\r\n550 5.2.1 no\r\n250 ok", []string{a, c}, []string{b}, nil, nil},
		"one too few":             {"250 ok\r\n250 ok", []string{a, b}, nil, []string{c}, []string{c}},
		"one too many":            {"250 ok\r\n250 ok\r\n250 ok\r\n250 ok", []string{a, b, c}, nil, nil, nil},
		"421 in the middle":       {"250 ok\r\n421 4.3.2 shutting down\r\n250 ok", []string{a}, nil, []string{b, c}, []string{b, c}},
		"noise in the middle":     {"550 5.1.1 no\r\nwhat?", nil, []string{a}, []string{b, c}, []string{b, c}},
		"nothing":                 {"", nil, nil, []string{a, b, c}, []string{a, b, c}},
		"one for all, as by SMTP": {"554 5.7.1 no", nil, []string{a}, []string{b, c}, []string{b, c}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			again := make(chan []string, 1)
			f := listen(t, func(p *peer) {
				p.lhlo(everything...)
				if p.number == 1 {
					if to, content := p.take(3); len(to) != 3 || withoutTrace(t, content) != hello {
						t.Errorf("%v: %q", to, content)
					}
					if test.say != "" {
						p.say(test.say)
					}
					return
				}
				p.want("MAIL FROM:")
				var to []string
				for line, _ := p.line(); line != "DATA"; line, _ = p.line() {
					to = append(to, strings.TrimSuffix(strings.TrimPrefix(line, "RCPT TO:<"), ">"))
				}
				replies := strings.Repeat("250 ok\r\n", len(to))
				p.say("250 ok\r\n" + replies + "354 go on")
				p.content()
				again <- to
				p.say(strings.TrimSuffix(replies, "\r\n"))
				p.gone()
			})
			cfg := settings(t, f.store())
			cfg.Egress.Connections = 1
			r := start(t, cfg)
			r.send("", hello, a, b, c)
			if len(test.again) > 0 {
				if to := receive(t, again); !slices.Equal(to, test.again) {
					t.Errorf("sent again to %v, want %v", to, test.again)
				}
			}
			r.awaitEmpty()
			for _, e := range r.records("delivery", "bounce", "deferral") {
				at := map[string][]string{"delivery": test.delivered, "bounce": test.bounced}[e.Type]
				doubt := strings.Contains(e.Text, "in doubt")
				switch {
				case e.Attempt == 1 && e.Type != "deferral" && !slices.Contains(at, e.Recipient):
					t.Errorf("%+v", e)
				case e.Attempt == 1 && e.Type == "deferral" && doubt != slices.Contains(test.doubt, e.Recipient):
					t.Errorf("in doubt: %+v", e)
				case e.Attempt > 1 && e.Type != "deferral" && (e.Type != "delivery" || !slices.Contains(test.again, e.Recipient)):
					t.Errorf("%+v", e)
				}
			}
			if n := len(r.records("delivery", "bounce")); n != 3 {
				t.Errorf("%d recipients are settled", n)
			}
		})
	}
}

// TestLMTPKeepsConnection: message after message goes over one connection, each behind the last reply to the one before.
func TestLMTPKeepsConnection(t *testing.T) {
	t.Parallel()
	f := listen(t, func(p *peer) {
		p.lhlo(everything...)
		for i := range 3 {
			_, content := p.take(2)
			p.far.mail <- letter{content: content, peer: p.number}
			p.say("250 ok")
			if i == 1 {
				if p.r.Buffered() > 0 {
					t.Error("something came before the last reply")
				}
			}
			p.say("250 ok")
		}
		p.gone()
	})
	cfg := settings(t, f.store())
	cfg.Egress.Connections = 1
	r := start(t, cfg)
	for i := range 3 {
		r.send("s@sender.example", text(i, 1000), "a@far.example", "b@far.example")
	}
	for range 3 {
		if got := f.next(); got.peer != 1 {
			t.Errorf("connection %d", got.peer)
		}
	}
	r.awaitEmpty()
}

// TestLMTPSocket: the same at a Unix socket, which mail for another route does not share, and which may not be there for a while.
func TestLMTPSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lmtp")
	cfg := settings(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToSocket, Path: path}})
	cfg.TLS.HandshakeTimeout = time.Second
	r := start(t, cfg)
	r.send("s@sender.example", hello, "a@far.example")
	if e := r.record("deferral", "a@far.example", 1); e.Enhanced != "4.4.1" || !strings.Contains(e.Text, path) || e.Site != path {
		t.Errorf("%+v", e)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f := serveAt(t, l, func(p *peer) {
		p.lhlo(append([]string{"STARTTLS"}, everything...)...)
		_, content := p.take(1)
		p.far.mail <- letter{content: content}
		p.say("250 2.0.0 ok")
		p.gone()
	})
	if got := f.next(); withoutTrace(t, got.content) != hello {
		t.Errorf("%q", got.content)
	}
	if e := r.record("delivery", "a@far.example", 1); e.Code != 250 || e.Site != path || e.Peer != "" {
		t.Errorf("%+v", e)
	}
	r.awaitEmpty()
}
