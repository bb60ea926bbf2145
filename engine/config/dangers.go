package config

import (
	"fmt"
	"net"
	"net/netip"
)

// Dangers tells what the configuration allows that few want, although it may be right where nobody else can connect. Each names the key.
func (c *Config) Dangers() (dangers []string) {
	say := func(format string, args ...any) { dangers = append(dangers, fmt.Sprintf(format, args...)) }
	for i := range c.Listeners {
		l := &c.Listeners[i]
		if local(l.Address) {
			continue
		}
		name := "listener " + l.Address
		if everybody(l.RelayFrom) {
			say("%s: relay_from is everybody: an open relay, if strangers can connect", name)
		}
		if everybody(l.ProxyFrom) || everybody(l.XClientFrom) {
			say("%s: proxy_from or xclient_from is everybody, who may claim any address: that of a client who may relay, too", name)
		}
		if l.AuthInClear && c.Authenticates(l) {
			say("%s: auth_in_clear: who listens on the way learns passwords", name)
		}
		if l.FixNewlines && l.Mode == ModeMX && len(l.RelayDomains) > 0 {
			say("%s: newlines = \"fix\" where strangers may send: it is for programs of your own that cannot do better", name)
		}
	}
	for _, s := range c.DNS.Servers {
		if len(c.DNS.TrustAD) > 0 && !s.Addr().IsLoopback() {
			say("dns: trust_ad: who sits on the way to %s can claim what DNSSEC should prove: want a validating name server on this machine", s)
		}
	}
	if c.Admin.Address == "" || local(c.Admin.Address) {
		return dangers
	}
	if everybody(c.Admin.InjectFrom) {
		say("admin %s: inject_from is everybody: an open relay, if strangers can connect", c.Admin.Address)
	}
	if everybody(c.Admin.ProxyFrom) {
		say("admin %s: proxy_from is everybody, who may claim any address: that of a client who may inject, too", c.Admin.Address)
	}
	if c.Admin.InjectUsers {
		say("admin %s: inject_users takes passwords in clear: want an address of this machine, and a proxy that speaks TLS in front", c.Admin.Address)
	}
	return dangers
}

// Notes tells what the configuration asks for and does not get, which nobody need know who is content with it.
func (c *Config) Notes() (notes []string) {
	byMX := len(c.Routes) == 0 && c.Egress.TLS != TLSOff
	for i := range c.Routes {
		byMX = byMX || c.Routes[i].To.Kind == ToMX && c.Routes[i].Security(c.Egress.TLS) != TLSOff
	}
	if byMX && c.Egress.DANE && len(c.DNS.TrustAD) == 0 {
		notes = append(notes, "dane of [egress] does nothing: trust_ad of [dns] names no server that validates DNSSEC")
	}
	return append(notes, c.strangeSources()...)
}

// everybody says whether all addresses of a family are among the networks.
func everybody(networks []netip.Prefix) bool {
	for _, p := range networks {
		if p.Bits() == 0 {
			return true
		}
	}
	return false
}

// local says whether only this machine can connect to host:port.
func local(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}
