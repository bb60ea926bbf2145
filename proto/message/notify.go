package message

// Notify is when the sender of a message wants to hear of a recipient. RFC 3461 §4.1
type Notify uint8

const (
	// NotifyDefault: the sender did not say. It hears of failures.
	NotifyDefault Notify = 0
	// NotifyNever excludes the others.
	NotifyNever Notify = 1 << (iota - 1)
	// NotifySuccess: of the delivery, or of its handing on to where nobody will tell.
	NotifySuccess
	// NotifyFailure: of a failure for good.
	NotifyFailure
	// NotifyDelay: of delays, and of a deadline that passed.
	NotifyDelay
)

// Success says that the sender wants to hear of a delivery.
func (n Notify) Success() bool { return n&NotifySuccess != 0 }

// Failure says that the sender wants to hear of a failure.
func (n Notify) Failure() bool { return n == NotifyDefault || n&NotifyFailure != 0 }

// Delay says that the sender wants to hear of a deadline that passed. RFC 2852 §4.1.3
func (n Notify) Delay() bool { return n == NotifyDefault || n&NotifyDelay != 0 }

// Valid says that n is what RFC 3461 allows: NEVER stands alone.
func (n Notify) Valid() bool { return n <= NotifyNever || n < NotifyDelay<<1 && n&NotifyNever == 0 }

// Return is what of a message the sender wants to get back with the report of its failure. RFC 3461 §4.3
type Return uint8

const (
	// ReturnDefault: the sender did not say. It gets the header section.
	ReturnDefault Return = iota
	// ReturnHeaders is RET=HDRS.
	ReturnHeaders
	// ReturnFull is RET=FULL.
	ReturnFull
)

// DSN is what the sender of a message said about its notifications, beside each recipient's Notify. RFC 3461
type DSN struct {
	Return     Return
	EnvelopeID string   // ENVID, decoded: printable ASCII
	Originals  []string // ORCPT of each recipient, decoded: address type, ";" and address; "" where none. Empty where no recipient has one
}

// Original is the ORCPT of recipient i, or "".
func (d *DSN) Original(i int) string {
	if d == nil || i >= len(d.Originals) {
		return ""
	}
	return d.Originals[i]
}
