// Package dsn builds delivery status notifications: multipart/report messages (RFC 6522) that tell a sender for which recipients its
// message failed for good, and for which it went well where the sender asked (RFC 3464), in the internationalized forms where the message asked for them (RFC 6533).
package dsn

import (
	"cmp"
	"errors"
	"strings"
	"time"

	"mailrace/proto/header"
	"mailrace/proto/message"
)

// Report is what a notification says. Strings may hold any bytes: all of them are sanitized on their way out.
type Report struct {
	ReportingMTA string     // our host name
	ID           message.ID // of the notification itself: its Message-ID and its MIME boundary
	Date         time.Time  // of the notification
	To           string     // reverse-path of the original, not null; receives the notification
	Original     message.ID
	EnvelopeID   string    // ENVID of the original, decoded; "" where it had none
	Arrived      time.Time // of the original
	SMTPUTF8     bool      // the original was sent with SMTPUTF8: its sender understands the forms of RFC 6533
	Recipients   []Recipient
	// Content is the first part of the original's content. Of it the header section is returned, as far as it lies in here, up to
	// ReturnMax.
	Content []byte
	// Full: Content is the whole content, and is returned whole with a failure, unless it is longer than ReturnMax. RFC 3461 §4.3
	Full      bool
	ReturnMax int       // octets; 0 = DefaultReturnMax
	Double    bool      // a notification could not be delivered, and To is our postmaster
	Template  *Template // what stands in place of our own texts; nil = nothing
}

// Action is what became of a recipient. RFC 3464 §2.3.3
type Action uint8

const (
	// Failed for good.
	Failed Action = iota
	// Delivered to where mail ends.
	Delivered
	// Relayed to another host.
	Relayed
	// Delayed: it takes long, or longer than its sender set (RFC 2852), and attempts go on.
	Delayed
)

func (a Action) String() string { return [...]string{"failed", "delivered", "relayed", "delayed"}[a] }

// Recipient is one forward-path and what became of it.
type Recipient struct {
	Address     string // forward-path
	Original    string // ORCPT: address type, ";" and address; "" where there was none
	Action      Action
	Status      string    // enhanced status code of the class of Action; one that is not becomes 5.0.0, 4.4.7 for Expired and Delayed, or 2.0.0
	RemoteMTA   string    // host that answered, name or IP address; "" where none did
	Reply       string    // its last reply, code and text in one line; "" where none came
	Reason      string    // what went wrong in plain words, where no host answered
	Expired     bool      // the lifetime ran out, rather than a permanent failure
	LastAttempt time.Time // zero = there was none
	RetryUntil  time.Time // Delayed: when the attempts end; zero = unknown
}

var (
	// ErrNullReversePath: mail from <> is never answered, so that notifications cannot loop (RFC 5321 §6.1).
	ErrNullReversePath = errors.New("no notification to a null reverse-path")
	// ErrNoRecipients: there is nothing to report.
	ErrNoRecipients = errors.New("no recipients to report")
)

// DefaultReturnMax stands where Report.ReturnMax says nothing: octets.
const DefaultReturnMax = 50_000

const (
	// spokenMax is how many recipients the text for people lists. The report for machines lists all.
	spokenMax = 20
	// Bounds of values, in octets.
	addressMax   = 320
	originalMax  = 800
	kindMax      = 64
	replyMax     = 1024
	subjectMax   = 200
	messageIDMax = 250
)

// Build writes the notification: its content in wire form (CRLF, no bare CR or LF, lines below 998 octets, not dot-stuffed), to be sent
// from the null reverse-path to r.To with the flags that it returns: LeadingDots where it holds; SMTPUTF8 only where r.To needs it, so that a host
// on the way back that does not offer it is an obstacle only where nothing helps; Body8Bit where that does, and where all of a message of 8 bits is returned.
func (r *Report) Build() ([]byte, message.Flags, error) {
	if r.To == "" {
		return nil, 0, ErrNullReversePath
	}
	if len(r.Recipients) == 0 {
		return nil, 0, ErrNoRecipients
	}
	header := headerSection(r.Content, r.returnMax())
	f := forms{global: r.SMTPUTF8 && !r.ascii(), wide: r.SMTPUTF8 && !isASCII(r.To)}
	parts := []part{r.human(), r.machine(f.global), r.returned(header)}
	for i := range parts {
		parts[i].encode(f.wide)
		f.eightBit = f.eightBit || parts[i].encoding == eightBit
	}
	b := boundary(r.ID, parts)

	size := 2048
	for i := range parts {
		size += len(parts[i].body) + 256
	}
	w := &writer{utf8: f.wide, out: make([]byte, 0, size)}
	w.top(r, &f, b, header)
	for i := range parts {
		w.part(b, &parts[i])
	}
	w.line("--", b, "--")

	var flags message.Flags
	if f.wide {
		flags |= message.SMTPUTF8 | message.Body8Bit
	}
	if f.eightBit {
		flags |= message.Body8Bit
	}
	if leadingDots(w.out) {
		flags |= message.LeadingDots
	}
	return w.out, flags, nil
}

