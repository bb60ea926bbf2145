package config

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// dns judges whom to ask, and how long answers are kept.
func (k *checker) dns(d *DNS) {
	k.lasts("dns.timeout", d.Timeout, 100*time.Millisecond, time.Minute)
	if n := len(d.Servers); n > 8 {
		k.complain("dns.servers", "%d servers: want 8 or less", n)
	}
	for _, s := range d.Servers {
		if len(d.TrustAD) > 0 && !d.trusts(s) {
			k.complain("dns.trust_ad", "%s of servers is not among them: mail that it finds the way for would lose its protection: want all of servers, or none", s)
		}
	}
	k.within("dns.lookups", d.Lookups, 1, 10_000)
	k.within("dns.cache", d.Cache, 1000, 100_000_000)
	k.lasts("dns.ttl_min", d.TTLMin, time.Second, time.Hour)
	k.lasts("dns.ttl_max", d.TTLMax, max(time.Minute, d.TTLMin), 7*24*time.Hour)
	k.lasts("dns.negative_max", d.NegativeMax, max(time.Second, d.TTLMin), 24*time.Hour)
	k.lasts("dns.stale", d.Stale, 0, 7*24*time.Hour)
}

func (d *DNS) trusts(s netip.AddrPort) bool {
	return slices.ContainsFunc(d.TrustAD, func(p netip.Prefix) bool { return p.Contains(s.Addr().Unmap()) })
}

// own judges what else this node is called.
func (k *checker) own(names []string) {
	for i, name := range names {
		if _, err := netip.ParseAddr(name); err == nil {
			continue
		}
		if fault := hostFault(name); fault != "" {
			k.complain(fmt.Sprintf("egress.own[%d]", i), "%s", advise(fault, `a name or an IP address, as in "mx1.example.com" or "192.0.2.1"`))
		}
	}
}
