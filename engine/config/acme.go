package config

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
)

// acme judges [tls.acme]. Without domains it is off, whatever else stands there.
func (k *checker) acme(a *ACME) {
	if len(a.Domains) == 0 {
		return
	}
	for i, d := range a.Domains {
		at := fmt.Sprintf("tls.acme.domains[%d]", i)
		switch {
		case strings.HasPrefix(d, "*"):
			k.complain(at, "%s: neither http-01 nor tls-alpn-01 proves a wildcard: want full names", quote(d))
		case !strings.Contains(d, "."):
			k.complain(at, "%s is a short name: want a full one, as in %q", quote(d), "mail.example.com")
		case hostFault(d) != "":
			k.complain(at, "%s", advise(hostFault(d), `a full name, as in "mail.example.com"`))
		case slices.Contains(a.Domains[:i], d):
			k.complain(at, "%s stands there already: want it once", quote(d))
		}
	}
	if len(a.Domains) > 100 {
		k.complain("tls.acme.domains", "%d domains: want 100 or less", len(a.Domains))
	}
	if !a.Agree {
		k.complain("tls.acme.agree", "the server's terms must be agreed to: want agree = true")
	}
	if u, err := url.Parse(a.Directory); err != nil || u.Scheme != "https" || u.Host == "" {
		k.complain("tls.acme.directory", "%s is no https URL: want that of the server's directory", quote(a.Directory))
	}
	if _, err := a.DirectoryRoots(); err != nil {
		k.complain("tls.acme.directory_ca", "%v", err)
	}
	if a.Email != "" && (strings.Count(a.Email, "@") != 1 || strings.ContainsAny(a.Email, " <>,:\t\r\n")) {
		k.complain("tls.acme.email", `%s is not an address: want one, as in "postmaster@example.com"`, quote(a.Email))
	}
	if a.Storage == "" {
		k.complain("tls.acme.storage", "empty: want a directory")
	}
	if (a.EABKeyID == "") != (a.EABKey == "") {
		k.complain("tls.acme.eab_key_id", "an external account has both an id and a key: want eab_key_id and eab_key")
	} else if _, err := base64.RawURLEncoding.DecodeString(a.EABKey); err != nil {
		k.complain("tls.acme.eab_key", "not in base64url without padding: want the key as the server's operators gave it")
	}
	k.challenges(a)
}

// challenges judges where the server's questions are answered.
func (k *checker) challenges(a *ACME) {
	if a.HTTP == "" && a.TLSALPN == "" {
		k.complain("tls.acme.domains", `nothing would answer for them: want http = ":80", or tls_alpn = ":443"`)
		return
	}
	ok := a.HTTP == "" || k.challenge("tls.acme.http", a.HTTP)
	ok = (a.TLSALPN == "" || k.challenge("tls.acme.tls_alpn", a.TLSALPN)) && ok
	if !ok || a.HTTP == "" || a.TLSALPN == "" {
		return
	}
	host, _, _ := net.SplitHostPort(a.HTTP)
	other, _, _ := net.SplitHostPort(a.TLSALPN)
	if host != other {
		k.complain("tls.acme.tls_alpn", "%s is on another host than http: want the same", quote(a.TLSALPN))
	}
}

// challenge checks an address whose port is known.
func (k *checker) challenge(key, address string) bool {
	if !k.address(key, address) {
		return false
	}
	if strings.HasSuffix(address, ":0") {
		k.complain(key, "%s: the server must know the port: want one, as in %q", quote(address), ":80")
		return false
	}
	return true
}
