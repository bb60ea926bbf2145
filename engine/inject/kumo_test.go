package inject

import (
	"reflect"
	"strings"
	"testing"
)

// kumoFull has every field that KumoMTA documents and this node takes.
const kumoFull = `{
	"envelope_sender": "some.id@bounces.sender-example.com",
	"content": {
		"text_body": "This is the plain text part, {{ name }}: {{ campaign_title }}, {{ age }}, {{ unknown }}.",
		"html_body": "<p>This is the <b>HTML</b> part, {{ name }}</p>",
		"amp_html_body": "<!doctype html><html amp4email>{{ name }}</html>",
		"attachments": [
			{"data": "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7", "base64": true, "content_type": "image/gif", "content_id": "my-image", "file_name": "pixel.gif"},
			{"data": "Grüße", "content_type": "text/plain", "file_name": "note.txt"}
		],
		"from": {"email": "sales@sender-example.com", "name": "Sales"},
		"subject": "This is the subject for {{ name }}",
		"reply_to": {"email": "help@sender-example.com", "name": "Help"},
		"headers": {"X-Tenant": "MyTenant {{ age }}"}
	},
	"recipients": [
		{"email": "john.smith@mailbox-example.com", "name": "John & Smith", "substitutions": {"age": 42, "gender": "male"}, "metadata": {}},
		{"email": "ann@mailbox-example.com"},
		{"email": "nobody"}
	],
	"substitutions": {"campaign_title": "Fall Campaign"},
	"deferred_spool": true, "deferred_generation": false, "template_dialect": "Jinja",
	"trace_headers": {"received_header": false, "supplemental_header": false, "header_name": "X-KumoRef", "include_meta_names": []}
}`

