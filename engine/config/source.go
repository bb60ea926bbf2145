package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"
)

// Source is where connections to remote servers come from: an address of this machine, or a proxy.
type Source struct {
	Name string // 1 to 64 of A-Z, a-z, 0-9, ".", "_", "-": it stands in records and metrics
	// IPv4 and IPv6 are the addresses that remote servers see; the zero Addr = it has none of this family, and reaches no servers there. Connections are
	// bound to them, unless a proxy makes them. With SOCKS5 both may be missing: then it reaches both families.
	IPv4, IPv6 netip.Addr
	Hello      string // name in EHLO; "" = Hostname
	SOCKS5     string // host:port of a SOCKS5 proxy; "" = none. RFC 1928
	User       string // of the proxy; "" = it wants none
	Password   Secret // of User. Read for each connection
	Proxy      string // host:port of a proxy that connects to where a PROXY header (version 2) says, from the address that it says; "" = none
}

// Pool is a set of sources that share mail.
type Pool struct {
	Name    string // as that of a source
	Sources []PoolSource
}

// PoolSource is a source of a pool.
type PoolSource struct {
	Name   string
	Weight int // 1 to 1,000,000: its part of the mail, compared with the others'
}

const (
	sourcesMax = 1000
	weightMax  = 1_000_000
)

// Families of addresses.
const (
	PreferIPv4 = "ipv4"
	PreferIPv6 = "ipv6"
)

func sourceFields(s *Source) []field {
	return []field{
		{"name", text(&s.Name)},
		{"ipv4", parsed(&s.IPv4, parseIPv4)},
		{"ipv6", parsed(&s.IPv6, parseIPv6)},
		{"ehlo", text(&s.Hello)},
		{"socks5", text(&s.SOCKS5)},
		{"user", text(&s.User)},
		{"password", parsed(&s.Password, parseSecret)},
		{"proxy", text(&s.Proxy)},
	}
}

func poolFields(p *Pool) []field {
	return []field{
		{"name", text(&p.Name)},
		{"sources", members(&p.Sources)},
	}
}

// members reads the sources of a pool: names, or tables with a name and a weight.
func members(to *[]PoolSource) setter {
	return func(r *reader, key string, v *value) {
		if v.kind != unstable.Array {
			r.complain(key, v.at, `%s is not an array: want [{ name = "a", weight = 1 }] or ["a"]`, v.describe())
			return
		}
		for i, item := range v.items {
			at := fmt.Sprintf("%s[%d]", key, i)
			r.where[at] = item.at
			*to = append(*to, PoolSource{Weight: 1})
			s := &(*to)[len(*to)-1]
			if item.kind == unstable.String {
				s.Name = item.text
				continue
			}
			table([]field{{"name", text(&s.Name)}, {"weight", integer(&s.Weight)}})(r, at, item)
		}
	}
}

func parseIPv4(s string) (a netip.Addr, err error) {
	if s == "" {
		return a, nil
	}
	if a, err = netip.ParseAddr(s); err != nil || !a.Is4() || a.IsUnspecified() || a.IsMulticast() {
		return a, fmt.Errorf(`%s is no IPv4 address to send from: want one as in "192.0.2.10"`, quote(s))
	}
	return a, nil
}

func parseIPv6(s string) (a netip.Addr, err error) {
	if s == "" {
		return a, nil
	}
	if a, err = netip.ParseAddr(s); err != nil || !a.Is6() || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() {
		return a, fmt.Errorf(`%s is no IPv6 address to send from: want one as in "2001:db8::10"`, quote(s))
	}
	return a, nil
}

// plainName says whether a name can stand in records, metrics and on a command line as it is.
func plainName(name string) bool {
	return len(name) <= 64 && name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
	})
}

// nameIn judges a name that is to be the only one of its kind.
func (k *checker) nameIn(key, name string, seen []string) {
	switch {
	case name == "":
		k.complain(key, "missing: want a name, as in \"a\"")
	case !plainName(name):
		k.complain(key, `%s cannot be a name: want at most 64 letters, digits, ".", "_" and "-"`, quote(name))
	case slices.Contains(seen, name):
		k.complain(key, "%s is the name of one above: want another", quote(name))
	}
}

