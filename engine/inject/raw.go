package inject

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"mailrace/proto/header"
)

// lineMax is the most octets of a line without its end. RFC 5322 §2.1.1
const lineMax = 998

// raw is content that came whole.
type raw struct {
	text string // header section and body, lines as they came
	head *template
	body *template
	fill bool // placeholders are filled in
}

// compile reads placeholders. The values in the header section must not break its lines.
func (r *raw) compile() (err error) {
	if !r.fill {
		return nil
	}
	end := len(r.text)
	for _, blank := range []string{"\n\n", "\n\r\n"} {
		if at := strings.Index(r.text, blank); at >= 0 {
			end = min(end, at+1)
		}
	}
	if r.head, err = parseTemplate(r.text[:end], false); err != nil {
		return err
	}
	r.body, err = parseTemplate(r.text[end:], false)
	return err
}

func (r *raw) names(fn func(string)) {
	r.head.names(fn)
	r.body.names(fn)
}

// own is never true: such content names its recipients itself, if at all.
func (r *raw) own() bool { return false }

// international says that addresses in the header section need SMTPUTF8: this is left to the envelope.
func (r *raw) international() bool { return false }

// compose makes the wire form.
func (r *raw) compose(v *values) ([]byte, error) {
	text := []byte(r.text)
	if r.fill {
		var err error
		if text, err = r.head.render(nil, v, true); err != nil {
			return nil, err
		}
		if text, err = r.body.render(text, v, false); err != nil {
			return nil, err
		}
	}
	lines, err := wireLines(text)
	if err != nil {
		return nil, err
	}
	if len(lines) > v.max {
		return nil, fmt.Errorf("the message of %d octets is over the limit of %d", len(lines), v.max)
	}
	if section, _, end := header.Split(lines); len(section) == 0 || end == header.NoField {
		return nil, fmt.Errorf("line %d is no header field: want name, colon and value, and an empty line before the body", bytes.Count(section, []byte("\n"))+1)
	}
	return lines, nil
}

// wireLines makes CRLF lines of lines that end with CRLF or LF. What could be read as something else on the way is refused.
func wireLines(text []byte) ([]byte, error) {
	wire := make([]byte, 0, len(text)+len(text)/32+512)
	for number := 1; len(text) > 0; number++ {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		switch {
		case bytes.IndexByte(line, '\r') >= 0:
			return nil, fmt.Errorf("line %d holds a bare CR: want lines that end with CRLF or LF", number)
		case bytes.IndexByte(line, 0) >= 0:
			return nil, fmt.Errorf("line %d holds a NUL", number)
		case len(line) > lineMax:
			return nil, fmt.Errorf("line %d has %d octets, %d are allowed: fold it, or encode the content", number, len(line), lineMax)
		}
		wire = append(append(wire, line...), "\r\n"...)
		text = rest
	}
	return wire, nil
}

// errEmpty: there is nothing to send.
var errEmpty = errors.New("there is no content: want text, html or attachments, or raw")
