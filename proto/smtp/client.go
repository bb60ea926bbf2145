package smtp

import (
	"bytes"
	"errors"
	"strings"
)

// ClientConfig is what all sessions of a source share. It must not change once a Client was given it.
type ClientConfig struct {
	Hello string // our name in EHLO or LHLO: a domain or an address literal
	Own   string // our name as a server: who greets with it is ourselves; "" = nobody is
	LMTP  bool   // LMTP is spoken: see lmtp.go. RFC 2033
}

// ClientEvent is what Client.Feed has to tell. Events of a transaction are always of the oldest one that has not ended.
type ClientEvent uint8

const (
	// ClientNeedInput: nothing more can be done with the bytes presented. Write what is Pending, keep the bytes that are left, wait for more.
	ClientNeedInput ClientEvent = iota
	// ClientReady: the server took our EHLO, HELO or LHLO, or answered a RSET of ours. See Extensions, MaxSize, Limits.
	ClientReady
	// ClientHandshake: the server took STARTTLS. Make the TLS handshake, feed nothing meanwhile, then call Secured.
	ClientHandshake
	// ClientTLSRefused: the server refused STARTTLS. The session goes on in clear as it was.
	ClientTLSRefused
	// ClientChallenge: the server wants a response of the AUTH under way. See Challenge; give it by AuthResponse.
	ClientChallenge
	// ClientAuthenticated: the server took AUTH.
	ClientAuthenticated
	// ClientAuthRefused: the server refused AUTH. The session goes on as it was.
	ClientAuthRefused
	// ClientRefused: the greeting or the answer to EHLO and HELO is 4xx or 5xx. Nothing but Quit is of use now.
	ClientRefused
	// ClientMail: the answer to MAIL. If it is not 2xx, no recipient was accepted, no ClientRcpt follows, and ClientDataRefused ends the
	// transaction.
	ClientMail
	// ClientRcpt: the answer to the RCPT of RcptIndex.
	ClientRcpt
	// ClientStart: the server waits for the content, and accepted at least one recipient. Write the content, then call EndContent: by DATA
	// dots stuffed and CRLF at its end, by BDAT as it is.
	ClientStart
	// ClientSettled: by LMTP, the answer to the content for the recipient of RcptIndex, 2xx, 4xx or 5xx. One comes for each that was accepted,
	// in their order, and ClientDone behind the last.
	ClientSettled
	// ClientDataRefused: the transaction is over and nothing was delivered: DATA got 4xx or 5xx, or there was nobody left to send it for.
	// Reply is the answer for those recipients that were accepted.
	ClientDataRefused
	// ClientDone: the answer to the content, 2xx, 4xx or 5xx, for the accepted recipients; by LMTP none is left to be told. The transaction is
	// over.
	ClientDone
	// ClientGone: the server ends the session (421, 221), answered QUIT, or answered while the content was under way. Close the connection.
	// Transactions that have not ended are undecided, but for recipients that were told of.
	ClientGone
	// ClientFailed: what the server says is no SMTP, see Err. Close the connection. Transactions that have not ended are undecided.
	ClientFailed
)

func (e ClientEvent) String() string {
	return [...]string{
		"NeedInput", "Ready", "Handshake", "TLSRefused", "Challenge", "Authenticated", "AuthRefused", "Refused", "Mail", "Rcpt", "Start", "Settled",
		"DataRefused", "Done", "Gone", "Failed",
	}[e]
}

// What Client gives up on, beside the errors of ReplyParser.
var (
	// ErrUnexpectedReply: a reply that nothing asked for, or of a class that does not answer the command.
	ErrUnexpectedReply = errors.New("unexpected reply")
	// ErrHelloName: ClientConfig.Hello is no word of printable ASCII.
	ErrHelloName = errors.New("bad name for EHLO")
)

// clientPhase is where the session as a whole is.
type clientPhase uint8

const (
	clientBanner    clientPhase = iota // waits for the greeting
	clientEHLO                         // waits for the answer to EHLO or LHLO
	clientHELO                         // waits for the answer to HELO
	clientUp                           // transactions
	clientStartTLS                     // waits for the answer to STARTTLS
	clientHandshake                    // TLS begins: nothing in clear may come
	clientAuth                         // waits for the answer to AUTH or to a response
	clientRefused                      // not welcome
	clientOver                         // nothing more is read
)

