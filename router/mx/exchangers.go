package mx

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// exchangers finds the mail exchangers of a domain. RFC 5321 §5.1, RFC 7505. While what known says of the MX records holds, only addresses are
// asked for.
func (r *Resolver) exchangers(q Query, known *entry) *entry {
	if known != nil && known.Class == OK && known.listed != nil {
		if left := time.Duration(int64(known.listedUntil)-r.opts.Now().Unix()) * time.Second; left > r.opts.TTLMin {
			return r.reach(q, known.listed, int(known.best), known.Validated, left).under(known.Records)
		}
	}
	set, err := r.lookup(q.Name, dns.TypeMX)
	if err != nil { // no verdict on MX must not be taken for "no MX"
		return r.temporary(q, err)
	}
	if !set.exists {
		return r.permanent(q, 550, "5.1.2", "the domain "+q.Name+" does not exist", set.ttl)
	}
	if len(set.rrs) == 0 {
		return r.reach(q, []Host{{Name: q.Name}}, 1, set.validated, min(set.ttl, r.opts.NegativeMax))
	}
	hosts, null := named(set.rrs)
	switch {
	case null:
		return r.permanent(q, 556, "5.1.10", "the domain "+q.Name+" takes no mail (null MX)", set.ttl)
	case len(hosts) == 0:
		return r.permanent(q, 550, "5.4.4", "no mail exchanger of "+q.Name+" has a valid name", set.ttl)
	}
	best := preferredTo(hosts, func(h *Host) bool { return r.own[h.Name] })
	if best == 0 {
		return r.loops(q, set.ttl)
	}
	e := r.reach(q, hosts[:min(len(hosts), listedMost)], min(best, exchangersMost), set.validated, set.ttl)
	if set.name != q.Name {
		e = e.under(&Records{Base: set.name})
	}
	return e
}

// under notes where the CNAMEs of the domain lead; nil = there are none.
func (e *entry) under(alias *Records) *entry {
	if e.Class == OK {
		e.Records = alias
	}
	return e
}

func (r *Resolver) loops(q Query, ttl time.Duration) *entry {
	return r.permanent(q, 550, "5.4.6", "mail for "+q.Name+" loops back to this host", ttl)
}

// named returns the exchangers with a valid name in order of preference, those of the same by name, each once. null: the domain says that it
// takes no mail. A null MX beside others breaks RFC 7505 §3 and is passed over.
func named(rrs []dns.RR) (hosts []Host, null bool) {
	null = true
	for _, rr := range rrs {
		mx := rr.(*dns.MX)
		if mx.Mx == "." {
			continue
		}
		null = false
		name := strings.ToLower(strings.TrimSuffix(mx.Mx, "."))
		if _, err := netip.ParseAddr(name); err == nil || !valid(name) {
			continue
		}
		hosts = append(hosts, Host{Name: name, Preference: mx.Preference})
	}
	slices.SortFunc(hosts, func(a, b Host) int {
		return cmp.Or(cmp.Compare(a.Preference, b.Preference), strings.Compare(a.Name, b.Name))
	})
	seen := make(map[string]bool, len(hosts))
	hosts = slices.DeleteFunc(hosts, func(h Host) bool {
		again := seen[h.Name]
		seen[h.Name] = true
		return again
	})
	return hosts, null
}

// preferredTo returns how many hosts are preferred to the first that is this node itself: those behind it would send the mail back.
// RFC 5321 §5.1
func preferredTo(hosts []Host, self func(*Host) bool) int {
	for i := range hosts {
		if self(&hosts[i]) {
			for i > 0 && hosts[i-1].Preference == hosts[i].Preference {
				i--
			}
			return i
		}
	}
	return len(hosts)
}

// reach finds the addresses of the first best hosts of those listed, which holds for ttl.
func (r *Resolver) reach(q Query, listed []Host, best int, validated bool, ttl time.Duration) *entry {
	hosts, found := slices.Clone(listed[:best]), r.addressesOfAll(listed[:best])
	for i, e := range found {
		if hosts[i].Addrs, hosts[i].Validated = nil, false; e.Class == OK {
			hosts[i].Addrs, hosts[i].Validated = e.Hosts[0].Addrs, e.Hosts[0].Validated
		}
	}
	n := preferredTo(hosts, func(h *Host) bool {
		return slices.ContainsFunc(h.Addrs, func(a netip.Addr) bool { return r.ownAddr[a.Unmap()] })
	})
	if n == 0 {
		return r.loops(q, ttl)
	}
	hosts, found = hosts[:n], found[:n]
	now, holds, hidden := r.opts.Now(), ttl, 0
	var unknown, stale *entry
	var reached []Host
	for i, e := range found {
		holds = min(holds, e.Expires.Sub(now))
		if e.Class == Temporary {
			unknown = e
		}
		if e.Stale && (stale == nil || e.until < stale.until) {
			stale = e
		}
		h := hosts[i]
		h.Addrs = r.allowedOf(h.Addrs)
		if hidden += len(hosts[i].Addrs) - len(h.Addrs); len(h.Addrs) > 0 {
			reached = append(reached, h)
		}
	}
	switch {
	case len(reached) == 0 && unknown != nil:
		return r.temporary(q, unknown.failed)
	case len(reached) == 0 && hidden > 0:
		return r.permanent(q, 550, "5.4.4", "mail exchangers of "+q.Name+" have no public address", holds)
	case len(reached) == 0 && listed[0].Name == q.Name:
		return r.permanent(q, 550, "5.4.4", "the domain "+q.Name+" has neither a mail exchanger nor an address", holds)
	case len(reached) == 0:
		return r.permanent(q, 550, "5.4.4", "no mail exchanger of "+q.Name+" has an address", holds)
	}
	e := r.ok(q, keyOf(hosts), slices.Clip(reached), validated, holds)
	if stale != nil {
		e.Stale, e.until = true, stale.until
	}
	e.listed, e.best, e.listedUntil = listed, uint8(best), uint32(now.Add(min(ttl, r.opts.TTLMax)).Unix())
	if len(reached) == len(listed) {
		e.listed = e.Hosts
	}
	if last := found[0].look.Load(); last != nil {
		e.shareWith(last)
	}
	found[0].look.Store(e)
	return e
}

// addressesOfAll finds the addresses of hosts, of all at the same time.
func (r *Resolver) addressesOfAll(hosts []Host) []*entry {
	found := make([]*entry, len(hosts))
	var all sync.WaitGroup
	for i := 1; i < len(hosts); i++ {
		all.Go(func() { found[i] = r.addressesShared(hosts[i].Name) })
	}
	found[0] = r.addressesShared(hosts[0].Name)
	all.Wait()
	return found
}

// allowedOf returns those of addrs that a mail exchanger may have: addrs itself, if that is all.
func (r *Resolver) allowedOf(addrs []netip.Addr) []netip.Addr {
	if !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !r.allowed(a) }) {
		return addrs
	}
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return !r.allowed(a) })
}

// keyOf names the set of hosts.
func keyOf(hosts []Host) string {
	if len(hosts) == 1 {
		return hosts[0].Name
	}
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
