package spool

import (
	"context"
	"time"
)

// Progress is how far a tool is in one step of its work.
type Progress struct {
	Step  string // what it does, as in "copying"
	Unit  string // what is counted, as in "records"
	Done  int64
	Total int64         // 0 = not known
	Since int64         // how much was done when the step began, by an earlier run
	Took  time.Duration // of the step, so far
}

// Rate is units in a second, or 0 where it cannot be told yet.
func (p Progress) Rate() float64 {
	if p.Took <= 0 {
		return 0
	}
	return float64(p.Done-p.Since) / p.Took.Seconds()
}

// Left estimates how long the step will go on, or is negative where it cannot be told.
func (p Progress) Left() time.Duration {
	rate := p.Rate()
	if p.Total <= 0 || rate <= 0 {
		return -1
	}
	return time.Duration(float64(max(p.Total-p.Done, 0)) / rate * float64(time.Second))
}

// Meter reports the progress of a step, a few times a second, and looks whether the work was called off.
type Meter struct {
	ctx   context.Context
	tell  func(Progress) // may be nil
	p     Progress
	began time.Time
	next  time.Time
	ticks int
}

// meterEvery is how often a Meter reports, and meterTicks how many steps lie between two looks at the clock.
const (
	meterEvery = 200 * time.Millisecond
	meterTicks = 64
)

// NewMeter begins a step. tell may be nil; total 0 = not known.
func NewMeter(ctx context.Context, tell func(Progress), step, unit string, total int64) *Meter {
	now := time.Now()
	m := &Meter{ctx: ctx, tell: tell, p: Progress{Step: step, Unit: unit, Total: total}, began: now, next: now.Add(meterEvery)}
	m.report()
	return m
}

// Add counts n units more. Its error is that of the context.
func (m *Meter) Add(n int64) error {
	m.p.Done += n
	if m.ticks++; m.ticks%meterTicks != 0 {
		return nil
	}
	if now := time.Now(); now.After(m.next) {
		m.next = now.Add(meterEvery)
		m.p.Took = now.Sub(m.began)
		m.report()
	}
	return m.ctx.Err()
}

// End reports the last figures of the step.
func (m *Meter) End() {
	m.p.Took = time.Since(m.began)
	m.report()
}

func (m *Meter) report() {
	if m.tell != nil {
		m.tell(m.p)
	}
}
