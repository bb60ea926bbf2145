package inject

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"strings"
	"unicode/utf8"

	"mailrace/proto/smtp"
)

// nameMax bounds the display name of an address.
const nameMax = 1000

// address is one of a header: an object with email and name, or a string as in "Name <user@example.com>".
type address struct {
	Email string `json:"email"`
	Name  string `json:"name"`
}

func (a *address) UnmarshalJSON(b []byte) error {
	if len(b) == 0 || b[0] != '"' {
		type plain address
		return strictly(b, (*plain)(a))
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	*a = parseAddress(s)
	return nil
}

// parseAddress reads "user@example.com" or "Name <user@example.com>". What it makes of anything else does not pass check.
func parseAddress(s string) address {
	s = strings.TrimSpace(s)
	before, ok := strings.CutSuffix(s, ">")
	at := strings.LastIndexByte(before, '<')
	if !ok || at < 0 {
		return address{Email: s}
	}
	name := strings.TrimSpace(before[:at])
	switch n := len(name); {
	case n >= 2 && name[0] == '"' && name[n-1] == '"':
		name = strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(name[1 : n-1])
	case strings.ContainsAny(name, `<>,;:"@`): // rather a list
		return address{Email: s}
	}
	return address{Email: before[at+1:], Name: name}
}

// check says what is wrong with the address.
func (a *address) check() error {
	if err := checkPath(a.Email); err != nil {
		return err
	}
	if len(a.Name) > nameMax || !utf8.ValidString(a.Name) || strings.ContainsFunc(a.Name, isControl) {
		return fmt.Errorf("name %s: want up to %d octets of UTF-8 without control characters", excerpt(a.Name), nameMax)
	}
	return nil
}

// checkPath holds an address against the one grammar for addresses, without angle brackets. RFC 5321 §4.1.2
func checkPath(email string) error {
	path, _, err := smtp.ParsePath([]byte("<"+email+">"), true)
	if err != nil || len(path.Path) != len(email) || len(path.Domain) == 0 {
		return fmt.Errorf("%s is not an address: want it as in user@example.com", excerpt(email))
	}
	return nil
}

// format is the address as it stands in a header. RFC 5322 §3.4
func (a *address) format() string {
	switch {
	case a.Name == "":
		return "<" + a.Email + ">"
	case !isASCII(a.Name):
		return mime.QEncoding.Encode("utf-8", a.Name) + " <" + a.Email + ">"
	case strings.ContainsFunc(a.Name, func(r rune) bool { return !isAtom(r) && r != ' ' }) || strings.TrimSpace(a.Name) != a.Name:
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(a.Name) + `" <` + a.Email + ">"
	}
	return a.Name + " <" + a.Email + ">"
}

// isAtom says whether a character may stand in a phrase without quotes. RFC 5322 §3.2.3
func isAtom(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r)
}

func isASCII[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// addresses is one address or an array of them.
type addresses []address

func (l *addresses) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		var list bounded[address]
		err := json.Unmarshal(b, &list)
		*l = addresses(list)
		return err
	}
	var one address
	err := json.Unmarshal(b, &one)
	*l = addresses{one}
	return err
}

func (l addresses) check() error {
	for i := range l {
		if err := l[i].check(); err != nil {
			return err
		}
	}
	return nil
}

func (l addresses) format() string {
	list := make([]string, len(l))
	for i := range l {
		list[i] = l[i].format()
	}
	return strings.Join(list, ", ")
}

// recipient is one of an envelope: a string, or an object.
type recipient struct {
	Email         string          `json:"email"`
	Name          string          `json:"name"`
	Substitutions json.RawMessage `json:"substitutions"`
	Metadata      json.RawMessage `json:"metadata"` // KumoMTA's, refused
}

func (r *recipient) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &r.Email)
	}
	type plain recipient
	return strictly(b, (*plain)(r))
}

// check says what is wrong with the recipient.
func (r *recipient) check() error {
	if len(r.Metadata) > 0 && string(r.Metadata) != "null" && string(r.Metadata) != "{}" {
		return errors.New("metadata of recipients is not kept: leave it out")
	}
	a := r.address()
	return a.check()
}

func (r *recipient) address() address { return address{Email: r.Email, Name: r.Name} }

// value is what the recipient itself gives to templates.
func (r *recipient) value(name string) (string, bool) {
	switch name {
	case "email":
		return r.Email, true
	case "name":
		return r.Name, r.Name != ""
	case "to_header":
		a := r.address()
		return a.format(), true
	}
	return "", false
}

// listMax bounds the arrays of a request: what a few octets of JSON become in memory is larger.
const listMax = 100_000

// bounded is an array of at most listMax elements.
type bounded[T any] []T

var errList = errors.New("more than 100000 elements in one array")

func (l *bounded[T]) UnmarshalJSON(b []byte) error {
	*l = nil
	if string(b) == "null" {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if open, err := d.Token(); err != nil || open != json.Delim('[') {
		return fmt.Errorf("%s is not an array", excerpt(string(b)))
	}
	for d.More() {
		if len(*l) == listMax {
			return errList
		}
		var element T
		if err := d.Decode(&element); err != nil {
			return err
		}
		*l = append(*l, element)
	}
	return nil
}

// strictly decodes one JSON value and refuses fields that there are not.
func strictly(b []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(to)
}
