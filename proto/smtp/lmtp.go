package smtp

// LMTP (RFC 2033) is SMTP but for three things: the session begins with LHLO, for which there is no older form; the answer to the content is one
// reply for each recipient that was accepted, in their order; and a recipient that was settled so stays settled, whatever becomes of the
// session behind it.
//
// Between the content and the last of its replies nothing is sent. Replies have no other name than their place in the row: one too many would
// be read as the answer to the MAIL behind it, and tell of recipients what was never said of them. With nothing asked, it ends the session.

// takeSettled judges the answer to the content for the next recipient that was accepted.
func (c *Client) takeSettled(t *clientTransaction, class int) ClientEvent {
	if t.chunked && !t.written { // for whom this is said can be known, but how the session should go on cannot
		c.phase = clientOver
		return ClientGone
	}
	c.resetDue = c.resetDue || t.chunked && class != 2
	c.rcptIndex = t.taken[t.settled]
	if t.settled++; t.settled == len(t.taken) {
		t.step = stepSettled
	}
	return ClientSettled
}
