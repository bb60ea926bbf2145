package router

import "mailrace/proto/message"

// Transaction is a message for some of its recipients at one site: what stands between MAIL and the reply to the end of data. It is handed
// out by Link.Next and belongs to that connection until Done, or until the Gone of the link; then it is used again for another.
type Transaction struct {
	Message    *message.Message
	Recipients []int  // indices in Message.Recipients, in the order of RCPT; not to be changed
	Domain     string // normal form of the domain of the first recipient

	// Held says that Message.Body holds the content, and stays until Done. Otherwise Message.Body must not be touched, other loops may be
	// freeing it; the content is read from the spool into chunks of the reader's own.
	Held bool
}

// Sent says that the final dot was handed to the transport: from now on the peer may have taken the message, whatever becomes of the
// connection. RFC 5321 §4.2.5
func (t *Transaction) Sent() {}

// Settle tells what became of Recipients[i] (i is the place in Recipients, not in the message). The Class, Code, Enhanced, Text and Remote of
// o are used and the rest is filled in; o belongs to the caller again afterwards. A recipient that is settled already is left as it is, so
// that after the reply to the end of data every i can be settled without asking which were refused at RCPT. Env.Settle is called inside.
func (t *Transaction) Settle(i int, o *Outcome) {}

// SettleAll settles all recipients that are not settled yet with one reply.
func (t *Transaction) SettleAll(o *Outcome) {}

// Settled says whether Recipients[i] is settled.
func (t *Transaction) Settled(i int) bool { return false }

// Done ends the transaction. Recipients that are not settled go back to the queue, to be tried elsewhere at once. t must not be used afterwards.
func (t *Transaction) Done() {}
