package engine

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailrace/proto/message"
)

// soon is a time at which something is to happen while a test waits.
func soon(d time.Duration) int64 { return time.Now().Add(d).UnixNano() }

// TestHold: a message waits for its release, is listed as waiting for it, and waits on after a restart; then it goes at the first attempt.
func TestHold(t *testing.T) {
	t.Parallel()
	f := listen(t, polite)
	s := settings(t, f.route("*"))
	s.Queue.HoldMax = 2 * time.Hour
	r := start(t, s)
	release := soon(time.Hour)
	id := r.inject(func(m *message.Message) { m.Wishes = &message.Wishes{Release: release} }, "s@sender.example", hello, "a@far.example", "b@far.example")
	if e := r.record("hold", "b@far.example", 1); e.ID != id.String() || e.Attempt != 0 || !strings.Contains(e.Text, "held until") {
		t.Errorf("%+v", e)
	}
	held := func() {
		t.Helper()
		r.await("the message to be listed", func() bool {
			q := r.queue()
			return len(q) == 1 && q[0].Recipients[1].State == "deferred"
		})
		for _, rcpt := range r.queue()[0].Recipients {
			if rcpt.State != "deferred" || rcpt.Attempts != 0 || rcpt.Due.UnixNano() != release || !strings.Contains(rcpt.Reply, "held until") {
				t.Errorf("%+v", rcpt)
			}
		}
	}
	held()
	r.stop()
	r = start(t, s)
	held()
	if n := len(r.records("hold", "deferral")); n != 2 || r.budget.Used() != 0 || f.connections() != 0 {
		t.Errorf("%d records, %d octets held in memory, %d connections", n, r.budget.Used(), f.connections())
	}
	r.inject(func(m *message.Message) { m.Wishes = &message.Wishes{Release: soon(100 * time.Millisecond)} }, "s@sender.example", hello, "c@far.example")
	if l := f.next(); !slices.Equal(l.to, []string{"c@far.example"}) {
		t.Errorf("%+v", l)
	}
	if e := r.record("delivery", "c@far.example", 1); e.Attempt != 1 {
		t.Errorf("%+v", e)
	}
	r.sendWith("s@sender.example", " HOLDFOR=3600", hello, "<d@far.example>")
	r.record("hold", "d@far.example", 1)
	f.none()
}

// TestDeadlineOnTheWire: what is left until the deadline goes to hosts that offer DELIVERBY, with priority and trace; what is to be returned goes
// to no others, nor to those that ask for more time.
func TestDeadlineOnTheWire(t *testing.T) {
	for name, c := range map[string]struct {
		offers string // of the host
		wishes message.Wishes
		left   time.Duration
		mail   string // a pattern for what stands behind the reverse-path; or the code and words of the bounce
		report string // action of the report for a@, if any
	}{
		"returned":                {"DELIVERBY", message.Wishes{ByMode: message.ByReturn}, time.Hour, ` BY=(\d+);R`, ""},
		"returned, least time":    {"DELIVERBY 60", message.Wishes{ByMode: message.ByReturn}, time.Hour, ` BY=(\d+);R`, ""},
		"returned, too late":      {"DELIVERBY 7200", message.Wishes{ByMode: message.ByReturn}, time.Hour, "5.4.7 7200 s", "failed"},
		"returned, not offered":   {"DSN", message.Wishes{ByMode: message.ByReturn}, time.Hour, "5.4.7 does not offer DELIVERBY", "failed"},
		"notified":                {"DELIVERBY 7200", message.Wishes{ByMode: message.ByNotify}, time.Hour, ` BY=(\d+);N`, ""},
		"notified, not offered":   {"DSN", message.Wishes{ByMode: message.ByNotify}, time.Hour, ``, "relayed"},
		"traced":                  {"DELIVERBY", message.Wishes{ByMode: message.ByReturn, ByTrace: true}, time.Hour, ` BY=(\d+);RT`, "relayed"},
		"traced and notified":     {"DELIVERBY", message.Wishes{ByMode: message.ByNotify, ByTrace: true}, time.Hour, ` BY=(\d+);NT`, "relayed"},
		"late before we got it":   {"DELIVERBY", message.Wishes{ByMode: message.ByNotify}, -time.Hour, ` BY=-(\d+);N`, ""},
		"priority":                {"MT-PRIORITY MIXER", message.Wishes{Priority: -4}, 0, ` MT-PRIORITY=-4`, ""},
		"priority, not offered":   {"DSN", message.Wishes{Priority: 9}, 0, ``, ""},
		"only released by itself": {"DELIVERBY", message.Wishes{Release: 1}, 0, ``, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := listen(t, func(p *peer) { p.receive(manners{extensions: append(slices.Clone(everything), c.offers)}) })
			home := listen(t, polite)
			r := start(t, settings(t, f.route("far.example"), home.route("*")))
			r.inject(func(m *message.Message) {
				w := c.wishes
				if w.ByMode != message.ByNone {
					w.Deadline = soon(c.left)
				}
				m.Wishes = &w
				m.Recipients[1].Notify = message.NotifyNever
			}, "s@sender.example", hello, "a@far.example", "b@far.example")
			if code, words, bounced := strings.Cut(c.mail, " "); bounced && code != "" {
				if e := r.record("bounce", "a@far.example", 1); e.Enhanced != code || !strings.Contains(e.Text, words) {
					t.Errorf("%+v", e)
				}
				f.none()
			} else {
				l := f.next()
				found := regexp.MustCompile(`^MAIL FROM:<s@sender.example> SIZE=\d+` + c.mail + `$`).FindStringSubmatch(l.mail)
				if found == nil || len(l.to) != 2 {
					t.Fatalf("%q for %v", l.mail, l.to)
				}
				if len(found) > 1 {
					if left, _ := strconv.Atoi(found[1]); left < 3500 || left > 3700 {
						t.Errorf("%q", l.mail)
					}
				}
			}
			if c.report != "" {
				d := parseReport(t, home.next())
				by := d.fieldsOf()
				if len(by) != 1 || by["a@far.example"].Get("Action") != c.report {
					t.Errorf("report: %v", by)
				}
			}
			r.awaitEmpty()
			home.none()
		})
	}
}

