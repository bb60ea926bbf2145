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

// cutWord parts parameters, which begin with one, behind the first.
func cutWord(rest []byte) (word, more []byte) {
	end := bytes.IndexByte(rest, ' ')
	if end < 0 {
		return rest, nil
	}
	return rest[:end], trimSpaces(rest[end:])
}

// parse reads the parameters of RCPT, each at most once, and returns the reply to what it refuses, or "".
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

var comma = []byte{','}

var equalsSign = []byte{'='}