// clientStep is the reply that a transaction waits for.
type clientStep uint8

const (
	stepReset   clientStep = iota // to the RSET that clears away what the transaction before left
	stepMail                      // to MAIL
	stepRcpt                      // to the RCPT of clientTransaction.answered
	stepData                      // to DATA
	stepStart                     // none: that the content may go is to be told
	stepContent                   // none: the content is under way
	stepFinal                     // to the content
	stepSettled                   // none: by LMTP, that the last recipient was told of is to be told
	stepOver                      // none: the end is to be told
)

// clientTransaction is an envelope under way. Its strings are the caller's.
type clientTransaction struct {
	step        clientStep
	mailRefused bool
	chunked     bool // by BDAT
	probe       bool // no content follows
	written     bool // all of the content is
	from        string
	params      MailParams
	rcpts       []string
	rcptParams  []RcptParams // of each of rcpts, or none
	answered    int          // recipients answered
	accepted    int          // recipients accepted
	taken       []int        // by LMTP, which of rcpts they are
	settled     int          // by LMTP, for how many of them the answer to the content came
}

// Client is the client side of one session. With PIPELINING it sends an envelope in one go, and the next envelope behind the content of a
// transaction; without, it goes step by step. Arguments go to the wire only through Begin, which lets nothing pass that the address grammar
// refuses.
//
// Content goes by DATA, so that at most two transactions are under way: one at its content, one at its envelope. After UseChunks content goes by
// BDAT, in one chunk behind its envelope, and whole messages go one behind the other, as many as its window has room for. Content that may be
// binary goes by BDAT anyway.
//
// The zero Client is of no use before Init. It may be used for one session after another. It belongs to one goroutine at a time.
type Client struct {
	cfg       *ClientConfig
	phase     clientPhase
	offer                         // what the server offers
	secured   bool                // under TLS
	behind    bool                // octets were presented behind the reply at hand
	resetting bool                // waits for the answer to a RSET of the caller
	quitting  bool                // QUIT is queued
	own       bool                // the server has our own name
	resetDue  bool                // the server may hold an envelope open that was given up
	window    int                 // most transactions under way that UseChunks allowed; 0 = it was not called
	first     int                 // index of the oldest transaction in tx
	count     int                 // transactions under way
	tx        []clientTransaction // a ring, of a power of two; it grows with what is under way
	rcptIndex int
	challenge []byte // of AUTH
	err       error
	parser    ReplyParser
	out       []byte
}

// Init makes c ready for a new session, in which the server speaks first.
func (c *Client) Init(cfg *ClientConfig) {
	c.parser.Reset()
	*c = Client{cfg: cfg, parser: c.parser, out: c.out[:0], tx: c.tx}
	if c.tx == nil {
		c.tx = make([]clientTransaction, txKept)
	}
}

// Feed reads replies from p. It returns how many octets of p are used up and what there is to tell. The caller calls it again with p[n:]
// (even when that is empty) until the event is ClientNeedInput, ClientGone or ClientFailed.
func (c *Client) Feed(p []byte) (n int, ev ClientEvent) {
	switch t := &c.tx[c.first]; {
	case c.count > 0 && t.step == stepOver:
		c.parser.view = ReplyView{}
		c.pop()
		return 0, ClientDataRefused
	case c.count > 0 && t.step == stepStart:
		t.step, c.parser.view = stepContent, ReplyView{}
		return 0, ClientStart
	case c.count > 0 && t.step == stepSettled:
		c.parser.view = ReplyView{}
		c.pop()
		return 0, ClientDone
	case c.phase == clientHandshake && len(p) > 0:
		return 0, c.fail(ErrClearText)
	case c.phase == clientHandshake:
		return 0, ClientNeedInput
	}
	for c.phase != clientOver {
		used, done, err := c.parser.Parse(p[n:])
		n += used
		switch {
		case err != nil:
			return n, c.fail(err)
		case !done:
			return n, ClientNeedInput
		}
		c.behind = n < len(p)
		if ev := c.take(c.parser.Reply()); ev != ClientNeedInput {
			return n, ev
		}
	}
	return len(p), ClientGone
}

