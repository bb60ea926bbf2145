// Package schedule is when: the delays of an exponential backoff, and a timing wheel that holds what waits.
package schedule

import (
	"math/rand/v2"
	"time"
)

// Backoff is an exponential backoff.
type Backoff struct {
	Min    time.Duration // first delay, above 0
	Max    time.Duration // bound of the delays before jitter, at least Min
	Jitter float64       // each delay is spread evenly by ± this share of it, 0..0.5
}

// Delay is the time to wait after the given number of failures in a row, from 1: Min, doubled for each failure but the first, at most Max,
// spread by the jitter. So what failed together does not come back together. It draws from r once.
func (b Backoff) Delay(failures int, r *rand.Rand) time.Duration {
	d := b.Max
	if n := max(failures, 1) - 1; n < 62 && b.Min <= b.Max>>n {
		d = b.Min << n
	}
	spread := (2*r.Float64() - 1) * b.Jitter
	return d + time.Duration(spread*float64(d))
}
