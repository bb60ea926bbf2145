// Package dsn builds delivery status notifications: multipart/report messages (RFC 6522) that tell a sender for which recipients its
// message failed for good (RFC 3464), in the internationalized forms where the message asked for them (RFC 6533).
package dsn

import (
	"time"

	"mailrace/proto/message"
)

// Report is what a notification says. Strings may hold any bytes: all of them are sanitized on their way out.
type Report struct {
	ReportingMTA string     // our host name
	ID           message.ID // of the notification itself: its Message-ID and its MIME boundary
	Date         time.Time  // of the notification
	To           string     // reverse-path of the original, not null; receives the notification
	Original     message.ID
	Arrived      time.Time // of the original
	SMTPUTF8     bool      // the original was sent with SMTPUTF8: use the forms of RFC 6533
	Recipients   []Recipient
	// Content is the first part of the original's content; its header section is returned, as far as it lies in here, capped.
	Content []byte
}

// Recipient is one forward-path that failed for good.
type Recipient struct {
	Address     string    // forward-path
	Status      string    // enhanced status code, class 4 or 5; anything else becomes 5.0.0, or 4.4.7 for Expired
	RemoteMTA   string    // host that answered, "" where none was reached
	Reply       string    // its last reply, code and text in one line; "" where none came
	Reason      string    // what went wrong where no host answered, in plain words
	Expired     bool      // the lifetime ran out, rather than a permanent failure
	LastAttempt time.Time // zero = unknown
}
