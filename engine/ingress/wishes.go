package ingress

import (
	"time"

	"mailrace/proto/message"
	"mailrace/proto/smtp"
)

// Terms are what may be asked for the delivery of the mail that a door takes.
type Terms struct {
	HoldMax     time.Duration // for how long a message may be held (FUTURERELEASE); 0 = not at all
	Submission  bool          // the door is for those who hand in mail of their own: holding is announced although they have yet to say who they are
	PriorityMax int8          // highest priority that those who may relay can give (MT-PRIORITY), 0 to 9; others cannot raise it
}

// offer is what EHLO announces to the client as it is known now.
func (s *session) offer() (o smtp.Offer) {
	if !s.trusted {
		o.MaxMessages = s.door.Pace.Messages
	}
	if hold := s.door.Terms.HoldMax; hold >= time.Second && (s.relay || s.door.Terms.Submission) { // RFC 4865 §4.2
		o.HoldMax, o.HoldUntil = int64(hold/time.Second), s.conn.Loop().Now().Add(hold).Unix()
	}
	o.NoStartTLS = s.door.TLSReady != nil && !s.door.TLSReady()
	return o
}

// wishes are what MAIL asks for, and what of it the client gets. The refusal has no code where there is none.
func (s *session) wishes(now time.Time, p *smtp.MailParams) (w message.Wishes, refusal smtp.Reply) {
	if p.HoldFor > 0 || p.HoldUntil != 0 {
		if !s.relay {
			return w, replyNoHolding
		}
		if p.HoldFor > 0 {
			w.Release = now.UnixNano() + p.HoldFor*int64(time.Second)
		} else if p.HoldUntil > now.Unix() { // a time that has passed asks for nothing
			w.Release = p.HoldUntil * int64(time.Second)
		}
	}
	if p.By.Mode != message.ByNone {
		w.Deadline, w.ByMode, w.ByTrace = now.UnixNano()+p.By.Seconds*int64(time.Second), p.By.Mode, p.By.Trace
		if w.Release > w.Deadline {
			return w, replyReleaseLate
		}
	}
	w.Priority = p.Priority
	switch most := s.door.Terms.PriorityMax; {
	case p.Priority > 0 && !s.relay: // RFC 6710 §4.1
		w.Priority = 0
	case p.Priority > most:
		w.Priority = most
	}
	return w, smtp.Reply{}
}

// wish keeps what is to be done about the delivery of the message.
func (tx *transaction) wish(w message.Wishes) {
	tx.wishes = nil
	if w != (message.Wishes{}) {
		tx.wishes = &message.Wishes{Release: w.Release, Deadline: w.Deadline, ByMode: w.ByMode, ByTrace: w.ByTrace, Priority: w.Priority}
	}
}
