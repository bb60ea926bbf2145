package engine

import (
	"sync/atomic"

	"mailrace/engine/loop"
	"mailrace/proto/smtp"
	"mailrace/router"
	"mailrace/router/mx"
)

// Replies to mail from domains that no notification could go to. What DNS has no verdict on is taken.
var (
	replyNullSender = smtp.Reply{Code: 550, Enhanced: "5.7.27", Text: "The domain of the sender takes no mail (null MX)"} // RFC 7505 §4.2
	replyNoSender   = smtp.Reply{Code: 550, Enhanced: "5.1.8", Text: "The domain of the sender does not exist, or has neither MX nor address"}
)

// sendersMax is how many lookups of senders' domains may be under way: strangers choose the names, and deliveries need the name servers, too.
const sendersMax = 512

// senders is ingress.Senders by DNS. Any loop.
type senders struct {
	resolver router.Resolver
	under    atomic.Int64
}

// Check is ingress.Senders.
func (s *senders) Check(l *loop.Loop, domain []byte, tell func(*smtp.Reply)) (refusal *smtp.Reply, known bool) {
	name, err := mx.Normal(string(domain))
	if err != nil || name[0] == '[' { // the parser of the path has seen to what is no domain
		return nil, true
	}
	q := mx.Query{Kind: mx.Exchangers, Name: name}
	if a, ok := s.resolver.Cached(q); ok {
		return refusalOf(a), true
	}
	if s.under.Add(1) > sendersMax {
		s.under.Add(-1)
		return nil, true
	}
	asked := s.resolver.Lookup(q, func(a *mx.Answer) {
		s.under.Add(-1)
		l.Post(func() { tell(refusalOf(a)) })
	})
	if !asked {
		s.under.Add(-1)
		return nil, true
	}
	return nil, false
}

// refusalOf is how mail from a domain with that answer is refused, or nil.
func refusalOf(a *mx.Answer) *smtp.Reply {
	switch {
	case a.Class != mx.Permanent:
	case a.Enhanced == "5.1.10":
		return &replyNullSender
	case a.Enhanced == "5.1.2":
		return &replyNoSender
	}
	return nil
}
