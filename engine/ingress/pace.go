package ingress

import (
	"time"

	"mailrace/engine/loop"
)

// Pace bounds how slowly and for how long a client may use a session. Zero values of MinRate, Session and Messages mean no bound.
type Pace struct {
	Command   time.Duration // for a whole command line, from the reply before it on: RFC 5321 §4.5.3.2.7
	Handshake time.Duration // for a whole TLS handshake
	Data      time.Duration // for the next octets of content: RFC 5321 §4.5.3.2.5
	MinRate   int           // octets of content per second, over Window
	Window    time.Duration // how far content may fall behind MinRate; also what a client has before its first octets
	Session   time.Duration // a whole session. One that is over it ends before its next message. Not for trusted clients
	Messages  int           // messages of a session; then 421. Not for trusted clients
}

// floor is the moment by which more content must have come. It runs like an hourglass: every octet buys its part of a second, and at most
// the window is saved up, so that a fast beginning does not pay for a slow end. All methods take the time from the caller.
type floor struct {
	due  time.Time
	rest time.Duration // what was left of it when it was laid down between chunks
}

// begin turns the glass: content is awaited from now on, or goes on after it was we who made the client wait.
func (f *floor) begin(now time.Time, p *Pace) { f.due = now.Add(p.Window) }

// turn lays the glass down between the chunks of a message, whose commands have a deadline of their own, and sets it up again; fresh is for
// a chunk that belongs to no message.
func (f *floor) turn(now time.Time, up, fresh bool, p *Pace) {
	switch {
	case !up:
		f.rest = f.due.Sub(now)
	case fresh:
		f.begin(now, p)
	default:
		f.due = now.Add(f.rest)
	}
}

// add notes octets that came now.
func (f *floor) add(now time.Time, octets int, p *Pace) {
	if p.MinRate <= 0 {
		return
	}
	bought := time.Duration(octets) * time.Second / time.Duration(p.MinRate)
	if f.due = f.due.Add(bought); f.due.Sub(now) > p.Window {
		f.due = now.Add(p.Window)
	}
}

// left is how long a client that sends content may be silent from now on: until the timeout of a block, or until it falls below the floor.
// It is negative for one that has fallen below already.
func (f *floor) left(now time.Time, p *Pace) time.Duration {
	if p.MinRate <= 0 {
		return p.Data
	}
	return min(p.Data, f.due.Sub(now))
}

// arm sets the deadline of the session.
func (s *session) arm() {
	now, p := s.conn.Loop().Now(), &s.door.Pace
	d := p.Command
	switch {
	case s.shaking: // it has its deadline
		return
	case s.parked, s.choked: // it waits for us
	case s.smtp.InContent(): // a message that has begun is let come to its end
		d = s.floor.left(now, p)
	case !s.ends.IsZero():
		d = min(d, s.ends.Sub(now))
	}
	s.conn.SetDeadline(max(d, 1))
}

// overTime says whether the session may not begin another message because of the time it has taken.
func (s *session) overTime() bool { return !s.ends.IsZero() && !s.conn.Loop().Now().Before(s.ends) }

// Timeout ends a session whose client is too slow, does not read, or was here long enough. One that waits for the store is not to blame.
func (s *session) Timeout(*loop.Conn) {
	stats, p := s.door.Stats, &s.door.Pace
	switch {
	case s.gate == gateDelay:
		s.greet()
	case s.gate == gateProxy:
		stats.BadProxy.Inc()
		s.conn.Close()
	case s.parked, s.choked:
		s.arm()
	case s.clogged:
		stats.Unread.Inc()
		s.conn.Close()
	case s.smtp.InContent() && p.MinRate > 0 && !s.conn.Loop().Now().Before(s.floor.due):
		stats.Slow.Inc()
		s.end(replySlow)
	case !s.smtp.InContent() && s.overTime():
		stats.OverTime.Inc()
		s.end(replyOverTime)
	default:
		stats.Timeouts.Inc()
		s.end(replyTimeout)
	}
}
