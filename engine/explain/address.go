package explain

import (
	"errors"
	"fmt"
	"strings"

	"mailrace/proto/smtp"
	"mailrace/router/mx"
)

// ErrAddress: it is no forward-path. The text says what is wrong, and where.
var ErrAddress = errors.New("not an address")

// addressMax is how much of what is no address a complaint repeats.
const addressMax = 100

// parseAddress reads a forward-path, with or without angle brackets. hostname is the domain of one that has none.
func parseAddress(text, hostname string) (a Address, err error) {
	path := text
	if !strings.HasPrefix(text, "<") {
		path = "<" + text + ">"
	}
	p, rest, err := smtp.ParsePath([]byte(path), true)
	if err == nil && len(rest) > 0 {
		err = smtp.ErrPathSyntax
	}
	if err == nil && len(p.Path) == 0 {
		err = smtp.ErrNullPath
	}
	if err != nil {
		return a, fault(text, err)
	}
	a = Address{Given: string(p.Path), Domain: hostname, SMTPUTF8: p.UTF8, local: string(p.Local)}
	if len(p.Domain) > 0 {
		a.Domain = string(p.Domain)
	}
	domain := a.Domain
	if a.Domain, err = mx.Normal(domain); err != nil {
		return a, fmt.Errorf("%w: the domain %.*q is no host name: want labels of letters, digits and hyphens, 63 octets each in A-label form at most", ErrAddress, addressMax, domain)
	}
	a.Normal = bare(a.local) + "@" + a.Domain
	return a, nil
}

// fault says what is wrong with text.
func fault(text string, err error) error {
	if inner, open := strings.CutPrefix(text, "<"); open {
		text = strings.TrimSuffix(inner, ">")
	}
	local, domain, at := text, "", strings.IndexByte(text, '@')
	if strings.HasPrefix(text, `"`) { // it may hold some
		at = strings.LastIndexByte(text, '@')
	}
	if at >= 0 {
		local, domain = text[:at], text[at+1:]
	}
	part, want := fmt.Sprintf("%.*q", addressMax, text), "want local-part@domain, as in user@example.com"
	switch { // behind what was read stands what cannot be there
	case errors.Is(err, smtp.ErrNoDomain) && domain != "":
		err = smtp.ErrLocalPart
	case errors.Is(err, smtp.ErrPathSyntax) && domain != "":
		err = smtp.ErrDomain
	}
	switch {
	case errors.Is(err, smtp.ErrNoDomain):
		want = "there is no domain: want user@example.com; only postmaster may come without"
	case errors.Is(err, smtp.ErrLocalPart):
		part = fmt.Sprintf("the local-part %.*q", addressMax, local)
		want = `want letters, digits and !#$%&'*+/=?^_{|}~- with single dots between, or a quoted string, as in "john doe"@example.com; 64 octets at most`
	case errors.Is(err, smtp.ErrDomain):
		part = fmt.Sprintf("the domain %.*q", addressMax, domain)
		want = "want labels of letters, digits and hyphens with dots between, 63 octets each at most"
	case errors.Is(err, smtp.ErrLiteral):
		part = fmt.Sprintf("the domain %.*q", addressMax, domain)
		want = "want [192.0.2.1] or [IPv6:2001:db8::1]"
	case errors.Is(err, smtp.ErrPathLong):
		want = "it is longer than 254 octets"
	case errors.Is(err, smtp.ErrUTF8):
		want = "it is not UTF-8, or holds control characters"
	case errors.Is(err, smtp.ErrNullPath):
		want = "the null path is nobody to send to: want user@example.com"
	}
	return fmt.Errorf("%w: %s: %s", ErrAddress, part, want)
}

// bare is a local-part without quotes and backslashes that it does not need. RFC 5321 §4.1.2
func bare(local string) string {
	if !strings.HasPrefix(local, `"`) {
		return local
	}
	var plain strings.Builder
	for i := 1; i < len(local)-1; i++ {
		if local[i] == '\\' {
			i++
		}
		plain.WriteByte(local[i])
	}
	text := plain.String()
	if p, _, err := smtp.ParsePath([]byte("<"+text+"@x>"), true); err == nil && string(p.Local) == text {
		return text
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}
