package ingress

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"
)

var epoch = time.Unix(1_000_000, 0)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// TestClientKeys: an IPv6 customer has a /64, and an IPv4 address may come in IPv6 form.
func TestClientKeys(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b            string
		client, network bool // the same one
	}{
		{"192.0.2.1", "::ffff:192.0.2.1", true, true},
		{"192.0.2.1", "192.0.2.2", false, true},
		{"192.0.2.1", "192.0.3.1", false, false},
		{"2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true, true},
		{"2001:db8:1:2::1", "2001:db8:1:3::1", false, true},
		{"2001:db8:1:2::1", "2001:db8:2:2::1", false, false},
		{"192.0.2.0", "::c000:200:0:0", false, false},
		{"fe80::1%eth0", "fe80::2", true, true},
	} {
		clientA, networkA := clientKeys(addr(c.a))
		clientB, networkB := clientKeys(addr(c.b))
		if (clientA == clientB) != c.client || (networkA == networkB) != c.network {
			t.Errorf("%s and %s: %v %v, %v %v", c.a, c.b, clientA, clientB, networkA, networkB)
		}
		if clientA == networkA {
			t.Errorf("%s: client and network share a key", c.a)
		}
	}
}

// TestA8Quotas counts what clients and networks do under a clock of its own (A8).
func TestA8Quotas(t *testing.T) {
	t.Parallel()
	a, neighbour, far := addr("192.0.2.1"), addr("192.0.2.2"), addr("198.51.100.1")
	enter := func(c *Clients, from netip.Addr, at time.Duration, want verdict) visit {
		t.Helper()
		v, got := c.enter(from, epoch.Add(at))
		if got != want {
			t.Errorf("%s at %s: %s, want %s", from, at, got, want)
		}
		return v
	}
	t.Run("open connections", func(t *testing.T) {
		c := NewClients(ClientLimits{Client: Quota{Connections: 2}, Network: Quota{Connections: 3}, Interval: time.Minute}, 10, epoch)
		first := enter(c, a, 0, admitted)
		enter(c, a, 0, admitted)
		enter(c, a, 0, tooManyConnections)
		enter(c, a, time.Hour, tooManyConnections) // they do not age
		last := enter(c, neighbour, 0, admitted)
		enter(c, neighbour, 0, tooManyConnections) // the network's
		enter(c, far, 0, admitted)
		c.leave(first)
		enter(c, a, 0, admitted)
		c.leave(last)
		enter(c, neighbour, 0, admitted)
	})
	t.Run("new connections", func(t *testing.T) {
		c := NewClients(ClientLimits{Client: Quota{ConnectionRate: 60}, Interval: time.Minute}, 10, epoch)
		for range 60 {
			c.leave(enter(c, a, 30*time.Second, admitted))
		}
		enter(c, a, 59*time.Second, tooManyNew)
		enter(c, a, time.Minute, tooManyNew) // the interval slides
		for range 30 {
			c.leave(enter(c, a, 90*time.Second, admitted))
		}
		enter(c, a, 90*time.Second, tooManyNew)
		enter(c, a, 4*time.Minute, admitted)
	})
	t.Run("messages and recipients", func(t *testing.T) {
		c := NewClients(ClientLimits{Client: Quota{Messages: 3, Recipients: 10}, Network: Quota{Recipients: 12}, Interval: time.Minute}, 10, epoch)
		v, w := enter(c, a, 0, admitted), enter(c, neighbour, 0, admitted)
		for i, step := range []struct {
			of         visit
			left       int
			why        verdict
			recipients int
		}{
			{v, 10, admitted, 4},
			{v, 6, admitted, 6},
			{v, 0, tooManyRecipients, 0},
			{w, 2, admitted, 1}, // the network's
			{w, 1, admitted, 0},
			{w, 1, admitted, 0},
			{w, 0, tooManyMessages, 0},
		} {
			left, why := c.message(step.of, epoch)
			if why != step.why || why == admitted && left != step.left {
				t.Errorf("step %d: %d recipients, %s", i, left, why)
			}
			c.add(step.of, step.recipients, 0, epoch)
		}
		if left, why := c.message(v, epoch.Add(2*time.Minute)); left != 10 || why != admitted {
			t.Errorf("later: %d recipients, %s", left, why)
		}
	})
	t.Run("errors", func(t *testing.T) {
		c := NewClients(ClientLimits{Client: Quota{Errors: 5}, Interval: time.Minute}, 10, epoch)
		v := enter(c, a, 0, admitted)
		c.add(v, 0, 5, epoch)
		enter(c, a, time.Second, tooManyErrors)
		enter(c, neighbour, time.Second, admitted)
		enter(c, a, 2*time.Minute, admitted)
	})
	t.Run("no quota", func(t *testing.T) {
		c := NewClients(ClientLimits{Interval: time.Minute}, 10, epoch)
		v := enter(c, a, 0, admitted)
		c.add(v, 1000, 1000, epoch)
		if left, why := c.message(v, epoch); left != unlimited || why != admitted {
			t.Errorf("%d, %s", left, why)
		}
		c.leave(v)
	})
}

