package maildir

import (
	"bytes"
	"strconv"
	"strings"

	"mailrace/proto/message"
)

// Name is what the file of a message for one of its recipients is called. It is the same at each attempt, so that one which was not known to
// be the last is not there twice, as long as nobody has read it. size is what the file holds, in octets; readers that know S= need not ask.
func Name(m *message.Message, recipient int, host string, size int64) string {
	b := strconv.AppendInt(nil, m.Arrived/1e9, 10)
	b = strconv.AppendInt(append(b, ".M"...), m.Arrived/1e3%1e6, 10)
	b = m.ID.Append(append(b, 'Q'))
	b = strconv.AppendInt(append(b, 'R'), int64(recipient), 10)
	b = append(append(b, '.'), hostEscapes.Replace(host)...)
	return string(strconv.AppendInt(append(b, ",S="...), size, 10))
}

// hostEscapes keep a name out of what the form of file names means.
var hostEscapes = strings.NewReplacer("/", `\057`, ":", `\072`, ",", `\054`)

// Head is what stands before our trace header, with CRLF: the final delivery says where the message came from, and for whom. RFC 5321 §4.4
func Head(from, to string) []byte {
	b := make([]byte, 0, 64+len(from)+len(to))
	b = append(append(append(b, "Return-Path: <"...), from...), ">\r\nDelivered-To: "...)
	return append(append(b, to...), "\r\n"...)
}

// Lines turns CRLF into LF, which readers of maildirs expect. The zero Lines begins a message. A CR that ends a part waits for the next one.
type Lines struct{ cr bool }

// Append adds the next part of a message to dst.
func (l *Lines) Append(dst, part []byte) []byte {
	for len(part) > 0 {
		if l.cr {
			if part[0] != '\n' {
				dst = append(dst, '\r')
			}
			l.cr = false
		}
		i := bytes.IndexByte(part, '\r')
		if i < 0 {
			return append(dst, part...)
		}
		dst = append(dst, part[:i]...)
		part, l.cr = part[i+1:], true
	}
	return dst
}

// End adds what waits when there are no more parts.
func (l *Lines) End(dst []byte) []byte {
	if l.cr {
		l.cr = false
		dst = append(dst, '\r')
	}
	return dst
}
