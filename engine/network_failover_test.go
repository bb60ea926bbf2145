package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestFailoverAtEachStage: whatever the first of two mail exchangers does at whatever stage, mail goes on by the second one where the first one is of
// no use: at once where that is safe. What the first one says of the mail is the word of the domain: a refusal bounces it, and where it is
// deferred, the next attempt asks the first one again, but for a first one that says nothing to the end of data. Each time is exact.
func TestFailoverAtEachStage(t *testing.T) {
	const busy, later, no = "421 4.3.2 busy", "450 4.2.0 later", "554 5.7.1 no"
	for name, c := range map[string]struct {
		verb, reply string
		want        string // connections to the first and to the second in 20 minutes, and what became of it
	}{
		"connection, dead":        {"dead", "", "[] [0s] delivery 250 2.0.0"},
		"connection, 421":         {"", busy, "[0s] [0s] delivery 250 2.0.0"},
		"connection, 4xx":         {"", later, "[0s] [0s] delivery 250 2.0.0"},
		"connection, 5xx":         {"", no, "[0s] [0s] delivery 250 2.0.0"},
		"connection, lost":        {"", hangUp, "[0s] [0s] delivery 250 2.0.0"},
		"connection, silent":      {"", silence, "[0s] [5m0s] delivery 250 2.0.0"},
		"EHLO, 421":               {"EHLO", busy, "[0s] [0s] delivery 250 2.0.0"},
		"EHLO, 4xx":               {"EHLO", later, "[0s] [0s] delivery 250 2.0.0"},
		"EHLO and HELO, 5xx":      {"EHLO HELO", no, "[0s] [0s] delivery 250 2.0.0"},
		"EHLO, lost":              {"EHLO", hangUp, "[0s] [0s] delivery 250 2.0.0"},
		"EHLO, silent":            {"EHLO", silence, "[0s] [5m0s] delivery 250 2.0.0"},
		"MAIL, 421":               {"MAIL", busy, "[0s] [0s] delivery 250 2.0.0"},
		"MAIL, 4xx":               {"MAIL", later, "[0s 5m0s 15m0s] [] deferral 450 4.2.0"},
		"MAIL, 5xx":               {"MAIL", no, "[0s] [] bounce 554 5.7.1"},
		"MAIL, lost":              {"MAIL", hangUp, "[0s 0s] [0s] delivery 250 2.0.0"},
		"MAIL, silent":            {"MAIL", silence, "[0s 5m0s] [10m0s] delivery 250 2.0.0"},
		"RCPT, 421":               {"RCPT", busy, "[0s] [0s] delivery 250 2.0.0"},
		"RCPT, 4xx":               {"RCPT", later, "[0s 5m0s 15m0s] [] deferral 450 4.2.0"},
		"RCPT, 5xx":               {"RCPT", no, "[0s] [] bounce 554 5.7.1"},
		"RCPT, lost":              {"RCPT", hangUp, "[0s 0s] [0s] delivery 250 2.0.0"},
		"RCPT, silent":            {"RCPT", silence, "[0s 5m0s] [10m0s] delivery 250 2.0.0"},
		"DATA, 421":               {"DATA", busy, "[0s] [0s] delivery 250 2.0.0"},
		"DATA, 4xx":               {"DATA", later, "[0s 5m0s 15m0s] [] deferral 450 4.2.0"},
		"DATA, 5xx":               {"DATA", no, "[0s] [] bounce 554 5.7.1"},
		"DATA, lost":              {"DATA", hangUp, "[0s 0s] [0s] delivery 250 2.0.0"},
		"DATA, silent":            {"DATA", silence, "[0s 2m0s] [4m0s] delivery 250 2.0.0"},
		"the end of data, 421":    {".", busy, "[0s] [0s] delivery 250 2.0.0"},
		"the end of data, 4xx":    {".", later, "[0s 5m0s 15m0s] [] deferral 450 4.2.0"},
		"the end of data, 5xx":    {".", no, "[0s] [] bounce 554 5.7.1"},
		"the end of data, lost":   {".", hangUp, "[0s] [5m0s] delivery 250 2.0.0"},
		"the end of data, silent": {".", silence, "[0s] [15m0s] delivery 250 2.0.0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t, false)
			play := script{}
			for verb := range strings.FieldsSeq(c.verb) {
				play[verb] = c.reply
			}
			if c.verb == "" {
				play[""] = c.reply
			}
			first := n.add("mx1.far.example", "127.0.1.1", play)
			if c.verb == "dead" {
				first.close()
			}
			second := n.add("mx2.far.example", "127.0.1.2", nil)
			n.add("sender.example", "127.0.1.3", nil)
			n.zone.add(t, "far.example. 300 IN MX 10 mx1.far.example.", "far.example. 300 IN MX 20 mx2.far.example.")
			n.serve()
			n.submit(nil, "a@far.example")
			n.pass(20*time.Minute, func() bool { return len(n.records("delivery", "bounce")) > 0 })
			end := "deferred"
			for _, e := range n.records("delivery", "bounce", "deferral") {
				if e.Recipient == "a@far.example" {
					end = fmt.Sprintf("%s %d %s", e.Type, e.Code, e.Enhanced)
				}
			}
			if got := fmt.Sprintf("%v %v %s", first.called(), second.called(), end); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// TestDoubtGoesToTheNextHost: a host that loses the connection behind the end of data may have the mail, and may lose it so with each copy. The next attempt,
// at its time, asks the others first.
func TestDoubtGoesToTheNextHost(t *testing.T) {
	const lost = "lost"
	for name, c := range map[string]struct {
		preferences [2]int
		does        [2]string // lost, dead, or all is well
		restart     bool
		want        string // connections to both in 40 minutes, and copies that they have
	}{
		"a backup":                    {[2]int{10, 20}, [2]string{lost, ""}, false, "[0s] [5m0s], 1"},
		"an equal":                    {[2]int{10, 10}, [2]string{lost, lost}, false, "[5m0s 35m0s] [0s 15m0s], 0"},
		"known after a restart":       {[2]int{10, 20}, [2]string{lost, ""}, true, "[0s] [5m0s], 1"},
		"a backup that is dead":       {[2]int{10, 20}, [2]string{lost, dead}, false, "[0s 5m0s 15m0s 35m0s] [], 0"},
		"each has lost it":            {[2]int{10, 20}, [2]string{lost, lost}, false, "[0s 15m0s] [5m0s 35m0s], 0"},
		"the only one, of two names":  {[2]int{10, 0}, [2]string{lost, ""}, false, "[0s 5m0s 15m0s 35m0s] [], 0"},
		"the backup, as one was dead": {[2]int{10, 20}, [2]string{dead, lost}, false, "[] [0s 5m0s 15m0s 35m0s], 0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t, false)
			var hosts []*host
			for i, does := range c.does {
				play := script{}
				if does == lost {
					play["."] = hangUp
				}
				mx := fmt.Sprintf("mx%d.far.example", i+1)
				h := n.add(mx, fmt.Sprintf("127.0.1.%d", i+1), play)
				if does == dead {
					h.close()
				}
				hosts = append(hosts, h)
				if c.preferences[i] == 0 { // it is the first one, too
					n.zone.add(t, "other.far.example. 300 IN A 127.0.1.1")
					mx = "other.far.example"
				}
				n.zone.add(t, fmt.Sprintf("far.example. 300 IN MX %d %s.", c.preferences[i], mx))
			}
			n.add("sender.example", "127.0.1.3", nil)
			n.serve()
			n.submit(nil, "a@far.example")
			if n.pass(time.Minute, func() bool { return false }); c.restart {
				n.stop()
				n.serve()
			}
			n.pass(39*time.Minute, func() bool { return false })
			if got := fmt.Sprintf("%v %v, %d", hosts[0].called(), hosts[1].called(), len(n.records("delivery"))); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}
