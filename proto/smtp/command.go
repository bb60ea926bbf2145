package smtp

import "mailrace/proto/message"

// Replies that more than one place gives.
const (
	replyOk            = "250 2.0.0 Ok\r\n"
	replyBareLF        = "500 5.5.2 Line ends in bare <LF>\r\n"
	replyTooLarge      = "552 5.3.4 Message too large\r\n"
	replyNotServed     = "502 5.5.1 Command not implemented\r\n"
	replyNotNow        = "503 5.5.1 Bad sequence of commands\r\n"
	replyNoArgument    = "501 5.5.4 No argument allowed\r\n"
	replyArgument      = "501 5.5.4 Argument needed\r\n"
	replyParameter     = "501 5.5.4 Bad or repeated parameter\r\n"
	replyUnknownParm   = "555 5.5.4 Unsupported parameter\r\n"
	replyNotAuthorized = "550 5.7.0 Not authorized\r\n"
	replyErrors        = "421 4.7.0 Too many errors\r\n"
	replyNeedsUTF8     = "553 5.6.7 Address needs SMTPUTF8\r\n"
	replyNeedsTLS      = "530 5.7.10 REQUIRETLS needs a session under TLS\r\n"
	replyNeedsChunks   = "503 5.5.1 BINARYMIME needs BDAT\r\n"
	replyHeldTooLong   = "501 5.5.4 That is longer than a message is held here, see FUTURERELEASE\r\n"
	replyDueTooSoon    = "555 5.5.4 That is less than a delivery may take here, see DELIVERBY\r\n"
)

// again is given by a command that ended the transaction and must be read a second time, now without one.
const again Event = 255

// verb is the letters of a command verb of up to eight letters, in capitals, the last in the low octet. 0 is no verb at all.
type verb uint64

func verbOf(s string) (v verb) {
	for i := range len(s) {
		v = v<<8 | verb(s[i])
	}
	return v
}

// cutVerb parts a command line into its verb and the arguments, without the spaces around them.
func cutVerb(line []byte) (v verb, args []byte) {
	i := 0
	for i < len(line) && line[i] != ' ' {
		if i == 8 {
			return 0, nil
		}
		v = v<<8 | verb(line[i]&^0x20) // exact for letters, and verbs are made of letters only
		i++
	}
	return v, trimSpaces(line[i:])
}

const (
	verbMAIL    = 'M'<<24 | 'A'<<16 | 'I'<<8 | 'L'
	verbRCPT    = 'R'<<24 | 'C'<<16 | 'P'<<8 | 'T'
	verbDATA    = 'D'<<24 | 'A'<<16 | 'T'<<8 | 'A'
	verbBDAT    = 'B'<<24 | 'D'<<16 | 'A'<<8 | 'T'
	verbEHLO    = 'E'<<24 | 'H'<<16 | 'L'<<8 | 'O'
	verbAUTH    = 'A'<<24 | 'U'<<16 | 'T'<<8 | 'H'
	verbHELO    = 'H'<<24 | 'E'<<16 | 'L'<<8 | 'O'
	verbRSET    = 'R'<<24 | 'S'<<16 | 'E'<<8 | 'T'
	verbNOOP    = 'N'<<24 | 'O'<<16 | 'O'<<8 | 'P'
	verbVRFY    = 'V'<<24 | 'R'<<16 | 'F'<<8 | 'Y'
	verbHELP    = 'H'<<24 | 'E'<<16 | 'L'<<8 | 'P'
	verbXCLIENT = 'X'<<48 | 'C'<<40 | 'L'<<32 | 'I'<<24 | 'E'<<16 | 'N'<<8 | 'T'
	verbQUIT    = 'Q'<<24 | 'U'<<16 | 'I'<<8 | 'T'

	verbSTARTTLS = ('S'<<24|'T'<<16|'A'<<8|'R')<<32 | 'T'<<24 | 'T'<<16 | 'L'<<8 | 'S'
)

// unserved are verbs of the field that this server knows and does not serve, and what they are told. An unknown verb gets 500.
var unserved = func() map[verb]string {
	replies := make(map[verb]string)
	for _, name := range []string{"EXPN", "ETRN", "TURN", "ATRN", "SEND", "SOML", "SAML"} {
		replies[verbOf(name)] = replyNotServed
	}
	for _, name := range []string{"XFORWARD", "PROXY"} {
		replies[verbOf(name)] = replyNotAuthorized
	}
	return replies
}()

