package inject

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// kumoRequest is KumoMTA's form of an injection, as far as this node does what it says. Where it does not, the request is refused.
type kumoRequest struct {
	Sender        *string            `json:"envelope_sender"`
	Recipients    bounded[recipient] `json:"recipients"`
	Content       json.RawMessage    `json:"content"`
	Substitutions json.RawMessage    `json:"substitutions"`
	Dialect       string             `json:"template_dialect"`

	// DeferredSpool allows to answer before the message is on disk. It is there before all the same.
	DeferredSpool      bool `json:"deferred_spool"`
	DeferredGeneration bool `json:"deferred_generation"`

	Trace struct {
		Received     bool            `json:"received_header"` // there always is one
		Supplemental bool            `json:"supplemental_header"`
		Name         string          `json:"header_name"`
		Include      bounded[string] `json:"include_meta_names"`
	} `json:"trace_headers"`
}

// kumoContent is content as an object.
type kumoContent struct {
	Text        *string                 `json:"text_body"`
	HTML        *string                 `json:"html_body"`
	AMP         *string                 `json:"amp_html_body"`
	From        *address                `json:"from"`
	Subject     *string                 `json:"subject"`
	ReplyTo     addresses               `json:"reply_to"`
	Headers     map[string]string       `json:"headers"`
	Attachments bounded[kumoAttachment] `json:"attachments"`
}

type kumoAttachment struct {
	Data        string `json:"data"`
	ContentType string `json:"content_type"`
	ContentID   string `json:"content_id"`
	FileName    string `json:"file_name"`
	Base64      bool   `json:"base64"`
}

// KumoAnswer is that of POST /api/inject/v1. It counts recipients.
type KumoAnswer struct {
	Success int      `json:"success_count"`
	Fail    int      `json:"fail_count"`
	Failed  []string `json:"failed_recipients"`
	Errors  []string `json:"errors"`
}

// kumo serves POST /api/inject/v1.
func (h *Handler) kumo(c *call) {
	if c.form != formJSON {
		c.fail(&fault{status: http.StatusUnsupportedMediaType, text: "want application/json"})
		return
	}
	l, err := c.kumoLetter()
	if err == nil {
		err = c.headerKey(l)
	}
	b := &results{Batch: h.o.Begin()}
	defer b.Wait(c.ctx) // whatever happens
	p := c.post(l, err, b)
	rs := b.Wait(c.ctx)
	var why verdict
	a := p.account(rs, &why)
	status := why.settle(a.Accepted)
	if p.err != nil || status != http.StatusOK && why.retry > 0 {
		c.fail(&fault{status: status, text: why.text, retry: why.retry})
		return
	}
	out := KumoAnswer{Success: a.Accepted, Fail: a.Failed, Failed: []string{}, Errors: []string{}}
	for i := range a.Recipients {
		if r := &a.Recipients[i]; r.Error != "" {
			out.Failed = append(out.Failed, r.Email)
			out.Errors = append(out.Errors, r.Email+": "+r.Error)
		}
	}
	c.answer(http.StatusOK, out)
}

// kumoLetter reads the request.
func (c *call) kumoLetter() (*letter, error) {
	var in kumoRequest
	if err := decodeOne(c.body, &in); err != nil {
		return nil, err
	}
	if err := in.refused(); err != nil {
		return nil, err
	}
	l := &letter{from: *in.Sender, recipients: in.Recipients}
	var err error
	if l.global, err = parseValues(in.Substitutions); err != nil {
		return nil, err
	}
	l.content, err = in.content(c.o.MaxMessage)
	return l, err
}

// refused says what this node does not do.
func (in *kumoRequest) refused() error {
	switch {
	case in.Sender == nil:
		return errors.New("envelope_sender is missing")
	case in.DeferredGeneration:
		return errors.New("deferred_generation is not supported: messages are made and stored before the answer")
	case in.Trace.Supplemental || len(in.Trace.Include) > 0:
		return errors.New("trace_headers: a supplemental header is not supported, only Received, which is always there")
	case in.Dialect != "" && in.Dialect != "Jinja" && in.Dialect != "Static":
		return fmt.Errorf("template_dialect %s is not supported: want Jinja (placeholders only) or Static", excerpt(in.Dialect))
	}
	return nil
}

func (in *kumoRequest) content(max int) (content, error) {
	fill := in.Dialect != "Static"
	switch {
	case len(in.Content) == 0 || string(in.Content) == "null":
		return nil, errors.New("content is missing")
	case in.Content[0] == '"':
		r := &raw{fill: fill}
		return r, json.Unmarshal(in.Content, &r.text)
	}
	var o kumoContent
	if err := decodeOne(in.Content, &o); err != nil {
		return nil, fmt.Errorf("content: %w", err)
	}
	if o.Text == nil && o.HTML == nil {
		return nil, errors.New("content: want at least one of text_body and html_body")
	}
	p := &parts{
		text: o.Text, html: o.HTML, amp: o.AMP, replyTo: o.ReplyTo, headers: o.Headers, defaultFrom: *in.Sender, fill: fill, each: true, max: max,
	}
	if o.From != nil {
		p.from = *o.From
	}
	if o.Subject != nil {
		p.subject = *o.Subject
	}
	for i := range o.Attachments {
		a := &o.Attachments[i]
		data, err := []byte(a.Data), error(nil)
		if a.Base64 {
			data, err = decodeBase64(a.Data)
		}
		if err != nil {
			return nil, fmt.Errorf("content: attachment %d: %w", i+1, err)
		}
		p.attachments = append(p.attachments, attachment{filename: a.FileName, contentType: a.ContentType, cid: a.ContentID, data: data})
	}
	return p, nil
}
