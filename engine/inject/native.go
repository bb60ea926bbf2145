package inject

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"mailrace/proto/message"
)

// itemsMax bounds the letters of one request.
const itemsMax = 10_000

// item is a letter of POST /v1/messages.
type item struct {
	Envelope struct {
		From       *string            `json:"from"`       // default: from
		To         bounded[string]    `json:"to"`         // default: to and cc
		Recipients bounded[recipient] `json:"recipients"` // beside to
		DSN        struct {
			Notify bounded[string] `json:"notify"` // never, or some of success, failure, delay
			Return string          `json:"return"` // full or headers
			ID     string          `json:"id"`     // ENVID
		} `json:"dsn"`
		RequireTLS bool `json:"require_tls"`
	} `json:"envelope"`

	Raw       string `json:"raw"`
	RawBase64 string `json:"raw_base64"`

	From          *address            `json:"from"`
	To            addresses           `json:"to"`
	Cc            addresses           `json:"cc"`
	ReplyTo       addresses           `json:"reply_to"`
	Subject       string              `json:"subject"`
	Text          *string             `json:"text"`
	HTML          *string             `json:"html"`
	Headers       map[string]string   `json:"headers"`
	Attachments   bounded[attachment] `json:"attachments"`
	Substitutions json.RawMessage     `json:"substitutions"`

	Tenant   string `json:"tenant"`
	Campaign string `json:"campaign"`
	Key      string `json:"idempotency_key"`

	Options struct {
		Release      *time.Time `json:"release"`
		Deadline     *time.Time `json:"deadline"`
		DeadlineMode string     `json:"deadline_mode"` // return (default) or notify
		Priority     int        `json:"priority"`
	} `json:"options"`
}

func (a *attachment) UnmarshalJSON(b []byte) error {
	var in struct {
		Filename    string `json:"filename"`
		ContentType string `json:"content_type"`
		Content     string `json:"content"`
		CID         string `json:"cid"`
	}
	if err := strictly(b, &in); err != nil {
		return err
	}
	data, err := decodeBase64(in.Content)
	if err != nil {
		return fmt.Errorf("content of the attachment %s: %w", excerpt(in.Filename), err)
	}
	*a = attachment{filename: in.Filename, contentType: in.ContentType, cid: in.CID, data: data}
	return nil
}

// native serves POST /v1/messages: one letter, or an array or lines of them.
func (h *Handler) native(c *call) {
	body := bytes.TrimLeft(c.body, " \t\r\n")
	several := c.form == formLines || c.form == formJSON && len(body) > 0 && body[0] == '['
	if several && c.r.Header.Get("Idempotency-Key") != "" {
		c.fail(&fault{status: http.StatusBadRequest, text: "Idempotency-Key is for requests with one letter: give each of several its idempotency_key"})
		return
	}
	b := &results{Batch: h.o.Begin()}
	defer b.Wait(c.ctx) // whatever happens
	var letters []posted
	switch {
	case c.form == formMessage:
		l, err := c.messageLetter()
		letters = append(letters, c.post(l, err, b))
	case c.form == formLines:
		for line := range bytes.Lines(body) {
			if line = bytes.TrimSpace(line); len(line) > 0 && len(letters) <= itemsMax {
				letters = append(letters, c.postItem(line, b, false))
			}
		}
	case several:
		var syntax *json.SyntaxError
		if err := json.Unmarshal(body, new(struct{})); errors.As(err, &syntax) { // before anything of it is queued
			c.fail(&fault{status: http.StatusBadRequest, text: jsonFault(err).Error()})
			return
		}
		d := json.NewDecoder(bytes.NewReader(body))
		d.Token()
		for d.More() && len(letters) <= itemsMax {
			var one json.RawMessage
			if err := d.Decode(&one); err != nil {
				break // it is valid
			}
			letters = append(letters, c.postItem(one, b, false))
		}
	default:
		letters = append(letters, c.postItem(body, b, true))
	}
	c.answerLetters(letters, b.Wait(c.ctx), several)
}

// errItems is the answer to the letter that is one too many, and those behind.
var errItems = fmt.Errorf("more than %d letters in one request: this one and those behind it were not read", itemsMax)

// postItem reads a letter and hands its messages to the batch. alone says that a key may come in the header of the request.
func (c *call) postItem(text []byte, b *results, alone bool) posted {
	if b.items++; b.items > itemsMax {
		return posted{err: errItems}
	}
	l, err := c.letter(text)
	if err == nil && alone {
		err = c.headerKey(l)
	}
	return c.post(l, err, b)
}

