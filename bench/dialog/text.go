package dialog

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// textMax is the most octets that one text may expand to.
const textMax = 80 << 20

// depthMax is how deep repetitions may be nested.
const depthMax = 4

// variables are the names that texts may use.
var variables = []string{"client", "from", "to", "home", "domain", "oversize", "overlines", "plain", "user", "password", "wrong"}

// text is what a step sends, before its variables are known.
type text []piece

// piece is literal octets, a variable, or a repetition.
type piece struct {
	literal  string
	variable string // of the text, or of the count
	count    int
	repeat   text
}

// missing is a variable that has no value with this server.
type missing string

func (m missing) Error() string {
	if slices.Contains([]string{"plain", "user", "password", "wrong"}, string(m)) {
		return "no user is known: --user, --password"
	}
	return "the server gives no " + string(m)
}

// parseText reads a text. cases is what {case} stands for, nil where it stands for nothing.
func parseText(s string, cases text) (text, error) {
	t, rest, err := parsePieces(s, cases, 0)
	if err == nil && rest != "" {
		err = errors.New("} without {")
	}
	return t, err
}

// parsePieces reads up to the end of s, or to the bracket that closes the repetition.
func parsePieces(s string, cases text, depth int) (t text, rest string, err error) {
	t = text{} // not nil: an empty text is one too
	var literal []byte
	flush := func() {
		if len(literal) > 0 {
			t = append(t, piece{literal: string(literal)})
			literal = nil
		}
	}
	for s != "" {
		switch s[0] {
		case '\\':
			var c byte
			if c, s, err = parseEscape(s[1:]); err != nil {
				return nil, "", err
			}
			literal = append(literal, c)
		case '{':
			flush()
			var p piece
			if p, s, err = parsePiece(s[1:], cases, depth+1); err != nil {
				return nil, "", err
			}
			t = append(t, p)
		case '}':
			flush()
			return t, s, nil
		default:
			literal = append(literal, s[0])
			s = s[1:]
		}
	}
	flush()
	return t, "", nil
}

func parseEscape(s string) (byte, string, error) {
	if s == "" {
		return 0, "", errors.New(`\ at the end`)
	}
	if i := strings.IndexByte(`rnt0\{}`, s[0]); i >= 0 {
		return "\r\n\t\x00\\{}"[i], s[1:], nil
	}
	if s[0] == 'x' && len(s) >= 3 {
		if c, err := strconv.ParseUint(s[1:3], 16, 8); err == nil {
			return byte(c), s[3:], nil
		}
	}
	return 0, "", fmt.Errorf(`unknown escape \%c`, s[0])
}

// parsePiece reads what stands behind an opening bracket.
func parsePiece(s string, cases text, depth int) (piece, string, error) {
	end := strings.IndexAny(s, "*{}")
	switch {
	case depth > depthMax:
		return piece{}, "", errors.New("nested too deep")
	case end < 0 || s[end] == '{':
		return piece{}, "", errors.New("{ without }")
	}
	name, p := s[:end], piece{count: 1}
	switch n, err := strconv.Atoi(name); {
	case s[end] == '*' && err == nil && n >= 0 && n <= textMax:
		p.count = n
	case name == "case" && cases != nil && s[end] == '}':
		p.repeat = cases
	case slices.Contains(variables, name):
		p.variable = name
	default:
		return piece{}, "", fmt.Errorf("{%s: no such variable or count", name)
	}
	if s[end] == '}' {
		return p, s[end+1:], nil
	}
	repeat, rest, err := parsePieces(s[end+1:], cases, depth)
	switch {
	case err != nil:
		return piece{}, "", err
	case rest == "":
		return piece{}, "", errors.New("{ without }")
	}
	p.repeat = repeat
	return p, rest[1:], nil
}

var errTooLong = errors.New("the text is too long")

// expand appends the octets of t.
func (t text) expand(dst []byte, values map[string]string) ([]byte, error) {
	for _, p := range t {
		value, ok := values[p.variable]
		switch {
		case p.literal != "":
			dst = append(dst, p.literal...)
			continue
		case p.variable != "" && !ok:
			return nil, missing(p.variable)
		case p.repeat == nil:
			dst = append(dst, value...)
			continue
		}
		n := p.count
		if p.variable != "" {
			var err error
			if n, err = strconv.Atoi(value); err != nil {
				return nil, fmt.Errorf("{%s*: %q is no count", p.variable, value)
			}
		}
		once, err := p.repeat.expand(nil, values)
		switch {
		case err != nil:
			return nil, err
		case len(once) > 0 && n > (textMax-len(dst))/len(once):
			return nil, errTooLong
		case len(once) > 0:
			for range n {
				dst = append(dst, once...)
			}
		}
	}
	if len(dst) > textMax {
		return nil, errTooLong
	}
	return dst, nil
}
