package engine

import (
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"testing"
	"time"
)

// The sorts of host on the way back.
var (
	sevenBits = []string{"PIPELINING"}
	withSize  = []string{"PIPELINING", "SIZE 100000000"}
	knowsDSN  = append(slices.Clone(everything), "DSN")
)

// TestReportsOfEachForm: what the sender of a message to one recipient is told, when, and in which form: by what it asked for, what the next host offers
// and says, and what the host on the way back offers.
func TestReportsOfEachForm(t *testing.T) {
	const (
		plain, wide = "<a@far.example>", "<\u00fc@far.example>"
		no, slow    = "550 5.1.1 no such user", "451 4.2.2 mailbox full"
		all         = " NOTIFY=SUCCESS,FAILURE,DELAY"
		hdrs, whole = "text/rfc822-headers", "message/rfc822"
		never       = "none"
	)
	day := 24 * time.Hour
	delayed := 5*time.Hour + 15*time.Minute // the first attempt that fails behind [dsn] delay_after
	for name, c := range map[string]struct {
		mail, rcpt string // MAIL behind the reverse-path, and RCPT behind "TO:"
		eightBit   bool   // the content
		offers     []string
		says       string // to RCPT
		back       []string
		want       string // action, status, type of what is returned, and after how long; or none
		fields     string // of the report for machines, and their values
	}{
		"success":                      {"", plain + all, false, everything, "", everything, "relayed 2.0.0 " + hdrs + " 0s", "Remote-Mta: dns; mx.far.example"},
		"success, of 8 bits, in full":  {" RET=FULL BODY=8BITMIME", plain + all, true, everything, "", everything, "relayed 2.0.0 " + hdrs + " 0s", ""},
		"success, to a host with DSN":  {"", plain + all, false, knowsDSN, "", everything, never, ""},
		"success, nobody asked":        {"", plain, false, everything, "", everything, never, ""},
		"success, only failure asked":  {"", plain + " NOTIFY=FAILURE", false, everything, "", everything, never, ""},
		"success, only delay asked":    {"", plain + " NOTIFY=DELAY", false, everything, "", everything, never, ""},
		"success, never":               {"", plain + " NOTIFY=NEVER", false, everything, "", everything, never, ""},
		"success, with names":          {" ENVID=job+2B7 RET=HDRS", plain + " NOTIFY=SUCCESS ORCPT=rfc822;A+2Bb@near.example", false, everything, "", everything, "relayed 2.0.0 " + hdrs + " 0s", "Original-Envelope-Id: job+7|Original-Recipient: rfc822; A+b@near.example"},
		"failure":                      {"", plain, false, everything, no, everything, "failed 5.1.1 " + hdrs + " 0s", "Diagnostic-Code: smtp; " + no + "|Final-Recipient: rfc822; a@far.example"},
		"failure, at a host with DSN":  {"", plain, false, knowsDSN, no, everything, "failed 5.1.1 " + hdrs + " 0s", ""},
		"failure, headers":             {" RET=HDRS", plain, false, everything, no, everything, "failed 5.1.1 " + hdrs + " 0s", ""},
		"failure, in full":             {" RET=FULL ENVID=x", plain, false, everything, no, everything, "failed 5.1.1 " + whole + " 0s", "Original-Envelope-Id: x"},
		"failure, only success asked":  {"", plain + " NOTIFY=SUCCESS", false, everything, no, everything, never, ""},
		"failure, only delay asked":    {"", plain + " NOTIFY=DELAY", false, everything, no, everything, never, ""},
		"failure, never":               {"", plain + " NOTIFY=NEVER", false, everything, no, everything, never, ""},
		"failure, 8 bits in full":      {" RET=FULL BODY=8BITMIME", plain, true, everything, no, everything, "failed 5.1.1 " + whole + " 0s", ""},
		"failure, 8 bits, 7-bit back":  {" RET=FULL BODY=8BITMIME ENVID=y", plain, true, everything, no, sevenBits, "failed 5.1.1 " + hdrs + " 0s", "Original-Envelope-Id: y"},
		"failure, headers, 7-bit back": {" RET=HDRS BODY=8BITMIME", plain, true, everything, no, withSize, "failed 5.1.1 " + hdrs + " 0s", ""},
		"failure, 7 bits in full":      {" RET=FULL", plain, false, everything, no, sevenBits, "failed 5.1.1 " + whole + " 0s", ""},
		"failure, original recipient":  {"", plain + " ORCPT=rfc822;Old+3Dx@near.example", false, everything, no, everything, "failed 5.1.1 " + hdrs + " 0s", "Original-Recipient: rfc822; Old=x@near.example"},
		"failure, utf-8 original":      {" SMTPUTF8", plain + ` ORCPT=utf-8;\x{FC}@near.example`, false, everything, no, everything, "failed 5.1.1 " + hdrs + " 0s", `Original-Recipient: utf-8; \x{FC}@near.example`},
		"failure, wide":                {" SMTPUTF8", wide, false, everything, no, everything, "failed 5.1.1 " + hdrs + " 0s", "Final-Recipient: utf-8; \u00fc@far.example"},
		"failure, wide, 7-bit back":    {" SMTPUTF8", wide, false, everything, no, sevenBits, "failed 5.1.1 " + hdrs + " 0s", "Final-Recipient: utf-8; \u00fc@far.example"},
		"failure, wide and original":   {" SMTPUTF8", wide + " ORCPT=utf-8;\u00e4@near.example", false, everything, no, everything, "failed 5.1.1 " + hdrs + " 0s", "Original-Recipient: utf-8; \u00e4@near.example"},
		"delay":                        {"", plain + " NOTIFY=DELAY", false, everything, slow, everything, "delayed 4.2.2 " + hdrs + " " + delayed.String(), "Diagnostic-Code: smtp; " + slow},
		"delay, in full":               {" RET=FULL", plain + " NOTIFY=DELAY", false, everything, slow, everything, "delayed 4.2.2 " + hdrs + " " + delayed.String(), ""},
		"expiry":                       {"", plain, false, everything, slow, everything, "failed 4.2.2 " + hdrs + " " + (5 * day).String(), "Diagnostic-Code: smtp; " + slow},
		"expiry, in full":              {" RET=FULL", plain + " NOTIFY=FAILURE", false, everything, slow, everything, "failed 4.2.2 " + whole + " " + (5 * day).String(), ""},
		"expiry, never":                {"", plain + " NOTIFY=NEVER", false, everything, slow, everything, never, ""},
		"expiry, only success asked":   {"", plain + " NOTIFY=SUCCESS", false, everything, slow, everything, never, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t, false)
			play := script{}
			if c.says != "" {
				play["RCPT"] = c.says
			}
			n.addWith("mx.far.example", "127.0.1.1", manners{extensions: c.offers}, play)
			home := n.addWith("sender.example", "127.0.1.2", manners{extensions: c.back}, nil)
			n.zone.add(t, "far.example. 300 IN MX 10 mx.far.example.")
			n.serve()
			content := hello
			if c.eightBit {
				content = eightBit
			}
			n.sendWith("s@sender.example", c.mail, content, c.rcpt)
			n.pass(6*day, func() bool { return len(home.mail) > 0 })
			got, wanted := never, strings.SplitAfterN(c.want, " ", 4)
			if len(home.mail) > 0 {
				at := home.called()[0]
				d := parseReport(t, home.next())
				if len(d.recipients) != 1 {
					t.Fatalf("%d recipients: %v", len(d.recipients), d.recipients)
				}
				group := d.recipients[0]
				got = fmt.Sprintf("%s %s %s %v", group.Get("Action"), group.Get("Status"), d.kind, at)
				d.checkFields(t, c.fields)
				if header, _, _ := strings.Cut(content, "\r\n\r\n"); d.kind == whole && d.returned != content || d.kind == hdrs && d.returned != header+"\r\n" {
					t.Errorf("returned %q", d.returned)
				}
				until, err := mail.ParseDate(group.Get("Will-Retry-Until"))
				if end := n.begin.Add(5 * day); len(wanted) > 0 && (wanted[0] == "delayed ") != (err == nil && until.Equal(end)) {
					t.Errorf("attempts until %v, want %v: %v", until, end, err)
				}
			}
			if got != c.want {
				t.Errorf("%s, want %s: %+v", got, c.want, n.records())
			}
			if wanted[0] == "delayed " {
				n.pass(6*day, nil) // it expires, and nobody asked to hear of that
			}
			n.awaitEmpty()
			home.none()
			if got := n.stats.doubleBounces.Get(); got != 0 {
				t.Errorf("%d double bounces", got)
			}
		})
	}
}

