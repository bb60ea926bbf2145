package engine

import (
	"crypto/tls"
	"slices"
	"strings"
	"testing"
	"time"

	"mailrace/engine/config"
)

// What hosts may do with TLS to the client of ours that delivers mail.

// TestT3NothingOfTheClearCounts: what a host offered before STARTTLS, where anybody may have put words into its mouth, is forgotten under TLS. RFC 3207 §4.2
func TestT3NothingOfTheClearCounts(t *testing.T) {
	t.Parallel()
	cfg, _ := certified(t, "127.0.0.1")
	f := listen(t, func(p *peer) {
		p.receive(manners{tls: cfg, extensions: []string{"PIPELINING"}, open: []string{"SIZE 1", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "BINARYMIME", "LIMITS RCPTMAX=1", "AUTH PLAIN"}})
	})
	r := start(t, settings(t, f.route("far.example"), config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToDiscard}}))
	r.sendWith("s@sender.example", " BODY=8BITMIME", eightBit, "<a@far.example>")
	if e := r.record("bounce", "a@far.example", 1); e.Enhanced != "5.6.3" || e.TLSVersion == "" {
		t.Errorf("%+v", e)
	}
	r.sendWith("s@sender.example", " RET=HDRS ENVID=x", hello, "<b@far.example> NOTIFY=FAILURE", "<c@far.example>")
	if l := f.next(); !l.tls || l.chunked || l.mail != "MAIL FROM:<s@sender.example>" || !slices.Equal(l.to, []string{"b@far.example", "c@far.example"}) {
		t.Errorf("%+v", l)
	}
	r.awaitEmpty()
	f.none()
}

// TestT6OfferedAgain: a host that offers STARTTLS under TLS once more is not asked for it.
func TestT6OfferedAgain(t *testing.T) {
	t.Parallel()
	cfg, _ := certified(t, "127.0.0.1")
	f := listen(t, func(p *peer) {
		p.receive(manners{tls: cfg, secret: []string{"STARTTLS"}, answer: func(p *peer, line string) string {
			if p.secured && line == "STARTTLS" {
				t.Error("STARTTLS under TLS")
			}
			return ""
		}})
	})
	r := start(t, settings(t, f.route("*")))
	r.send("s@sender.example", hello, "a@far.example")
	if l := f.next(); !l.tls {
		t.Errorf("%+v", l)
	}
	r.awaitEmpty()
	if got := f.connections(); got != 1 {
		t.Errorf("%d connections", got)
	}
}

// TestT7ClearBehindTheEndOfTLS: what comes in clear when TLS has ended, with a word about that or without, is no reply. The mail is in doubt, and goes
// again.
func TestT7ClearBehindTheEndOfTLS(t *testing.T) {
	const ok = "250 2.0.0 Ok\r\n"
	for name, end := range map[string]func(*tls.Conn) error{
		"close_notify": func(c *tls.Conn) error {
			if err := c.CloseWrite(); err != nil {
				return err
			}
			return c.SetWriteDeadline(time.Time{}) // the other one was of the farewell
		},
		"no close_notify": func(*tls.Conn) error { return nil },
		"in a record": func(c *tls.Conn) error { // that nobody encrypted
			_, err := c.NetConn().Write([]byte{23, 3, 3, 0, byte(len(ok))})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, _ := certified(t, "127.0.0.1")
			f := listen(t, func(p *peer) {
				play := manners{tls: cfg}
				if p.number == 1 {
					play.answer = func(p *peer, line string) string {
						if line != "." {
							return ""
						}
						if err := end(p.Conn.(*tls.Conn)); err != nil {
							t.Error(err)
						}
						if _, err := p.raw.Write([]byte(ok)); err != nil {
							t.Error(err)
						}
						p.gone()
						return hangUp
					}
				}
				p.receive(play)
			})
			r := start(t, settings(t, f.route("*")))
			r.send("s@sender.example", hello, "a@far.example")
			if e := r.record("deferral", "a@far.example", 1); e.Enhanced != "4.4.2" || !strings.Contains(e.Text, "in doubt") {
				t.Errorf("%+v", e)
			}
			if l := f.next(); !l.tls || l.peer != 2 {
				t.Errorf("%+v", l)
			}
			r.awaitEmpty()
			if got := len(r.records("delivery")); got != 1 {
				t.Errorf("%d deliveries", got)
			}
		})
	}
}
