package smtp

import "bytes"

// Replies about chunks.
const (
	replyChunkSyntax = "501 5.5.4 Syntax: BDAT size [LAST]\r\n"
	replyContent     = "550 5.6.0 bare <CR>, bare <LF> or NUL in message content\r\n"
	replyManyChunks  = "421 4.7.0 Too many small chunks\r\n"
	replyNobody      = "554 5.5.1 No valid recipients\r\n"
)

// chunk is the argument of BDAT and how far it is read. Its octets are no lines: until left is 0, nothing of the input is a command, whether
// the chunk is kept or refused. RFC 3030 §2
type chunk struct {
	left   int64
	last   bool
	fault  bool   // the refusal counts as a protocol error
	answer []byte // the refusal, to be queued when the octets are discarded
}

// parseChunk reads "size" or "size LAST". Sizes beyond int64 become the largest one.
func parseChunk(args []byte) (size int64, last, ok bool) {
	digits, rest, more := bytes.Cut(args, spaceByte)
	if more {
		if last = equalFold(trimSpaces(rest), "LAST"); !last {
			return 0, false, false
		}
	}
	size, ok = parseSize(digits)
	return size, last, ok
}

// commandChunk begins a chunk of content. RFC 3030 §2. A chunk whose end cannot be known ends the session: what follows it must not be taken
// for commands.
func (s *Server) commandChunk(args []byte) Event {
	size, last, ok := parseChunk(args)
	if !ok {
		return s.abort(replyChunkSyntax)
	}
	s.chunk.left, s.chunk.last = size, last
	switch {
	case !s.tx.open:
		return s.discardChunk(replyNotNow, true)
	case s.tx.recipients == 0:
		return s.discardChunk(replyNobody, true)
	case s.tx.chunks == 0:
		s.resetDecoder()
	}
	s.tx.chunks++
	switch {
	case size > s.maxSize()-s.decoder.Size():
		return s.discardChunk(replyTooLarge, false)
	case s.tx.chunks > smallChunks && s.decoder.Size() < (s.tx.chunks-1)*smallChunk:
		return s.abort(replyManyChunks)
	case s.tx.chunks == 1:
		return s.ask(Data)
	}
	s.phase = phaseChunk
	return NeedInput
}

// discardChunk gives up the transaction and what is left of the chunk, and answers behind that. The session ends where the chunk is too large
// to be waited for.
func (s *Server) discardChunk(reply string, fault bool) Event {
	if s.chunk.left > drainedChunk {
		return s.abort(reply)
	}
	s.chunk.answer, s.chunk.fault = append(s.chunk.answer[:0], reply...), fault
	s.phase = phaseRefusedChunk
	if s.tx.reset() {
		return Reset
	}
	return NeedInput
}

// readChunk reads octets of a chunk that is kept.
func (s *Server) readChunk(p []byte) (int, Event) {
	if n := int(min(s.chunk.left, int64(len(p)))); n > 0 {
		if s.cfg.MendNewlines && !s.tx.binary {
			return s.mendChunk(p[:n])
		}
		s.chunk.left -= int64(n)
		if s.tx.binary {
			s.decoder.TakeBinary(p[:n])
		} else if !s.decoder.Take(p[:n]) {
			return n, s.discardChunk(replyContent, false)
		}
		s.content = p[:n]
		return n, Content
	}
	switch {
	case s.chunk.left > 0:
		return 0, NeedInput
	case !s.chunk.last:
		s.phase = phaseCommand
		s.say(replyOk)
		return 0, NeedInput
	case s.tx.binary: // it has no lines that could lack an end
		s.content = nil
		return 0, s.ask(EndOfData)
	case s.decoder.cr && s.cfg.MendNewlines:
		s.content = s.decoder.TakeEnd()
		return 0, Content
	case s.decoder.cr:
		return 0, s.discardChunk(replyContent, false)
	case s.decoder.bol:
		s.content = nil
		return 0, s.ask(EndOfData)
	case s.decoder.Size()+int64(len(lineEnd)) > s.maxSize():
		return 0, s.discardChunk(replyTooLarge, false)
	}
	// The last line lacks its CRLF. To a host without CHUNKING the content can only go with one, in front of the final dot: it gets it here,
	// so that it is the same on every way. RFC 5321 §4.1.1.4
	s.decoder.Take(lineEnd)
	s.content = lineEnd
	return 0, Content
}

// mendChunk reads octets of a chunk whose newlines are mended. p is not empty, and all of it belongs to the chunk.
func (s *Server) mendChunk(p []byte) (int, Event) {
	n, content, ok := s.decoder.TakeMending(p)
	s.chunk.left -= int64(n)
	switch {
	case !ok:
		return n, s.discardChunk(replyContent, false)
	case s.decoder.Size() > s.maxSize(): // it may become longer than it was
		return n, s.discardChunk(replyTooLarge, false)
	case len(content) == 0:
		return n, NeedInput
	}
	s.content = content
	return n, Content
}

// skipChunk discards octets of a chunk that is refused, and answers behind the last.
func (s *Server) skipChunk(p []byte) (int, Event) {
	n := int(min(s.chunk.left, int64(len(p))))
	if s.chunk.left -= int64(n); s.chunk.left > 0 {
		return n, NeedInput
	}
	s.phase = phaseCommand
	s.out = append(s.out, s.chunk.answer...)
	if s.chunk.fault {
		return n, s.countError()
	}
	return n, NeedInput
}

var lineEnd = []byte("\r\n")

// TakeBinary takes p as content of which nothing is asked (BINARYMIME, RFC 3030 §3). Its leading dots are not looked for: it never goes by DATA.
func (d *Decoder) TakeBinary(p []byte) { d.size += int64(len(p)) }

// Take takes p as content whose length is known: without stuffing, and no end in it (BDAT, RFC 3030). It reports whether p is of the form that
// Decode asks for: CRLF lines, no NUL. A CR in the last octet waits for its LF in the next call. After false the decoder must be Reset.
func (d *Decoder) Take(p []byte) bool {
	if len(p) == 0 {
		return true
	}
	crs := 0 // that should be in p
	if d.cr && p[0] == '\n' {
		crs-- // it was in the octets before
	} else if d.cr {
		return false
	}
	d.leadingDots = d.leadingDots || d.bol && p[0] == '.'
	for end := 0; ; {
		lf := bytes.IndexByte(p[end:], '\n')
		if lf < 0 {
			break
		}
		lf += end
		if lf > 0 && p[lf-1] != '\r' || lf == 0 && !d.cr {
			return false
		}
		crs++
		end = lf + 1
		d.leadingDots = d.leadingDots || end < len(p) && p[end] == '.'
	}
	last := p[len(p)-1]
	if d.cr, d.bol = last == '\r', last == '\n'; d.cr {
		crs++
	}
	d.size += int64(len(p))
	return bytes.Count(p, crByte) == crs && bytes.IndexByte(p, 0) < 0
}
