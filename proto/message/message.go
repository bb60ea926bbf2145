// Package message holds what travels through Mailrace from the door to the last reply: a message's identity, envelope and recipients
// with their states, and the chunks that hold its content in memory within a budget. It does no I/O and starts no goroutines.
package message

import (
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// Flags are facts of the whole message that decide how it may be sent on.
type Flags uint8

const (
	// Body8Bit: the content holds octets above 127, whether or not BODY=8BITMIME was declared (RFC 6152).
	Body8Bit Flags = 1 << iota
	// SMTPUTF8 was declared with MAIL (RFC 6531).
	SMTPUTF8
	// LeadingDots: at least one line of the content begins with a dot, so DATA must stuff it (RFC 5321 §4.5.2). Nearly no message has
	// one, and all others are sent as they are stored.
	LeadingDots
	// Binary: BODY=BINARYMIME was declared. The content may hold any octets and lines of any length, and goes on by BDAT only (RFC 3030).
	Binary
	// RequireTLS was declared with MAIL: every hop goes under TLS, to a host whose name is verified and that says REQUIRETLS too (RFC 8689).
	RequireTLS
	// TLSOptional: the header section says TLS-Required: No, and RequireTLS was not declared. The mail shall arrive whatever the domain of a
	// recipient demands of TLS (RFC 8689 §5).
	TLSOptional
)

// State is where a recipient stands. Every accepted recipient is in exactly one of them at any time.
type State uint8

const (
	// Pending: no attempt has ended yet, or one is under way.
	Pending State = iota
	// Deferred: an attempt failed for now; due again at Recipient.Due.
	Deferred
	// Delivered: the next hop answered 2xx after the end of data.
	Delivered
	// Bounced: failed for good; a DSN is spooled unless the reverse-path is null or the sender does not want to hear of failures.
	Bounced
	// Expired: deferred until the message's lifetime ran out; a DSN is spooled as for Bounced.
	Expired
)

func (s State) String() string {
	return [...]string{"pending", "deferred", "delivered", "bounced", "expired"}[s]
}

// Settled says that nothing remains to be done for a recipient in this state.
func (s State) Settled() bool { return s >= Delivered }

// Recipient is one forward-path of a message and how far its delivery is. All but Address and Notify belong to the loop that owns the bucket which
// holds the recipient.
type Recipient struct {
	Address  string // forward-path without angle brackets
	Due      int64  // next attempt, Unix nanoseconds; 0 = now
	Reply    string // last reply or error, sanitized to one printable line
	Doubt    *Doubt // a delivery that may have happened, the last of them; nil = none
	Mark     uint32 // of a delivery in flight, in the table of the spool; 0 = none
	Attempts uint16 // attempts that ended
	State    State
	Notify   Notify
	Late     bool  // its deadline passed and was reported, Wishes.Deadline
	Noticed  uint8 // delays of the configured ones that passed and were reported, if the sender wants to hear of them
}

// Domain is the part behind the last @ as the client wrote it, or "" where there is none.
func (r *Recipient) Domain() string {
	if at := strings.LastIndexByte(r.Address, '@'); at >= 0 {
		return r.Address[at+1:]
	}
	return ""
}

// Message is an envelope with its content. It is built by one session, immutable but for the recipients' states once it is spooled, and
// then shared by the buckets that deliver it.
type Message struct {
	ID         ID
	Arrived    int64  // Unix nanoseconds
	From       string // reverse-path without angle brackets; "" is the null reverse-path
	Recipients []Recipient
	Flags      Flags
	Size       int64          // octets of content, without our trace header and without dot-stuffing
	Chunks     int            // chunks that the content has in the spool: keys 1..Chunks; the trace header is chunk 0
	Trace      []byte         // our Received header, CRLF at its end; sent in front of the content. Read from the spool with chunk 0 after a restart
	Client     string         // address of the client that handed it in, as in the Received header
	Peer       netip.AddrPort // the same with its port; not kept in the spool
	Helo       string         // what that client called itself, sanitized
	DSN        *DSN           // nil where the sender said nothing
	Wishes     *Wishes        // likewise
	User       string         // who authenticated, or ""
	Tenant     string         // whose mail it is: label for scheduling, limits, control and logs; "" = nobody's in particular
	Campaign   string         // label for what mail it is, within the tenant
	TLSVersion string         // as in "TLS 1.3", of the session that it came by, or ""; not kept in the spool
	TLSCipher  string         // as in "TLS_AES_128_GCM_SHA256", likewise

	// Body holds the content in memory, in order, or is empty when it must be read from the spool. Guarded by the holds: it may be read by
	// a holder until it calls Release.
	Body []*Chunk
	// Stored is how many chunks of Body already are in the spool, streamed ahead of the envelope.
	Stored int

	// Parked is when the message is due by its entry in the index of the spool, Unix nanoseconds; 0 = it has none. It does not change while
	// somebody works on the message.
	Parked int64

	holds    atomic.Int32
	progress atomic.Int64 // recipients that are not settled << 32 | of those, the ones that are under way
	ticket   atomic.Pointer[Ticket]
}

// Arrival is the time of arrival.
func (m *Message) Arrival() time.Time { return time.Unix(0, m.Arrived) }

// Hold adds n holders of Body. The first holder is the one who built the message and calls Hold(1).
func (m *Message) Hold(n int) { m.holds.Add(int32(n)) }

// Release gives one hold back; with the last one the chunks return to their budget and Body is empty.
func (m *Message) Release() {
	if m.holds.Add(-1) == 0 {
		FreeAll(m.Body)
		m.Body = nil
	}
}
