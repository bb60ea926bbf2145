package latency

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestSlotsFollowEachOther(t *testing.T) {
	last := -1
	for i := range rows * steps {
		if u := upper(i); u < 0 || slot(uint64(u)) != i {
			t.Fatalf("slot %d ends at %d, which lies in slot %d", i, u, slot(uint64(u)))
		}
		if i > 0 && slot(uint64(upper(i-1)+1)) != i {
			t.Fatalf("a gap behind slot %d", last)
		}
		last = i
		if upper(i) > 1<<61 {
			return
		}
	}
}

func TestQuantiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var h, other Histogram
	var all []time.Duration
	for i := range 100_000 {
		d := time.Duration(rng.ExpFloat64() * float64(time.Millisecond))
		all = append(all, d)
		if i%2 == 0 {
			h.Record(d)
		} else {
			other.Record(d)
		}
	}
	h.Merge(&other)
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		exact := all[max(int(q*float64(len(all)))-1, 0)]
		got := h.Quantile(q)
		if got < exact || float64(got) > float64(exact)*1.017+1 {
			t.Errorf("q %v: %v, exactly %v", q, got, exact)
		}
	}
	recent := other.Since(new(Histogram))
	if recent.Count() != other.Count() || recent.Quantile(0.5) != other.Quantile(0.5) || recent.Summary().Mean != other.Summary().Mean {
		t.Errorf("since the beginning: %+v, all: %+v", recent.Summary(), other.Summary())
	}
	other.Record(time.Hour)
	recent.Record(time.Second) // it is a copy
	if d := other.Since(&other); d.Count() != 0 || d.Summary() != (Summary{}) {
		t.Errorf("since now: %+v", d.Summary())
	}
	if s := h.Summary(); s.Count != 100_000 || s.Max != all[len(all)-1] {
		t.Errorf("%+v", s)
	}
	var empty Histogram
	if empty.Summary() != (Summary{}) {
		t.Error("an empty histogram has figures")
	}
	if curve := h.Curve(); len(curve) != len(Shares) || curve[len(curve)-1] != h.Quantile(0.9999) || !slices.IsSorted(curve) || empty.Curve() != nil {
		t.Errorf("%v, %v", curve, empty.Curve())
	}
	empty.Record(-1)
	if curve := empty.Curve(); len(curve) != 1 {
		t.Errorf("of one value: %v", curve)
	}
	if empty.Max() != 0 || empty.Count() != 1 {
		t.Error("a negative duration is not 0")
	}
}

func BenchmarkRecord(b *testing.B) {
	var h Histogram
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		h.Record(time.Duration(i * 1000))
	}
}
