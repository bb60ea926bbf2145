// Package tlsrpt has the forms of SMTP TLS reporting (RFC 8460): the TXT record by which a domain asks for reports, which strangers write, and the
// report that it gets once a day, as JSON and as a message.
package tlsrpt

import (
	"net/url"
	"strings"
)

const (
	version = "TLSRPTv1"
	// destinationsMost bounds to how many places a domain gets its reports.
	destinationsMost = 4
	uriMax           = 512 // octets of one of them
)

// Name is where the record of a domain stands. RFC 8460 §3
func Name(domain string) string { return "_smtp._tls." + domain }

// Destination is where reports go: to an address or to a web server.
type Destination struct {
	Mail string // address, or ""
	URL  string // https, or ""
}

// String is the destination as a URI.
func (d Destination) String() string {
	if d.Mail != "" {
		return "mailto:" + d.Mail
	}
	return d.URL
}

// Host is the name of the web server in lower case, "" for an address.
func (d Destination) Host() string {
	u, err := url.Parse(d.URL)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Hostname())
}

// ParseRecord finds where a domain wants its reports, among the TXT records of Name(domain): nowhere, without exactly one record of the version. What
// is not known, or too much, is passed over. RFC 8460 §3
func ParseRecord(texts []string) (to []Destination) {
	fields, found := "", false
	for _, text := range texts {
		first, rest, _ := strings.Cut(text, ";")
		if key, value, _ := strings.Cut(first, "="); trim(key) != "v" || trim(value) != version {
			continue
		}
		if found {
			return nil
		}
		fields, found = rest, true
	}
	for field := range strings.SplitSeq(fields, ";") {
		key, value, _ := strings.Cut(field, "=")
		if trim(key) != "rua" {
			continue
		}
		for uri := range strings.SplitSeq(value, ",") {
			if d := parseDestination(trim(uri)); d != (Destination{}) && len(to) < destinationsMost {
				to = append(to, d)
			}
		}
		return to
	}
	return nil
}

// parseDestination reads a URI; one that leads nowhere is empty.
func parseDestination(uri string) (d Destination) {
	if len(uri) > uriMax {
		return d
	}
	u, err := url.Parse(uri)
	if err != nil {
		return d
	}
	switch {
	case u.Scheme == "https" && u.Host != "" && u.User == nil:
		u.Fragment = ""
		d.URL = u.String()
	case u.Scheme == "mailto":
		address, err := url.PathUnescape(u.Opaque)
		if err == nil && plain(address) {
			d.Mail = strings.Clone(address)
		}
	}
	return d
}

// plain says whether an address is of printable ASCII, has one @, and nothing that would have to be quoted. All that reports really go to are.
func plain(address string) bool {
	local, domain, found := strings.Cut(address, "@")
	if !found || local == "" || domain == "" || len(local) > 64 || len(domain) > 255 {
		return false
	}
	for i := range len(address) {
		if c := address[i]; c <= ' ' || c > '~' || strings.IndexByte(`"(),:;<>[\]`, c) >= 0 {
			return false
		}
	}
	return !strings.Contains(domain, "@")
}

func trim(s string) string { return strings.Trim(s, " \t") }
