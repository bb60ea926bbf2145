package dsn

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"mailrace/proto/header"
	"mailrace/proto/message"
)

const (
	// foldColumn is where text for people and long fields are wrapped, RFC 5322 §2.1.1. Quoted-printable breaks longer lines.
	foldColumn = 75
	// wordMax is the longest word that is not broken; with it, no line comes near 998 octets.
	wordMax = 800
)

// writer writes lines. It is the only way for a value into a notification: what comes from outside passes printable, name or headerLine.
type writer struct {
	out  []byte
	utf8 bool // printable is what Unicode says, rather than ASCII
}

func (w *writer) pick(ascii, utf8 string) string {
	if w.utf8 {
		return utf8
	}
	return ascii
}

// line writes parts, which are clean already, as one line.
func (w *writer) line(parts ...string) {
	for _, p := range parts {
		w.out = append(w.out, p...)
	}
	w.out = append(w.out, '\r', '\n')
}

// fold writes a field whose clean value is folded at white space.
func (w *writer) fold(name, value string) { w.words(name, "\t", value) }

// wrap writes clean text in lines that begin with indent.
func (w *writer) wrap(indent, text string) { w.words(indent, indent, text) }

func (w *writer) words(first, next, text string) {
	start := len(w.out)
	w.out = append(w.out, first...)
	empty := true
	for word := range strings.FieldsSeq(text) {
		for word != "" {
			part := word
			if len(part) > wordMax {
				part = cut(word, wordMax)
			}
			word = word[len(part):]
			if !empty && len(w.out)-start+1+len(part) > foldColumn {
				w.out = append(w.out, '\r', '\n')
				start, empty = len(w.out), true
				w.out = append(w.out, next...)
			}
			if !empty {
				w.out = append(w.out, ' ')
			}
			w.out, empty = append(w.out, part...), false
		}
	}
	w.out = append(w.out, '\r', '\n')
}

// printable is at most limit octets of s with everything replaced that is not printable in this notification: HOSTILE I9.
func (w *writer) printable(s string, limit int) string {
	return strings.Map(func(c rune) rune {
		if c >= ' ' && c < 0x7f || w.utf8 && c > 0x7f && c != utf8.RuneError && unicode.IsPrint(c) {
			return c
		}
		return '?'
	}, strings.ToValidUTF8(cut(s, limit), "?"))
}

// encoded is text in a header field: words beyond ASCII are encoded where the way has no SMTPUTF8. RFC 2047
func (w *writer) encoded(text string) string {
	wide := writer{utf8: true}
	if text = wide.printable(text, subjectMax); w.utf8 {
		return text
	}
	return encodedWords(text)
}

// encodedWords is text in ASCII: as it is, or else in words of at most 75 octets. RFC 2047 §2
func encodedWords(text string) string {
	const octets = 45 // 60 in base64
	if isASCII(text) {
		return text
	}
	var words []string
	for text != "" {
		part := cut(text, octets)
		words = append(words, "=?utf-8?B?"+base64.StdEncoding.EncodeToString([]byte(part))+"?=")
		text = text[len(part):]
	}
	return strings.Join(words, " ")
}

// name is a host name, or an IP address as a literal (RFC 5321 §4.1.3): printable, without white space and what could end it.
func (w *writer) name(s string) string {
	if s == "" {
		return "unknown"
	}
	if a, err := netip.ParseAddr(s); err == nil {
		if a = a.Unmap().WithZone(""); a.Is4() {
			return "[" + a.String() + "]"
		}
		return "[IPv6:" + a.String() + "]"
	}
	return strings.Map(func(c rune) rune {
		if strings.ContainsRune(" <>()@,;\"\\", c) {
			return '?'
		}
		return c
	}, w.printable(s, 255))
}

