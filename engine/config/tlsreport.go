package config

import (
	"mailrace/proto/smtp"
)

// TLSReport is how domains that ask for it are told of the TLS of mail to them. RFC 8460
type TLSReport struct {
	Contact      string // address that stands in reports, and that they come from; "" = none are sent
	Organization string // "" = Config.Hostname
}

// tlsReport judges [tls_report].
func (k *checker) tlsReport(t *TLSReport) {
	path, rest, err := smtp.ParsePath([]byte("<"+t.Contact+">"), false)
	if err != nil || len(rest) > 0 || len(path.Path) != len(t.Contact) || t.Contact != "" && len(path.Domain) == 0 {
		k.complain("tls_report.contact", `%s is not an address: want one, as in "tls@example.com"`, quote(t.Contact))
	}
	const most = 255
	if n := len(t.Organization); n > most {
		k.complain("tls_report.organization", "%d octets: want %d or less", n, most)
	}
}
