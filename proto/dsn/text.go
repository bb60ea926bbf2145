package dsn

import "strings"

// human makes the part that people read: by the template, or in English.
func (r *Report) human() part {
	p := part{kind: "text/plain; charset=us-ascii", description: "Notification", language: "en"}
	w := &writer{utf8: true}
	if text, ok := r.Template.textOf(r); ok {
		w.text(text)
		p.language = r.Template.language
	} else {
		w.tell(r)
	}
	if p.body = w.out; !isASCII(p.body) {
		p.kind = "text/plain; charset=utf-8"
	}
	return p
}

// What the text says of the parts behind it.
const (
	follows  = "The delivery report and "
	headerOf = "the header of "
)

// tell writes what happened, to whom, what the other side said, and what to do.
func (w *writer) tell(r *Report) {
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
				w.wrap("", r.message()+" of "+date(r.Arrived)+text)
				w.line()
				text = ""
			}
			w.line("<", w.printable(rcpt.Address, addressMax), ">:")
			if meaning := explain(rcpt); meaning != "" {
				w.wrap("    ", meaning)
			}
			w.wrap("    ", sentence(w.outcome(r, rcpt)))
			w.line()
			spoken++
		}
	}
	if more := len(r.Recipients) - spoken; more > 0 {
		w.wrap("", "... and "+plural(more, "further recipient")+", listed in the delivery report.")
		w.line()
	}
	if until := r.until(); !until.IsZero() {
		w.wrap("", "Attempts go on until "+date(until)+".")
		w.line()
	}
	returned := strings.ToLower(r.message()[:1]) + r.message()[1:]
	if !r.full() {
		returned = headerOf + returned
	}
	w.wrap("", follows+returned+" follow.") // HeadersOnly changes it
	w.wrap("", "This system knew the message as "+r.Original.String()+".")
}

// message is what is reported on.
func (r *Report) message() string {
	if r.Double {
		return "A notification"
	}
	return "Your message"
}

// sentence begins with a capital.
func sentence(s string) string {
	if s != "" && s[0] >= 'a' && s[0] <= 'z' {
		return strings.ToUpper(s[:1]) + s[1:]
	}
	return s
}

// outcome says in a sentence what became of a recipient.
func (w *writer) outcome(r *Report, rcpt *Recipient) string {
	said := w.said(rcpt)
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

// said is what the other side said, or what went wrong, or "".
func (w *writer) said(rcpt *Recipient) string {
	if rcpt.Reply == "" {
		return w.printable(rcpt.Reason, replyMax)
	}
	said := w.printable(rcpt.Reply, replyMax)
	if rcpt.RemoteMTA != "" {
		said = "host " + w.name(rcpt.RemoteMTA) + " said: " + said
	}
	return said
}

// text writes what a template made, line by line.
func (w *writer) text(text string) {
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		w.line(w.printable(strings.ReplaceAll(line, "\t", "    "), len(line)*4))
	}
}

// meanings explain status codes, without their class, to people: what went wrong, and what they can do. RFC 3463, RFC 7505, RFC 7372, RFC 8689
var meanings = map[string][2]string{
	"1.0":  {"Something is wrong with the address.", checkAddress},
	"1.1":  {"There is no such address.", checkAddress},
	"1.2":  {"The domain of the address does not exist.", checkAddress},
	"1.3":  {"The address is not written as addresses are.", checkAddress},
	"1.4":  {"The address fits several mailboxes.", checkAddress},
	"1.6":  {"The recipient has moved, and left no new address here.", "Ask the recipient for the new one."},
	"1.7":  {"The recipient's system does not like the form of your address.", "Check the sender address that your program uses."},
	"1.8":  {"The recipient's system does not find the domain of your address.", "Check the sender address that your program uses."},
	"1.10": {"The domain of the address takes no mail.", checkAddress},
	"2.0":  {"Something is wrong with the recipient's mailbox.", otherWay},
	"2.1":  {"The recipient's mailbox is closed.", otherWay},
	"2.2":  {"The recipient's mailbox is full.", "Send the message again later, or tell the recipient in another way."},
	"2.3":  {"The message is larger than the recipient's mailbox takes.", smaller},
	"3.1":  {"The recipient's system is full.", "Send the message again later."},
	"3.4":  {"The message is larger than the recipient's system takes.", smaller},
	"4.1":  {"The recipient's system does not answer.", later},
	"4.2":  {"The connection to the recipient's system broke.", later},
	"4.3":  {"The name servers of the recipient's domain do not answer.", later},
	"4.4":  {"No host is known that takes mail for the address.", checkAddress},
	"4.6":  {"The message goes round in a circle.", "Tell the postmaster of the recipient's domain, whose mail hosts are set up wrongly."},
	"4.7":  {"The message could not be delivered in the time that it had.", later},
	"5.0":  {"The recipient's system does not understand what mail systems say to each other.", postmaster},
	"5.3":  {"The message has more recipients than the recipient's system takes.", "Send it to fewer at a time."},
	"6.0":  {"The recipient's system does not take the content of the message.", "Send it in another form."},
	"6.3":  {"The recipient's system takes no content of this kind.", "Send the message in a form of plain text, as in base64."},
	"6.7":  {"The recipient's system takes no addresses with letters like these.", "Send from, and to, addresses in plain letters."},
	"7.0":  {"The recipient's system refuses the message for what its rules say.", allowed},
	"7.1":  {"The recipient's system refuses the message for what its rules say.", allowed},
	"7.2":  {"Not everybody may send to this list.", "Ask its owner."},
	"7.4":  {"The message goes under TLS only, and that does not work with the recipient's system.", postmaster},
	"7.5":  {"The message goes to proven hosts only, and the recipient's system does not prove itself.", postmaster},
	"7.8":  {"The recipient's system wants the sender to log in.", postmaster},
	"7.10": {"The message goes under TLS only, and that does not work with the recipient's system.", postmaster},
	"7.20": {"The recipient's system finds no signature of yours (DKIM) that it believes.", postmaster},
	"7.23": {"The recipient's system finds that this host may not send for your domain (SPF).", postmaster},
	"7.25": {"The recipient's system finds no name for the address of this host.", postmaster},
	"7.26": {"The recipient's system cannot tell that the message is from your domain (SPF, DKIM, DMARC).", postmaster},
	"7.27": {"The recipient's system finds that your address takes no mail.", "Check the sender address that your program uses."},
	"7.28": {"The recipient's system thinks that it gets too much mail from here.", "Send more slowly, or later."},
	"7.30": {"The message asks for secure hosts only, and the recipient's system does not promise that (REQUIRETLS).", "Send it without that demand, if it need not be so secure."},
}

// What people can do.
const (
	checkAddress = "Check it for typing errors, or ask the recipient for the right one."
	otherWay     = "Tell the recipient in another way."
	smaller      = "Send a smaller one, as with a link in place of what is attached."
	later        = "Send the message again later, or tell the recipient in another way."
	postmaster   = "Show this report to your postmaster."
	allowed      = "Its answer may say why. If the recipient waits for your mail, ask for it to be let in."
)

// explain is what the status of a recipient means, and for one that failed what to do, or "".
func explain(rcpt *Recipient) string {
	if rcpt.Action != Failed && rcpt.Action != Delayed {
		return ""
	}
	code := status(rcpt)[2:]
	m, ok := meanings[code]
	switch {
	case !ok, rcpt.Action == Delayed && code == "4.7":
		return ""
	case rcpt.Action == Delayed:
		return m[0]
	}
	return m[0] + " " + m[1]
}