// forms are what a notification needs beyond ASCII.
type forms struct {
	global   bool // the report for machines has the form of RFC 6533
	wide     bool // SMTPUTF8 on its way
	eightBit bool // 8BITMIME on its way
}

func (r *Report) returnMax() int { return cmp.Or(r.ReturnMax, DefaultReturnMax) }

// failed is the number of recipients whose delivery failed.
func (r *Report) failed() int { return r.count(Failed) }

func (r *Report) count(a Action) (n int) {
	for i := range r.Recipients {
		if r.Recipients[i].Action == a {
			n++
		}
	}
	return n
}

// full says whether the whole content is returned: only with a failure (RFC 3461 §6.2), and only what is fit to be a part of a message.
func (r *Report) full() bool {
	return r.Full && r.failed() > 0 && len(r.Content) > 0 && len(r.Content) <= r.returnMax() && wireForm(r.Content)
}

// gravest is the action that the notification as a whole is about.
func (r *Report) gravest() Action {
	for _, a := range []Action{Failed, Delayed, Relayed} {
		if r.count(a) > 0 {
			return a
		}
	}
	return Delivered
}

// top writes the notification's own header section.
func (w *writer) top(r *Report, f *forms, boundary string, header []byte) {
	host := w.name(r.ReportingMTA)
	w.line("Date: ", date(r.Date))
	w.line("From: ", w.from(r, host))
	w.line("To: <", w.printable(r.To, addressMax), ">")
	w.fold("Subject: ", w.encoded(r.subject()))
	w.line("Message-ID: <", r.ID.String(), "@", host, ">")
	if id := messageID(header); id != "" { // RFC 3834 §3.1.5
		w.line("In-Reply-To: ", id)
		w.line("References: ", id)
	}
	w.line("Auto-Submitted: auto-replied") // RFC 3834 §5
	w.line("MIME-Version: 1.0")
	kind := "delivery-status"
	if f.global {
		kind = "global-delivery-status"
	}
	w.line("Content-Type: multipart/report; report-type=", kind, ";")
	w.line("\tboundary=\"", boundary, "\"")
	if f.eightBit {
		w.line("Content-Transfer-Encoding: 8bit")
	}
	w.line()
	w.line("This is a delivery report in MIME format.")
	w.line()
}

// from is who writes, by the template or by default.
func (w *writer) from(r *Report, host string) string {
	if r.Template != nil && r.Template.from != "" {
		return r.Template.from
	}
	return "Mail Delivery System <MAILER-DAEMON@" + host + ">"
}

// subject is what the notification is about, by the template or by default.
func (r *Report) subject() string {
	if s := r.Template.subjectOf(r); s != "" {
		return s
	}
	switch r.gravest() {
	case Failed:
		if r.Double {
			return "Undelivered Notification"
		}
		return "Undelivered Mail Returned to Sender"
	case Delayed:
		return "Delayed Mail, Still Being Delivered"
	default:
		return "Successful Mail Delivery Report"
	}
}

// messageID is that of the original, or "" where it has none that is fit to be repeated. RFC 5322 §3.6.4
func messageID(section []byte) string {
	for f := range header.Fields(section) {
		if !f.Is("message-id") {
			continue
		}
		id := strings.TrimSpace(string(f.AppendValue(nil)))
		if len(id) < 3 || len(id) > messageIDMax || id[0] != '<' || id[len(id)-1] != '>' || strings.ContainsFunc(id[1:len(id)-1], func(c rune) bool {
			return c <= ' ' || c >= 0x7f || c == '<' || c == '>'
		}) {
			return ""
		}
		return id
	}
	return ""
}

// part writes one part of the multipart.
func (w *writer) part(boundary string, p *part) {
	w.line("--", boundary)
	w.line("Content-Type: ", p.kind)
	w.line("Content-Description: ", p.description)
	if p.language != "" {
		w.line("Content-Language: ", p.language)
	}
	if p.encoding != "" {
		w.line("Content-Transfer-Encoding: ", p.encoding)
	}
	w.line()
	w.out = append(w.out, p.body...)
	w.line()
}

// ascii reports whether the report for machines needs no more than ASCII.
func (r *Report) ascii() bool {
	for i := range r.Recipients {
		rcpt := &r.Recipients[i]
		if !isASCII(rcpt.Address) || !isASCII(rcpt.Original) || !isASCII(rcpt.Reply) || !isASCII(rcpt.Reason) || !isASCII(rcpt.RemoteMTA) {
			return false
		}
	}
	return isASCII(r.ReportingMTA)
}
