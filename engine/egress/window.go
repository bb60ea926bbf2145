package egress

import (
	"time"

	"mailrace/router"
	"mailrace/spool"
)

const (
	// writeMax is how many octets of content are gathered, of one message or of several, before they are written.
	writeMax = 64 << 10
	// unchunkedFor is how long an address that does not know BDAT, although it offers it, gets content by DATA.
	unchunkedFor = time.Hour
)

// Window is how much may be on its way over one connection, unanswered, where the peer takes whole messages one behind the other: by BDAT, with
// PIPELINING. The rate of the connection then depends on the window, not on the round trip. RFC 3030 §4.2
type Window struct {
	Messages int   // 0 = content goes by DATA, but for binary content
	Octets   int64 // of content; another message begins as long as there are less
}

// chunks is how a session uses BDAT. A peer gets one message by it; when that is answered as a message should be, the window opens. So one that
// offers CHUNKING and does not know BDAT, and takes content for commands then, meets no more than one message of ours.
type chunks struct {
	on     bool  // content goes by BDAT
	proved bool  // the peer answered a chunk, on this connection
	octets int64 // of content of the deliveries under way
}

// useChunks has content go by BDAT where the peer can.
func (s *session) useChunks() {
	addr := s.link.Target().Addr
	s.chunks.on = s.opts.Window.Messages > 0 && !s.opts.unchunked.has(addr, s.loop.Now()) && s.smtp.UseChunks(1)
}

// hasRoom says whether one more message may be taken from the router. By DATA it is taken while the one before is on its way, to be at hand in time.
func (s *session) hasRoom() bool {
	return !s.chunks.on || s.smtp.CanBegin() && s.chunks.octets < s.opts.Window.Octets
}

// judgeChunk looks at the answer to a chunk, and says whether the session ends for it: where the peer does not know BDAT after all. What it made of
// the content nobody knows, but no message: the delivery goes elsewhere at once, or here by DATA. RFC 5321 §4.2.4
func (s *session) judgeChunk(d *delivery, o *router.Outcome) (over bool) {
	switch {
	case !s.chunks.on || s.chunks.proved || d.refused || len(d.rejected) == len(d.tx.Recipients):
		return false
	case o.Code < 500 || o.Code > 504:
		s.chunks.proved = true
		s.smtp.UseChunks(s.opts.Window.Messages)
		return false
	}
	s.forgoChunks(o.Reply())
	s.unsend(d)
	s.close(router.GoneClosed, nil)
	return true
}

// doubtChunks notes that the connection was lost before the first chunk was answered: it may have been the chunk.
func (s *session) doubtChunks() {
	if s.chunks.on && !s.chunks.proved && len(s.line) > 0 {
		s.forgoChunks("connection lost")
	}
}

// forgoChunks has content go to the host by DATA for a while.
func (s *session) forgoChunks(why string) {
	target := s.link.Target()
	s.opts.unchunked.add(target.Addr, s.loop.Now(), unchunkedFor)
	s.opts.Stats.Unchunked.Inc()
	s.opts.Log.Info("a host offers CHUNKING and fails at BDAT, it gets content by DATA for a while", "host", target.Host, "peer", target.Addr, "for", unchunkedFor, "reason", why)
}

// dismissed sees to messages of the window that the peer did not look at, because it ended the session before: they are not in doubt.
func (s *session) dismissed() {
	for _, d := range s.line[min(s.smtp.Undecided(), len(s.line)):] {
		s.unsend(d)
	}
}

// unsend takes back that d was sent.
func (s *session) unsend(d *delivery) {
	d.tx.Unsent()
	for place, i := range d.tx.Recipients {
		if r := &d.tx.Message.Recipients[i]; r.Mark != 0 && !d.tx.Settled(place) {
			s.opts.Markers[s.loop.Index()].Unset(spool.Mark(r.Mark))
			r.Mark = 0
		}
	}
}

// shift takes the oldest delivery out of the line.
func (s *session) shift() {
	s.chunks.octets -= s.line[0].size
	n := copy(s.line, s.line[1:])
	s.line[n] = nil
	s.line = s.line[:n]
}

// mark notes that d is in flight for the recipients that were not refused: from the next write on, the peer may have it.
func (s *session) mark(d *delivery) {
	if len(s.opts.Markers) == 0 || s.opts.Markers[s.loop.Index()] == nil || d.refused {
		return
	}
	m := d.tx.Message
	f := spool.Flight{ID: m.ID, Began: s.loop.Now().UnixNano(), Peer: s.link.Target().Addr}
	for place := range d.accepted() {
		i := d.tx.Recipients[place]
		r := &m.Recipients[i]
		f.Index, f.Attempt = i, r.Attempts+1
		r.Mark = uint32(s.opts.Markers[s.loop.Index()].Set(&f))
	}
}
