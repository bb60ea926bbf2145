package egress

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"mailrace/engine/loop"
	"mailrace/proto/smtp"
	"mailrace/router"
)

// quitTimeout is how long a polite end may take.
const quitTimeout = 5 * time.Second

// session is one outbound connection. Its deliveries stand in the order of the wire: the first waits for replies, the last may still be
// at its envelope, or its content on its way. By DATA at most two exist: one whose content is out, and one whose envelope is. By BDAT there are as
// many as the window has room for: see window.go.
type session struct {
	opts   *Options
	link   *router.Link
	loop   *loop.Loop
	conn   *loop.Conn
	smtp   smtp.Client
	source netip.Addr // our address on the connection
	tls    security
	login  *login // until it is done; nil without credentials

	line     []*delivery // under way, oldest first
	upcoming *delivery   // pulled from the link; its content is being read, or the machine is not ready for its envelope
	spare    []*delivery // for the next ones
	sending  *delivery   // its content is going out
	loading  bool        // a read of the spool is under way
	iov      [][]byte
	staged   int    // octets of the machine's commands that are in iov
	pending  int    // octets of content that are in iov
	scratch  []byte // dot-stuffed content
	chunks   chunks

	try      try
	told     map[string]struct{} // domains that TLS reports tell of the session
	own      bool                // the host is ourselves
	shaking  bool                // the TLS handshake is under way
	ready    bool                // greeting, EHLO and TLS are done
	quitting bool
	gone     bool
}

// Open begins the dialogue: the server speaks first.
func (s *session) Open(c *loop.Conn) {
	s.conn = c
	if target := s.link.Target(); c.Second() {
		s.link.Reached(target.Second)
	} else {
		s.link.Reached(target.Addr)
	}
	target := s.link.Target()
	s.source = s.opts.origin(c, &target)
	s.tls.demand, s.tls.policy = target.Demand, policyOf(&target)
	s.smtp.Init(s.opts.protocol(&target))
	if target.Manner.TLSFirst {
		s.shake()
	}
	s.arm()
}

// Data runs the replies. What they set free leaves in one write: the content of one message and the envelope of the next.
func (s *session) Data(c *loop.Conn, p []byte) int {
	done, idle := 0, true
	for !s.gone {
		n, ev := s.smtp.Feed(p[done:])
		done += n
		if ev == smtp.ClientNeedInput {
			break
		}
		idle = false
		s.handle(ev)
	}
	switch {
	case s.gone:
		return len(p)
	case idle && len(s.smtp.Pending()) == 0: // a part of a reply does not move the deadline: it must come whole in time
		return done
	}
	s.pump()
	s.flush()
	return done
}

func (s *session) handle(ev smtp.ClientEvent) {
	switch ev {
	case smtp.ClientReady:
		s.greeted()
	case smtp.ClientHandshake:
		s.shake()
	case smtp.ClientTLSRefused:
		s.tlsRefused()
	case smtp.ClientChallenge:
		s.challenged()
	case smtp.ClientAuthenticated:
		s.authenticated()
	case smtp.ClientAuthRefused:
		s.authRefused()
	case smtp.ClientMail:
		s.mailReply()
	case smtp.ClientRcpt:
		if r := s.smtp.Reply(); r.Code/100 != 2 && !s.line[0].refused {
			d := s.line[0]
			o := s.outcome()
			d.rejected = append(d.rejected, rejection{d.places[s.smtp.RcptIndex()], &o})
		}
	case smtp.ClientStart:
		s.sending = s.line[0]
	case smtp.ClientSettled:
		s.settled()
	case smtp.ClientDataRefused, smtp.ClientDone:
		s.finish(ev)
	case smtp.ClientRefused:
		o := s.outcome()
		s.close(router.GoneRefused, &o)
	case smtp.ClientGone:
		s.dismissed()
		o := s.outcome()
		s.close(s.lostReason(router.GoneRefused), &o)
	case smtp.ClientFailed:
		s.close(s.lostReason(router.GoneBroken), &router.Outcome{Class: router.Deferred, Text: s.smtp.Err().Error()})
	}
}

// up says that the session stands.
func (s *session) up() {
	s.ready = true
	s.useChunks()
	s.link.Ready(s, router.Limits(s.smtp.Limits()))
}

func (s *session) mailReply() {
	if r := s.smtp.Reply(); r.Code/100 != 2 {
		d := s.line[0]
		d.refused, d.outcome = true, s.outcome()
	}
}

// settled notes the reply to the end of data for one recipient, by LMTP. What was delivered is settled at once: others may keep us waiting. Who was
// refused waits for them, so that the sender gets one DSN for all.
func (s *session) settled() {
	d := s.line[0]
	place := d.places[s.smtp.RcptIndex()]
	if d.outcome = s.outcome(); d.outcome.Class == router.Delivered {
		d.tx.Settle(place, &d.outcome)
	} else {
		o := d.outcome
		d.rejected = append(d.rejected, rejection{place, &o})
	}
}

// finish settles the oldest delivery by the reply to its DATA or to its end of data.
func (s *session) finish(ev smtp.ClientEvent) {
	d := s.line[0]
	o := &d.outcome
	if !d.refused {
		*o = s.outcome()
	}
	if d.chunked && s.judgeChunk(d, o) {
		return
	}
	if !d.refused && ev == smtp.ClientDataRefused && o.Class == router.Delivered {
		o.Class = router.Deferred // a 2xx to DATA is none of RFC 5321 §4.3.2
	}
	s.shift()
	if s.sending == d { // a chunk that was refused before it was out: the session ends
		s.sending = nil
	}
	s.end(d, o)
}

