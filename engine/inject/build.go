package inject

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"mime"
	"slices"
	"strings"

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
	bodies           []alternative
	fields           []field // subject and headers
	inline, attached []*entity
}

// attachment is a file that goes along.
type attachment struct {
	filename, contentType, cid string
	data                       []byte
}

// alternative is one of the forms of the text, as its readers see it.
type alternative struct {
	kind  string
	text  *template
	fixed *entity // what it is for all recipients, if nothing is to be filled in
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
	for _, body := range [...]struct {
		name, kind string
		text       *string
		html       bool
	}{{"text", "text/plain", p.text, false}, {"amp_html", "text/x-amp-html", p.amp, true}, {"html", "text/html", p.html, true}} {
		if body.text == nil {
			continue
		}
		a := alternative{kind: body.kind}
		if a.text, err = p.template(*body.text, body.html); err != nil {
			return fmt.Errorf("%s: %w", body.name, err)
		}
		if !p.fills(*body.text) {
			a.fixed = textEntity(a.kind, []byte(*body.text))
		}
		p.bodies = append(p.bodies, a)
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
	for i := range p.bodies {
		p.bodies[i].text.names(fn)
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

// tree is the message without its own header: attachments around inline files around the alternatives. RFC 2046 §5.1
func (p *parts) tree(v *values) (*entity, error) {
	var bodies []*entity
	for i := range p.bodies {
		b := &p.bodies[i]
		if b.fixed != nil {
			bodies = append(bodies, b.fixed)
			continue
		}
		text, err := b.text.render(nil, v, false)
		if err != nil {
			return nil, err
		}
		bodies = append(bodies, textEntity(b.kind, text))
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
