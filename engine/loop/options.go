package loop

import (
	"errors"
	"log/slog"
	"runtime"
	"time"
)

// Defaults and bounds.
const (
	readBuffer           = 64 << 10  // bytes that one read takes from a socket
	defaultInboundLimit  = 128 << 10 // see Options.InboundLimit
	defaultOutboundLimit = 1 << 20   // see Options.OutboundLimit
	maxDials             = 256       // dials under way in a group; more wait for their turn
	tick                 = 5 * time.Millisecond
	restInterval         = 100 * time.Millisecond // how often is looked whether the process has descriptors again
	flushLimit           = 30 * time.Second       // how long CloseAfterFlush waits for a peer that does not read, if no deadline is set
	lingerLimit          = 2 * time.Second        // how long a closing connection reads and discards, so that the last reply is not lost to a reset
)

// Errors that Handler.Closed, Write and Dial report.
var (
	ErrClosed             = errors.New("loop: connection is closed")
	ErrInboundLimit       = errors.New("loop: handler left more bytes unconsumed than the inbound limit")
	ErrOutboundLimit      = errors.New("loop: peer does not read: outbound limit reached")
	ErrTooManyConnections = errors.New("loop: too many connections or open files")
	ErrGroupClosed        = errors.New("loop: group is closed")
)

// Handler is the protocol of one connection. All methods are called on the goroutine of the connection's loop, never nested.
type Handler interface {
	// Open is called once, when the connection is up.
	Open(c *Conn)
	// Data hands over bytes that arrived and returns how many were consumed; the rest is presented again in front of the next bytes.
	// p is valid during the call only, and may be changed.
	Data(c *Conn, p []byte) (n int)
	// Drained says that the outbound buffer fell to the low mark after it had been over the high mark.
	Drained(c *Conn)
	// Timeout says that the deadline set with SetDeadline passed. The deadline is cleared; the connection stays open.
	Timeout(c *Conn)
	// Closed is called exactly once, and last. err is nil when this side closed, io.EOF (wrapped) when the peer did. c is nil for a dial
	// that failed.
	Closed(c *Conn, err error)
}

// Listener is an address to accept connections at.
type Listener struct {
	// Address is host:port. An empty host means all addresses, IPv6 and IPv4, [::] those of IPv6 only; port 0 takes a free port, see
	// Group.Addr.
	Address string
	// New makes the handler of an accepted connection, on its loop; Open follows. nil refuses the connection.
	New func(*Conn) Handler
	// Busy is written, as far as the socket takes it, to connections that are closed because too many are open.
	Busy []byte
}

// Options configure a Group. The zero value of a field means its default.
type Options struct {
	// Loops is the number of event loops; 0 is one per usable core.
	Loops int
	// Listeners may be empty: a load generator only dials.
	Listeners []Listener
	// MaxConnections is the most accepted connections open at once. Further ones are accepted and closed with Listener.Busy, so that
	// clients learn at once instead of waiting in the backlog, and counted in Stats.Refused. 0, or more than the limit of open files
	// allows, means three quarters of that limit less the reserve.
	MaxConnections int
	// ReserveFiles is the number of descriptors kept free of connections, for files and other sockets of the process. Default: an
	// eighth of RLIMIT_NOFILE, at least 256, at most half of it. When the rest of the process has used half of the reserve, the listeners
	// rest until it gives some back.
	ReserveFiles int
	// InboundLimit is the most bytes kept for a handler that paused or did not consume them. At least 128 KiB, which is the default.
	InboundLimit int
	// OutboundLimit is the most bytes buffered for a peer that reads slowly; beyond, the connection is closed with ErrOutboundLimit.
	// Default 1 MiB. The high mark is a quarter of it, the low mark a sixteenth.
	OutboundLimit int
	// Setup, if not nil, runs on each loop before any connection is opened on any loop, and before Start returns. It is the place to make
	// per-loop state (Loop.Value).
	Setup func(*Loop)
	// Clock is the time that timers and deadlines go by; nil = MachineClock. What the system times itself, such as Dial.Timeout, goes by its own.
	Clock *Clock
	// Log receives what goes wrong, and gnet's messages. Default slog.Default().
	Log *slog.Logger
}

// withDefaults fills in the zero fields.
func (o Options) withDefaults() Options {
	if o.Loops <= 0 {
		o.Loops = runtime.GOMAXPROCS(0)
	}
	if o.InboundLimit < defaultInboundLimit {
		o.InboundLimit = defaultInboundLimit
	}
	if o.OutboundLimit <= 0 {
		o.OutboundLimit = defaultOutboundLimit
	}
	if o.Clock == nil {
		o.Clock = &MachineClock
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o
}