// take judges a reply by what it answers.
func (c *Client) take(r *ReplyView) ClientEvent {
	switch {
	case c.phase == clientBanner:
		return c.takeBanner(r)
	case c.phase == clientEHLO, c.phase == clientHELO:
		return c.takeHello(r)
	case c.phase == clientStartTLS:
		return c.takeStartTLS(r)
	case c.phase == clientAuth:
		return c.takeAuth(r)
	case c.resetting && r.Code == 250:
		c.resetting = false
		return ClientReady
	case r.Code == 421 || r.Code == 221 || c.quitting && c.count == 0:
		c.phase = clientOver
		return ClientGone
	case c.count > 0:
		return c.takeTransaction(&c.tx[c.first], r)
	}
	return c.fail(ErrUnexpectedReply)
}

func (c *Client) takeBanner(r *ReplyView) ClientEvent {
	switch {
	case r.Code/100 >= 4:
		c.phase = clientRefused
		return ClientRefused
	case r.Code != 220:
		return c.fail(ErrUnexpectedReply)
	case !validWord(c.cfg.Hello):
		return c.fail(ErrHelloName)
	}
	c.own = c.own || c.named(r.Text)
	c.queueHello()
	return ClientNeedInput
}

// named says whether a server gives our own name in its greeting, or in its answer to EHLO. RFC 5321 §4.2
func (c *Client) named(text []byte) bool {
	text, _, _ = bytes.Cut(text, lfByte)
	name, _, _ := bytes.Cut(trimSpaces(text), spaceByte)
	name = bytes.TrimSuffix(name, []byte("."))
	return c.cfg.Own != "" && len(name) == len(c.cfg.Own) && strings.EqualFold(string(name), c.cfg.Own)
}

// Own says whether the server is known by ClientConfig.Own: we talk to ourselves. It is known from ClientReady on.
func (c *Client) Own() bool { return c.own }

// queueHello queues the command that asks what the server offers.
func (c *Client) queueHello() {
	c.phase = clientEHLO
	verb := "EHLO "
	if c.cfg.LMTP {
		verb = "LHLO "
	}
	c.queue(verb, c.cfg.Hello, "\r\n")
}

func (c *Client) takeHello(r *ReplyView) ClientEvent {
	switch {
	case r.Code == 250:
		c.own = c.own || c.named(r.Text)
		if c.phase == clientEHLO {
			c.offer = parseOffer(r.Text)
		}
		c.phase = clientUp
		return ClientReady
	case r.Code/100 == 5 && c.phase == clientEHLO && !c.cfg.LMTP: // RFC 5321 §4.1.4
		c.phase = clientHELO
		c.queue("HELO ", c.cfg.Hello, "\r\n")
		return ClientNeedInput
	case r.Code/100 >= 4:
		c.phase = clientRefused
		return ClientRefused
	}
	return c.fail(ErrUnexpectedReply)
}

// takeTransaction judges a reply to the oldest transaction.
func (c *Client) takeTransaction(t *clientTransaction, r *ReplyView) ClientEvent {
	class := r.Code / 100
	if class == 3 && t.step != stepData || class == 2 && (t.step == stepData || t.step == stepContent) {
		return c.fail(ErrUnexpectedReply)
	}
	switch t.step {
	case stepReset:
		if class != 2 {
			return c.fail(ErrUnexpectedReply)
		}
		t.step = stepMail
		if !c.pipelining() {
			c.queueMail(t)
		}
		return ClientNeedInput
	case stepMail:
		t.mailRefused = class != 2
		t.step = stepRcpt
		if !c.pipelining() {
			c.afterRecipient(t)
		}
		return ClientMail
	case stepRcpt:
		return c.takeRcpt(t, class)
	case stepData:
		return c.takeData(t, class)
	case stepFinal:
		if c.cfg.LMTP && t.accepted > 0 {
			return c.takeSettled(t, class)
		}
		return c.takeFinal(t, class)
	case stepContent:
		if class >= 4 && !c.cfg.LMTP {
			return c.takeFinal(t, class)
		}
	}
	// The server answers in the middle of the content. There is no way back into step.
	c.phase = clientOver
	return ClientGone
}

