package mx

import (
	"net/netip"
	"time"
)

// Snapshot is what a resolver knows about a question, for people to read.
type Snapshot struct {
	Answer *Answer       // nil = nothing
	TTL    time.Duration // for which Answer may still be used; 0 = it expired
	Age    time.Duration // of Stale answers: how long the time that DNS gave them is over
	MXTTL  time.Duration // of Exchangers with Hosts: for which DNS said that these are the exchangers, perhaps for longer than its addresses hold
	Hosts  []HostSnapshot
	Asking bool // it is being asked for
}

// HostSnapshot is what is known about a mail exchanger of a domain, whether or not it is used.
type HostSnapshot struct {
	Host                // Addrs are those that may be connected to
	TTL   time.Duration // for which the addresses may still be used; 0 = they expired, or are not known
	Stale bool
	Fault string       // why it is not used; "" = it is
	Kept  []netip.Addr // addresses that may not be connected to: they are not public, and not allowed
}

// Snapshot tells what is known of q, without asking, waiting or leaving a trace. It is not for the hot path.
func (r *Resolver) Snapshot(q Query) Snapshot {
	now := r.opts.Now()
	r.mu.Lock()
	s := Snapshot{Asking: r.waiting[q] != nil}
	r.mu.Unlock()
	e := r.cache.peek(q)
	if e == nil {
		return s
	}
	s.Answer, s.TTL = &e.Answer, max(e.Expires.Sub(now), 0)
	if e.Stale {
		s.Age = now.Sub(time.Unix(int64(e.until), 0))
	}
	if e.listed == nil {
		return s
	}
	s.MXTTL = max(time.Unix(int64(e.listedUntil), 0).Sub(now), 0)
	used := map[string]bool{}
	for _, h := range e.Hosts {
		used[h.Name] = true
	}
	for i, h := range e.listed {
		s.Hosts = append(s.Hosts, r.hostSnapshot(h, i < int(e.best), used[h.Name], now))
	}
	return s
}

// hostSnapshot describes one of the hosts that MX records name. among: it is one of those in question; used: the answer has it.
func (r *Resolver) hostSnapshot(h Host, among, used bool, now time.Time) HostSnapshot {
	s := HostSnapshot{Host: Host{Name: h.Name, Preference: h.Preference}}
	e := r.cache.peek(Query{Addresses, h.Name})
	if e != nil {
		s.TTL, s.Stale = max(e.Expires.Sub(now), 0), e.Stale
		if e.Class == OK {
			s.Validated, s.Addrs = e.Hosts[0].Validated, r.allowedOf(e.Hosts[0].Addrs)
			for _, a := range e.Hosts[0].Addrs {
				if !r.allowed(a) {
					s.Kept = append(s.Kept, a)
				}
			}
		}
	}
	switch {
	case used:
	case r.own[h.Name]:
		s.Fault = "it is this node"
	case !among:
		s.Fault = "others are preferred to it: this node, or the first 10"
	case e == nil:
		s.Fault = "its addresses are not known"
	case e.Class != OK:
		s.Fault = e.Text
	case len(s.Addrs) == 0:
		s.Fault = "it has no public address"
	default:
		s.Fault = "this node has its address, or is preferred to it"
	}
	return s
}

// ServerStatus is the health of a name server.
type ServerStatus struct {
	Server   netip.AddrPort
	Trusted  bool      // its AD bit is believed
	Failures int       // in a row
	Dead     bool      // it is not asked
	Last     bool      // it is asked after the others
	Retry    time.Time // of one that is Dead or Last: until when
}

// Servers tells how the name servers do.
func (r *Resolver) Servers() (all []ServerStatus) {
	for _, s := range r.servers {
		all = append(all, s.status())
	}
	return all
}

func (s *server) status() ServerStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := ServerStatus{Server: s.addr, Trusted: s.trusted, Failures: s.failures}
	if s.backoff > 0 {
		st.Dead, st.Last, st.Retry = !s.alive, s.alive, s.retry
	}
	return st
}
