package config

import (
	"fmt"
	"time"
)

// DSN is what senders are told of their mail. RFC 3461, RFC 3464
type DSN struct {
	DelayAfter []time.Duration // how old a message is when its sender is told that it is not delivered yet: ascending, 8 at most; none = never
	DelayToAll bool            // also where the sender did not say by NOTIFY what it wants to hear of
}

// DefaultDSN has the defaults of [dsn].
func DefaultDSN() DSN { return DSN{DelayAfter: []time.Duration{4 * time.Hour}} }

func dsnFields(d *DSN) []field {
	return []field{
		{"delay_after", list(&d.DelayAfter, parseDuration)},
		{"delay_to", parsed(&d.DelayToAll, parseDelayTo)},
	}
}

// parseDelayTo reads who is told of delays: whether all are.
func parseDelayTo(s string) (bool, error) {
	if s != "asked" && s != "all" {
		return false, fmt.Errorf(`%s is not known: want "asked" or "all"`, quote(s))
	}
	return s == "all", nil
}

// dsn judges [dsn].
func (k *checker) dsn(d *DSN) {
	const most = 8
	if n := len(d.DelayAfter); n > most {
		k.complain("dsn.delay_after", "%d notices of one message: want %d or less", n, most)
	}
	for i, after := range d.DelayAfter {
		key := fmt.Sprintf("dsn.delay_after[%d]", i)
		if k.lasts(key, after, 10*time.Millisecond, 365*24*time.Hour) && i > 0 && after <= d.DelayAfter[i-1] {
			k.complain(key, "%s is not longer than the one before it: want them in ascending order, each once", formatDuration(after))
		}
	}
}
