// Package dialog asks any SMTP server, over TCP, what a mail server must get right: dialogs in files that say what a client sends and which
// answers are right. Where the RFCs leave a choice, a dialog takes every answer that they allow, and a comment says which section does.
//
// # The format
//
// A file holds dialogs, each under a line "== name". A line that begins with # is a comment. First come headers:
//
//	needs: CHUNKING, AUTH PLAIN    skip the dialog unless EHLO offers these (a keyword, and an argument of it)
//	lacks: CHUNKING                skip it if EHLO offers one of these
//	start: data                    what was said before, with good replies: connect (nothing), greeting, hello (default), mail, rcpt, data
//	note: text                     printed with a failure
//	each name: text                the dialog is run once for each such line, with {case} being the text
//
// then steps:
//
//	C: text          send the text and CRLF; steps in a row go out together
//	R: text          send the text alone
//	S: 250 25x 5xx   the next reply must have one of these codes, x being any digit
//	S: 554 close     ... or the server closes instead of a reply
//	S: 250 /SIZE/    ... and its lines, joined by LF, match a regular expression
//	S?: 5xx          take the next reply if it matches
//	S*: 5xx          take replies as long as they match
//	S: close         the server closes
//	S: nothing       nothing may arrive for a moment
//	X: half          close our sending side
//
// Behind the last step no reply may be left over. A dialog that starts behind the greeting and does not end with a closed connection needs no
// QUIT.
//
// Texts know \r \n \t \0 \\ \{ \} and \xHH; {name} stands for a variable, {40*text} for a repetition, whose count may be a variable. Variables
// are client (the EHLO name), from, to, home (the domain of from), domain (of to), oversize (one octet over the SIZE limit), overlines (that many
// lines of 64 octets are over it), and in base64 user, password, plain (both, as AUTH PLAIN has them) and wrong (with another password). A dialog with
// a variable that has no value is skipped.
package dialog

import (
	"regexp"
	"slices"
	"strings"
)

// Dialog is one conversation, ready to be run.
type Dialog struct {
	Name  string // topic/file/name, and /case where there are several
	Notes []string
	needs []string
	lacks []string
	start stage
	steps []step
}

// stage is how far a session has come when a dialog begins.
type stage uint8

const (
	stageConnect stage = iota
	stageGreeting
	stageHello
	stageMail
	stageRcpt
	stageData
)

var stageNames = []string{"connect", "greeting", "hello", "mail", "rcpt", "data"}

// prefix is what leads from a stage to the next one.
var prefix = func() (steps [][]step) {
	for _, lines := range []string{"S: 220", "C: EHLO {client}\nS: 250", "C: MAIL FROM:<{from}>\nS: 250", "C: RCPT TO:<{to}>\nS: 250 251", "C: DATA\nS: 354"} {
		var stage []step
		for line := range strings.Lines(lines) {
			s, err := parseStep(strings.TrimSuffix(line, "\n"), nil)
			if err != nil {
				panic(err)
			}
			stage = append(stage, s)
		}
		steps = append(steps, stage)
	}
	return steps
}()

// step is one line of a dialog.
type step struct {
	line   int // in its file; 0 in a prefix
	action action
	text   text   // sent
	expect expect // expected
}

type action uint8

const (
	actionSend action = iota
	actionExpect
	actionHalfClose
)

// count says how many replies an expectation takes.
type count uint8

const (
	one count = iota
	optional
	many
)

// expect is what may come next.
type expect struct {
	source  string
	count   count
	codes   []string // three of 0-9 and x
	text    *regexp.Regexp
	close   bool
	nothing bool
}

func (e *expect) matches(r reply) bool {
	return slices.ContainsFunc(e.codes, func(pattern string) bool {
		for i := range 3 {
			if pattern[i] != 'x' && pattern[i] != r.code[i] {
				return false
			}
		}
		return true
	}) && (e.text == nil || e.text.MatchString(r.text()))
}
