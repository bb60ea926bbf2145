package router

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"mailrace/router/mx"
)

// Kind is the way a route leads.
type Kind uint8

const (
	// MX looks up the mail exchangers of the recipient's domain.
	MX Kind = iota
	// Host hands everything to one host.
	Host
	// Discard settles every recipient as delivered and forgets the mail.
	Discard
	// Local hands everything to a path on this machine, which nothing is to be looked up for.
	Local
)

// Protocol is how mail is handed over on the connections of a route.
type Protocol uint8

const (
	// SMTP: RFC 5321.
	SMTP Protocol = iota
	// LMTP: RFC 2033.
	LMTP
	// Maildir: files are written. With Local only.
	Maildir
)

// Manner is how the far end of a route is spoken to, beside TLS. Connections of different manners are not alike, and no site has both.
type Manner struct {
	Protocol Protocol
	TLSFirst bool   // the session begins with the TLS handshake. RFC 8314 §3.3
	Login    string // name of the credentials that sessions begin with; "" = none. It means something to egress alone
}

// TLS is how connections of a route are secured.
type TLS uint8

const (
	// TLSOpportunistic: under TLS where the host offers it; a certificate need not be verified, and where TLS fails mail goes in clear.
	TLSOpportunistic TLS = iota
	// TLSOff: in clear.
	TLSOff
	// TLSRequired: under TLS or not at all; a certificate need not be verified.
	TLSRequired
	// TLSVerified: the same, with a certificate for the name of the host.
	TLSVerified
)

// smtpPort is where mail exchangers listen. RFC 5321 §4.5.4.2
const smtpPort = 25

// Route sends the mail of some domains to one place. It is immutable once it is in a Table.
type Route struct {
	Name        string   // for records and people; "" = made from the kind and host
	Domains     []string // names, "*.suffix" (every name below suffix, not suffix itself), or "*"; any case
	Kind        Kind
	Host        string // Host: a name, or an IP address with or without brackets
	Port        uint16 // 0 = 25; of an MX route the port of every mail exchanger
	Connections int    // most connections to each site; 0 = Options.SiteConnections
	TLS         TLS
	Path        string // Local: a socket, or what egress makes of it
	Manner      Manner
	Pool        string // of sources; "" = Options.Pool for MX, none for others

	place  int        // in the list that NewTable got
	query  mx.Query   // Host: what to look up
	answer *mx.Answer // Local: what a lookup would find
}

// Table finds the route of a domain. It is immutable; all methods may be called by any goroutine.
type Table struct {
	exact    map[string]*Route
	suffixes map[string]*Route // without the "*."
	any      *Route
	routes   []*Route
}

// NewTable returns a table of the routes. Of several that match a domain the most specific wins: the exact name, then the longest
// suffix, then "*". A domain that two routes name is an error.
func NewTable(routes []Route) (*Table, error) {
	t := &Table{exact: map[string]*Route{}, suffixes: map[string]*Route{}}
	for i := range routes {
		r := new(Route)
		*r = routes[i]
		r.place = i
		if err := r.complete(); err != nil {
			return nil, fmt.Errorf("route %d: %w", i+1, err)
		}
		t.routes = append(t.routes, r)
		for _, d := range r.Domains {
			if err := t.add(d, r); err != nil {
				return nil, fmt.Errorf("route %d: %w", i+1, err)
			}
		}
	}
	return t, nil
}

// complete fills in what the zero values stand for and checks the rest.
func (r *Route) complete() error {
	if r.Port == 0 {
		r.Port = smtpPort
	}
	switch r.Kind {
	case MX:
		r.Name = cmp.Or(r.Name, "mx")
	case Discard:
		r.Name = cmp.Or(r.Name, "discard")
	case Local:
		if r.Path == "" {
			return errors.New("no path")
		}
		sum := fnv.New64a()
		sum.Write([]byte(r.Path))
		r.answer = &mx.Answer{
			Query: mx.Query{Kind: mx.Addresses, Name: r.Path}, Hosts: []mx.Host{{Addrs: []netip.Addr{{}}}}, Key: r.Path, Hash: sum.Sum64(), Expires: time.Unix(1<<40, 0),
		}
		r.Name = cmp.Or(r.Name, r.Path)
	case Host:
		name := strings.TrimSuffix(strings.TrimPrefix(r.Host, "["), "]")
		if addr, err := netip.ParseAddr(name); err == nil {
			name = addr.String()
		} else if name, err = mx.Normal(r.Host); err != nil {
			return fmt.Errorf("host %q: %w", r.Host, err)
		}
		r.query = mx.Query{Kind: mx.Addresses, Name: name}
		r.Host = name
		r.Name = cmp.Or(r.Name, net.JoinHostPort(name, strconv.Itoa(int(r.Port))))
	default:
		return fmt.Errorf("kind %d is none of MX, Host, Discard, Local", r.Kind)
	}
	return nil
}

func (t *Table) add(domain string, r *Route) error {
	if domain == "*" {
		if t.any != nil {
			return fmt.Errorf("domain %q has a route already", domain)
		}
		t.any = r
		return nil
	}
	suffix, into := strings.CutPrefix(domain, "*.")
	m := t.exact
	if into {
		m = t.suffixes
	}
	name, err := mx.Normal(suffix)
	if err != nil {
		return fmt.Errorf("domain %q: %w", domain, err)
	}
	if m[name] != nil {
		return fmt.Errorf("domain %q has a route already", domain)
	}
	m[name] = r
	return nil
}

// Match returns the route of a domain in the normal form of mx.Normal, or nil. It does not allocate.
func (t *Table) Match(domain string) *Route {
	if r := t.exact[domain]; r != nil {
		return r
	}
	if len(t.suffixes) > 0 {
		for {
			dot := strings.IndexByte(domain, '.')
			if dot < 0 {
				break
			}
			domain = domain[dot+1:]
			if r := t.suffixes[domain]; r != nil {
				return r
			}
		}
	}
	return t.any
}

// Place is the index of the route in the list that NewTable got.
func (r *Route) Place() int { return r.place }

// Question is what has to be looked up for the mail of a domain in normal form. known is what is found without asking; neither says that there is
// nothing to find, since the mail is discarded.
func (r *Route) Question(domain string) (q mx.Query, known *mx.Answer, ask bool) {
	switch r.Kind {
	case Discard:
		return q, nil, false
	case Local:
		return q, r.answer, false
	case Host:
		return r.query, nil, true
	}
	return mx.Query{Kind: mx.Exchangers, Name: domain}, nil, true
}

// Pattern is the one of the Domains of the route that a domain in normal form matches, as it was written; "" = none.
func (r *Route) Pattern(domain string) (best string) {
	long := -1
	for _, d := range r.Domains {
		suffix, below := strings.CutPrefix(d, "*.")
		name, err := mx.Normal(suffix)
		switch {
		case d == "*":
			if long < 0 {
				best, long = d, 0
			}
		case err != nil:
		case !below && name == domain:
			return d
		case below && strings.HasSuffix(domain, "."+name) && len(name) > long:
			best, long = d, len(name)
		}
	}
	return best
}