// headerLine writes one line of the original's header section; too long a line is folded where it must be. Octets above 127 stay what they are
// where the original is of the old kind, whose charset nobody knows.
func (w *writer) headerLine(line []byte) {
	const most = 990
	clean := ""
	if w.utf8 {
		clean = strings.Map(func(c rune) rune {
			if c == '\t' || c >= ' ' && c < 0x7f || c > 0x9f && c != utf8.RuneError {
				return c
			}
			return '?'
		}, strings.ToValidUTF8(string(line), "?"))
	} else {
		octets := bytes.Clone(line)
		for i, c := range octets {
			if c < ' ' && c != '\t' || c == 0x7f {
				octets[i] = '?'
			}
		}
		clean = string(octets)
	}
	for len(clean) > most {
		part := cut(clean, most)
		w.line(part)
		clean = " " + clean[len(part):]
	}
	w.line(clean)
}

// headerSection is the header section of content, in whole lines and at most limit octets.
func headerSection(content []byte, limit int) []byte {
	section, _, _ := header.Split(content)
	if len(section) > limit {
		section = section[:bytes.LastIndexByte(section[:limit], '\n')+1]
	}
	return section
}

// wireForm reports whether content is CRLF lines of at most 998 octets without NUL. RFC 5322 §2.1.1
func wireForm(content []byte) bool {
	for len(content) > 0 {
		line, rest, found := bytes.Cut(content, []byte("\r\n"))
		if !found || len(line) > 998 || bytes.ContainsAny(line, "\r\n\x00") {
			return false
		}
		content = rest
	}
	return true
}

// cutLine splits b behind the first CRLF. The line comes without it.
func cutLine(b []byte) (line, rest []byte) {
	line, rest, _ = bytes.Cut(b, []byte("\r\n"))
	return line, rest
}

// boundary returns a MIME boundary that stands in none of the parts.
func boundary(id message.ID, parts []part) string {
	for n := 0; ; n++ {
		b := "=_" + id.String() + "_" + strconv.Itoa(n)
		taken := false
		for i := range parts {
			taken = taken || bytes.Contains(parts[i].body, []byte(b))
		}
		if !taken {
			return b
		}
	}
}

// enhancedCode is a status code of RFC 3463 §2.
var enhancedCode = regexp.MustCompile(`^[245]\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$`)

// status is the enhanced status code that a recipient is reported with.
func status(r *Recipient) string {
	valid := enhancedCode.MatchString(r.Status)
	switch success := valid && r.Status[0] == '2'; {
	case r.Action == Delayed && valid && r.Status[0] == '4':
		return r.Status
	case r.Action == Delayed:
		return "4.4.7"
	case r.Action != Failed && success:
		return r.Status
	case r.Action != Failed:
		return "2.0.0"
	case valid && !success:
		if !r.Expired { // the failure was permanent, whatever the text of the reply said
			return "5" + r.Status[1:]
		}
		return r.Status
	case r.Expired:
		return "4.4.7"
	}
	return "5.0.0"
}

func date(t time.Time) string { return t.Format("Mon, 2 Jan 2006 15:04:05 -0700") } // RFC 5322 §3.3

// lifetime is d in words, rounded to what matters to a reader.
func lifetime(d time.Duration) string {
	switch hours := int((d + time.Minute).Hours()); {
	case hours >= 48:
		return plural((hours+12)/24, "day")
	case hours >= 1:
		return plural(hours, "hour")
	}
	return plural(max(int((d+time.Second/2).Minutes()), 1), "minute")
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

func isASCII[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// cut is the longest start of s that has at most limit octets and does not split a character.
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

// xtext writes an internationalized address in ASCII, at most limit octets of it: RFC 6533 §3, utf-8-addr-xtext.
func xtext(s string, limit int) string {
	var b strings.Builder
	for _, c := range cut(s, limit) {
		switch {
		case c > 0x7f && c != utf8.RuneError && unicode.IsPrint(c):
			fmt.Fprintf(&b, `\x{%X}`, c)
		case c <= ' ' || c >= 0x7f:
			b.WriteByte('?')
		case c == '\\' || c == '+' || c == '=':
			fmt.Fprintf(&b, `\x{%X}`, c)
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

func leadingDots(b []byte) bool {
	return bytes.HasPrefix(b, []byte(".")) || bytes.Contains(b, []byte("\r\n."))
}
