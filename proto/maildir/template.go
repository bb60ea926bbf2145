// Package maildir is the form of mailboxes that are directories with a file for each message: which directory is whose, how files are called, and
// what stands in them. It does no I/O.
package maildir

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"
)

// ErrAddress: no directory is made for this address: a part of it cannot be the name of one.
var ErrAddress = errors.New("the address cannot be the name of a mailbox")

// segmentMax is the most octets of the name of a directory, as Linux has it.
const segmentMax = 255

// placeholders are what a template may hold between braces.
var placeholders = []string{"local", "user", "domain", "address"}

// Template says which directory is whose: an absolute path that may hold {local}, {user} (the local-part up to a plus sign), {domain} and {address}.
// Whatever address is filled in, the path has as many segments as the template, and none is made of dots: nobody gets to a directory that
// the template does not mean. The zero Template is none.
type Template struct {
	text     string
	segments []segment
}

// segment is a name in the path: literal text and placeholders in turn, beginning with text.
type segment []string

// Parse reads a template.
func Parse(text string) (Template, error) {
	if !strings.HasPrefix(text, "/") || path.Clean(text) == "/" {
		return Template{}, errors.New("want an absolute path behind the root")
	}
	t := Template{text: path.Clean(text)}
	for name := range strings.SplitSeq(t.text[1:], "/") {
		s, err := parseSegment(name)
		if err != nil {
			return Template{}, err
		}
		t.segments = append(t.segments, s)
	}
	return t, nil
}

func parseSegment(name string) (s segment, err error) {
	for {
		text, rest, more := strings.Cut(name, "{")
		if strings.Contains(text, "}") || strings.ContainsRune(text, 0) {
			return nil, fmt.Errorf("%.100q holds a brace that closes nothing, or NUL", name)
		}
		s = append(s, text)
		if !more {
			return s, nil
		}
		holder, behind, closed := strings.Cut(rest, "}")
		if !closed || !known(holder) {
			return nil, fmt.Errorf("{%.100s is no placeholder: want {%s}", rest, strings.Join(placeholders, "}, {"))
		}
		s, name = append(s, holder), behind
	}
}

func known(holder string) bool {
	for _, p := range placeholders {
		if p == holder {
			return true
		}
	}
	return false
}

func (t Template) String() string { return t.text }

// Dir is the directory of an address, given by its local-part as it stands in the envelope and its domain in normal form. Case does not
// matter, and a quoted local-part is the same as without quotes where it has a form without.
func (t Template) Dir(local, domain string) (string, error) {
	local, err := unquote(local)
	if err != nil {
		return "", err
	}
	local = lower(local)
	user, _, _ := strings.Cut(local, "+")
	if user == "" {
		user = local
	}
	var b strings.Builder
	for _, s := range t.segments {
		b.WriteByte('/')
		start := b.Len()
		for i, part := range s {
			if i%2 == 1 {
				if part, err = value(part, local, user, domain); err != nil {
					return "", err
				}
			}
			b.WriteString(part)
		}
		if b.Len()-start > segmentMax {
			return "", fmt.Errorf("%w: it is too long", ErrAddress)
		}
	}
	return b.String(), nil
}

// value is what stands in place of a placeholder.
func value(holder, local, user, domain string) (string, error) {
	v := map[string]string{"local": local, "user": user, "domain": domain, "address": local + "@" + domain}[holder]
	if v == "" || v[0] == '.' || !utf8.ValidString(v) {
		return "", fmt.Errorf("%w: a part is empty, begins with a dot, or is not UTF-8", ErrAddress)
	}
	for i := range len(v) {
		if c := v[i]; c == '/' || c < ' ' || c == 0x7f {
			return "", fmt.Errorf("%w: it holds a slash or a control character", ErrAddress)
		}
	}
	return v, nil
}

// unquote takes the quotes off a local-part. RFC 5321 §4.1.2
func unquote(local string) (string, error) {
	if !strings.HasPrefix(local, `"`) {
		return local, nil
	}
	if len(local) < 2 || local[len(local)-1] != '"' {
		return "", fmt.Errorf("%w: its quotes are not closed", ErrAddress)
	}
	b := make([]byte, 0, len(local))
	for i := 1; i < len(local)-1; i++ {
		if local[i] == '\\' {
			if i++; i == len(local)-1 {
				return "", fmt.Errorf("%w: its quotes are not closed", ErrAddress)
			}
		}
		b = append(b, local[i])
	}
	return string(b), nil
}

// lower folds ASCII alone.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
