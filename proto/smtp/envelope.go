package smtp

import (
	"errors"
	"fmt"
	"strconv"

	"mailrace/proto/message"
)

// Why Begin refuses an envelope. Nothing of it was queued, and the session is as it was.
var (
	// ErrNotReady: CanBegin is false, or there are no recipients.
	ErrNotReady = errors.New("no transaction may begin now")
	// ErrNeedsSMTPUTF8: the server does not offer SMTPUTF8. 5.6.7, RFC 6531 §3.2.
	ErrNeedsSMTPUTF8 = errors.New("server does not offer SMTPUTF8")
	// ErrNeeds8BitMIME: the server does not offer 8BITMIME. 5.6.3, RFC 6152 §3.
	ErrNeeds8BitMIME = errors.New("server does not offer 8BITMIME")
	// ErrNeedsBinaryMIME: the server does not offer both CHUNKING and BINARYMIME. 5.6.3, RFC 3030 §3.
	ErrNeedsBinaryMIME = errors.New("server does not offer BINARYMIME")
	// ErrNeedsRequireTLS: the server does not offer REQUIRETLS under TLS. 5.7.30, RFC 8689 §4.2.1.
	ErrNeedsRequireTLS = errors.New("server does not offer REQUIRETLS")
	// ErrNeedsDeliverBy: the server does not offer DELIVERBY to a message that is to be returned when it is late, or not for so short a
	// time. 5.4.7, RFC 2852 §4.
	ErrNeedsDeliverBy = errors.New("server does not promise to deliver in time")
	// ErrTooLarge: over the SIZE that the server offers. 5.3.4, RFC 1870 §6.1.
	ErrTooLarge = errors.New("message too large for the server")
	// ErrParameter: a parameter that is none, or parameters of RCPT that are not one for each recipient.
	ErrParameter = errors.New("bad parameter")
)

// AddressError is an address that cannot be put into a command.
type AddressError struct {
	Index int // of the recipient, or -1 for the reverse-path
	Err   error
}

func (e *AddressError) Error() string {
	if e.Index < 0 {
		return fmt.Sprintf("reverse-path: %v", e.Err)
	}
	return fmt.Sprintf("recipient %d: %v", e.Index, e.Err)
}

func (e *AddressError) Unwrap() error { return e.Err }

// Begin queues an envelope: MAIL, a RCPT for each of rcpts and DATA in one go where the server has PIPELINING, else MAIL, and the others as
// the replies arrive. Of p everything but Path and Domain counts: Return and EnvID, and params, which has an entry for each recipient or is
// empty, go to servers that offer DSN only; By with ByNotify and Priority only to those that offer the extension. from and rcpts are addresses
// without angle brackets, from "" is the null reverse-path; rcpts and what p and params point to must not change until the transaction has
// ended.
//
// With BodyBinary, and after UseChunks where p.Size is not 0, the content goes by BDAT, and p.Size is exactly how many octets it has. Where the
// server has PIPELINING it follows the envelope: no ClientStart comes, write Pending, then the content, whatever is replied meanwhile, then
// call EndContent.
//
// It is the one place where arguments become commands. What is written is read back by ParsePath, so no address can hold a control
// character, or end its brackets and go on with parameters, or be 8-bit without SMTPUTF8. The error is an *AddressError or one of those
// above, and then nothing is queued.
func (c *Client) Begin(from string, p MailParams, rcpts []string, params ...RcptParams) error {
	switch {
	case !c.CanBegin() || len(rcpts) == 0:
		return ErrNotReady
	case p.SMTPUTF8 && !c.ext.Has(ExtSMTPUTF8):
		return ErrNeedsSMTPUTF8
	case p.Body == Body8Bit && !c.ext.Has(Ext8BitMIME):
		return ErrNeeds8BitMIME
	case p.Body == BodyBinary && !c.ext.Has(ExtChunking|ExtBinaryMIME):
		return ErrNeedsBinaryMIME
	case p.RequireTLS && !(c.secured && c.ext.Has(ExtRequireTLS)):
		return ErrNeedsRequireTLS
	case p.By.Mode == message.ByReturn && (!c.ext.Has(ExtDeliverBy) || p.By.Seconds < max(c.offer.deliverBy, 1)):
		return ErrNeedsDeliverBy
	case c.maxSize > 0 && p.Size > c.maxSize:
		return ErrTooLarge
	case !validDSN(&p, rcpts, params) || !p.By.valid() || p.Priority < -message.PriorityMax || p.Priority > message.PriorityMax:
		return ErrParameter
	}
	return c.begin(clientTransaction{from: from, params: p, rcpts: rcpts, rcptParams: params, chunked: p.Body == BodyBinary || c.window > 0 && p.Size > 0})
}

