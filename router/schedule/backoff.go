// Package schedule is when: the delays between attempts, and a timing wheel that holds what waits.
package schedule

import (
	"math/rand/v2"
	"time"
)

// Backoff says how long to wait after failures in a row: a list of delays, or else delays that double.
type Backoff struct {
	List   []time.Duration // after the first failure, the second and so on; the last one repeats. Empty = by Min and Max
	Min    time.Duration   // first delay, above 0
	Max    time.Duration   // bound of the delays before jitter, at least Min
	Jitter float64         // each delay is spread evenly by ± this share of it, 0..0.5
}

// Delay is the time to wait after the given number of failures in a row, from 1: Base, spread by the jitter. So what failed together does not come
// back together. It draws from r once.
func (b *Backoff) Delay(failures int, r *rand.Rand) time.Duration {
	return b.Spread(b.Base(failures), r)
}

// Base is the delay before jitter: that of the list, or Min, doubled for each failure but the first, at most Max.
func (b *Backoff) Base(failures int) time.Duration {
	n := max(failures, 1) - 1
	if len(b.List) > 0 {
		return b.List[min(n, len(b.List)-1)]
	}
	if n < 62 && b.Min <= b.Max>>n {
		return b.Min << n
	}
	return b.Max
}

// Spread adds the jitter to a delay. It draws from r once.
func (b *Backoff) Spread(d time.Duration, r *rand.Rand) time.Duration {
	spread := (2*r.Float64() - 1) * b.Jitter
	return d + time.Duration(spread*float64(d))
}
