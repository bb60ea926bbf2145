package dsn

import (
	"bytes"
	"mime/quotedprintable"
	"strings"
)

// part is a part of the multipart.
type part struct {
	kind        string // Content-Type
	description string
	language    string // "" = none is named
	encoding    string // Content-Transfer-Encoding; "" = none is needed
	body        []byte // ends with CRLF
}

const eightBit = "8bit"

// encode makes the body fit for its way. What is ASCII stays as it is. Text is packed in 7 bits, headers of the old kind included (RFC 6522 §4),
// unless SMTPUTF8 is needed anyway; so are the forms of RFC 6533, which a host without 8BITMIME would refuse otherwise, and nobody would hear of the
// failure. message/rfc822 may not be packed: RFC 2046 §5.2.1.
func (p *part) encode(wide bool) {
	message := strings.HasPrefix(p.kind, "message/") && (wide || !strings.HasPrefix(p.kind, "message/global"))
	ascii, long := isASCII(p.body), longLines(p.body)
	switch {
	case ascii && (message || !long):
	case message, wide && !long:
		p.encoding = eightBit
	default:
		var b bytes.Buffer
		w := quotedprintable.NewWriter(&b)
		_, _ = w.Write(p.body) // a Buffer takes all
		_ = w.Close()
		p.encoding, p.body = "quoted-printable", b.Bytes()
	}
}

// longLines reports whether a line has more than 998 octets. RFC 5321 §4.5.3.1.6
func longLines(body []byte) bool {
	for len(body) > 0 {
		line, rest := cutLine(body)
		if len(line) > 998 {
			return true
		}
		body = rest
	}
	return false
}
