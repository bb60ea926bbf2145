package ingress

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/proto/message"
	"mailrace/spool"
)

var claimsBegan = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// posted is a loop that runs what is posted when the test says so, or that has ended.
type posted struct {
	ended bool
	queue []func()
}

func (p *posted) Post(fn func()) bool {
	if !p.ended {
		p.queue = append(p.queue, fn)
	}
	return !p.ended
}

func (p *posted) run() {
	queue := p.queue
	p.queue = nil
	for _, fn := range queue {
		fn()
	}
}

// claimant notes what it was told.
type claimant struct {
	name  string
	notes *[]string
}

func (c claimant) Claimed(first message.ID) {
	*c.notes = append(*c.notes, fmt.Sprintf("%s %d", c.name, uint64(first)))
}

func newTestClaims(max int) *Claims { return NewClaims(time.Hour, max, new(metrics.Counter)) }

// claimOf makes a claim that is all in one shard with others.
func claimOf(n int, at time.Time) spool.Claim {
	c := spool.Claim{ID: message.ID(n), Expires: at.Add(time.Hour).UnixNano()}
	c.Key[1], c.Key[2], c.Key[3] = byte(n), byte(n>>8), byte(n>>16)
	return c
}

func TestClaimIsTakenOnce(t *testing.T) {
	c := newTestClaims(1000)
	claim := c.Of("shop", "app", "order 77", claimsBegan)
	if first, mine := c.Take(claim.Key, claimsBegan, nil, nil); first != 0 || !mine {
		t.Fatalf("a free key: %v, %v", first, mine)
	}
	claim.ID = 77
	c.Keep(claim)
	for _, k := range []struct {
		tenant, user, key string
		after             time.Duration
		want              message.ID
	}{
		{"shop", "app", "order 77", 0, 77},
		{"shop", "another", "order 77", 0, 77},
		{"shop", "", "order 77", time.Hour - 1, 77},
		{"shop", "app", "order 78", 0, 0},
		{"other", "app", "order 77", 0, 0},
		{"", "shop", "order 77", 0, 0},
		{"", "", "order 77", 0, 0},
		{"shop", "app", "order 77", time.Hour, 0},
	} {
		now := claimsBegan.Add(k.after)
		key := c.Of(k.tenant, k.user, k.key, now).Key
		first, mine := c.Take(key, now, nil, nil)
		if first != k.want || mine != (k.want == 0) {
			t.Errorf("%+v: %v, %v", k, first, mine)
		}
		if mine {
			c.GiveUp(key)
		}
	}
}

// TestUsersWithoutTenant have keys of their own.
func TestUsersWithoutTenant(t *testing.T) {
	c := newTestClaims(1000)
	seen := map[spool.ClaimKey]string{}
	for _, user := range []string{"", "ann", "bob"} {
		key := c.Of("", user, "order 77", claimsBegan).Key
		if other, ok := seen[key]; ok {
			t.Errorf("%q has the key of %q", user, other)
		}
		seen[key] = user
	}
}

// TestClaimantsWait for the owner, and for whoever follows it.
func TestClaimantsWait(t *testing.T) {
	c := newTestClaims(1000)
	claim := claimOf(5, claimsBegan)
	loop, gone, notes := &posted{}, &posted{ended: true}, []string{}
	ask := func(name string, on *posted) {
		t.Helper()
		if first, mine := c.Take(claim.Key, claimsBegan, on, claimant{name, &notes}); first != 0 || mine {
			t.Fatalf("%s: %v, %v", name, first, mine)
		}
	}
	expect := func(want ...string) {
		t.Helper()
		if loop.run(); !slices.Equal(notes, want) {
			t.Fatalf("told %q, want %q", notes, want)
		}
		notes = nil
	}
	c.Take(claim.Key, claimsBegan, loop, nil)
	for _, name := range []string{"a", "b"} {
		ask(name, loop)
	}
	ask("dead", gone)
	ask("c", loop)
	expect()
	c.GiveUp(claim.Key)
	expect("a 0")
	c.GiveUp(claim.Key)
	ask("d", loop)
	expect("b 0")
	c.GiveUp(claim.Key) // the loop of the next has ended
	expect("c 0")
	ask("e", loop)
	c.Keep(claim)
	expect("d 5", "e 5")
	if first, _ := c.Take(claim.Key, claimsBegan, loop, nil); first != 5 {
		t.Errorf("after all: %v", first)
	}
}

// TestClaimsOverflow drops the oldest and says so.
func TestClaimsOverflow(t *testing.T) {
	c := newTestClaims(claimShards * 10)
	for i := range 25 {
		now := claimsBegan.Add(time.Duration(i) * time.Second)
		claim := claimOf(i+1, now)
		if _, mine := c.Take(claim.Key, now, nil, nil); !mine {
			t.Fatalf("claim %d is taken", i)
		}
		c.Keep(claim)
	}
	now := claimsBegan.Add(25 * time.Second)
	if n := c.Len(); n != 10 || c.early.Get() != 15 {
		t.Errorf("%d claims, %d forgotten, want 10 and 15", n, c.early.Get())
	}
	for i, want := range map[int]message.ID{15: 0, 16: 16, 25: 25} {
		if first, _ := c.Take(claimOf(i, now).Key, now, nil, nil); first != want {
			t.Errorf("claim %d: %v", i, first)
		}
	}
	if before, dropped := c.Sweep(now); before != now.UnixNano() || !dropped {
		t.Errorf("sweep: before %v, %v", time.Unix(0, before).UTC(), dropped) // other shards are not full
	}
}