func (c *call) post(l *letter, err error, b *results) posted {
	p := posted{err: err}
	if err == nil {
		p.outcomes, p.err = l.send(c.ctx, c.by, c.Handler, b)
	}
	return p
}

func (c *call) answerLetters(letters []posted, rs []Result, several bool) {
	var why verdict
	answers, accepted, failed := make([]Answer, len(letters)), 0, 0
	for i := range letters {
		answers[i] = letters[i].account(rs, &why)
		accepted += answers[i].Accepted
		failed += answers[i].Failed
	}
	status := why.settle(accepted)
	switch {
	case len(letters) == 0:
		c.fail(&fault{status: http.StatusBadRequest, text: "the body holds no letter"})
	case several:
		c.again(status, why.retry)
		c.answer(status, BatchAnswer{accepted, failed, answers})
	case letters[0].err != nil:
		c.fail(&fault{status: status, text: answers[0].Error, retry: why.retry})
	default:
		if c.again(status, why.retry); status != http.StatusOK {
			answers[0].Error = why.text
		}
		c.answer(status, answers[0])
	}
}

// again says when another try may help.
func (c *call) again(status int, retry time.Duration) {
	if status != http.StatusOK && retry > 0 {
		c.w.Header().Set("Retry-After", fmt.Sprint(int(retry/time.Second)))
	}
}

// headerKey takes the key from the header of the request.
func (c *call) headerKey(l *letter) error {
	key := c.r.Header.Get("Idempotency-Key")
	if key != "" && l.key != "" && key != l.key {
		return errors.New("the idempotency key is given twice, in the body and in the header of the request")
	}
	if key != "" {
		l.key = key
	}
	return nil
}

// letter reads an item.
func (c *call) letter(text []byte) (*letter, error) {
	var in item
	if err := decodeOne(text, &in); err != nil {
		return nil, err
	}
	l := &letter{tenant: in.Tenant, campaign: in.Campaign, key: in.Key, strict: true, requireTLS: in.Envelope.RequireTLS, recipients: in.Envelope.Recipients}
	for _, email := range in.Envelope.To {
		l.recipients = append(l.recipients, recipient{Email: email})
	}
	if len(l.recipients) == 0 {
		for _, a := range append(append(addresses{}, in.To...), in.Cc...) {
			l.recipients = append(l.recipients, recipient{Email: a.Email, Name: a.Name})
		}
	}
	switch {
	case in.Envelope.From != nil:
		l.from = *in.Envelope.From
	case in.From != nil:
		l.from = in.From.Email
	default:
		return nil, errors.New(`envelope.from is missing: want the address that failures are told to, or "" for nobody`)
	}
	var err error
	if l.global, err = parseValues(in.Substitutions); err != nil {
		return nil, err
	}
	fill := in.Substitutions != nil
	for i := range l.recipients {
		fill = fill || l.recipients[i].Substitutions != nil
	}
	if err := in.extras(l); err != nil {
		return nil, err
	}
	l.content, err = in.content(l.from, fill, c.o.MaxMessage)
	return l, err
}

// content is what the item says of it.
func (in *item) content(from string, fill bool, max int) (content, error) {
	structured := in.From != nil || in.To != nil || in.Cc != nil || in.ReplyTo != nil || in.Subject != "" || in.Text != nil || in.HTML != nil ||
		in.Headers != nil || in.Attachments != nil
	switch {
	case in.Raw == "" && in.RawBase64 == "":
		p := &parts{
			to: in.To, cc: in.Cc, replyTo: in.ReplyTo, subject: in.Subject, text: in.Text, html: in.HTML, headers: in.Headers,
			attachments: in.Attachments, fill: fill, each: fill, max: max,
		}
		if in.From != nil {
			p.from = *in.From
		}
		p.defaultFrom = from
		return p, nil
	case structured || in.Raw != "" && in.RawBase64 != "":
		return nil, errors.New("content is given twice: want one of raw, raw_base64, or fields (from, to, subject, text, html …)")
	case in.Raw != "":
		return &raw{text: in.Raw, fill: fill}, nil
	}
	text, err := decodeBase64(in.RawBase64)
	if err != nil {
		return nil, fmt.Errorf("raw_base64: %w", err)
	}
	return &raw{text: string(text), fill: fill}, nil
}

var notifies = map[string]message.Notify{
	"never": message.NotifyNever, "success": message.NotifySuccess, "failure": message.NotifyFailure, "delay": message.NotifyDelay,
}