// checkFields looks for "Name: value" among the fields of the message and of its only recipient, divided by "|". Folded white space is one space.
func (n *notification) checkFields(t *testing.T, want string) {
	t.Helper()
	if want == "" {
		return
	}
	for field := range strings.SplitSeq(want, "|") {
		name, value, _ := strings.Cut(field, ": ")
		if got := n.message.Get(name) + n.recipients[0].Get(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
}

// TestNobodyIsTold: mail from the null reverse-path that fails, and a notification that does, end where they are, and are counted (P7, RFC 5321 §4.5.5).
func TestNobodyIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		from string
		back string // what the host of the sender says to RCPT
		want string // records of bounces and expiries, and double bounces
	}{
		"null reverse-path":            {"", "", "bounce 5.1.1, 1"},
		"a notification is refused":    {"s@sender.example", "550 5.1.1 moved", "bounce 5.1.1, bounce 5.1.1, 1"},
		"a notification expires":       {"s@sender.example", "450 4.2.0 later", "bounce 5.1.1, expiry 4.2.0, 1"},
		"a notification comes through": {"s@sender.example", "", "bounce 5.1.1, 0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t, false)
			n.add("far.example", "127.0.1.1", script{"RCPT": "550 5.1.1 no such user"})
			play := script{}
			if c.back != "" {
				play["RCPT"] = c.back
			}
			home := n.add("sender.example", "127.0.1.2", play)
			n.serve()
			n.sendWith(c.from, "", hello, "<a@far.example> NOTIFY=SUCCESS,FAILURE,DELAY")
			n.pass(6*24*time.Hour, nil)
			got := ""
			for _, e := range n.records("bounce", "expiry") {
				got += e.Type + " " + e.Enhanced + ", "
			}
			if got += fmt.Sprint(n.stats.doubleBounces.Get()); got != c.want {
				t.Errorf("%s, want %s: %+v", got, c.want, n.records())
			}
			if reports, want := len(home.mail), len(n.records("delivery")); reports != want || c.from == "" && reports > 0 {
				t.Errorf("%d notifications, want %d", reports, want)
			}
			n.awaitEmpty()
		})
	}
}
