package smtp

import (
	"bytes"
	"strconv"

	"mailrace/proto/message"
)

// ServerConfig is what all sessions of a listener share. It must not change once a Server was given it. Zero and negative numbers mean the
// defaults of limits.go.
type ServerConfig struct {
	Hostname      string // in the greeting and the answer to EHLO
	MaxSize       int64  // octets of content
	MaxRecipients int    // accepted recipients of a transaction; beyond it 452 4.5.3
	MaxLine       int    // octets of a command line with its CRLF; beyond it 500 5.5.6
	MaxErrors     int    // protocol errors since the last accepted message; then 421 4.7.0 and Close
	StartTLS      bool   // offer STARTTLS where the session is not under TLS
	MaxCommands   int    // commands without mail since the last accepted message; then 421 4.7.0 and Close
	NoBinary      bool   // do not take BODY=BINARYMIME
	NoChunking    bool   // do not announce CHUNKING, nor BINARYMIME; BDAT is understood nevertheless
	MendNewlines  bool   // in content an LF alone becomes CRLF, and a CR alone a space, rather than end the session; see Decoder
	MinDeliverBy  int64  // least seconds of BY with R, announced with DELIVERBY; 0 = any

	Auth      []string // mechanisms of AUTH under TLS, in capitals and in the order of EHLO; none = AUTH is not served there
	AuthClear []string // mechanisms of AUTH in clear, which should be none: who listens learns the password
}

// Event is what Server.Feed has to tell.
type Event uint8

const (
	// NeedInput: nothing more can be done with the bytes presented. Write what is Pending, keep the bytes that are left, wait for more.
	NeedInput Event = iota
	// Hello asks about HELO or EHLO: see HelloName, HelloValid, Extended.
	Hello
	// Mail asks about MAIL: see Server.Mail. Refuse it, and no transaction begins.
	Mail
	// Rcpt asks about RCPT: see Server.Rcpt.
	Rcpt
	// Data asks about DATA, or the first BDAT, which has at least one accepted recipient. Refuse it, and the transaction is gone (no Reset
	// follows).
	Data
	// Content: a span of content, see Server.Content. What ends a chunk may wait for the next call of Feed, without more octets.
	Content
	// EndOfData asks about the whole message: see ContentSize, LeadingDots. Whatever the answer, the transaction is gone (no Reset follows).
	EndOfData
	// StartTLS asks about STARTTLS. When it is accepted, Pending must be written and nothing fed until Secured was called; refuse it with
	// 454 4.7.0.
	StartTLS
	// Auth asks about a step of AUTH: see AuthMechanism, AuthBegins, AuthResponse. Accept it and the user is authenticated; Challenge goes on;
	// refuse it with 535 5.7.8, or 454 4.7.0 if it cannot be told.
	Auth
	// XClient asks about XCLIENT: see Server.XClient. When it is accepted, the session begins anew for another client.
	XClient
	// Reset: the transaction is gone (RSET, EHLO, no valid recipients, content too large or not acceptable, the session ends). The caller
	// drops what it holds of it. The machine has seen to the reply.
	Reset
	// Quit: the client said QUIT. Write what is Pending, then close.
	Quit
	// Close: the session is over by our decision. Write what is Pending, then close.
	Close
)

func (e Event) String() string {
	return [...]string{"NeedInput", "Hello", "Mail", "Rcpt", "Data", "Content", "EndOfData", "StartTLS", "Auth", "XClient", "Reset", "Quit", "Close"}[e]
}

// phase is what the next octets of a session are. Some phases only discard.
type phase uint8

const (
	phaseSilent       phase = iota // before our greeting: nothing may come
	phaseCommand                   // a command line
	phaseLongLine                  // the rest of a command line that is too long
	phaseContent                   // content after 354
	phaseTooLarge                  // content that is not kept, to its true end
	phaseChunk                     // octets of a chunk
	phaseRefusedChunk              // octets of a chunk that is not kept
	phaseHandshake                 // TLS begins: nothing in clear may come
	phaseAuth                      // a response of the client to a challenge
	phaseClosed                    // nothing any more
)

