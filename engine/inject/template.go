package inject

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// template is text with placeholders: {{ name }}, {{ name.part }}, {{ name | default("x") | upper }}, and comments {# … #}. It is what the
// templates of mailings in Jinja's syntax mostly are; statements, {% … %}, are refused.
type template struct {
	parts []templatePart
	size  int  // octets of text, and room for values
	html  bool // values are escaped, unless they go through the filter safe
}

// templatePart is text, or else a placeholder.
type templatePart struct {
	text    string
	path    []string
	literal bool // the placeholder is the string in text
	filters []filter
}

type filter struct{ name, argument string }

// filters are those that there are, and whether they take an argument.
var filterNames = map[string]bool{"default": true, "d": true, "upper": false, "lower": false, "trim": false, "e": false, "escape": false, "safe": false}

// static is text without placeholders.
func static(text string) *template {
	return &template{parts: []templatePart{{text: text}}, size: len(text)}
}

// parseTemplate reads a template.
func parseTemplate(text string, html bool) (*template, error) {
	t := &template{html: html}
	trim := false // the placeholder before ended with a dash
	for len(text) > 0 {
		at := opening(text)
		before := text[:at]
		if trim {
			before = strings.TrimLeft(before, " \t\r\n")
		}
		if at+2 < len(text) && text[at+2] == '-' {
			before = strings.TrimRight(before, " \t\r\n")
		}
		if before != "" {
			t.parts = append(t.parts, templatePart{text: before})
			t.size += len(before)
		}
		if at == len(text) {
			break
		}
		kind := text[at+1]
		if kind == '%' {
			return nil, fmt.Errorf("%s: statements {%% … %%} are not supported, only placeholders as in {{ name }}", excerpt(text[at:]))
		}
		closing := map[byte]string{'{': "}}", '#': "#}"}[kind]
		inside, rest, ok := cutOutside(text[at+2:], closing, kind == '{')
		if !ok {
			return nil, fmt.Errorf("%s: %q is missing", excerpt(text[at:]), closing)
		}
		inside = strings.TrimPrefix(inside, "-")
		inside, trim = strings.CutSuffix(inside, "-")
		if kind == '{' {
			part, err := parsePlaceholder(inside)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", excerpt(text[at:]), err)
			}
			t.parts = append(t.parts, part)
			t.size += valueRoom
		}
		text = rest
	}
	return t, nil
}

// valueRoom is how many octets a value may well have.
const valueRoom = 16

// opening is where the first {{, {% or {# begins, or the length of the text.
func opening(text string) int {
	for at := 0; ; {
		i := strings.IndexByte(text[at:], '{')
		if i < 0 || at+i+1 >= len(text) {
			return len(text)
		}
		at += i
		if c := text[at+1]; c == '{' || c == '%' || c == '#' {
			return at
		}
		at++
	}
}

// cutOutside cuts a text at a mark that does not stand in quotes, where those count.
func cutOutside(text, mark string, quotes bool) (before, after string, ok bool) {
	var quote byte
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quote != 0:
			if c == '\\' {
				i++
			} else if c == quote {
				quote = 0
			}
		case quotes && (c == '"' || c == '\''):
			quote = c
		case strings.HasPrefix(text[i:], mark):
			return text[:i], text[i+len(mark):], true
		}
	}
	return text, "", false
}

// parsePlaceholder reads what stands between {{ and }}.
func parsePlaceholder(text string) (p templatePart, err error) {
	head, rest, more := cutOutside(text, "|", true)
	head = strings.TrimSpace(head)
	if p.text, p.literal = unquote(head); !p.literal {
		for name := range strings.SplitSeq(head, ".") {
			if !isName(name) {
				return p, fmt.Errorf("%q is not the name of a substitution", head)
			}
			p.path = append(p.path, name)
		}
	}
	for more {
		var one string
		one, rest, more = cutOutside(rest, "|", true)
		f := filter{name: strings.TrimSpace(one)}
		if name, argument, called := strings.Cut(f.name, "("); called {
			argument, ok := unquote(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(argument), ")")))
			if !ok || !strings.HasSuffix(f.name, ")") {
				return p, fmt.Errorf("filter %q: want one argument in quotes", f.name)
			}
			f = filter{strings.TrimSpace(name), argument}
		}
		if _, ok := filterNames[f.name]; !ok {
			return p, fmt.Errorf("there is no filter %q: want default, upper, lower, trim, escape or safe", f.name)
		}
		p.filters = append(p.filters, f)
	}
	return p, nil
}

