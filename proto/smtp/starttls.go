package smtp

// commandStartTLS asks for TLS. RFC 3207 §4. Whatever was sent behind the command in clear could be anybody's: the session ends there, so
// that not a byte of it is read under TLS.
func (s *Server) commandStartTLS(args []byte) Event {
	switch {
	case s.secured:
		return s.fail(replyNotNow)
	case !s.startTLS():
		return s.fail(replyNotServed)
	case len(args) > 0:
		return s.fail(replyNoArgument)
	case !s.greeted || s.tx.open:
		return s.fail(replyNotNow)
	case s.behind:
		return s.abort("554 5.5.0 You sent more behind STARTTLS\r\n")
	}
	if ended := s.count(); ended != NeedInput {
		return ended
	}
	return s.ask(StartTLS)
}

// Secured says that the session is under TLS now: after StartTLS was accepted and the handshake is done, or before Greet where TLS comes
// first. The client must say EHLO again, and AUTH: nothing that it said in clear counts. Limits of errors and commands go on. RFC 3207 §4.2
func (s *Server) Secured() {
	s.secured = true
	s.greeted, s.extended, s.hello = false, false, nil
	s.auth.end()
	s.auth.done = false
	if s.phase == phaseHandshake {
		s.phase = phaseCommand
	}
}

// startTLS reports whether this client may say STARTTLS.
func (s *Server) startTLS() bool { return s.cfg.StartTLS && !s.offer.NoStartTLS }