// Server is the server side of one session. It promises:
//   - every transaction whose Mail was accepted ends in exactly one of an answer to EndOfData, a refusal of Data, or a Reset event;
//     or it is still open when the connection ends;
//   - after Quit or Close no octet is looked at any more;
//   - no input makes it queue more than a bounded number of octets for each octet that it reads.
//
// The zero Server is of no use before Init. It may be used for one session after another. It belongs to one goroutine at a time.
type Server struct {
	cfg      *ServerConfig
	phase    phase
	question Event // the question that waits for its answer, or NeedInput
	last     Event // Quit or Close, once phaseClosed is reached
	secured  bool  // under TLS
	behind   bool  // octets were presented behind the command line at hand
	greeted  bool  // HELO or EHLO was accepted
	extended bool  // the last one was EHLO
	errors   int   // protocol errors since the last accepted message
	faults   int   // protocol errors of the session
	idle     int   // commands without mail since the last accepted message
	tx       transaction
	decoder  Decoder
	chunk    chunk
	speaker  speaker
	auth     authentication
	offer    Offer

	hello      []byte
	mail       MailParams
	rcpt       Path
	rcptParams RcptParams
	content    []byte
	out        []byte
}

// Init makes s ready for a new session. It queues nothing.
func (s *Server) Init(cfg *ServerConfig) {
	*s = Server{cfg: cfg, last: Close, out: s.out[:0], chunk: chunk{answer: s.chunk.answer[:0]}}
}

// Greet queues the greeting. Octets that arrive before it make the session end with 554 5.5.1. A client that is not welcome gets Bye
// instead.
func (s *Server) Greet() {
	s.say("220 ", s.cfg.Hostname, " ESMTP Mailrace\r\n")
	s.phase = phaseCommand
}

// Feed reads from p. It returns how many octets of p are used up and what there is to tell. The caller calls it again with p[n:] (even
// when that is empty) until the event is NeedInput, Quit or Close. After a question it must be answered first; until then Feed reads
// nothing.
func (s *Server) Feed(p []byte) (n int, ev Event) {
	if s.question != NeedInput {
		return 0, NeedInput
	}
	for {
		var used int
		switch s.phase {
		case phaseCommand:
			used, ev = s.readLine(p[n:])
		case phaseContent, phaseTooLarge:
			used, ev = s.readContent(p[n:])
		case phaseLongLine:
			used, ev = s.skipLine(p[n:])
		case phaseChunk:
			if used, ev = s.readChunk(p[n:]); ev == NeedInput && s.phase == phaseCommand {
				continue
			}
		case phaseRefusedChunk:
			if used, ev = s.skipChunk(p[n:]); ev == NeedInput && s.phase == phaseCommand {
				n += used
				continue
			}
		case phaseClosed:
			if s.tx.reset() {
				return n, Reset
			}
			return len(p), s.last
		case phaseAuth:
			used, ev = s.readResponse(p[n:])
		case phaseHandshake:
			if len(p) == 0 {
				return 0, NeedInput
			}
			return 0, s.abort("554 5.5.0 You sent more behind STARTTLS\r\n")
		case phaseSilent:
			if len(p) == 0 {
				return 0, NeedInput
			}
			return 0, s.abort("554 5.5.1 You talk before the greeting\r\n")
		}
		n += used
		if ev != NeedInput || used == 0 {
			return n, ev
		}
	}
}

// readLine reads one command line.
func (s *Server) readLine(p []byte) (int, Event) {
	limit, presented := s.longLine(p, orDefault(s.cfg.MaxLine, DefaultMaxLine)), len(p)
	if len(p) > limit {
		p = p[:limit]
	}
	lf := bytes.IndexByte(p, '\n')
	switch {
	case lf < 0 && len(p) < limit:
		return 0, NeedInput
	case lf < 0:
		s.phase = phaseLongLine
		return s.skipLine(p)
	case lf == 0 || p[lf-1] != '\r':
		return lf + 1, s.abort(replyBareLF)
	}
	s.behind = presented > lf+1
	ev := s.command(p[:lf-1])
	if ev == again {
		return 0, Reset
	}
	return lf + 1, ev
}

