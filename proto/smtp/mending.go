package smtp

import "bytes"

// A mending Decoder takes content of senders that do not write CRLF, as Postfix does by smtpd_forbid_bare_newline = normalize: an LF alone ends a
// line and becomes CRLF, a CR alone becomes a space. A NUL is refused all the same.
//
// It never reads an end of data where a strict one would not: that is CRLF.CRLF. A lone dot on a line that begins or ends with a bare LF
// is content, and stays. Where a bare CR stands in front of CRLF.CRLF, readers are known to disagree, and so it is refused.

// ending is how a line ended.
type ending uint8

const (
	cleanEnd ending = iota // by CRLF; or there was no line
	bareEnd                // by an LF alone
	mixedEnd               // by CRLF behind a CR alone
)

// mendedAtOnce is how much a mending decoder looks at for a span of content. It keeps the work linear where every octet is a newline to be mended.
const mendedAtOnce = 512

var space = []byte(" ")

// ResetMending makes the decoder ready for a new message whose newlines it is to mend.
func (d *Decoder) ResetMending() { *d = Decoder{bol: true, mends: true} }

// decodeMending is Decode of a decoder that mends.
func (d *Decoder) decodeMending(p []byte) (int, []byte, Decoded) {
	if !d.bol || len(p) == 0 || p[0] != '.' {
		return d.mend(p)
	}
	switch {
	case len(p) == 1, len(p) == 2 && p[1] == '\r':
		return 0, nil, DecodedNothing
	case p[1] == '\n', p[1] == '\r' && p[2] == '\n' && d.before == bareEnd: // a lone dot that ends nothing
		d.leadingDots, d.bol = true, false
		d.size++
		return 1, p[:1], DecodedSpan
	case p[1] == '\r' && p[2] == '\n' && d.before == mixedEnd:
		return 1, nil, DecodedBareCR
	case p[1] == '\r' && p[2] == '\n':
		return 3, nil, DecodedEnd
	case p[1] == '.':
		d.leadingDots = true
	}
	n, content, found := d.mend(p[1:])
	if found != DecodedSpan {
		return 0, nil, found
	}
	return n + 1, content, found
}

// mend returns the next span of p, or what stands in place of the newline that p begins with.
func (d *Decoder) mend(p []byte) (n int, content []byte, found Decoded) {
	b := p[:min(len(p), mendedAtOnce)]
	end, lines, found := wholeLines(b)
	content = b[:end]
	if bytes.Count(content, crByte) != lines || bytes.IndexByte(content, 0) >= 0 {
		end, found = violation(b)
		content = b[:end]
	}
	switch {
	case end > 0:
		if d.bol = content[end-1] == '\n'; d.bol {
			d.before = cleanEnd
		}
		if d.stray && string(content) == "\r\n" {
			d.before = mixedEnd
		}
		n, d.stray = end, false
	case found == DecodedBareLF:
		n, content, d.bol, d.before, d.stray = 1, lineEnd, true, bareEnd, false
	case found == DecodedBareCR:
		n, content, d.bol, d.stray = 1, space, false, true
	default:
		return 0, nil, found
	}
	d.size += int64(len(content))
	return n, content, DecodedSpan
}

// TakeMending is Take of a decoder that mends. It returns how much of p, which is not empty, is used up, and the content that it stands for, if
// any; and false at a NUL. A CR in the last octet is used up, and is content with the next call, or with TakeEnd.
func (d *Decoder) TakeMending(p []byte) (n int, content []byte, ok bool) {
	if d.cr && p[0] == '\n' {
		d.cr, d.bol = false, true
		d.size += int64(len(lineEnd))
		return 1, lineEnd, true
	}
	if d.cr {
		return 0, d.TakeEnd(), true
	}
	d.leadingDots = d.leadingDots || d.bol && p[0] == '.'
	n, content, found := d.mend(p)
	switch found {
	case DecodedSpan:
		return n, content, true
	case DecodedNothing: // a CR is all there is
		d.cr = true
		return 1, nil, true
	}
	return n, nil, false
}

// TakeEnd returns the content that a CR in the last octet stands for.
func (d *Decoder) TakeEnd() []byte {
	d.cr, d.bol = false, false
	d.size++
	return space
}
