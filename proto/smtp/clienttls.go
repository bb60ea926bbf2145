package smtp

import "errors"

// ErrClearText: octets in clear behind the answer to STARTTLS. They could be anybody's: nothing is read of them, and nothing more is said.
var ErrClearText = errors.New("octets in clear behind the answer to STARTTLS")

// StartTLS queues STARTTLS, answered by ClientHandshake or ClientTLSRefused. It reports false, and does nothing, unless the server offers it,
// the session is up in clear, and no transaction is under way. RFC 3207 §4
func (c *Client) StartTLS() bool {
	if !c.CanBegin() || c.count > 0 || c.secured || !c.ext.Has(ExtStartTLS) {
		return false
	}
	c.phase, c.resetDue = clientStartTLS, false
	c.queue("STARTTLS\r\n")
	return true
}

// takeStartTLS judges the answer to STARTTLS.
func (c *Client) takeStartTLS(r *ReplyView) ClientEvent {
	switch {
	case r.Code == 421:
		c.phase = clientOver
		return ClientGone
	case r.Code/100 >= 4:
		c.phase = clientUp
		return ClientTLSRefused
	case r.Code != 220:
		return c.fail(ErrUnexpectedReply)
	case c.behind: // HOSTILE T2
		return c.fail(ErrClearText)
	}
	c.phase = clientHandshake
	return ClientHandshake
}

// Secured says that the session is under TLS now: after ClientHandshake, when the handshake is done, or before the greeting where TLS comes
// first. After ClientHandshake everything that the server said in clear is forgotten, and EHLO is queued again. RFC 3207 §4.2
func (c *Client) Secured() {
	c.secured = true
	if c.phase != clientHandshake {
		return
	}
	c.parser.Reset()
	c.offer, c.window = offer{}, 0
	c.queueHello()
}
