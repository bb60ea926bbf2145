package ingress

import (
	"fmt"
	"log/slog"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/engine/loop"
)

// room is what the sessions of one door on one loop share. Only that loop touches it.
type room struct {
	sessions map[*session]struct{}
	draining bool
	date     dateCache
	logins   rarely // those that failed, in the log
	manners  rarely // of clients that do not wait, likewise
	proxies  rarely // whose header is bad, likewise
}

func (r *room) enter(s *session) { r.sessions[s] = struct{}{} }
func (r *room) leave(s *session) { delete(r.sessions, s) }

// OpenRooms prepares the door for a number of loops. It must be called before the first connection.
func (d *Door) OpenRooms(loops int) {
	if d.Log == nil {
		d.Log = slog.Default()
	}
	d.rooms = make([]*room, loops)
	for i := range d.rooms {
		d.rooms[i] = &room{sessions: map[*session]struct{}{}}
	}
}

// Drain ends every session that is between messages with a 421, and the others after the message under way. It is called on each loop.
func (d *Door) Drain(l *loop.Loop) {
	r := d.rooms[l.Index()]
	r.draining = true
	for s := range r.sessions {
		s.quiesce()
	}
}

// Sessions is the number of sessions on the loop, which must be the caller's.
func (d *Door) Sessions(l *loop.Loop) int { return len(d.rooms[l.Index()].sessions) }

// Stats are the figures of all doors.
type Stats struct {
	set *metrics.Set

	Connections, Messages, Bytes, NoMemory, NoSpace, NoRelay, BadHeader, StoreErrors *metrics.Counter
	Handshakes, HandshakesFailed                                                     *metrics.Counter           // TLS
	Timeouts, Slow, OverTime, OverMessages, Unread                                   *metrics.Counter           // sessions that were ended
	Early, BadProxy                                                                  *metrics.Counter           // likewise, before they began
	Repeated                                                                         *metrics.Counter           // messages whose idempotency key was used before
	NoSender                                                                         *metrics.Counter           // domains that mail may not come from
	NoRecipient                                                                      *metrics.Counter           // recipients that are not there
	NoUser, BadSender                                                                *metrics.Counter           // refused because of who the user is
	Clogged                                                                          *metrics.Gauge             // sessions that wait for their client to read
	Hasty                                                                            *metrics.Counter           // sessions of strangers that did not wait for a reply
	Quota                                                                            [verdicts]*metrics.Counter // connections, messages and recipients over a quota
}

// NewStats registers the figures in a set.
func NewStats(set *metrics.Set) *Stats {
	s := &Stats{
		set:              set,
		Connections:      set.NewCounter("mailrace_ingress_connections_total"),
		Messages:         set.NewCounter("mailrace_ingress_messages_total"),
		Bytes:            set.NewCounter("mailrace_ingress_bytes_total"),
		NoMemory:         set.NewCounter(`mailrace_ingress_refused_total{reason="memory"}`),
		NoSpace:          set.NewCounter(`mailrace_ingress_refused_total{reason="disk"}`),
		NoRelay:          set.NewCounter(`mailrace_ingress_refused_total{reason="relay"}`),
		NoSender:         set.NewCounter(`mailrace_ingress_refused_total{reason="sender_domain"}`),
		NoRecipient:      set.NewCounter(`mailrace_ingress_refused_total{reason="recipient"}`),
		BadHeader:        set.NewCounter(`mailrace_ingress_refused_total{reason="header"}`),
		StoreErrors:      set.NewCounter(`mailrace_ingress_refused_total{reason="store"}`),
		Handshakes:       set.NewCounter(`mailrace_ingress_tls_handshakes_total{result="ok"}`),
		HandshakesFailed: set.NewCounter(`mailrace_ingress_tls_handshakes_total{result="failed"}`),
		Timeouts:         set.NewCounter("mailrace_ingress_timeouts_total"),

		Slow:         set.NewCounter(`mailrace_ingress_ended_total{reason="rate"}`),
		OverTime:     set.NewCounter(`mailrace_ingress_ended_total{reason="session_time"}`),
		OverMessages: set.NewCounter(`mailrace_ingress_ended_total{reason="session_messages"}`),
		Unread:       set.NewCounter(`mailrace_ingress_ended_total{reason="unread"}`),
	}
	s.Early = set.NewCounter(`mailrace_ingress_ended_total{reason="early_talker"}`)
	s.BadProxy = set.NewCounter(`mailrace_ingress_ended_total{reason="proxy_header"}`)
	s.Clogged = set.NewGauge("mailrace_ingress_sessions_unread", nil)
	s.Repeated = set.NewCounter("mailrace_ingress_repeated_total")
	s.Hasty = set.NewCounter("mailrace_ingress_hasty_sessions_total")
	s.NoUser = set.NewCounter(`mailrace_ingress_refused_total{reason="no_user"}`)
	s.BadSender = set.NewCounter(`mailrace_ingress_refused_total{reason="sender"}`)
	for v := tooManyConnections; v < verdicts; v++ {
		s.Quota[v] = set.NewCounter(fmt.Sprintf("mailrace_ingress_over_quota_total{quota=%q}", v))
	}
	return s
}

// authenticated counts a try to authenticate, by its result.
func (s *Stats) authenticated(mechanism, result string) {
	s.set.GetOrCreateCounter(fmt.Sprintf("mailrace_ingress_auth_total{mechanism=%q,result=%q}", mechanism, result)).Inc()
}
