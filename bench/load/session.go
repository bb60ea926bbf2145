package load

import (
	"bytes"
	"fmt"
	"net/netip"
	"time"

	"mailrace/engine/loop"
	"mailrace/proto/smtp"
)

const (
	// wholeBody is the largest body that is handed to the loop in one piece, together with the commands behind it.
	wholeBody = 128 << 10
	// bodyPiece is how much of a larger one is written at once.
	bodyPiece = 64 << 10

	backoffMin = 10 * time.Millisecond
	backoffMax = time.Second
)

// session sends messages over one connection after another. Its loop alone touches it.
type session struct {
	lane    *lane
	gen     *generator
	conn    *loop.Conn
	stream  int        // that its messages say they are of
	from    netip.Addr // source address, if valid
	prelude prelude
	client  smtp.Client
	flights [2]flight // transactions under way, the oldest first, as many as count
	count   int
	sent    int       // transactions of this connection
	rest    []byte    // of a large body, not written yet
	write   [2][]byte // scratch for Writev

	up       bool // the connection is open
	ready    bool // the server took our EHLO
	quitting bool // no further transaction begins on this connection
	idle     bool // in lane.idle
	passed   bool // the next connection may be opened
	backoff  time.Duration
	timer    loop.Timer
}

// flight is a transaction under way.
type flight struct {
	number   uint64
	began    time.Duration // since the start of the run: when it was due, or its envelope was queued
	refused  int           // code of the last MAIL or RCPT that was refused, or 0
	accepted []int         // indexes of accepted recipients
}

func newSession(l *lane) *session {
	s := &session{lane: l, gen: l.gen}
	s.timer.Fire = s.redial
	return s
}

func (s *session) dial() {
	s.lane.loop.Dial(loop.Dial{Network: "tcp", Address: s.gen.opts.Address, Local: s.from, Timeout: s.gen.opts.Timeout}, s)
}

// Open waits for the banner.
func (s *session) Open(c *loop.Conn) {
	s.conn, s.up, s.ready, s.quitting = c, true, false, false
	s.count, s.sent, s.rest = 0, 0, nil
	s.lane.opened.Add(1)
	s.lane.open.Add(1)
	s.client.Init(&s.gen.client)
	c.SetDeadline(s.gen.opts.Timeout)
	s.beginPrelude(c)
}

// Data feeds replies to the machine.
func (s *session) Data(c *loop.Conn, p []byte) int {
	if s.prelude.step != preludeOver {
		return s.feedPrelude(c, p)
	}
	if s.gen.opts.LockStep && !s.ready {
		maskPipelining(p)
	}
	n := 0
	for {
		used, ev := s.client.Feed(p[n:])
		n += used
		if ev == smtp.ClientNeedInput {
			s.flush()
			return n
		}
		if !s.event(ev) {
			s.flush()
			c.Close()
			return len(p)
		}
	}
}

// maskPipelining makes PIPELINING unknown in the answer to EHLO, so that the machine does without it. p may end in the middle of a line,
// which is then presented again as a whole.
func maskPipelining(p []byte) {
	name := []byte("PIPELINING")
	for i := 0; i+len(name) <= len(p); i++ {
		if bytes.EqualFold(p[i:i+len(name)], name) {
			p[i] = 'X'
		}
	}
}

// event does what a reply asks for, and reports whether the session goes on.
func (s *session) event(ev smtp.ClientEvent) bool {
	reply := s.client.Reply()
	oldest := &s.flights[0]
	switch ev {
	case smtp.ClientReady:
		if s.gen.opts.Chunking && !s.client.UseChunks(len(s.flights)) {
			s.gen.fail("server: offers no CHUNKING with PIPELINING")
			return false
		}
		s.ready, s.backoff = true, 0
		s.settled()
		s.begin()
		s.gen.sessionUp()
	case smtp.ClientMail:
		if reply.Code/100 != 2 {
			oldest.refused = reply.Code
		}
	case smtp.ClientRcpt:
		if reply.Code/100 == 2 {
			oldest.accepted = append(oldest.accepted, s.client.RcptIndex())
		} else {
			oldest.refused = reply.Code
		}
	case smtp.ClientStart:
		s.sendBody()
	case smtp.ClientDataRefused:
		code := reply.Code
		if len(oldest.accepted) == 0 && oldest.refused != 0 {
			code = oldest.refused // what the server says to DATA is "no recipients" then
		}
		s.settle(code)
		s.begin()
	case smtp.ClientDone:
		s.settle(reply.Code)
		s.begin()
	case smtp.ClientGone:
		if reply.Code == 421 {
			for s.count > 0 {
				s.settle(reply.Code)
			}
			s.gen.fail("server: " + reply.String())
		}
		return false
	case smtp.ClientRefused:
		s.gen.fail("server: " + reply.String())
		return false
	case smtp.ClientFailed:
		s.gen.fail(s.client.Err().Error())
		return false
	}
	return true
}

