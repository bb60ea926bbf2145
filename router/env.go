package router

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"mailrace/proto/message"
	"mailrace/router/mx"
)

// Env is the world as the scheduler of one loop sees it. Every function but Post is called on that loop only. All are required but Fetch, Source and Rand.
type Env struct {
	// Now is the loop's clock.
	Now func() time.Time
	// After runs fn on the loop when d has passed; it is never cancelled. d may be 0 or less: run it soon, but not before After returned.
	After func(d time.Duration, fn func())
	// Post runs fn on the loop, in the order of the calls, never before Post returned. Any goroutine calls it.
	Post func(fn func())
	// Dial begins a connection to l.Target(), with the link as its handle. It must not block, and must not call the link before it
	// returned; later, on this loop, exactly one of these follows: l.Ready when the session stands (the peer greeted, EHLO is answered),
	// or l.Gone when it does not. After Ready, Gone follows once, when the connection is gone for whatever reason.
	Dial func(l *Link)
	// Wait is told of recipients of m that Settle said are deferred or held, when no connection holds their transaction any more: they are to be
	// noted, for they wait now. If park is not 0 (Options.Park), nothing of m is under way, and the router has forgotten it: m, as it was
	// noted, is to be dispatched again at that time, Unix nanoseconds, or soon after. recipients may be empty then, and are valid
	// during the call. Wait must not call the router. Recipients that were put back (Options.InMemory) wait without being noted until their message
	// is parked.
	Wait func(m *message.Message, recipients []int, park int64)
	// Settle tells what became of recipient i of m, which stands in m.Recipients[i] already: State, Attempts, and Reply and Due of
	// one that was deferred. It is called once for each recipient that is Delivered, Bounced or Expired, and for each deferral. Two more
	// things are told so: that a recipient waits for its release (o.Held, State is Deferred), and that the deadline of one passed whose
	// delivery goes on (o.Late; State is as before, and m.Recipients[i].Late is set now). o is valid during the call. Settle must not call the router,
	// but for Leave.
	Settle func(m *message.Message, i int, o *Outcome)
	// Fetch finds messages that are parked at times with a tag, the first ones first, however long it is until they are due: they are dispatched on
	// this loop, and then Router.Fetched is called there, once. It must not block, nor call the router before it returned. nil = all come when
	// they are due.
	Fetch func(q Query)
	// Source is told that a source was taken out of service, or is back, on the loop that found it. It must not block, nor call the router. nil = nobody
	// is told.
	Source func(SourceChange)
	// Rand spreads retries and picks among equal mail exchangers; nil = one seeded by the runtime.
	Rand *rand.Rand
}

// Conn is a session with a remote server as the router sees it. The router calls it on the site's owner loop.
type Conn interface {
	// Wake says that Link.Next has work again after it returned nil. It may call Next at once or later, but must call it.
	Wake()
	// Close asks for a polite end: QUIT, then close. The link has no transactions under way and gets no more. Gone follows.
	// Close must not call Gone before it returned.
	Close()
}

// Resolver finds the hosts of a domain or the addresses of a host; *mx.Resolver is one.
type Resolver interface {
	// Cached returns what is known and still valid, without waiting.
	Cached(q mx.Query) (*mx.Answer, bool)
	// Lookup asks, and calls done exactly once, on any goroutine, perhaps before it returns. It returns false, and never calls done, when
	// too many questions wait already.
	Lookup(q mx.Query, done func(*mx.Answer)) bool
}

// MayBeClear says whether mail goes there in clear where TLS fails or is not offered.
func (t *Target) MayBeClear() bool { return t.TLS == TLSOpportunistic && !t.Demand.Enforced() }

// Target is where a link leads.
type Target struct {
	Site  string         // the site's key, for people to read: "mx1.example.net,mx2.example.net" or "relay.example.net:2525"
	Route string         // Route.Name
	Host  string         // the host's name without trailing dot, or the text of its address where the route names none
	Addr  netip.AddrPort // dial exactly this: it passed the address filter
	// Second is an address of the same host of the other family, to be tried beside Addr when that takes long or fails. Invalid = there is none. What it
	// came to is told by Link.Reached.
	Second netip.AddrPort
	Source string // that the connection is to come from; "" = any address of this machine
	Kind   Kind   // of the route: the name of a Host is the operator's word, that of an MX the DNS's
	TLS    TLS    // of the route
	// Demand is what the domains of the site demand of the host beside that; nil = nothing. A later connection may have another one.
	Demand *mx.Demand
	// RequireTLS says that the mail of the link asks for REQUIRETLS: a host that does not do for it is left with GoneInsecure, and the next one asked.
	// RFC 8689 §4.2.1
	RequireTLS bool

	Path   string // of a Local route, which has neither Host nor Addr
	Manner Manner // of the route
}