// TestClaimsSweep says what the spool may drop: nothing that is in the table.
func TestClaimsSweep(t *testing.T) {
	c := newTestClaims(claimShards * 2)
	if before, dropped := c.Sweep(claimsBegan); before != claimsBegan.UnixNano() || dropped {
		t.Errorf("empty: before %d, %v", before, dropped)
	}
	for i := range 3 * claimShards { // each shard gets three
		claim := claimOf(i+1, claimsBegan.Add(time.Duration(i)*time.Second))
		claim.Key[0] = byte(i % claimShards)
		c.Take(claim.Key, claimsBegan, nil, nil)
		c.Keep(claim)
	}
	oldest := claimOf(0, claimsBegan.Add(claimShards*time.Second)).Expires
	if before, dropped := c.Sweep(claimsBegan); before != oldest || !dropped {
		t.Errorf("overflowing: before %d, want %d, %v", before, oldest, dropped)
	}
	if _, dropped := c.Sweep(claimsBegan); dropped {
		t.Error("dropped twice")
	}
	if before, dropped := c.Sweep(claimsBegan.Add(2 * time.Hour)); before != claimsBegan.Add(2*time.Hour).UnixNano() || !dropped || c.Len() != 0 {
		t.Errorf("expired: before %d, %v, %d left", before, dropped, c.Len())
	}
}

// TestClaimsRestore takes back what the spool kept, in any order, under a window that has become shorter.
func TestClaimsRestore(t *testing.T) {
	c := newTestClaims(claimShards * 4)
	var kept []spool.Claim
	for i := range 6 {
		kept = append(kept, claimOf(i+1, claimsBegan.Add(time.Duration(i-5)*30*time.Minute)))
	}
	kept[5].Expires += int64(24 * time.Hour)
	rand.Shuffle(len(kept), func(i, j int) { kept[i], kept[j] = kept[j], kept[i] })
	c.Restore(kept, claimsBegan)
	for i, want := range []message.ID{0, 0, 0, 0, 5, 6} { // the first two were too many, and the next two have expired
		if first, _ := c.Take(claimOf(i+1, claimsBegan).Key, claimsBegan, nil, nil); first != want {
			t.Errorf("claim %d: %v, want %v", i+1, first, want)
		}
	}
	if c.Sweep(claimsBegan.Add(time.Hour)); c.Len() != 0 {
		t.Errorf("%d claims last longer than the window", c.Len())
	}
}

// TestClaimsUnderContention has many goroutines claim few keys: each key gets one message, and everybody is told which.
func TestClaimsUnderContention(t *testing.T) {
	c := newTestClaims(100_000)
	const keys, workers = 50, 8
	var messages [keys]atomic.Uint64
	var next atomic.Uint64
	var work sync.WaitGroup
	for w := range workers {
		work.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(w)))
			for range 2000 {
				k := rng.IntN(keys)
				r := &racer{c: c, claim: claimOf(k, claimsBegan), told: make(chan message.ID, 1), fails: rng.IntN(3) == 0, next: &next}
				switch first, mine := c.Take(r.claim.Key, claimsBegan, atOnce{}, r); {
				case mine:
					r.Claimed(0)
				case first != 0:
					r.told <- first
				}
				if id := <-r.told; id != 0 && !messages[k].CompareAndSwap(0, uint64(id)) && messages[k].Load() != uint64(id) {
					t.Errorf("key %d: message %d, and %d", k, messages[k].Load(), id)
				}
			}
		})
	}
	work.Wait()
}

// atOnce is a loop that does everything as it comes, like the goroutine that posts.
type atOnce struct{}

func (atOnce) Post(fn func()) bool { fn(); return true }

type racer struct {
	c     *Claims
	claim spool.Claim
	told  chan message.ID // 0 = it failed
	fails bool
	next  *atomic.Uint64
}

func (r *racer) Claimed(first message.ID) {
	switch {
	case first != 0:
		r.told <- first
	case r.fails:
		r.c.GiveUp(r.claim.Key)
		r.told <- 0
	default:
		r.claim.ID = message.ID(r.next.Add(1))
		r.c.Keep(r.claim)
		r.told <- r.claim.ID
	}
}

// BenchmarkClaim takes keys and keeps them, in a table that is full, and tells how large a claim is there.
func BenchmarkClaim(b *testing.B) {
	const held = 200_000
	before := heap()
	c := NewClaims(time.Hour, held, new(metrics.Counter))
	keys := make([]string, 2*held)
	for i := range keys {
		keys[i] = fmt.Sprint("order ", i)
	}
	mark := heap() - before
	at := 0
	claim := func() {
		claim := c.Of("shop", "", keys[at%len(keys)], claimsBegan)
		claim.ID = message.ID(at + 1)
		if _, mine := c.Take(claim.Key, claimsBegan, nil, nil); mine {
			c.Keep(claim)
		}
		at++
	}
	for range held {
		claim()
	}
	size := float64(heap()-before-mark) / float64(c.Len())
	b.ReportAllocs()
	for b.Loop() {
		claim()
	}
	b.ReportMetric(size, "B/claim")
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
