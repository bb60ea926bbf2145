// Package latency records durations into a histogram that many goroutines may write and read at once.
//
// It is log-linear like HdrHistogram, 64 steps to each power of two, so a quantile is at most 1.6% too high. It is its own 60 lines and
// not the library because the library's histogram is for one goroutine, and here the event loops write while a progress line reads.
package latency

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	stepBits = 6
	steps    = 1 << stepBits
	rows     = 64 - stepBits
)

// Histogram counts durations. The zero value is empty and ready. It takes 30 KiB.
type Histogram struct {
	counts [rows * steps]atomic.Uint64
	total  atomic.Uint64
	sum    atomic.Int64
	max    atomic.Int64
}

// Record counts d; a negative one counts as 0. It does not allocate.
func (h *Histogram) Record(d time.Duration) {
	v := max(int64(d), 0)
	h.counts[slot(uint64(v))].Add(1)
	h.total.Add(1)
	h.sum.Add(v)
	for {
		old := h.max.Load()
		if v <= old || h.max.CompareAndSwap(old, v) {
			return
		}
	}
}

// slot is the index of the counter for v: the first row has steps of 1, each later row steps twice as wide as the one before.
func slot(v uint64) int {
	if v < steps {
		return int(v)
	}
	shift := bits.Len64(v) - stepBits - 1
	return shift*steps + int(v>>shift)
}

// upper is the highest value that slot i counts.
func upper(i int) int64 {
	if i < 2*steps {
		return int64(i)
	}
	shift := i/steps - 1
	return (int64(i-shift*steps)+1)<<shift - 1
}

// Merge adds all that other has counted.
func (h *Histogram) Merge(other *Histogram) {
	for i := range other.counts {
		if n := other.counts[i].Load(); n > 0 {
			h.counts[i].Add(n)
			h.total.Add(n)
		}
	}
	h.sum.Add(other.sum.Load())
	h.max.Store(max(h.max.Load(), other.max.Load()))
}

// Since is what h has counted and before, a copy of it from then, had not. Its longest is as exact as its quantiles.
func (h *Histogram) Since(before *Histogram) *Histogram {
	d := new(Histogram)
	for i := range h.counts {
		if n := h.counts[i].Load() - before.counts[i].Load(); n > 0 {
			d.counts[i].Store(n)
			d.total.Add(n)
			d.max.Store(upper(i))
		}
	}
	d.sum.Store(h.sum.Load() - before.sum.Load())
	return d
}

// Count is how many durations were recorded.
func (h *Histogram) Count() uint64 { return h.total.Load() }

// Max is the longest.
func (h *Histogram) Max() time.Duration { return time.Duration(h.max.Load()) }

// Quantile returns a duration that the share q, in 0..1, of the recorded ones does not exceed, or 0 when there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	total := h.total.Load()
	if total == 0 {
		return 0
	}
	want := max(uint64(q*float64(total)+0.5), 1)
	var seen uint64
	for i := range h.counts {
		if seen += h.counts[i].Load(); seen >= want {
			return time.Duration(min(upper(i), h.max.Load()))
		}
	}
	return h.Max()
}

// Shares are where a distribution is looked at to be drawn.
var Shares = []float64{0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999}

// Curve is the quantile of each of Shares. It ends before a share that nothing recorded lies beyond, and is empty when nothing was recorded.
func (h *Histogram) Curve() []time.Duration {
	var curve []time.Duration
	for _, share := range Shares {
		if float64(h.Count())*(1-share) < 1 {
			break
		}
		curve = append(curve, h.Quantile(share))
	}
	return curve
}

// Summary is what reports print of a histogram, in nanoseconds.
type Summary struct {
	Count uint64        `json:"count"`
	Mean  time.Duration `json:"mean_ns"`
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
	P999  time.Duration `json:"p999_ns"`
	Max   time.Duration `json:"max_ns"`
}

// Summary sums up what was recorded.
func (h *Histogram) Summary() Summary {
	s := Summary{Count: h.Count(), P50: h.Quantile(0.5), P99: h.Quantile(0.99), P999: h.Quantile(0.999), Max: h.Max()}
	if s.Count > 0 {
		s.Mean = time.Duration(h.sum.Load() / int64(s.Count))
	}
	return s
}
