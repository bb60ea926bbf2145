package ingress

import (
	"net/netip"
	"strconv"
	"time"

	"mailrace/proto/message"
)

// DateLayout is the date-time of RFC 5322 §3.3.
const DateLayout = "Mon, 02 Jan 2006 15:04:05 -0700"

// dateCache spares a formatted date per message: all that arrive within one second share it. One a loop.
type dateCache struct {
	second int64
	text   []byte
}

func (d *dateCache) at(now time.Time) []byte {
	if s := now.Unix(); s != d.second || d.text == nil {
		d.second, d.text = s, now.AppendFormat(d.text[:0], DateLayout)
	}
	return d.text
}

// trace is what goes into a Received header. RFC 5321 §4.4
type trace struct {
	helo     string // a domain or an address literal
	client   netip.Addr
	hostname string
	protocol string // SMTP, ESMTP, UTF8SMTP …, with an S under TLS and an A by a user: RFC 3848, RFC 6531 §4.3
	cipher   string // of TLS, or ""
	id       message.ID
	rcpt     string // the only recipient, or "" where there are several: the others must not be told
	date     []byte
	priority int8 // of MT-PRIORITY
}

// append appends the folded header with its CRLF to dst.
func (t *trace) append(dst []byte) []byte {
	dst = append(dst, "Received: from "...)
	dst = append(dst, t.helo...)
	dst = append(dst, " ("...)
	dst = AppendLiteral(dst, t.client)
	dst = append(dst, ")\r\n\tby "...)
	dst = append(dst, t.hostname...)
	dst = append(dst, " with "...)
	dst = append(dst, t.protocol...)
	dst = append(dst, " id "...)
	dst = t.id.Append(dst)
	if t.rcpt != "" {
		dst = append(dst, "\r\n\tfor <"...)
		dst = append(dst, t.rcpt...)
		dst = append(dst, '>')
	}
	if t.priority != 0 {
		dst = strconv.AppendInt(append(dst, "\r\n\tpriority "...), int64(t.priority), 10) // RFC 6710 §4.1
	}
	if t.cipher != "" {
		dst = append(dst, "\r\n\ttls "...) // RFC 8314 §4.3
		dst = append(dst, t.cipher...)
	}
	dst = append(dst, "; "...)
	dst = append(dst, t.date...)
	return append(dst, "\r\n"...)
}

// AppendLiteral appends an address literal. RFC 5321 §4.1.3
func AppendLiteral(dst []byte, a netip.Addr) []byte {
	a = a.Unmap()
	dst = append(dst, '[')
	if a.Is6() {
		dst = append(dst, "IPv6:"...)
	}
	return append(a.WithZone("").AppendTo(dst), ']')
}
