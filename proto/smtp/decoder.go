package smtp

import "bytes"

// Decoded is what Decoder.Decode found.
type Decoded uint8

const (
	// DecodedNothing: more input is needed; at most the two octets ".\r" are left over.
	DecodedNothing Decoded = iota
	// DecodedSpan: a span of content.
	DecodedSpan
	// DecodedEnd: the end of data, CRLF.CRLF. The decoder is ready for Reset.
	DecodedEnd
	// DecodedBareCR, DecodedBareLF and DecodedNUL: the content holds an octet that no two mail systems read alike (a CR without LF, an LF
	// without CR, a NUL), and what follows must not be read.
	DecodedBareCR
	DecodedBareLF
	DecodedNUL
)

// Decoder takes content from a DATA stream: it finds the end of data, removes dot-stuffing (RFC 5321 §4.5.2) and refuses what smugglers
// use. The end of data is exactly CRLF.CRLF, or .CRLF at the very beginning; nothing else ends it. It is the only reader of DATA, so no
// two parts can disagree about where a message ends. Content that comes in chunks it takes by Take, see there.
//
// For senders that cannot do better it mends newlines rather than refuse them, see mending.go. Where data ends does not depend on that.
//
// The state of Decode is one bit, whether a line begins here: what cannot be judged yet (a CR, or a dot that begins a line) is left with the caller.
// Reset it before use.
type Decoder struct {
	size        int64
	bol         bool // the next octet begins a line
	cr          bool // of Take: the last octet was a CR
	leadingDots bool
	mends       bool
	stray       bool   // of mending: the last octet was a CR alone
	before      ending // likewise: of the line before
}

// Reset makes the decoder ready for a new message, and strict.
func (d *Decoder) Reset() { *d = Decoder{bol: true} }

// Size is the number of octets of content so far, without dot-stuffing.
func (d *Decoder) Size() int64 { return d.size }

// LeadingDots reports whether a line of the content so far begins with a dot once the stuffing is removed.
func (d *Decoder) LeadingDots() bool { return d.leadingDots }

// Decode reads from p and returns how many octets of it are used up and, with DecodedSpan, the content, a slice of p as long as can be:
// it ends before the next line that begins with a dot, or with p. Call it again with p[n:] until it returns DecodedNothing; then present
// what is left in front of more input. After DecodedEnd, and after a violation, it must be Reset before it reads on.
func (d *Decoder) Decode(p []byte) (n int, content []byte, found Decoded) {
	if d.mends {
		return d.decodeMending(p)
	}
	stuffing := 0
	if d.bol && len(p) > 0 && p[0] == '.' {
		switch {
		case len(p) == 1:
			return 0, nil, DecodedNothing
		case p[1] == '\r':
			return endOfData(p)
		case p[1] == '.':
			d.leadingDots = true
		}
		stuffing = 1
	}
	b := p[stuffing:]
	end, lines, found := wholeLines(b)
	content = b[:end]
	// Every LF up to end has a CR before it. So if there are as many CRs as LFs, every CR has an LF behind it.
	if bytes.Count(content, crByte) != lines || bytes.IndexByte(content, 0) >= 0 {
		end, found = violation(b)
		content = b[:end]
	}
	if end == 0 {
		return 0, nil, found
	}
	d.bol = content[end-1] == '\n'
	d.size += int64(end)
	return stuffing + end, content, DecodedSpan
}

var crByte = []byte{'\r'}

// endOfData judges p, which begins a line with ".\r".
func endOfData(p []byte) (int, []byte, Decoded) {
	switch {
	case len(p) == 2:
		return 0, nil, DecodedNothing
	case p[2] == '\n':
		return 3, nil, DecodedEnd
	}
	return 1, nil, DecodedBareCR
}

// wholeLines returns how far b runs before a line that begins with a dot, a bare LF, or a CR in its last octet, and how many CRLFs stand
// there. This is the hot loop: it touches only line ends, and leaves the search for them to bytes.IndexByte, which is vectorized.
func wholeLines(b []byte) (end, lines int, found Decoded) {
	for {
		lf := bytes.IndexByte(b[end:], '\n')
		if lf < 0 {
			break
		}
		lf += end
		if lf == 0 || b[lf-1] != '\r' {
			return lf, lines, DecodedBareLF
		}
		end = lf + 1
		lines++
		if end == len(b) || b[end] == '.' {
			return end, lines, DecodedNothing
		}
	}
	end = len(b)
	if end > 0 && b[end-1] == '\r' {
		end--
	}
	return end, lines, DecodedNothing
}

// violation finds the first NUL or bare CR of b, which has one before its last octet.
func violation(b []byte) (int, Decoded) {
	for i := 0; ; i++ {
		switch {
		case b[i] == 0:
			return i, DecodedNUL
		case b[i] == '\r' && b[i+1] != '\n':
			return i, DecodedBareCR
		}
	}
}
