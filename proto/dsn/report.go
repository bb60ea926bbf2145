// Package dsn builds delivery status notifications: multipart/report messages (RFC 6522) that tell a sender for which recipients its
// message failed for good, and for which it went well where the sender asked (RFC 3464), in the internationalized forms where the message asked for them (RFC 6533).
package dsn

import (
	"errors"
	"strings"
	"time"

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
	// returnedMax.
	Content []byte
	// Full: Content is the whole content, and is returned whole with a failure, unless it is longer than returnedMax. RFC 3461 §4.3
	Full bool
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
	// Delayed: the time that the sender set for the delivery has passed, and attempts go on. RFC 2852
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

const (
	// returnedMax is how many octets of the original are returned: of its header section, or of it all.
	returnedMax = 50_000
	// spokenMax is how many recipients the text for people lists. The report for machines lists all.
	spokenMax = 20
	// Bounds of values, in octets.
	addressMax  = 320
	originalMax = 800
	kindMax     = 64
	replyMax    = 1024
)

// Build writes the notification: its content in wire form (CRLF, no bare CR or LF, lines below 998 octets, not dot-stuffed), to be sent
// from the null reverse-path to r.To with the flags that it returns: LeadingDots where it holds, SMTPUTF8 and Body8Bit only where
// something in it needs them, Body8Bit also where the content that is returned does. Otherwise it is 7-bit.
func (r *Report) Build() ([]byte, message.Flags, error) {
	if r.To == "" {
		return nil, 0, ErrNullReversePath
	}
	if len(r.Recipients) == 0 {
		return nil, 0, ErrNoRecipients
	}
	header := headerSection(r.Content)
	w := &writer{utf8: r.SMTPUTF8 && !r.ascii(header)}
	kind, description := w.pick("text/rfc822-headers", "message/global-headers"), "Header of the undelivered message"
	human, machine, returned := w.human(r), w.machine(r), []byte(nil)
	switch {
	case r.full():
		kind, description = w.pick("message/rfc822", "message/global"), "Undelivered message"
		returned, w.eightBit = r.Content, !isASCII(r.Content)
	case r.failed() == 0:
		description = "Header of the message"
		fallthrough
	default:
		returned = w.returned(header)
	}
	b := boundary(r.ID, human, machine, returned)

	w.out = make([]byte, 0, len(human)+len(machine)+len(returned)+2048)
	w.top(r, b)
	w.part(b, "text/plain; charset="+w.pick("us-ascii", "utf-8"), "Notification", human)
	w.part(b, w.pick("message/delivery-status", "message/global-delivery-status"), "Delivery report", machine)
	w.part(b, kind, description, returned)
	w.line("--", b, "--")

	var flags message.Flags
	if w.utf8 {
		flags |= message.SMTPUTF8 | message.Body8Bit
	}
	if w.eightBit {
		flags |= message.Body8Bit
	}
	if leadingDots(w.out) {
		flags |= message.LeadingDots
	}
	return w.out, flags, nil
}

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
	return r.Full && r.failed() > 0 && len(r.Content) > 0 && len(r.Content) <= returnedMax && wireForm(r.Content)
}

// top writes the notification's own header section.
func (w *writer) top(r *Report, boundary string) {
	host := w.name(r.ReportingMTA)
	w.line("Date: ", date(r.Date))
	w.line("From: Mail Delivery System <MAILER-DAEMON@", host, ">")
	w.line("To: <", w.printable(r.To, addressMax), ">")
	switch {
	case r.failed() > 0:
		w.line("Subject: Undelivered Mail Returned to Sender")
	case r.count(Delayed) > 0:
		w.line("Subject: Delayed Mail, Still Being Delivered")
	default:
		w.line("Subject: Successful Mail Delivery Report")
	}
	w.line("Message-ID: <", r.ID.String(), "@", host, ">")
	w.line("Auto-Submitted: auto-replied") // RFC 3834 §5
	w.line("MIME-Version: 1.0")
	w.line("Content-Type: multipart/report; report-type=", w.pick("delivery-status", "global-delivery-status"), ";")
	w.line("\tboundary=\"", boundary, "\"")
	w.encoding()
	w.line()
	w.line("This is a delivery report in MIME format.")
	w.line()
}

// part writes one part of the multipart. body ends with CRLF.
func (w *writer) part(boundary, contentType, description string, body []byte) {
	w.line("--", boundary)
	w.line("Content-Type: ", contentType)
	w.line("Content-Description: ", description)
	w.encoding()
	w.line()
	w.out = append(w.out, body...)
	w.line()
}

func (w *writer) encoding() {
	if w.utf8 || w.eightBit {
		w.line("Content-Transfer-Encoding: 8bit")
	}
}

// human writes the part that people read.
func (w *writer) human(r *Report) []byte {
	defer w.begin()()
	w.line("This is the mail system at host ", w.name(r.ReportingMTA), ".")
	w.line()
	spoken := 0
	for action, text := range [...]string{
		Failed:    " could not be delivered to the recipients below. No further attempt will be made.",
		Delivered: " was delivered to the recipients below.",
		Relayed:   " was handed on for the recipients below. It may be that the next hosts do not tell what becomes of it.",
		Delayed:   " has not been delivered to the recipients below yet. Attempts go on, there is no need to send it again.",
	} {
		for i := range r.Recipients {
			rcpt := &r.Recipients[i]
			if rcpt.Action != Action(action) || spoken == spokenMax {
				continue
			}
			if text != "" {
				w.wrap("", "Your message of "+date(r.Arrived)+text)
				w.line()
				text = ""
			}
			w.line("<", w.printable(rcpt.Address, addressMax), ">:")
			w.wrap("    ", w.outcome(r, rcpt))
			w.line()
			spoken++
		}
	}
	if more := len(r.Recipients) - spokenMax; more > 0 {
		w.wrap("", "... and "+plural(more, "further recipient")+", listed in the delivery report.")
		w.line()
	}
	returned := "the header of your message"
	if r.full() {
		returned = "your message"
	}
	w.wrap("", "The delivery report and "+returned+" follow. This system knew the message as "+r.Original.String()+".")
	return w.out
}