// unquote reads a string in quotes.
func unquote(s string) (string, bool) {
	if len(s) < 2 || s[0] != '"' && s[0] != '\'' || s[len(s)-1] != s[0] {
		return "", false
	}
	return strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\'`, `'`, `\n`, "\n").Replace(s[1 : len(s)-1]), true
}

func isName(s string) bool {
	for i := range len(s) {
		if c := s[i]; c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != ""
}

// excerpt is the begin of a text, for an error.
func excerpt(s string) string {
	const most = 40
	if len(s) > most {
		s = s[:most]
		for !utf8.ValidString(s) && len(s) > most-utf8.UTFMax {
			s = s[:len(s)-1]
		}
		s += "…"
	}
	return fmt.Sprintf("%q", s)
}

// names calls fn with the first name of each placeholder.
func (t *template) names(fn func(name string)) {
	if t == nil {
		return
	}
	for i := range t.parts {
		if len(t.parts[i].path) > 0 {
			fn(t.parts[i].path[0])
		}
	}
}

// values are what placeholders stand for, for one recipient.
type values struct {
	global map[string]any
	own    map[string]any // goes before
	to     *recipient     // name, email and to_header; nil where all recipients share the message
	strict bool           // a placeholder without a value is an error
	max    int            // octets of text that a template may become
}

// find is what a path of names stands for: text, or else a value.
func (v *values) find(path []string) (text string, value any, ok bool) {
	value, ok = v.own[path[0]]
	if !ok && v.to != nil {
		if text, ok = v.to.value(path[0]); ok {
			return text, nil, len(path) == 1
		}
	}
	if !ok {
		value, ok = v.global[path[0]]
	}
	for _, name := range path[1:] {
		table, isTable := value.(map[string]any)
		if !isTable {
			return "", nil, false
		}
		value, ok = table[name]
	}
	switch value := value.(type) {
	case nil:
		return "", nil, ok // null is known, and empty
	case string:
		return value, nil, ok
	case json.Number:
		return value.String(), nil, ok
	case bool:
		return strconv.FormatBool(value), nil, ok
	}
	return "", value, ok
}

// render appends the text to dst. Where it is for one line, values may not break it.
func (t *template) render(dst []byte, v *values, line bool) ([]byte, error) {
	start := len(dst)
	dst = slices.Grow(dst, min(t.size, v.max))
	for i := range t.parts {
		p := &t.parts[i]
		if p.path == nil && !p.literal {
			dst = append(dst, p.text...)
		} else {
			text, err := p.expand(v, t.html)
			if err != nil {
				return nil, err
			}
			if line && strings.ContainsFunc(text, isControl) {
				return nil, fmt.Errorf("substitution %q for a header holds a line break or another control character", strings.Join(p.path, "."))
			}
			dst = append(dst, text...)
		}
		if len(dst)-start > v.max {
			return nil, fmt.Errorf("with its substitutions the text is over the limit of %d octets", v.max)
		}
	}
	return dst, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// expand is the text that a placeholder stands for.
func (p *templatePart) expand(v *values, escape bool) (string, error) {
	text, known := p.text, p.literal
	if !p.literal {
		var value any
		if text, value, known = v.find(p.path); value != nil {
			return "", fmt.Errorf("substitution %q is neither a text nor a number", strings.Join(p.path, "."))
		}
	}
	for _, f := range p.filters {
		switch f.name {
		case "default", "d":
			if !known {
				text, known = f.argument, true
			}
		case "upper":
			text = strings.ToUpper(text)
		case "lower":
			text = strings.ToLower(text)
		case "trim":
			text = strings.TrimSpace(text)
		case "e", "escape":
			text, escape = html.EscapeString(text), false
		case "safe":
			escape = false
		}
	}
	if !known && v.strict {
		return "", fmt.Errorf("there is no substitution %q", strings.Join(p.path, "."))
	}
	if escape {
		text = html.EscapeString(text)
	}
	return text, nil
}

// errSubstitutions is what is wrong with substitutions that are no table.
var errSubstitutions = errors.New("substitutions: want an object of names and values")

// parseValues reads a table of substitutions.
func parseValues(raw json.RawMessage) (map[string]any, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var table map[string]any
	if err := d.Decode(&table); err != nil {
		return nil, errSubstitutions
	}
	return table, nil
}
