// Package policy adds to what DNS says of the mail exchangers of a domain what must be shown before its mail goes there: DANE (RFC 7672), by TLSA
// records that DNSSEC vouches for, and MTA-STS (RFC 8461), by a policy that the domain has on a web server. It is a resolver in front of the
// resolver: hosts that may not get the mail are left out of its answers, and the others come with a demand each, which also stands in the key
// of the site. So domains with the same hosts share connections if the same is demanded of them, and the policy of one never holds up the
// mail of another.
//
// DANE goes before MTA-STS: a host with TLSA records is judged by them alone. RFC 8461 §2
package policy

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/engine/keep"
	"mailrace/engine/tlsrpt"
	"mailrace/engine/web"
	"mailrace/proto/mtasts"
	"mailrace/router/mx"
)

const (
	lookupsMost  = 4096             // goroutines with a lookup each
	failurePause = 30 * time.Second // after which what is not known is asked again
	mendPause    = time.Minute      // after which a domain is looked at again that has no host that may get its mail
)

// DNS is whom to ask; *mx.Resolver is one.
type DNS interface {
	Cached(q mx.Query) (*mx.Answer, bool)
	Lookup(q mx.Query, done func(*mx.Answer)) bool
	Find(ctx context.Context, q mx.Query) (*mx.Answer, error)
	Allowed(a netip.Addr) bool
}

// Options configure a Resolver. Zero values stand for the defaults.
type Options struct {
	DNS  DNS  // required
	DANE bool // TLSA records count, where DNSSEC vouches for them
	STS  bool // MTA-STS policies count

	Entries int            // domains that are remembered; 500,000
	File    string         // where MTA-STS policies are kept across restarts; "" = nowhere
	FS      keep.FS        // that File is in; nil = that of the machine
	Roots   *x509.CertPool // who issues certificates of the web servers with policies; nil = those whom the system trusts
	Port    uint16         // of those servers; 443
	MXPort  uint16         // of mail exchangers, in the names of TLSA records; 25
	Timeout time.Duration  // for one policy to be fetched, which mail waits for the first time; 10 seconds
	Dial    web.Dial       // to the web server of a domain, whose name it gets; nil = from any address of this machine

	Reports *tlsrpt.Reports // are told of hosts that may not get mail, and of policies that cannot be fetched; nil = nobody is

	Log *slog.Logger
	Now func() time.Time // time.Now. Time on the wire is the real one
}

// Resolver finds mail exchangers with what is demanded of them. It has the methods of the resolver behind it, and all other questions go there.
// All methods may be called by any goroutine.
type Resolver struct {
	opts    Options
	known   verdicts
	sts     *policies // nil = MTA-STS is off
	under   atomic.Int64
	ending  context.Context // done when Close was called
	end     context.CancelFunc
	mu      sync.Mutex // guards closed, and running against it
	closed  bool
	running sync.WaitGroup
	metrics *metrics.Set
}

// New returns a resolver. It reads File; what cannot be read is logged, and done without.
func New(o Options) *Resolver {
	if o.Entries <= 0 {
		o.Entries = 500_000
	}
	if o.Port == 0 {
		o.Port = 443
	}
	if o.MXPort == 0 {
		o.MXPort = 25
	}
	if o.FS == nil {
		o.FS = keep.Disk{}
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	r := &Resolver{opts: o, metrics: metrics.NewSet()}
	r.known.open(o.Entries)
	r.ending, r.end = context.WithCancel(context.Background())
	if o.STS {
		r.sts = newPolicies(r)
		r.running.Go(r.sts.keep)
		r.running.Go(r.sts.refreshAll)
	}
	r.metrics.NewGauge("mailrace_tls_policy_domains", func() float64 { return float64(r.known.len()) })
	return r
}

// Close ends what is under way, which is answered with Temporary before it returns, and writes File.
func (r *Resolver) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.end()
	r.running.Wait()
}

// Policy is the MTA-STS policy of a domain as far as it is known, or nil.
func (r *Resolver) Policy(domain string) *mtasts.Policy {
	if r.sts == nil {
		return nil
	}
	if p := r.sts.cache.peek(domain); p != nil {
		return &p.Policy
	}
	return nil
}

// Metrics is the set of figures, to be registered by whoever serves them.
func (r *Resolver) Metrics() *metrics.Set { return r.metrics }

// Cached returns what is known and still valid. It does not wait and does not allocate.
func (r *Resolver) Cached(q mx.Query) (*mx.Answer, bool) {
	a, ok := r.opts.DNS.Cached(q)
	if !ok || a.Class != mx.OK || !concerns(q) {
		return a, ok
	}
	v := r.known.get(q.Name)
	if v.from != a || !r.opts.Now().Before(v.until) {
		return nil, false
	}
	return v.answer, true
}

