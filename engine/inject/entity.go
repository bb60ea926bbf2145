package inject

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"

	"github.com/emersion/go-message"
)

// entity is a part of a message, or all of it.
type entity struct {
	header   message.Header
	data     []byte
	children []*entity
}

// copy is an entity whose header may be added to.
func (e *entity) copy() *entity {
	c := *e
	c.header = e.header.Copy()
	return &c
}

// multipart is a container for parts, or the part where there is but one.
func multipart(kind string, children []*entity) *entity {
	if len(children) == 1 {
		return children[0]
	}
	e := &entity{children: children}
	e.header.SetContentType("multipart/"+kind, nil)
	return e
}

// textEntity is text, as it is where that is safe, and quoted-printable otherwise.
func textEntity(kind string, text []byte) *entity {
	e := &entity{data: canonical(text)}
	e.header.SetContentType(kind, map[string]string{"charset": "utf-8"})
	if !plain(e.data) { // without an encoding it is 7bit
		e.header.Set("Content-Transfer-Encoding", "quoted-printable")
	}
	return e
}

// canonical has CRLF at the end of each line.
func canonical(text []byte) []byte {
	lines := make([]byte, 0, len(text)+len(text)/32+2)
	for i, c := range text {
		switch {
		case c == '\n' && i > 0 && text[i-1] == '\r':
		case c == '\n' || c == '\r':
			lines = append(lines, "\r\n"...)
		default:
			lines = append(lines, c)
		}
	}
	if n := len(lines); n > 0 && lines[n-1] != '\n' {
		lines = append(lines, "\r\n"...)
	}
	return lines
}

// plain says whether CRLF lines can go as they are: ASCII, short enough, nothing that a host on the way would change.
func plain(lines []byte) bool {
	length := 0
	for _, c := range lines {
		switch {
		case c == '\n':
			length = 0
		case c >= 0x7f || c < ' ' && c != '\r' && c != '\t' || length > lineMax:
			return false
		default:
			length++
		}
	}
	return true
}

// typeMax is the most octets of a media type with its parameters.
const typeMax = 255

var errType = errors.New("no media type")

// parseType reads a media type.
func parseType(s string) (kind string, params map[string]string, err error) {
	if len(s) > typeMax {
		return "", nil, errType
	}
	return mime.ParseMediaType(s)
}

// entity checks the attachment and makes a part of it.
func (a *attachment) entity() (*entity, error) {
	kind, params, err := parseType(a.contentType)
	if err != nil || !strings.Contains(kind, "/") {
		return nil, fmt.Errorf("content_type %s: want it as in application/pdf", excerpt(a.contentType))
	}
	if strings.HasPrefix(kind, "multipart/") || strings.HasPrefix(kind, "message/") {
		return nil, fmt.Errorf("content_type %s: containers and messages cannot be attached", kind)
	}
	if len(a.filename) > 255 || strings.ContainsFunc(a.filename, isControl) {
		return nil, fmt.Errorf("filename %s: want up to 255 octets without control characters", excerpt(a.filename))
	}
	if len(a.cid) > 255 || strings.ContainsFunc(a.cid, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '<' || r == '>' }) {
		return nil, fmt.Errorf("cid %s: want up to 255 printable ASCII characters without < and >", excerpt(a.cid))
	}
	e := &entity{data: a.data}
	if charset := strings.ToLower(params["charset"]); charset != "utf-8" && charset != "us-ascii" {
		delete(params, "charset") // the library encodes no other; the octets stay as they are
		if charset != "" {
			return nil, fmt.Errorf("content_type %s: want charset utf-8, or none", excerpt(a.contentType))
		}
	}
	disposition := map[string]string{}
	if a.filename != "" {
		disposition["filename"] = a.filename
	}
	if a.cid == "" {
		e.header.Set("Content-Disposition", mime.FormatMediaType("attachment", disposition)) // with RFC 2231, as the library has not
	} else {
		e.header.Set("Content-Disposition", mime.FormatMediaType("inline", disposition))
		e.header.Set("Content-Id", "<"+a.cid+">")
	}
	e.header.Set("Content-Transfer-Encoding", "base64")
	e.header.SetContentType(kind, params)
	return e, nil
}

// size estimates the octets on the wire.
func (e *entity) size() int {
	n := 512 + len(e.data)*11/8
	for _, c := range e.children {
		n += c.size()
	}
	return n
}

// write writes the whole message.
func (e *entity) write(w io.Writer) error {
	mw, err := message.CreateWriter(w, e.header)
	if err != nil {
		return err
	}
	return e.fill(mw)
}

func (e *entity) fill(w *message.Writer) error {
	if len(e.children) == 0 {
		if _, err := w.Write(e.data); err != nil {
			return err
		}
		return w.Close()
	}
	for _, c := range e.children {
		pw, err := w.CreatePart(c.header)
		if err != nil {
			return err
		}
		if err := c.fill(pw); err != nil {
			return err
		}
	}
	return w.Close()
}

// decodeBase64 reads base64 with or without padding and line breaks.
func decodeBase64(s string) ([]byte, error) {
	s = strings.TrimRight(strings.NewReplacer("\r", "", "\n", "", " ", "").Replace(s), "=")
	data, err := base64.RawStdEncoding.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("not base64: %w", err)
	}
	return data, nil
}

// foldMax is where lines of the header section are folded: RFC 2047 §2 allows no more where words are encoded.
const foldMax = 76

// addFolded puts a field in front of a header, folded at spaces. The library would leave a first word alone that is a little too long.
func addFolded(h *message.Header, name, value string) error {
	raw := make([]byte, 0, len(name)+len(value)+len(value)/16+8)
	raw = append(append(raw, name...), ':')
	line := len(raw)
	for word := range strings.SplitSeq(value, " ") {
		if word != "" && line+1+len(word) > foldMax {
			raw, line = append(raw, "\r\n"...), 0
		}
		raw = append(append(raw, ' '), word...)
		if line += 1 + len(word); line > lineMax {
			return fmt.Errorf("header %s: a line of more than %d octets without a space", name, lineMax)
		}
	}
	h.AddRaw(append(raw, "\r\n"...))
	return nil
}
