package inject

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-message/mail"

	"mailrace/proto/message"
)

// TestEnvelopes: what goes to whom. Recipients with the same content share messages, up to the limit.
func TestEnvelopes(t *testing.T) {
	n := newNode(t, func(o *Options) { o.Recipients = 2 })
	for _, c := range []struct{ body, from, to string }{
		{`{"envelope":{"from":"s@shop.example","to":["a@far.example","b@far.example","c@far.example"]},"text":"x"}`, "s@shop.example", "[a@far.example b@far.example] [c@far.example]"},
		{`{"envelope":{"from":"","to":["a@far.example"]},"from":"s@shop.example","text":"x"}`, "", "[a@far.example]"},
		{`{"from":"S <s@shop.example>","to":["A <a@far.example>",{"email":"b@far.example"}],"cc":"c@far.example","text":"x"}`, "s@shop.example", "[a@far.example b@far.example] [c@far.example]"},
		{`{"envelope":{"from":"s@shop.example","recipients":["a@far.example",{"email":"b@far.example","name":"B"}],"to":["c@far.example"]},"text":"{{ name }}"}`, "s@shop.example", "[a@far.example b@far.example] [c@far.example]"},
		{`{"envelope":{"from":"s@shop.example","recipients":["a@far.example",{"email":"b@far.example","substitutions":{}}]},"text":"x"}`, "s@shop.example", "[a@far.example] [b@far.example]"},
		{`{"envelope":{"from":"s@shop.example","to":["a@far.example","b@far.example"]},"to":"list@shop.example","substitutions":{"x":1},"text":"{{x}}"}`, "s@shop.example", "[a@far.example b@far.example]"},
		{`{"envelope":{"from":"s@shop.example","to":["a@far.example","b@far.example"]},"to":"list@shop.example","substitutions":{"x":1},"text":"{{email}}"}`, "s@shop.example", "[a@far.example] [b@far.example]"},
		{`{"envelope":{"from":"s@shop.example","to":["a@far.example"]},"raw":"Subject: x\n\nHello"}`, "s@shop.example", "[a@far.example]"},
		{`{"envelope":{"from":"grün@shop.example","to":["ä@far.example"]},"raw_base64":"U3ViamVjdDogeA0KDQpIZWxsbw"}`, "grün@shop.example", "[ä@far.example]"},
	} {
		var to []string
		for _, m := range n.inject(c.body) {
			if to = append(to, fmt.Sprint(m.To)); m.From != c.from {
				t.Errorf("%s: from %q", c.body, m.From)
			}
		}
		if got := strings.Join(to, " "); got != c.to {
			t.Errorf("%s: to %s, want %s", c.body, got, c.to)
		}
	}
}

// TestWishesAndLabels go with each message.
func TestWishesAndLabels(t *testing.T) {
	n := newNode(t, nil)
	m := n.inject(`{"envelope":{"from":"s@shop.example","to":["a@far.example"],"dsn":{"notify":["success","failure"],"return":"full","id":"job 7"},"require_tls":true},
		"text":"x","tenant":"shop","campaign":"spring sale","idempotency_key":"k",
		"options":{"release":"2026-03-04T06:00:00Z","deadline":"2026-03-05T06:00:00+01:00","deadline_mode":"notify","priority":9}}`)[0]
	want := Mail{
		From: "s@shop.example", To: []string{"a@far.example"}, Content: m.Content, Tenant: "shop", Campaign: "spring sale", Key: "k",
		Notify: message.NotifySuccess | message.NotifyFailure, DSN: &message.DSN{Return: message.ReturnFull, EnvelopeID: "job 7"}, RequireTLS: true,
		Wishes: &message.Wishes{
			Release: now.Add(53*time.Minute + 53*time.Second).UnixNano(), Deadline: now.Add(23*time.Hour + 53*time.Minute + 53*time.Second).UnixNano(),
			ByMode: message.ByNotify, Priority: 5,
		},
		Client: m.Client,
	}
	if !reflect.DeepEqual(m, want) || m.Client.String() != "127.0.0.1:4711" {
		t.Errorf("%+v\nwant %+v", m, want)
	}
}