// skipLine discards the rest of a line that is too long.
func (s *Server) skipLine(p []byte) (int, Event) {
	lf := bytes.IndexByte(p, '\n')
	switch {
	case lf < 0:
		n := len(p)
		if n > 0 && p[n-1] == '\r' {
			n--
		}
		return n, NeedInput
	case lf == 0 || p[lf-1] != '\r':
		return lf + 1, s.abort(replyBareLF)
	}
	s.phase = phaseCommand
	return lf + 1, s.fail("500 5.5.6 Line too long\r\n")
}

// readContent reads what follows the 354.
func (s *Server) readContent(p []byte) (int, Event) {
	n, content, found := s.decoder.Decode(p)
	switch found {
	case DecodedNothing:
		return n, NeedInput
	case DecodedSpan:
		if s.phase == phaseTooLarge {
			return n, NeedInput
		}
		if s.decoder.Size() > s.maxSize() {
			// The rest is content all the same: to read it as commands would be smuggling. RFC 1870 §6.3.
			s.phase = phaseTooLarge
			s.tx.reset()
			return n, Reset
		}
		s.content = content
		return n, Content
	case DecodedEnd:
		s.content = nil
		if s.phase == phaseTooLarge {
			s.phase = phaseCommand
			s.say(replyTooLarge)
			return n, NeedInput
		}
		return n, s.ask(EndOfData)
	case DecodedBareCR:
		return n, s.abort("550 5.5.2 bare <CR> in message content\r\n")
	case DecodedBareLF:
		return n, s.abort("550 5.5.2 bare <LF> in message content\r\n")
	}
	return n, s.abort("550 5.6.0 NUL in message content\r\n")
}

func (s *Server) resetDecoder() {
	if s.cfg.MendNewlines {
		s.decoder.ResetMending()
		return
	}
	s.decoder.Reset()
}

func (s *Server) maxSize() int64 { return orDefault(s.cfg.MaxSize, DefaultMaxSize) }

func (s *Server) ask(question Event) Event {
	s.question = question
	return question
}

// Accept answers the question at hand with the usual good reply. Without a question it does nothing.
func (s *Server) Accept() {
	question := s.question
	s.question = NeedInput
	switch question {
	case Hello:
		s.greeted = true
		s.sayHello()
	case XClient:
		s.acceptXClient()
	case Auth:
		s.auth.end()
		s.auth.done = true
		s.say("235 2.7.0 Authentication successful\r\n")
	case StartTLS:
		s.phase = phaseHandshake
		s.say("220 2.0.0 Go ahead\r\n")
	case Mail:
		s.beginTransaction()
		s.say("250 2.1.0 Ok\r\n")
	case Rcpt:
		s.tx.recipients++
		s.say("250 2.1.5 Ok\r\n")
	case Data:
		if s.tx.chunks > 0 {
			s.phase = phaseChunk
			return
		}
		s.resetDecoder()
		s.phase = phaseContent
		s.say("354 End data with <CR><LF>.<CR><LF>\r\n")
	case EndOfData:
		s.endMessage()
		s.say("250 2.0.0 Ok\r\n")
	}
}

// AcceptQueued answers EndOfData with 250 and the id that the message has from now on. The message must be on stable storage.
func (s *Server) AcceptQueued(id message.ID) {
	if s.question != EndOfData {
		return
	}
	s.question = NeedInput
	s.endMessage()
	s.out = append(id.Append(append(s.out, "250 2.0.0 Ok: queued as "...)), "\r\n"...)
}

// AcceptChanged answers Mail with 250 and the priority that the message has from now on, which is not the one that was asked for. RFC 6710 §4.1
func (s *Server) AcceptChanged(priority int8) {
	if s.question != Mail {
		return
	}
	s.question = NeedInput
	s.beginTransaction()
	s.say("250 2.3.6 ")
	s.out = strconv.AppendInt(s.out, int64(priority), 10)
	s.say(" is the priority of this message\r\n")
}

func (s *Server) beginTransaction() {
	s.tx.open, s.tx.smtpUTF8, s.tx.binary = true, s.mail.SMTPUTF8, s.mail.Body == BodyBinary
}

func (s *Server) endMessage() {
	s.phase = phaseCommand
	s.tx.reset()
	s.errors, s.idle = 0, 0
}

