package mx

import "net/netip"

// special are the blocks that are not on the public Internet, beyond what netip knows by method: whoever may name an address in DNS must
// not make this node connect there. IANA special-purpose registries, RFC 6890.
var special = prefixes(
	"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
	"::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16", "fec0::/10",
)

// embedding are the IPv6 blocks that carry an IPv4 address, with the place of its first octet: it must be public, too.
var embedding = map[netip.Prefix]int{
	netip.MustParsePrefix("64:ff9b::/96"): 12, // NAT64, RFC 6052
	netip.MustParsePrefix("2002::/16"):    2,  // 6to4, RFC 3056
}

func prefixes(texts ...string) (ps []netip.Prefix) {
	for _, t := range texts {
		ps = append(ps, netip.MustParsePrefix(t))
	}
	return ps
}

// public says whether a is an address of the public Internet that may be connected to.
func public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsPrivate() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	for p, at := range embedding {
		if b := a.As16(); p.Contains(a) && !public(netip.AddrFrom4([4]byte(b[at:at+4]))) {
			return false
		}
	}
	return true
}

// Allowed says whether a host that DNS names may be connected to at a: it is public, or among Options.Allow. Any goroutine.
func (r *Resolver) Allowed(a netip.Addr) bool { return r.allowed(a) }

// allowed says whether a mail exchanger may have the address a.
func (r *Resolver) allowed(a netip.Addr) bool {
	if public(a) {
		return true
	}
	for _, p := range r.opts.Allow {
		if p.Contains(a.Unmap()) {
			return true
		}
	}
	return false
}