// Lookup finds the answer and calls done with it exactly once, on a goroutine of its own or before it returns. It returns false when too many wait
// already or the resolver is closed: then done is never called.
func (r *Resolver) Lookup(q mx.Query, done func(*mx.Answer)) bool {
	if !concerns(q) {
		return r.opts.DNS.Lookup(q, done)
	}
	if a, ok := r.Cached(q); ok {
		done(a)
		return true
	}
	q.Name = strings.Clone(q.Name) // it may be a piece of a message
	return r.spawn(func() { done(r.resolve(q)) })
}

// Find waits for the answer. It is not for event loops.
func (r *Resolver) Find(ctx context.Context, q mx.Query) (*mx.Answer, error) {
	found := make(chan *mx.Answer, 1)
	if !r.Lookup(q, func(a *mx.Answer) { found <- a }) {
		return nil, mx.ErrBusy
	}
	select {
	case a := <-found:
		return a, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("look up %s: %w", q.Name, ctx.Err())
	}
}

// spawn does something beside, unless too much is under way.
func (r *Resolver) spawn(what func()) bool {
	if r.under.Add(1) > lookupsMost {
		r.under.Add(-1)
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		r.under.Add(-1)
		return false
	}
	r.running.Go(func() {
		defer r.under.Add(-1)
		what()
	})
	return true
}

// concerns says whether a policy can have anything to do with the answer: it is that of a domain, not of an address literal.
func concerns(q mx.Query) bool { return q.Kind == mx.Exchangers && !strings.HasPrefix(q.Name, "[") }

// resolve asks DNS and the web server of the domain, and joins what they say.
func (r *Resolver) resolve(q mx.Query) *mx.Answer {
	var wanted wanted
	var policy sync.WaitGroup
	if r.sts != nil {
		policy.Go(func() { wanted = r.sts.of(q.Name) })
	}
	a, err := r.opts.DNS.Find(r.ending, q)
	var found []*mx.Answer
	if err == nil && a.Class == mx.OK && a.Validated && r.opts.DANE {
		found = r.associations(a)
	}
	policy.Wait()
	if err != nil {
		return temporary(q, "4.4.3", "name service: "+err.Error(), r.opts.Now().Add(failurePause))
	}
	if a.Class != mx.OK {
		return a
	}
	v := verdict{from: a, until: a.Expires}
	if wanted.until.Before(v.until) && r.sts != nil {
		v.until = wanted.until
	}
	for _, f := range found {
		if f.Expires.Before(v.until) {
			v.until = f.Expires
		}
	}
	v.answer = judge(a, wanted.policy, found)
	r.report(a, wanted.policy, found)
	if v.answer.Class != mx.OK {
		if again := r.opts.Now().Add(mendPause); again.Before(v.until) {
			v.until = again
		}
	}
	if v.answer != a {
		v.answer.Expires = v.until
	}
	r.known.put(q.Name, v)
	return v.answer
}

// verdicts are what is known of domains: at most so many, of which any one goes when there is no room. Readers of different domains seldom meet.
type verdicts struct {
	most  int // of a shard
	shard [64]struct {
		sync.RWMutex
		of map[string]verdict
	}
}

// verdict is what the policies make of an answer of DNS.
type verdict struct {
	from   *mx.Answer
	answer *mx.Answer // from itself, where nothing is demanded
	until  time.Time
}

func (v *verdicts) open(entries int) {
	v.most = max(entries/len(v.shard), 1)
	for i := range v.shard {
		v.shard[i].of = map[string]verdict{}
	}
}

func (v *verdicts) get(domain string) verdict {
	s := &v.shard[mx.Hash(domain)%uint64(len(v.shard))]
	s.RLock()
	defer s.RUnlock()
	return s.of[domain]
}

func (v *verdicts) put(domain string, what verdict) {
	s := &v.shard[mx.Hash(domain)%uint64(len(v.shard))]
	s.Lock()
	defer s.Unlock()
	if _, there := s.of[domain]; !there && len(s.of) >= v.most {
		for other := range s.of {
			delete(s.of, other)
			break
		}
	}
	s.of[domain] = what
}

// len is how many domains are remembered.
func (v *verdicts) len() (n int) {
	for i := range v.shard {
		v.shard[i].RLock()
		n += len(v.shard[i].of)
		v.shard[i].RUnlock()
	}
	return n
}
