package mx

import (
	"net/netip"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Options configure a Resolver. Zero values stand for the defaults.
type Options struct {
	Servers []netip.AddrPort // recursive resolvers, asked in this order; those of /etc/resolv.conf
	Timeout time.Duration    // for one server to answer one query; 3 seconds
	Rounds  int              // how often the list of servers is gone through; 2

	Workers int // lookups under way at once; 64
	Pending int // lookups that wait for a worker at most; 65,536
	Entries int // answers kept at most; 262,144

	// Own are the names of this node: mail exchangers with one of them, and all that are not preferred to it, are dropped. RFC 5321 §5.1
	Own []string
	// OwnAddrs are the addresses of this node: an exchanger that has one of them counts as this node.
	OwnAddrs []netip.Addr
	// Allow are addresses that mail exchangers may have although they are private, loopback or otherwise not public.
	Allow []netip.Prefix

	Now func() time.Time // time.Now
}

// Resolver finds mail exchangers and their addresses in DNS and remembers what it found. All methods may be called by any goroutine.
type Resolver struct{ metrics *metrics.Set }

// New returns a resolver with its workers started.
func New(o Options) (*Resolver, error) { return &Resolver{}, nil }

// Close ends the workers when their lookups under way have ended. Lookups that still wait are answered with Temporary.
func (r *Resolver) Close() {}

// Cached returns the answer that is known and still valid. It does not wait and does not allocate.
func (r *Resolver) Cached(q Query) (*Answer, bool) { return nil, false }

// Lookup finds the answer and calls done with it exactly once, on a worker's goroutine or before it returns. Lookups of the same question
// share one. It returns false when Options.Pending others wait already or the resolver is closed: then done is never called.
func (r *Resolver) Lookup(q Query, done func(*Answer)) bool { return false }

// Metrics is the set of mailrace_dns_* metrics, to be registered by whoever serves them.
func (r *Resolver) Metrics() *metrics.Set { return r.metrics }
