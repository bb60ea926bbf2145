package egress

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"mailrace/proto/message"
	"mailrace/proto/smtp"
	"mailrace/router"
)

// begin queues the envelope of the upcoming delivery, or settles it where the peer cannot take it.
func (s *session) begin() {
	d := s.upcoming
	s.upcoming = nil
	if o := s.unfit(d); o != nil {
		s.end(d, o)
		return
	}
	m := d.tx.Message
	p := s.params(d)
	for place, i := range d.tx.Recipients {
		d.rcpts, d.places = append(d.rcpts, m.Recipients[i].Address), append(d.places, place)
	}
	for {
		err := s.smtp.Begin(m.From, p, d.rcpts, d.params...)
		if err == nil {
			s.line = append(s.line, d)
			d.chunked, d.size = p.Body == smtp.BodyBinary || s.chunks.on, p.Size
			s.chunks.octets += d.size
			if d.chunked && s.smtp.Extensions().Has(smtp.ExtPipelining) {
				s.sending = d
			}
			return
		}
		var bad *smtp.AddressError
		switch {
		case errors.As(err, &bad) && bad.Index >= 0 && len(d.rcpts) > 1:
			d.rejected = append(d.rejected, rejection{d.places[bad.Index], badEnvelope(err)})
			d.rcpts = slices.Delete(d.rcpts, bad.Index, bad.Index+1)
			d.places = slices.Delete(d.places, bad.Index, bad.Index+1)
			if len(d.params) > 0 {
				d.params = slices.Delete(d.params, bad.Index, bad.Index+1)
			}
		default:
			s.end(d, badEnvelope(err))
			return
		}
	}
}

// badEnvelope is the outcome for an envelope that cannot be put on the wire.
func badEnvelope(err error) *router.Outcome {
	o := &router.Outcome{Class: router.Bounced, Code: 553, Enhanced: "5.1.3", Text: err.Error()}
	switch {
	case errors.Is(err, smtp.ErrTooLarge):
		o.Code, o.Enhanced = 552, "5.3.4"
	case errors.Is(err, smtp.ErrNeedsDeliverBy): // a second passed since tooLate looked
		o.Code, o.Enhanced = 554, "5.4.7"
	}
	return o
}

// StatusConversion is the enhanced status code of a message that would have to be converted for the next host. RFC 3463 §3.7
const StatusConversion = "5.6.3"

// unfit says why the peer cannot take a message, or nil. RFC 3030 §3, RFC 6152 §3, RFC 6531 §3.4: nothing is sent that was not announced.
func (s *session) unfit(d *delivery) *router.Outcome {
	m, ext := d.tx.Message, s.smtp.Extensions()
	switch {
	case s.own:
		return s.loops()
	case m.Flags&message.SMTPUTF8 != 0 && !ext.Has(smtp.ExtSMTPUTF8) && d.international():
		return &router.Outcome{Class: router.Bounced, Code: 553, Enhanced: "5.6.7", Text: "The next host does not offer SMTPUTF8, which this message needs"}
	case m.Flags&message.Binary != 0:
		if !ext.Has(smtp.ExtChunking | smtp.ExtBinaryMIME) {
			return &router.Outcome{Class: router.Bounced, Code: 554, Enhanced: StatusConversion, Text: "The next host does not offer BINARYMIME, which this message needs: send it in base64"}
		}
	case m.Flags&message.Body8Bit != 0 && !ext.Has(smtp.Ext8BitMIME):
		return &router.Outcome{Class: router.Bounced, Code: 554, Enhanced: StatusConversion, Text: "The next host does not offer 8BITMIME, which this message needs"}
	}
	return s.tooLate(m)
}

// international says whether anything of d may be what SMTPUTF8 is for. A message that was declared so and is of ASCII throughout goes on without;
// of one with 8-bit content nobody knows whether it is the header section. RFC 6531 §3.2
func (d *delivery) international() bool {
	m := d.tx.Message
	if m.Flags&(message.Body8Bit|message.Binary) != 0 || !isASCII(m.From) {
		return true
	}
	for _, i := range d.tx.Recipients {
		if !isASCII(m.Recipients[i].Address) || m.DSN != nil && !isASCII(m.DSN.Original(i)) {
			return true
		}
	}
	return false
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// tooLate says why the peer cannot be trusted to deliver a message in time that is to be returned otherwise, or nil. RFC 2852 §4.1.4
func (s *session) tooLate(m *message.Message) *router.Outcome {
	if m.Wishes == nil || m.Wishes.ByMode != message.ByReturn {
		return nil
	}
	o := router.Outcome{Class: router.Bounced, Code: 554, Enhanced: "5.4.7"}
	switch left, least := s.timeLeft(m), s.smtp.MinDeliverBy(); {
	case left < 1: // it passed since the router looked, which then says so, and what hosts replied so far
		return &router.Outcome{Class: router.Deferred}
	case !s.smtp.Extensions().Has(smtp.ExtDeliverBy):
		o.Text = "The next host does not offer DELIVERBY, which this message needs to be returned when it is late"
	case left < least:
		o.Text = fmt.Sprintf("The next host takes no message that is to be delivered within %d s: it asks for %d s at least", left, least)
	default:
		return nil
	}
	return &o
}

// timeLeft is how many seconds are left until the deadline of a message that has one, of which the last counts although it has begun.
func (s *session) timeLeft(m *message.Message) int64 {
	const most = 999_999_999 // RFC 2852 §3
	left := m.Wishes.Deadline - s.loop.Now().UnixNano()
	if left > 0 {
		left += int64(time.Second) - 1
	}
	return min(max(left/int64(time.Second), -most), most)
}

// params are the parameters of MAIL for a delivery; those of RCPT are in d.params then.
func (s *session) params(d *delivery) smtp.MailParams {
	m, ext := d.tx.Message, s.smtp.Extensions()
	p := smtp.MailParams{Size: m.Size + int64(len(d.traceHeader())), SMTPUTF8: m.Flags&message.SMTPUTF8 != 0 && ext.Has(smtp.ExtSMTPUTF8)}
	switch {
	case m.Flags&message.Binary != 0:
		p.Body = smtp.BodyBinary
	case m.Flags&message.Body8Bit != 0:
		p.Body = smtp.Body8Bit
	}
	if m.Flags&message.RequireTLS != 0 {
		p.RequireTLS = s.trusted() == nil
	}
	if w := m.Wishes; w != nil {
		p.Priority = w.Priority
		if w.ByMode != message.ByNone {
			p.By = smtp.DeliverBy{Seconds: s.timeLeft(m), Mode: w.ByMode, Trace: w.ByTrace}
		}
	}
	if ext.Has(smtp.ExtDSN) {
		d.passOn(&p)
	}
	return p
}

// passOn adds to p and to d.params what the sender said about its notifications: with the message the duty to notify goes to the next host.
// RFC 3461 §5.2.1
func (d *delivery) passOn(p *smtp.MailParams) {
	m := d.tx.Message
	if m.DSN != nil {
		p.Return, p.EnvID = m.DSN.Return, smtp.AppendXtext(nil, m.DSN.EnvelopeID)
	}
	said := m.DSN != nil && len(m.DSN.Originals) > 0
	for _, i := range d.tx.Recipients {
		said = said || m.Recipients[i].Notify != message.NotifyDefault
	}
	if !said {
		return
	}
	for _, i := range d.tx.Recipients {
		r := smtp.RcptParams{Notify: m.Recipients[i].Notify}
		if original := m.DSN.Original(i); original != "" {
			r.Original = smtp.AppendOriginal(nil, original)
		}
		d.params = append(d.params, r)
	}
}
