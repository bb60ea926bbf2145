package loop

import "math/bits"

const (
	slotBits   = 6
	slots      = 1 << slotBits                            // slots of a level, one bit each in a word
	levels     = 6                                        // at 5 ms a tick the wheel spans ten years: 64^6 ticks
	wheelSpan  = (slots - 1) << (slotBits * (levels - 1)) // farthest tick ahead: beyond, it would meet the present slot of the top level
	slotFiring = slots * levels                           // the list of timers that fire in the present Advance
)

// Timer is a moment on a Wheel. It is embedded in what waits, so that arming allocates nothing; it must not be copied or moved while
// armed. A Timer belongs to one wheel and to the goroutine of its loop. The zero Timer with Fire set is ready for use.
type Timer struct {
	// Fire is called when the time has come. The timer is no longer armed then, and Fire may arm it again.
	Fire func()

	when       int64 // tick
	next, prev *Timer
	wheel      *Wheel // nil when not armed
	slot       int32
}

// Armed reports whether the timer waits on a wheel.
func (t *Timer) Armed() bool { return t.wheel != nil }

// Stop disarms the timer and reports whether it was armed. Fire will not be called.
func (t *Timer) Stop() bool {
	if t.wheel == nil {
		return false
	}
	t.wheel.remove(t)
	return true
}

// Wheel is a hierarchical timing wheel (Varghese and Lauck). Time is counted in ticks and moves only by Advance, so its behaviour is
// deterministic. Arming, stopping and firing are O(1); a timer moves down a level at most five times. The zero Wheel stands at tick 0. Not
// safe for concurrent use.
//
// Level k has 64 slots of 64^k ticks. A timer lies in the level of the highest group of six bits in which its tick differs from now, so a
// whole level comes before the next higher one, and the first occupied slot of the lowest occupied level comes first of all.
type Wheel struct {
	now      int64
	count    int
	occupied [levels]uint64
	lists    [slots*levels + 1]timerList
}

type timerList struct{ head, tail *Timer }

// Now is the tick up to which the wheel has advanced.
func (w *Wheel) Now() int64 { return w.now }

// Len is the number of armed timers.
func (w *Wheel) Len() int { return w.count }

// Arm makes t fire in the Advance that reaches tick when; a tick not after Now means the next one. A timer that is armed already is
// moved.
func (w *Wheel) Arm(t *Timer, when int64) {
	if t.wheel != nil {
		t.wheel.remove(t)
	}
	t.wheel = w
	t.when = min(max(when, w.now+1), w.now+wheelSpan)
	w.count++
	w.insert(t)
}

// Next is the tick at which Advance next has something to do: timers to fire, or to move to a lower level. ok is false when nothing is
// armed.
func (w *Wheel) Next() (when int64, ok bool) {
	when, _, ok = w.first()
	return when, ok
}

// Advance moves time to tick now and fires what is due, in order of ticks, and in order of arming within a tick as far as timers stood
// in the same level. Time never goes back.
func (w *Wheel) Advance(now int64) {
	for {
		when, slot, ok := w.first()
		if !ok || when > now {
			break
		}
		w.now = when
		due := &w.lists[slotFiring]
		*due = w.lists[slot]
		w.lists[slot] = timerList{}
		w.occupied[slot/slots] &^= 1 << (slot % slots)
		for t := due.head; t != nil; t = t.next {
			t.slot = slotFiring
		}
		for due.head != nil {
			t := due.head
			w.unlink(t)
			if t.when > w.now {
				w.insert(t)
				continue
			}
			t.wheel = nil
			w.count--
			t.Fire()
		}
	}
	w.now = max(w.now, now)
}

// first finds the earliest occupied slot and the tick at which it begins.
func (w *Wheel) first() (when int64, slot int, ok bool) {
	for level := range levels {
		set := w.occupied[level]
		if set == 0 {
			continue
		}
		// The slots of a level all lie in the present round of the level above, after the present slot: no wrapping. The top level alone
		// can wrap, as nothing is above it.
		shift := slotBits * level
		at := int(w.now>>shift) % slots
		i := at + bits.TrailingZeros64(bits.RotateLeft64(set, -at))
		round := w.now >> shift &^ (slots - 1)
		return (round + int64(i)) << shift, level*slots + i%slots, true
	}
	return 0, 0, false
}

func (w *Wheel) insert(t *Timer) {
	level := (63 - bits.LeadingZeros64(uint64(t.when^w.now)|(slots-1))) / slotBits
	level = min(level, levels-1)
	i := int(t.when>>(slotBits*level)) % slots
	t.slot = int32(level*slots + i)
	w.occupied[level] |= 1 << i
	l := &w.lists[t.slot]
	t.prev, t.next = l.tail, nil
	if l.tail == nil {
		l.head = t
	} else {
		l.tail.next = t
	}
	l.tail = t
}

func (w *Wheel) remove(t *Timer) {
	w.unlink(t)
	t.wheel = nil
	w.count--
}

// unlink takes t out of its list.
func (w *Wheel) unlink(t *Timer) {
	l := &w.lists[t.slot]
	if t.prev == nil {
		l.head = t.next
	} else {
		t.prev.next = t.next
	}
	if t.next == nil {
		l.tail = t.prev
	} else {
		t.next.prev = t.prev
	}
	t.next, t.prev = nil, nil
	if l.head == nil && t.slot != slotFiring {
		w.occupied[int(t.slot)/slots] &^= 1 << (int(t.slot) % slots)
	}
}
