package recipients

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/engine/loop"
	"mailrace/proto/smtp"
	"mailrace/router"
	"mailrace/router/mx"
)

// Bounds of probes.
const (
	probesMax       = 50      // under way at once
	domainProbesMax = 10      // of them for one domain
	queueMax        = 1000    // that wait for their turn; beyond, nothing is known
	cacheMax        = 100_000 // verdicts in each of two generations, some 40 bytes each
	targetsMax      = 3       // addresses that are tried
	downMax         = 10_000  // domains whose hosts could not be asked

	probeLimit = 20 * time.Second // from its turn to its end
	downFor    = time.Minute      // how long a domain is not asked whose hosts could not be
)

// prober asks the next hosts of domains for recipients, one question for all who want to know the same. What it remembers of a recipient comes
// from a reply to RCPT and from nothing else: not from what became of any content, so that nobody can put a verdict into it.
type prober struct {
	o      *Options
	seed   maphash.Seed
	counts [3]*metrics.Counter // probes that ended, by verdict

	mu      sync.Mutex
	cache   *cache
	down    map[string]time.Time // domains that are not asked, and until when
	flights map[string]*flight   // under way or waiting, by address
	running map[string]int       // under way, by domain
	total   int                  // under way
	queue   []*flight
}

// flight is a question under way. All but waiting and next belongs to its loop, once it has begun.
type flight struct {
	table   *table
	name    string // address in the form in which they are compared
	rcpt    string // as it came
	domain  string
	key     uint64
	loop    *loop.Loop
	ends    time.Time
	targets []router.Target
	waiting []waiter
}

type waiter struct {
	loop *loop.Loop
	tell func(verdict)
}

func newProber(o *Options, set *metrics.Set) *prober {
	p := &prober{
		o: o, seed: maphash.MakeSeed(), cache: newCache(cacheMax), down: map[string]time.Time{}, flights: map[string]*flight{}, running: map[string]int{},
	}
	for v := range p.counts {
		p.counts[v] = set.NewCounter(fmt.Sprintf("mailrace_recipient_probes_total{result=%q}", verdict(v)))
	}
	return p
}

// check says what is known of a recipient, or has it asked and told.
func (p *prober) check(l *loop.Loop, t *table, local []byte, domain string, rcpt *smtp.Path, tell func(verdict)) (v verdict, known bool) {
	var room [maxKey]byte
	name := append(append(append(room[:0], local...), '@'), domain...)
	key, now := maphash.Bytes(p.seed, name), l.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if v, known = p.cache.get(key, now); known {
		return v, true
	}
	if now.Before(p.down[domain]) {
		return unsure, true
	}
	if f := p.flights[string(name)]; f != nil {
		f.waiting = append(f.waiting, waiter{l, tell})
		return unsure, false
	}
	if len(p.queue) >= queueMax {
		return unsure, true
	}
	f := &flight{table: t, name: string(name), rcpt: string(rcpt.Path), domain: strings.Clone(domain), key: key, loop: l, waiting: []waiter{{l, tell}}}
	p.flights[f.name] = f
	p.queue = append(p.queue, f)
	p.launch()
	return unsure, false
}

// launch begins the questions whose turn it is, each on its loop. p.mu is held.
func (p *prober) launch() {
	kept := p.queue[:0]
	for _, f := range p.queue {
		if p.total >= probesMax || p.running[f.domain] >= domainProbesMax {
			kept = append(kept, f)
			continue
		}
		p.total++
		p.running[f.domain]++
		f.loop.Post(func() { p.begin(f) })
	}
	clear(p.queue[len(kept):])
	p.queue = kept
}

