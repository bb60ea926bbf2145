package mx

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"
)

// remember puts an answer that holds for an hour.
func remember(c *cache, name string, now time.Time) *entry {
	expires := now.Add(time.Hour)
	e := &entry{Answer: Answer{Query: Query{Exchangers, name}, Expires: expires}, until: uint32(expires.Unix()), refresh: uint32(expires.Unix()) - 60}
	c.put(e)
	return e
}

func TestCacheSetsAreTwoLines(t *testing.T) {
	if n := unsafe.Sizeof(cacheSet{}); n != 128 {
		t.Errorf("a set has %d bytes", n)
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache(1000)
	now := time.Unix(1000, 0)
	used := remember(c, "used", now)
	for i := range 20_000 {
		remember(c, fmt.Sprint(i), now)
		if e, _, _ := c.get(used.Query, now.Unix()); e != used {
			t.Fatalf("what is in use was thrown out at %d", i)
		}
	}
	if n := c.len(); n != 1002 {
		t.Errorf("%d entries", n)
	}
}

func TestCacheKnowsWhatIsDueAndBusy(t *testing.T) {
	c, now := newCache(100), time.Unix(10_000, 0)
	e := remember(c, "a", now)
	refresh := time.Unix(int64(e.refresh), 0)
	for _, x := range []struct {
		at        time.Time
		due, busy bool
	}{
		{now, false, false}, {now, false, true}, {refresh.Add(-time.Second), false, true}, {refresh, true, true}, {e.Expires, true, true},
	} {
		if got, due, busy := c.get(e.Query, x.at.Unix()); got != e || due != x.due || busy != x.busy {
			t.Errorf("at %v: due %v, busy %v", x.at, due, busy)
		}
	}
	if !c.claim(e, refresh) || c.claim(e, refresh) {
		t.Error("not exactly one is to refresh it")
	}
	if c.claim(e, refresh.Add(refreshPause-time.Second)) || !c.claim(e, refresh.Add(refreshPause)) {
		t.Error("it is not due again after the pause")
	}
	again := remember(c, "a", refresh)
	if got, due, busy := c.get(e.Query, refresh.Unix()); got != again || due || busy {
		t.Errorf("after the refresh: due %v, busy %v", due, busy)
	}
	if c.claim(e, e.Expires.Add(time.Hour)) {
		t.Error("an entry that is not there any more can be claimed")
	}
}

// TestCacheReadersAndWriters: whoever reads gets the entry of the name asked for, or none, whatever is written.
func TestCacheReadersAndWriters(t *testing.T) {
	c, now := newCache(12), time.Unix(1000, 0) // two sets
	names := make([]string, 40)
	for i := range names {
		names[i] = fmt.Sprint("name", i)
	}
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(w)))
			for range 20_000 {
				name := names[r.IntN(len(names))]
				if w == 0 {
					remember(c, name, now)
				} else if e, _, _ := c.get(Query{Exchangers, name}, now.Unix()); e != nil && e.Query.Name != name {
					t.Errorf("asked for %s, got %s", name, e.Query.Name)
				}
			}
		})
	}
	all.Wait()
}

// million is a resolver that knows so many domains, each with its own exchanger's name, address and answer.
func million(n int) (*Resolver, []string) {
	c := newCache(2 * n)
	r := &Resolver{opts: Options{Now: time.Now}, cache: c}
	r.register()
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("domain%d.example", i)
	}
	expires := time.Now().Add(time.Hour)
	for _, i := range rand.Perm(n) {
		name, host := strings.Clone(names[i]), fmt.Sprintf("mx%d.example", i)
		a := Answer{Query: Query{Exchangers, name}, Expires: expires, Key: host}
		a.Hosts = []Host{{Name: host, Preference: 10, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}}}
		c.put(&entry{Answer: a, until: uint32(expires.Unix()), refresh: uint32(expires.Unix()), listed: a.Hosts, best: 1})
	}
	return r, names
}

// BenchmarkCached asks for names in the order of memory, as a name that just arrived is at hand; what the cache has of them is anywhere.
func BenchmarkCached(b *testing.B) {
	for _, n := range []int{1000, 1 << 20} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			r, names := million(n)
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportAllocs()
			b.ResetTimer()
			missed := 0
			for i := range b.N {
				if _, ok := r.Cached(Query{Exchangers, names[i%n]}); !ok {
					missed++
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n)-48, "B/domain") // without the names of this test
			if missed > b.N/20+10 {                                                             // a set may overflow
				b.Errorf("%d of %d are not known", missed, b.N)
			}
		})
	}
}

func TestCachedDoesNotAllocate(t *testing.T) {
	r := newResolver(t, world(t), nil)
	find(t, r, Exchangers, "one.example")
	name := []byte("one.example") // as it lies in a message
	if n := testing.AllocsPerRun(100, func() {
		if _, ok := r.Cached(Query{Exchangers, unsafe.String(&name[0], len(name))}); !ok {
			t.Error("not known")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
