// Package event writes one record for each thing that happened to a message: reception, delivery, deferral, bounce, expiry. Records are
// JSON lines. Recording costs a loop the encoding and no I/O: a single goroutine carries the lines to the file.
package event

import (
	"net/netip"
	"time"

	"mailrace/proto/message"
)

// Type is what happened.
type Type uint8

const (
	// Reception: the message is on stable storage and its 250 goes out. One record for the message.
	Reception Type = iota
	// Delivery: the next hop took the recipient's mail. This and the following types: one record for each recipient.
	Delivery
	// Deferral: an attempt failed for now.
	Deferral
	// Bounce: the recipient failed for good.
	Bounce
	// Expiry: the message's lifetime ran out with the recipient still deferred.
	Expiry
	// Hold: the recipient waits for the release that its sender set; nothing was attempted. FUTURERELEASE
	Hold
	// Delay: the deadline that its sender set passed, and attempts go on. DELIVERBY
	Delay
	// InDoubt: the message went out to the recipient, and nobody knows whether it was taken; or an operator decided about that.
	InDoubt
	// SourceOut: an egress source was taken out of service. It is of no message, and neither are the next ones.
	SourceOut
	// SourceBack: it is in service again.
	SourceBack
	// TLSReport: a report on the TLS of mail to a domain (Queue) went to Recipient, or could not: Text.
	TLSReport

	types
)

var typeNames = [types]string{"reception", "delivery", "deferral", "bounce", "expiry", "hold", "delay", "in-doubt", "source-out", "source-back", "tls-report"}

func (t Type) String() string { return typeNames[t] }

// ofMessage says whether records of the type are of a message, and have its id and sender.
func (t Type) ofMessage() bool { return t < SourceOut }

// Record is one thing that happened. Zero values are left out of the line, but for id, time, type and sender (an empty sender is the null
// reverse-path). Strings may hold any bytes: the encoder makes them harmless and cuts them to a bound.
type Record struct {
	Time       int64 // Unix nanoseconds
	Type       Type
	ID         message.ID
	Sender     string         // reverse-path
	Recipient  string         // forward-path; of a Reception the first
	Recipients int            // Reception: how many there are
	Queue      string         // the recipient's domain
	Site       string         // key of the site that the queue's mail goes to
	Source     netip.Addr     // our address on the connection
	From       string         // name of the egress source
	Pool       string         // name of its pool
	Peer       netip.AddrPort // the other end: the client of a Reception, else the remote server
	TLSVersion string         // of the connection to Peer, as in "TLS 1.3"
	TLSCipher  string         // as in "TLS_AES_128_GCM_SHA256"
	TLSResumed bool           // the TLS session was one of before, and cost no full handshake
	TLSPolicy  string         // of a delivery: what had to be shown: "sts", "testing", "dane", "encrypted", "required", "verified"
	TLSVerdict string         // and what was: "verified", "encrypted", "clear", "failed"
	Code       int            // reply code, 0 where no reply came
	Enhanced   string         // enhanced status code, "5.1.1"
	Text       string         // text of the reply or of the error, at most textMax bytes are kept
	Attempt    int            // number of the attempt, from 1
	Size       int64          // octets of content
	User       string         // who authenticated to hand it in
	Tenant     string         // labels of the message
	Campaign   string
	Release    int64         // Reception: not to be delivered before, Unix nanoseconds
	Deadline   int64         // Reception: to be delivered until, Unix nanoseconds
	Priority   int           // Reception: -9 to 9
	Cause      string        // InDoubt: "crash" or "connection"
	Action     string        // InDoubt: "retry", "wait" or "give-up"
	Began      int64         // InDoubt: when the message went out, Unix nanoseconds
	Until      int64         // SourceOut: not tried before, Unix nanoseconds
	Latency    time.Duration // since arrival; of a Reception: from MAIL to the commit
}