// begin queues the next envelope, if one may be queued and a message is due. Otherwise the session becomes idle, or says QUIT.
func (s *session) begin() {
	if s.quitting || !s.client.CanBegin() {
		return
	}
	opts := &s.gen.opts
	if opts.PerConnection > 0 && s.sent == opts.PerConnection {
		s.quit()
		return
	}
	if opts.Rate > 0 && s.count > 0 && len(s.lane.idle) > 0 {
		return // a connection that waits for work sends it at once; here it would stand behind a reply
	}
	n, supply := s.gen.take()
	switch {
	case supply == nothing:
		s.quit()
		return
	case supply == notYet && s.count == 0:
		s.conn.SetDeadline(0)
		s.idle = true
		s.lane.idle = append(s.lane.idle, s)
		s.lane.waiting.Store(int32(len(s.lane.idle)))
		if s.gen.final.Load() || s.gen.next.Load() < s.gen.released.Load() {
			s.lane.loop.Post(s.lane.wake) // released since take, when nobody seemed to wait
		}
		return
	case supply == notYet:
		return
	}
	f := &s.flights[s.count]
	*f = flight{number: n, accepted: f.accepted[:0]}
	s.count++
	s.lane.started.Add(1)
	if f.began = time.Since(s.gen.began); opts.Rate > 0 {
		f.began = s.gen.due(n)
	}
	size := s.lane.templates[opts.Sizes.pick(n)].Size()
	if err := s.client.Begin(opts.Sender, smtp.MailParams{Size: int64(size)}, s.gen.recipients.of(n)); err != nil {
		s.count--
		s.lane.permfail.Add(1)
		s.gen.fail(fmt.Sprintf("message of %d octets from <%s>: %v", size, opts.Sender, err))
		s.quit()
		return
	}
	s.sent++
	s.conn.SetDeadline(opts.Timeout)
	if opts.Chunking {
		s.sendChunk(n)
	}
}

// sendChunk writes the envelope that has just been queued, and the content behind it as one chunk, whatever is replied meanwhile.
func (s *session) sendChunk(n uint64) {
	t := s.lane.templates[s.gen.opts.Sizes.pick(n)]
	wire, large := t.Number(n, s.stream), false
	if large = len(wire) > wholeBody; large {
		wire, s.rest = wire[:bodyPiece], t.Constant(bodyPiece)
	}
	s.write[0], s.write[1] = s.client.Pending(), wire
	s.conn.Writev(s.write[:])
	s.client.Flushed()
	if large {
		s.Drained(s.conn)
		return
	}
	s.client.EndContent()
	s.begin()
}

// quit ends the connection when its transactions have ended.
func (s *session) quit() {
	s.quitting = true
	if !s.client.Quit() {
		s.conn.Close()
	}
}

// sendBody writes the content of the oldest transaction: with the dot, and the next envelope behind it, in one piece where it is not large.
func (s *session) sendBody() {
	s.flush()
	n := s.flights[0].number
	t := s.lane.templates[s.gen.opts.Sizes.pick(n)]
	wire := t.Number(n, s.stream)
	if len(wire) > wholeBody {
		s.write[0] = wire[:bodyPiece]
		s.conn.Writev(s.write[:1])
		s.rest = t.Constant(bodyPiece)
		s.Drained(s.conn)
		return
	}
	s.client.EndContent()
	s.begin()
	s.write[0], s.write[1] = wire, s.client.Pending()
	s.conn.Writev(s.write[:])
	s.client.Flushed()
}

