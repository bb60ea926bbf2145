// Package pool is what a site knows of the far ends of its connections: addresses in the order of preference, and which of them failed.
package pool

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"mailrace/router/mx"
)

// retryShift bounds how often the time for which a failed address is passed over doubles.
const retryShift = 4

// Address is one address of one host.
type Address struct {
	Host       string
	Preference uint16
	Addr       netip.Addr

	host     int   // index of its host in Hosts
	failures int   // in a row
	until    int64 // passed over until then, Unix nanoseconds
	best     bool  // no host has a lower preference
}

// Hosts are the addresses of a site. The zero Hosts has none. One goroutine owns it.
type Hosts struct {
	Families  Families   // it is set before the first Update
	Last      netip.Addr // the host that has it comes behind all others; invalid = there is none. It is set before the first Update
	addresses []*Address // in order of preference, those of one host together and in the order that DNS gave them
	failing   string     // host whose address failed last: its other addresses are tried before another host of its preference
}

// Update takes the hosts that a lookup found. Addresses that stay keep what is known of them.
func (h *Hosts) Update(hosts []mx.Host) {
	old := h.addresses
	h.addresses = make([]*Address, 0, len(hosts))
	var last []*Address
	for i := range hosts {
		shunned := h.Last.IsValid() && slices.Contains(hosts[i].Addrs, h.Last)
		for _, addr := range h.Families.order(hosts[i].Addrs) {
			a := find(old, hosts[i].Name, addr)
			if a == nil {
				a = &Address{Host: hosts[i].Name, Addr: addr}
			}
			a.Preference, a.host, a.best = hosts[i].Preference, i, hosts[i].Preference == hosts[0].Preference
			if shunned {
				a.Preference = math.MaxUint16
				last = append(last, a)
				continue
			}
			h.addresses = append(h.addresses, a)
		}
	}
	h.addresses = append(h.addresses, last...)
}

func find(as []*Address, host string, addr netip.Addr) *Address {
	for _, a := range as {
		if a.Addr == addr && a.Host == host {
			return a
		}
	}
	return nil
}

// Pick returns the address to try next: of the hosts with the lowest preference that have an address which is not passed over, a random one,
// so that load spreads over equals; but the host whose address failed last goes first while it has others, and of a host the first in
// the order of DNS. RFC 5321 §5.1. Addresses with a preference above bound are not considered. nil when there is none.
func (h *Hosts) Pick(now int64, bound uint16, r *rand.Rand) *Address {
	var best *Address
	equals, seen := 0, -1
	for _, a := range h.addresses {
		if best != nil && a.Preference != best.Preference || a.Preference > bound {
			break
		}
		if a.until > now || a.host == seen {
			continue
		}
		if a.Host == h.failing {
			return a
		}
		seen = a.host
		if equals++; r.IntN(equals) == 0 { // each of n equals stays with a chance of 1/n
			best = a
		}
	}
	return best
}

// Best says whether the domain prefers no other host to that of a.
func (h *Hosts) Best(a *Address) bool { return len(h.addresses) == 0 || a.best }

// Preferred returns the address of that name and number, if Pick could return it: it is not passed over, nor is another one preferred to it. nil =
// there is none.
func (h *Hosts) Preferred(now int64, host string, addr netip.Addr) *Address {
	for i, a := range h.addresses {
		if a.until > now {
			continue
		}
		for _, same := range h.addresses[i:] {
			if same.Preference == a.Preference && same.Addr == addr && same.Host == host && same.until <= now {
				return same
			}
		}
		return nil
	}
	return nil
}

// Failed notes that a did not work: it is passed over for the given time, longer with each failure in a row. It reports whether that is news:
// several connections to one address that fail together count once.
func (h *Hosts) Failed(a *Address, now int64, retry time.Duration) bool {
	h.failing = a.Host
	if a.until > now {
		return false
	}
	a.failures++
	a.until = now + int64(retry)<<min(a.failures-1, retryShift)
	return true
}

// PassesOver says whether some address is passed over.
func (h *Hosts) PassesOver(now int64) bool {
	return slices.ContainsFunc(h.addresses, func(a *Address) bool { return a.until > now })
}

// Works notes that a delivered.
func (h *Hosts) Works(a *Address) {
	a.failures, a.until = 0, 0
	if h.failing == a.Host {
		h.failing = ""
	}
}

// Forgive lets every address be tried again.
func (h *Hosts) Forgive() {
	for _, a := range h.addresses {
		a.until = 0
	}
	h.failing = ""
}

// Status is an address at one moment, for people to read.
type Status struct {
	Host     string
	Addr     netip.Addr
	Failures int       // in a row
	Until    time.Time // passed over until then; zero = it is in use
}

// Status describes all addresses, in their order.
func (h *Hosts) Status(now int64) []Status {
	all := make([]Status, len(h.addresses))
	for i, a := range h.addresses {
		all[i] = Status{Host: a.Host, Addr: a.Addr, Failures: a.failures}
		if a.until > now {
			all[i].Until = time.Unix(0, a.until)
		}
	}
	return all
}