// begin queues the envelope of next.
func (c *Client) begin(next clientTransaction) error {
	start := len(c.out)
	t := c.room()
	next.taken = t.taken[:0]
	*t = next
	t.step = stepMail
	// A server may keep the envelope of a chunk that it refused, and whether it does is not known yet. RFC 3030 §2
	if c.resetDue || c.count > 0 && c.newest().chunked {
		t.step = stepReset
		c.queue("RSET\r\n")
	}
	firstEnd := len(c.out)
	if err := c.queueEnvelope(t); err != nil {
		c.out = c.out[:start]
		return err
	}
	c.resetDue = false
	c.count++
	if !c.pipelining() {
		c.out = c.out[:firstEnd] // the envelope is checked; its commands go one by one
		if t.step == stepMail {
			c.queueMail(t)
		}
	}
	return nil
}

// queueEnvelope queues MAIL, RCPT and what begins the content, and checks the addresses where they stand in the output.
func (c *Client) queueEnvelope(t *clientTransaction) error {
	at := len(c.out) + len("MAIL FROM:")
	c.queueMail(t)
	path, _, err := ParsePath(c.out[at:], t.params.SMTPUTF8)
	if err == nil && t.from != "" && len(path.Domain) == 0 {
		err = ErrNoDomain
	}
	if err == nil && len(path.Path) != len(t.from) {
		err = ErrPathSyntax
	}
	if err != nil {
		return &AddressError{Index: -1, Err: err}
	}
	for i, rcpt := range t.rcpts {
		at = len(c.out) + len("RCPT TO:")
		c.queueRcpt(t, i)
		path, _, err := ParsePath(c.out[at:], t.params.SMTPUTF8)
		switch {
		case err != nil:
			return &AddressError{Index: i, Err: err}
		case rcpt == "":
			return &AddressError{Index: i, Err: ErrNullPath}
		case len(path.Path) != len(rcpt): // it ended early, or began with a source route
			return &AddressError{Index: i, Err: ErrPathSyntax}
		}
	}
	switch {
	case t.probe:
	case t.chunked:
		c.queueChunk(t)
	default:
		c.queue("DATA\r\n")
	}
	return nil
}

// queueChunk queues the BDAT that all of the content follows.
func (c *Client) queueChunk(t *clientTransaction) {
	c.queue("BDAT ")
	c.out = strconv.AppendInt(c.out, t.params.Size, 10)
	c.queue(" LAST\r\n")
}

// queueMail queues MAIL with the parameters that the server offers.
func (c *Client) queueMail(t *clientTransaction) {
	c.queue("MAIL FROM:<", t.from, ">")
	if t.params.Size > 0 && c.ext.Has(ExtSize) {
		c.queue(" SIZE=")
		c.out = strconv.AppendInt(c.out, t.params.Size, 10)
	}
	switch t.params.Body {
	case Body8Bit:
		c.queue(" BODY=8BITMIME")
	case BodyBinary:
		c.queue(" BODY=BINARYMIME")
	}
	if t.params.SMTPUTF8 {
		c.queue(" SMTPUTF8")
	}
	if t.params.RequireTLS {
		c.queue(" REQUIRETLS")
	}
	c.queueWishes(&t.params)
	if c.ext.Has(ExtDSN) {
		switch t.params.Return {
		case message.ReturnFull:
			c.queue(" RET=FULL")
		case message.ReturnHeaders:
			c.queue(" RET=HDRS")
		}
		if len(t.params.EnvID) > 0 {
			c.queue(" ENVID=")
			c.out = append(c.out, t.params.EnvID...)
		}
	}
	c.queue("\r\n")
}

