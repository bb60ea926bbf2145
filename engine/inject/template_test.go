package inject

import (
	"strings"
	"testing"
)

func TestTemplates(t *testing.T) {
	global, _ := parseValues([]byte(`{"shop":"Käse & Co","n":1.50,"big":12345678901234567890,"yes":true,"nothing":null,"who":"all","list":[1],"deep":{"er":{"est":"x"}}}`))
	own, _ := parseValues([]byte(`{"who":"you","html":"<b>"}`))
	to := &recipient{Email: "a@far.example", Name: "Ann"}
	for _, c := range []struct {
		text, want string
		html       bool
	}{
		{"plain", "plain", false},
		{"", "", false},
		{"{", "{", false},
		{"a { b } {{who}} {", "a { b } you {", false},
		{"{{ shop }}, {{n}}, {{big}}, {{yes}}{{ nothing }}", "Käse & Co, 1.50, 12345678901234567890, true", false},
		{"{{ shop }}", "Käse &amp; Co", true},
		{"{{ html }}{{ html|safe }}{{ html | e }}", "&lt;b&gt;<b>&lt;b&gt;", true},
		{"{{ html }}{{ html|safe }}{{ html | e }}", "<b><b>&lt;b&gt;", false},
		{"{{ name }} <{{ email }}>, {{ to_header }}", "Ann <a@far.example>, Ann <a@far.example>", false},
		{"{{ deep.er.est }}", "x", false},
		{`{{ nobody | default("x|}}y") | upper }}`, "X|}}Y", false},
		{`{{ who | default("x") }}{{ who|upper|lower|trim }}`, "youyou", false},
		{`{{ "{{" }}{{ '}}' }}`, "{{}}", false},
		{"a{# comment {{ x }} #}b", "ab", false},
		{"a \n {{- who -}} \n b", "ayoub", false},
		{"{{ shop}}}}", "Käse & Co}}", false},
	} {
		tmpl, err := parseTemplate(c.text, c.html)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		got, err := tmpl.render(nil, &values{global: global, own: own, to: to, strict: true, max: 1000}, false)
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %q, %v, want %q", c.text, got, err, c.want)
		}
	}
}

func TestTemplateFaults(t *testing.T) {
	own, _ := parseValues([]byte(`{"list":[1],"lines":"a\r\nBcc: x","long":"` + strings.Repeat("x", 600) + `"}`))
	for text, want := range map[string]string{
		"{{":                      `"{{": "}}" is missing`,
		"{{ a":                    `"}}" is missing`,
		`{{ "}}`:                  `"}}" is missing`,
		"{# a":                    `"#}" is missing`,
		"{% if x %}":              "statements {% … %} are not supported",
		"{{ }}":                   `"" is not the name of a substitution`,
		"{{ a b }}":               `"a b" is not the name of a substitution`,
		"{{ a..b }}":              "is not the name",
		"{{ 1 + 1 }}":             "is not the name",
		"{{ a | frob }}":          `there is no filter "frob"`,
		"{{ a | default(x) }}":    "want one argument in quotes",
		`{{ a | default("x" }}`:   "want one argument in quotes",
		"{{ nobody }}":            `there is no substitution "nobody"`,
		"{{ list }}":              `substitution "list" is neither a text nor a number`,
		"{{ list.x }}":            `there is no substitution "list.x"`,
		"{{ lines }}":             `substitution "lines" for a header holds a line break`,
		"{{ long }}{{ long }}":    "over the limit of 1000 octets",
		strings.Repeat("y", 1001): "over the limit",
	} {
		tmpl, err := parseTemplate(text, false)
		if err == nil {
			_, err = tmpl.render(nil, &values{own: own, strict: true, max: 1000}, true)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.50s: %v, want %s", text, err, want)
		}
	}
	tmpl, _ := parseTemplate("<{{ nobody }}>", false) // where KumoMTA is asked, what is not there is empty
	if got, err := tmpl.render(nil, &values{max: 100}, false); string(got) != "<>" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
