package ingress

import (
	"crypto/tls"
	"time"
)

// shake begins the TLS handshake of a session. Until secured is called it neither reads nor writes. first is for TLS from the start, where
// what came behind the header of a proxy belongs to it.
func (s *session) shake(first bool) {
	s.shaking = true
	s.conn.SetDeadline(s.door.Pace.Handshake)
	if first {
		s.conn.StartTLSAtOnce(s.door.TLS, s.secured)
	} else {
		s.conn.StartTLS(s.door.TLS, s.secured)
	}
}

// secured goes on under TLS, with nothing of what was said before. RFC 3207 §4.2
func (s *session) secured() {
	s.shaking = false
	s.door.Stats.Handshakes.Inc()
	state, _ := s.conn.TLS()
	s.tls = security{tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite)}
	s.helo = ""
	if s.user != nil { // by what was said in clear
		s.forget()
		_ = s.assess(s.hidden) // one that was let in stays
	}
	if s.vouched(&state) {
		s.relay, s.trusted, s.ends = true, true, time.Time{}
		s.leave() // it is counted no longer
	}
	s.smtp.Secured()
	if s.room.draining {
		s.end(replyDraining)
		return
	}
	if s.door.TLSFirst {
		s.delay()
		return
	}
	s.arm()
}

// vouched says whether the client has proved with a certificate that it may relay. The certificate of one that speaks for others proves
// nothing about them.
func (s *session) vouched(state *tls.ConnectionState) bool {
	if s.door.RelayCertificates == nil || len(state.VerifiedChains) == 0 || s.hearsay {
		return false
	}
	for _, name := range state.VerifiedChains[0][0].DNSNames {
		if s.door.RelayCertificates.Has([]byte(name)) {
			return true
		}
	}
	return false
}

// security is the TLS of a session; its fields are empty without.
type security struct{ version, cipher string }