func TestKumo(t *testing.T) {
	n := newNode(t, nil)
	r, text := n.post("/api/inject/v1", "application/json", kumoFull)
	want := `{"success_count":2,"fail_count":1,"failed_recipients":["nobody"],"errors":["nobody: \"nobody\" is not an address: want it as in user@example.com"]}` + "\n"
	if r.StatusCode != 200 || text != want || len(n.mails) != 2 {
		t.Fatalf("%d %s", r.StatusCode, text)
	}
	h, parts := read(t, n.mails[0].Content)
	for name, want := range map[string]string{
		"From": "Sales <sales@sender-example.com>", "To": `"John & Smith" <john.smith@mailbox-example.com>`, "Reply-To": "Help <help@sender-example.com>",
		"Subject": "This is the subject for John & Smith", "X-Tenant": "MyTenant 42",
	} {
		if name == "To" {
			want = "John & Smith <john.smith@mailbox-example.com>"
		}
		if got := h.Get(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if kind, _, _ := h.ContentType(); kind != "multipart/mixed" {
		t.Errorf("is %s", kind)
	}
	wantParts := []string{
		"text/plain; charset=utf-8||||This is the plain text part, John & Smith: Fall Campaign, 42, .\r\n",
		"text/x-amp-html; charset=utf-8||||<!doctype html><html amp4email>John &amp; Smith</html>\r\n",
		"text/html; charset=utf-8||||<p>This is the <b>HTML</b> part, John &amp; Smith</p>\r\n",
		"image/gif|base64|inline; filename=pixel.gif|<my-image>|GIF89a",
		"text/plain|base64|attachment; filename=note.txt||Grüße",
	}
	for i := range wantParts {
		if i >= len(parts) || !strings.HasPrefix(parts[i], wantParts[i]) {
			t.Errorf("part %d of %d: %q, want %q", i, len(parts), parts[min(i, len(parts)-1)], wantParts[i])
		}
	}
	if m := n.mails[1]; m.From != "some.id@bounces.sender-example.com" || !reflect.DeepEqual(m.To, []string{"ann@mailbox-example.com"}) || !strings.Contains(string(m.Content), "To: <ann@mailbox-example.com>\r\n") {
		t.Errorf("%+v", m)
	}
}

// TestKumoText sends content that came whole, with and without placeholders.
func TestKumoText(t *testing.T) {
	n := newNode(t, nil)
	send := func(content, recipients, more string) []Mail {
		t.Helper()
		n.mails = nil
		r, text := n.post("/api/inject/v1", "application/json", `{"envelope_sender":"noreply@example.com","content":`+content+`,"recipients":[`+recipients+`]`+more+`}`)
		if r.StatusCode != 200 || !strings.Contains(text, `"fail_count":0`) {
			t.Fatalf("%d %s", r.StatusCode, text)
		}
		return n.mails
	}
	two := `{"email":"a@example.com"},{"email":"recipient@example.com","name":"John Smith"}`
	if ms := send(`"Subject: hello\n\nHello there"`, two, ""); len(ms) != 1 || len(ms[0].To) != 2 || string(ms[0].Content) != "Subject: hello\r\n\r\nHello there\r\n" {
		t.Errorf("%+v", ms)
	}
	ms := send(`"To: \"{{ name }}\" <{{ email }}>\nSubject: hello\n\nHello {{ name }}!"`, two, "")
	if len(ms) != 2 || string(ms[1].Content) != "To: \"John Smith\" <recipient@example.com>\r\nSubject: hello\r\n\r\nHello John Smith!\r\n" {
		t.Errorf("%+v", ms)
	}
	if ms := send(`"Subject: {{ x }}\n\n{% if %}"`, two, `,"template_dialect":"Static"`); len(ms) != 1 || string(ms[0].Content) != "Subject: {{ x }}\r\n\r\n{% if %}\r\n" {
		t.Errorf("%+v", ms)
	}
}

func TestKumoRefusals(t *testing.T) {
	n := newNode(t, nil)
	good := `"envelope_sender":"s@x.example","recipients":[{"email":"a@x.example"}]`
	for body, want := range map[string]string{
		`{"recipients":[{"email":"a@x.example"}],"content":"Subject: x\n\n"}`: "envelope_sender is missing",
		`{` + good + `}`: "content is missing",
		`{` + good + `,"content":{"subject":"x"}}`:                                                                   "want at least one of text_body and html_body",
		`{` + good + `,"content":{"text":"x"}}`:                                                                      `content: unknown field "text"`,
		`{` + good + `,"content":7}`:                                                                                 "content: ",
		`{` + good + `,"content":"no header\n\nx"}`:                                                                  "line 1 is no header field",
		`{` + good + `,"content":"Subject: x\n\n","deferred_generation":true}`:                                       "deferred_generation is not supported",
		`{` + good + `,"content":"Subject: x\n\n","template_dialect":"Handlebars"}`:                                  `template_dialect "Handlebars" is not supported`,
		`{` + good + `,"content":"Subject: x\n\n","trace_headers":{"supplemental_header":true}}`:                     "a supplemental header is not supported",
		`{` + good + `,"content":"Subject: x\n\n{% for %}"}`:                                                         "statements {% … %} are not supported",
		`{` + good + `,"content":{"text_body":"x","attachments":[{"data":"?","base64":true,"content_type":"a/b"}]}}`: "attachment 1: not base64",
		`{"envelope_sender":"s@x.example","recipients":[],"content":"Subject: x\n\n"}`:                               "no recipients",
	} {
		r, text := n.post("/api/inject/v1", "application/json", body)
		if got := failure(t, text); r.StatusCode != 400 || !strings.Contains(got, want) || len(n.mails) > 0 {
			t.Errorf("%s: %d %s, want %s", body, r.StatusCode, got, want)
		}
	}
	r, text := n.post("/api/inject/v1", "application/json", `{"envelope_sender":"s@x.example","recipients":[{"email":"a@x.example","metadata":{"x":1}}],"content":"Subject: x\n\n"}`)
	if r.StatusCode != 200 || !strings.Contains(text, "metadata of recipients is not kept") {
		t.Errorf("%d %s", r.StatusCode, text)
	}
	n.refuse = func(*Mail) error { return ErrBusy }
	if r, text := n.post("/api/inject/v1", "application/json", `{`+good+`,"content":"Subject: x\n\n"}`); r.StatusCode != 503 || r.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", r.StatusCode, text)
	}
}
