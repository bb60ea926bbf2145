package smtp

// helped are the commands, in the order of HELP, with their forms. RFC 5321 §4.1.1.8
var helped = []struct{ verb, form string }{
	{"EHLO", "EHLO domain"},
	{"HELO", "HELO domain"},
	{"STARTTLS", "STARTTLS"},
	{"AUTH", "AUTH mechanism [initial-response]"},
	{"XCLIENT", "XCLIENT attribute=value ..."},
	{"MAIL", "MAIL FROM:<reverse-path> [parameter=value ...]"},
	{"RCPT", "RCPT TO:<forward-path> [parameter=value ...]"},
	{"DATA", "DATA, then the message, then a line of a single dot"},
	{"BDAT", "BDAT size [LAST], then as many octets of the message"},
	{"RSET", "RSET"},
	{"NOOP", "NOOP"},
	{"VRFY", "VRFY user"},
	{"HELP", "HELP [command]"},
	{"QUIT", "QUIT"},
}

// serves says whether the session as it stands has a use for a command of helped.
func (s *Server) serves(verb string) bool {
	switch verb {
	case "STARTTLS":
		return s.startTLS() && !s.secured
	case "AUTH":
		return len(s.mechanisms()) > 0
	case "XCLIENT":
		return s.speaker.allowed
	}
	return true
}

// form is how a command is written, "" if it is none that is served here.
func (s *Server) form(verb []byte) string {
	for _, h := range helped {
		if equalFold(verb, h.verb) && s.serves(h.verb) {
			return h.form
		}
	}
	return ""
}

// commandHelp names the commands, or tells the form of one.
func (s *Server) commandHelp(args []byte) Event {
	form := s.form(args)
	if len(args) > 0 && form == "" {
		return s.fail("504 5.5.4 There is no such command, see HELP\r\n")
	}
	if ended := s.count(); ended != NeedInput {
		return ended
	}
	if form != "" {
		s.say("214 2.0.0 ", form, "\r\n")
		return NeedInput
	}
	s.say("214-2.0.0 Commands:")
	for _, h := range helped {
		if s.serves(h.verb) {
			s.say(" ", h.verb)
		}
	}
	s.say("\r\n214 2.0.0 HELP and the name of one tells its form\r\n")
	return NeedInput
}
