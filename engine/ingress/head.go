package ingress

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"mailrace/proto/header"
	"mailrace/proto/message"
	"mailrace/proto/smtp"
)

// Label is what a program may say about its mail beside the envelope.
type Label uint8

const (
	// Tenant is whose mail it is.
	Tenant Label = iota
	// Campaign is what mail it is, within the tenant.
	Campaign
	// Key makes a repeated injection known as such, within the tenant.
	Key
	labels // how many there are
)

// labelMax is the most octets of a label.
const labelMax = 255

// HeadRules say what a way in does with the header section of mail. They are immutable, and may be used by any goroutine. With nil the section
// is not looked at, but for its limits.
type HeadRules struct {
	Fields     [labels]string // names of the header fields that carry labels, which are taken out of all mail; "" = none does
	EnvelopeID []Label        // what the parts of an ENVID between slashes are, the last one with all slashes that follow; empty = nothing
	Submission bool           // the section is completed and corrected as RFC 6409 §8 allows: Date, Message-ID, From, Bcc
	CheckFrom  bool           // From may name only addresses that the sender may use
	Hostname   string         // in a Message-ID of ours
}

// Injection is a message that comes in, as far as rules ask.
type Injection struct {
	ID         message.ID
	Now        time.Time
	From       string                    // reverse-path
	EnvelopeID string                    // ENVID, decoded
	Trusted    bool                      // may label its mail. Labels of others are taken out and not heeded
	Tenant     string                    // of the user who hands it in, which no label overrules; "" = none
	MaySend    func(address []byte) bool // nil = from any address
}

// Head is what rules made of a header section.
type Head struct {
	Labels [labels]string
	// Section stands in place of the section, if it is not nil: fields taken out, or added at its end. All others stand there octet for octet.
	Section []byte
}

// reads says whether the rules ask for the section before the content may be passed on.
func (r *HeadRules) reads() bool {
	return r != nil && (r.Submission || r.Fields != [labels]string{})
}

// Read judges the header section that content begins with, and which must be in there whole. It returns a reply in place of a head where the
// message must be refused. The result shares no memory with content.
func (r *HeadRules) Read(content []byte, in *Injection) (h Head, refusal *smtp.Reply) {
	section, rest, end := header.Split(content)
	if refusal = sizeRefusal(end); refusal != nil {
		return h, refusal
	}
	seen := sighting{}
	for f := range header.Fields(section) {
		if refusal = r.see(&seen, &f, in); refusal != nil {
			return h, refusal
		}
	}
	if r.Submission {
		if refusal = r.submission(&seen, section, end, in); refusal != nil {
			return h, refusal
		}
	}
	if in.Trusted {
		h.Labels = seen.labels
		r.readEnvelopeID(&h, in.EnvelopeID)
	}
	if in.Tenant != "" {
		h.Labels[Tenant] = in.Tenant
	}
	if seen.out > 0 || r.Submission && !seen.complete() {
		h.Section = r.rewrite(&seen, section, rest, in)
	}
	return h, nil
}

// Label returns the labels of a message whose header section the rules do not ask for.
func (r *HeadRules) label(in *Injection) (h Head) {
	if in.Trusted {
		r.readEnvelopeID(&h, in.EnvelopeID)
	}
	if in.Tenant != "" {
		h.Labels[Tenant] = in.Tenant
	}
	return h
}

// readEnvelopeID takes the labels that no header field gave. An ENVID that has fewer parts than it should is another kind of identifier, and
// says nothing.
func (r *HeadRules) readEnvelopeID(h *Head, id string) {
	if len(r.EnvelopeID) == 0 {
		return
	}
	parts := strings.SplitN(id, "/", len(r.EnvelopeID))
	if len(parts) < len(r.EnvelopeID) {
		return
	}
	for i, label := range r.EnvelopeID {
		if h.Labels[label] == "" {
			h.Labels[label] = parts[i]
		}
	}
}

// sighting is what was seen in a section.
type sighting struct {
	labels          [labels]string
	labeled         [labels]bool
	out             int // fields to be taken out
	date, messageID bool
	from            int
}

// complete says that nothing is missing that a submission has. RFC 5322 §3.6, RFC 6409 §8
func (s *sighting) complete() bool { return s.date && s.messageID && s.from > 0 }

