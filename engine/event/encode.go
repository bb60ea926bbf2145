package event

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// Bounds of what a record keeps of a string, in bytes before escaping: a line is never longer than lineMax.
const (
	addressMax = 320  // 64 + @ + 255, RFC 5321 §4.5.3.1
	nameMax    = 512  // queue, site
	textMax    = 1024 // two reply lines at their longest
	labelMax   = 255  // user, tenant, campaign
	tlsMax     = 64   // name of a version or a cipher suite
	wordMax    = 16   // cause, action
	sourceMax  = 64   // egress source, pool
	lineMax    = 6*(2*addressMax+2*nameMax+2*tlsMax+3*labelMax+16+textMax+2*wordMax+2*sourceMax) + 720
)

// Append appends the record as one line of JSON with its newline to dst. It does not allocate when dst has room. The line is 7-bit:
// control characters and everything beyond ASCII are escaped, octets that are not UTF-8 become U+FFFD, so that no terminal, log shipper
// or parser can be led astray by what a peer sent.
func (r *Record) Append(dst []byte) []byte {
	dst = append(dst, `{"time":"`...)
	dst = appendTime(dst, r.Time)
	dst = append(dst, `","type":"`...)
	dst = append(dst, r.Type.String()...)
	dst = append(dst, '"')
	if r.Type.ofMessage() {
		dst = append(dst, `,"id":"`...)
		dst = r.ID.Append(dst)
		dst = append(dst, `","sender":`...)
		dst = appendString(dst, r.Sender, addressMax)
	}
	dst = appendText(dst, `,"recipient":`, r.Recipient, addressMax)
	dst = appendInt(dst, `,"recipients":`, int64(r.Recipients))
	dst = appendText(dst, `,"queue":`, r.Queue, nameMax)
	dst = appendText(dst, `,"site":`, r.Site, nameMax)
	if r.Source.IsValid() {
		dst = append(dst, `,"source":"`...)
		dst = r.Source.WithZone("").AppendTo(dst)
		dst = append(dst, '"')
	}
	dst = appendText(dst, `,"egress_source":`, r.From, sourceMax)
	dst = appendText(dst, `,"egress_pool":`, r.Pool, sourceMax)
	if r.Peer.IsValid() {
		dst = append(dst, `,"peer":"`...)
		dst = r.Peer.Addr().WithZone("").AppendTo(dst)
		dst = append(dst, `","peer_port":`...)
		dst = strconv.AppendUint(dst, uint64(r.Peer.Port()), 10)
	}
	dst = appendText(dst, `,"tls_version":`, r.TLSVersion, tlsMax)
	dst = appendText(dst, `,"tls_cipher":`, r.TLSCipher, tlsMax)
	if r.TLSResumed {
		dst = append(dst, `,"tls_resumed":true`...)
	}
	dst = appendText(dst, `,"tls_policy":`, r.TLSPolicy, tlsMax)
	dst = appendText(dst, `,"tls_verdict":`, r.TLSVerdict, tlsMax)
	dst = appendInt(dst, `,"code":`, int64(r.Code))
	dst = appendText(dst, `,"enhanced":`, r.Enhanced, len("5.999.999"))
	dst = appendText(dst, `,"text":`, r.Text, textMax)
	dst = appendInt(dst, `,"attempt":`, int64(r.Attempt))
	dst = appendInt(dst, `,"size":`, r.Size)
	dst = appendText(dst, `,"user":`, r.User, labelMax)
	dst = appendText(dst, `,"tenant":`, r.Tenant, labelMax)
	dst = appendText(dst, `,"campaign":`, r.Campaign, labelMax)
	dst = appendWish(dst, `,"release":"`, r.Release)
	dst = appendWish(dst, `,"deadline":"`, r.Deadline)
	dst = appendInt(dst, `,"priority":`, int64(r.Priority))
	dst = appendText(dst, `,"cause":`, r.Cause, wordMax)
	dst = appendText(dst, `,"action":`, r.Action, wordMax)
	dst = appendWish(dst, `,"began":"`, r.Began)
	dst = appendWish(dst, `,"until":"`, r.Until)
	if r.Latency != 0 {
		dst = append(dst, `,"latency":`...)
		dst = appendSeconds(dst, r.Latency)
	}
	return append(dst, '}', '\n')
}

func appendText(dst []byte, key, s string, limit int) []byte {
	if s == "" {
		return dst
	}
	return appendString(append(dst, key...), s, limit)
}

// appendWish appends a time, unless it is 0.
func appendWish(dst []byte, key string, ns int64) []byte {
	if ns == 0 {
		return dst
	}
	return append(appendTime(append(dst, key...), ns), '"')
}

func appendInt(dst []byte, key string, n int64) []byte {
	if n == 0 {
		return dst
	}
	return strconv.AppendInt(append(dst, key...), n, 10)
}

// appendSeconds appends d as seconds with microseconds.
func appendSeconds(dst []byte, d time.Duration) []byte {
	us := d.Microseconds()
	if us < 0 {
		dst, us = append(dst, '-'), -us
	}
	dst = strconv.AppendInt(dst, us/1e6, 10)
	return appendDigits(append(dst, '.'), us%1e6, 6)
}

// appendTime appends Unix nanoseconds as RFC 3339 in UTC with microseconds.
func appendTime(dst []byte, ns int64) []byte {
	t := time.Unix(0, ns).UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	dst = appendDigits(dst, int64(year), 4)
	dst = appendDigits(append(dst, '-'), int64(month), 2)
	dst = appendDigits(append(dst, '-'), int64(day), 2)
	dst = appendDigits(append(dst, 'T'), int64(hour), 2)
	dst = appendDigits(append(dst, ':'), int64(minute), 2)
	dst = appendDigits(append(dst, ':'), int64(second), 2)
	dst = appendDigits(append(dst, '.'), int64(t.Nanosecond()/1000), 6)
	return append(dst, 'Z')
}

// appendDigits appends n with exactly width digits.
func appendDigits(dst []byte, n int64, width int) []byte {
	var b [6]byte
	for i := width - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
	return append(dst, b[:width]...)
}

const hex = "0123456789abcdef"

// plain are the octets that stand for themselves in a JSON string.
var plain = func() (t [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// cut is the longest start of s that has at most limit bytes and does not split a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for n := limit; n > limit-utf8.UTFMax; n-- {
		if utf8.RuneStart(s[n]) {
			return s[:n]
		}
	}
	return s[:limit]
}

// appendString appends s, at most limit bytes of it, as a JSON string.
func appendString(dst []byte, s string, limit int) []byte {
	s = cut(s, limit)
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		start := i
		for i < len(s) && plain[s[i]] {
			i++
		}
		dst = append(dst, s[start:i]...)
		if i == len(s) {
			break
		}
		if c := s[i]; c == '"' || c == '\\' {
			dst = append(dst, '\\', c)
			i++
			continue
		}
		c, n := utf8.DecodeRuneInString(s[i:])
		i += n
		if c > 0xffff { // a pair of surrogates, RFC 8259 §7
			c -= 0x10000
			dst = appendEscape(dst, 0xd800+c>>10)
			c = 0xdc00 + c&0x3ff
		}
		dst = appendEscape(dst, c)
	}
	return append(dst, '"')
}

func appendEscape(dst []byte, c rune) []byte {
	return append(dst, '\\', 'u', hex[c>>12&15], hex[c>>8&15], hex[c>>4&15], hex[c&15])
}
