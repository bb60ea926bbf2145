package config

import (
	"fmt"
	"net/netip"
)

// ownRoutes finds routes that lead to a listener of this node, so that their mail would go round until its hops are too many.
func (k *checker) ownRoutes(c *Config) {
	for i, r := range c.Routes {
		if r.To.Kind != ToHost && r.To.Kind != ToHostTLS {
			continue
		}
		to, err := netip.ParseAddr(r.To.Host)
		if err != nil {
			continue // a name may lead to other hosts, too: there the greeting tells
		}
		for _, l := range c.Listeners {
			at, err := netip.ParseAddrPort(l.Address)
			if len(l.Address) > 0 && l.Address[0] == ':' { // all addresses of this machine
				at, err = netip.ParseAddrPort("0.0.0.0" + l.Address)
			}
			if err == nil && at.Port() == r.To.Port && (at.Addr().Unmap() == to || at.Addr().IsUnspecified() && to.IsLoopback()) {
				k.complain(fmt.Sprintf("route[%d].to", i), "%s is a listener of this node: mail would go round", quote(r.To.String()))
				break
			}
		}
	}
}
