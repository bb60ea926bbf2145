package mx

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// literal answers for an address literal. RFC 5321 §4.1.3
func (r *Resolver) literal(q Query) *entry {
	text, closed := strings.CutSuffix(q.Name[1:], "]")
	text6, is6 := strings.CutPrefix(text, "ipv6:")
	addr, err := netip.ParseAddr(text6)
	if !closed || err != nil || is6 != addr.Is6() || addr.Zone() != "" {
		return r.permanent(q, 550, "5.1.2", "not an address literal", r.opts.NegativeMax)
	}
	switch addr = addr.Unmap(); {
	case r.ownAddr[addr]:
		return r.loops(q, r.opts.NegativeMax)
	case !r.allowed(addr):
		return r.permanent(q, 550, "5.4.4", "the address is not public", r.opts.NegativeMax)
	}
	return r.ok(q, "["+addr.String()+"]", []Host{{Name: addr.String(), Addrs: []netip.Addr{addr}}}, false, r.opts.TTLMax)
}

// ofHost is the answer that a host has these addresses.
func (r *Resolver) ofHost(q Query, validated bool, ttl time.Duration, addrs ...netip.Addr) *entry {
	return r.ok(q, q.Name, []Host{{Name: q.Name, Validated: validated, Addrs: addrs}}, validated, ttl)
}

// addresses finds the addresses of a host, IPv4 first.
func (r *Resolver) addresses(q Query) *entry {
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
		v6, err6 = r.lookup(q.Name, dns.TypeAAAA)
	})
	v4, err4 := r.lookup(q.Name, dns.TypeA)
	both.Wait()
	var addrs []netip.Addr
	ttl, validated := r.opts.TTLMax, true
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
	// Whether the zone is signed one family tells as well as two: who suppresses the replies for one of them does not get rid of DANE.
	for i, err := range []error{err4, err6} {
		if err == nil {
			validated = validated && []rrset{v4, v6}[i].validated
		}
	}
	err := cmp.Or(err4, err6)
	switch {
	case len(addrs) == 0 && err != nil:
		return r.temporary(q, err)
	case len(addrs) == 0:
		return r.permanent(q, 550, "5.4.4", "the host "+q.Name+" has no address", min(v4.ttl, v6.ttl))
	case err != nil:
		ttl = 0 // ask again soon for the other family
	}
	e := r.ofHost(q, validated, ttl, addrs...)
	if target := cmp.Or(v4.name, v6.name); target != q.Name {
		e.Records = &Records{Base: target}
	}
	return e
}

func addressOf(rr dns.RR) (netip.Addr, bool) {
	switch rr := rr.(type) {
	case *dns.A:
		a, ok := netip.AddrFromSlice(rr.A)
		return a.Unmap(), ok
	case *dns.AAAA:
		a, ok := netip.AddrFromSlice(rr.AAAA)
		return a.Unmap(), ok
	}
	return netip.Addr{}, false
}
