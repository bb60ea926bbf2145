package ingress

import (
	"strings"

	"golang.org/x/net/idna"
)

// Domains is a set of recipient domains. It is immutable, and may be used by all loops.
type Domains struct {
	exact  map[string]struct{}
	suffix map[string]struct{} // without the "*."
}

// NewDomains makes a set of exact names and "*.suffix" patterns (all that is below the suffix, not itself), in ASCII form.
func NewDomains(patterns []string) *Domains {
	d := &Domains{exact: map[string]struct{}{}, suffix: map[string]struct{}{}}
	for _, p := range patterns {
		p = strings.ToLower(p)
		if below, ok := strings.CutPrefix(p, "*."); ok {
			d.suffix[below] = struct{}{}
		} else {
			d.exact[p] = struct{}{}
		}
	}
	return d
}

// Has says whether a domain, as the address grammar gives it, is in the set. Address literals never are. It allocates nothing but for names
// that are not ASCII.
func (d *Domains) Has(domain []byte) bool {
	if d == nil || len(domain) == 0 || domain[0] == '[' || len(domain) > 255 {
		return false
	}
	var buf [255]byte
	name := buf[:0]
	for _, c := range domain {
		if c >= 0x80 {
			ascii, err := idna.Lookup.ToASCII(string(domain)) // RFC 6531 §3.2: U-labels stand for their A-labels
			return err == nil && d.has([]byte(strings.ToLower(ascii)))
		}
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		name = append(name, c)
	}
	return d.has(name)
}

func (d *Domains) has(name []byte) bool {
	if _, ok := d.exact[string(name)]; ok {
		return true
	}
	if len(d.suffix) == 0 {
		return false
	}
	for i, c := range name {
		if c != '.' {
			continue
		}
		if _, ok := d.suffix[string(name[i+1:])]; ok {
			return true
		}
	}
	return false
}

// routed says whether a local-part asks its host to send the mail on: percent hack, bang path, or an address in quotes. To us such a
// local-part is a plain one, but a host behind us could take it at its word, and we would have relayed for a stranger.
func routed(local []byte) bool {
	for _, c := range local {
		if c == '%' || c == '!' || c == '@' {
			return true
		}
	}
	return false
}