// extras are notifications and options.
func (in *item) extras(l *letter) error {
	d := &in.Envelope.DSN
	for _, name := range d.Notify {
		n, ok := notifies[name]
		if !ok {
			return fmt.Errorf("envelope.dsn.notify: %s is not one of never, success, failure, delay", excerpt(name))
		}
		l.notify |= n
	}
	if !l.notify.Valid() {
		return errors.New("envelope.dsn.notify: never stands alone")
	}
	ret, ok := map[string]message.Return{"": message.ReturnDefault, "headers": message.ReturnHeaders, "full": message.ReturnFull}[d.Return]
	if !ok {
		return fmt.Errorf("envelope.dsn.return: %s is not one of headers, full", excerpt(d.Return))
	}
	if len(d.ID) > 100 || strings.ContainsFunc(d.ID, func(r rune) bool { return r < ' ' || r > '~' }) { // RFC 3461 §4.4
		return errors.New("envelope.dsn.id: want up to 100 printable ASCII characters")
	}
	if ret != message.ReturnDefault || d.ID != "" {
		l.dsn = &message.DSN{Return: ret, EnvelopeID: d.ID}
	}
	o, w := &in.Options, message.Wishes{}
	if o.Priority < -message.PriorityMax || o.Priority > message.PriorityMax {
		return fmt.Errorf("options.priority: %d is out of range: want -%d to %[2]d", o.Priority, message.PriorityMax)
	}
	w.Priority = int8(o.Priority)
	if o.Release != nil {
		if w.Release = unixNano(*o.Release); w.Release == 0 {
			return errors.New("options.release: out of range")
		}
	}
	mode, ok := map[string]message.ByMode{"": message.ByReturn, "return": message.ByReturn, "notify": message.ByNotify}[o.DeadlineMode]
	if !ok {
		return fmt.Errorf("options.deadline_mode: %s is not one of return, notify", excerpt(o.DeadlineMode))
	}
	if o.Deadline != nil {
		w.Deadline, w.ByMode = unixNano(*o.Deadline), mode
	}
	if w != (message.Wishes{}) {
		l.wishes = &w
	}
	return nil
}

// unixNano is the time as messages keep it, or 0 for one that they cannot.
func unixNano(t time.Time) int64 {
	if y := t.Year(); y < 1980 || y > 2250 {
		return 0
	}
	return t.UnixNano()
}

// messageLetter reads a request whose body is the message itself; the query and the header hold the envelope.
func (c *call) messageLetter() (*letter, error) {
	q, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	l := &letter{content: &raw{text: string(c.body)}}
	from, named := c.r.Header.Get("X-Envelope-From"), len(c.r.Header.Values("X-Envelope-From")) > 0
	to := c.r.Header.Values("X-Envelope-To")
	for name, values := range q {
		switch one := map[string]*string{"from": &from, "tenant": &l.tenant, "campaign": &l.campaign, "idempotency_key": &l.key}[name]; {
		case name == "to":
			to = append(to, values...)
		case one == nil:
			return nil, fmt.Errorf("query: %s is not one of from, to, tenant, campaign, idempotency_key", excerpt(name))
		case len(values) > 1:
			return nil, fmt.Errorf("query: %s is given %d times: want it once", name, len(values))
		default:
			*one = values[0]
			named = named || name == "from"
		}
	}
	if !named {
		return nil, errors.New("the envelope's sender is missing: want from in the query, or X-Envelope-From in the header")
	}
	l.from = from
	for _, list := range to {
		for email := range strings.SplitSeq(list, ",") {
			l.recipients = append(l.recipients, recipient{Email: strings.TrimSpace(email)})
		}
	}
	if len(l.recipients) > listMax {
		return nil, errList
	}
	return l, c.headerKey(l)
}

// decodeOne decodes a JSON value that is alone, strictly.
func decodeOne(text []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return jsonFault(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is something behind the JSON object: want one object, an array, or lines as application/x-ndjson")
	}
	return nil
}

// jsonFault says in the reader's words what is wrong with JSON, and where.
func jsonFault(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the JSON is cut short")
	case errors.As(err, &syntax):
		return fmt.Errorf("octet %d: no JSON: %w", syntax.Offset, err)
	case errors.As(err, &kind):
		return fmt.Errorf("%s is a %s, which does not fit: see the documentation", cmp.Or(kind.Field, "the JSON"), kind.Value) // its offset is that in a part
	}
	return fmt.Errorf("%s", strings.TrimPrefix(err.Error(), "json: "))
}
