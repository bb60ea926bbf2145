package smtp

import (
	"errors"
	"unicode/utf8"
)

// What ParsePath refuses.
var (
	// ErrPathSyntax: not a path in angle brackets.
	ErrPathSyntax = errors.New("syntax error")
	// ErrNullPath: <> where somebody must be named.
	ErrNullPath = errors.New("null path not allowed")
	// ErrNoDomain: a local-part alone. Only postmaster may come without a domain (RFC 5321 §4.5.1).
	ErrNoDomain = errors.New("domain missing")
	// ErrLocalPart: neither a dot-string nor a quoted string, or over 64 octets.
	ErrLocalPart = errors.New("bad local-part")
	// ErrDomain: not a domain name, or over 255 octets, or a label of it over 63.
	ErrDomain = errors.New("bad domain")
	// ErrLiteral: not an address literal of IPv4 or IPv6.
	ErrLiteral = errors.New("bad address literal")
	// ErrPathLong: over 256 octets.
	ErrPathLong = errors.New("path too long")
	// ErrUTF8: octets that are not ASCII where SMTPUTF8 is not in force, or not UTF-8.
	ErrUTF8 = errors.New("not ASCII")
)

// Path is a reverse-path or forward-path. Its slices are parts of what was parsed.
type Path struct {
	Path   []byte // local-part@domain without angle brackets and source route; empty is the null path
	Local  []byte // as written, with its quotes
	Domain []byte // as written; empty for <postmaster> and the null path
	UTF8   bool   // Path is not ASCII
}

// classes of octets in addresses.
const (
	classAtext  = 1 << iota // atext, RFC 5322 §3.2.3
	classDomain             // letter, digit, hyphen; and the underscore, which the DNS has and users write
	classHigh               // part of a UTF-8 sequence
)

var octetClass = func() (class [256]uint8) {
	for c := range 256 {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			class[c] = classAtext | classDomain
		case c >= 0x80:
			class[c] = classAtext | classDomain | classHigh // RFC 6531 §3.3
		}
	}
	for _, c := range "!#$%&'*+/=?^`{|}~" {
		class[c] = classAtext
	}
	return class
}()

// ParsePath reads a path in angle brackets from the beginning of b: RFC 5321 §4.1.2. Source routes are checked and dropped (§3.6.1,
// appendix C), percent signs and exclamation marks are plain letters. With smtpUTF8, octets from 80 up are allowed where they form UTF-8 (RFC
// 6531 §3.3). rest is what stands behind the closing bracket. It does not allocate.
func ParsePath(b []byte, smtpUTF8 bool) (path Path, rest []byte, err error) {
	if len(b) < 2 || b[0] != '<' {
		return Path{}, nil, ErrPathSyntax
	}
	if b[1] == '>' {
		return Path{}, b[2:], nil
	}
	var high uint8
	i := 1
	if b[1] == '@' {
		if i, err = skipRoute(b, 1, &high); err != nil {
			return Path{}, nil, err
		}
	}
	start := i
	at, err := scanLocal(b, start, &high)
	if err != nil {
		return Path{}, nil, err
	}
	end := at
	switch {
	case at < len(b) && b[at] == '@':
		if end, err = scanDomain(b, at+1, &high); err != nil {
			return Path{}, nil, err
		}
		path.Domain = b[at+1 : end]
	case !equalFold(b[start:at], "POSTMASTER"):
		return Path{}, nil, ErrNoDomain
	}
	switch {
	case end >= len(b) || b[end] != '>':
		return Path{}, nil, ErrPathSyntax
	case end+1 > maxPath:
		return Path{}, nil, ErrPathLong
	}
	path.Path, path.Local = b[start:end], b[start:at]
	if high&classHigh != 0 {
		path.UTF8 = true
		if !smtpUTF8 || !validUTF8(b[:end]) {
			return Path{}, nil, ErrUTF8
		}
	}
	return path, b[end+1:], nil
}

// validUTF8 reports whether b is UTF-8 without control characters (C1 among them: in UTF-8 they are as dangerous to a terminal as C0).
func validUTF8(b []byte) bool {
	for i := 0; i+1 < len(b); i++ {
		if b[i] == 0xc2 && b[i+1] < 0xa0 {
			return false
		}
	}
	return utf8.Valid(b)
}

// skipRoute returns where the mailbox behind a source route (@a,@b:) begins. high gathers the classes of what it passed.
func skipRoute(b []byte, i int, high *uint8) (int, error) {
	for i < len(b) && b[i] == '@' {
		end, err := scanDomain(b, i+1, high)
		switch {
		case err != nil:
			return 0, err
		case end >= len(b):
			return 0, ErrPathSyntax
		case b[end] == ':':
			return end + 1, nil
		case b[end] != ',':
			return 0, ErrPathSyntax
		}
		i = end + 1
	}
	return 0, ErrPathSyntax
}

// scanLocal returns where the local-part that begins at i ends.
func scanLocal(b []byte, i int, high *uint8) (int, error) {
	start := i
	if i < len(b) && b[i] == '"' {
		end := scanQuoted(b, i, high)
		if end < 0 || end-start > maxLocal {
			return 0, ErrLocalPart
		}
		return end, nil
	}
	atom := i
	for ; i < len(b); i++ {
		c := b[i]
		if octetClass[c]&classAtext != 0 {
			*high |= octetClass[c]
			continue
		}
		if c != '.' {
			break
		}
		if i == atom {
			return 0, ErrLocalPart
		}
		atom = i + 1
	}
	if i == atom || i-start > maxLocal {
		return 0, ErrLocalPart
	}
	return i, nil
}

// scanQuoted returns where the quoted string that begins at i ends, or -1.
func scanQuoted(b []byte, i int, high *uint8) int {
	for i++; i < len(b); i++ {
		c := b[i]
		switch {
		case c == '"':
			return i + 1
		case c == '\\':
			if i++; i >= len(b) || b[i] < ' ' || b[i] > '~' {
				return -1
			}
		case c < ' ' || c == 0x7f:
			return -1
		}
		*high |= octetClass[c] & classHigh
	}
	return -1
}

// scanDomain returns where the domain or address literal that begins at i ends.
func scanDomain(b []byte, i int, high *uint8) (int, error) {
	start := i
	if i < len(b) && b[i] == '[' {
		return scanLiteral(b, i)
	}
	label := i
	for ; i < len(b); i++ {
		c := b[i]
		if octetClass[c]&classDomain != 0 {
			*high |= octetClass[c]
			continue
		}
		if c != '.' {
			break
		}
		if !validLabel(b[label:i]) {
			return 0, ErrDomain
		}
		label = i + 1
	}
	if !validLabel(b[label:i]) || i-start > maxDomain {
		return 0, ErrDomain
	}
	return i, nil
}

func validLabel(label []byte) bool {
	return len(label) > 0 && len(label) <= maxLabel && label[0] != '-' && label[len(label)-1] != '-'
}

// ValidHello reports whether b is what HELO and EHLO ask for: a domain, or an address literal. RFC 5321 §4.1.1.1.
func ValidHello(b []byte) bool {
	var high uint8
	end, err := scanDomain(b, 0, &high)
	return err == nil && end == len(b) && high&classHigh == 0
}