// takeFinal judges the answer to the content.
func (c *Client) takeFinal(t *clientTransaction, class int) ClientEvent {
	c.pop()
	if t.step == stepContent || t.chunked && !t.written {
		// The rest of the content is still owed, and nobody wants it: what was decided is told, then the session ends.
		if class == 2 {
			return c.fail(ErrUnexpectedReply)
		}
		c.phase = clientOver
	}
	c.resetDue = c.resetDue || t.chunked && class != 2 && c.count == 0
	if t.accepted == 0 { // by DATA we sent no content; by BDAT for nobody: whatever the answer, nothing was delivered
		return ClientDataRefused
	}
	return ClientDone
}

func (c *Client) takeRcpt(t *clientTransaction, class int) ClientEvent {
	c.rcptIndex = t.answered
	t.answered++
	if class == 2 && !t.mailRefused {
		t.accepted++
		if c.cfg.LMTP {
			t.taken = append(t.taken, c.rcptIndex)
		}
	}
	switch {
	case !c.pipelining():
		c.afterRecipient(t)
	case t.answered == len(t.rcpts) && t.probe:
		t.step, c.resetDue = stepOver, !t.mailRefused
	case t.answered == len(t.rcpts) && t.chunked:
		t.step = stepFinal
	case t.answered == len(t.rcpts):
		t.step = stepData
	}
	switch {
	case t.mailRefused && t.step == stepOver: // nothing else is going to be read for it
		c.parser.view = ReplyView{}
		c.pop()
		return ClientDataRefused
	case t.mailRefused:
		return ClientNeedInput
	}
	return ClientRcpt
}

// afterRecipient queues the next command of an envelope that goes step by step.
func (c *Client) afterRecipient(t *clientTransaction) {
	switch {
	case t.mailRefused:
		t.step = stepOver
	case t.answered < len(t.rcpts):
		c.queueRcpt(t, t.answered)
	case t.accepted == 0, t.probe:
		t.step, c.resetDue = stepOver, true
	case t.chunked:
		t.step = stepStart
		c.queueChunk(t)
	default:
		t.step = stepData
		c.queue("DATA\r\n")
	}
}

func (c *Client) takeData(t *clientTransaction, class int) ClientEvent {
	switch {
	case class != 3:
		// Some servers keep the envelope then, and would refuse the next MAIL.
		c.resetDue = !t.mailRefused
		c.pop()
		return ClientDataRefused
	case t.accepted == 0 && c.cfg.LMTP: // nobody can say how many replies would follow: RFC 2033 §4.2 forbids it
		return c.fail(ErrUnexpectedReply)
	case t.accepted == 0:
		// The server wants content for nobody: end it at once. RFC 2920 §3.1.
		t.step = stepFinal
		c.queue(".\r\n")
		return ClientNeedInput
	}
	t.step = stepContent
	return ClientStart
}

func (c *Client) fail(err error) ClientEvent {
	c.phase, c.err = clientOver, err
	return ClientFailed
}

func (c *Client) pipelining() bool { return c.ext.Has(ExtPipelining) }

// Pending returns the commands queued and not written yet. It holds until the next call of any other method.
func (c *Client) Pending() []byte { return c.out }

// Flushed says that Pending was written (or copied).
func (c *Client) Flushed() {
	if cap(c.out) > keptOutput {
		c.out = nil
		return
	}
	c.out = c.out[:0]
}

// Reply is the reply that the last event was about. Its slices hold until the next Feed. It is empty (Code 0) where an event had none of its
// own: ClientDataRefused after every recipient was refused, and ClientStart of content that goes by BDAT.
func (c *Client) Reply() *ReplyView { return c.parser.Reply() }

// RcptIndex is the recipient that ClientRcpt or ClientSettled is about: an index into the rcpts of its Begin.
func (c *Client) RcptIndex() int { return c.rcptIndex }

// Extensions is what the server offered.
func (c *Client) Extensions() Extensions { return c.ext }

// MaxSize is the largest message that the server takes, in octets, or 0 where it named none.
func (c *Client) MaxSize() int64 { return c.maxSize }

// Limits is how much the server takes. RFC 9422
func (c *Client) Limits() Limits { return c.limits }

// MinDeliverBy is the least BY, in seconds, of a message that is to be returned when it is late; 0 where the server named none. RFC 2852 §2
func (c *Client) MinDeliverBy() int64 { return c.offer.deliverBy }

// Err is the reason of ClientFailed.
func (c *Client) Err() error { return c.err }
