// Package ingress is the receiving side of the node: it binds the server machine of proto/smtp to the connections of the event loops,
// decides who may relay, keeps content in memory within the budget or streams it into the spool, and answers 250 only when the spool has
// synced.
//
// A session belongs to its connection's loop and is touched by nothing else. The steps of a message are those of RFC 5321 §3.3: MAIL and
// RCPT are judged by the Door, DATA begins a transaction, its content goes into chunks, and at its end the transaction goes to a shard
// while the session is parked. The shard's completion comes back to the loop, the session answers, and the message goes on to Accepted.
package ingress

import (
	"crypto/tls"
	"log/slog"
	"net/netip"
	"time"

	"mailrace/engine/loop"
	"mailrace/proto/message"
	"mailrace/proto/smtp"
	"mailrace/spool"
)

// Store makes messages durable. Its methods may be called by any loop and do not block. Completed operations come back
// through Completed of their Done, on the loop that Op.Origin names, in the order in which one loop enqueued them on one shard.
type Store interface {
	// NewID mints an ID; its shard is where the message will be kept. loop is the index of the calling loop.
	NewID(loop int) message.ID
	// Enqueue hands an operation to the shard of the given number.
	Enqueue(shard int, op *spool.Op)
	// Full says that no mail shall be let in: there is too little room for it.
	Full() bool
	// Keeps says whether content may leave memory once it is stored.
	Keeps() bool
}

// Door is what the sessions of one listener share: its limits, its policy and the way on. It is immutable once the listener is open.
type Door struct {
	SMTP              *smtp.ServerConfig
	TLS               *tls.Config     // of this door alone, as its session tickets are; nil = none. SMTP says whether STARTTLS is offered
	TLSReady          func() bool     // whether TLS can be had now: until then STARTTLS is not offered. Any loop calls it; nil = always
	TLSFirst          bool            // sessions begin with TLS: RFC 8314 §3.3
	RelayFrom         []netip.Prefix  // clients that may relay anywhere
	RelayDomains      *Domains        // recipients that anybody may send to; nil = none
	Budget            *message.Budget // content in memory
	Store             Store
	Pace              Pace
	GreetDelay        time.Duration  // before the greeting, for clients that are not trusted
	ProxyFrom         []netip.Prefix // proxies that begin with a PROXY header, and whose word about the client's address is taken
	XClientFrom       []netip.Prefix // clients that may tell by XCLIENT for whom they speak
	Users             *Users         // who may log in; nil = nobody. SMTP says by which mechanisms
	Clients           *Clients       // what strangers have done lately, at all doors; nil = not counted
	Claims            *Claims        // idempotency keys of this node; nil = keys are ignored
	Exempt            []netip.Prefix // clients that are neither counted nor bound to Pace.Session and Pace.Messages, as those that may relay
	Terms             Terms
	Recipients        Recipients // nil = everybody is there
	Senders           Senders    // nil = mail may come from any domain
	Tarpit            Tarpit
	Head              *HeadRules // what is done with header sections; nil = nothing
	RelayCertificates *Domains   // names in client certificates that TLS has verified, whose holders may relay anywhere; nil = none

	// Accepted takes over a message that is durable, with one hold on its Body. It is called on the session's loop, after the 250 was queued.
	Accepted func(l *loop.Loop, m *message.Message)

	Stats *Stats
	Log   *slog.Logger // nil = slog.Default()

	rooms []*room
}

// within says whether an address is in one of the networks.
func within(client netip.Addr, networks []netip.Prefix) bool {
	client = client.Unmap().WithZone("")
	for _, p := range networks {
		if p.Contains(client) {
			return true
		}
	}
	return false
}

// receives says whether anybody may send to a recipient. An address without a domain is our postmaster's: RFC 5321 §4.5.1
func (d *Door) receives(rcpt *smtp.Path) bool {
	if len(rcpt.Domain) == 0 {
		return d.RelayDomains.Has([]byte(d.SMTP.Hostname))
	}
	return d.RelayDomains.Has(rcpt.Domain) && !routed(rcpt.Local)
}

// Replies of policy. The codes are those of RFC 5321 §4.2 and RFC 3463.
var (
	replyNoRelay   = smtp.Reply{Code: 550, Enhanced: "5.7.1", Text: "Relaying denied: this host relays only for its own networks"}
	replyNoStorage = smtp.Reply{Code: 452, Enhanced: "4.3.1", Text: "Insufficient system storage, try again later"}
	replyStore     = smtp.Reply{Code: 451, Enhanced: "4.3.0", Text: "The message could not be stored, try again later"}
	replyHops      = smtp.Reply{Code: 554, Enhanced: "5.4.6", Text: "Too many hops: this message has been going round in circles"}
	replyDraining  = smtp.Reply{Code: 421, Enhanced: "4.3.2", Text: "Service shutting down, try again later"}
	replyTimeout   = smtp.Reply{Code: 421, Enhanced: "4.4.2", Text: "Timeout waiting for you"}
	replySlow      = smtp.Reply{Code: 421, Enhanced: "4.4.2", Text: "Your message comes too slowly"}
	replyOverTime  = smtp.Reply{Code: 421, Enhanced: "4.4.2", Text: "This session has lasted long enough, connect again"}

	replyNoHolding   = smtp.Reply{Code: 550, Enhanced: "5.7.1", Text: "Messages are held only for those who may relay"}
	replyReleaseLate = smtp.Reply{Code: 501, Enhanced: "5.5.4", Text: "The message would be released after it is to be delivered"} // RFC 4865 §5.2.2

	replyOverMessages = smtp.Reply{Code: 421, Enhanced: "4.7.0", Text: "Enough messages for one session, connect again"}
)

// replyQuota tells a client which quota it has used up. All of them are worth another try later.
var replyQuota = [verdicts]smtp.Reply{
	tooManyConnections: {Code: 421, Enhanced: "4.7.0", Text: "Too many connections from your address or network, try again later"},
	tooManyNew:         {Code: 421, Enhanced: "4.7.0", Text: "Too many new connections from your address or network, try again later"},
	tooManyErrors:      {Code: 421, Enhanced: "4.7.0", Text: "Too many errors from your address or network, try again later"},
	tooManyMessages:    {Code: 450, Enhanced: "4.7.1", Text: "Too many messages from your address or network, try again later"},
	tooManyRecipients:  {Code: 452, Enhanced: "4.5.3", Text: "Too many recipients from your address or network, try again later"},

	tooManyAuthFailures: {Code: 421, Enhanced: "4.7.0", Text: "Too many failed authentications from your address or network, try again later"},
	userConnections:     {Code: 421, Enhanced: "4.7.0", Text: "Too many connections of this user, try again later"},
	userMessages:        {Code: 450, Enhanced: "4.7.1", Text: "You have sent as many messages as you may in an hour, try again later"},
	userRecipients:      {Code: 452, Enhanced: "4.5.3", Text: "You have sent to as many recipients as you may in an hour, try again later"},
}

// surplusMax is how many recipients over its quota a client may try in a session before the session ends.
const surplusMax = 1000

var replySurplus = smtp.Reply{Code: 421, Enhanced: "4.7.0", Text: "Too many recipients, try again later"}
