package loop_test

import (
	"slices"
	"testing"
	"time"

	"mailrace/engine/loop"
	"mailrace/engine/loop/looptest"
)

// TestClock: timers go by the clock of the group, to the tick, however long the machine takes.
func TestClock(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := looptest.NewClock(begin)
	g, err := loop.Start(loop.Options{Loops: 1, Clock: c.Loop()})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	l := g.Loops()[0]
	run := func(fn func()) { // returns when what was posted before and fn have run
		done := make(chan struct{})
		l.Post(func() { fn(); close(done) })
		<-done
	}
	delays := []time.Duration{time.Second, time.Hour, 5 * 24 * time.Hour}
	var fired []time.Duration
	run(func() {
		for _, d := range delays {
			l.After(d, &loop.Timer{Fire: func() { fired = append(fired, l.Now().Sub(begin)) }})
		}
	})
	for at, ok := c.Next(); ok; at, ok = c.Next() {
		c.MoveTo(at)
		run(func() {})
	}
	if !slices.Equal(fired, delays) {
		t.Errorf("fired after %v, want %v", fired, delays)
	}
}
