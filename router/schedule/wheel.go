package schedule

import (
	"math/bits"
	"time"
)

// Tick is how finely the wheel divides time.
const Tick = 100 * time.Millisecond

const (
	levels    = 6 // 64⁶ ticks are 217 years
	slotBits  = 6
	slotCount = 1 << slotBits
	lastTick  = 1<<(levels*slotBits) - 1
)

// Node is something that waits. Its memory is the Value and 16 bytes; it belongs to the wheel from Add until it is handed out.
type Node[T any] struct {
	Value T
	due   int64 // tick
	next  *Node[T]
}

// Wheel is a hierarchical timing wheel: it holds nodes until they are due and hands them out in the order of their ticks, those of one tick
// in the order of Add. Add is O(1); a node is moved at most levels-1 times before it is due. It has no clock: the owner calls Advance, at
// the latest at Next. One goroutine owns it. The zero Wheel starts at Unix time 0; New begins later and costs no cascade.
type Wheel[T any] struct {
	start int64 // Unix nanoseconds of tick 0
	now   int64 // the tick up to which everything was handed out
	count int
	used  [levels]uint64              // a bit for each slot that has nodes
	slots [levels][slotCount]*Node[T] // the last node of a ring, so that both ends are at hand
}

// New returns an empty wheel that stands at the given time.
func New[T any](now time.Time) *Wheel[T] {
	return &Wheel[T]{start: now.UnixNano()}
}

// Len is the number of nodes in the wheel.
func (w *Wheel[T]) Len() int { return w.count }

// Add puts n into the wheel, to be handed out in the tick in which due (Unix nanoseconds) falls or ends, never before due. What is due
// already is handed out in the next tick.
func (w *Wheel[T]) Add(n *Node[T], due int64) {
	tick := (due - w.start + int64(Tick) - 1) / int64(Tick)
	n.due = min(max(tick, w.now+1), lastTick)
	w.count++
	w.insert(n)
}

// insert files n, which is due after now, under the highest group of bits in which its tick differs from now. So everything in a level is
// due before anything in the next, and within a level the slots are in order.
func (w *Wheel[T]) insert(n *Node[T]) {
	level := (bits.Len64(uint64(n.due^w.now)) - 1) / slotBits
	slot := n.due >> (level * slotBits) & (slotCount - 1)
	if last := w.slots[level][slot]; last != nil {
		n.next, last.next = last.next, n
	} else {
		n.next = n
	}
	w.slots[level][slot] = n
	w.used[level] |= 1 << slot
}

// first returns the level and slot with the earliest nodes and the tick at which that slot begins.
func (w *Wheel[T]) first() (level, slot int, tick int64, ok bool) {
	for level = range levels {
		if w.used[level] == 0 {
			continue
		}
		slot = bits.TrailingZeros64(w.used[level])
		above := (level + 1) * slotBits
		return level, slot, w.now>>above<<above | int64(slot)<<(level*slotBits), true
	}
	return 0, 0, 0, false
}

// Next is the time (Unix nanoseconds) at which Advance has something to do: hand nodes out, or file a slot more finely. ok is false when the
// wheel is empty.
func (w *Wheel[T]) Next() (at int64, ok bool) {
	_, _, tick, ok := w.first()
	return w.start + tick*int64(Tick), ok
}

// Advance hands every node that is due at now (Unix nanoseconds) to fire, which may Add. It returns how many there were.
func (w *Wheel[T]) Advance(now int64, fire func(*Node[T])) int {
	target, fired := (now-w.start)/int64(Tick), 0
	for {
		level, slot, tick, ok := w.first()
		if !ok || tick > target {
			w.now = max(w.now, target)
			return fired
		}
		w.now = tick
		last := w.slots[level][slot]
		w.slots[level][slot] = nil
		w.used[level] &^= 1 << slot
		for n, next := last.next, (*Node[T])(nil); n != nil; n = next {
			if next = n.next; n == last {
				next = nil
			}
			n.next = nil
			if n.due > w.now {
				w.insert(n)
				continue
			}
			w.count--
			fired++
			fire(n)
		}
	}
}
