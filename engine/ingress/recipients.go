package ingress

import (
	"time"

	"mailrace/engine/loop"
	"mailrace/proto/smtp"
)

// Recipients knows who is there in the domains that are relayed for.
type Recipients interface {
	// Check says how a recipient is to be refused, or nil if it is not. Where that is not known yet, known is false, and tell is called on l, which
	// is the caller's loop, after Check has returned. rcpt holds until Check returns.
	Check(l *loop.Loop, rcpt *smtp.Path, tell func(refusal *smtp.Reply)) (refusal *smtp.Reply, known bool)
}

// Tarpit makes those who guess addresses wait for their replies. Zero = never.
type Tarpit struct {
	After int           // unknown recipients of a session that are told at once
	First time.Duration // before the reply to the next one; doubles with each
}

// tarpitMax is the longest wait for a reply.
const tarpitMax = 30 * time.Second

// wait is how long the reply to unknown recipient n of a session waits; the first is 1.
func (t *Tarpit) wait(n int) time.Duration {
	if t.First <= 0 || n <= t.After {
		return 0
	}
	return min(t.First<<min(n-t.After-1, 16), tarpitMax)
}

// checkRecipient asks who the recipient at hand is, which is in the transaction already, and answers, now or later. Meanwhile the session is
// parked.
func (s *session) checkRecipient() {
	if s.door.Recipients == nil {
		s.smtp.Accept()
		return
	}
	refusal, known := s.door.Recipients.Check(s.conn.Loop(), s.smtp.Rcpt(), s.checked)
	if known {
		s.answerRecipient(refusal)
		return
	}
	s.parked, s.asking = true, true
}

// checked goes on with what was found out about a recipient.
func (s *session) checked(refusal *smtp.Reply) {
	if s.asking {
		s.parked, s.asking = false, false
		s.answerRecipient(refusal)
		s.proceed()
	}
}

// answerRecipient answers for the recipient at hand. Strangers who have named too many that do not exist wait for it.
func (s *session) answerRecipient(refusal *smtp.Reply) {
	if refusal == nil {
		s.smtp.Accept()
		return
	}
	s.tx.dropRecipient()
	if refusal.Code >= 500 {
		s.door.Stats.NoRecipient.Inc()
		s.unknown++
		if d := s.door.Tarpit.wait(s.unknown); d > 0 && !s.trusted {
			s.delayReply(refusal, d)
			return
		}
	}
	s.smtp.Refuse(*refusal)
}

// delayReply lets the client wait for a refusal.
func (s *session) delayReply(refusal *smtp.Reply, d time.Duration) {
	s.parked, s.asking = true, true
	if s.tarpit == nil {
		s.tarpit = new(loop.Timer)
	}
	s.tarpit.Fire = func() {
		s.parked, s.asking = false, false
		s.smtp.Refuse(*refusal)
		s.proceed()
	}
	s.conn.Loop().After(d, s.tarpit)
}

// leaveRecipient forgets what the session waits for, whose client is gone.
func (s *session) leaveRecipient() {
	s.asking = false
	if s.tarpit != nil {
		s.tarpit.Stop()
	}
}
