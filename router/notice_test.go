package router

import (
	"fmt"
	"testing"
	"time"

	"mailrace/proto/message"
)

// TestNotices: the sender is told of a delay once for each time that was configured, with the first attempt behind it that fails, if it wants to
// hear of delays; attempts come when they would come anyway.
func TestNotices(t *testing.T) {
	const attempts = "5m0s 15m0s 35m0s 1h15m0s 2h35m0s 5h15m0s 9h15m0s" // and further ones every four hours, until five days have passed
	two := []time.Duration{time.Hour, 5 * time.Hour}
	for name, c := range map[string]struct {
		notices []time.Duration
		all     bool
		from    string
		rcpt    message.Recipient
		wishes  *message.Wishes
		want    string // when the sender is told
	}{
		"asked":             {two, false, "s@sender.test", message.Recipient{Notify: message.NotifyDelay}, nil, "1h15m0s 5h15m0s"},
		"asked with others": {two, false, "s@sender.test", message.Recipient{Notify: message.NotifyDelay | message.NotifyFailure}, nil, "1h15m0s 5h15m0s"},
		"both at once":      {[]time.Duration{3 * time.Hour, 4 * time.Hour}, false, "s@sender.test", message.Recipient{Notify: message.NotifyDelay}, nil, "5h15m0s"},
		"not said":          {two, false, "s@sender.test", message.Recipient{}, nil, ""},
		"not said, for all": {two, true, "s@sender.test", message.Recipient{}, nil, "1h15m0s 5h15m0s"},
		"failures, for all": {two, true, "s@sender.test", message.Recipient{Notify: message.NotifyFailure}, nil, ""},
		"never, for all":    {two, true, "s@sender.test", message.Recipient{Notify: message.NotifyNever}, nil, ""},
		"null reverse-path": {two, true, "", message.Recipient{Notify: message.NotifyDelay}, nil, ""},
		"off":               {nil, true, "s@sender.test", message.Recipient{Notify: message.NotifyDelay}, nil, ""},
		"told before":       {two, false, "s@sender.test", message.Recipient{Notify: message.NotifyDelay, Noticed: 1}, nil, "5h15m0s"},
		"told more before":  {two, false, "s@sender.test", message.Recipient{Notify: message.NotifyDelay, Noticed: 3}, nil, ""},
		"held":              {two, false, "s@sender.test", message.Recipient{Notify: message.NotifyDelay}, &message.Wishes{Release: in(24 * time.Hour)}, "25h15m0s 29h15m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim(t, 2, 1, func(o *Options) { o.Jitter, o.Notices, o.NoticeAll, o.Park = -1, c.notices, c.all, true })
			s.mx("down.test", "10 mx.down.test 192.0.2.1")
			s.host("192.0.2.1").reply = func(*Transaction, int) Outcome { return later }
			m := s.message("x@down.test")
			m.From, m.Wishes = c.from, c.wishes
			m.Recipients[0].Notify, m.Recipients[0].Noticed = c.rcpt.Notify, c.rcpt.Noticed
			s.dispatch(0, m)
			s.finish(1)
			var told, tried []string
			for _, e := range s.log {
				if e.out.Notice {
					told = append(told, fmt.Sprint(e.at.Truncate(time.Second)))
				}
				tried = append(tried, fmt.Sprint(e.at.Truncate(time.Second)))
			}
			if got := fmt.Sprint(told); got != "["+c.want+"]" {
				t.Errorf("told at %s, want %s", got, c.want)
			}
			if got := fmt.Sprint(tried[1:8]); c.wishes == nil && got != "["+attempts+"]" {
				t.Errorf("attempts at %s, want %s", got, attempts)
			}
		})
	}
}

func TestNoticesAreChecked(t *testing.T) {
	for _, notices := range [][]time.Duration{{0}, {-1}, {2, 1}, {1, 1}, {1, 2, 3, 4, 5, 6, 7, 8, 9}} {
		if (&Options{Notices: notices}).checkNotices() == nil {
			t.Errorf("%v is taken", notices)
		}
	}
	if err := (&Options{Notices: []time.Duration{1, 2}}).checkNotices(); err != nil {
		t.Error(err)
	}
}
