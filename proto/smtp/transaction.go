package smtp

import "mailrace/proto/message"

// RcptParams are the parameters of RCPT. RFC 3461
type RcptParams struct {
	Notify   message.Notify
	Original []byte // ORCPT, see AppendDecodedOriginal; empty when not given
}

// transaction is what the server remembers between MAIL and the end of data. The envelope itself is the caller's.
type transaction struct {
	open       bool // MAIL was accepted
	smtpUTF8   bool
	binary     bool  // BODY=BINARYMIME: the content comes in chunks, as it is
	recipients int   // accepted
	overshoot  int   // recipients refused because of the limit
	chunks     int64 // begun by BDAT
}

// reset is the only way out of a transaction: accepted, refused, aborted or cut off, the next one starts from nothing. It reports whether
// there was one.
func (t *transaction) reset() bool {
	was := t.open
	*t = transaction{}
	return was
}
