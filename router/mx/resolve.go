package mx

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Bounds of what is taken from one answer.
const (
	exchangersMost = 10      // of a domain; the least preferred are left out
	listedMost     = 20      // of a domain that are remembered, to be shown
	addressesMost  = 8       // of a host
	recordsMost    = 32      // TXT or TLSA
	recordBytes    = 4 << 10 // of one of them: a certificate fits
)

const (
	failureTTL   = 30 * time.Second // after which a question without a verdict may be asked again. RFC 2308 §7
	staleTTL     = 30 * time.Second // after which it is tried to replace a stale answer. RFC 8767 §5
	refreshPause = 30 * time.Second // between attempts to refresh an answer ahead of its expiry
	refreshPart  = 10               // an answer is refreshed in the last tenth of its time
)

// answer asks for q and puts what it learned into the cache: the answer of DNS, or what was known before, where DNS has none.
func (r *Resolver) answer(q Query) *entry {
	known := r.cache.peek(q)
	e := r.resolve(q, known)
	now := r.opts.Now()
	if e.Class != Temporary || known == nil || known.Class != OK || q.Kind > Addresses || errors.Is(e.failed, errBogus) {
		r.cache.put(e)
		return e
	}
	if known.live(now) && !known.Stale {
		return known // it was refreshed ahead of its expiry
	}
	if now.Unix() >= int64(known.until)+int64(r.opts.StaleMax/time.Second) {
		r.cache.put(e)
		return e
	}
	stale := &entry{
		Answer: known.Answer, until: known.until, refresh: known.refresh, failed: e.failed,
		listed: known.listed, best: known.best, listedUntil: known.listedUntil,
	}
	stale.Stale, stale.Expires = true, now.Add(staleTTL)
	r.figures.staled.Inc()
	r.cache.put(stale)
	return stale
}

// resolve asks DNS. It always has an answer, whatever DNS says. known is the last one, or nil.
func (r *Resolver) resolve(q Query, known *entry) (e *entry) {
	defer func() {
		if p := recover(); p != nil { // the last defence against a reply that the parser trips over
			r.figures.panics.Inc()
			e = r.temporary(q, fmt.Errorf("%s: the reply cannot be read", q.Name))
		}
	}()
	if q.Kind == Exchangers && strings.HasPrefix(q.Name, "[") {
		return r.literal(q)
	}
	if _, err := netip.ParseAddr(q.Name); err == nil && q.Kind == Addresses {
		return r.ofHost(q, true, r.opts.TTLMax, netip.MustParseAddr(q.Name))
	}
	if !valid(q.Name) {
		return r.permanent(q, 550, "5.1.2", fmt.Sprintf("%.100q is not a domain name", q.Name), r.opts.NegativeMax)
	}
	switch q.Kind {
	case Addresses:
		return r.addresses(q)
	case Texts:
		return r.texts(q)
	case Associations:
		return r.associations(q)
	}
	return r.exchangers(q, known)
}

// entryOf makes an answer that holds for ttl, within bounds.
func (r *Resolver) entryOf(a Answer, ttl, most time.Duration) *entry {
	now := r.opts.Now()
	ttl = min(max(ttl, r.opts.TTLMin), most)
	a.Expires = now.Add(ttl)
	return &entry{Answer: a, until: uint32(a.Expires.Unix()), refresh: uint32(now.Add(ttl - ttl/refreshPart).Unix())}
}

// ok completes an answer that leads somewhere.
func (r *Resolver) ok(q Query, key string, hosts []Host, validated bool, ttl time.Duration) *entry {
	return r.entryOf(Answer{Query: q, Hosts: hosts, Key: key, Hash: Hash(key), Validated: validated}, ttl, r.opts.TTLMax)
}

// temporary is no verdict.
func (r *Resolver) temporary(q Query, err error) *entry {
	e := r.entryOf(Answer{Query: q, Class: Temporary, Code: 451, Enhanced: "4.4.3", Text: "name service: " + err.Error()}, 0, failureTTL)
	e.refresh, e.failed = e.until, err
	return e
}

// permanent is a verdict that bounces mail, so it is not believed for long.
func (r *Resolver) permanent(q Query, code int, enhanced, text string, ttl time.Duration) *entry {
	e := r.entryOf(Answer{Query: q, Class: Permanent, Code: code, Enhanced: enhanced, Text: text}, ttl, r.opts.NegativeMax)
	e.refresh = e.until
	return e
}

// Hash is that of a key of an answer: FNV-1a.
func Hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// flights let those who need the addresses of the same host share one lookup. Who waits for a flight waits for queries only, never for itself.
type flights struct {
	mu    sync.Mutex
	under map[string]*flight
}

type flight struct {
	landed chan struct{}
	entry  *entry
}

// addressesShared is the addresses of a host out of the cache, or of a lookup that somebody else is at, or of one of its own.
func (r *Resolver) addressesShared(name string) *entry {
	q := Query{Addresses, name}
	now := r.opts.Now()
	if e, _, _ := r.cache.get(q, now.Unix()); e != nil && e.fresh(now) {
		return e
	}
	r.hosts.mu.Lock()
	f := r.hosts.under[name]
	if f != nil {
		r.hosts.mu.Unlock()
		<-f.landed
		return f.entry
	}
	f = &flight{landed: make(chan struct{})}
	r.hosts.under[name] = f
	r.hosts.mu.Unlock()
	f.entry = r.answer(q)
	r.hosts.mu.Lock()
	delete(r.hosts.under, name)
	r.hosts.mu.Unlock()
	close(f.landed)
	return f.entry
}