// foreign are verbs of HTTP. A browser that was led here (ALPACA, SSRF) must not get further.
var foreign = map[verb]bool{
	verbOf("GET"): true, verbOf("POST"): true, verbOf("HEAD"): true, verbOf("PUT"): true, verbOf("DELETE"): true, verbOf("CONNECT"): true,
	verbOf("OPTIONS"): true, verbOf("TRACE"): true, verbOf("PATCH"): true, verbOf("PRI"): true,
}

// command runs one command line, given without its CRLF.
func (s *Server) command(line []byte) Event {
	v, args := cutVerb(line)
	if control := controlIn(line); control != noControl {
		return s.controlled(v, control)
	}
	switch v {
	case verbMAIL:
		return s.commandMail(args)
	case verbRCPT:
		return s.commandRcpt(args)
	case verbDATA:
		return s.commandData(args)
	case verbBDAT:
		return s.commandChunk(args)
	case verbEHLO, verbHELO:
		return s.commandHello(args, v == verbEHLO)
	case verbRSET:
		return s.commandReset(args)
	case verbNOOP:
		return s.aside(replyOk)
	case verbHELP:
		return s.commandHelp(args)
	case verbVRFY:
		if len(args) == 0 {
			return s.fail(replyArgument)
		}
		return s.aside("252 2.1.5 Cannot VRFY user, send mail and see\r\n") // RFC 5321 §7.3
	case verbSTARTTLS:
		return s.commandStartTLS(args)
	case verbAUTH:
		return s.commandAuth(args)
	case verbXCLIENT:
		return s.commandXClient(args)
	case verbQUIT:
		s.last = Quit
		return s.abort("221 2.0.0 Bye\r\n")
	}
	if reply := unserved[v]; reply != "" {
		return s.fail(reply)
	}
	if foreign[v] && !s.greeted {
		return s.abort("502 5.5.1 This is not HTTP\r\n")
	}
	return s.fail("500 5.5.2 Command not recognized\r\n")
}

// controlled answers a line that holds control characters.
func (s *Server) controlled(v verb, control uint8) Event {
	switch {
	case v == verbBDAT:
		return s.abort(replyChunkSyntax)
	case control == nulControl:
		return s.fail("500 5.5.2 NUL in command\r\n")
	case v >= 1<<24: // a word of at least four characters; which one it is makes no difference
		return s.fail("501 5.5.4 Control character in argument\r\n")
	}
	return s.fail("500 5.5.2 Command not recognized\r\n")
}

// commandHello begins the session anew. RFC 5321 §4.1.1.1, §4.1.4.
func (s *Server) commandHello(name []byte, extended bool) Event {
	if len(name) == 0 {
		return s.fail(replyArgument)
	}
	if s.tx.reset() {
		return again
	}
	if ended := s.count(); ended != NeedInput {
		return ended
	}
	s.hello, s.extended = name, extended
	return s.ask(Hello)
}

// commandMail begins a transaction. RFC 5321 §4.1.1.2.
func (s *Server) commandMail(args []byte) Event {
	if !s.greeted || s.tx.open {
		return s.fail(replyNotNow)
	}
	path, rest, err := parseArgument(args, "FROM:")
	if err == nil && len(path.Path) > 0 && len(path.Domain) == 0 {
		err = ErrNoDomain
	}
	if err != nil {
		return s.failPath("501 5.1.7 Bad sender address: ", err)
	}
	s.mail = MailParams{Path: path.Path, Domain: path.Domain}
	switch refusal := s.mail.parse(rest, s.mailParams()); {
	case refusal != "":
		return s.fail(refusal)
	case path.UTF8 && !s.mail.SMTPUTF8:
		return s.fail(replyNeedsUTF8)
	}
	if refusal := s.overLimit(&s.mail); refusal != "" {
		s.say(refusal)
		return NeedInput
	}
	return s.ask(Mail)
}

