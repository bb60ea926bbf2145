package ingress

import (
	"mailrace/engine/loop"
	"mailrace/proto/smtp"
)

// Senders knows which domains mail may come from.
type Senders interface {
	// Check says how mail from a domain is to be refused, or nil if it is not. Where that is not known yet, known is false, and tell is called on l,
	// which is the caller's loop, after Check has returned. domain holds until Check returns.
	Check(l *loop.Loop, domain []byte, tell func(refusal *smtp.Reply)) (refusal *smtp.Reply, known bool)
}

// checkSender asks whether mail may come from the domain of the reverse-path at hand, which is in the transaction already, and answers for MAIL, now or
// later. Meanwhile the session is parked. Clients that may relay, or are authenticated, are not asked about: their mail may begin anywhere.
func (s *session) checkSender(domain []byte) {
	if s.door.Senders == nil || len(domain) == 0 || s.relay || s.trusted || s.user != nil {
		s.answerSender(nil)
		return
	}
	refusal, known := s.door.Senders.Check(s.conn.Loop(), domain, s.senderChecked)
	if known {
		s.answerSender(refusal)
		return
	}
	s.parked, s.asking = true, true
}

// senderChecked goes on with what was found out about the domain of a sender.
func (s *session) senderChecked(refusal *smtp.Reply) {
	if s.asking {
		s.parked, s.asking = false, false
		s.answerSender(refusal)
		s.proceed()
	}
}

// answerSender answers for MAIL.
func (s *session) answerSender(refusal *smtp.Reply) {
	switch {
	case refusal != nil:
		s.door.Stats.NoSender.Inc()
		s.drop()
		s.smtp.Refuse(*refusal)
	case s.tx.lowered:
		s.smtp.AcceptChanged(s.tx.priority)
	default:
		s.smtp.Accept()
	}
}
