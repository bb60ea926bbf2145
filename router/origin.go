package router

import (
	"hash/fnv"
	"net/netip"

	"mailrace/proto/message"
	"mailrace/router/mx"
)

// SourceOf is where a connection to an address comes from that carries no mail, but asks something about a domain in normal form: a source of the pool
// of mail without labels for the domain. "" = there is no pool, and it comes from any address of this machine; !ok = no source of the pool reaches
// the address. The source of a domain stays the same while it is in service, since hosts put off strangers; domains part by the weights. route and a
// lead to the domain; nil = by MX, and not known yet. Any goroutine.
func (r *Router) SourceOf(route *Route, domain string, a *mx.Answer, to netip.Addr) (name string, ok bool) {
	if r.sources == nil {
		return "", true
	}
	if route == nil {
		route = &Route{Kind: MX}
	}
	p := r.schedulers[0].poolOf(route, &message.Message{}, domain, r.policies.at(a))
	if p == nil {
		return "", true
	}
	sum, fallback := int64(0), ""
	for i := range p.members {
		if m := &p.members[i]; m.reach(to) {
			if m.out() == 0 {
				sum += m.weight
			} else if fallback == "" {
				fallback = m.Name
			}
		}
	}
	if sum == 0 {
		return fallback, fallback != ""
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(domain))
	at := int64(h.Sum64() % uint64(sum))
	for i := range p.members {
		m := &p.members[i]
		if !m.reach(to) || m.out() != 0 {
			continue
		}
		if name = m.Name; at < m.weight {
			break
		}
		at -= m.weight
	}
	return name, true
}

// reach says whether the source reaches an address.
func (src *source) reach(to netip.Addr) bool { return src.IPv4 && to.Is4() || src.IPv6 && to.Is6() }
