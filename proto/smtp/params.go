package smtp

import (
	"bytes"

	"mailrace/proto/message"
)

// Control characters of a command line.
const (
	noControl uint8 = iota
	someControl
	nulControl
)

// controlIn says whether line holds an octet of 00-1F or 7F, none of which any command may hold.
func controlIn(line []byte) (found uint8) {
	for _, c := range line {
		if c < ' ' || c == 0x7f {
			if c == 0 {
				return nulControl
			}
			found = someControl
		}
	}
	return found
}

func trimSpaces(b []byte) []byte {
	for len(b) > 0 && b[0] == ' ' {
		b = b[1:]
	}
	for len(b) > 0 && b[len(b)-1] == ' ' {
		b = b[:len(b)-1]
	}
	return b
}

// equalFold compares b with s, which is in capitals; both ASCII.
func equalFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		if c != s[i] {
			return false
		}
	}
	return true
}

// parseArgument reads the path of MAIL or RCPT behind its keyword. A space behind the colon is not in the grammar, and common.
func parseArgument(args []byte, keyword string) (path Path, rest []byte, err error) {
	if len(args) < len(keyword) || !equalFold(args[:len(keyword)], keyword) {
		return path, nil, ErrPathSyntax
	}
	path, rest, err = ParsePath(trimSpaces(args[len(keyword):]), true)
	if err == nil && len(rest) > 0 && rest[0] != ' ' {
		err = ErrPathSyntax
	}
	return path, rest, err
}

// parse reads the parameters of MAIL, each at most once, and returns the reply to what it refuses, or "".
func (m *MailParams) parse(rest []byte) (refusal string) {
	const (
		size = 1 << iota
		body
		utf8
		ret
		envid
	)
	seen := 0
	for rest = trimSpaces(rest); len(rest) > 0; {
		var word []byte
		word, rest = cutWord(rest)
		key, value, hasValue := bytes.Cut(word, equalsSign)
		param, ok := 0, true
		switch {
		case equalFold(key, "SIZE"): // RFC 1870 §4
			param = size
			m.Size, ok = parseSize(value)
		case equalFold(key, "BODY"): // RFC 6152 §2
			param = body
			m.Body, ok = parseBody(value)
		case equalFold(key, "SMTPUTF8"): // RFC 6531 §3.4
			param = utf8
			m.SMTPUTF8, ok = true, !hasValue
		case equalFold(key, "RET"): // RFC 3461 §4.3
			param = ret
			m.Return, ok = parseReturn(value)
		case equalFold(key, "ENVID"): // RFC 3461 §4.4
			param = envid
			m.EnvID, ok = value, len(value) > 0 && len(value) <= maxEnvelopeID && validXtext(value)
		default:
			return replyUnknownParm
		}
		if !ok || seen&param != 0 {
			return replyParameter
		}
		seen |= param
	}
	return ""
}

// cutWord parts parameters, which begin with one, behind the first.
func cutWord(rest []byte) (word, more []byte) {
	end := bytes.IndexByte(rest, ' ')
	if end < 0 {
		return rest, nil
	}
	return rest[:end], trimSpaces(rest[end:])
}

// parse reads the parameters of RCPT as MailParams.parse does.
func (r *RcptParams) parse(rest []byte, smtpUTF8 bool) (refusal string) {
	for rest = trimSpaces(rest); len(rest) > 0; {
		var word []byte
		word, rest = cutWord(rest)
		key, value, _ := bytes.Cut(word, equalsSign)
		ok := true
		switch {
		case equalFold(key, "NOTIFY"): // RFC 3461 §4.1
			again := r.Notify != 0
			r.Notify, ok = parseNotify(value)
			ok = ok && !again
		case equalFold(key, "ORCPT"): // RFC 3461 §4.2
			ok = len(r.Original) == 0 && validOriginal(value, smtpUTF8)
			r.Original = value
		default:
			return replyUnknownParm
		}
		if !ok {
			return replyParameter
		}
	}
	return ""
}

// parseNotify reads NEVER, or a list of the others, each at most once.
func parseNotify(list []byte) (n message.Notify, ok bool) {
	for more := true; more; {
		var word []byte
		word, list, more = bytes.Cut(list, comma)
		var flag message.Notify
		switch {
		case equalFold(word, "NEVER"):
			flag = message.NotifyNever
		case equalFold(word, "SUCCESS"):
			flag = message.NotifySuccess
		case equalFold(word, "FAILURE"):
			flag = message.NotifyFailure
		case equalFold(word, "DELAY"):
			flag = message.NotifyDelay
		}
		if flag == 0 || n&flag != 0 {
			return 0, false
		}
		n |= flag
	}
	return n, n.Valid()
}

func parseReturn(b []byte) (message.Return, bool) {
	switch {
	case equalFold(b, "FULL"):
		return message.ReturnFull, true
	case equalFold(b, "HDRS"):
		return message.ReturnHeaders, true
	}
	return message.ReturnDefault, false
}

var comma = []byte{','}

var equalsSign = []byte{'='}

// parseSize reads 1 to 20 digits. A number beyond int64 is as good as the largest one: too large for any limit.
func parseSize(b []byte) (int64, bool) {
	const largest = 1<<63 - 1
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	size := int64(0)
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		digit := int64(c - '0')
		if size > (largest-digit)/10 {
			size = largest
			continue
		}
		size = size*10 + digit
	}
	return size, true
}

func parseBody(b []byte) (BodyType, bool) {
	switch {
	case equalFold(b, "7BIT"):
		return Body7Bit, true
	case equalFold(b, "8BITMIME"):
		return Body8Bit, true
	}
	return Body7Bit, false
}
