package egress

import (
	"fmt"

	"mailrace/router"
)

// relayPort is where hosts take mail from each other. RFC 5321 §4.5.4.2
const relayPort = 25

// ourselves sees to a host that greets with our own name: mail that is sent there comes back. It reports whether the host is one.
//
// Where no host is preferred to it, its mail has nowhere to go and bounces, message by message; else it counts as a host that does not work, for
// those that are preferred may come back. RFC 5321 §5.1. Of hosts that the operator named only port 25 is judged: filters on this machine, at ports of
// their own, often have its name. So have stores behind LMTP.
func (s *session) ourselves() bool {
	target := s.link.Target()
	if !s.smtp.Own() || target.Kind != router.MX && (target.Kind != router.Host || target.Addr.Port() != relayPort) {
		return false
	}
	s.opts.Stats.Own.Inc()
	if s.link.Best() {
		s.own = true
		s.up()
		return true
	}
	s.close(router.GoneRefused, &router.Outcome{Class: router.Deferred, Enhanced: "4.4.6", Text: "the host greets with the name of this host: mail would come back"})
	return true
}

// loops is the outcome for mail that this host would send to itself.
func (s *session) loops() *router.Outcome {
	return &router.Outcome{
		Class: router.Bounced, Code: 554, Enhanced: "5.4.6",
		Text: fmt.Sprintf("mail for this domain loops back to this host: %s, which should take it, greets with our own name", s.link.Target().Host),
	}
}
