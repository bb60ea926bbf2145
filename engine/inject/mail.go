package inject

import (
	"context"
	"errors"
	"net/netip"

	"mailrace/proto/message"
)

// Mail is one message for the queue.
type Mail struct {
	From    string   // reverse-path without angle brackets, "" for the null reverse-path
	To      []string // forward-paths without angle brackets, at least one
	Content []byte   // RFC 5322 in wire form: CRLF lines, not dot-stuffed. It is copied

	User     string // who hands it in, if that is known
	Tenant   string // labels, at most 255 octets each
	Campaign string
	Key      string // idempotency key within the tenant, at most 255 octets; "" = none, or what the header section or ENVID says over HTTP
	Part     string // tells the messages of one injection apart, which share a key; "" = it is the only one

	Notify     message.Notify  // for each recipient
	DSN        *message.DSN    // nil = nothing said
	Wishes     *message.Wishes // likewise
	SMTPUTF8   bool            // the header section holds octets above 127. Addresses that do are noticed
	RequireTLS bool            // RFC 8689

	// Who it came from over HTTP; the zero value is the program itself. The header section of such mail is completed as that of a submission:
	// Date, Message-ID, From, Bcc. MaySend says from which addresses it may come; nil = from any.
	Client  netip.AddrPort
	MaySend func(address []byte) bool
}

// Result is what became of a Mail. An error says that it was not queued, but for ErrUnknown.
type Result struct {
	ID       message.ID
	Repeated bool // its key has been used before; ID is that message's
	Err      error
}

var (
	// ErrBusy: the node cannot take mail for now, and will again.
	ErrBusy = errors.New("memory for mail is used up, try again later")
	// ErrFull: there is too little room on the disk of the spool.
	ErrFull = errors.New("the disk of the spool is nearly full, try again later")
	// ErrStopping: the node is about to end.
	ErrStopping = errors.New("the node is stopping, try again later")
	// ErrStore: the spool did not take the message.
	ErrStore = errors.New("the message could not be stored, try again later")
	// ErrUnknown: the wait was over before the message was durable, and it may be queued or not.
	ErrUnknown = errors.New("no answer from the spool in time: the message may have been queued. An idempotency key makes it safe to repeat it")
)

// Denied is the error of a Mail that whoever sends it may not send.
type Denied struct{ Text string }

func (e *Denied) Error() string { return e.Text }

// Batch takes Mails and answers for all of them together. It belongs to one goroutine.
type Batch interface {
	// Add hands a Mail on; its Result will be the next. It waits while too many of this batch are on their way to the disk.
	Add(ctx context.Context, m *Mail)
	// Wait returns the Results in the order of Add, when all that were queued are on stable storage, or ctx or the node ends. The batch is over
	// then; another Wait has no effect.
	Wait(ctx context.Context) []Result
}
