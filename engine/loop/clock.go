package loop

import "time"

// Clock tells the time and wakes who asked for it. Any goroutine may call its functions. Tests have clocks that stand until they are moved, so that
// days go by in no time.
type Clock struct {
	Now func() time.Time
	// Wake calls fn, on any goroutine, at a time; at once if that has passed. fn must not block.
	Wake func(at time.Time, fn func()) Alarm
}

// Alarm is one call to come. It is set to a time, and not to a delay, which would begin later than the time that it was reckoned from.
type Alarm interface {
	// Set has the call made, or made again, at a time, and not before.
	Set(at time.Time)
	// Stop has it not made, unless it is under way.
	Stop()
}

// MachineClock is the clock of the machine.
var MachineClock = Clock{
	Now:  time.Now,
	Wake: func(at time.Time, fn func()) Alarm { return timer{time.AfterFunc(time.Until(at), fn)} },
}

// timer is a timer of the machine as an Alarm.
type timer struct{ t *time.Timer }

func (t timer) Set(at time.Time) { t.t.Reset(time.Until(at)) }
func (t timer) Stop()            { t.t.Stop() }
