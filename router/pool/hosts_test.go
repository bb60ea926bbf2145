package pool

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"mailrace/router/mx"
)

func host(name string, preference uint16, addrs ...string) mx.Host {
	h := mx.Host{Name: name, Preference: preference}
	for _, a := range addrs {
		h.Addrs = append(h.Addrs, netip.MustParseAddr(a))
	}
	return h
}

// tour picks and fails until nothing is left.
func tour(h *Hosts, now int64, r *rand.Rand) (names []string) {
	for {
		a := h.Pick(now, math.MaxUint16, r)
		if a == nil {
			return names
		}
		names = append(names, a.Host+" "+a.Addr.String())
		h.Failed(a, now, time.Minute)
	}
}

func TestAddressesThenHostsInOrderOfPreference(t *testing.T) {
	hosts := []mx.Host{host("a", 5, "192.0.2.1", "2001:db8::1"), host("b", 10, "192.0.2.2", "192.0.2.3"), host("c", 10, "192.0.2.4", "192.0.2.5"), host("d", 20, "192.0.2.6")}
	r := rand.New(rand.NewPCG(1, 1))
	seen := map[string]int{}
	for range 1000 {
		var h Hosts
		h.Update(hosts)
		got := tour(&h, 1, r)
		bc := []string{"a 192.0.2.1", "a 2001:db8::1", "b 192.0.2.2", "b 192.0.2.3", "c 192.0.2.4", "c 192.0.2.5", "d 192.0.2.6"}
		cb := []string{"a 192.0.2.1", "a 2001:db8::1", "c 192.0.2.4", "c 192.0.2.5", "b 192.0.2.2", "b 192.0.2.3", "d 192.0.2.6"}
		switch {
		case slices.Equal(got, bc):
			seen["bc"]++
		case slices.Equal(got, cb):
			seen["cb"]++
		default:
			t.Fatalf("order %v", got)
		}
	}
	if seen["bc"] < 400 || seen["cb"] < 400 {
		t.Errorf("equals are not spread: %v", seen)
	}
}

func TestThreeEqualsAreSpreadEvenly(t *testing.T) {
	var h Hosts
	h.Update([]mx.Host{host("a", 0, "192.0.2.1", "192.0.2.11", "192.0.2.21"), host("b", 0, "192.0.2.2"), host("c", 0, "192.0.2.3")})
	r := rand.New(rand.NewPCG(2, 1))
	seen := map[string]int{}
	for range 3000 {
		seen[h.Pick(1, math.MaxUint16, r).Host]++
	}
	for name, n := range seen {
		if n < 900 || n > 1100 {
			t.Errorf("%s picked %d times of 3000", name, n)
		}
	}
}

func TestFailedAddressComesBack(t *testing.T) {
	var h Hosts
	hosts := []mx.Host{host("a", 1, "192.0.2.1"), host("b", 2, "192.0.2.2")}
	h.Update(hosts)
	r := rand.New(rand.NewPCG(1, 1))
	now := int64(0)
	pick := func() *Address { return h.Pick(now, math.MaxUint16, r) }
	a := pick()
	for i, minutes := range []int64{1, 2, 4, 8, 16, 16} {
		if !h.Failed(a, now, time.Minute) {
			t.Fatal("a failure is no news")
		}
		if h.Failed(a, now, time.Minute) {
			t.Fatal("a second connection's failure counts again")
		}
		h.Update(hosts) // a fresh answer of DNS keeps what is known
		now += minutes*int64(time.Minute) - 1
		if got := pick(); got.Host != "b" {
			t.Fatalf("failure %d: picked %s before its time", i, got.Host)
		}
		now++
		if got := pick(); got != a {
			t.Fatalf("failure %d: picked %s", i, got.Host)
		}
	}
	h.Failed(a, now, time.Minute)
	h.Works(a)
	if pick() != a {
		t.Error("an address that works is passed over")
	}
	h.Failed(a, now, time.Minute)
	h.Forgive()
	if pick() != a {
		t.Error("an address that was forgiven is passed over")
	}
}

func TestBound(t *testing.T) {
	var h Hosts
	h.Update([]mx.Host{host("a", 1, "192.0.2.1"), host("b", 2, "192.0.2.2")})
	r := rand.New(rand.NewPCG(1, 1))
	h.Failed(h.Pick(0, 1, r), 0, time.Minute)
	if got := h.Pick(0, 1, r); got != nil {
		t.Errorf("picked %s beyond the bound", got.Host)
	}
}

// TestLast: the host that comes behind all others is asked when they are not to be had, with all of its addresses, and is no better or worse for the
// domain.
func TestLast(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for name, c := range map[string]struct {
		last string
		want []string
	}{
		"the best":     {"192.0.2.11", []string{"b 192.0.2.2", "c 192.0.2.3", "a 192.0.2.1", "a 192.0.2.11"}},
		"one between":  {"192.0.2.2", []string{"a 192.0.2.1", "a 192.0.2.11", "c 192.0.2.3", "b 192.0.2.2"}},
		"none of them": {"192.0.2.9", []string{"a 192.0.2.1", "a 192.0.2.11", "b 192.0.2.2", "c 192.0.2.3"}},
		"the last one": {"192.0.2.3", []string{"a 192.0.2.1", "a 192.0.2.11", "b 192.0.2.2", "c 192.0.2.3"}},
	} {
		h := Hosts{Last: netip.MustParseAddr(c.last)}
		h.Update([]mx.Host{host("a", 5, "192.0.2.1", "192.0.2.11"), host("b", 10, "192.0.2.2"), host("c", 20, "192.0.2.3")})
		for _, a := range h.addresses {
			if best := a.Host == "a"; h.Best(a) != best {
				t.Errorf("%s: %s is the best: %v", name, a.Host, !best)
			}
		}
		if got := tour(&h, 1, r); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