// TestBadLetters are refused with what is wrong, and nothing of them is queued.
func TestBadLetters(t *testing.T) {
	n := newNode(t, nil)
	envelope := `"envelope":{"from":"s@shop.example","to":["a@far.example"]}`
	for body, want := range map[string]string{
		`{"text":"x"}`: "envelope.from is missing",
		`{"envelope":{"from":"s@shop.example"},"text":"x"}`:                                                          "no recipients",
		`{"envelope":{"from":"s","to":["a@far.example"]},"text":"x"}`:                                                `envelope sender: "s" is not an address`,
		`{"envelope":{"from":"s@x.example>\r\nRCPT TO:<b@x.example","to":["a@x.example"]}}`:                          "is not an address",
		`{"envelope":{"from":"","to":["a@far.example"]},"text":"x"}`:                                                 "from is missing, and the envelope's sender is empty",
		`{"envelope":{"from":"s@shop.example","to":["a@far.example\n"]},"text":"x"}`:                                 `"a@far.example\n" is not an address`,
		`{"envelope":{"from":"s@shop.example","to":["@relay.example:a@far.example"]},"text":"x"}`:                    "is not an address",
		`{"envelope":{"from":"s@shop.example","to":["postmaster"]},"text":"x"}`:                                      "is not an address",
		`{"envelope":{"from":"s@shop.example","to":"a@far.example"},"text":"x"}`:                                     `"\"a@far.example\"" is not an array`,
		`{"envelope":{"from":"s@shop.example","to":["a@far.example"],"mail":1},"text":"x"}`:                          `unknown field "mail"`,
		`{"envelope":{"from":"s@shop.example","recipients":[{"mail":"a@far.example"}]}}`:                             `unknown field "mail"`,
		`{"envelope":{"from":"s@shop.example","recipients":[{"email":"a@x.example","substitutions":7}]},"text":"x"}`: "substitutions: want an object",
		`{` + envelope + `}`:                                                                                           "there is no content",
		`{` + envelope + `,"text":7}`:                                                                                  "text is a number, which does not fit",
		`{` + envelope + `,"raw":"x","text":"y"}`:                                                                      "content is given twice",
		`{` + envelope + `,"raw":"Subject: x\n\n","raw_base64":"eA"}`:                                                  "content is given twice",
		`{` + envelope + `,"raw_base64":"%"}`:                                                                          "raw_base64: not base64",
		`{` + envelope + `,"raw":"Hello"}`:                                                                             "line 1 is no header field",
		`{` + envelope + `,"raw":"\nHello"}`:                                                                           "line 1 is no header field",
		`{` + envelope + `,"raw":"Subject: x\nHello\n\nyou"}`:                                                          "line 2 is no header field",
		`{` + envelope + `,"raw":"Subject: x\n\na\rb"}`:                                                                "line 3 holds a bare CR",
		`{` + envelope + `,"raw":"Subject: x\n\na\u0000b"}`:                                                            "line 3 holds a NUL",
		`{` + envelope + `,"raw":"Subject: x\n\n` + strings.Repeat("x", 999) + `"}`:                                    "line 3 has 999 octets, 998 are allowed",
		`{` + envelope + `,"subject":"x\r\nBcc: b@far.example","text":"x"}`:                                            "header Subject: the value holds a line break",
		`{` + envelope + `,"subject":"x\u0000","text":"x"}`:                                                            "header Subject: the value holds",
		`{` + envelope + `,"text":"x","headers":{"X-A":"1\nX-B: 2"}}`:                                                  "header X-A: the value holds",
		`{` + envelope + `,"text":"x","headers":{"X-A: 1\r\nX-B":"2"}}`:                                                `headers: "X-A: 1\r\nX-B" is not the name`,
		`{` + envelope + `,"text":"x","headers":{"":"2"}}`:                                                             `headers: "" is not the name`,
		`{` + envelope + `,"text":"x","headers":{"Content-Type":"text/html"}}`:                                         "headers: Content-Type is made by this node",
		`{` + envelope + `,"text":"x","headers":{"bcc":"x@y.example"}}`:                                                "headers: bcc is made by this node",
		`{` + envelope + `,"text":"x","subject":"a","headers":{"Subject":"b"}}`:                                        "headers: Subject is given twice",
		`{` + envelope + `,"text":"x","from":{"email":"s@shop.example","name":"a\r\nBcc: x"}}`:                         "from: name",
		`{` + envelope + `,"text":"x","to":["A <a@far.example>, B <b@far.example>\r\n"]}`:                              "to: ",
		`{` + envelope + `,"text":"x","reply_to":"nobody"}`:                                                            `reply_to: "nobody" is not an address`,
		`{` + envelope + `,"text":"x","attachments":[{"content_type":"pdf","content":""}]}`:                            `attachment 1: content_type "pdf"`,
		`{` + envelope + `,"text":"x","attachments":[{"content_type":"message/rfc822","content":""}]}`:                 "cannot be attached",
		`{` + envelope + `,"text":"x","attachments":[{"content_type":"text/plain; charset=koi8-r","content":""}]}`:     "want charset utf-8",
		`{` + envelope + `,"text":"x","attachments":[{"content_type":"a/b","filename":"x\r\ny","content":""}]}`:        "attachment 1: filename",
		`{` + envelope + `,"text":"x","attachments":[{"content_type":"a/b","cid":"x>","content":""}]}`:                 "attachment 1: cid",
		`{` + envelope + `,"text":"x","attachments":[{"content_type":"a/b","content":"?"}]}`:                           "content of the attachment \"\": not base64",
		`{` + envelope + `,"text":"x","attachments":[{"content_type":"a/b","data":"?"}]}`:                              `unknown field "data"`,
		`{` + envelope + `,"text":"` + strings.Repeat("x", 200_000) + `"}`:                                             "over the limit of 100000",
		`{` + envelope + `,"text":"{{ x }}","substitutions":{}}`:                                                       `there is no substitution "x"`,
		`{` + envelope + `,"text":"{% x %}","substitutions":{}}`:                                                       "text: \"{% x %}\": statements",
		`{` + envelope + `,"raw":"Subject: {{ x }}\n\n","substitutions":{"x":"a\r\nBcc: b"}}`:                          `substitution "x" for a header holds a line break`,
		`{` + envelope + `,"text":"x","tenant":"` + strings.Repeat("t", 256) + `"}`:                                    "tenant",
		`{` + envelope + `,"text":"x","campaign":"a\nb"}`:                                                              "campaign",
		`{` + envelope + `,"text":"x","idempotency_key":"` + strings.Repeat("t", 256) + `"}`:                           "idempotency key",
		`{` + envelope + `,"text":"x","options":{"priority":10}}`:                                                      "options.priority: 10 is out of range",
		`{` + envelope + `,"text":"x","options":{"release":"soon"}}`:                                                   "parsing time",
		`{` + envelope + `,"text":"x","options":{"release":"2026-03-06T05:06:07Z"}}`:                                   "options.release: later than in 24h",
		`{` + envelope + `,"text":"x","options":{"release":"9999-03-06T05:06:07Z"}}`:                                   "options.release: out of range",
		`{` + envelope + `,"text":"x","options":{"deadline":"2026-03-04T05:06:07Z"}}`:                                  "options.deadline: it has passed",
		`{` + envelope + `,"text":"x","options":{"deadline":"2026-03-04T06:00:00Z","release":"2026-03-04T07:00:00Z"}}`: "later than options.deadline",
		`{` + envelope + `,"text":"x","options":{"deadline":"2026-03-04T06:00:00Z","deadline_mode":"x"}}`:              `"x" is not one of return, notify`,
		`{"envelope":{"from":"s@shop.example","to":["a@far.example"],"dsn":{"notify":["never","delay"]}},"text":"x"}`:  "never stands alone",
		`{"envelope":{"from":"s@shop.example","to":["a@far.example"],"dsn":{"notify":["x"]}},"text":"x"}`:              `"x" is not one of never`,
		`{"envelope":{"from":"s@shop.example","to":["a@far.example"],"dsn":{"return":"x"}},"text":"x"}`:                `"x" is not one of headers`,
		`{"envelope":{"from":"s@shop.example","to":["a@far.example"],"dsn":{"id":"a\nb"}},"text":"x"}`:                 "envelope.dsn.id",
	} {
		r, text := n.post("/v1/messages", "application/json", body)
		if len(n.mails) > 0 {
			t.Errorf("%.200s: queued", body)
			n.mails = nil
			continue
		}
		if got := failure(t, text); r.StatusCode != 400 || !strings.Contains(got, want) {
			t.Errorf("%.200s: %d %s\nwant %s", body, r.StatusCode, got, want)
		}
	}
}

