package spool

import "math/bits"

// spread counts values from 0 up in buckets whose width is a sixteenth of what they hold, so that a percentile is told within 6 % from
// 16 KiB of memory, whatever the number of values.
type spread struct {
	n        int64
	min, max int64
	buckets  [64 << spreadBits]int64
}

const spreadBits = 4

func (s *spread) add(v int64) {
	v = max(v, 0)
	if s.n == 0 || v < s.min {
		s.min = v
	}
	s.max = max(s.max, v)
	s.n++
	s.buckets[spreadBucket(uint64(v))]++
}

// spreadBucket is the bucket of v: the length of its number and the bits behind the first.
func spreadBucket(v uint64) int {
	if v < 1<<spreadBits {
		return int(v)
	}
	shift := bits.Len64(v) - 1 - spreadBits
	return (shift+1)<<spreadBits | int(v>>shift)&(1<<spreadBits-1)
}

// spreadValue is the least value of a bucket.
func spreadValue(bucket int) int64 {
	if bucket < 1<<spreadBits {
		return int64(bucket)
	}
	shift := bucket>>spreadBits - 1
	return int64(1<<spreadBits|bucket&(1<<spreadBits-1)) << shift
}

// Percentiles of some values.
type Percentiles struct {
	Min int64 `json:"min"`
	P50 int64 `json:"p50"`
	P90 int64 `json:"p90"`
	P99 int64 `json:"p99"`
	Max int64 `json:"max"`
}

func (s *spread) percentiles() Percentiles {
	p := Percentiles{Min: s.min, Max: s.max}
	for _, want := range []struct {
		to    *int64
		share float64
	}{{&p.P50, 0.5}, {&p.P90, 0.9}, {&p.P99, 0.99}} {
		*want.to = s.max
		below := int64(0)
		for i, n := range s.buckets {
			if below += n; float64(below) >= want.share*float64(s.n) {
				*want.to = min(max(spreadValue(i), s.min), s.max)
				break
			}
		}
	}
	return p
}
