package dialog

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// reply is one whole reply of the server.
type reply struct {
	code  string
	lines []string // without CRLF
}

func (r reply) text() string { return strings.Join(r.lines, "\n") }

// cutReply takes a whole reply from the beginning of b. n is 0 while it is not whole. RFC 5321 §4.2, §4.2.1.
func cutReply(b []byte) (r reply, n int, err error) {
	for {
		lf := bytes.IndexByte(b[n:], '\n')
		if lf < 0 {
			return reply{}, 0, nil
		}
		line := b[n : n+lf]
		n += lf + 1
		if len(line) == 0 || line[len(line)-1] != '\r' {
			return reply{}, n, fmt.Errorf("the reply line %s does not end in CRLF", quote(line))
		}
		line = line[:len(line)-1]
		if len(line) < 3 || !codePattern.Match(line[:3]) || bytes.IndexByte(line[:3], 'x') >= 0 || len(line) > 3 && line[3] != ' ' && line[3] != '-' {
			return reply{}, n, fmt.Errorf("%s is no reply line", quote(line))
		}
		code := string(line[:3])
		if r.code != "" && r.code != code {
			return reply{}, n, errors.New("the lines of a reply have several codes: " + r.code + ", " + code)
		}
		r.code = code
		r.lines = append(r.lines, string(line))
		if len(line) == 3 || line[3] == ' ' {
			return r, n, nil
		}
	}
}

// quote shows octets on one line, long ones by their begin and end.
func quote(b []byte) string {
	const shown = 240
	if len(b) <= shown+40 {
		return escape(b)
	}
	return fmt.Sprintf("%s … %d octets … %s", escape(b[:shown]), len(b)-shown-40, escape(b[len(b)-40:]))
}

// escape writes octets as texts have them.
func escape(b []byte) string {
	var s strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == '\r':
			s.WriteString(`\r`)
		case r == '\n':
			s.WriteString(`\n`)
		case r == '\\':
			s.WriteString(`\\`)
		case !unicode.IsPrint(r) || r == utf8.RuneError:
			for _, c := range b[:n] {
				fmt.Fprintf(&s, `\x%02x`, c)
			}
		default:
			s.WriteRune(r)
		}
		b = b[n:]
	}
	return s.String()
}
