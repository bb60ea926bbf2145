package recipients

import "time"

// cache keeps what hosts said about recipients, by a hash of the address. Its memory is bounded: entries live in two generations of at most most
// each, and when the young one is full it becomes the old one, whose entries go unless they are asked for. One goroutine at a time.
type cache struct {
	most       int
	young, old map[uint64]entry
}

// entry is a verdict, and until when it holds: Unix nanoseconds.
type entry struct {
	until  int64
	absent bool
}

func newCache(most int) *cache { return &cache{most: most, young: map[uint64]entry{}} }

// get returns what is known of a recipient.
func (c *cache) get(key uint64, now time.Time) (v verdict, known bool) {
	e, ok := c.young[key]
	if !ok {
		if e, ok = c.old[key]; ok {
			c.put(key, e)
		}
	}
	switch {
	case !ok || e.until <= now.UnixNano():
		return unsure, false
	case e.absent:
		return absent, true
	}
	return there, true
}

func (c *cache) put(key uint64, e entry) {
	if len(c.young) >= c.most {
		c.old, c.young = c.young, make(map[uint64]entry, c.most/4)
	}
	c.young[key] = e
}