// TestDeadlinePasses while the host defers: the message is returned with a failure, or its delay is reported once, also across a restart, and it
// goes on. Who does not want to hear of delays does not.
func TestDeadlinePasses(t *testing.T) {
	for _, mode := range []message.ByMode{message.ByReturn, message.ByNotify} {
		t.Run(fmt.Sprint("mode ", mode), func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t, false)
			far := n.addWith("mx.far.example", "127.0.1.1", manners{extensions: append(slices.Clone(everything), "DELIVERBY")}, script{"RCPT": "451 4.2.0 later"})
			home := n.add("sender.example", "127.0.1.2", nil)
			n.zone.add(t, "far.example. 300 IN MX 10 mx.far.example.")
			n.serve()
			n.submit(func(m *message.Message) {
				m.Wishes = &message.Wishes{Deadline: m.Arrived + int64(time.Hour), ByMode: mode}
				m.Recipients[1].Notify = message.NotifyFailure
			}, "a@far.example", "b@far.example")
			want := map[message.ByMode]struct{ event, action, status string }{
				message.ByReturn: {"bounce", "failed", "5.4.7"}, message.ByNotify: {"delay", "delayed", "4.4.7"},
			}[mode]
			e := n.expect(want.event, "b@far.example")
			if e.Enhanced != want.status || !strings.Contains(e.Text, "451 4.2.0 later") {
				t.Errorf("%+v", e)
			}
			if late := n.clock.Now().Sub(n.begin).Truncate(time.Second); late != time.Hour {
				t.Errorf("seen to after %v", late)
			}
			by := map[string]string{}
			for len(by) < map[message.ByMode]int{message.ByReturn: 2, message.ByNotify: 1}[mode] {
				d := parseReport(t, n.mailAt(home))
				for rcpt, group := range d.fieldsOf() {
					by[rcpt] = group.Get("Action")
					if group.Get("Action") != want.action || group.Get("Status") != want.status || (group.Get("Will-Retry-Until") != "") != (mode == message.ByNotify) {
						t.Errorf("%v", group)
					}
				}
			}
			if by["a@far.example"] == "" {
				t.Errorf("reports for %v", by)
			}
			tried := []time.Duration{0, 5 * time.Minute, 15 * time.Minute, 35 * time.Minute}
			if mode == message.ByNotify {
				n.stop()
				n.serve()
				n.pass(5*time.Hour, nil)
				tried = append(tried, 75*time.Minute, 155*time.Minute, 315*time.Minute)
				if n := len(n.records("delay")); n != 2 {
					t.Errorf("%d delays", n)
				}
			} else {
				n.awaitEmpty()
			}
			if times := far.called(); !slices.Equal(times, tried) {
				t.Errorf("attempts after %v, want %v", times, tried)
			}
			home.none()
		})
	}
}

// TestReportIsAsUrgent as what it reports. RFC 6710 §4.4
func TestReportIsAsUrgent(t *testing.T) {
	t.Parallel()
	f := listen(t, func(p *peer) { p.receive(manners{extensions: []string{"MT-PRIORITY"}, answer: refusing}) })
	r := start(t, settings(t, f.route("*")))
	r.inject(func(m *message.Message) { m.Wishes = &message.Wishes{Priority: 5} }, "s@sender.example", hello, "no@far.example")
	if l := f.next(); l.mail != "MAIL FROM:<> MT-PRIORITY=5" {
		t.Errorf("%q", l.mail)
	}
	r.awaitEmpty()
}
