package egress

import (
	"net/netip"
	"sync"
	"time"
)

// addressesMax bounds how many addresses are remembered for one thing.
const addressesMax = 4096

// addresses are hosts about which something is remembered for a while. The zero value is ready for use. Any goroutine.
type addresses struct {
	mu    sync.Mutex
	until map[netip.AddrPort]time.Time
}

// add remembers an address for a time. When there are too many, those whose time is over go, or else any one.
func (as *addresses) add(a netip.AddrPort, now time.Time, d time.Duration) {
	as.mu.Lock()
	defer as.mu.Unlock()
	if as.until == nil {
		as.until = map[netip.AddrPort]time.Time{}
	}
	if len(as.until) >= addressesMax {
		for other, until := range as.until {
			if until.Before(now) {
				delete(as.until, other)
			}
		}
		for other := range as.until {
			if len(as.until) < addressesMax {
				break
			}
			delete(as.until, other)
		}
	}
	as.until[a] = now.Add(d)
}

// has says whether an address is remembered.
func (as *addresses) has(a netip.AddrPort, now time.Time) bool {
	as.mu.Lock()
	defer as.mu.Unlock()
	return now.Before(as.until[a])
}
