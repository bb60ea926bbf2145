package mx

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// Options configure a Resolver. Zero values stand for the defaults.
type Options struct {
	// Servers are recursive name servers. Each question goes to the first of them that is not taken for dead; then to the others. Default:
	// those of /etc/resolv.conf.
	Servers []netip.AddrPort
	// Trusted are the servers whose AD bit is believed: they validate DNSSEC, and what they say cannot be forged on its way. It must cover all
	// servers or none: mail would lose its protection when one that is not trusted answers. Default: none.
	Trusted []netip.Prefix
	Timeout time.Duration // for one server to answer one query; 3 seconds
	Rounds  int           // how often the servers are gone through for one question; 2

	Workers int // lookups under way at once, each with a few sockets; 256
	Sockets int // open at a time; 2 for each of Workers
	Pending int // lookups that wait for a worker at most; 65,536
	Entries int // answers kept at most, 22 bytes each without the answers; 500,000. A place is in one of six: some 2% are lost when half of the room is used

	TTLMin      time.Duration // for which an answer is believed at least; 30 seconds
	TTLMax      time.Duration // at most; 1 day
	NegativeMax time.Duration // for which it is believed at most that there is nothing, or that a domain takes no mail; 15 minutes
	StaleMax    time.Duration // for which answers are used beyond their time, while no server gives a verdict; 0 = not at all

	// Own are the names of this node: mail exchangers with one of them, and all that are not preferred to it, are dropped. RFC 5321 §5.1
	Own []string
	// OwnAddrs are the addresses of this node: an exchanger that has one of them counts as this node.
	OwnAddrs []netip.Addr
	// Allow are addresses that mail exchangers may have although they are private, loopback or otherwise not public.
	Allow []netip.Prefix

	Now func() time.Time // time.Now. Time on the wire is the real one
}

// complete replaces zero values by the defaults.
func (o *Options) complete() error {
	for _, n := range []struct {
		value *int
		zero  int
	}{{&o.Rounds, 2}, {&o.Workers, 256}, {&o.Pending, 65_536}, {&o.Entries, 500_000}} {
		if *n.value <= 0 {
			*n.value = n.zero
		}
	}
	if o.Sockets <= 0 {
		o.Sockets = 2 * o.Workers
	}
	for _, d := range []struct {
		value *time.Duration
		zero  time.Duration
	}{{&o.Timeout, 3 * time.Second}, {&o.TTLMin, 30 * time.Second}, {&o.TTLMax, 24 * time.Hour}, {&o.NegativeMax, 15 * time.Minute}} {
		if *d.value <= 0 {
			*d.value = d.zero
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if len(o.Servers) == 0 {
		if err := o.systemServers(); err != nil {
			return err
		}
	}
	return o.trust()
}

// systemServers takes the servers of the system.
func (o *Options) systemServers() error {
	const file = "/etc/resolv.conf"
	conf, err := dns.ClientConfigFromFile(file)
	if err != nil {
		return fmt.Errorf("find the name servers: %w", err)
	}
	for _, s := range conf.Servers {
		if addr, err := netip.ParseAddrPort(net.JoinHostPort(s, conf.Port)); err == nil {
			o.Servers = append(o.Servers, addr)
		}
	}
	if len(o.Servers) == 0 {
		return errors.New("find the name servers: " + file + " names none: set servers in [dns]")
	}
	return nil
}

// trust holds the servers against Trusted.
func (o *Options) trust() error {
	if len(o.Trusted) == 0 {
		return nil
	}
	for _, s := range o.Servers {
		if !o.trusts(s) {
			return fmt.Errorf("the name server %s is not among those whose AD bit is trusted: want all of them or none", s)
		}
	}
	return nil
}

func (o *Options) trusts(s netip.AddrPort) bool {
	return slices.ContainsFunc(o.Trusted, func(p netip.Prefix) bool { return p.Contains(s.Addr().Unmap()) })
}
