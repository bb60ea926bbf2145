package loop

import (
	"math/rand/v2"
	"sort"
	"testing"
)

func TestWheelFiresInOrder(t *testing.T) {
	var w Wheel
	var fired []int64
	whens := []int64{1, 2, 63, 64, 65, 127, 128, 4095, 4096, 4097, 262143, 262144, 1 << 24, 1<<30 - 1, 1 << 30, 1 << 35}
	for _, when := range whens {
		t := &Timer{}
		t.Fire = func() { fired = append(fired, when) }
		w.Arm(t, when)
	}
	for w.Len() > 0 {
		next, ok := w.Next()
		if !ok || next <= w.Now() {
			t.Fatalf("Next = %d, %v at %d with %d armed", next, ok, w.Now(), w.Len())
		}
		before := len(fired)
		w.Advance(next)
		for _, when := range fired[before:] {
			if when != next {
				t.Errorf("timer of tick %d fired at %d", when, next)
			}
		}
	}
	if len(fired) != len(whens) {
		t.Fatalf("fired %d of %d", len(fired), len(whens))
	}
	if _, ok := w.Next(); ok {
		t.Error("an empty wheel has a next tick")
	}
}

func TestWheelSameTickKeepsOrder(t *testing.T) {
	var w Wheel
	var got []int
	timers := make([]Timer, 10)
	for i := range timers {
		timers[i].Fire = func() { got = append(got, i) }
		w.Arm(&timers[i], 1000)
	}
	w.Advance(5000)
	if !sort.IntsAreSorted(got) || len(got) != 10 {
		t.Errorf("order %v", got)
	}
}

func TestWheelStop(t *testing.T) {
	var w Wheel
	var a, b, c Timer
	fired := ""
	a.Fire = func() {
		fired += "a"
		if !b.Stop() {
			t.Error("b was not armed while a fired in the same tick")
		}
	}
	b.Fire = func() { fired += "b" }
	c.Fire = func() { fired += "c" }
	w.Arm(&a, 5)
	w.Arm(&b, 5)
	w.Arm(&c, 5)
	w.Advance(5)
	if fired != "ac" {
		t.Errorf("fired %q", fired)
	}
	if a.Stop() || b.Stop() || a.Armed() {
		t.Error("Stop reports a timer that is not armed")
	}
	w.Arm(&a, 100)
	if !a.Stop() || w.Len() != 0 {
		t.Error("Stop did not disarm")
	}
	if _, ok := w.Next(); ok {
		t.Error("a stopped timer still occupies a slot")
	}
}

func TestWheelRearm(t *testing.T) {
	var w Wheel
	var n int
	var a Timer
	a.Fire = func() {
		if n++; n < 5 {
			w.Arm(&a, w.Now()) // not after now: the next tick
		}
	}
	w.Arm(&a, 10)
	w.Arm(&a, 3)
	w.Advance(3)
	if n != 1 {
		t.Fatalf("fired %d times at the earlier tick", n)
	}
	w.Advance(6)
	if n != 4 {
		t.Fatalf("re-armed timer fired %d times by tick 6, want 4", n)
	}
	w.Advance(100)
	if n != 5 || w.Len() != 0 {
		t.Errorf("fired %d times, %d armed", n, w.Len())
	}
}

func TestWheelBeyondSpan(t *testing.T) {
	var w Wheel
	w.Advance(12345)
	var a Timer
	at := int64(0)
	a.Fire = func() { at = w.Now() }
	w.Arm(&a, 1<<62)
	w.Advance(w.Now() + wheelSpan)
	if at != 12345+wheelSpan {
		t.Errorf("fired at %d", at)
	}
}

// TestWheelAgainstModel compares the wheel with a plain map over random arming, stopping and steps of any length.
func TestWheelAgainstModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	var w Wheel
	w.Advance(rnd.Int64N(1 << 40))
	due := map[int]int64{}
	timers := make([]Timer, 200)
	for i := range timers {
		timers[i].Fire = func() {
			when, ok := due[i]
			if !ok || when != w.Now() {
				t.Fatalf("timer %d fired at %d, due %d (%v)", i, w.Now(), when, ok)
			}
			delete(due, i)
		}
	}
	for range 20000 {
		i := rnd.IntN(len(timers))
		switch rnd.IntN(4) {
		case 0, 1:
			due[i] = w.Now() + 1 + rnd.Int64N(1<<rnd.IntN(30))
			w.Arm(&timers[i], due[i])
		case 2:
			_, want := due[i]
			if timers[i].Stop() != want {
				t.Fatalf("Stop of timer %d is not %v", i, want)
			}
			delete(due, i)
		case 3:
			w.Advance(w.Now() + rnd.Int64N(1<<rnd.IntN(24)))
			for i, when := range due {
				if when <= w.Now() {
					t.Fatalf("timer %d due at %d has not fired by %d", i, when, w.Now())
				}
			}
		}
		if w.Len() != len(due) {
			t.Fatalf("wheel has %d timers, want %d", w.Len(), len(due))
		}
	}
}

func TestWheelAllocatesNothing(t *testing.T) {
	var w Wheel
	var a Timer
	a.Fire = func() {}
	if n := testing.AllocsPerRun(1000, func() {
		w.Arm(&a, w.Now()+70)
		w.Advance(w.Now() + 100)
	}); n != 0 {
		t.Errorf("%v allocations per arming and firing", n)
	}
}

func BenchmarkWheel(b *testing.B) {
	b.ReportAllocs()
	var w Wheel
	var a Timer
	a.Fire = func() {}
	for b.Loop() {
		w.Arm(&a, w.Now()+60000)
		a.Stop()
	}
}
