package router

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"
	"sync/atomic"

	"mailrace/router/mx"
)

// Provider is who runs the mail exchangers of many domains, as an operator says: limits hold for all of them together. An exchanger is that of the first
// provider that has its name or all of its addresses. A domain is that of a provider if all of its exchangers are.
type Provider struct {
	Name        string         // for people; each once
	MX          []string       // names of exchangers, or "*.suffix" (every name below suffix); any case
	Addresses   []netip.Prefix // of exchangers
	Connections int            // most connections to all of them; 0 = as many as to a site of the route
}

// providers find the Provider of an answer. They are immutable but for the counts.
type providers struct {
	rules    []Provider
	hashes   []uint64       // of their names
	exact    map[string]int // place of the rule
	suffixes map[string]int // without the "*."
	prefixes []ruledPrefix  // in the order of the rules
	links    []atomic.Int64 // of each rule, over all loops
}

type ruledPrefix struct {
	netip.Prefix
	rule int
}

// none is the place of no rule.
const none = -1

func compileProviders(rules []Provider) (*providers, error) {
	p := &providers{rules: rules, links: make([]atomic.Int64, len(rules)), exact: map[string]int{}, suffixes: map[string]int{}}
	seen := map[string]bool{}
	for i := range rules {
		r := &rules[i]
		switch {
		case r.Name == "" || seen[r.Name]:
			return nil, fmt.Errorf("provider %d: no name, or that of another", i+1)
		case len(r.MX)+len(r.Addresses) == 0:
			return nil, fmt.Errorf("provider %q: neither mail exchangers nor addresses", r.Name)
		case r.Connections < 0:
			return nil, fmt.Errorf("provider %q: connections are negative", r.Name)
		}
		seen[r.Name] = true
		h := fnv.New64a()
		h.Write([]byte(r.Name))
		p.hashes = append(p.hashes, h.Sum64())
		if err := p.add(i, r); err != nil {
			return nil, fmt.Errorf("provider %q: %w", r.Name, err)
		}
	}
	return p, nil
}

func (p *providers) add(rule int, r *Provider) error {
	for _, pattern := range r.MX {
		suffix, below := strings.CutPrefix(pattern, "*.")
		name, err := mx.Normal(suffix)
		if err != nil {
			return fmt.Errorf("mail exchanger %q: %w", pattern, err)
		}
		of := p.exact
		if below {
			of = p.suffixes
		}
		if _, before := of[name]; !before {
			of[name] = rule
		}
	}
	for _, prefix := range r.Addresses {
		if !prefix.IsValid() {
			return errors.New("an address range is not valid")
		}
		p.prefixes = append(p.prefixes, ruledPrefix{prefix.Masked(), rule})
	}
	return nil
}

// of is the place of the rule that an answer falls under, or none. It allocates nothing.
func (p *providers) of(a *mx.Answer) int {
	if len(p.rules) == 0 || a.Query.Kind != mx.Exchangers || len(a.Hosts) == 0 {
		return none
	}
	rule := p.host(&a.Hosts[0])
	for i := 1; i < len(a.Hosts) && rule != none; i++ {
		if p.host(&a.Hosts[i]) != rule {
			return none
		}
	}
	return rule
}

// host is the place of the rule that has an exchanger, or none.
func (p *providers) host(h *mx.Host) int {
	rule := len(p.rules)
	if i, there := p.exact[h.Name]; there {
		rule = i
	}
	for name := next(h.Name); name != "" && len(p.suffixes) > 0; name = next(name) {
		if i, there := p.suffixes[name]; there {
			rule = min(rule, i)
		}
	}
	for _, prefix := range p.prefixes {
		if prefix.rule >= rule {
			break
		}
		if p.reaches(prefix.rule, h.Addrs) {
			rule = prefix.rule
		}
	}
	if rule == len(p.rules) {
		return none
	}
	return rule
}

// reaches says whether all of the addresses are those of a rule.
func (p *providers) reaches(rule int, addrs []netip.Addr) bool {
next:
	for _, a := range addrs {
		for _, prefix := range p.prefixes {
			if prefix.rule == rule && prefix.Contains(a.Unmap()) {
				continue next
			}
		}
		return false
	}
	return len(addrs) > 0
}

// ProviderOf is the place of the provider in a list, from 0, of a domain with that answer; -1 = it is that of none. It compiles the list, for people who
// ask.
func ProviderOf(list []Provider, answer *mx.Answer) (int, error) {
	p, err := compileProviders(list)
	if err != nil {
		return none, err
	}
	return p.of(answer), nil
}

// name is that of a rule; "" = none.
func (p *providers) name(rule int) string {
	if rule == none {
		return ""
	}
	return p.rules[rule].Name
}

// count notes that connections of a rule came or went.
func (p *providers) count(rule, n int) {
	if rule != none {
		p.links[rule].Add(int64(n))
	}
}

// connections is the limit that a rule sets; 0 = none.
func (p *providers) connections(rule int) int {
	if rule == none {
		return 0
	}
	return p.rules[rule].Connections
}
