package egress

import (
	"errors"
	"fmt"

	"mailrace/engine/loop"
	"mailrace/proto/message"
	"mailrace/router"
	"mailrace/spool"
)

// pump pulls transactions from the link as long as the machine can take an envelope, and sends content that may go.
func (s *session) pump() {
	if s.sending != nil {
		s.send()
	}
	for s.ready && !s.quitting && !s.gone && s.sending == nil {
		if s.upcoming == nil {
			if !s.hasRoom() {
				return
			}
			tx := s.link.Next()
			if tx == nil {
				return
			}
			if d := s.link.Demand(); d != s.tls.demand { // the link went over to another domain
				target := s.link.Target()
				s.tls.demand, s.tls.policy = d, policyOf(&target)
			}
			if s.upcoming = s.newDelivery(tx); s.opts.Reports != nil {
				s.tell(tx)
			}
		}
		if s.smtp.CanBegin() {
			// The content comes first, so that a 354 never waits for the disk with other messages behind it.
			if s.load(s.upcoming) {
				return
			}
			if s.begin(); s.sending != nil {
				s.send()
			}
			continue
		}
		s.load(s.upcoming)
		return
	}
}

func (s *session) newDelivery(tx *router.Transaction) *delivery {
	var d *delivery
	if n := len(s.spare); n > 0 {
		d, s.spare = s.spare[n-1], s.spare[:n-1]
	} else {
		d = new(delivery)
	}
	*d = delivery{tx: tx, first: 1, next: 1, rcpts: d.rcpts[:0], params: d.params[:0], places: d.places[:0], rejected: d.rejected[:0]}
	return d
}

func (s *session) recycle(d *delivery) {
	d.free()
	clear(d.rcpts)
	clear(d.params)
	d.tx = nil
	s.spare = append(s.spare, d)
}

// load begins to read what d sends next, if it must be read, and says whether that is under way.
func (s *session) load(d *delivery) bool {
	if s.loading {
		return true
	}
	first, n, withTrace := d.missing()
	if n == 0 {
		return false
	}
	d.drop()
	s.loading = true
	s.opts.Load(s.loop, d.tx.Message, first, n, func(cs []*message.Chunk, err error) { s.loaded(d, withTrace, cs, err) })
	return true
}

// loaded takes what was read from the spool.
func (s *session) loaded(d *delivery, withTrace bool, cs []*message.Chunk, err error) {
	s.loading = false
	switch {
	case s.gone:
		message.FreeAll(cs)
		return
	case err != nil:
		s.opts.Log.Error("a queued message cannot be read from the spool", "id", d.tx.Message.ID, "error", err)
		if errors.Is(err, spool.ErrUnreadable) || errors.Is(err, spool.ErrNoMessage) {
			s.giveUp(d)
			return
		}
		s.close(router.GoneBroken, &router.Outcome{Class: router.Deferred, Text: fmt.Sprintf("reading the spool: %v", err)})
		return
	}
	d.take(cs, withTrace)
	s.pump()
	s.flush()
}

// giveUp bounces a message whose content is damaged: its sender should know. Where a part of it is out, the connection ends, lest the peer
// takes that for the whole.
func (s *session) giveUp(d *delivery) {
	o := damaged()
	if d == s.upcoming {
		s.upcoming = nil
		s.end(d, o)
		s.pump()
		s.flush()
		return
	}
	d.settleRejected()
	s.sign(o)
	d.tx.SettleAll(o)
	s.close(router.GoneClosed, nil)
}

// send writes content until it is all out, or the connection has enough, or more must be read from the spool.
func (s *session) send() {
	d := s.sending
	s.stage() // commands come before the content
	for !s.conn.Full() {
		if s.load(d) {
			return
		}
		var last bool
		from := len(s.iov)
		s.iov, s.scratch, last = d.append(s.iov, s.scratch[:0])
		for _, p := range s.iov[from:] {
			s.pending += len(p)
		}
		if !last {
			s.writePending()
			continue
		}
		// The end of data, and behind it the next envelope or message, share the write with the last of the content.
		s.mark(d)
		s.smtp.EndContent()
		d.tx.Sent()
		s.sending = nil
		if s.pending >= writeMax {
			s.writePending()
		}
		return
	}
}

// flush writes what is queued: the last of the content, then commands.
func (s *session) flush() {
	if s.gone {
		return
	}
	s.writePending()
	s.arm()
}

// stage puts commands that are queued behind what is to be written.
func (s *session) stage() {
	if p := s.smtp.Pending(); len(p) > s.staged {
		s.iov = append(s.iov, p[s.staged:])
		s.staged = len(p)
	}
}

func (s *session) writePending() {
	s.stage()
	if len(s.iov) > 0 {
		s.write(s.iov)
		s.smtp.Flushed()
		s.staged, s.pending = 0, 0
	}
}

func (s *session) write(iov [][]byte) {
	if err := s.conn.Writev(iov); err != nil && !errors.Is(err, loop.ErrClosed) {
		s.opts.Log.Debug("write failed", "peer", s.link.Target().Addr, "error", err)
	}
	clear(iov)
	s.iov = iov[:0]
}