// TestSomeRecipientsFail, and the others get their mail.
func TestSomeRecipientsFail(t *testing.T) {
	n := newNode(t, nil)
	n.refuse = func(m *Mail) error {
		if m.To[0] == "full@far.example" {
			return ErrBusy
		}
		return nil
	}
	r, text := n.post("/v1/messages", "application/json", `{"envelope":{"from":"s@shop.example","recipients":[
		{"email":"a@far.example","substitutions":{"x":"A"}},{"email":"nobody","substitutions":{"x":"A"}},{"email":"b@far.example","substitutions":{"y":1}},
		{"email":"full@far.example","substitutions":{"x":"A"}},{"email":"c@far.example","substitutions":{"x":"C"}}]},"text":"{{x}}"}`)
	want := `{"accepted":2,"failed":3,"recipients":[{"email":"a@far.example","id":"0000000000001"},` +
		`{"email":"nobody","error":"\"nobody\" is not an address: want it as in user@example.com"},` +
		`{"email":"b@far.example","error":"there is no substitution \"x\""},` +
		`{"email":"full@far.example","error":"` + ErrBusy.Error() + `","temporary":true},{"email":"c@far.example","id":"0000000000002"}]}` + "\n"
	if r.StatusCode != 200 || text != want {
		t.Errorf("%d %s\nwant %s", r.StatusCode, text, want)
	}
}

