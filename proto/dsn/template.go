package dsn

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/template"
	"time"
	"unicode"
	"unicode/utf8"

	"mailrace/proto/smtp"
)

// Template holds texts for notifications that stand in place of ours, in the language of Go's text/template. A nil Template has none. It is
// immutable, and may be used by any number of goroutines.
type Template struct {
	from, language string
	subject, text  *template.Template
}

// Texts are the sources of a Template. What is left empty is as without one.
type Texts struct {
	From     string // "Name <address>", or an address
	Subject  string // template of one line
	Text     string // template
	TextName string // what Text is called in errors, as in the name of its file
	Language string // of Text, RFC 5646: "de", "pt-BR"
}

// Fields are what templates can name. Strings hold nothing but what can be printed.
type Fields struct {
	Kind       string // what the notification is about: "failed", "delayed", "relayed" or "delivered", the first that one of Recipients has
	Host       string // name of this system
	ID         string // what this system called the message
	Sender     string // whom the notification is for
	EnvelopeID string // ENVID, or ""
	Arrived    time.Time
	Until      time.Time // when attempts end, where some go on; zero otherwise
	Hours      int       // how old the message is
	Whole      bool      // the message is returned, not only its header
	Recipients []Result  // some 20 at most; the report for machines has all
	More       int       // that are not in Recipients
}

// Result is what became of a recipient.
type Result struct {
	Address string
	Action  string // "failed", "delayed", "relayed", "delivered"
	Status  string // enhanced status code
	Host    string // that answered, or ""
	Said    string // what it said, or what went wrong; may be ""
	Meaning string // of Status, in English, and what to do; may be ""
	Expired bool   // it failed because the time was over
}

// Parts of Texts that an error of NewTemplate is about.
var (
	ErrFrom     = errors.New("from")
	ErrSubject  = errors.New("subject")
	ErrText     = errors.New("text")
	ErrLanguage = errors.New("language")
)

// templateMax bounds what a template makes, in octets.
const templateMax = 64 << 10

var language = regexp.MustCompile(`^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$`)

// NewTemplate reads texts, and tries them with notifications of every kind. Each of its errors is one of ErrFrom, ErrSubject, ErrText and
// ErrLanguage, with name, line and column where there is one.
func NewTemplate(t Texts) (*Template, error) {
	n := &Template{language: t.Language}
	var err error
	if t.From != "" {
		if n.from = mailbox(t.From); n.from == "" {
			return nil, fmt.Errorf(`%w: not an address: want one in ASCII, as in "Post office <postmaster@example.com>"`, ErrFrom)
		}
	}
	if t.Language != "" && !language.MatchString(t.Language) {
		return nil, fmt.Errorf(`%w: not the code of a language: want one as in "de" or "pt-BR"`, ErrLanguage)
	}
	if n.subject, err = parse("subject", t.Subject); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSubject, err)
	}
	if n.text, err = parse(t.TextName, t.Text); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrText, err)
	}
	for _, r := range samples() {
		if _, err := run(n.subject, r); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSubject, err)
		}
		if _, err := run(n.text, r); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrText, err)
		}
	}
	return n, nil
}

