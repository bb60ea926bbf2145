package ingress

import (
	"context"
	"log/slog"
	"time"
)

// rarely bounds how often something is logged that clients can bring about. It belongs to one loop.
type rarely struct {
	until        time.Time
	left, unsaid int
}

// Lines that rarely lets pass, in how long.
const (
	rarelyLines = 10
	rarelyTime  = 10 * time.Second
)

// log logs, or counts what is not said, and says with the next line how much that was.
func (r *rarely) log(now time.Time, to *slog.Logger, level slog.Level, what string, attrs ...any) {
	if !now.Before(r.until) {
		r.until, r.left = now.Add(rarelyTime), rarelyLines
	}
	if r.left == 0 {
		r.unsaid++
		return
	}
	r.left--
	if r.unsaid > 0 {
		attrs = append(attrs, "more_since_the_last", r.unsaid)
		r.unsaid = 0
	}
	to.Log(context.Background(), level, what, attrs...)
}
