package mx

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Bounds of how long an answer is believed, in seconds, whatever its TTL says.
const (
	ttlMin         = 30
	ttlMax         = 24 * 60 * 60
	ttlVerdictMax  = 15 * 60 // of a permanent verdict
	exchangersMost = 10      // of a domain; the least preferred are left out
	addressesMost  = 8       // of a host
)

// resolve asks DNS. It always has an answer, whatever DNS says.
func (r *Resolver) resolve(q Query) (a *Answer) {
	defer func() {
		if p := recover(); p != nil { // the last defence against a reply that the parser trips over
			r.figures.panics.Inc()
			a = r.temporary(q, fmt.Errorf("%s: the reply cannot be read", q.Name))
		}
	}()
	switch {
	case q.Kind == Addresses:
		return r.addresses(q.Name)
	case strings.HasPrefix(q.Name, "["):
		return r.literal(q)
	default:
		return r.exchangers(q)
	}
}

// ok completes an answer that leads somewhere.
func (r *Resolver) ok(q Query, key string, hosts []Host, ttl uint32) *Answer {
	return &Answer{Query: q, Hosts: hosts, Key: key, Hash: hash(key), Expires: r.expires(min(max(ttl, ttlMin), ttlMax))}
}

func (r *Resolver) temporary(q Query, err error) *Answer {
	return &Answer{Query: q, Class: Temporary, Code: 451, Enhanced: "4.4.3", Text: "name service: " + err.Error(), Expires: r.expires(ttlMin)}
}

// permanent is a verdict that bounces mail, so it is not believed for long.
func (r *Resolver) permanent(q Query, code int, enhanced, text string, ttl uint32) *Answer {
	return &Answer{Query: q, Class: Permanent, Code: code, Enhanced: enhanced, Text: text, Expires: r.expires(min(max(ttl, ttlMin), ttlVerdictMax))}
}

func (r *Resolver) expires(ttl uint32) time.Time {
	return r.opts.Now().Add(time.Duration(ttl) * time.Second)
}

// hash is FNV-1a.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// exchangers finds the mail exchangers of a domain. RFC 5321 §5.1, RFC 7505
func (r *Resolver) exchangers(q Query) *Answer {
	set, err := r.lookup(q.Name, dns.TypeMX)
	if err != nil { // no verdict on MX must not be taken for "no MX"
		return r.temporary(q, err)
	}
	if !set.exists {
		return r.permanent(q, 550, "5.1.2", "the domain "+q.Name+" does not exist", set.ttl)
	}
	if len(set.rrs) == 0 {
		return r.reach(q, []Host{{Name: q.Name}}, set.ttl, "the domain "+q.Name+" has neither a mail exchanger nor an address")
	}
	hosts, null := named(set.rrs)
	switch {
	case null:
		return r.permanent(q, 556, "5.1.10", "the domain "+q.Name+" takes no mail (null MX)", set.ttl)
	case len(hosts) == 0:
		return r.permanent(q, 550, "5.4.4", "no mail exchanger of "+q.Name+" has a valid name", set.ttl)
	}
	hosts = preferredTo(hosts, func(h *Host) bool { return r.own[h.Name] })
	if len(hosts) == 0 {
		return r.loops(q, set.ttl)
	}
	return r.reach(q, hosts[:min(len(hosts), exchangersMost)], set.ttl, "no mail exchanger of "+q.Name+" has an address")
}

func (r *Resolver) loops(q Query, ttl uint32) *Answer {
	return r.permanent(q, 550, "5.4.6", "mail for "+q.Name+" loops back to this host", ttl)
}

// named returns the exchangers with a valid name in order of preference, each once. null: the domain says that it takes no mail. A null MX
// beside others breaks RFC 7505 §3 and is passed over.
func named(rrs []dns.RR) (hosts []Host, null bool) {
	seen := map[string]bool{}
	null = true
	slices.SortStableFunc(rrs, func(a, b dns.RR) int { return int(a.(*dns.MX).Preference) - int(b.(*dns.MX).Preference) })
	for _, rr := range rrs {
		mx := rr.(*dns.MX)
		if mx.Mx == "." {
			continue
		}
		null = false
		name := strings.ToLower(strings.TrimSuffix(mx.Mx, "."))
		if _, err := netip.ParseAddr(name); err == nil || !valid(name) || seen[name] {
			continue
		}
		seen[name] = true
		hosts = append(hosts, Host{Name: name, Preference: mx.Preference})
	}
	return hosts, null
}

// preferredTo returns the hosts that are preferred to the first that is this node itself: those behind it would send the mail back.
// RFC 5321 §5.1
func preferredTo(hosts []Host, self func(*Host) bool) []Host {
	for i := range hosts {
		if self(&hosts[i]) {
			end := i
			for end > 0 && hosts[end-1].Preference == hosts[i].Preference {
				end--
			}
			return hosts[:end]
		}
	}
	return hosts
}