// mailbox is an address with or without a name in front, "Name <user@example.com>", as it stands in a header; "" where s is none.
func mailbox(s string) string {
	name, address, found := strings.Cut(s, "<")
	if !found {
		name, address = "", s+">"
	}
	path, rest, err := smtp.ParsePath([]byte("<"+address), false)
	if err != nil || len(rest) > 0 || len(path.Path) != len(address)-1 || len(path.Domain) == 0 {
		return ""
	}
	name = strings.Trim(strings.TrimSpace(name), `"`)
	switch {
	case len(name) > subjectMax || !utf8.ValidString(name) || strings.ContainsAny(name, `"\`) || strings.ContainsFunc(name, unicode.IsControl):
		return ""
	case name == "":
		return "<" + address
	case isASCII(name):
		return `"` + name + `" <` + address
	}
	return encodedWords(name) + " <" + address
}

// parse reads a template; nil where there is none.
func parse(name, text string) (*template.Template, error) {
	if text == "" {
		return nil, nil
	}
	t, err := template.New(name).Option("missingkey=error").Parse(text)
	return t, plain(err)
}

// plain takes away what only programmers say in front of errors.
func plain(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(strings.TrimPrefix(err.Error(), "template: "))
}

// run executes a template; "" where there is none.
func run(t *template.Template, f *Fields) (string, error) {
	if t == nil {
		return "", nil
	}
	b := bounded{left: templateMax}
	if err := t.Execute(&b, f); err != nil {
		return "", plain(err)
	}
	return b.String(), nil
}

// bounded is a buffer with an end.
type bounded struct {
	bytes.Buffer
	left int
}

var errTooLong = fmt.Errorf("makes more than %d octets", templateMax)

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errTooLong
	}
	return b.Buffer.Write(p)
}

var _ io.Writer = (*bounded)(nil)

// subjectOf is the subject by the template, in one line, or "" where there is none or it does not work for r.
func (t *Template) subjectOf(r *Report) string {
	if t == nil {
		return ""
	}
	s, err := run(t.subject, r.fields())
	if err != nil {
		return ""
	}
	return cut(strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " "), subjectMax)
}

// textOf is the text by the template. A template that does not work for r, which it did when it was tried, must not cost the notification.
func (t *Template) textOf(r *Report) (string, bool) {
	if t == nil || t.text == nil {
		return "", false
	}
	s, err := run(t.text, r.fields())
	return s, err == nil && strings.TrimSpace(s) != ""
}

// fields are what templates are told of r.
func (r *Report) fields() *Fields {
	w := &writer{utf8: true}
	f := &Fields{
		Kind: r.gravest().String(), Host: w.name(r.ReportingMTA), ID: r.Original.String(), Sender: w.printable(r.To, addressMax),
		EnvelopeID: w.printable(r.EnvelopeID, originalMax), Arrived: r.Arrived, Until: r.until(), Hours: max(int(r.Date.Sub(r.Arrived).Hours()), 0), Whole: r.full(),
	}
	for _, a := range []Action{Failed, Delayed, Relayed, Delivered} {
		for i := range r.Recipients {
			rcpt := &r.Recipients[i]
			if rcpt.Action != a || len(f.Recipients) == spokenMax {
				continue
			}
			result := Result{Address: w.printable(rcpt.Address, addressMax), Action: a.String(), Status: status(rcpt), Meaning: explain(rcpt), Expired: rcpt.Expired}
			if result.Said = w.printable(rcpt.Reason, replyMax); rcpt.Reply != "" {
				result.Said = w.printable(rcpt.Reply, replyMax)
			}
			if rcpt.RemoteMTA != "" {
				result.Host = w.name(rcpt.RemoteMTA)
			}
			f.Recipients = append(f.Recipients, result)
		}
	}
	f.More = len(r.Recipients) - len(f.Recipients)
	return f
}

// until is when attempts end, or zero where none go on.
func (r *Report) until() (t time.Time) {
	for i := range r.Recipients {
		if at := r.Recipients[i].RetryUntil; r.Recipients[i].Action == Delayed && at.After(t) {
			t = at
		}
	}
	return t
}

// samples are notifications to try a template with.
func samples() (fs []*Fields) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for _, a := range []Action{Failed, Delayed, Relayed, Delivered} {
		r := Report{
			ReportingMTA: "mail.example.com", Original: 1, To: "sender@example.com", EnvelopeID: "id", Arrived: at, Date: at.Add(24 * time.Hour),
			Recipients: []Recipient{
				{Address: "one@example.net", Action: a, Status: "5.1.1", RemoteMTA: "mx.example.net", Reply: "550 5.1.1 no such user"},
				{Address: "two@example.net", Action: a, Reason: "connection timed out", Expired: a == Failed, RetryUntil: at.Add(48 * time.Hour)},
			},
		}
		fs = append(fs, r.fields())
		r.Recipients = r.Recipients[:1]
		fs = append(fs, r.fields())
	}
	return fs
}
