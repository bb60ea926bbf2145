package mx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/miekg/dns"
)

// Options configure a Resolver. Zero values stand for the defaults.
type Options struct {
	Servers []netip.AddrPort // recursive resolvers, asked in this order; those of /etc/resolv.conf
	Timeout time.Duration    // for one server to answer one query; 3 seconds
	Rounds  int              // how often the list of servers is gone through; 2

	Workers int // lookups under way at once; 64
	Pending int // lookups that wait for a worker at most; 65,536
	Entries int // answers kept at most, 25 bytes each without the answers; 262,144. Some 1% are lost when half of the room is used

	// Own are the names of this node: mail exchangers with one of them, and all that are not preferred to it, are dropped. RFC 5321 §5.1
	Own []string
	// OwnAddrs are the addresses of this node: an exchanger that has one of them counts as this node.
	OwnAddrs []netip.Addr
	// Allow are addresses that mail exchangers may have although they are private, loopback or otherwise not public.
	Allow []netip.Prefix

	Now func() time.Time // time.Now
}

// complete replaces zero values by the defaults.
func (o *Options) complete() error {
	for _, n := range []struct {
		value *int
		zero  int
	}{{&o.Rounds, 2}, {&o.Workers, 64}, {&o.Pending, 65_536}, {&o.Entries, 262_144}} {
		if *n.value <= 0 {
			*n.value = n.zero
		}
	}
	if o.Timeout <= 0 {
		o.Timeout = 3 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if len(o.Servers) > 0 {
		return nil
	}
	conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return fmt.Errorf("find the resolvers: %w", err)
	}
	for _, s := range conf.Servers {
		if addr, err := netip.ParseAddrPort(net.JoinHostPort(s, conf.Port)); err == nil {
			o.Servers = append(o.Servers, addr)
		}
	}
	if len(o.Servers) == 0 {
		return errors.New("find the resolvers: /etc/resolv.conf names none")
	}
	return nil
}

// Resolver finds mail exchangers and their addresses in DNS and remembers what it found. All methods may be called by any goroutine.
type Resolver struct {
	opts    Options
	own     map[string]bool
	ownAddr map[netip.Addr]bool
	cache   *cache
	working atomic.Int32 // index of the server that answered last
	figures figures

	mu      sync.Mutex
	waiting map[Query]*pending // in work, or with a worker that looks it up
	work    chan *pending
	closed  bool
	workers sync.WaitGroup
	ending  context.Context // done when Close was called
	end     context.CancelFunc
	hosts   flights // address lookups that workers make on their way
}

// pending is a lookup with those who want to know.
type pending struct {
	query Query
	done  []func(*Answer) // guarded by Resolver.mu
}

// New returns a resolver with its workers started.
func New(o Options) (*Resolver, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("mx: %w", err)
	}
	r := &Resolver{
		opts:    o,
		own:     map[string]bool{},
		ownAddr: map[netip.Addr]bool{},
		cache:   newCache(o.Entries),
		waiting: map[Query]*pending{},
		work:    make(chan *pending, o.Pending),
		hosts:   flights{under: map[string]*flight{}},
	}
	r.ending, r.end = context.WithCancel(context.Background())
	for _, name := range o.Own {
		n, err := Normal(name)
		if err != nil {
			return nil, fmt.Errorf("mx: own name %q: %w", name, err)
		}
		r.own[n] = true
	}
	for _, a := range o.OwnAddrs {
		r.ownAddr[a.Unmap()] = true
	}
	r.register()
	for range o.Workers {
		r.workers.Go(func() {
			for p := range r.work {
				r.serve(p)
			}
		})
	}
	return r, nil
}

// Close ends the workers. Lookups that wait or are under way are answered with Temporary before it returns.
func (r *Resolver) Close() {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.work)
	}
	r.mu.Unlock()
	r.end()
	r.workers.Wait()
}

// Cached returns the answer that is known and still valid. It does not wait and does not allocate.
func (r *Resolver) Cached(q Query) (*Answer, bool) {
	a := r.cache.get(q, r.opts.Now())
	if a == nil {
		r.figures.misses.Inc()
		return nil, false
	}
	r.figures.hits.Inc()
	return a, true
}

// Lookup finds the answer and calls done with it exactly once, on a worker's goroutine or before it returns. Lookups of the same question
// share one. It returns false when Options.Pending others wait already or the resolver is closed: then done is never called.
func (r *Resolver) Lookup(q Query, done func(*Answer)) bool {
	if a := r.cache.get(q, r.opts.Now()); a != nil {
		done(a)
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	if p := r.waiting[q]; p != nil {
		p.done = append(p.done, done)
		r.figures.shared.Inc()
		return true
	}
	q.Name = strings.Clone(q.Name) // it may be a piece of a message
	p := &pending{query: q, done: []func(*Answer){done}}
	select {
	case r.work <- p:
		r.waiting[q] = p
		return true
	default:
		r.figures.overflows.Inc()
		return false
	}
}

// serve looks p up on a worker.
func (r *Resolver) serve(p *pending) {
	start := time.Now()
	a := r.resolve(p.query)
	r.figures.seconds.UpdateDuration(start)
	r.figures.lookups[a.Class].Inc()
	r.cache.put(a, r.opts.Now())
	r.mu.Lock()
	delete(r.waiting, p.query)
	done := p.done
	r.mu.Unlock()
	for _, f := range done {
		f(a)
	}
}

// figures are the metrics of a resolver.
type figures struct {
	set                             *metrics.Set
	hits, misses, shared, overflows *metrics.Counter
	queries, failures, truncated    *metrics.Counter
	panics                          *metrics.Counter
	lookups                         [3]*metrics.Counter // by Class
	seconds                         *metrics.Histogram
}

func (r *Resolver) register() {
	s := metrics.NewSet()
	f := &r.figures
	f.set = s
	f.hits = s.NewCounter(`mailrace_dns_cache_hits_total`)
	f.misses = s.NewCounter(`mailrace_dns_cache_misses_total`)
	f.shared = s.NewCounter(`mailrace_dns_lookups_shared_total`)
	f.overflows = s.NewCounter(`mailrace_dns_lookups_refused_total`)
	f.queries = s.NewCounter(`mailrace_dns_queries_total`)
	f.failures = s.NewCounter(`mailrace_dns_queries_failed_total`)
	f.truncated = s.NewCounter(`mailrace_dns_queries_truncated_total`)
	f.panics = s.NewCounter(`mailrace_dns_panics_total`)
	for c := range f.lookups {
		f.lookups[c] = s.NewCounter(fmt.Sprintf(`mailrace_dns_lookups_total{result=%q}`, Class(c)))
	}
	f.seconds = s.NewHistogram(`mailrace_dns_lookup_duration_seconds`)
	s.NewGauge(`mailrace_dns_cache_entries`, func() float64 { return float64(r.cache.len()) })
	s.NewGauge(`mailrace_dns_lookups_pending`, func() float64 { return float64(len(r.work)) })
}

// Metrics is the set of mailrace_dns_* metrics, to be registered by whoever serves them.
func (r *Resolver) Metrics() *metrics.Set { return r.figures.set }
