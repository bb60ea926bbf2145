package pool

import (
	"net/netip"
	"slices"
)

// Family is a family of addresses.
type Family uint8

const (
	// Any: as DNS gave them.
	Any Family = iota
	// IPv4 goes first.
	IPv4
	// IPv6 goes first.
	IPv6
)

// Families says which addresses of a host are used, and in which order.
type Families struct {
	Prefer Family
	Only4  bool // those of IPv6 cannot be reached
	Only6  bool // those of IPv4 cannot be reached
}

// order is what is used of the addresses of a host. The order within a family stays. It returns as itself where nothing is different.
func (f Families) order(addrs []netip.Addr) []netip.Addr {
	if f == (Families{}) {
		return addrs
	}
	used := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		if !a.IsValid() || a.Is4() && !f.Only6 || a.Is6() && !f.Only4 {
			used = append(used, a)
		}
	}
	if f.Prefer != Any {
		slices.SortStableFunc(used, func(a, b netip.Addr) int { return f.rank(a) - f.rank(b) })
	}
	return used
}

func (f Families) rank(a netip.Addr) int {
	if a.Is6() == (f.Prefer == IPv6) {
		return 0
	}
	return 1
}

// Second is the address of the same host to be tried beside a, when that takes long: the first of the other family that is not passed over, or nil.
// RFC 8305 §4
func (h *Hosts) Second(a *Address, now int64) *Address {
	for _, other := range h.addresses {
		if other.host == a.host && other.Addr.Is6() != a.Addr.Is6() && other.until <= now {
			return other
		}
	}
	return nil
}

// Reach says whether some of the addresses are used.
func (f Families) Reach(addrs []netip.Addr) bool {
	return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Is4() && !f.Only6 || a.Is6() && !f.Only4 })
}
