package engine

import (
	"net/mail"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestDelayNotice: who asked for it is told that a message takes long: once, also by a node that was stopped in between, and with what the
// host said.
func TestDelayNotice(t *testing.T) {
	t.Parallel()
	var up atomic.Bool
	f := listen(t, answering(func(_ *peer, line string) string {
		if strings.HasPrefix(line, "RCPT TO:<slow") && !up.Load() {
			return "451 4.2.2 mailbox full"
		}
		return ""
	}))
	c := settings(t, f.route("*"))
	c.DSN.DelayAfter = []time.Duration{20 * time.Millisecond, time.Hour}
	r := start(t, c)
	r.sendWith("s@sender.example", "", hello, "<slow1@far.example> NOTIFY=DELAY,FAILURE", "<slow2@far.example>", "<slow3@far.example> NOTIFY=DELAY")
	d := parseReport(t, f.next())
	by := d.fieldsOf()
	if len(by) != 2 || !strings.HasPrefix(d.header.Get("Subject"), "Delayed Mail") || d.kind != "text/rfc822-headers" {
		t.Errorf("%v: %v", d.header, by)
	}
	for _, rcpt := range []string{"slow1@far.example", "slow3@far.example"} {
		group := by[rcpt]
		until, err := mail.ParseDate(group.Get("Will-Retry-Until"))
		if group.Get("Action") != "delayed" || group.Get("Status") != "4.2.2" || !strings.Contains(group.Get("Diagnostic-Code"), "451 4.2.2 mailbox full") || err != nil || time.Until(until) < 50*time.Minute {
			t.Errorf("%s: %v, %v", rcpt, group, err)
		}
	}
	tried := len(r.records("deferral"))
	r.record("deferral", "slow1@far.example", tried/3+5)
	r.stop()
	r = start(t, c)
	r.record("deferral", "slow1@far.example", len(r.records("deferral"))/3+5)
	up.Store(true)
	if got := f.next(); len(got.to) != 3 {
		t.Errorf("%q", got.to)
	}
	r.awaitEmpty()
	f.none()
	if got := r.stats.dsns.Get(); got != 0 {
		t.Errorf("%d notifications after the restart", got)
	}
}

// TestDelayNoticeForAll: also for those who did not say, if the operator wants it; never to a null reverse-path.
func TestDelayNoticeForAll(t *testing.T) {
	t.Parallel()
	f := listen(t, answering(func(_ *peer, line string) string {
		if strings.HasPrefix(line, "RCPT TO:<slow") {
			return "451 4.3.0 not today"
		}
		return ""
	}))
	c := settings(t, f.route("*"))
	c.DSN.DelayAfter, c.DSN.DelayToAll = []time.Duration{20 * time.Millisecond}, true
	r := start(t, c)
	r.send("", hello, "slow@far.example")
	r.record("deferral", "slow@far.example", 5)
	r.send("s@sender.example", hello, "slow2@far.example")
	if d := parseReport(t, f.next()); len(d.recipients) != 1 || d.recipients[0].Get("Final-Recipient") != "rfc822; slow2@far.example" || d.header.Get("To") != "<s@sender.example>" {
		t.Errorf("%v, %v", d.header, d.recipients)
	}
	r.record("deferral", "slow2@far.example", 10)
	f.none()
}