// reach finds the addresses of hosts. none is the verdict when there is no trace of one.
func (r *Resolver) reach(q Query, hosts []Host, ttl uint32, none string) *Answer {
	key := keyOf(hosts)
	var unknown *Answer
	hidden := 0
	for i := range hosts {
		a := r.addressesShared(hosts[i].Name)
		if a.Class == Temporary {
			unknown = a
		}
		if a.Class == OK {
			hosts[i].Addrs = a.Hosts[0].Addrs
		}
		ttl = min(ttl, uint32(max(a.Expires.Sub(r.opts.Now()), 0)/time.Second))
	}
	own := func(h *Host) bool {
		return slices.ContainsFunc(h.Addrs, func(a netip.Addr) bool { return r.ownAddr[a.Unmap()] })
	}
	others := preferredTo(hosts, own)
	if len(others) == 0 {
		return r.loops(q, ttl)
	}
	var reached []Host
	for _, h := range others {
		known := len(h.Addrs)
		h.Addrs = slices.DeleteFunc(slices.Clone(h.Addrs), func(a netip.Addr) bool { return !r.allowed(a) })
		hidden += known - len(h.Addrs)
		if len(h.Addrs) > 0 {
			reached = append(reached, h)
		}
	}
	switch {
	case len(reached) > 0:
		return r.ok(q, key, reached, ttl)
	case unknown != nil:
		return &Answer{Query: q, Class: Temporary, Code: unknown.Code, Enhanced: unknown.Enhanced, Text: unknown.Text, Expires: unknown.Expires}
	case hidden > 0:
		return r.permanent(q, 550, "5.4.4", "mail exchangers of "+q.Name+" have no public address", ttl)
	default:
		return r.permanent(q, 550, "5.4.4", none, ttl)
	}
}

// keyOf names the set of hosts.
func keyOf(hosts []Host) string {
	var b strings.Builder
	for i := range hosts {
		if i > 0 && hosts[i].Preference != hosts[i-1].Preference {
			b.WriteByte(';')
		} else if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(hosts[i].Name)
	}
	return b.String()
}

// literal answers for an address literal. RFC 5321 §4.1.3
func (r *Resolver) literal(q Query) *Answer {
	text, closed := strings.CutSuffix(q.Name[1:], "]")
	text6, is6 := strings.CutPrefix(text, "ipv6:")
	addr, err := netip.ParseAddr(text6)
	if !closed || err != nil || is6 != addr.Is6() || addr.Zone() != "" {
		return r.permanent(q, 550, "5.1.2", "not an address literal", ttlVerdictMax)
	}
	switch addr = addr.Unmap(); {
	case r.ownAddr[addr]:
		return r.loops(q, ttlVerdictMax)
	case !r.allowed(addr):
		return r.permanent(q, 550, "5.4.4", "the address is not public", ttlVerdictMax)
	}
	return r.ok(q, "["+addr.String()+"]", []Host{{Name: addr.String(), Addrs: []netip.Addr{addr}}}, ttlMax)
}

// addresses finds the addresses of a host, IPv4 first.
func (r *Resolver) addresses(name string) *Answer {
	q := Query{Addresses, name}
	if addr, err := netip.ParseAddr(name); err == nil {
		return r.ok(q, name, []Host{{Name: name, Addrs: []netip.Addr{addr}}}, ttlMax)
	}
	var v6 rrset
	var err6 error
	var both sync.WaitGroup
	both.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				r.figures.panics.Inc()
				err6 = errors.New("the reply cannot be read")
			}
		}()
		v6, err6 = r.lookup(name, dns.TypeAAAA)
	})
	v4, err4 := r.lookup(name, dns.TypeA)
	both.Wait()
	var addrs []netip.Addr
	ttl := uint32(ttlMax)
	for _, set := range []rrset{v4, v6} {
		if len(set.rrs) > 0 {
			ttl = min(ttl, set.ttl)
		}
		for _, rr := range set.rrs {
			if a, ok := addressOf(rr); ok && len(addrs) < addressesMost && !slices.Contains(addrs, a) {
				addrs = append(addrs, a)
			}
		}
	}
	err := errors.Join(err4, err6)
	switch {
	case len(addrs) > 0 && err != nil:
		return r.ok(q, name, []Host{{Name: name, Addrs: addrs}}, ttlMin) // ask again soon for the other family
	case len(addrs) > 0:
		return r.ok(q, name, []Host{{Name: name, Addrs: addrs}}, ttl)
	case err4 != nil:
		return r.temporary(q, err4)
	case err6 != nil:
		return r.temporary(q, err6)
	}
	return r.permanent(q, 550, "5.4.4", "the host "+name+" has no address", min(v4.ttl, v6.ttl))
}

func addressOf(rr dns.RR) (netip.Addr, bool) {
	switch rr := rr.(type) {
	case *dns.A:
		a, ok := netip.AddrFromSlice(rr.A)
		return a.Unmap(), ok
	case *dns.AAAA:
		a, ok := netip.AddrFromSlice(rr.AAAA)
		return a, ok
	}
	return netip.Addr{}, false
}

// flights let workers that need the addresses of the same host share one lookup. Only lookups that a worker is at are in it, so waiting for one
// is never waiting for oneself.
type flights struct {
	mu    sync.Mutex
	under map[string]*flight
}

type flight struct {
	landed chan struct{}
	answer *Answer
}

// addressesShared is addresses out of the cache, or of a lookup that another worker is at.
func (r *Resolver) addressesShared(name string) *Answer {
	q := Query{Addresses, name}
	if a := r.cache.get(q, r.opts.Now()); a != nil {
		return a
	}
	r.hosts.mu.Lock()
	f := r.hosts.under[name]
	if f != nil {
		r.hosts.mu.Unlock()
		<-f.landed
		return f.answer
	}
	f = &flight{landed: make(chan struct{})}
	r.hosts.under[name] = f
	r.hosts.mu.Unlock()
	f.answer = r.resolve(q)
	r.cache.put(f.answer, r.opts.Now())
	r.hosts.mu.Lock()
	delete(r.hosts.under, name)
	r.hosts.mu.Unlock()
	close(f.landed)
	return f.answer
}
