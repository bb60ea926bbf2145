package header

import "bytes"

// End is what ended a header section.
type End uint8

const (
	// Open: nothing yet.
	Open End = iota
	// EmptyLine is the end that RFC 5322 §2.1 asks for.
	EmptyLine
	// NoField: a line that is neither a field nor the continuation of one. The body begins with it.
	NoField
	// TooLarge: the section is larger than MaxSize.
	TooLarge
	// TooMany: it has more than MaxFields fields.
	TooMany
)

func (e End) String() string {
	return [...]string{"open", "empty line", "no field", "too large", "too many fields"}[e]
}

// place is where in a line a Scanner is.
type place uint8

const (
	lineStart place = iota
	emptyLine       // behind the CR that begins a line
	inName
	behindName // white space in front of the colon
	inValue
)

// said is what was read of a line TLS-Required.
type said uint8

const (
	saidElse    said = iota // it is another line, or says something else
	saidNothing             // behind the colon, and white space
	saidN
	saidNo // and white space
)

// Scanner finds the end of a header section in content that comes in pieces of any size. The zero Scanner is ready for use. It looks at no
// more than MaxSize octets and a line.
type Scanner struct {
	size   int // octets of the lines that came whole
	line   int // octets of the line under way
	fields int
	hops   int
	place  place
	match  int8 // octets of the name under way that are those of received, or of tlsRequired if wish is set; negative for another name
	wish   bool
	said   said // in the line under way
	cr     bool // the last octet of a value was a CR
	noTLS  bool
	end    End
}

// End is what ended the section.
func (s *Scanner) End() End { return s.end }

// Size is the number of octets in the section, in whole lines, without what ended it.
func (s *Scanner) Size() int { return s.size }

// Fields is the number of fields so far.
func (s *Scanner) Fields() int { return s.fields }

// Hops is the number of Received fields so far: RFC 5321 §6.3.
func (s *Scanner) Hops() int { return s.hops }

// TLSOptional says whether the last field TLS-Required so far says No, on a line that came whole. RFC 8689 §5
func (s *Scanner) TLSOptional() bool { return s.noTLS }

// Scan reads the next piece of the content. What follows the end of the section is not looked at.
func (s *Scanner) Scan(p []byte) End {
	for s.end == Open {
		if s.place == lineStart {
			p = p[s.lines(p):]
		}
		if len(p) == 0 {
			break
		}
		n := s.step(p)
		s.line += n
		p = p[n:]
		switch {
		case s.end != Open || s.place == emptyLine:
		case s.size+s.line > MaxSize:
			s.end = TooLarge
		case s.place == lineStart:
			s.size, s.line = s.size+s.line, 0
			if s.wish {
				s.noTLS, s.wish = s.said == saidNo, false
			}
			if s.fields > MaxFields {
				s.end = TooMany
			}
		}
	}
	return s.end
}

// lines reads whole lines as long as they are of the usual kind, and returns how many octets that took. It is a shortcut: step reads the same.
func (s *Scanner) lines(p []byte) (n int) {
	for n < len(p) {
		line, colon := p[n:], 0
		folded := (line[0] == ' ' || line[0] == '\t') && s.fields > 0
		if !folded {
			for colon < len(line) && colon < nameMax && isName[line[colon]] {
				colon++
			}
			if colon == 0 || colon == len(line) || line[colon] != ':' {
				break
			}
		}
		lf := bytes.IndexByte(line[colon:], '\n') + colon
		if lf <= colon || line[lf-1] != '\r' || s.size+lf+1 > MaxSize || s.fields == MaxFields && !folded {
			break
		}
		if !folded {
			s.fields++
			if colon == len(received) && line[0]|0x20 == 'r' && bytes.EqualFold(line[:colon], []byte(received)) {
				s.hops++
			} else if colon == len(tlsRequired) && line[0]|0x20 == 't' && bytes.EqualFold(line[:colon], []byte(tlsRequired)) {
				s.noTLS = bytes.EqualFold(bytes.Trim(line[colon+1:lf], " \t\r"), []byte("no"))
			}
		}
		n += lf + 1
		s.size += lf + 1
	}
	return n
}

// step reads from p, which is not empty, as far as one place of a line goes.
func (s *Scanner) step(p []byte) int {
	switch s.place {
	case lineStart:
		return s.begin(p[0])
	case emptyLine:
		s.end = NoField
		if p[0] == '\n' {
			s.end = EmptyLine
		}
		return 1
	case inName:
		return s.name(p)
	case behindName:
		switch p[0] {
		case ' ', '\t':
		case ':':
			s.colon()
		default:
			s.end = NoField
		}
		return 1
	}
	return s.value(p)
}

// begin judges the first octet of a line.
func (s *Scanner) begin(c byte) int {
	switch {
	case c == '\r':
		s.place = emptyLine
	case isName[c]:
		s.place, s.match, s.wish = inName, 0, c|0x20 == tlsRequired[0]
		return 0
	case (c == ' ' || c == '\t') && s.fields > 0:
		s.place, s.cr = inValue, false
	default:
		s.end = NoField
	}
	return 1
}

const (
	received    = "received"
	tlsRequired = "tls-required"
	nameMax     = 998 // octets of a name: what a line may have. RFC 5322 §2.1.1
)

// name reads octets of a name.
func (s *Scanner) name(p []byte) int {
	for i, c := range p {
		switch {
		case c == ':':
			s.colon()
			return i + 1
		case c == ' ' || c == '\t':
			s.place = behindName
			return i + 1
		case !isName[c], s.line+i == nameMax:
			s.end = NoField
			return i + 1
		case s.match >= 0 && int(s.match) < len(s.sought()) && c|0x20 == s.sought()[s.match]:
			s.match++
		default:
			s.match = -1
		}
	}
	return len(p)
}

// sought is the name that the one under way may be.
func (s *Scanner) sought() string {
	if s.wish {
		return tlsRequired
	}
	return received
}

func (s *Scanner) colon() {
	s.fields++
	known := int(s.match) == len(s.sought())
	if known && !s.wish {
		s.hops++
	}
	s.wish, s.said = known && s.wish, saidNothing
	s.place, s.cr = inValue, false
}

// judge reads octets of the value of a line TLS-Required.
func (s *Scanner) judge(p []byte) {
	for _, c := range p {
		blank := c == ' ' || c == '\t' || c == '\r'
		switch {
		case blank && s.said != saidN:
		case s.said == saidNothing && c|0x20 == 'n':
			s.said = saidN
		case s.said == saidN && c|0x20 == 'o':
			s.said = saidNo
		default:
			s.said = saidElse
		}
	}
}

// value reads as far as the CRLF, or to the end of p. Content that is not made of lines (BINARYMIME) may hold a CR or an LF alone: neither ends
// a value.
func (s *Scanner) value(p []byte) int {
	end := 0
	for {
		lf := bytes.IndexByte(p[end:], '\n')
		if lf < 0 {
			if end < len(p) || s.cr {
				s.cr = p[len(p)-1] == '\r'
			}
			if s.wish {
				s.judge(p)
			}
			return len(p)
		}
		lf += end
		end = lf + 1
		if lf > 0 && p[lf-1] == '\r' || lf == 0 && s.cr {
			if s.place = lineStart; s.wish {
				s.judge(p[:lf])
			}
			return end
		}
		s.cr = false
	}
}