// read parses a message with the library.
func read(t *testing.T, content []byte) (h mail.Header, parts []string) {
	t.Helper()
	r, err := mail.CreateReader(bytes.NewReader(content))
	if err != nil {
		t.Fatalf("%v: %q", err, content)
	}
	for {
		p, err := r.NextPart()
		if err == io.EOF {
			return r.Header, parts
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(p.Body)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, p.Header.Get("Content-Type")+"|"+p.Header.Get("Content-Transfer-Encoding")+"|"+p.Header.Get("Content-Disposition")+"|"+
			p.Header.Get("Content-Id")+"|"+string(text))
	}
}

// TestContent builds messages and has another reader look at them.
func TestContent(t *testing.T) {
	n := newNode(t, nil)
	long := strings.Repeat("word ", 300)
	for _, c := range []struct {
		fields  string
		headers map[string]string // decoded
		kind    string
		parts   []string
	}{
		{`"text":"Hello\nyou\n.\n","subject":"Hi"`, map[string]string{"Subject": "Hi", "From": "<s@shop.example>", "To": "<a@far.example>"}, "text/plain", []string{"text/plain; charset=utf-8||||Hello\r\nyou\r\n.\r\n"}},
		{`"text":"Grüße","subject":"Grüße aus Köln, und noch ein langer Betreff, der auf mehrere Zeilen verteilt werden muss","from":"Jürgen Müller <j@shop.example>","to":["\"Doe, John\" <a@far.example>",{"email":"b@far.example","name":"B \"the\" C"}],"cc":"c@far.example","reply_to":["r@shop.example"]`,
			map[string]string{
				"Subject": "Grüße aus Köln, und noch ein langer Betreff, der auf mehrere Zeilen verteilt werden muss", "From": "Jürgen Müller <j@shop.example>",
				"To": `"Doe, John" <a@far.example>, "B \"the\" C" <b@far.example>`, "Cc": "<c@far.example>", "Reply-To": "<r@shop.example>",
			}, "text/plain", []string{"text/plain; charset=utf-8|quoted-printable|||Grüße\r\n"}},
		{`"text":"` + long + long + `","headers":{"X-Long":"` + long + `","List-Unsubscribe":"<https://shop.example/u?` + strings.Repeat("x", 300) + `>","From":"Shop <shop@shop.example>","Subject":"from headers"}`,
			map[string]string{"X-Long": strings.TrimSpace(long), "List-Unsubscribe": "<https://shop.example/u?" + strings.Repeat("x", 300) + ">", "From": "Shop <shop@shop.example>", "Subject": "from headers"}, "text/plain",
			[]string{"text/plain; charset=utf-8|quoted-printable|||" + long + long + "\r\n"}},
		{`"text":"a\rb\r\nc","html":"<p>ü</p>"`, nil, "multipart/alternative", []string{"text/plain; charset=utf-8||||a\r\nb\r\nc\r\n", "text/html; charset=utf-8|quoted-printable|||<p>ü</p>\r\n"}},
		{`"html":"x","attachments":[{"filename":"größe.pdf","content_type":"application/pdf","content":"JVBERg=="},{"content_type":"image/gif","content":"R0lG","cid":"logo@x","filename":"l.gif"}]`, nil, "multipart/mixed",
			[]string{
				"text/html; charset=utf-8||||x\r\n", "image/gif|base64|inline; filename=l.gif|<logo@x>|GIF",
				"application/pdf|base64|attachment; filename*=utf-8''gr%C3%B6%C3%9Fe.pdf||%PDF",
			}},
		{`"attachments":[{"filename":"a.bin","content_type":"application/octet-stream","content":""}]`, nil, "application/octet-stream", nil},
		{`"raw":"Subject: =?utf-8?q?x?=\nTo: list:;\n\nHello\n.\nyou"`, map[string]string{"Subject": "x", "To": "list:;"}, "", nil},
	} {
		m := n.inject(`{"envelope":{"from":"s@shop.example","to":["a@far.example"]},` + c.fields + `}`)[0]
		h, parts := read(t, m.Content)
		for name, want := range c.headers {
			if got, err := h.Text(name); got != want || err != nil {
				t.Errorf("%s: %q, %v, want %q", name, got, err, want)
			}
			if strings.Count("\n"+string(m.Content), "\n"+name+":") != 1 {
				t.Errorf("%s stands there more than once: %q", name, m.Content)
			}
		}
		if kind, _, _ := h.ContentType(); kind != c.kind && c.kind != "" {
			t.Errorf("%s: is %s", c.fields, kind)
		}
		if c.parts != nil && !reflect.DeepEqual(parts, c.parts) {
			t.Errorf("%.100s: parts\n%q\nwant\n%q", c.fields, parts, c.parts)
		}
		for line := range bytes.SplitSeq(m.Content[:bytes.Index(m.Content, []byte("\r\n\r\n"))], []byte("\r\n")) {
			if len(line) > 78 && bytes.ContainsAny(bytes.TrimSpace(line[bytes.IndexByte(line, ':')+2:]), " ") {
				t.Errorf("not folded: %q", line)
			}
		}
	}
}

