package smtp

import (
	"strconv"
	"time"
)

// Offer is what EHLO announces to some clients and not to others, or otherwise.
type Offer struct {
	MaxMessages int   // messages of the session: MAILMAX of LIMITS; 0 = no limit. RFC 9422 §4.1
	HoldMax     int64 // seconds for which a message may be held: FUTURERELEASE; 0 = it is not offered. RFC 4865
	HoldUntil   int64 // until when a message may be held, Unix seconds
	NoStartTLS  bool  // STARTTLS is not offered, although it is configured
}

// Offer sets what this client is offered beside what all are. It holds for MAIL from now on, and is announced with the next answer to EHLO.
func (s *Server) Offer(o Offer) { s.offer = o }

// maxLimit is the largest value of a limit. RFC 9422 §4
const maxLimit = 999_999

// sayHello queues the good answer to HELO or EHLO.
func (s *Server) sayHello() {
	if !s.extended {
		s.say("250 ", s.cfg.Hostname, "\r\n")
		return
	}
	s.say("250-", s.cfg.Hostname, "\r\n250-PIPELINING\r\n250-SIZE ")
	s.out = strconv.AppendInt(s.out, s.maxSize(), 10)
	if s.startTLS() && !s.secured {
		s.say("\r\n250-STARTTLS")
	}
	if s.secured {
		s.say("\r\n250-REQUIRETLS") // RFC 8689 §2: under TLS only
	}
	s.sayMechanisms()
	if s.speaker.allowed {
		s.say("\r\n", announcedFacts)
		if s.servesAuth() {
			s.say(" LOGIN")
		}
	}
	s.sayLimits()
	if s.offer.HoldMax > 0 {
		s.say("\r\n250-FUTURERELEASE ")
		s.out = append(strconv.AppendInt(s.out, s.offer.HoldMax, 10), ' ')
		s.out = time.Unix(s.offer.HoldUntil, 0).UTC().AppendFormat(s.out, time.RFC3339)
	}
	s.say("\r\n250-DELIVERBY")
	if s.cfg.MinDeliverBy > 0 {
		s.out = strconv.AppendInt(append(s.out, ' '), s.cfg.MinDeliverBy, 10)
	}
	s.say("\r\n250-MT-PRIORITY\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN")
	if !s.cfg.NoChunking {
		s.say("\r\n250-CHUNKING")
	}
	if !s.cfg.NoBinary && !s.cfg.NoChunking {
		s.say("\r\n250-BINARYMIME")
	}
	s.say("\r\n250 ENHANCEDSTATUSCODES\r\n")
}

// sayLimits queues the line of LIMITS, if there are any to tell. RFC 9422 §3
func (s *Server) sayLimits() {
	recipients, messages := s.maxRecipients(), s.offer.MaxMessages
	if messages < 1 || messages > maxLimit {
		messages = 0
	}
	if recipients > maxLimit && messages == 0 {
		return
	}
	s.say("\r\n250-LIMITS")
	if recipients <= maxLimit {
		s.say(" RCPTMAX=")
		s.out = strconv.AppendInt(s.out, int64(recipients), 10)
	}
	if messages > 0 {
		s.say(" MAILMAX=")
		s.out = strconv.AppendInt(s.out, int64(messages), 10)
	}
}

func (s *Server) maxRecipients() int { return orDefault(s.cfg.MaxRecipients, DefaultMaxRecipients) }