// begin finds out whom to ask.
func (p *prober) begin(f *flight) {
	f.ends = f.loop.Now().Add(probeLimit)
	route := p.o.Routes.Match(f.domain)
	if route == nil {
		p.end(f, unsure)
		return
	}
	q, resolver := mx.Query{Kind: mx.Exchangers, Name: f.domain}, p.o.Resolver
	switch route.Kind {
	case router.Discard: // it takes everything
		p.end(f, there)
		return
	case router.Local:
		if route.Manner.Protocol == router.Maildir { // directories are made as they are needed
			p.end(f, there)
			return
		}
		f.targets = []router.Target{{Route: route.Name, Kind: route.Kind, TLS: route.TLS, Path: route.Path, Manner: route.Manner}}
		p.ask(f)
		return
	case router.Host:
		q = mx.Query{Kind: mx.Addresses, Name: route.Host}
	case router.MX:
		if p.o.Policed != nil && route.TLS != router.TLSOff {
			resolver = p.o.Policed
		}
	}
	if !resolver.Lookup(q, func(a *mx.Answer) { f.loop.Post(func() { p.resolved(f, route, a) }) }) {
		p.end(f, unsure)
	}
}

// resolved asks the hosts that were found, in their order.
func (p *prober) resolved(f *flight, route *router.Route, a *mx.Answer) {
	for i := range a.Hosts {
		for _, addr := range a.Hosts[i].Addrs {
			source, ok := "", true
			if p.o.Source != nil {
				source, ok = p.o.Source(route, f.domain, a, addr)
			}
			if ok && len(f.targets) < targetsMax {
				f.targets = append(f.targets, router.Target{
					Route: route.Name, Host: a.Hosts[i].Name, Addr: netip.AddrPortFrom(addr, route.Port), Kind: route.Kind, TLS: route.TLS,
					Manner: route.Manner, Demand: a.DemandOf(a.Hosts[i].Name), Source: source,
				})
			}
		}
	}
	p.ask(f)
}

// ask asks the next host.
func (p *prober) ask(f *flight) {
	left := f.ends.Sub(f.loop.Now())
	if len(f.targets) == 0 || left <= 0 {
		p.end(f, unsure)
		return
	}
	target := f.targets[0]
	f.targets = f.targets[1:]
	if len(f.targets) > 0 {
		left /= 2 // one that does not answer leaves time for another
	}
	p.o.Ask(f.loop, target, f.rcpt, left, func(r *smtp.Reply) {
		if r == nil {
			p.ask(f)
			return
		}
		p.answered(f, judge(r))
	})
}

// judge reads a reply to RCPT. Refusals that are not about the recipient (of our address, say, or for now) say nothing about it.
func judge(r *smtp.Reply) verdict {
	switch {
	case r.Code/100 == 2:
		return there
	case r.Code/100 != 5:
		return unsure
	case strings.HasPrefix(r.Enhanced, "5.1."), r.Enhanced == "5.2.1": // RFC 3463 §3.2, §3.3
		return absent
	case r.Enhanced == "" && (r.Code == 550 || r.Code == 551 || r.Code == 553):
		return absent
	}
	return unsure
}

// answered ends a question that got a reply.
func (p *prober) answered(f *flight, v verdict) {
	p.mu.Lock()
	switch v {
	case there:
		p.cache.put(f.key, entry{until: f.loop.Now().Add(f.table.Known).UnixNano()})
	case absent:
		p.cache.put(f.key, entry{until: f.loop.Now().Add(f.table.Unknown).UnixNano(), absent: true})
	}
	p.mu.Unlock()
	p.finish(f, v)
}

// end ends a question that got none: unless it needed none, its domain is left alone for a while.
func (p *prober) end(f *flight, v verdict) {
	if v == unsure {
		p.mu.Lock()
		if len(p.down) >= downMax {
			clear(p.down)
		}
		p.down[f.domain] = f.loop.Now().Add(downFor)
		p.mu.Unlock()
	}
	p.finish(f, v)
}

// finish tells those who wait, and begins what waits for its turn.
func (p *prober) finish(f *flight, v verdict) {
	p.counts[v].Inc()
	p.mu.Lock()
	delete(p.flights, f.name)
	p.total--
	if p.running[f.domain]--; p.running[f.domain] == 0 {
		delete(p.running, f.domain)
	}
	waiting := f.waiting
	p.launch()
	p.mu.Unlock()
	for _, w := range waiting {
		w.loop.Post(func() { w.tell(v) })
	}
}
