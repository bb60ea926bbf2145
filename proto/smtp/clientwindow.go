package smtp

// txKept is how many transactions a Client has room for before it needs more.
const txKept = 2

// UseChunks makes content go by BDAT from now on, whatever it is, where its size is known; and lets up to window transactions be under way, 1 at
// least, so that whole messages go one behind the other without a reply in between. It reports false, and does nothing, unless the server has
// CHUNKING and PIPELINING; nor does it by LMTP, where replies to one message must not be followed by those to the next. It may be called again for
// another window. RFC 3030 §4.2, RFC 2920 §3.1
func (c *Client) UseChunks(window int) bool {
	if c.phase != clientUp || !c.ext.Has(ExtChunking|ExtPipelining) || c.cfg.LMTP {
		return false
	}
	c.window = max(window, 1)
	return true
}

// CanBegin reports whether Begin may queue an envelope: the session is up, and with PIPELINING the content of the transaction that began last is
// written, and less than the window is under way; without it, and by LMTP, nothing is.
func (c *Client) CanBegin() bool {
	if c.phase != clientUp || c.quitting || c.resetting {
		return false
	}
	most := c.window
	if most == 0 {
		most = 2
	}
	return c.count == 0 || c.count < most && c.pipelining() && !c.cfg.LMTP && c.newest().sent()
}

// sent says whether the content of t is out: nothing of it can come in between.
func (t *clientTransaction) sent() bool { return t.written || !t.chunked && t.step == stepFinal }

// at is the i-th transaction under way, from 0.
func (c *Client) at(i int) *clientTransaction { return &c.tx[(c.first+i)&(len(c.tx)-1)] }

// newest is the transaction that began last. Only its content can be under way.
func (c *Client) newest() *clientTransaction { return c.at(c.count - 1) }

// room is the place of the next transaction, which is not under way yet.
func (c *Client) room() *clientTransaction {
	if c.count == len(c.tx) {
		wider := make([]clientTransaction, 2*len(c.tx))
		for i := range c.count {
			wider[i] = *c.at(i)
		}
		c.tx, c.first = wider, 0
	}
	return c.at(c.count)
}

// pop ends the oldest transaction.
func (c *Client) pop() {
	t := c.at(0)
	t.rcpts, t.rcptParams = nil, nil
	c.first = (c.first + 1) & (len(c.tx) - 1)
	c.count--
}

// Outstanding is how many transactions have not ended.
func (c *Client) Outstanding() int { return c.count }

// Accepted is how many recipients of the oldest transaction were accepted so far.
func (c *Client) Accepted() int { return c.at(0).accepted }

// Undecided is how many transactions, the oldest first, the server may have taken without saying so, now that the session has ended. A server that
// announces the end looks at nothing behind. 421 is the answer to the oldest: it was not taken, and only by LMTP nobody knows for how many of the
// recipients that is said. After 221 a transaction whose content waits for its answer is undecided. RFC 5321 §3.8
func (c *Client) Undecided() int {
	code := c.parser.view.Code
	switch {
	case c.phase != clientOver || c.err != nil || code != 421 && code != 221:
		return c.count
	case c.count > 0 && c.at(0).step == stepFinal && (code != 421 || c.cfg.LMTP):
		return 1
	}
	return 0
}