// overLimit returns the reply to a MAIL that asks for more than EHLO said, or "".
func (s *Server) overLimit(m *MailParams) (refusal string) {
	switch {
	case m.Size > s.maxSize(): // RFC 1870 §6.1
		return replyTooLarge
	case m.HoldFor > s.offer.HoldMax, m.HoldUntil > s.offer.HoldUntil: // RFC 4865 §4.2
		return replyHeldTooLong
	case m.By.Mode == message.ByReturn && m.By.Seconds < s.cfg.MinDeliverBy: // RFC 2852 §3
		return replyDueTooSoon
	}
	return ""
}

// commandRcpt adds a recipient. RFC 5321 §4.1.1.3.
func (s *Server) commandRcpt(args []byte) Event {
	if !s.tx.open || s.tx.chunks > 0 {
		return s.fail(replyNotNow)
	}
	path, rest, err := parseArgument(args, "TO:")
	if err == nil && len(path.Path) == 0 {
		err = ErrNullPath
	}
	if err != nil {
		return s.failPath("501 5.1.3 Bad recipient address: ", err)
	}
	s.rcptParams = RcptParams{}
	switch refusal := s.rcptParams.parse(rest, s.tx.smtpUTF8); {
	case refusal != "":
		return s.fail(refusal)
	case path.UTF8 && !s.tx.smtpUTF8:
		return s.fail(replyNeedsUTF8)
	case s.tx.recipients >= s.maxRecipients():
		return s.refuseSurplus()
	}
	s.rcpt = path
	return s.ask(Rcpt)
}

// refuseSurplus answers a recipient over the limit: the client sends it again in another transaction. RFC 5321 §4.5.3.1.10.
func (s *Server) refuseSurplus() Event {
	const reply = "452 4.5.3 Too many recipients\r\n"
	if s.tx.overshoot++; s.tx.overshoot > recipientOvershoot {
		return s.fail(reply)
	}
	s.say(reply)
	return NeedInput
}

// commandData asks for the content. RFC 5321 §4.1.1.4.
func (s *Server) commandData(args []byte) Event {
	switch {
	case !s.tx.open, s.tx.chunks > 0: // RFC 3030 §2: DATA and BDAT do not mix
		return s.fail(replyNotNow)
	case len(args) > 0:
		return s.fail(replyNoArgument)
	case s.tx.binary: // RFC 3030 §3
		return s.fail(replyNeedsChunks)
	case s.tx.recipients == 0:
		s.tx.reset()
		s.fail(replyNobody) // if that was one error too many, Close comes with the next Feed
		return Reset
	}
	return s.ask(Data)
}

// commandReset drops the transaction. RFC 5321 §4.1.1.5.
func (s *Server) commandReset(args []byte) Event {
	if len(args) > 0 {
		return s.fail(replyNoArgument)
	}
	was, ended := s.tx.reset(), s.aside(replyOk)
	if was {
		return Reset // if that was one command too many, Close comes with the next Feed
	}
	return ended
}

// aside answers a command that carries no mail.
func (s *Server) aside(reply string) Event {
	if ended := s.count(); ended != NeedInput {
		return ended
	}
	s.say(reply)
	return NeedInput
}

// count counts a command that carries no mail, and ends the session when there were too many.
func (s *Server) count() Event {
	if s.idle++; s.idle > orDefault(s.cfg.MaxCommands, DefaultMaxCommands) {
		return s.abort("421 4.7.0 Too many commands without mail\r\n")
	}
	return NeedInput
}

// fail answers a protocol error, and ends the session when there were too many.
func (s *Server) fail(reply string) Event {
	s.say(reply)
	return s.countError()
}

func (s *Server) failPath(reply string, err error) Event {
	s.say(reply, err.Error(), "\r\n")
	return s.countError()
}

func (s *Server) countError() Event {
	s.faults++
	if s.errors++; s.errors < orDefault(s.cfg.MaxErrors, DefaultMaxErrors) {
		return NeedInput
	}
	return s.abort(replyErrors)
}

// abort queues the last reply of the session. A transaction that was open is reset first; then the end of the session comes with the next
// Feed.
func (s *Server) abort(reply string) Event {
	s.say(reply)
	s.phase = phaseClosed
	if s.tx.reset() {
		return Reset
	}
	return s.last
}

func (s *Server) say(parts ...string) {
	for _, part := range parts {
		s.out = append(s.out, part...)
	}
}
