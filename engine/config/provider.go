package config

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// Provider is who runs the mail exchangers of many domains, to all of which together its limits apply: see router.Provider.
type Provider struct {
	Name        string
	MX          []string       // names of exchangers, or "*.suffix" (every name below suffix); lower-case
	Addresses   []netip.Prefix // of exchangers
	Connections int            // most to all of them; 0 = as to a site
}

// providersMax is the most tables: each has a time series, and each is looked at for each domain where addresses count.
const providersMax = 1000

func providerFields(p *Provider) []field {
	return []field{
		{"name", text(&p.Name)},
		{"mx", list(&p.MX, lower)},
		{"addresses", list(&p.Addresses, parsePrefix)},
		{"connections", integer(&p.Connections)},
	}
}

// providers judges the tables of providers.
func (k *checker) providers(c *Config) {
	if n := len(c.Providers); n > providersMax {
		k.complain(fmt.Sprintf("provider[%d]", providersMax), "%d providers: want %d or less", n, providersMax)
	}
	names, seen := map[string]bool{}, map[string]bool{}
	for i := range c.Providers {
		p, key := &c.Providers[i], fmt.Sprintf("provider[%d]", i)
		switch {
		case p.Name == "":
			k.complain(key+".name", "missing: want what records and mailrace explain call the provider")
		case !validLabel(p.Name) || strings.ContainsAny(p.Name, `"\`):
			k.complain(key+".name", "not a name: want 1 to 255 octets without control characters, quotes and backslashes")
		case names[p.Name]:
			k.complain(key+".name", "%s is the name of a provider above: want another", quote(p.Name))
		}
		names[p.Name] = true
		if len(p.MX)+len(p.Addresses) == 0 {
			k.complain(key, `has no hosts: want mx, as in ["*.provider.example"], or addresses, as in ["192.0.2.0/24"]`)
		}
		for j, name := range p.MX {
			if fault := exchangerFault(name); fault != "" {
				k.complain(fmt.Sprintf("%s.mx[%d]", key, j), "%s", fault)
			} else {
				k.first(fmt.Sprintf("%s.mx[%d]", key, j), name, seen)
			}
		}
		for j, prefix := range p.Addresses {
			at := fmt.Sprintf("%s.addresses[%d]", key, j)
			if prefix.Bits() == 0 {
				k.complain(at, "%s is everything: want the addresses of the provider", prefix)
			} else {
				k.first(at, prefix.String(), seen)
			}
		}
		k.within(key+".connections", p.Connections, 0, 1_000_000)
	}
}

// first complains about what another provider has already.
func (k *checker) first(at, what string, seen map[string]bool) {
	if seen[what] {
		k.complain(at, "%s is in a provider above: want it once", quote(what))
	}
	seen[what] = true
}

// exchangerFault says what is wrong with the names of a provider's hosts, or "". Names below a public suffix are those of strangers to each other.
func exchangerFault(name string) string {
	if name == "*" {
		return `"*" is everything: want names or "*.suffix"`
	}
	if fault := patternFault(name, `an exact name or "*.suffix"`); fault != "" {
		return fault
	}
	suffix, below := strings.CutPrefix(name, "*.")
	if of, icann := publicsuffix.PublicSuffix(suffix); below && icann && of == suffix {
		return fmt.Sprintf("anybody has names below %s: want the provider's own, as in %s", quote(suffix), quote("*.provider."+suffix))
	}
	return ""
}
