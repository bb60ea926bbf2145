package dialog

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// forms are the verbs, and the parameters and keywords of extensions, that the suite must have in good and bad forms. good and bad are what a line
// of a client looks like; bad = "" says that what is good for one server is bad for another, and the dialogs take both.
var forms = []struct{ name, good, bad string }{
	{"EHLO", `EHLO `, `EHLO\b`},
	{"HELO", `HELO `, `HELO\b`},
	{"MAIL", `MAIL FROM:<`, `MAIL`},
	{"RCPT", `RCPT TO:<`, `RCPT`},
	{"DATA", `DATA$`, `DATA`},
	{"BDAT", `BDAT \d+( LAST)?$`, `BDAT`},
	{"RSET", `RSET$`, ""},
	{"NOOP", `NOOP`, `NOOP\x00`},
	{"QUIT", `QUIT$`, ""},
	{"HELP", "", ""},
	{"VRFY", "", `VRFY`},
	{"EXPN", "", ""},
	{"ETRN", "", `ETRN`},
	{"TURN", "", `TURN`},
	{"STARTTLS", "", `STARTTLS`},
	{"XCLIENT", "", `XCLIENT`},
	{"XFORWARD", "", `XFORWARD`},
	{"PROXY", "", `PROXY`},
	{"AUTH", `AUTH PLAIN `, `AUTH\b`},
	{"AUTH LOGIN", `AUTH LOGIN`, ""},
	{"AUTH of MAIL", `MAIL .* AUTH=`, `MAIL .* AUTH=`},
	{"SIZE", `MAIL .* SIZE=`, `MAIL .* SIZE=`},
	{"8BITMIME", `MAIL .* BODY=8BITMIME`, `MAIL .* BODY=`},
	{"BINARYMIME", `MAIL .* BODY=BINARYMIME`, `MAIL .* BODY=BINARYMIME`},
	{"SMTPUTF8", `MAIL .* SMTPUTF8`, `MAIL .* SMTPUTF8=`},
	{"RET", `MAIL .* RET=`, `MAIL .* RET\b`},
	{"ENVID", `MAIL .* ENVID=`, `MAIL .* ENVID=`},
	{"NOTIFY", `RCPT .* NOTIFY=`, `RCPT .* NOTIFY=`},
	{"ORCPT", `RCPT .* ORCPT=`, `RCPT .* ORCPT=`},
	{"HOLDFOR", `MAIL .* HOLDFOR=\d`, `MAIL .* HOLDFOR\b`},
	{"HOLDUNTIL", `MAIL .* HOLDUNTIL=\d`, `MAIL .* HOLDUNTIL=`},
	{"BY", `MAIL .* BY=-?\d+;`, `MAIL .* BY=`},
	{"MT-PRIORITY", `MAIL .* MT-PRIORITY=-?\d`, `MAIL .* MT-PRIORITY=`},
	{"REQUIRETLS", `MAIL .* REQUIRETLS$`, `MAIL .* REQUIRETLS\b`},
}

// keywords are the extensions that some dialog needs.
var keywords = []string{"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "BINARYMIME", "STARTTLS", "AUTH", "REQUIRETLS", "LIMITS", "FUTURERELEASE", "DELIVERBY",
	"MT-PRIORITY", "ENHANCEDSTATUSCODES"}

// TestEveryVerbHasItsForms: each verb and each parameter is said as it should be and may be taken, and as it should not be and is refused.
func TestEveryVerbHasItsForms(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range forms {
		line := func(pattern string) *regexp.Regexp { return regexp.MustCompile(`(?mi)^` + pattern) }
		said, good, bad := line(strings.Fields(f.name)[0]), f.good == "", f.bad == ""
		mentioned := f.good != "" || f.bad != ""
		for i := range all {
			d := &all[i]
			for j, s := range d.steps {
				if s.action != actionSend {
					continue
				}
				sent := strings.ReplaceAll(spelled(s.text), "\r\n", "\n")
				mentioned = mentioned || said.MatchString(sent)
				taken, refused := d.after(j)
				good = good || taken && line(f.good).MatchString(sent)
				bad = bad || refused && line(f.bad).MatchString(sent)
			}
		}
		if !good || !bad || !mentioned {
			t.Errorf("%s: a good form %v, a bad one %v, said at all %v", f.name, good, bad, mentioned)
		}
	}
	for _, k := range keywords {
		if !slices.ContainsFunc(all, func(d Dialog) bool {
			return slices.ContainsFunc(d.needs, func(need string) bool { return strings.Fields(need)[0] == k })
		}) {
			t.Errorf("no dialog needs %s", k)
		}
	}
}

// spelled is a text with names in place of its variables.
func spelled(t text) string {
	values := make(map[string]string)
	for _, name := range variables {
		values[name] = "1"
	}
	p, err := t.expand(nil, values)
	if err != nil {
		return ""
	}
	return string(p)
}

// after says whether the reply to the step may be a good one, and whether it must be a bad one.
func (d *Dialog) after(step int) (taken, refused bool) {
	for _, s := range d.steps[step+1:] {
		if s.action != actionExpect {
			if s.action == actionSend {
				continue // one group
			}
			return false, false
		}
		refused = true
		for _, code := range s.expect.codes {
			taken = taken || code[0] == '2' || code[0] == '3'
			refused = refused && code[0] > '3'
		}
		return taken, refused
	}
	return false, false
}
