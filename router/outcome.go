package router

import (
	"net/netip"
	"strconv"
	"time"

	"mailrace/proto/message"
)

// Class is how an attempt ended for one recipient.
type Class uint8

const (
	// Delivered: the peer took responsibility.
	Delivered Class = iota + 1
	// Deferred: failed for now; the router tries again, or expires the recipient.
	Deferred
	// Bounced: failed for good.
	Bounced
)

func (c Class) String() string { return [...]string{"none", "delivered", "deferred", "bounced"}[c] }

// Outcome is what became of one recipient, or why a connection ended. Egress sets the first group of fields; the router completes the others
// before Env.Settle sees it.
type Outcome struct {
	Class    Class
	Code     int        // reply code; 0 where no reply came
	Enhanced string     // enhanced status code, "5.1.1"; "" where none came
	Text     string     // text of the reply or of the error
	Source   netip.Addr // our address on the connection; invalid where there was none

	TLSVersion string // of the connection, as in "TLS 1.3"; "" = in clear, or there was none
	TLSCipher  string // as in "TLS_AES_128_GCM_SHA256"
	TLSResumed bool   // the TLS session is one of before, and cost no full handshake
	TLSPolicy  string // what was demanded of the host, as mx.DemandKind names it, or "required", "verified" of the route; "" = nothing
	TLSVerdict string // what the connection proved: "verified", "encrypted", "clear"; or "failed", where that was not enough; "" = there was none, or none was made out

	State   message.State  // where the recipient stands now: Delivered, Deferred, Bounced or Expired
	InDoubt bool           // the connection was lost between the final dot and its reply: the peer may have taken the message
	Silent  bool           // the peer took over the mail but offers no DSN: nobody but us will tell of the success. RFC 3461 §5.2.2
	Untimed bool           // the peer took over the mail but offers no DELIVERBY. RFC 2852 §4.1.4.2
	Held    bool           // it waits for its release, which its sender set: nothing was attempted
	Late    bool           // its deadline passed, and its delivery goes on: State is not new
	Notice  bool           // its delivery takes long, and the sender is to hear of it: Options.Notices
	Remote  bool           // the code and text are the peer's own reply
	Route   string         // Route.Name; "" where none matches
	Site    string         // the site's key; "" where the recipient came to none
	Host    string         // name of the remote host; "" where there was no connection
	Addr    netip.AddrPort // the peer; invalid where there was no connection
	Attempt int            // number of this attempt, from 1; it stays when the site was backed off and nothing was attempted
	Queued  int64          // when the recipient came into the router for this attempt, Unix nanoseconds
	Started int64          // when a connection took it, Unix nanoseconds; 0 = none did
	Ended   int64          // when it was settled, Unix nanoseconds
	Due     int64          // next attempt of one that was deferred, Unix nanoseconds

	source *source
	pool   *sourcePool
}

// From is the name of the egress source, "" where the recipient came to none.
func (o *Outcome) From() string { return o.source.title() }

// Pool is the name of its pool, "" where there is none.
func (o *Outcome) Pool() string {
	if o.pool == nil {
		return ""
	}
	return o.pool.name
}

// Reason is why a connection is gone.
type Reason uint8

const (
	// GoneClosed: an end without failure. We closed it, or the peer closed it while nothing was under way, 421 to an idle connection
	// included.
	GoneClosed Reason = iota
	// GoneUnreachable: no connection, or it was lost or timed out before the peer had greeted and answered EHLO.
	GoneUnreachable
	// GoneRefused: the peer refused the session: anything but 220 as its banner, 5xx to EHLO and HELO, or 421 at any time.
	GoneRefused
	// GoneInsecure: the connection cannot be secured as the route demands.
	GoneInsecure
	// GoneDenied: the peer refused our credentials, or cannot take them. The site is backed off at once, whatever other addresses it has: to
	// try them everywhere could lock the account.
	GoneDenied
	// GoneBroken: the connection was lost, timed out, or the peer broke the protocol while a transaction was under way.
	GoneBroken
	// GoneUnusable: our own end of the connection could not be made: the address of the source is not ours, or its proxy does not work. It says nothing
	// of the host.
	GoneUnusable
)

func (r Reason) String() string {
	return [...]string{"closed", "unreachable", "refused", "insecure", "denied", "broken", "unusable"}[r]
}

// replyTextMax bounds Recipient.Reply: it is stored with each deferred recipient.
const replyTextMax = 512

// Reply is code, enhanced code and text as one printable ASCII line of at most some 500 octets. Bytes that are not printable ASCII become
// question marks, so that it can stand in a record, a log and a DSN.
func (o *Outcome) Reply() string {
	b := make([]byte, 0, len(o.Text)+16)
	if o.Code != 0 {
		b = append(strconv.AppendInt(b, int64(o.Code), 10), ' ')
	}
	if o.Enhanced != "" {
		b = append(append(b, o.Enhanced...), ' ')
	}
	b = append(b, o.Text...)
	b = b[:min(len(b), replyTextMax)]
	for i, c := range b {
		if c == '\r' || c == '\n' || c == '\t' {
			b[i] = ' '
		} else if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}

// Latency is how long the attempt took from the queue to its end.
func (o *Outcome) Latency() time.Duration { return time.Duration(o.Ended - o.Queued) }
