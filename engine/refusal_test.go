package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mailrace/engine/config"
)

// TestRefusal has a server refuse at each step, for now and for good, with pipelining and without. The connection must stay in step: the next
// message goes over it.
func TestRefusal(t *testing.T) {
	for name, extensions := range map[string][]string{"pipelined": everything, "step by step": {"8BITMIME"}} {
		for _, step := range []string{"MAIL", "RCPT", "DATA", "."} {
			t.Run(name+" "+step, func(t *testing.T) {
				t.Parallel()
				home := listen(t, polite)
				troubled := "" // reverse-path of the envelope at hand
				tries := 0     // of the one that is to come later
				f := listen(t, func(p *peer) {
					p.receive(manners{extensions: extensions, answer: func(p *peer, line string) string {
						if strings.HasPrefix(line, "MAIL FROM:") {
							troubled, _, _ = strings.Cut(strings.TrimPrefix(line, "MAIL FROM:<"), "@")
							if troubled == "later" {
								tries++
							}
						}
						switch verb := line[:min(len(line), len(step))]; {
						case verb != step:
						case troubled == "later" && tries == 1:
							return "451-4.3.0 not\r\n451 4.3.0 now"
						case troubled == "never":
							return "554 5.7.1 never"
						}
						return ""
					}})
				})
				c := settings(t, f.route("far.example"), home.route("*"))
				c.Egress.Connections = 1
				r := start(t, c)
				for _, from := range []string{"later", "never", "fine"} {
					r.send(from+"@sender.example", text(1, 100), "a@far.example", "b@far.example")
				}
				for range 2 {
					if l := f.next(); !slices.Equal(l.to, []string{"a@far.example", "b@far.example"}) || l.peer != 1 {
						t.Errorf("%s for %v over connection %d", l.mail, l.to, l.peer)
					}
				}
				d := parseReport(t, home.next())
				if len(d.recipients) != 2 || d.recipients[0].Get("Status") != "5.7.1" {
					t.Errorf("report: %v", d.recipients)
				}
				r.awaitEmpty()
				f.none()
				home.none()
				deferrals := r.records("deferral")
				if len(deferrals) != 2 {
					t.Errorf("deferrals: %+v", deferrals)
				}
				for _, e := range deferrals {
					if e.Code != 451 || e.Enhanced != "4.3.0" || e.Attempt != 1 || e.Sender != "later@sender.example" {
						t.Errorf("deferral: %+v", e)
					}
				}
				for _, e := range r.records("bounce") {
					if e.Code != 554 || e.Enhanced != "5.7.1" || e.Sender != "never@sender.example" {
						t.Errorf("bounce: %+v", e)
					}
				}
			})
		}
	}
}

// TestManyRecipients goes in transactions of as many recipients as the configuration allows, and each recipient gets the message once.
func TestManyRecipients(t *testing.T) {
	t.Parallel()
	f := listen(t, polite)
	c := settings(t, f.route("*"))
	c.Egress.Recipients = 30
	r := start(t, c)
	var want, got []string
	for i := range 100 {
		want = append(want, fmt.Sprintf("%03d@%d.example", i, i%7))
	}
	r.send("s@sender.example", hello, want...)
	for len(got) < len(want) {
		l := f.next()
		if len(l.to) > 30 {
			t.Errorf("%d recipients in a transaction", len(l.to))
		}
		got = append(got, l.to...)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	r.awaitEmpty()
	f.none()
}

// TestNewFails gives back everything when a part cannot be opened, so that the next attempt succeeds.
func TestNewFails(t *testing.T) {
	t.Parallel()
	quiet := slog.New(slog.DiscardHandler)
	c := settings(t, discard("*"))
	c.Admin.Address = "127.0.0.1:0"
	r := start(t, c)
	r.send("s@sender.example", hello, "a@far.example")

	same := *c // its spool is in use
	same.Events.Path = filepath.Join(t.TempDir(), "events.jsonl")
	if n, err := New(&same, quiet); err == nil || !strings.Contains(err.Error(), c.Spool.Path) {
		t.Errorf("two nodes share a spool: %v, %v", n, err)
	}
	for name, change := range map[string]func(c *config.Config){
		"the port is taken":        func(c *config.Config) { c.Listeners[0].Address = r.Addr(0).String() },
		"the port of HTTP is":      func(c *config.Config) { c.Admin.Address = r.AdminAddr().String() },
		"no such directory":        func(c *config.Config) { c.Events.Path = "/dev/null/events.jsonl" },
		"spool in a file":          func(c *config.Config) { c.Spool.Path = "/dev/null/spool" },
		"a domain with two routes": func(c *config.Config) { c.Routes = append(c.Routes, discard("*")) },
	} {
		other := settings(t, discard("*"))
		good := *other
		good.Listeners = slices.Clone(other.Listeners)
		change(other)
		if n, err := New(other, quiet); err == nil {
			t.Errorf("%s: no error: %v", name, n)
			continue
		}
		start(t, &good).stop()
	}
	resp, err := http.Get("http://" + r.AdminAddr().String() + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != http.StatusOK {
		t.Errorf("%s", resp.Status)
	}
}

// TestFatal ends a node whose spool cannot be written.
func TestFatal(t *testing.T) {
	t.Parallel()
	n, err := New(settings(t), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.close() }) // the process would end
	broken := errors.New("disk on fire")
	go n.fatalSpool(broken)
	if err := n.Run(t.Context()); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}
