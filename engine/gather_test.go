package engine

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mailrace/engine/config"
	"mailrace/proto/message"
	"mailrace/router"
)

// hesitant refuses every recipient, once the gate is open.
func hesitant(gate <-chan struct{}) func(*peer) {
	return answering(func(_ *peer, line string) string {
		if strings.HasPrefix(line, "RCPT") {
			<-gate
			return "550 5.1.1 no such user"
		}
		return ""
	})
}

// scattered sends a message to recipients in many domains, of which those of the last fail when the gate opens. It returns when all others have.
func scattered(t *testing.T, gather time.Duration) (r *rig, home *far, open func()) {
	gate := make(chan struct{})
	open = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(open)
	home, fast, slow := listen(t, polite), listen(t, answering(refusing)), listen(t, hesitant(gate))
	c := settings(t, home.route("sender.example"), slow.route("slow.example"))
	const domains = 40
	var to []string
	for i := range domains {
		c.Routes = append(c.Routes, fast.route(fmt.Sprintf("d%d.example", i)))
		to = append(to, fmt.Sprintf("no%d@d%d.example", i, i))
	}
	c.DSN.Gather = gather
	r = start(t, c)
	r.send("s@sender.example", hello, append(to, "no@slow.example")...)
	for _, address := range to {
		r.record("bounce", address, 1)
	}
	return r, home, open
}

// TestFailuresAreGathered: what fails at different times, in different domains and on different loops is told of together.
func TestFailuresAreGathered(t *testing.T) {
	t.Parallel()
	r, home, open := scattered(t, time.Hour)
	home.none()
	open()
	if d := parseReport(t, home.next()); len(d.recipients) != 41 || !strings.Contains(d.human, "... and 21 further recipients") {
		t.Errorf("%d recipients in %s", len(d.recipients), d.human)
	}
	r.awaitEmpty()
	home.none()
	if got := r.stats.dsns.Get(); got != 1 {
		t.Errorf("%d DSNs", got)
	}
}

// TestGatheringEnds: nobody waits for the last recipient for longer than is configured, and a node that stops tells at once.
func TestGatheringEnds(t *testing.T) {
	t.Parallel()
	r, home, open := scattered(t, 20*time.Millisecond)
	told := map[string]bool{}
	for len(told) < 40 {
		d := parseReport(t, home.next())
		for rcpt := range d.fieldsOf() {
			if told[rcpt] {
				t.Errorf("told of %s twice", rcpt)
			}
			told[rcpt] = true
		}
	}
	open()
	if d := parseReport(t, home.next()); len(d.recipients) != 1 {
		t.Errorf("%v", d.recipients)
	}
	r.awaitEmpty()
	home.none()
}

// TestGatheredAtStop: what was gathered when the node stops is in the spool then, and nobody is told twice.
func TestGatheredAtStop(t *testing.T) {
	t.Parallel()
	r, home, open := scattered(t, time.Hour)
	c := r.cfg
	c.Engine.DrainTimeout = 200 * time.Millisecond
	r.stop()
	open()
	r = start(t, c)
	told := map[string]int{}
	for len(told) < 41 {
		d := parseReport(t, home.next())
		for rcpt := range d.fieldsOf() {
			if told[rcpt]++; told[rcpt] > 1 {
				t.Errorf("told of %s twice", rcpt)
			}
		}
	}
	r.awaitEmpty()
	home.none()
}

// TestGatheredOnce: a recipient stands in a notification once, with the latest of what is to be told.
func TestGatheredOnce(t *testing.T) {
	is := func(recipient int, s message.State) verdict {
		return verdict{recipient: recipient, outcome: router.Outcome{State: s}}
	}
	var g gathered
	g.add([]verdict{is(1, message.Deferred), is(2, message.Bounced), is(3, message.Deferred)})
	g.add([]verdict{is(4, message.Bounced), is(3, message.Expired)})
	g.add([]verdict{is(1, message.Deferred)})
	got := ""
	for _, v := range g.verdicts {
		got += fmt.Sprintf("%d %v, ", v.recipient, v.outcome.State)
	}
	if want := "2 bounced, 4 bounced, 3 expired, 1 deferred, "; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestDoubleBounce: what cannot be delivered from the null reverse-path is counted, and told to the postmaster where there is one, whose own
// mail is never told of.
func TestDoubleBounce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		to     string
		refuse string // recipients that are refused
		dsns   uint64
		double uint64
	}{
		"nobody is told":            {"", "RCPT", 1, 1},
		"the postmaster is told":    {"postmaster@home.example", "RCPT TO:<s@", 2, 1},
		"the postmaster is refused": {"Postmaster@home.example", "RCPT", 2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			home := listen(t, answering(func(_ *peer, line string) string {
				if strings.HasPrefix(line, c.refuse) {
					return "550 5.1.1 no such user"
				}
				return ""
			}))
			f := listen(t, answering(refusing))
			settings := settings(t, home.route("sender.example", "home.example"), f.route("*"))
			settings.DSN.DoubleBounceTo = c.to
			r := start(t, settings)
			r.send("s@sender.example", hello, "no@far.example")
			r.record("bounce", "s@sender.example", 1)
			if c.dsns == 2 && c.double == 1 {
				d := parseReport(t, home.next())
				if d.header.Get("Subject") != "Undelivered Notification" || d.header.Get("To") != "<"+c.to+">" || d.recipients[0].Get("Final-Recipient") != "rfc822; s@sender.example" ||
					d.kind != "message/rfc822" || !strings.Contains(d.returned, "no@far.example") {
					t.Errorf("%v, %v, %s: %s", d.header, d.recipients, d.kind, d.returned)
				}
			}
			r.awaitEmpty()
			home.none()
			if dsns, double := r.stats.dsns.Get(), r.stats.doubleBounces.Get(); dsns != c.dsns || double != c.double {
				t.Errorf("%d DSNs, want %d; %d double bounces, want %d", dsns, c.dsns, double, c.double)
			}
		})
	}
}

