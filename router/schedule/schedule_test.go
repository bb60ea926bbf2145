package schedule

import (
	"math/rand/v2"
	"sort"
	"testing"
	"time"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestBackoffDoublesUpToItsBound(t *testing.T) {
	b := Backoff{Min: 5 * time.Minute, Max: 4 * time.Hour}
	r := rand.New(rand.NewPCG(1, 2))
	want := []time.Duration{5, 10, 20, 40, 80, 160, 240, 240, 240}
	for i, w := range want {
		if d := b.Delay(i+1, r); d != w*time.Minute {
			t.Errorf("after %d failures %v, want %v", i+1, d, w*time.Minute)
		}
	}
	for _, n := range []int{-1, 0, 61, 62, 63, 64, 1 << 30} {
		if d := b.Delay(n, r); d < b.Min || d > b.Max {
			t.Errorf("after %d failures %v", n, d)
		}
	}
}

func TestBackoffJitter(t *testing.T) {
	b := Backoff{Min: time.Minute, Max: time.Hour, Jitter: 0.15}
	r := rand.New(rand.NewPCG(3, 4))
	low, high := time.Hour, time.Duration(0)
	for range 10_000 {
		d := b.Delay(1, r)
		low, high = min(low, d), max(high, d)
	}
	if low < 51*time.Second || low > 52*time.Second || high < 68*time.Second || high > 69*time.Second {
		t.Errorf("delays from %v to %v, want 51s to 69s", low, high)
	}
}

// TestFiveDaysOfRetries asserts the exact times of the attempts that a recipient sees before it expires.
func TestFiveDaysOfRetries(t *testing.T) {
	b := Backoff{Min: 5 * time.Minute, Max: 4 * time.Hour}
	r := rand.New(rand.NewPCG(1, 1))
	w := New[int](epoch)
	expire := epoch.Add(5 * 24 * time.Hour).UnixNano()
	n := &Node[int]{Value: 1}
	w.Add(n, epoch.Add(b.Delay(1, r)).UnixNano())
	var got []time.Duration
	for {
		at, ok := w.Next()
		if !ok {
			break
		}
		w.Advance(at, func(n *Node[int]) {
			got = append(got, time.Duration(at-epoch.UnixNano()))
			if n.Value++; at < expire {
				w.Add(n, min(at+int64(b.Delay(n.Value, r)), expire))
			}
		})
	}
	want := []time.Duration{5, 15, 35, 75, 155, 315}
	for m := time.Duration(315 + 240); m < 5*24*60; m += 240 {
		want = append(want, m)
	}
	want = append(want, 5*24*60)
	if len(got) != len(want) {
		t.Fatalf("%d attempts, want %d: %v", len(got), len(want), got)
	}
	for i := range want {
		if got[i] != want[i]*time.Minute {
			t.Errorf("attempt %d after %v, want %v", i+2, got[i], want[i]*time.Minute)
		}
	}
}

// TestWheelAgainstSorting drives a wheel with random times, over random steps, and compares with a sort.
func TestWheelAgainstSorting(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 7))
		w := New[int](epoch)
		type item struct{ tick, id int64 }
		var waiting, got []item
		now := epoch.UnixNano()
		for id := range int64(3000) {
			due := now + r.Int64N(int64(time.Duration(1)<<(20+r.IntN(34)))) - int64(time.Second)
			tick := max((due-epoch.UnixNano()+int64(Tick)-1)/int64(Tick), (now-epoch.UnixNano())/int64(Tick)+1)
			w.Add(&Node[int]{Value: int(id)}, due)
			waiting = append(waiting, item{tick, id})
			if r.IntN(10) > 0 {
				continue
			}
			now += r.Int64N(int64(time.Duration(1) << (20 + r.IntN(32))))
			got = got[:0]
			w.Advance(now, func(n *Node[int]) { got = append(got, item{n.due, int64(n.Value)}) })
			sort.SliceStable(waiting, func(i, j int) bool { return waiting[i].tick < waiting[j].tick })
			reached := (now - epoch.UnixNano()) / int64(Tick)
			want := waiting[:sort.Search(len(waiting), func(i int) bool { return waiting[i].tick > reached })]
			if len(got) != len(want) {
				t.Fatalf("seed %d: %d nodes handed out, want %d", seed, len(got), len(want))
			}
			for i := range got {
				if got[i].tick != want[i].tick {
					t.Fatalf("seed %d: node %d of tick %d, want %d", seed, i, got[i].tick, want[i].tick)
				}
			}
			waiting = waiting[len(want):]
			if w.Len() != len(waiting) {
				t.Fatalf("seed %d: %d nodes left, want %d", seed, w.Len(), len(waiting))
			}
			if at, ok := w.Next(); ok && at <= now {
				t.Fatalf("seed %d: next at %d, it is %d", seed, at, now)
			}
		}
	}
}

func TestWheelKeepsOrderWithinATick(t *testing.T) {
	w := New[int](epoch)
	due := epoch.Add(3 * time.Hour).UnixNano()
	for i := range 100 {
		w.Add(&Node[int]{Value: i}, due)
	}
	next := 0
	w.Advance(due, func(n *Node[int]) {
		if n.Value != next {
			t.Fatalf("node %d, want %d", n.Value, next)
		}
		next++
	})
	if next != 100 {
		t.Fatalf("%d nodes handed out", next)
	}
}

func TestWheelNeverEarly(t *testing.T) {
	w := New[int](epoch)
	due := epoch.Add(Tick + 1).UnixNano()
	w.Add(&Node[int]{}, due)
	if n := w.Advance(due, func(*Node[int]) {}); n != 0 {
		t.Fatal("handed out within its tick, before the tick ended")
	}
	if at, ok := w.Next(); !ok || at != epoch.Add(2*Tick).UnixNano() {
		t.Fatalf("next at %d, %v", at, ok)
	}
	if n := w.Advance(epoch.Add(2*Tick).UnixNano(), func(*Node[int]) {}); n != 1 {
		t.Fatal("not handed out in time")
	}
}

func BenchmarkWheel(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	w := New[int](epoch)
	now := epoch.UnixNano()
	for range 1_000_000 {
		w.Add(&Node[int]{}, now+r.Int64N(int64(4*time.Hour)))
	}
	again := func(n *Node[int]) { w.Add(n, now+int64(time.Second)+r.Int64N(int64(4*time.Hour))) }
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; {
		now, _ = w.Next()
		i += w.Advance(now, again)
	}
}
