// Package header reads the header section of a message: where it ends, and which fields stand in it. It is the only splitter of header and
// body in the house, so that no two parts can disagree about what is a header field. It is linear in its input, allocates nothing, and reads
// wire form: lines that end with CRLF.
//
// The section ends in front of the first line that is empty (RFC 5322 §2.1), or that is neither a field nor the continuation of one. A field
// begins with a name of printable ASCII and a colon, perhaps with white space between (RFC 5322 §2.2, §4.5.8); a continuation begins with white
// space.
package header

import (
	"bytes"
	"iter"
)

// Limits of a header section. What is beyond is not a message that any mail system takes for one.
const (
	MaxSize   = 100 << 10 // octets, the empty line not included
	MaxFields = 1000
)

// Split parts content into its header section and the rest: the empty line and the body. end says what ended the section, which is Open where
// content holds nothing else.
func Split(content []byte) (section, rest []byte, end End) {
	var s Scanner
	end = s.Scan(content)
	return content[:s.Size()], content[s.Size():], end
}

// Field is one header field. Its slices are parts of the section that it was read from.
type Field struct {
	Raw   []byte // all of it, the CRLF at its end included
	Name  []byte // as it came
	Value []byte // behind the colon as it came, without the last CRLF: folded, with white space around
}

// Is reports whether the field has the name, in any case.
func (f *Field) Is(name string) bool {
	return len(name) > 0 && len(f.Name) == len(name) && bytes.EqualFold(f.Name, []byte(name))
}

// AppendValue appends the value unfolded and without white space around it. RFC 5322 §2.2.3
func (f *Field) AppendValue(dst []byte) []byte {
	for line := range bytes.SplitSeq(bytes.Trim(f.Value, " \t\r\n"), []byte("\r\n")) {
		dst = append(dst, line...)
	}
	return dst
}

// Fields yields the fields of a section, which Split gave.
func Fields(section []byte) iter.Seq[Field] {
	return func(yield func(Field) bool) {
		for len(section) > 0 {
			n := fieldLength(section)
			raw := section[:n]
			section = section[n:]
			name, value, found := bytes.Cut(raw, []byte(":"))
			if !found { // not a section of Split's
				return
			}
			if !yield(Field{Raw: raw, Name: bytes.TrimRight(name, " \t"), Value: bytes.TrimSuffix(value, []byte("\r\n"))}) {
				return
			}
		}
	}
}

// fieldLength is how long the first field of a section is: up to the next line that does not begin with white space.
func fieldLength(section []byte) int {
	for n := 0; ; {
		lf := bytes.Index(section[n:], []byte("\r\n"))
		if lf < 0 {
			return len(section)
		}
		if n += lf + 2; n == len(section) || section[n] != ' ' && section[n] != '\t' {
			return n
		}
	}
}

// ValidName reports whether s can be the name of a header field. RFC 5322 §3.6.8
func ValidName(s string) bool {
	for i := range len(s) {
		if !isName[s[i]] {
			return false
		}
	}
	return len(s) > 0 && len(s) <= 76
}

// isName are the octets that a field's name is made of: printable ASCII but the colon.
var isName = func() (is [256]bool) {
	for c := byte('!'); c <= '~'; c++ {
		is[c] = c != ':'
	}
	return is
}()