// outcome is the reply at hand, in the terms of the router.
func (s *session) outcome() router.Outcome {
	r := s.smtp.Reply()
	o := router.Outcome{
		Class: router.Deferred, Code: r.Code, Enhanced: string(r.Enhanced), Text: string(r.Text), Remote: true,
		Silent: !s.smtp.Extensions().Has(smtp.ExtDSN), Untimed: !s.smtp.Extensions().Has(smtp.ExtDeliverBy),
	}
	s.sign(&o)
	switch r.Code / 100 {
	case 2:
		o.Class = router.Delivered
	case 5:
		o.Class = router.Bounced
	}
	return o
}

// sign notes the connection that an outcome was on.
func (s *session) sign(o *router.Outcome) {
	o.Source, o.TLSVersion, o.TLSCipher = s.source, s.tls.version, s.tls.cipher
	o.TLSResumed = s.tls.resumed
	o.TLSPolicy, o.TLSVerdict = s.tls.policy, s.tls.verdict
}

// end settles what is not settled yet of a delivery, and ends it.
func (s *session) end(d *delivery, o *router.Outcome) {
	d.settleRejected()
	s.sign(o)
	d.tx.SettleAll(o)
	d.tx.Done()
	s.recycle(d)
}

// arm sets the deadline for the next reply. A connection without work has none: the router ends it.
func (s *session) arm() {
	switch {
	case s.gone:
	case s.quitting:
		s.conn.SetDeadline(quitTimeout)
	case s.shaking:
		s.conn.SetDeadline(s.opts.Timeouts.Connect)
	default:
		s.conn.SetDeadline(s.patience())
	}
}

// patience is how long the peer may take for what it is to do next.
func (s *session) patience() time.Duration {
	d := s.opts.Timeouts.of(s.smtp.Waits())
	switch {
	case s.sending != nil: // by BDAT content goes while replies are due
		d = max(d, s.opts.Timeouts.Block)
	case d == 0 && !s.ready: // we have something to do before the peer has
		d = s.opts.Timeouts.Command
	}
	return d
}

// Drained goes on with content that was more than the connection could take.
func (s *session) Drained(*loop.Conn) {
	if s.gone {
		return
	}
	s.pump()
	s.flush()
}

// Timeout gives the connection up.
func (s *session) Timeout(*loop.Conn) {
	if s.shaking {
		s.insecure(errors.New("timed out"))
		return
	}
	s.close(s.lostReason(router.GoneBroken), &router.Outcome{Class: router.Deferred, Enhanced: "4.4.2", Text: "timed out waiting for a reply"})
}

// lostReason is r, but for connections that never stood and those that had nothing to do.
func (s *session) lostReason(r router.Reason) router.Reason {
	switch {
	case !s.ready:
		if r == router.GoneBroken {
			return router.GoneUnreachable
		}
		return r
	case len(s.line) == 0 && s.upcoming == nil:
		return router.GoneClosed
	}
	return r
}

// close ends the connection for a reason; what is under way goes back to the router at once.
func (s *session) close(reason router.Reason, o *router.Outcome) {
	if s.gone {
		return
	}
	s.gone = true
	s.conn.Close()
	s.leave(reason, o)
}

// leave hands everything back to the router.
func (s *session) leave(reason router.Reason, o *router.Outcome) {
	if reason == router.GoneClosed {
		o = nil
	} else {
		s.sign(o)
	}
	if reason == router.GoneBroken {
		s.doubtChunks()
	}
	for _, d := range s.line {
		d.settleRejected()
	}
	s.link.Gone(reason, o)
	for _, d := range s.line {
		d.free()
	}
	if s.upcoming != nil {
		s.upcoming.free()
	}
	s.line, s.upcoming, s.sending = nil, nil, nil
}

// Closed is the end of a connection that the peer closed, that broke, or that never stood.
func (s *session) Closed(c *loop.Conn, err error) {
	switch {
	case s.gone:
		return
	case s.shaking:
		s.insecure(cmp.Or(err, io.EOF))
		return
	}
	s.gone = true
	if c == nil && isShortage(err) {
		s.opts.shortage(s.loop.Now(), err)
		s.link.Short()
		return
	}
	o := &router.Outcome{Class: router.Deferred, Enhanced: "4.4.2", Text: "connection lost"}
	switch {
	case c == nil:
		o.Enhanced, o.Text = "4.4.1", dialFault(err)
	case err != nil && !errors.Is(err, io.EOF):
		o.Text = fmt.Sprintf("connection lost: %v", err)
	}
	reason := s.lostReason(router.GoneBroken)
	if c == nil && atFault(err) {
		reason, o.Enhanced = router.GoneUnusable, "4.3.0"
	}
	s.leave(reason, o)
}

// Wake pulls work again. It is called by the router.
func (s *session) Wake() {
	if s.gone {
		return
	}
	s.pump()
	s.flush()
}

// Close ends the session politely. It is called by the router, when nothing is under way.
func (s *session) Close() {
	if s.gone {
		return
	}
	s.quitting = true
	if !s.smtp.Quit() {
		s.conn.Close()
		return
	}
	s.flush()
}

var (
	_ loop.Handler = (*session)(nil)
	_ router.Conn  = (*session)(nil)
)