// TestPersonalLetters fills in for each recipient what is theirs.
func TestPersonalLetters(t *testing.T) {
	n := newNode(t, nil)
	ms := n.inject(`{"envelope":{"from":"s@shop.example","recipients":[
		{"email":"a@far.example","name":"Ann","substitutions":{"code":"<1>","late":"x"}},{"email":"b@far.example","name":"Bob","substitutions":{"code":2}}]},
		"subject":"{{ name }}, {{ greeting }}","text":"Code {{ code }}{{ late | default(\"\") }}","html":"<b>{{ code }}</b>","headers":{"X-Code":"{{code}}"},"substitutions":{"greeting":"ciào","code":"0"}}`)
	for i, want := range [][]string{{"Ann, ciào", "Ann <a@far.example>", "<1>", "Code <1>x\r\n", "<b>&lt;1&gt;</b>\r\n"}, {"Bob, ciào", "Bob <b@far.example>", "2", "Code 2\r\n", "<b>2</b>\r\n"}} {
		h, parts := read(t, ms[i].Content)
		subject, _ := h.Subject()
		got := []string{subject, h.Get("To"), h.Get("X-Code"), parts[0][strings.LastIndexByte(parts[0], '|')+1:], parts[1][strings.LastIndexByte(parts[1], '|')+1:]}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
