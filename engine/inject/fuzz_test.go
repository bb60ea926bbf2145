package inject

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	head "mailrace/proto/header"
)

// FuzzInject sends anything to both forms. Whatever is answered, what goes into the queue has good addresses, lines that are safe on the way, a
// header section that ends with an empty line, and no field twice that may stand there once.
func FuzzInject(f *testing.F) {
	for _, seed := range []string{
		hello, "[" + hello + "," + hello + "]", hello + "\n" + hello, kumoFull,
		`{"envelope":{"from":"s@x.example","recipients":[{"email":"a@x.example","name":"Ann","substitutions":{"x":"1\r\n2"}}]},"subject":"{{x}}","text":"{{ x|default('y') }}","html":"<{{x}}>"}`,
		`{"envelope":{"from":"","to":["a@x.example"]},"from":"Jürgen <s@x.example>","to":["ä@x.example"],"cc":{"email":"c@x.example"},"subject":"ü","headers":{"X-A":"b\n\tc"},"attachments":[{"filename":"ä","content_type":"a/b; c=d","content":"eA","cid":"z"}]}`,
		`{"envelope":{"from":"s@x.example","to":["a@x.example"],"dsn":{"notify":["failure"],"return":"headers","id":"x"}},"raw":"Subject: x\r\n y\n\n.\n..\nFrom x","options":{"release":"2026-03-04T06:00:00Z","priority":-3}}`,
		`{"envelope_sender":"s@x.example","content":"To: {{ to_header }}\nSubject: {{ a.b }}\n\n{# x #}{{- name -}}","recipients":[{"email":"a@x.example","name":"A \"B\""}]}`,
		"Subject: x\n\nHello",
	} {
		f.Add(uint8(0), seed)
		f.Add(uint8(1), seed)
	}
	f.Add(uint8(2), "[{}]")
	f.Add(uint8(3), "Subject: x\n\n\xff")
	n := newNode(f, nil)
	f.Fuzz(func(t *testing.T, kind uint8, body string) {
		n.t, n.mails = t, nil
		clear(n.keys)
		path, contentType := "/v1/messages", "application/json"
		switch kind % 4 {
		case 1:
			path = "/api/inject/v1"
		case 2:
			contentType = "application/x-ndjson"
		case 3:
			contentType = "message/rfc822"
			path += "?from=s@x.example&to=" + url.QueryEscape(body[:min(len(body), 20)]) + "&to=a@x.example"
		}
		r, text := n.post(path, contentType, body)
		if !slices.Contains(statuses, r.StatusCode) || !json.Valid([]byte(text)) || r.StatusCode >= 500 {
			t.Fatalf("%d %s", r.StatusCode, text)
		}
		if r.StatusCode != 200 && len(n.mails) > 0 {
			t.Fatalf("%d, and %d messages: %s", r.StatusCode, len(n.mails), text)
		}
		built := !strings.Contains(body, "raw") && !strings.Contains(body, `"content"`) && kind%4 != 3
		for i := range n.mails {
			checkMail(t, &n.mails[i], built)
		}
	})
}

// checkMail holds a message to what it must be. built says that the fields are ours.
func checkMail(t *testing.T, m *Mail, built bool) {
	t.Helper()
	for _, a := range append([]string{m.From}, m.To...) {
		if a != "" && checkPath(a) != nil {
			t.Fatalf("address %q", a)
		}
	}
	checkWire(t, m.Content)
	section, rest, end := head.Split(m.Content)
	if end != head.EmptyLine && len(rest) > 0 {
		t.Fatalf("the header section ends with %v: %q", end, m.Content)
	}
	seen := map[string]int{}
	for field := range head.Fields(section) {
		seen[strings.ToLower(string(field.Name))]++
	}
	if !built {
		return
	}
	for _, name := range []string{"from", "to", "subject", "content-type", "mime-version"} {
		if seen[name] > 1 || seen[name] == 0 && name != "subject" {
			t.Fatalf("%s stands there %d times: %q", name, seen[name], section)
		}
	}
	if seen["bcc"]+seen["received"] > 0 {
		t.Fatalf("%q", section)
	}
}

// FuzzTemplate renders any text: no panic, and what has no placeholders stays as it is.
func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{"a {{ name }} b", `{{- a.b | default("}}") | e -}}`, "{# x #}{{", "{%", "{{ '{{' }}"} {
		f.Add(seed, "x")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		v := &values{own: map[string]any{"a": map[string]any{"b": value}, "c": value}, to: &recipient{Email: "a@x.example", Name: value}, max: 1 << 20}
		tmpl, err := parseTemplate(text, false)
		if err != nil {
			return
		}
		got, err := tmpl.render(nil, v, true)
		if err == nil && opening(text) == len(text) && string(got) != text {
			t.Fatalf("%q became %q", text, got)
		}
		if err == nil && !strings.ContainsFunc(text, isControl) && !strings.Contains(text, `\n`) && strings.ContainsFunc(string(got), isControl) {
			t.Fatalf("%q with %q became %q", text, value, got)
		}
	})
}