// TestA8FloodOfAddresses sends a connection from each of a million addresses: the table does not grow, and does not forget those that are open.
func TestA8FloodOfAddresses(t *testing.T) {
	c := NewClients(ClientLimits{Client: Quota{Connections: 1, ConnectionRate: 10}, Network: Quota{Connections: 1000}, Interval: time.Minute}, 1000, epoch)
	loyal := make([]netip.Addr, 1000)
	visits := make([]visit, len(loyal))
	counted := 0
	for i := range loyal {
		loyal[i] = netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1})
		visits[i], _ = c.enter(loyal[i], epoch)
		if visits[i].inClient {
			counted++
		}
	}
	if counted != len(loyal) {
		t.Fatalf("%d of %d clients counted", counted, len(loyal))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var b [4]byte
	for i := range uint32(1_000_000) {
		binary.BigEndian.PutUint32(b[:], 0x20000000+i*256)
		v, _ := c.enter(netip.AddrFrom4(b), epoch.Add(time.Duration(i)*time.Microsecond))
		c.leave(v)
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.TotalAlloc - before.TotalAlloc); grown > 1<<20 {
		t.Errorf("a million clients allocated %d bytes", grown)
	}
	for i, a := range loyal {
		if _, why := c.enter(a, epoch.Add(time.Minute)); why != tooManyConnections {
			t.Fatalf("client %d: %s: its open connection was forgotten", i, why)
		}
		c.leave(visits[i])
		if _, why := c.enter(a, epoch.Add(time.Minute)); why != admitted {
			t.Fatalf("client %d: %s", i, why)
		}
	}
	t.Logf("%d MiB for %d entries", uintptr(len(c.buckets))*unsafe.Sizeof(clientBucket{})>>20, len(c.buckets)*clientWays)
}

// TestFullBucket lets in uncounted who finds no place, and does not miscount when it leaves.
func TestFullBucket(t *testing.T) {
	t.Parallel()
	c := NewClients(ClientLimits{Client: Quota{Connections: 1}, Interval: time.Minute}, 1, epoch)
	c.buckets = c.buckets[:1]
	var held []visit
	for i := range clientWays {
		v, why := c.enter(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), epoch)
		if why != admitted || !v.inClient {
			t.Fatalf("client %d: %+v, %s", i, v, why)
		}
		held = append(held, v)
	}
	late := netip.AddrFrom4([4]byte{10, 0, 1, 0})
	v, why := c.enter(late, epoch)
	if why != admitted || v.inClient {
		t.Fatalf("%+v, %s", v, why)
	}
	c.add(v, 1, 1, epoch)
	c.leave(held[0])
	w, _ := c.enter(late, epoch)
	c.leave(v) // was not counted
	if _, why := c.enter(late, epoch); !w.inClient || why != tooManyConnections {
		t.Errorf("%+v, %s", w, why)
	}
}

// TestClientsInParallel is for the race detector, and counts right.
func TestClientsInParallel(t *testing.T) {
	t.Parallel()
	c := NewClients(ClientLimits{Client: Quota{Connections: 100_000, Messages: 1 << 30}, Network: Quota{Connections: 100_000}, Interval: time.Minute}, 100, epoch)
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 5000 {
				v, _ := c.enter(netip.AddrFrom4([4]byte{10, 0, byte(i), byte(g)}), epoch)
				c.message(v, epoch)
				c.add(v, 1, 1, epoch)
				c.leave(v)
			}
		})
	}
	all.Wait()
	for i := range c.buckets {
		for _, e := range c.buckets[i] {
			if e.open != 0 {
				t.Fatalf("%+v", e)
			}
		}
	}
}

func BenchmarkClientsMessage(b *testing.B) {
	c := NewClients(ClientLimits{Client: Quota{Messages: 1 << 30, Recipients: 1 << 30}, Network: Quota{Messages: 1 << 30}, Interval: time.Minute}, 100, epoch)
	v, _ := c.enter(addr("192.0.2.1"), epoch)
	b.ReportAllocs()
	for b.Loop() {
		c.message(v, epoch)
		c.add(v, 1, 0, epoch)
	}
}
