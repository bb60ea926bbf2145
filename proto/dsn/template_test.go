package dsn

import (
	"bytes"
	"errors"
	"mime"
	"net/mail"
	"os"
	"strings"
	"testing"
)

// german is a template as an operator writes it.
var german = Texts{
	From:     "Poststelle Süd <post@news.example>",
	Subject:  `{{if eq .Kind "delayed"}}Verzögert{{else if eq .Kind "failed"}}Unzustellbar{{else}}Zugestellt{{end}}: Ihre Nachricht vom {{.Arrived.Format "02.01.2006"}}`,
	Language: "de",
	TextName: "de.txt",
	Text: `Guten Tag,

{{if eq .Kind "failed"}}Ihre Nachricht konnte nicht zugestellt werden:{{else}}zu Ihrer Nachricht:{{end}}
{{range .Recipients}}
  {{.Address}} ({{.Status}}{{if .Host}}, {{.Host}}{{end}}){{if .Said}}: {{.Said}}{{end}}{{end}}
{{if .More}}
  und {{.More}} weitere
{{end}}
Nach {{.Hours}} Stunden. Kennung {{.ID}} auf {{.Host}}.
`,
}

func TestTemplate(t *testing.T) {
	template, err := NewTemplate(german)
	if err != nil {
		t.Fatal(err)
	}
	r := sample()
	r.Template = template
	for range 30 {
		r.Recipients = append(r.Recipients, r.Recipients[0])
	}
	parts := check(t, r)
	got, _, _ := r.Build()
	if *update {
		if err := os.WriteFile("testdata/report-template.eml", got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile("testdata/report-template.eml"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v: got\n%s", err, got)
	}
	m, err := mail.ReadMessage(bytes.NewReader(got))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil || subject != "Unzustellbar: Ihre Nachricht vom 04.03.2026" {
		t.Errorf("subject %q, %v", subject, err)
	}
	if from, err := mail.ParseAddress(m.Header.Get("From")); err != nil || from.Name != "Poststelle Süd" || from.Address != "post@news.example" {
		t.Errorf("from %v, %v", from, err)
	}
	for _, want := range []string{"Ihre Nachricht konnte nicht zugestellt werden:\r\n", "  slow@example.org (4.7.1, [192.0.2.7]): 451 4.7.1 Greylisted\r\n", "und 14 weitere", "Nach 120 Stunden"} {
		if !strings.Contains(parts[0], want) {
			t.Errorf("no %q in\n%s", want, parts[0])
		}
	}
	if !strings.Contains(string(got), "\r\nContent-Language: de\r\n") {
		t.Error("no language")
	}
}

func TestTemplateErrors(t *testing.T) {
	for _, c := range []struct {
		texts Texts
		is    error
		want  string
	}{
		{Texts{Subject: "{{.Kind"}, ErrSubject, "subject: subject:1: unclosed action"},
		{Texts{Subject: "{{.Kindd}}"}, ErrSubject, `subject: subject:1:2: executing "subject" at <.Kindd>: can't evaluate field Kindd in type *dsn.Fields`},
		{Texts{Text: "a\n{{range .Recipients}}{{.Nobody}}{{end}}", TextName: "de.txt"}, ErrText, `text: de.txt:2:23: executing "de.txt" at <.Nobody>: can't evaluate field Nobody in type dsn.Result`},
		{Texts{Text: "\n\n{{if}}", TextName: "x"}, ErrText, "text: x:3: missing value for if"},
		{Texts{Text: "{{range 1000000}}a{{end}}", TextName: "x"}, ErrText, "makes more than 65536 octets"},
		{Texts{Text: "{{(index .Recipients 1).Address}}", TextName: "x"}, ErrText, "index out of range"},
		{Texts{From: "nobody"}, ErrFrom, "from: not an address"},
		{Texts{From: "ü@x.example"}, ErrFrom, "from: not an address"},
		{Texts{From: "A\r\nBcc: x@y <a@b.example>"}, ErrFrom, "from: not an address"},
		{Texts{Language: "de\r\nX: y"}, ErrLanguage, "language: not the code of a language"},
	} {
		_, err := NewTemplate(c.texts)
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.texts, err, c.want)
		}
	}
}

// TestTemplateThatFails: what works with the samples and not with the case at hand costs no notification.
func TestTemplateThatFails(t *testing.T) {
	template, err := NewTemplate(Texts{Subject: `{{if .More}}{{index .Recipients 30}}{{end}}x`, Text: `{{if .More}}{{index .Recipients 30}}{{end}}x`, TextName: "x"})
	if err != nil {
		t.Fatal(err)
	}
	r := sample()
	r.Template = template
	if parts := check(t, r); parts[0] != "x\r\n" {
		t.Errorf("%q", parts[0])
	}
	for range 30 {
		r.Recipients = append(r.Recipients, r.Recipients[0])
	}
	if parts := check(t, r); !strings.Contains(parts[0], "could not be delivered") {
		t.Errorf("%q", parts[0])
	}
}

// FuzzTemplate: whatever a template says, and whatever a peer said that it repeats, nothing gets into the header section that should not be there.
func FuzzTemplate(f *testing.F) {
	f.Add(german.From, german.Subject, german.Text, "de", "550 no\r\nX: y", "a@b.example")
	f.Add("a@b.example", "{{range .Recipients}}{{.Said}}\r\nBcc: {{.Address}}{{end}}", "\r\n.\r\n{{\"\\x00\"}}", "", "\r\n\r\n--=_", "ü\r\n@x")
	f.Add("", "{{.Sender}}"+strings.Repeat("ü", 300), strings.Repeat("x", 5000)+"{{.EnvelopeID}}", "en", "\x1b[31m\xff", "a@b")
	f.Fuzz(func(t *testing.T, from, subject, text, language, reply, address string) {
		if len(subject)+len(text) > 10_000 || strings.Contains(subject+text, "range ") || strings.Contains(subject+text, "printf") || strings.Contains(subject+text, "template") {
			return // an operator's own patience is not at stake here
		}
		template, err := NewTemplate(Texts{From: from, Subject: subject, Text: text, TextName: "x", Language: language})
		if err != nil {
			return
		}
		r := sample()
		r.Template, r.Recipients[0].Reply, r.Recipients[0].Address, r.EnvelopeID = template, reply, address, reply
		check(t, r)
	})
}