// Drained goes on with a large body until the peer falls behind.
func (s *session) Drained(c *loop.Conn) {
	if s.rest == nil {
		return
	}
	for len(s.rest) > 0 {
		if c.Full() {
			return
		}
		piece := s.rest[:min(bodyPiece, len(s.rest))]
		s.rest = s.rest[len(piece):]
		if c.Write(piece) != nil {
			return // Closed follows
		}
	}
	s.rest = nil
	c.SetDeadline(s.gen.opts.Timeout)
	s.client.EndContent()
	s.begin()
	s.flush()
}

// settle ends the oldest transaction with the code of its final reply.
func (s *session) settle(code int) {
	f := s.flights[0]
	s.flights[0], s.flights[1] = s.flights[1], f // keeps both accepted slices in use
	s.count--
	now := time.Since(s.gen.began)
	s.lane.newest.Store(int64(now))
	switch code / 100 {
	case 2:
		s.lane.histogram.Record(now - f.began)
		s.lane.accepted.Add(1)
		s.lane.rcpts.Add(uint64(len(f.accepted)))
		s.lane.octets.Add(uint64(s.lane.templates[s.gen.opts.Sizes.pick(f.number)].Size()))
		if tally := s.gen.opts.Acknowledged; tally != nil {
			for _, i := range f.accepted {
				tally.Add(f.number, i)
			}
		}
		return
	case 4:
		s.lane.tempfail.Add(1)
	default:
		s.lane.permfail.Add(1)
	}
	s.gen.fail(fmt.Sprintf("message refused with %d", code))
}

// flush writes what the machine has queued.
func (s *session) flush() {
	if out := s.client.Pending(); len(out) > 0 {
		s.conn.Write(out)
		s.client.Flushed()
	}
}

// Timeout gives up a server that does not answer.
func (s *session) Timeout(c *loop.Conn) {
	s.gen.fail("no reply within " + s.gen.opts.Timeout.String())
	c.Close()
}

// Closed counts what was under way as lost, and opens the next connection if there is one to open.
func (s *session) Closed(_ *loop.Conn, err error) {
	planned := s.up && s.quitting && s.count == 0
	if s.up {
		s.up = false
		s.lane.open.Add(-1)
	}
	s.conn, s.rest = nil, nil
	s.settled()
	s.leaveIdle()
	if s.count > 0 {
		s.lane.lost.Add(uint64(s.count))
		s.count = 0
		s.lane.newest.Store(int64(time.Since(s.gen.began)))
	}
	switch {
	case planned && s.gen.opts.PerConnection > 0 && s.gen.mayHaveMore():
		s.dial()
	case planned:
		s.gen.sessionEnded()
	default:
		s.lane.broken.Add(1)
		if err != nil {
			s.gen.fail(err.Error())
		}
		if !s.gen.opts.Reconnect {
			s.gen.sessionEnded()
			return
		}
		s.backoff = min(max(2*s.backoff, backoffMin), backoffMax)
		s.lane.loop.After(s.backoff, &s.timer)
	}
}

// settled lets the next connection be opened when this one is up, or has failed, for the first time. Only where they wait for each other.
func (s *session) settled() {
	if s.gen.opts.Hold && !s.passed {
		s.passed = true
		s.gen.dialNext()
	}
}

// redial opens a lost connection again.
func (s *session) redial() {
	if !s.gen.mayHaveMore() {
		s.gen.sessionEnded()
		return
	}
	s.dial()
}

// mayHaveMore says that a message is left, or will be.
func (g *generator) mayHaveMore() bool { return !g.final.Load() || g.next.Load() < g.released.Load() }

func (s *session) leaveIdle() {
	if !s.idle {
		return
	}
	s.idle = false
	for i, other := range s.lane.idle {
		if other == s {
			s.lane.idle = append(s.lane.idle[:i], s.lane.idle[i+1:]...)
			break
		}
	}
	s.lane.waiting.Store(int32(len(s.lane.idle)))
}
