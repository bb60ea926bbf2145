package ingress

import (
	"fmt"
	"strings"
	"testing"

	"mailrace/proto/message"
)

// TestA8EnvelopesAreCounted: what recipients and their ORCPT take in memory counts, as content does; with the memory used up further ones get 452
// 4.3.1, those that are there get their message, and a transaction that is over leaves nothing.
func TestA8EnvelopesAreCounted(t *testing.T) {
	t.Parallel()
	const budget = 1 << 20
	r := open(t, func(d *Door, _ *shelf) { d.Budget = message.NewBudget(budget) })
	const octets = 480
	rcpt := "RCPT TO:<%d@far.example> ORCPT=rfc822;" + strings.Repeat("x", octets) + "\r\n"
	var open []*client
	accepted, full := 0, false
	for len(open) < 2*budget/octets/900 && !full {
		c := r.greet()
		c.say("MAIL FROM:<s@sender.example>", 250)
		var lines strings.Builder
		for i := range 900 {
			fmt.Fprintf(&lines, rcpt, i)
		}
		c.send(lines.String())
		for range 900 {
			reply, err := c.reply()
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(reply, "452 4.3.1 ") {
				full = true
				continue
			}
			accepted++
		}
		open = append(open, c)
	}
	if !full || accepted*octets > budget {
		t.Errorf("%d recipients with %d octets each are taken, full %v, with %d octets of memory", accepted, octets, full, budget)
	}
	for _, c := range open[1:] {
		c.say("RSET", 250)
	}
	open[0].say("DATA", 354)
	open[0].say("Subject: x\r\n.", 250)
	if m := receive(t, r.accepted); len(m.Recipients) != 900 || len(m.DSN.Originals) != 900 {
		t.Errorf("%d recipients, %d of them with ORCPT", len(m.Recipients), len(m.DSN.Originals))
	}
	r.await("free memory", func() bool { return r.door.Budget.Used() == 0 })
	r.onLoop(func(s *session) {
		if kept := cap(s.tx.arena) + 8*cap(s.tx.ends) + cap(s.tx.notify); kept > 16<<10 || s.tx.dsn != nil {
			t.Errorf("a session between messages keeps %d octets", kept)
		}
	})
	for _, c := range open {
		c.say("MAIL FROM:<s@sender.example>", 250)
		c.send(fmt.Sprintf(rcpt, 1))
		c.expect(250)
		c.Close()
	}
	r.awaitQuiet()
}
