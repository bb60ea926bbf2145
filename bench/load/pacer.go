package load

import (
	"context"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// paceStep is the least time between two releases: messages due within it are released together, at its end. It bounds what the pacer
	// costs, and is the error of latencies at high rates.
	paceStep = 200 * time.Microsecond
	// paceSleep bounds how long the pacer does not look at its context.
	paceSleep = 20 * time.Millisecond
)

// pace releases messages when they are due, up to number last, until the context ends. It sleeps in the kernel and not on a Go timer, which
// would be up to a millisecond late.
func (g *generator) pace(ctx context.Context, last uint64) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for at := g.opts.First; at < last && ctx.Err() == nil; {
		now := time.Since(g.began)
		wait := g.due(at) - now
		if wait > 0 {
			sleep(min(max(wait, paceStep), paceSleep))
			continue
		}
		to := min(last, g.opts.First+uint64(now.Seconds()*g.opts.Rate)+1)
		if !g.release(at, to) {
			return // stopped
		}
		at = to
		g.wake()
	}
	g.final.Store(true)
	g.wake()
}

func sleep(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil) // woken early by a signal: the caller looks at the clock anyway
}
