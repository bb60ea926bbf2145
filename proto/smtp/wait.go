package smtp

// ClientWait is what a Client waits for. RFC 5321 §4.5.3.2 gives each a time of its own.
type ClientWait uint8

const (
	WaitNothing  ClientWait = iota // nothing is asked
	WaitGreeting                   // for the server to speak first
	WaitReply                      // for the answer to EHLO, HELO, LHLO, STARTTLS, AUTH, RSET or QUIT
	WaitMail                       // for the answer to MAIL
	WaitRcpt                       // for an answer to RCPT
	WaitData                       // for the answer to DATA
	WaitContent                    // for the caller, whose content is under way
	WaitFinal                      // for an answer to the content
)

// Waits is what c waits for now: of two transactions under way, for the older one.
func (c *Client) Waits() ClientWait {
	switch {
	case c.phase == clientBanner:
		return WaitGreeting
	case c.phase == clientOver, c.phase == clientHandshake:
		return WaitNothing
	case c.count > 0:
		return stepWaits[c.tx[c.first].step]
	case c.phase != clientUp, c.resetting, c.quitting:
		return WaitReply
	}
	return WaitNothing
}

// stepWaits are the waits of the steps of a transaction.
var stepWaits = [...]ClientWait{
	stepReset: WaitReply, stepMail: WaitMail, stepRcpt: WaitRcpt, stepData: WaitData, stepStart: WaitContent, stepContent: WaitContent,
	stepFinal: WaitFinal, stepSettled: WaitFinal, stepOver: WaitNothing,
}
