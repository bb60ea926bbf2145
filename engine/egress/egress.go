// Package egress is the sending side of the node, the twin of ingress: it binds the client machine of proto/smtp to connections of the event
// loops, pulls transactions from the router's links, sends envelope and content, and tells the router what became of each recipient.
//
// Where the peer has CHUNKING, whole messages go one behind the other, as many as the window has room for, and the rate of a connection does not
// depend on the round trip. RFC 3030 §4.2. Else a connection always has the next envelope under way while it waits for the reply to the last content:
// MAIL, RCPT and DATA of message n+1 leave in the write that ends message n, so a message costs one round trip, not four. RFC 2920
//
// Before that, connections go under TLS as the route says. Where TLS is not demanded and the handshake fails, the session dials again, in clear:
// the router sees one connection that took a little longer.
package egress

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/engine/loop"
	"mailrace/engine/maildir"
	"mailrace/engine/tlsrpt"
	"mailrace/proto/message"
	"mailrace/proto/smtp"
	"mailrace/router"
	"mailrace/spool"
)

// Options are what all outbound sessions share. They are immutable once the first session is dialled.
type Options struct {
	SMTP *smtp.ClientConfig
	LMTP *smtp.ClientConfig

	TLS     *TLS
	Stats   *Stats
	Reports *tlsrpt.Reports // are told of sessions; nil = nobody is

	Window    Window
	unchunked addresses // that do not know BDAT

	Timeouts Timeouts
	Sources  map[string]*Source // by router.Target.Source
	Logins   map[string]*Login  // by router.Manner.Login

	Hostname string     // in the names of files in maildirs, and the domain of recipients without one
	Files    maildir.FS // of maildirs
	desks    desks

	// Load reads n chunks of a message from the spool, from chunk first on (0 is the trace header), and calls done with them on l. The chunks
	// are then the session's. It does not block.
	Load func(l *loop.Loop, m *message.Message, first, n int, done func([]*message.Chunk, error))

	// Markers mark what is in flight, one for each loop; none, or nil = it is not marked.
	Markers []*spool.Marker

	Log    *slog.Logger
	warned atomic.Int64 // of a shortage, Unix nanoseconds
}

// Timeouts are how long a peer may take. RFC 5321 §4.5.3.2
type Timeouts struct {
	Connect  time.Duration // for connecting, and for a TLS handshake
	Greeting time.Duration // to speak first
	Command  time.Duration // for the reply to EHLO, STARTTLS and what else has no time of its own
	Mail     time.Duration
	Rcpt     time.Duration
	Data     time.Duration // for the reply to DATA
	Block    time.Duration // to take some of the content
	Final    time.Duration // for the reply to the end of data, by LMTP for each of them
}

// of is how long is waited for w; 0 = not at all, or for ever.
func (t *Timeouts) of(w smtp.ClientWait) time.Duration {
	return [...]time.Duration{
		smtp.WaitGreeting: t.Greeting, smtp.WaitReply: t.Command, smtp.WaitMail: t.Mail, smtp.WaitRcpt: t.Rcpt, smtp.WaitData: t.Data,
		smtp.WaitContent: t.Block, smtp.WaitFinal: t.Final,
	}[w]
}

// Stats count TLS and AUTH with remote servers.
type Stats struct {
	Handshakes, Failed, Refused *metrics.Counter
	LoggedIn, LoginRefused      *metrics.Counter
	Own                         *metrics.Counter // sessions that turned out to lead to ourselves
	Unchunked                   *metrics.Counter // sessions that showed that a host does not know BDAT
}

// NewStats registers the figures in a set.
func NewStats(set *metrics.Set) *Stats {
	return &Stats{
		Handshakes: set.NewCounter(`mailrace_egress_tls_handshakes_total{result="ok"}`),
		Failed:     set.NewCounter(`mailrace_egress_tls_handshakes_total{result="failed"}`),
		Refused:    set.NewCounter(`mailrace_egress_tls_handshakes_total{result="refused"}`),

		Own:       set.NewCounter("mailrace_egress_loops_total"),
		Unchunked: set.NewCounter("mailrace_egress_chunking_failures_total"),

		LoggedIn:     set.NewCounter(`mailrace_egress_auth_total{result="ok"}`),
		LoginRefused: set.NewCounter(`mailrace_egress_auth_total{result="refused"}`),
	}
}

// Dial begins a session for a link of the router, on the link's loop.
func (o *Options) Dial(l *loop.Loop, link *router.Link) {
	target := link.Target()
	o.dial(l, link, try{inClear: target.MayBeClear() && o.TLS.clear.has(target.Addr, l.Now())})
}

// try is what sessions of one link with the same host have different, where the first did not come to stand.
type try struct {
	inClear bool  // TLS failed with this host, and is not tried
	afresh  bool  // no TLS session of before is resumed
	fault   error // of the TLS handshake, where this one goes in clear
}

// dial begins a session.
func (o *Options) dial(l *loop.Loop, link *router.Link, try try) {
	target := link.Target()
	if target.Manner.Protocol == router.Maildir {
		o.appoint(l, link)
		return
	}
	l.Dial(o.way(&target), &session{opts: o, link: link, loop: l, try: try})
}

// way is how the target is connected to.
func (o *Options) way(target *router.Target) loop.Dial {
	d := loop.Dial{Network: "tcp", Address: target.Addr.String(), Timeout: o.Timeouts.Connect}
	if target.Kind == router.Local {
		d.Network, d.Address = "unix", target.Path
		return d
	}
	if target.Second.IsValid() {
		d.Second, d.Stagger = target.Second.String(), stagger
	}
	if src := o.Sources[target.Source]; src != nil {
		src.use(&d)
	}
	return d
}
