package ingress

// enter has the connection counted, unless its client is trusted, and says whether it may stay.
func (s *session) enter() verdict {
	if s.door.Clients == nil || s.trusted {
		return admitted
	}
	var why verdict
	if s.visit, why = s.door.Clients.enter(s.remote.Addr(), s.conn.Loop().Now()); why != admitted {
		s.door.Stats.Quota[why].Inc()
		return why
	}
	s.counted = true
	return admitted
}

// leave ends what enter began.
func (s *session) leave() {
	if s.counted {
		s.countFaults()
		s.counted = false
		s.door.Clients.leave(s.visit)
	}
}

// askMessage says whether the client may begin another message.
func (s *session) askMessage() (why verdict) {
	if s.user != nil {
		if why = s.askUser(); why != admitted {
			s.door.Stats.Quota[why].Inc()
		}
		return why
	}
	if !s.counted {
		return admitted
	}
	if s.recipients, why = s.door.Clients.message(s.visit, s.conn.Loop().Now()); why != admitted {
		s.door.Stats.Quota[why].Inc()
	}
	return why
}

// askRecipient refuses a recipient over the quota. RFC 5321 §4.5.3.1.10: the client tries it again.
func (s *session) askRecipient() bool {
	if !s.counted && s.user == nil || len(s.tx.ends) < s.recipients {
		return true
	}
	why := tooManyRecipients
	if s.user != nil {
		why = userRecipients
	}
	s.door.Stats.Quota[why].Inc()
	if s.surplus++; s.surplus > surplusMax {
		s.smtp.Refuse(replySurplus)
	} else {
		s.smtp.Refuse(replyQuota[why])
	}
	return false
}

// countRecipients counts those of a transaction that ends, for whatever reason: an address that was tried is no less tried.
func (s *session) countRecipients() {
	switch {
	case len(s.tx.ends) == 0:
	case s.user != nil:
		s.user.AddRecipients(len(s.tx.ends), s.conn.Loop().Now())
	case s.counted:
		s.door.Clients.add(s.visit, len(s.tx.ends), 0, s.conn.Loop().Now())
	}
}

// countFaults counts the errors that are new.
func (s *session) countFaults() {
	if n := s.smtp.Faults(); n != s.faults {
		if s.counted {
			s.door.Clients.add(s.visit, 0, n-s.faults, s.conn.Loop().Now())
		}
		s.faults = n
	}
}
