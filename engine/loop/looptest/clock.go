// Package looptest has what tests of event loops need: a clock that stands until it is moved.
package looptest

import (
	"slices"
	"sync"
	"time"

	"mailrace/engine/loop"
)

// Clock is a clock that stands until it is moved. Any goroutine may call its methods.
type Clock struct {
	mu     sync.Mutex
	now    time.Time
	alarms []*alarm // that are set
}

// NewClock is a clock that stands at a time.
func NewClock(at time.Time) *Clock { return &Clock{now: at} }

// Loop is the clock for loops.
func (c *Clock) Loop() *loop.Clock {
	return &loop.Clock{Now: c.Now, Wake: func(at time.Time, fn func()) loop.Alarm {
		a := &alarm{clock: c, fn: fn}
		a.Set(at)
		return a
	}}
}

// Now is the time at which the clock stands.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Next is when the next alarm goes off; ok is false if none is set.
func (c *Clock) Next() (at time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.alarms {
		if !ok || a.at.Before(at) {
			at, ok = a.at, true
		}
	}
	return at, ok
}

// MoveTo moves the clock to a time, but never back, and calls what is due by then, in order, before it returns.
func (c *Clock) MoveTo(at time.Time) {
	c.mu.Lock()
	if at.After(c.now) {
		c.now = at
	}
	var due []*alarm
	c.alarms = slices.DeleteFunc(c.alarms, func(a *alarm) bool {
		if a.at.After(c.now) {
			return false
		}
		due = append(due, a)
		return true
	})
	c.mu.Unlock()
	slices.SortStableFunc(due, func(a, b *alarm) int { return a.at.Compare(b.at) })
	for _, a := range due {
		a.fn()
	}
}

// Move lets d pass at once.
func (c *Clock) Move(d time.Duration) { c.MoveTo(c.Now().Add(d)) }

// alarm is a call to come.
type alarm struct {
	clock *Clock
	at    time.Time // guarded by the clock
	fn    func()
}

// Set calls at once what is due already.
func (a *alarm) Set(at time.Time) {
	a.clock.mu.Lock()
	defer a.clock.mu.Unlock()
	a.unset()
	if !at.After(a.clock.now) {
		go a.fn()
		return
	}
	a.at = at
	a.clock.alarms = append(a.clock.alarms, a)
}

func (a *alarm) Stop() {
	a.clock.mu.Lock()
	defer a.clock.mu.Unlock()
	a.unset()
}

// unset takes the alarm away. The clock is locked.
func (a *alarm) unset() {
	if i := slices.Index(a.clock.alarms, a); i >= 0 {
		a.clock.alarms = slices.Delete(a.clock.alarms, i, i+1)
	}
}
