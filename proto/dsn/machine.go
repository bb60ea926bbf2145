package dsn

import "strings"

// machine makes the report for machines, message/delivery-status: fields of the message, then a group of fields for each recipient. Its
// internationalized form is that of RFC 6533 §4.
func (r *Report) machine(global bool) part {
	w := &writer{utf8: global}
	if r.EnvelopeID != "" {
		w.line("Original-Envelope-Id: ", w.printable(r.EnvelopeID, originalMax)) // RFC 3464 §2.2.1
	}
	w.line("Reporting-MTA: dns; ", w.name(r.ReportingMTA)) // RFC 3464 §2.2.2
	w.line("X-Mailrace-Queue-ID: ", r.Original.String())
	w.line("Arrival-Date: ", date(r.Arrived)) // RFC 3464 §2.2.5
	for i := range r.Recipients {
		w.line()
		w.group(r, &r.Recipients[i])
	}
	return part{kind: w.pick("message/delivery-status", "message/global-delivery-status"), description: "Delivery report", body: w.out}
}

// group writes the fields of a recipient.
func (w *writer) group(r *Report, rcpt *Recipient) {
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
	w.line("Final-Log-ID: ", r.Original.String()) // RFC 3464 §2.3.8
	if !rcpt.RetryUntil.IsZero() {
		w.line("Will-Retry-Until: ", date(rcpt.RetryUntil)) // RFC 3464 §2.3.9
	}
}

// returned makes the part with what is returned of the original: all of it, or its header section, with what could not stand there replaced.
func (r *Report) returned(header []byte) part {
	global := r.SMTPUTF8 && !isASCII(header)
	if r.full() {
		p := part{description: "Undelivered message", body: r.Content, kind: "message/rfc822"}
		if global {
			p.kind = "message/global"
		}
		return p
	}
	return headers(header, global, r.failed() > 0)
}

// headers is the part with the header section of the original.
func headers(header []byte, global, failed bool) part {
	p := part{description: "Header of the message"}
	if failed {
		p.description = "Header of the undelivered message"
	}
	w := &writer{utf8: global}
	for len(header) > 0 {
		line, rest := cutLine(header)
		header = rest
		w.headerLine(line)
	}
	p.kind, p.body = w.pick("text/rfc822-headers", "message/global-headers"), w.out
	return p
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