// sources judges the sources, the pools, and who names them.
func (k *checker) sources(c *Config) {
	var names []string
	if len(c.Sources) > sourcesMax {
		k.complain(fmt.Sprintf("source[%d]", sourcesMax), "%d sources: want %d or less", len(c.Sources), sourcesMax)
	}
	for i := range c.Sources {
		s, key := &c.Sources[i], fmt.Sprintf("source[%d]", i)
		k.nameIn(key+".name", s.Name, names)
		names = append(names, s.Name)
		k.source(key, s)
	}
	var pools []string
	for i, p := range c.Pools {
		key := fmt.Sprintf("pool[%d]", i)
		k.nameIn(key+".name", p.Name, pools)
		pools = append(pools, p.Name)
		if len(p.Sources) == 0 {
			k.complain(key+".sources", `missing: want names of sources, as in [{ name = "a", weight = 1 }]`)
		}
		var seen []string
		for j, s := range p.Sources {
			at := fmt.Sprintf("%s.sources[%d]", key, j)
			switch fault := unknown(s.Name, names, "source"); {
			case s.Name == "":
				k.complain(at, "names no source: want the name of a [[source]]")
			case fault != "":
				k.complain(at, "%s", fault)
			case slices.Contains(seen, s.Name):
				k.complain(at, "%s stands here twice: want it once", quote(s.Name))
			}
			seen = append(seen, s.Name)
			k.within(at+".weight", s.Weight, 1, weightMax)
		}
	}
	k.poolNames(c, pools)
	k.oneOf("egress.prefer", c.Egress.Prefer, PreferIPv4, PreferIPv6)
	k.lasts("egress.source_retry", c.Egress.SourceRetry, time.Second, 24*time.Hour)
}

// source judges what a source is made of.
func (k *checker) source(key string, s *Source) {
	if s.Hello != "" {
		if fault := hostFault(s.Hello); fault != "" {
			k.complain(key+".ehlo", "%s", advise(fault, `the name of the source's address, as in "out1.example.com"`))
		}
	}
	for _, x := range []struct{ key, address string }{{".socks5", s.SOCKS5}, {".proxy", s.Proxy}} {
		host, port, err := net.SplitHostPort(x.address)
		if x.address != "" && (err != nil || host == "" || port == "" || port == "0") {
			k.complain(key+x.key, `%s is not the address of a proxy: want host:port, as in "10.0.0.5:1080"`, quote(x.address))
		}
	}
	switch {
	case s.SOCKS5 != "" && s.Proxy != "":
		k.complain(key+".proxy", "there is socks5, too: want one of them")
	case s.SOCKS5 == "" && !s.IPv4.IsValid() && !s.IPv6.IsValid():
		k.complain(key, "has no address: want ipv4, ipv6 or both")
	}
	switch {
	case s.User == "" && s.Password == "":
	case s.SOCKS5 == "":
		k.complain(key+".user", "nobody asks for it: it is for socks5")
	case s.User == "" || len(s.User) > 255:
		k.complain(key+".user", "want 1 to 255 octets, the name that password is for")
	case s.Password == "":
		k.complain(key+".password", `missing: want where it stands, as in "file:/etc/mailrace/proxy.password"`)
	default:
		k.secret(key+".password", s.Password)
	}
}

// poolNames judges the names of pools where one is chosen.
func (k *checker) poolNames(c *Config, pools []string) {
	check := func(key, name string) {
		if fault := unknown(name, pools, "pool"); name != "" && fault != "" {
			k.complain(key, "%s", fault)
		}
	}
	check("egress.pool", c.Egress.Pool)
	for i := range c.Routes {
		r, key := &c.Routes[i], fmt.Sprintf("route[%d].pool", i)
		if check(key, r.Pool); r.Pool != "" && (r.To.local() || r.To.Kind == ToDiscard) {
			k.complain(key, "%s needs no connection: want no pool", quote(r.To.String()))
		}
	}
	for i := range c.Policies {
		check(fmt.Sprintf("policy[%d].pool", i), c.Policies[i].Pool)
	}
}

// unknown says what is wrong with a name that should be one of the known, or "".
func unknown(name string, known []string, kind string) string {
	if slices.Contains(known, name) {
		return ""
	}
	if near := nearest(name, known); near != "" {
		return fmt.Sprintf("%s is no %s: did you mean %q?", quote(name), kind, near)
	}
	return fmt.Sprintf("%s is no %s: want the name of a [[%s]]", quote(name), kind, kind)
}

// strangeSources tells which addresses of sources this machine does not have.
func (c *Config) strangeSources() (notes []string) {
	if len(c.Sources) == 0 {
		return nil
	}
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for i := range c.Sources {
		s := &c.Sources[i]
		if s.SOCKS5 != "" || s.Proxy != "" {
			continue
		}
		for _, a := range []netip.Addr{s.IPv4, s.IPv6} {
			if a.IsValid() && !had(interfaces, a) {
				notes = append(notes, fmt.Sprintf("source %s: %s is no address of this machine now: connections cannot be made from it", s.Name, a))
			}
		}
	}
	return notes
}

// had says whether an address is one of the machine's. All of 127.0.0.0/8 is.
func had(interfaces []net.Addr, a netip.Addr) bool {
	return slices.ContainsFunc(interfaces, func(i net.Addr) bool {
		p, err := netip.ParsePrefix(i.String())
		return err == nil && (p.Addr().Unmap() == a.WithZone("") || p.Addr().IsLoopback() && p.Contains(a))
	})
}
