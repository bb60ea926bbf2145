package smtp

import (
	"bytes"
	"encoding/base64"
	"slices"
)

// Replies of AUTH. RFC 4954 §6
const (
	replyEncryption  = "538 5.7.11 Encryption required for authentication: use TLS\r\n"
	replyMechanism   = "504 5.5.4 Authentication mechanism not supported\r\n"
	replyBase64      = "501 5.5.2 Not valid base64\r\n"
	replyCancelled   = "501 5.7.0 Authentication cancelled\r\n"
	replyAuthAlready = "503 5.5.1 Already authenticated\r\n"
)

// strictBase64 takes one spelling of a value only: bits that do not count must be zero. RFC 4648 §3.5
var strictBase64 = base64.StdEncoding.Strict()

// authentication is the state of AUTH in a session. RFC 4954
type authentication struct {
	done      bool   // a user is authenticated: no second AUTH
	begins    bool   // the question at hand is the first of an exchange
	mechanism string // of the exchange at hand, as ServerConfig spells it
	response  []byte // what the client said, decoded; nil = there was no initial response
}

// end forgets the exchange, with the secrets in it.
func (a *authentication) end() {
	clear(a.response)
	a.begins, a.mechanism, a.response = false, "", nil
}

// AuthMechanism is the mechanism of the exchange that the Auth event asks about, as ServerConfig spells it.
func (s *Server) AuthMechanism() string { return s.auth.mechanism }

// AuthBegins reports whether the Auth event at hand is the first of its exchange. An exchange before it that was not answered to the end was
// cancelled by the client.
func (s *Server) AuthBegins() bool { return s.auth.begins }

// AuthResponse is what the client said, decoded: nil where an exchange begins without an initial response, which asks for a challenge,
// empty if the response is. It holds until the question is answered, and is wiped then.
func (s *Server) AuthResponse() []byte { return s.auth.response }

// Authenticated reports whether a user is authenticated.
func (s *Server) Authenticated() bool { return s.auth.done }

// Challenge answers the Auth question at hand with a challenge, which may be empty. The client's response, if it does not give up, is the
// next Auth event.
func (s *Server) Challenge(challenge []byte) {
	if s.question != Auth {
		return
	}
	s.question = NeedInput
	s.phase = phaseAuth
	clear(s.auth.response)
	s.auth.response, s.auth.begins = nil, false
	s.out = append(base64.StdEncoding.AppendEncode(append(s.out, "334 "...), challenge), "\r\n"...)
}

// servesAuth reports whether AUTH is offered here, under TLS at least.
func (s *Server) servesAuth() bool { return len(s.cfg.Auth)+len(s.cfg.AuthClear) > 0 }

// mechanisms are those that the session may use now.
func (s *Server) mechanisms() []string {
	if s.secured {
		return s.cfg.Auth
	}
	return s.cfg.AuthClear
}

// sayMechanisms queues the line of EHLO: RFC 4954 §3.
func (s *Server) sayMechanisms() {
	if mechanisms := s.mechanisms(); len(mechanisms) > 0 && !s.auth.done {
		s.say("\r\n250-AUTH")
		for _, m := range mechanisms {
			s.say(" ", m)
		}
	}
}

// longLine is the limit of a command line that begins with p: longer for AUTH, whose initial response may be a ticket or a token.
func (s *Server) longLine(p []byte, limit int) int {
	if len(p) >= limit && limit < maxAuthLine && len(s.mechanisms()) > 0 {
		if _, ok := cutPrefixFold(p, "AUTH "); ok {
			return maxAuthLine
		}
	}
	return limit
}

// commandAuth begins an exchange. RFC 4954 §4
func (s *Server) commandAuth(args []byte) Event {
	word, initial, given := bytes.Cut(args, spaceByte)
	known := func(m string) bool { return equalFold(word, m) }
	i := slices.IndexFunc(s.mechanisms(), known)
	switch {
	case !s.servesAuth():
		return s.fail(replyNotServed)
	case s.auth.done:
		return s.fail(replyAuthAlready)
	case !s.greeted || !s.extended || s.tx.open:
		return s.fail(replyNotNow)
	case len(word) == 0:
		return s.fail(replyArgument)
	case i < 0 && !s.secured && slices.ContainsFunc(s.cfg.Auth, known):
		return s.fail(replyEncryption)
	case i < 0:
		return s.fail(replyMechanism)
	}
	if ended := s.count(); ended != NeedInput {
		return ended
	}
	s.auth.end()
	if initial = trimSpaces(initial); given && len(initial) > 0 {
		if len(initial) == 1 && initial[0] == '=' { // an empty response, as opposed to none
			initial = nil
		}
		if !s.auth.decode(initial) {
			return s.fail(replyBase64)
		}
	}
	s.auth.begins, s.auth.mechanism = true, s.mechanisms()[i]
	return s.ask(Auth)
}

// readResponse reads the client's answer to a challenge.
func (s *Server) readResponse(p []byte) (int, Event) {
	presented := len(p)
	p = p[:min(presented, maxAuthLine)]
	lf := bytes.IndexByte(p, '\n')
	switch {
	case lf < 0 && len(p) < maxAuthLine:
		return 0, NeedInput
	case lf < 0:
		s.auth.end()
		s.phase = phaseLongLine
		return s.skipLine(p)
	case lf == 0 || p[lf-1] != '\r':
		return lf + 1, s.abort(replyBareLF)
	}
	s.phase = phaseCommand
	switch line := p[:lf-1]; {
	case len(line) == 1 && line[0] == '*':
		s.auth.end()
		return lf + 1, s.fail(replyCancelled)
	case !s.auth.decode(line):
		s.auth.end()
		return lf + 1, s.fail(replyBase64)
	}
	return lf + 1, s.ask(Auth)
}

// decode takes a response in base64.
func (a *authentication) decode(text []byte) bool {
	if controlIn(text) != noControl { // the decoder would skip line ends
		return false
	}
	a.response = make([]byte, strictBase64.DecodedLen(len(text)))
	n, err := strictBase64.Decode(a.response, text)
	a.response = a.response[:n]
	return err == nil
}
