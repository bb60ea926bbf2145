package mx

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Why Find has no answer, beside what the context says.
var (
	ErrBusy   = errors.New("too many lookups are waiting")
	ErrClosed = errors.New("the resolver is closed")
)

// Resolver finds mail exchangers and other facts in DNS and remembers what it found. All methods may be called by any goroutine.
type Resolver struct {
	opts    Options
	own     map[string]bool
	ownAddr map[netip.Addr]bool
	cache   *cache
	servers []*server
	sockets chan struct{} // as many as there may be; who has one in it may have one open
	figures figures

	mu      sync.Mutex
	waiting map[Query]*pending // in work, or with a worker that looks it up
	work    chan *pending
	working int // workers
	closed  bool
	workers sync.WaitGroup
	ending  context.Context // done when Close was called
	end     context.CancelFunc
	hosts   flights // address lookups that are under way
}

// pending is a lookup with those who want to know.
type pending struct {
	query Query
	done  []func(*Answer) // guarded by Resolver.mu
}

// New returns a resolver.
func New(o Options) (*Resolver, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("mx: %w", err)
	}
	r := &Resolver{
		opts:    o,
		own:     map[string]bool{},
		ownAddr: map[netip.Addr]bool{},
		cache:   newCache(o.Entries),
		sockets: make(chan struct{}, o.Sockets),
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
	for _, addr := range o.Servers {
		r.servers = append(r.servers, r.newServer(addr))
	}
	return r, nil
}

// Close ends the workers. Lookups that wait or are under way are answered with Temporary before it returns.
func (r *Resolver) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.end()
	r.workers.Wait()
}

// Cached returns the answer that is known and may be used. It does not wait and does not allocate, but for when it is time to have an answer
// that is in use asked for again, ahead of its expiry; then it sees to that.
func (r *Resolver) Cached(q Query) (*Answer, bool) {
	now := r.opts.Now()
	e, due, busy := r.cache.get(q, now.Unix())
	if e == nil || due && !r.checkDue(e, busy, now) {
		r.figures.misses.Inc()
		return nil, false
	}
	r.figures.hits.Inc()
	return &e.Answer, true
}

// checkDue looks at what came out of the cache and is due: is it to be used, and to be refreshed?
func (r *Resolver) checkDue(e *entry, busy bool, now time.Time) bool {
	if !e.live(now) {
		return false
	}
	if e.Stale {
		r.figures.stale.Inc()
	} else if busy && r.cache.claim(e, now) {
		r.refresh(e.Query)
	}
	return true
}

// Lookup finds the answer and calls done with it exactly once, on a worker's goroutine or before it returns. Lookups of the same question
// share one. It returns false when Options.Pending others wait already or the resolver is closed: then done is never called.
func (r *Resolver) Lookup(q Query, done func(*Answer)) bool {
	if e, due, busy := r.cache.get(q, r.opts.Now().Unix()); e != nil && (!due || r.checkDue(e, busy, r.opts.Now())) {
		done(&e.Answer)
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ask(q, done)
}

// Find waits for the answer. It is not for event loops.
func (r *Resolver) Find(ctx context.Context, q Query) (*Answer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	found := make(chan *Answer, 1)
	if !r.Lookup(q, func(a *Answer) { found <- a }) {
		if r.ending.Err() != nil {
			return nil, ErrClosed
		}
		return nil, ErrBusy
	}
	select {
	case a := <-found:
		return a, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("look up %s: %w", q.Name, ctx.Err())
	}
}

// refresh has q asked again, if there is nothing better to do.
func (r *Resolver) refresh(q Query) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.work) <= cap(r.work)/2 && r.waiting[q] == nil && r.ask(q, nil) {
		r.figures.refreshes.Inc()
	}
}

// ask puts a lookup into work, or joins the one that is under way. r.mu is held.
func (r *Resolver) ask(q Query, done func(*Answer)) bool {
	if r.closed {
		return false
	}
	if p := r.waiting[q]; p != nil {
		p.done = append(p.done, done)
		r.figures.shared.Inc()
		return true
	}
	q.Name = strings.Clone(q.Name) // it may be a piece of a message
	p := &pending{query: q}
	if done != nil {
		p.done = append(p.done, done)
	}
	select {
	case r.work <- p:
	default:
		r.figures.overflows.Inc()
		return false
	}
	r.waiting[q] = p
	if r.working < r.opts.Workers {
		r.working++
		r.workers.Go(r.serveAll)
	}
	return true
}

// serveAll is a worker: it does what waits, and ends when nothing does.
func (r *Resolver) serveAll() {
	for {
		select {
		case p := <-r.work:
			r.serve(p)
			continue
		default:
		}
		r.mu.Lock()
		if len(r.work) == 0 { // who puts more into it holds r.mu, and sees that a worker is missing
			r.working--
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
	}
}

// serve looks p up on a worker.
func (r *Resolver) serve(p *pending) {
	start := time.Now()
	var e *entry
	if p.query.Kind == Addresses {
		e = r.addressesShared(p.query.Name)
	} else {
		e = r.answer(p.query)
	}
	r.figures.seconds.UpdateDuration(start)
	r.figures.lookups[e.Class].Inc()
	r.mu.Lock()
	delete(r.waiting, p.query)
	done := p.done
	r.mu.Unlock()
	for _, f := range done {
		f(&e.Answer)
	}
}