// Refuse answers the question at hand with r, a 4xx or 5xx reply. A 421 ends the session: Close follows. A 5xx to MAIL, RCPT or AUTH counts as
// an error, so that nobody goes through a list of addresses or passwords. Without a question it does nothing.
func (s *Server) Refuse(r Reply) {
	question := s.question
	if question == NeedInput {
		return
	}
	s.question = NeedInput
	if question == Data && s.tx.chunks > 0 && r.Code != 421 {
		s.chunk.answer, s.chunk.fault = AppendReply(s.chunk.answer[:0], r), false
		s.phase = phaseRefusedChunk
		s.tx.reset()
		return
	}
	s.out = AppendReply(s.out, r)
	if question == Auth {
		s.auth.end()
	}
	if question == Data || question == EndOfData {
		s.phase = phaseCommand
		s.tx.reset()
	}
	if r.Code == 421 {
		s.phase = phaseClosed
	}
	if r.Code >= 500 && (question == Mail || question == Rcpt || question == Auth) {
		s.faults++
		if s.errors++; s.errors >= orDefault(s.cfg.MaxErrors, DefaultMaxErrors) {
			s.say(replyErrors)
			s.phase = phaseClosed // Reset, if there is a transaction, and Close come with the next Feed
		}
	}
}

// Bye ends the session from our side: it queues r (421 4.4.2 at a timeout, 421 4.3.2 when we shut down, 554 in place of a greeting) and
// forgets any question and any transaction. Feed gives nothing but Close afterwards. The caller drops what it holds of the transaction.
func (s *Server) Bye(r Reply) {
	if s.phase == phaseClosed {
		return
	}
	s.question = NeedInput
	s.phase = phaseClosed
	s.tx.reset()
	s.out = AppendReply(s.out, r)
}

// Pending returns the replies queued and not written yet. It holds until the next call of any other method.
func (s *Server) Pending() []byte { return s.out }

// Flushed says that Pending was written (or copied).
func (s *Server) Flushed() {
	if cap(s.out) > keptOutput {
		s.out = nil
		return
	}
	s.out = s.out[:0]
}

// Faults is how many protocol errors the session has seen. Unlike the count that MaxErrors limits, it does not begin anew with a message.
func (s *Server) Faults() int { return s.faults }

// HelloName is the argument of HELO or EHLO as it came: without control characters, but not of any form. Holds until the next Feed.
func (s *Server) HelloName() []byte { return s.hello }

// HelloValid reports whether HelloName is a domain or an address literal (RFC 5321 §4.1.3). If not, it does not belong into a Received
// header.
func (s *Server) HelloValid() bool { return ValidHello(s.hello) }

// Extended reports whether the client said EHLO rather than HELO.
func (s *Server) Extended() bool { return s.extended }

// Mail returns the arguments of the MAIL at hand. Its slices hold until the next Feed.
func (s *Server) Mail() *MailParams { return &s.mail }

// Rcpt returns the forward-path of the RCPT at hand. Its slices hold until the next Feed.
func (s *Server) Rcpt() *Path { return &s.rcpt }

// RcptParams returns the parameters of the RCPT at hand. Its slices hold until the next Feed.
func (s *Server) RcptParams() *RcptParams { return &s.rcptParams }

// Recipients is how many recipients of the transaction were accepted.
func (s *Server) Recipients() int { return s.tx.recipients }

// InTransaction reports whether a MAIL was accepted and its message has not ended.
func (s *Server) InTransaction() bool { return s.tx.open }

// Chunked reports whether the content of the transaction comes in chunks (BDAT) rather than by DATA.
func (s *Server) Chunked() bool { return s.tx.chunks > 0 }

// InContent reports whether the next octets are content of a message, kept or not, rather than commands.
func (s *Server) InContent() bool { return s.phase >= phaseContent && s.phase <= phaseRefusedChunk }

// Content is the span of the Content event: a slice of what was fed, dots removed, or a line end of ours. Holds until the next Feed. Not to be changed.
func (s *Server) Content() []byte { return s.content }

// ContentSize is the number of octets of content so far.
func (s *Server) ContentSize() int64 { return s.decoder.Size() }

// LeadingDots reports whether a line of the content so far begins with a dot, so that DATA must stuff it when it is sent on.
func (s *Server) LeadingDots() bool { return s.decoder.LeadingDots() }
