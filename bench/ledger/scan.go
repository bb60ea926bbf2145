package ledger

import (
	"bytes"
	"encoding/hex"
	"hash/crc32"
	"hash/maphash"
)

// Kind is what a scanned message turned out to be.
type Kind uint8

const (
	// Foreign: not one of ours; told apart by the hash of its Message-ID.
	Foreign Kind = iota
	// Anonymous: not one of ours, and no Message-ID in its header.
	Anonymous
	// Intact: one of ours, octet for octet (or not verified).
	Intact
	// Altered: it says that it is one of ours, and is not what was sent.
	Altered
)

// headerLimit bounds the header octets that are kept to look for who a message is.
const headerLimit = 64 << 10

var hashSeed = maphash.MakeSeed()

// Scanner reads the content of one message after the other, in spans of any size, and tells who it is. It keeps no slice that it is
// given. Octets are copied only when the header does not lie in the first span.
type Scanner struct {
	// NoVerify leaves out the checksum; messages of ours then pass as intact.
	NoVerify bool

	Run        RunID
	Number     uint64
	Recipients int    // that the message was sent to
	Stream     int    // of the generator, over which it was sent
	Hash       uint64 // of a foreign Message-ID; hashes are of this process

	state  scanState
	header []byte
	mark   [markDigits + rcptDigits + streamDigits]byte // run, number, recipients and stream: what the checksum ends with
	sum    uint32
	want   uint32
}

type scanState uint8

const (
	inHeader scanState = iota
	inProof            // behind our proof line: everything is summed
	inForeign
	inAnonymous
	inAltered
)

// Reset begins a message.
func (s *Scanner) Reset() {
	s.state, s.header, s.sum = inHeader, s.header[:0], 0
}

// Content reads the next octets of content, without dot-stuffing.
func (s *Scanner) Content(p []byte) {
	switch s.state {
	case inProof:
		if !s.NoVerify {
			s.sum = crc32.Update(s.sum, castagnoli, p)
		}
	case inHeader:
		if len(s.header) == 0 {
			if s.read(p, false) {
				return
			}
		}
		s.header = append(s.header, p...)
		s.read(s.header, len(s.header) >= headerLimit)
	}
}

// End closes the message and tells what it was.
func (s *Scanner) End() Kind {
	if s.state == inHeader {
		s.read(s.header, true)
	}
	switch s.state {
	case inForeign:
		return Foreign
	case inProof:
		if s.NoVerify || crc32.Update(s.sum, castagnoli, s.mark[:]) == s.want {
			return Intact
		}
		return Altered
	case inAltered:
		return Altered
	}
	return Anonymous
}

// read walks the lines of b, the content from its start, and reports whether it learned who the message is; last says that b is all
// there will be.
func (s *Scanner) read(b []byte, last bool) bool {
	ours, known := false, inAnonymous
	for rest := b; ; {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			break
		}
		line := rest[:end+1]
		rest = rest[end+1:]
		if len(line) <= 2 { // the empty line that ends the header
			last = true
			break
		}
		switch line[0] | 0x20 {
		case 'm':
			if s.readMark(line) {
				ours, known = true, inAltered // unless its proof follows
			} else if hash, ok := messageID(line); ok && !ours {
				s.Hash, known = hash, inForeign
			}
		case 'x':
			if ours && s.readProof(line) {
				s.state = inProof
				s.Content(rest)
				return true
			}
		}
	}
	if last {
		s.state = known
	}
	return last
}

// readMark reads our Message-ID line.
func (s *Scanner) readMark(line []byte) bool {
	if len(line) != len(idPrefix)+markDigits+len(idSuffix) || string(line[:len(idPrefix)]) != idPrefix ||
		string(line[len(idPrefix)+markDigits:]) != idSuffix {
		return false
	}
	mark := line[len(idPrefix):][:markDigits]
	n, ok := parseNumber(mark[runDigits+1:])
	if !ok || mark[runDigits] != '.' {
		return false
	}
	var raw [runDigits / 2]byte
	if _, err := hex.Decode(raw[:], mark[:runDigits]); err != nil {
		return false
	}
	s.Run = 0
	for _, b := range raw {
		s.Run = s.Run<<8 | RunID(b)
	}
	s.Number, s.Recipients, s.Stream = n, 1, 0
	copy(s.mark[:], mark)
	return true
}

// readProof reads the line that says how many recipients the message has, which stream it is of, and what its octets sum up to.
func (s *Scanner) readProof(line []byte) bool {
	const at = len(proofPrefix)
	const streamAt = at + rcptDigits + len(proofStream)
	const sumAt = streamAt + streamDigits + len(proofMiddle)
	if len(line) != sumAt+8+2 || string(line[:at]) != proofPrefix || string(line[at+rcptDigits:streamAt]) != proofStream ||
		string(line[streamAt+streamDigits:sumAt]) != proofMiddle {
		return false
	}
	n, ok := parseNumber(line[at : at+rcptDigits])
	stream, known := parseNumber(line[streamAt : streamAt+streamDigits])
	var raw [4]byte
	_, err := hex.Decode(raw[:], line[sumAt:sumAt+8])
	if !ok || n == 0 || !known || err != nil || string(line[sumAt+8:]) != "\r\n" {
		return false
	}
	copy(s.mark[markDigits:], line[at:at+rcptDigits])
	copy(s.mark[markDigits+rcptDigits:], line[streamAt:])
	s.Recipients, s.Stream = int(n), int(stream)
	s.want = uint32(raw[0])<<24 | uint32(raw[1])<<16 | uint32(raw[2])<<8 | uint32(raw[3])
	return true
}

// messageID hashes the value of a Message-ID header line.
func messageID(line []byte) (uint64, bool) {
	const name = "message-id:"
	if len(line) < len(name) || !bytes.EqualFold(line[:len(name)], []byte(name)) {
		return 0, false
	}
	value := bytes.TrimSpace(line[len(name):])
	return maphash.Bytes(hashSeed, value), len(value) > 0
}

// HashRecipient hashes a forward-path. Folded into the hash of a foreign message with ^, it keeps one message that reaches two recipients
// in two transactions from being taken for a duplicate.
func HashRecipient(path []byte) uint64 { return maphash.Bytes(hashSeed, path) * 0x9e3779b97f4a7c15 }
