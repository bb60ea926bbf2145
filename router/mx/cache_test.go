package mx

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// remember puts an answer that holds for an hour.
func remember(c *cache, name string, now time.Time) *entry {
	expires := now.Add(time.Hour)
	e := &entry{Answer: Answer{Query: Query{Exchangers, name}, Expires: expires}, until: uint32(expires.Unix()), refresh: uint32(expires.Unix()) - 60}
	c.put(e)
	return e
}

func TestCacheLinesAreLines(t *testing.T) {
	if n := unsafe.Sizeof(cacheLine{}); n != 64 {
		t.Errorf("a line has %d bytes", n)
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
	c, now := newCache(12), time.Unix(1000, 0) // four lines
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

// million is a resolver that found out about n domains, with so many sets of two exchangers among them, and their names.
func million(t testing.TB, n, sets int) (*Resolver, []string) {
	r, err := New(Options{
		Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}, Entries: 2 * (n + 2*sets), Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("domain%d.example", i)
	}
	host := func(set, i int) string { return fmt.Sprintf("mx%d.provider%d.example", i, set) }
	learn := func(set int) {
		for i := range 2 {
			addr := netip.AddrFrom4([4]byte{10, byte(set >> 16), byte(set >> 8), byte(set)})
			r.cache.put(r.ofHost(Query{Addresses, host(set, i)}, false, time.Hour, addr))
		}
	}
	for set := range sets {
		learn(set)
	}
	for _, i := range rand.Perm(n) {
		set := i % sets
		listed := []Host{{Name: host(set, 0), Preference: 10}, {Name: host(set, 1), Preference: 20}}
		for i := range listed {
			if r.cache.peek(Query{Addresses, listed[i].Name}) == nil {
				learn(set) // its set of places was full
			}
		}
		r.cache.put(r.reach(Query{Exchangers, strings.Clone(names[i])}, listed, 2, false, time.Hour))
	}
	return r, names
}

// resident is the memory of this process, MiB.
func resident(t testing.TB) float64 {
	var total, pages int
	text, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		_, err = fmt.Sscan(string(text), &total, &pages)
	}
	if err != nil {
		t.Skip(err)
	}
	return float64(pages) * float64(os.Getpagesize()) / (1 << 20)
}

// processor is how long this thread has computed, nanoseconds.
func processor(t testing.TB) int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		t.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkCached asks for names in the order of memory, as a name that just arrived is at hand; what the cache has of them is anywhere. With
// -short it is left at a thousand.
func BenchmarkCached(b *testing.B) {
	for _, x := range []struct{ domains, sets int }{{1000, 10}, {1_000_000, 10_000}, {1_000_000, 1_000_000}} {
		if x.domains > 1000 && testing.Short() {
			continue
		}
		var r *Resolver
		var names []string
		var bytes, rss float64
		b.Run(fmt.Sprintf("domains=%d/sites=%d", x.domains, x.sets), func(b *testing.B) {
			if r == nil { // the function runs several times
				var before, after runtime.MemStats
				debug.FreeOSMemory()
				runtime.ReadMemStats(&before)
				rss = -resident(b)
				r, names = million(b, x.domains, x.sets)
				debug.FreeOSMemory()
				runtime.ReadMemStats(&after)
				rss += resident(b)
				bytes = float64(after.HeapAlloc-before.HeapAlloc)/float64(x.domains) - 48 // without the names of this test
			}
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			b.ReportAllocs()
			b.ResetTimer()
			missed, start := 0, processor(b)
			for i := range b.N {
				if _, ok := r.Cached(Query{Exchangers, names[i%x.domains]}); !ok {
					missed++
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(processor(b)-start)/float64(b.N), "cpu-ns/op") // what ns/op is where nobody else computes
			b.ReportMetric(bytes, "B/domain")
			b.ReportMetric(rss, "RSS-MiB")
			if missed > b.N/20+10 { // a set may overflow
				b.Errorf("%d of %d are not known", missed, b.N)
			}
		})
		r, names = nil, nil
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