// queueWishes queues what was asked for about the delivery.
func (c *Client) queueWishes(p *MailParams) {
	if p.By.Mode != message.ByNone && c.ext.Has(ExtDeliverBy) {
		c.queue(" BY=")
		c.out = strconv.AppendInt(c.out, p.By.Seconds, 10)
		c.queue(byModes[p.By.Mode])
		if p.By.Trace {
			c.queue("T")
		}
	}
	if p.Priority != 0 && c.ext.Has(ExtPriority) {
		c.queue(" MT-PRIORITY=")
		c.out = strconv.AppendInt(c.out, int64(p.Priority), 10)
	}
}

// byModes are the modes of BY.
var byModes = [...]string{message.ByReturn: ";R", message.ByNotify: ";N"}

// maxBySeconds is what nine digits hold. RFC 2852 §3
const maxBySeconds = 999_999_999

// valid reports whether b can be a parameter.
func (b *DeliverBy) valid() bool {
	return int(b.Mode) < len(byModes) && b.Seconds >= -maxBySeconds && b.Seconds <= maxBySeconds
}

// queueRcpt queues RCPT for recipient i with the parameters that the server offers.
func (c *Client) queueRcpt(t *clientTransaction, i int) {
	c.queue("RCPT TO:<", t.rcpts[i], ">")
	if len(t.rcptParams) > 0 && c.ext.Has(ExtDSN) {
		p := &t.rcptParams[i]
		if p.Notify != message.NotifyDefault {
			c.queue(" NOTIFY=", notifyLists[p.Notify])
		}
		if len(p.Original) > 0 {
			c.queue(" ORCPT=")
			c.out = append(c.out, p.Original...)
		}
	}
	c.queue("\r\n")
}

// notifyLists are the values of NOTIFY.
var notifyLists = [...]string{
	1: "NEVER", 2: "SUCCESS", 4: "FAILURE", 6: "SUCCESS,FAILURE", 8: "DELAY", 10: "SUCCESS,DELAY", 12: "FAILURE,DELAY", 14: "SUCCESS,FAILURE,DELAY",
}

// validDSN reports whether the parameters of DSN are such as the server machine lets in: nothing else goes out.
func validDSN(p *MailParams, rcpts []string, params []RcptParams) bool {
	if len(params) > 0 && len(params) != len(rcpts) || len(p.EnvID) > maxEnvelopeID || !validXtext(p.EnvID) {
		return false
	}
	for i := range params {
		if r := &params[i]; !r.Notify.Valid() || len(r.Original) > 0 && !validOriginal(r.Original, p.SMTPUTF8) {
			return false
		}
	}
	return true
}

// EndContent says that the content under way is written, by DATA with CRLF at its end, and queues the end of data where there is one.
func (c *Client) EndContent() {
	if c.count == 0 {
		return
	}
	switch t := c.newest(); {
	case t.chunked && !t.written && (c.pipelining() || t.step == stepContent):
		t.written = true
		if t.step == stepContent {
			t.step = stepFinal
		}
	case !t.chunked && t.step == stepContent:
		t.step = stepFinal
		c.queue(".\r\n")
	}
}

// Reset queues RSET, answered by ClientReady. It reports false, and does nothing, unless the session is up with no transaction under way.
func (c *Client) Reset() bool {
	if !c.CanBegin() || c.count > 0 {
		return false
	}
	c.resetting, c.resetDue = true, false
	c.queue("RSET\r\n")
	return true
}

// Quit queues QUIT, answered by ClientGone. It reports false, and does nothing, where QUIT would be read as something else: before the
// greeting, or while an envelope or content is under way. Then the connection is closed without it.
func (c *Client) Quit() bool {
	switch {
	case c.quitting || c.phase != clientUp && c.phase != clientRefused:
		return false
	case c.count > 0 && !c.newest().sent():
		return false
	}
	c.quitting = true
	c.queue("QUIT\r\n")
	return true
}

// queue appends to the output. Arguments among the parts are checked by queueEnvelope and takeBanner.
func (c *Client) queue(parts ...string) {
	for _, part := range parts {
		c.out = append(c.out, part...)
	}
}

// validWord reports whether s is one word of printable ASCII.
func validWord(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}