// TestNotificationTemplate: by the domain of the sender.
func TestNotificationTemplate(t *testing.T) {
	t.Parallel()
	f := listen(t, answering(refusing))
	c := settings(t, f.route("*"))
	file := filepath.Join(t.TempDir(), "de.txt")
	if err := os.WriteFile(file, []byte("Unzustellbar, für {{(index .Recipients 0).Address}}.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.DSN.Templates = []config.DSNTemplate{
		{Domains: []string{"*.sender.example", "sender.example"}, Subject: "Zurück: {{.Kind}}", From: "Post <post@sender.example>", Text: file, Language: "de"},
		{Domains: []string{"*"}, Subject: "Returned"},
		{Domains: []string{"exact.sender.example"}, Subject: "Exactly"},
	}
	r := start(t, c)
	for sender, want := range map[string][3]string{
		"s@sender.example":       {"=?utf-8?B?WnVyw7xjazogZmFpbGVk?=", `"Post" <post@sender.example>`, "Unzustellbar, für no@far.example.\r\n"},
		"s@b.A.sender.example":   {"=?utf-8?B?WnVyw7xjazogZmFpbGVk?=", `"Post" <post@sender.example>`, "Unzustellbar, für no@far.example.\r\n"},
		"s@exact.sender.example": {"Exactly", "Mail Delivery System <MAILER-DAEMON@mta.test.example>", ""},
		"s@example":              {"Returned", "Mail Delivery System <MAILER-DAEMON@mta.test.example>", ""},
	} {
		r.send(sender, hello, "no@far.example")
		d := parseReport(t, f.next())
		if d.header.Get("Subject") != want[0] || d.header.Get("From") != want[1] || want[2] != "" && d.human != want[2] {
			t.Errorf("%s: %v, %q", sender, d.header, d.human)
		}
	}
	r.awaitEmpty()
}

// TestReportsAreBounded is P7: every recipient is told of as its sender asked, at most once; there are no more notifications than accepted
// messages, and notifications make none.
func TestReportsAreBounded(t *testing.T) {
	t.Parallel()
	f := listen(t, answering(func(_ *peer, line string) string {
		if strings.HasPrefix(line, "RCPT TO:<deaf") {
			return "550 5.2.1 nobody hears you"
		}
		return refusing(nil, line)
	}))
	c := settings(t, f.route("*"))
	c.DSN.Gather = time.Hour
	r := start(t, c)
	random := rand.New(rand.NewPCG(7, 7))
	want, heard := map[string]bool{}, 0
	const messages = 60
	for i := range messages {
		from := [...]string{"hearing@sender.example", "hearing@sender.example", "deaf@sender.example", ""}[random.IntN(4)]
		var rcpts []string
		tell := false
		for j := range 1 + random.IntN(12) {
			address := fmt.Sprintf("%s%d.%d@d%d.example", [...]string{"yes", "no"}[random.IntN(2)], i, j, random.IntN(5))
			notify := [...]string{"", "", " NOTIFY=NEVER", " NOTIFY=FAILURE", " NOTIFY=DELAY"}[random.IntN(5)]
			rcpts = append(rcpts, "<"+address+">"+notify)
			if strings.HasPrefix(address, "no") && (notify == "" || notify == " NOTIFY=FAILURE") && from != "" {
				want[address], tell = from == "hearing@sender.example", true
			}
		}
		r.sendWith(from, "", hello, rcpts...)
		if tell && from == "hearing@sender.example" {
			heard++
		}
	}
	r.awaitEmpty()
	told := map[string]bool{}
	for range len(f.mail) {
		l := f.next()
		if !strings.HasPrefix(l.mail, "MAIL FROM:<>") || !strings.Contains(l.content, "multipart/report") {
			continue
		}
		heard--
		d := parseReport(t, l)
		for rcpt := range d.fieldsOf() {
			if told[rcpt] || !want[rcpt] {
				t.Errorf("told of %s again, or against the wish of its sender", rcpt)
			}
			told[rcpt] = true
		}
	}
	for rcpt, hears := range want {
		if hears && !told[rcpt] {
			t.Errorf("nobody was told of %s", rcpt)
		}
	}
	if dsns := r.stats.dsns.Get(); heard != 0 || dsns > messages {
		t.Errorf("%d DSNs for %d messages; %d too few arrived", dsns, messages, heard)
	}
}

// TestReturnMax: how much of a message comes back.
func TestReturnMax(t *testing.T) {
	t.Parallel()
	f := listen(t, answering(refusing))
	c := settings(t, f.route("*"))
	c.DSN.ReturnMax = 200 << 10
	r := start(t, c)
	for octets, kind := range map[int]string{150 << 10: "message/rfc822", 250 << 10: "text/rfc822-headers"} {
		content := text(1, octets)
		r.sendWith("s@sender.example", " RET=FULL", content, "<no@far.example>")
		if d := parseReport(t, f.next()); d.kind != kind || kind == "message/rfc822" && d.returned != content {
			t.Errorf("%d octets: %s of %d", octets, d.kind, len(d.returned))
		}
	}
	r.awaitEmpty()
}
