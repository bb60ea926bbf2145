package router

import (
	"fmt"
	"math"
	"time"

	"mailrace/proto/message"
)

// noticesMax is how many times a sender may be told that a recipient is delayed.
const noticesMax = 8

// notice says whether the sender of m is to be told, now that recipient i is deferred, that its delivery takes long: one more of Options.Notices
// has passed, and the sender wants to hear of delays (RFC 3461 §4.1). It counts them in the recipient, which is noted with its deferral: so a notice
// costs no write of its own, and comes with the first attempt after its time that fails, once, also across restarts.
func (s *Scheduler) notice(m *message.Message, i int, now int64) bool {
	r := &m.Recipients[i]
	if !s.notifies(m, r) {
		return false
	}
	n, age := int(r.Noticed), time.Duration(now-born(m))
	for n < len(s.opts.Notices) && age >= s.opts.Notices[n] {
		n++
	}
	if n <= int(r.Noticed) {
		return false
	}
	r.Noticed = uint8(n)
	return true
}

// nextNotice is when the sender of m is to be told next that recipient i is delayed, Unix nanoseconds; math.MaxInt64 = never.
func (s *Scheduler) nextNotice(m *message.Message, i int) int64 {
	r := &m.Recipients[i]
	if !s.notifies(m, r) || int(r.Noticed) >= len(s.opts.Notices) {
		return math.MaxInt64
	}
	return born(m) + int64(s.opts.Notices[r.Noticed])
}

// notifies says whether the sender of m wants to hear that a recipient is delayed.
func (s *Scheduler) notifies(m *message.Message, r *message.Recipient) bool {
	return len(s.opts.Notices) > 0 && m.From != "" && (s.opts.NoticeAll || r.Notify&message.NotifyDelay != 0) && r.Notify.Delay()
}

// checkNotices judges Options.Notices.
func (o *Options) checkNotices() error {
	if len(o.Notices) > noticesMax {
		return fmt.Errorf("%d notices, at most %d are possible", len(o.Notices), noticesMax)
	}
	for i, d := range o.Notices {
		if d <= 0 || i > 0 && d <= o.Notices[i-1] {
			return fmt.Errorf("notices %v do not grow", o.Notices)
		}
	}
	return nil
}
