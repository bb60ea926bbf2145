package engine

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"

	"mailrace/engine/config"
	"mailrace/engine/egress"
	"mailrace/engine/event"
	"mailrace/proto/smtp"
	"mailrace/router"
	"mailrace/router/pool"
)

// sources are the configured sources in the router's terms.
func sources(c *config.Config) []router.Source {
	all := make([]router.Source, len(c.Sources))
	for i := range c.Sources {
		s := &c.Sources[i]
		any := s.SOCKS5 != "" && !s.IPv4.IsValid() && !s.IPv6.IsValid()
		all[i] = router.Source{Name: s.Name, IPv4: any || s.IPv4.IsValid(), IPv6: any || s.IPv6.IsValid()}
	}
	return all
}

// pools are the configured pools in the router's terms.
func pools(c *config.Config) []router.Pool {
	all := make([]router.Pool, len(c.Pools))
	for i, p := range c.Pools {
		all[i].Name = p.Name
		for _, s := range p.Sources {
			all[i].Members = append(all[i].Members, router.Member{Source: s.Name, Weight: s.Weight})
		}
	}
	return all
}

// preferred is the family of addresses that is tried first. DNS gives those of IPv4 first.
func preferred(c *config.Config) pool.Family {
	if c.Egress.Prefer == config.PreferIPv6 {
		return pool.IPv6
	}
	return pool.Any
}

// outboundSources are what connections of the sources are made of, by name.
func outboundSources(c *config.Config) map[string]*egress.Source {
	all := map[string]*egress.Source{}
	for i := range c.Sources {
		s := &c.Sources[i]
		hello := cmp.Or(s.Hello, c.Hostname)
		all[s.Name] = &egress.Source{
			IPv4: s.IPv4, IPv6: s.IPv6, SOCKS5: s.SOCKS5, User: s.User, Password: s.Password.Read, Proxy: s.Proxy,
			SMTP: &smtp.ClientConfig{Hello: hello, Own: c.Hostname}, LMTP: &smtp.ClientConfig{Hello: hello, LMTP: true},
		}
	}
	return all
}

// dialWeb connects to the web server of a domain, for its policy or with a report to it, from where its mail comes. Any goroutine.
func (n *Node) dialWeb(ctx context.Context, domain string, to netip.AddrPort) (net.Conn, error) {
	select {
	case <-n.routable:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	route := n.routes.Match(domain)
	if route != nil && route.Kind != router.MX { // its mail goes elsewhere; this does not
		route = nil
	}
	source, ok := n.router.SourceOf(route, domain, nil, to.Addr())
	if !ok {
		return nil, fmt.Errorf("no source has an address of the family of %s", to.Addr())
	}
	return n.outbound.Connect(ctx, source, to)
}

// sourceAddresses are the addresses of all sources.
func sourceAddresses(c *config.Config) (all []netip.Addr) {
	for i := range c.Sources {
		for _, a := range []netip.Addr{c.Sources[i].IPv4, c.Sources[i].IPv6} {
			if a.IsValid() {
				all = append(all, a)
			}
		}
	}
	return all
}

// sourceChanged notes that a source was taken out of service, or is back.
func (a *lane) sourceChanged(c router.SourceChange) {
	r := event.Record{Time: a.loop.Now().UnixNano(), Type: event.SourceBack, From: c.Source, Text: c.Cause}
	if c.Out {
		r.Type, r.Until = event.SourceOut, c.Until.UnixNano()
		a.node.log.Warn("an egress source is out of service", "source", c.Source, "cause", c.Cause, "until", c.Until)
	} else {
		a.node.log.Info("an egress source is in service again", "source", c.Source, "cause", c.Cause)
	}
	a.events.Record(&r)
}
