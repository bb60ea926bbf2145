package inject

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"slices"
	"strings"

	"github.com/emersion/go-message"

	"mailrace/proto/header"
)

// parts is content that comes in parts, of which a message is built for each recipient, or one for all.
type parts struct {
	from             address
	to, cc, replyTo  addresses
	subject          string
	defaultFrom      string // of the envelope
	text, html, amp  *string
	headers          map[string]string
	attachments      []attachment
	fill             bool // placeholders are filled in
	each             bool // without to, the header names the recipient even if there are several
	max              int
	textT, htmlT     *template
	ampT             *template
	fields           []field // subject and headers
	inline, attached []*entity
}

// attachment is a file that goes along.
type attachment struct {
	filename, contentType, cid string
	data                       []byte
}

// field is a header field whose value is a template.
type field struct {
	name  string
	value *template
}

// reserved are fields that are made here. Others with a field of their own in the request are taken from headers as well.
var reserved = map[string]bool{
	"mime-version": true, "content-type": true, "content-transfer-encoding": true, "content-disposition": true, "content-id": true,
	"received": true, "return-path": true, "bcc": true, "resent-bcc": true,
}

const headersMax = 1000

// compile checks everything that is the same for all recipients.
func (p *parts) compile() (err error) {
	if p.text == nil && p.html == nil && p.amp == nil && len(p.attachments) == 0 {
		return errEmpty
	}
	if err := p.sortHeaders(); err != nil {
		return err
	}
	if p.from == (address{}) && !p.has("From") {
		if p.from.Email = p.defaultFrom; p.defaultFrom == "" {
			return errors.New("from is missing, and the envelope's sender is empty")
		}
	}
	for what, list := range map[string]addresses{"from": p.fromList(), "to": p.to, "cc": p.cc, "reply_to": p.replyTo} {
		if err := list.check(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	for _, body := range []struct {
		name string
		text *string
		to   **template
		html bool
	}{{"text", p.text, &p.textT, false}, {"html", p.html, &p.htmlT, true}, {"amp_html", p.amp, &p.ampT, true}} {
		if body.text == nil {
			continue
		}
		if *body.to, err = p.template(*body.text, body.html); err != nil {
			return fmt.Errorf("%s: %w", body.name, err)
		}
	}
	for i := range p.attachments {
		e, err := p.attachments[i].entity()
		if err != nil {
			return fmt.Errorf("attachment %d: %w", i+1, err)
		}
		if p.attachments[i].cid != "" {
			p.inline = append(p.inline, e)
		} else {
			p.attached = append(p.attached, e)
		}
	}
	return nil
}

func (p *parts) template(text string, html bool) (*template, error) {
	if !p.fill {
		return static(text), nil
	}
	return parseTemplate(text, html)
}

// sortHeaders takes addresses and the subject out of headers, and compiles the others in the order of their names.
func (p *parts) sortHeaders() error {
	if len(p.headers) > headersMax {
		return fmt.Errorf("%d headers, %d are allowed", len(p.headers), headersMax)
	}
	for _, name := range slices.Sorted(maps.Keys(p.headers)) {
		value := p.headers[name]
		lower := strings.ToLower(name)
		if !header.ValidName(name) {
			return fmt.Errorf("headers: %s is not the name of a header field", excerpt(name))
		}
		if reserved[lower] {
			return fmt.Errorf("headers: %s is made by this node", name)
		}
		if to := map[string]*addresses{"to": &p.to, "cc": &p.cc, "reply-to": &p.replyTo}[lower]; to != nil && *to == nil && !p.fills(value) {
			*to = splitAddresses(value)
			continue
		}
		switch {
		case lower == "from" && p.from == (address{}) && !p.fills(value):
			p.from = parseAddress(value)
			continue
		case lower == "subject" && p.subject == "":
			p.subject = value
			continue
		case lower == "from" && p.from != (address{}) || lower == "subject" || lower == "cc" && p.cc != nil || lower == "reply-to" && p.replyTo != nil || lower == "to" && p.to != nil:
			return fmt.Errorf("headers: %s is given twice", name)
		}
		if err := p.addField(name, value); err != nil {
			return err
		}
	}
	if p.subject == "" {
		return nil
	}
	return p.addField("Subject", p.subject)
}

// fromList is the address of From, unless a header is a template of it.
func (p *parts) fromList() addresses {
	if p.from == (address{}) {
		return nil
	}
	return addresses{p.from}
}

// fills says whether a text has placeholders to be filled in.
func (p *parts) fills(text string) bool { return p.fill && opening(text) < len(text) }

func (p *parts) addField(name, value string) error {
	t, err := p.template(value, false)
	if err != nil {
		return fmt.Errorf("header %s: %w", name, err)
	}
	p.fields = append(p.fields, field{name, t})
	return nil
}

// splitAddresses reads a list of addresses as it stands in a header: split at the commas outside quotes.
func splitAddresses(value string) (list addresses) {
	for more := true; more; {
		var one string
		one, value, more = cutOutside(value, ",", true)
		if strings.TrimSpace(one) != "" {
			list = append(list, parseAddress(one))
		}
	}
	return list
}

func (p *parts) names(fn func(string)) {
	for _, t := range []*template{p.textT, p.htmlT, p.ampT} {
		t.names(fn)
	}
	for i := range p.fields {
		p.fields[i].value.names(fn)
	}
}

// has says whether there is a field of that name among the headers.
func (p *parts) has(name string) bool {
	for i := range p.fields {
		if strings.EqualFold(p.fields[i].name, name) {
			return true
		}
	}
	return false
}

// international says that addresses in the header section need SMTPUTF8. RFC 6531
func (p *parts) international() bool {
	for _, list := range []addresses{p.fromList(), p.to, p.cc, p.replyTo} {
		for i := range list {
			if !isASCII(list[i].Email) {
				return true
			}
		}
	}
	return false
}

// own says that each message names its recipient.
func (p *parts) own() bool { return p.each && p.to == nil && !p.has("To") }

// compose builds a message.
func (p *parts) compose(v *values) ([]byte, error) {
	root, err := p.tree(v)
	if err != nil {
		return nil, err
	}
	if err := p.head(root, v); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Grow(root.size() + 1024)
	if err := root.write(&b); err != nil {
		return nil, fmt.Errorf("building the message: %w", err)
	}
	if b.Len() > p.max {
		return nil, fmt.Errorf("the message of %d octets is over the limit of %d", b.Len(), p.max)
	}
	return b.Bytes(), nil
}

// head adds the fields of the message, the last first: the library puts each in front. Date and Message-ID are added on the way into the queue,
// if they are not among the headers.
func (p *parts) head(root *entity, v *values) error {
	h := &root.header
	for i := len(p.fields) - 1; i >= 0; i-- {
		f := &p.fields[i]
		value, err := f.value.render(nil, v, true)
		if err != nil {
			return fmt.Errorf("header %s: %w", f.name, err)
		}
		text := strings.TrimSpace(strings.ReplaceAll(string(value), "\t", " "))
		if strings.ContainsFunc(text, isControl) {
			return fmt.Errorf("header %s: the value holds a line break or another control character", f.name)
		}
		if !isASCII(text) {
			text = mime.QEncoding.Encode("utf-8", text)
		}
		if err := addFolded(h, f.name, text); err != nil {
			return err
		}
	}
	to := ""
	switch {
	case len(p.to) > 0:
		to = p.to.format()
	case p.has("To"):
	case v.to != nil:
		a := v.to.address()
		to = a.format()
	default:
		to = "undisclosed-recipients:;" // RFC 5322 §A.1.3
	}
	for _, f := range [...]struct{ name, value string }{{"Cc", p.cc.format()}, {"To", to}, {"Reply-To", p.replyTo.format()}, {"From", p.fromList().format()}} {
		if f.value == "" {
			continue
		}
		if err := addFolded(h, f.name, f.value); err != nil {
			return err
		}
	}
	return nil
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

// tree is the message without its own header: attachments around inline files around the alternatives. RFC 2046 §5.1
func (p *parts) tree(v *values) (*entity, error) {
	var bodies []*entity
	for _, body := range []struct {
		kind string
		t    *template
	}{{"text/plain", p.textT}, {"text/x-amp-html", p.ampT}, {"text/html", p.htmlT}} {
		if body.t == nil {
			continue
		}
		text, err := body.t.render(nil, v, false)
		if err != nil {
			return nil, err
		}
		bodies = append(bodies, textEntity(body.kind, text))
	}
	var nodes []*entity
	if len(bodies) > 0 {
		nodes = []*entity{multipart("alternative", bodies)}
	}
	if len(p.inline) > 0 {
		nodes = []*entity{multipart("related", append(nodes, p.inline...))}
	}
	return multipart("mixed", append(nodes, p.attached...)).copy(), nil
}

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