// outcome says in a sentence what became of a recipient.
func (w *writer) outcome(r *Report, rcpt *Recipient) string {
	said := w.printable(rcpt.Reason, replyMax)
	if rcpt.Reply != "" {
		said = w.printable(rcpt.Reply, replyMax)
		if rcpt.RemoteMTA != "" {
			said = "host " + w.name(rcpt.RemoteMTA) + " said: " + said
		}
	}
	switch {
	case said != "" && (!rcpt.Expired || rcpt.Action != Failed):
		return said
	case rcpt.Action != Failed:
		return rcpt.Action.String()
	case !rcpt.Expired:
		return "the message was refused"
	}
	tried := "not delivered within " + lifetime(r.Date.Sub(r.Arrived))
	if said == "" {
		return tried
	}
	return tried + "; at last: " + said
}

// machine writes the body of message/delivery-status: fields of the message, then a group of fields for each recipient.
func (w *writer) machine(r *Report) []byte {
	defer w.begin()()
	if r.EnvelopeID != "" {
		w.line("Original-Envelope-Id: ", w.printable(r.EnvelopeID, originalMax)) // RFC 3464 §2.2.1
	}
	w.line("Reporting-MTA: dns; ", w.name(r.ReportingMTA)) // RFC 3464 §2.2.2
	w.line("X-Mailrace-Queue-ID: ", r.Original.String())
	w.line("Arrival-Date: ", date(r.Arrived))
	for i := range r.Recipients {
		rcpt := &r.Recipients[i]
		w.line()
		if rcpt.Original != "" {
			w.line("Original-Recipient: ", w.original(rcpt.Original)) // RFC 3464 §2.3.1
		}
		kind, address := w.typedAddress(rcpt.Address)
		w.line("Final-Recipient: ", kind, "; ", address) // RFC 3464 §2.3.2
		w.line("Action: ", rcpt.Action.String())
		w.line("Status: ", status(rcpt))
		if rcpt.RemoteMTA != "" {
			w.line("Remote-MTA: dns; ", w.name(rcpt.RemoteMTA))
		}
		if rcpt.Reply != "" {
			w.fold("Diagnostic-Code: smtp; ", w.printable(rcpt.Reply, replyMax))
		} else if rcpt.Reason != "" {
			w.fold("Diagnostic-Code: X-Mailrace; ", w.printable(rcpt.Reason, replyMax))
		}
		if !rcpt.LastAttempt.IsZero() {
			w.line("Last-Attempt-Date: ", date(rcpt.LastAttempt))
		}
		if !rcpt.RetryUntil.IsZero() {
			w.line("Will-Retry-Until: ", date(rcpt.RetryUntil)) // RFC 3464 §2.3.9
		}
	}
	return w.out
}

// returned writes the original's header section. What could not stand in a header section in wire form is replaced.
func (w *writer) returned(header []byte) []byte {
	defer w.begin()()
	for len(header) > 0 {
		line, rest := cutLine(header)
		header = rest
		w.headerLine(line)
	}
	return w.out
}

// typedAddress is the address-type and generic-address of a field. A mailbox beyond ASCII has the type utf-8, and in a 7-bit report the
// form \x{...} (RFC 6533 §3, utf-8-addr-xtext).
func (w *writer) typedAddress(a string) (kind, address string) {
	if isASCII(a) {
		return "rfc822", w.printable(a, addressMax)
	}
	if w.utf8 {
		return "utf-8", w.printable(a, addressMax)
	}
	return "utf-8", xtext(a, addressMax)
}

// original is the address-type and generic-address of an ORCPT. Unlike ours its address is in the form that the sender chose, \x{...} included
// (RFC 6533 §3): in a 7-bit report only what lies beyond ASCII still takes that form.
func (w *writer) original(orcpt string) string {
	kind, address, _ := strings.Cut(orcpt, ";")
	if !w.utf8 && strings.EqualFold(kind, "utf-8") {
		var b strings.Builder
		for _, c := range address {
			if c < 0x80 {
				b.WriteRune(c)
			} else {
				b.WriteString(xtext(string(c), len(string(c))))
			}
		}
		address = b.String()
	}
	return w.printable(kind, kindMax) + "; " + w.printable(address, originalMax)
}

// ascii reports whether nothing in the notification needs more than ASCII.
func (r *Report) ascii(header []byte) bool {
	for i := range r.Recipients {
		rcpt := &r.Recipients[i]
		if !isASCII(rcpt.Address) || !isASCII(rcpt.Original) || !isASCII(rcpt.Reply) || !isASCII(rcpt.Reason) || !isASCII(rcpt.RemoteMTA) {
			return false
		}
	}
	return isASCII(r.To) && isASCII(r.ReportingMTA) && isASCII(header)
}