// see takes note of a field.
func (r *HeadRules) see(seen *sighting, f *header.Field, in *Injection) *smtp.Reply {
	if r.dropped(f) {
		seen.out++
	}
	for label := range labels {
		if !f.Is(r.Fields[label]) || !in.Trusted {
			continue
		}
		value := f.AppendValue(nil)
		switch fault := labelFault(value); {
		case seen.labeled[label]:
			return badHeader("Header field %s stands there twice", r.Fields[label])
		case fault != "":
			return badHeader("Header field %s %s", r.Fields[label], fault)
		}
		seen.labels[label], seen.labeled[label] = string(value), true
	}
	switch {
	case !r.Submission:
	case f.Is("Date"):
		seen.date = true
	case f.Is("Message-ID"):
		seen.messageID = true
	case f.Is("From"):
		if seen.from++; r.CheckFrom && in.MaySend != nil {
			return checkFrom(f, in)
		}
	}
	return nil
}

// dropped says whether a field is taken out: those that label, and in a submission those that name recipients whom the others must not see.
// RFC 5322 §3.6.3
func (r *HeadRules) dropped(f *header.Field) bool {
	for label := range labels {
		if f.Is(r.Fields[label]) {
			return true
		}
	}
	return r.Submission && (f.Is("Bcc") || f.Is("Resent-Bcc"))
}

// labelFault says what is wrong with the value of a label, or "".
func labelFault(value []byte) string {
	switch {
	case len(value) > labelMax:
		return fmt.Sprintf("is longer than %d octets", labelMax)
	case !utf8.Valid(value):
		return "is not UTF-8"
	case bytes.ContainsFunc(value, func(c rune) bool { return c != ' ' && !unicode.IsGraphic(c) }):
		return "holds characters that cannot be printed"
	}
	return ""
}

// submission judges what cannot be corrected.
func (r *HeadRules) submission(seen *sighting, section []byte, end header.End, in *Injection) *smtp.Reply {
	switch {
	case end == header.NoField && len(section) > 0: // a reader that goes on behind the line would see other fields than we do
		return badHeader("Line %d of the header section is no header field", bytes.Count(section, []byte("\r\n"))+1)
	case seen.from > 1:
		return badHeader("More than one From header field") // RFC 5322 §3.6
	case seen.from == 0 && in.From == "":
		return badHeader("From header field missing")
	}
	return nil
}

// checkFrom refuses a From that names others than the sender.
func checkFrom(f *header.Field, in *Injection) *smtp.Reply {
	var room [4][]byte
	addresses, err := header.AppendAddresses(room[:0], f.Value)
	if err != nil || len(addresses) == 0 {
		return badHeader("From header field: not a list of addresses")
	}
	for _, a := range addresses {
		if !in.MaySend(a) {
			return &smtp.Reply{Code: 550, Enhanced: "5.7.1", Text: fmt.Sprintf("From header field: <%s> is not an address of yours", a)}
		}
	}
	return nil
}

// rewrite writes the section anew: without the fields that are dropped, and with those that are missing at its end. A body that begins without
// an empty line gets one in front.
func (r *HeadRules) rewrite(seen *sighting, section, rest []byte, in *Injection) []byte {
	out := make([]byte, 0, len(section)+256)
	for f := range header.Fields(section) {
		if !r.dropped(&f) {
			out = append(out, f.Raw...)
		}
	}
	if !r.Submission {
		return out
	}
	if !seen.date {
		out = append(in.Now.AppendFormat(append(out, "Date: "...), DateLayout), "\r\n"...)
	}
	if seen.from == 0 {
		out = append(append(append(out, "From: <"...), in.From...), ">\r\n"...)
	}
	if !seen.messageID {
		out = in.ID.Append(append(out, "Message-ID: <"...))
		out = append(append(append(out, '@'), r.Hostname...), ">\r\n"...)
	}
	if len(rest) > 0 && !bytes.HasPrefix(rest, []byte("\r\n")) {
		out = append(out, "\r\n"...)
	}
	return out
}

var (
	replyHeaderSize = smtp.Reply{Code: 552, Enhanced: "5.3.4", Text: "Header section larger than " + strconv.Itoa(header.MaxSize) + " octets"}
	replyBinaryHead = smtp.Reply{Code: 550, Enhanced: "5.6.0", Text: "bare <CR>, bare <LF> or NUL in the header section"}
	replyFields     = smtp.Reply{Code: 554, Enhanced: "5.6.0", Text: "More than " + strconv.Itoa(header.MaxFields) + " header fields"}
)

// sizeRefusal is the reply to a header section beyond the limits, or nil.
func sizeRefusal(end header.End) *smtp.Reply {
	switch end {
	case header.TooLarge:
		return &replyHeaderSize
	case header.TooMany:
		return &replyFields
	}
	return nil
}

func badHeader(format string, args ...any) *smtp.Reply {
	return &smtp.Reply{Code: 554, Enhanced: "5.6.0", Text: fmt.Sprintf(format, args...)}
}
