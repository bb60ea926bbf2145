package header

import (
	"bytes"
	"errors"
)

// ErrAddresses is what AppendAddresses answers to a value that is no list of addresses.
var ErrAddresses = errors.New("not a list of addresses")

// addressesMax is the most addresses of one field that AppendAddresses takes.
const addressesMax = 1000

// AppendAddresses appends the addresses of a field like From, without names, comments and angle brackets, in the order in which they stand. value
// is a Field's Value, folded or not. The grammar is that of RFC 5322 §3.4, read in one pass: mailboxes, groups, quoted strings, comments to any
// depth, empty members of a list (§4.4). The local part of an address keeps its quotes; white space and comments around its dots and "@" are dropped.
// It refuses what two readers could take for different addresses: none or several "@" outside of quotes, also where a name has one; words in an
// address; quotes in a domain, and a literal that is not all of it; two pairs of angle brackets in a mailbox, or text behind one; source routes; control characters.
func AppendAddresses(dst [][]byte, value []byte) ([][]byte, error) {
	r := addressReader{in: value, out: dst, most: len(dst) + addressesMax}
	if err := r.list(); err != nil {
		return dst, err
	}
	return r.out, nil
}

// addressReader reads a list of addresses.
type addressReader struct {
	in    []byte
	at    int
	out   [][]byte
	most  int
	group bool
}

// mailbox is the member of a list that is read.
type mailbox struct {
	spec     []byte // what may be the address: the text in angle brackets, or all there is without them
	ats      int    // "@" in spec
	host     int    // where in spec the domain begins, if ats is 1
	gap      bool   // white space or a comment behind it
	torn     bool   // it is more than one word
	inside   bool   // in angle brackets
	brackets bool   // had some
}

func (r *addressReader) list() error {
	var m mailbox
	for r.at < len(r.in) {
		c := r.in[r.at]
		var err error
		switch c {
		case ' ', '\t', '\r', '\n':
			r.at++
			m.gap = true
		case '(':
			err = r.comment()
			m.gap = true
		case '"':
			err = r.quoted(&m, '"')
		case '[':
			err = r.quoted(&m, ']')
		default:
			r.at++
			err = r.special(&m, c)
		}
		if err != nil {
			return err
		}
	}
	if r.group {
		return ErrAddresses
	}
	return r.finish(&m)
}

// special takes an octet that stands for itself, or parts addresses.
func (r *addressReader) special(m *mailbox, c byte) error {
	switch {
	case c == '<' && !m.brackets && !m.inside:
		if m.ats > 0 { // a name with an "@" that is not in quotes passes for an address
			return ErrAddresses
		}
		*m = mailbox{spec: m.spec[:0], inside: true}
	case c == '>' && m.inside:
		m.inside, m.brackets = false, true
	case c == ',' && !m.inside:
		return r.finish(m)
	case c == ':' && !m.inside && !m.brackets && !r.group && m.ats == 0 && len(m.spec) > 0:
		r.group = true
		*m = mailbox{}
	case c == ';' && !m.inside && r.group:
		r.group = false
		return r.finish(m)
	case c < ' ' || c == 0x7f, c == '<', c == '>', c == ',', c == ':', c == ';', c == ')', c == ']', c == '\\', m.brackets:
		return ErrAddresses
	default:
		m.add(r.in[r.at-1 : r.at])
		if c == '@' {
			m.ats++
			m.host = len(m.spec)
		}
	}
	return nil
}

// add adds an octet, or what is in quotes.
func (m *mailbox) add(p []byte) {
	if n := len(m.spec); n > 0 && m.gap && !joint(m.spec[n-1]) && !joint(p[0]) {
		m.torn = true
	}
	m.gap = false
	m.spec = append(m.spec, p...)
}

func joint(c byte) bool { return c == '.' || c == '@' }

// finish takes the mailbox that has come to its end.
func (r *addressReader) finish(m *mailbox) error {
	switch {
	case m.inside:
		return ErrAddresses
	case len(m.spec) == 0 && !m.brackets: // an empty member
	case m.torn, m.ats != 1, m.spec[0] == '@', !plainHost(m.spec[m.host:]), len(r.out) == r.most:
		return ErrAddresses
	default:
		r.out = append(r.out, m.spec)
	}
	*m = mailbox{}
	return nil
}

// plainHost says whether a domain is one name, or one literal: no reader may find another "@" in it.
func plainHost(host []byte) bool {
	if len(host) == 0 {
		return false
	}
	if host[0] == '[' {
		return bytes.IndexByte(host, ']') == len(host)-1
	}
	return !bytes.ContainsAny(host, `"[`)
}

// comment skips a comment with those in it. RFC 5322 §3.2.2
func (r *addressReader) comment() error {
	for depth := 0; r.at < len(r.in); r.at++ {
		switch r.in[r.at] {
		case '\\':
			r.at++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				r.at++
				return nil
			}
		}
	}
	return ErrAddresses
}

// quoted takes a quoted string or a domain literal, which ends with the octet end. RFC 5322 §3.2.4, §3.4.1
func (r *addressReader) quoted(m *mailbox, end byte) error {
	if m.brackets {
		return ErrAddresses
	}
	begin := r.at
	for r.at++; r.at < len(r.in); r.at++ {
		switch c := r.in[r.at]; {
		case c == '\\' && r.at+1 < len(r.in) && r.in[r.at+1] >= ' ':
			r.at++
		case c == end:
			r.at++
			m.add(r.in[begin:r.at])
			return nil
		case c != '\t' && c != '\r' && c != '\n' && (c < ' ' || c == 0x7f):
			return ErrAddresses
		}
	}
	return ErrAddresses
}
