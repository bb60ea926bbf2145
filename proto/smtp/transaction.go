package smtp

import "mailrace/proto/message"

// BodyType is the BODY parameter of MAIL. RFC 6152.
type BodyType uint8

const (
	// Body7Bit is the default: the content is said to be ASCII.
	Body7Bit BodyType = iota
	// Body8Bit is BODY=8BITMIME.
	Body8Bit
	// BodyBinary is BODY=BINARYMIME: any octets and lines of any length, by BDAT only. RFC 3030
	BodyBinary
)

// DeliverBy is the BY parameter of MAIL. RFC 2852 §3
type DeliverBy struct {
	Seconds int64 // from now, of at most nine digits; with ByNotify it may be 0 or negative: the time has passed
	Mode    message.ByMode
	Trace   bool // T: each hop reports that it relayed the message
}

// MailParams are the arguments of MAIL.
type MailParams struct {
	Path     []byte // reverse-path without angle brackets and source route; empty is the null reverse-path
	Domain   []byte // its domain, a slice of Path
	Size     int64  // SIZE in octets, 0 when not given. RFC 1870
	Body     BodyType
	SMTPUTF8 bool // RFC 6531
	Return   message.Return
	EnvID    []byte // ENVID in xtext, see AppendDecodedXtext; empty when not given. RFC 3461

	RequireTLS bool      // RFC 8689
	By         DeliverBy // Mode is ByNone when not given
	Priority   int8      // MT-PRIORITY, -9 to 9; 0 when not given. RFC 6710
}

// RcptParams are the parameters of RCPT. RFC 3461
type RcptParams struct {
	Notify   message.Notify
	Original []byte // ORCPT, see AppendDecodedOriginal; empty when not given
}

// transaction is what the server remembers between MAIL and the end of data. The envelope itself is the caller's.
type transaction struct {
	open       bool // MAIL was accepted
	smtpUTF8   bool
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
