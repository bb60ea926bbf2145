package scenario

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// nullSpool is the spool path that stands for a store which keeps nothing.
const nullSpool = "null:"

// configuration is the mailrace.toml of a target.
type configuration struct {
	listen string // host:port for SMTP
	admin  string // host:port for metrics
	spool  string // directory, or nullSpool
	events string // file, or "off"
	route  string // of all domains
	other  []routeOf
	chain  string // PEM files of a certificate and its key, or ""
	key    string

	submission string // host:port of a submission listener, where users log in, or ""
	users      string // file of them

	connections int           // that may be open; 0 = the MTA's default
	command     time.Duration // deadlines, where they are not the MTA's defaults: for a command line, for a handshake,
	handshake   time.Duration
	window      time.Duration // and how far content may fall behind the minimum rate
	retry       time.Duration // between any two attempts; 0 = the MTA's defaults

	names     netip.AddrPort // name server for routes by MX, whose AD bit is believed; none = the system's
	port      string         // of MX hosts, which are on loopback
	idle      time.Duration  // for which a connection is kept without work; 0 = the MTA's default
	authority string         // PEM file of who issues the certificates of hosts, or ""
	policies  []string       // patterns of domains that have a policy of their own
	providers []providerOf   // limits of their own
	messages  int            // transactions over one connection; 0 = the MTA's default
}

// routeOf is the route of one domain.
type routeOf struct {
	domain, to string
	tls        string // "" = the MTA's default
}

// providerOf is whose connections are limited by themselves: hosts at some addresses.
type providerOf struct {
	name, addresses string
	connections     int
}

// text writes the configuration; numbers that are 0 in the options are left to the MTA's defaults.
func (c configuration) text(o *Options) string {
	var b strings.Builder
	section := func(name string, lines ...string) {
		fmt.Fprintf(&b, "\n%s\n", name)
		for _, line := range lines {
			if line != "" {
				b.WriteString(line + "\n")
			}
		}
	}
	number := func(key string, n int) string {
		if n == 0 {
			return ""
		}
		return key + " = " + strconv.Itoa(n)
	}
	str := func(key, value string) string {
		if value == "" {
			return ""
		}
		return key + " = " + strconv.Quote(value)
	}
	largest := 0
	for _, z := range o.Sizes {
		largest = max(largest, z.Octets)
	}
	fmt.Fprintf(&b, "# Written by mailrace bench.\n%s\n", str("hostname", "mta.bench.mailrace"))
	lasts := func(key string, d time.Duration) string {
		if d == 0 {
			return ""
		}
		return str(key, fmt.Sprintf("%dms", d.Milliseconds()))
	}
	section("[engine]", number("loops", o.Loops), str("memory", o.Memory), number("max_connections", c.connections))
	section("[[listener]]", str("address", c.listen), str("mode", "mx"), `relay_from = ["127.0.0.0/8"]`)
	if c.submission != "" {
		section("[[listener]]", str("address", c.submission), str("mode", "submission"))
		section("[auth]", str("users", c.users))
	}
	if c.chain != "" {
		section("[tls]", fmt.Sprintf("certificates = [{ chain = %q, key = %q }]", c.chain, c.key), lasts("handshake_timeout", c.handshake))
	}
	section("[spool]", str("path", c.spool), number("shards", o.Shards), fmt.Sprintf("sync = %t", !o.NoSync))
	if c.retry != 0 {
		section("[queue]", lasts("retry_min", c.retry), lasts("retry_max", c.retry))
	}
	section("[[route]]", `domains = ["*"]`, str("to", c.route), number("connections", o.Egress))
	for _, r := range c.other {
		section("[[route]]", fmt.Sprintf("domains = [%q]", r.domain), str("to", r.to), str("tls", r.tls), number("connections", o.Egress))
	}
	for _, domains := range c.policies {
		section("[[policy]]", fmt.Sprintf("domains = [%q]", domains), `retry = ["1m", "10m", "1h"]`, `expire = "2d"`)
	}
	for _, p := range c.providers {
		section("[[provider]]", str("name", p.name), fmt.Sprintf("addresses = [%q]", p.addresses), number("connections", p.connections))
	}
	if len(c.providers) > 0 { // senders are told of failures at once, so that the account can be closed
		section("[dsn]", `gather = "0s"`)
	}
	if c.authority != "" || c.names.IsValid() {
		allow, port := "", ""
		if c.names.IsValid() {
			allow, port = `allow = ["127.0.0.0/8"]`, "port = "+c.port
		}
		section("[egress]", port, allow, number("messages", c.messages), lasts("idle", c.idle), str("ca", c.authority))
	}
	if c.names.IsValid() {
		section("[dns]", fmt.Sprintf("servers = [%q]", c.names), fmt.Sprintf("trust_ad = [%q]", c.names.Addr()))
	}
	exempt := ""
	if c.submission != "" {
		exempt = `exempt = ["127.0.0.0/8"]` // the generator is a stranger until it has logged in
	}
	section("[limits]", exempt, number("message_size", 2*largest+1<<20), number("recipients", max(1000, o.Recipients)),
		lasts("command_timeout", c.command), lasts("rate_window", c.window))
	section("[admin]", str("address", c.admin))
	section("[events]", str("path", c.events))
	section("[log]", str("level", "warn"))
	return b.String()
}

// Ports that freeAddress takes: below those that Linux gives to connections that go out (ip(7), ip_local_port_range), of which a bench has thousands.
const (
	portFirst = 10_000
	portLast  = 32_767
	portTries = 1000
)

// freeAddress returns an address on loopback that nobody listens on now. Somebody else might before it is used; then the MTA says so.
func freeAddress() (string, error) {
	for try := 1; ; try++ {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(portFirst+rand.IntN(portLast-portFirst+1)))
		l, err := net.Listen("tcp", address)
		if err == nil {
			return address, l.Close()
		}
		if try == portTries {
			return "", err
		}
	}
}
