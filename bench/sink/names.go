package sink

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"

	"mailrace/bench/zone"
)

// hostSuffix is below which the MX hosts are: that at 127.1.0.9 is 127-1-0-9.sites.bench.mailrace.
const hostSuffix = ".sites.bench.mailrace"

// names leads domains to sites. It does not change.
type names struct {
	byDomain map[string]*[]prefix // by patternKey
	hosts    []prefix             // all of them
}

// stage reads the script, if there is one, and answers DNS, if that is asked for.
func (s *Sink) stage() error {
	script := &Script{}
	if s.opts.Script != "" {
		var err error
		if script, err = LoadScript(s.opts.Script); err != nil {
			return err
		}
		s.stages = newStages(script, s.opts.Seed)
	}
	if s.opts.DNS == "" {
		return nil
	}
	n, err := newNames(script, s.opts.Sites)
	if err != nil {
		return err
	}
	s.names, err = zone.ServeAt(s.opts.DNS, n.find)
	return err
}

// newNames leads the domains of a script to its sites, and all others to a list of ranges.
func newNames(script *Script, others string) (*names, error) {
	n := &names{byDomain: map[string]*[]prefix{}}
	for i := range script.Destinations {
		d := &script.Destinations[i]
		if len(d.Sites) == 0 {
			continue
		}
		n.hosts = append(n.hosts, d.Sites...)
		for _, p := range d.Domains {
			n.byDomain[patternKey(p)] = &d.Sites
		}
	}
	if n.byDomain["*"] != nil {
		return n, nil
	}
	var rest []prefix
	for part := range strings.SplitSeq(others, ",") {
		var p prefix
		if err := p.UnmarshalText([]byte(strings.TrimSpace(part))); err != nil {
			return nil, fmt.Errorf("sites: %w", err)
		}
		if rest = append(rest, p); sizeOf(rest) > sitesMost {
			return nil, fmt.Errorf("sites: more than %d addresses", sitesMost)
		}
	}
	n.hosts, n.byDomain["*"] = append(n.hosts, rest...), &rest
	return n, nil
}

// find is the zone: each domain has one MX host. Names of services (with "_"), policies of MTA-STS and addresses backwards are not there.
func (n *names) find(name string) (zone.Records, bool) {
	if host, ok := strings.CutSuffix(name, hostSuffix); ok {
		at, err := netip.ParseAddr(strings.ReplaceAll(host, "-", "."))
		if err != nil || !at.Is4() {
			return zone.Records{}, false
		}
		for _, p := range n.hosts {
			if p.Contains(at) {
				return zone.Records{Addrs: []netip.Addr{at}}, true
			}
		}
		return zone.Records{}, false
	}
	if name == "" || strings.Contains(name, "_") || strings.HasPrefix(name, "mta-sts.") || strings.HasSuffix(name, ".arpa") {
		return zone.Records{}, false
	}
	at := pickSite(*byDomain(n.byDomain, []byte(name)), name)
	return zone.Records{MX: []zone.MX{{Host: strings.ReplaceAll(at.String(), ".", "-") + hostSuffix, Preference: 10}}}, true
}

func sizeOf(ranges []prefix) (total int) {
	for _, p := range ranges {
		total += p.size()
	}
	return total
}

// pickSite is the site of a domain: always the same one of the same ranges.
func pickSite(ranges []prefix, domain string) netip.Addr {
	h := fnv.New32a()
	h.Write([]byte(domain))
	at := int(h.Sum32() % uint32(sizeOf(ranges)))
	for _, p := range ranges {
		if at < p.size() {
			b := p.Addr().As4()
			v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]) + uint32(at)
			return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
		}
		at -= p.size()
	}
	panic("sink: a list of ranges without addresses")
}
