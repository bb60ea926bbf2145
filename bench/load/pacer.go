package load

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"mailrace/bench/gauge"
)

// paceStep is the least time between two releases: messages due within it are released together, at its end. It bounds what the pacer
// costs, and is the error of latencies at high rates.
const paceStep = 200 * time.Microsecond

// pace releases messages when they are due, up to number last, until the context ends.
func (g *generator) pace(ctx context.Context, last uint64) {
	defer func() {
		g.final.Store(true)
		g.wake()
	}()
	alarm, err := newAlarm()
	if err != nil {
		g.fail(err.Error())
		return
	}
	defer alarm.close()
	defer context.AfterFunc(ctx, alarm.cancel)()
	for at := g.opts.First; at < last; {
		now := time.Since(g.began)
		if wait := g.due(at) - now; wait > 0 {
			if alarm.sleep(max(wait, paceStep)) != nil {
				return // cancelled
			}
			continue
		}
		to := min(last, g.opts.First+uint64(now.Seconds()*g.opts.Rate)+1)
		if !g.release(at, to) {
			return // stopped
		}
		at = to
		g.wake()
	}
}

// followStep is how often the gauge is read.
const followStep = time.Millisecond

// follow releases messages as others arrive, up to number last, so that at most a window of them is under way in the MTA, until the context
// ends. Messages that were refused or lost will not arrive, and make room as well.
func (g *generator) follow(ctx context.Context, last uint64) {
	defer func() {
		g.final.Store(true)
		g.wake()
	}()
	counter, err := gauge.Open(g.opts.Gauge)
	if err != nil {
		g.fail(err.Error())
		return
	}
	defer counter.Close()
	alarm, err := newAlarm()
	if err != nil {
		g.fail(err.Error())
		return
	}
	defer alarm.close()
	defer context.AfterFunc(ctx, alarm.cancel)()
	before := counter.Value()
	for at := g.opts.First; at < last; {
		over := (counter.Value() - before) / uint64(g.opts.Recipients)
		for _, l := range g.lanes {
			over += l.tempfail.Load() + l.permfail.Load() + l.lost.Load()
		}
		if to := min(last, g.opts.First+over+g.opts.Window); to > at {
			if !g.release(at, to) {
				return // stopped
			}
			at = to
			g.wake()
		}
		if alarm.sleep(followStep) != nil {
			return // cancelled
		}
	}
}

// alarm is a timerfd(2) that Go's network poller waits for. A Go timer would be up to a millisecond late, and a sleep in the kernel keeps the
// runtime's monitor awake, which took a fifth of a core.
type alarm struct{ file *os.File }

func newAlarm() (alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return alarm{}, fmt.Errorf("timerfd: %w", err)
	}
	return alarm{os.NewFile(uintptr(fd), "timerfd")}, nil
}

// sleep returns after d, or with an error once the alarm is cancelled.
func (a alarm) sleep(d time.Duration) error {
	conn, err := a.file.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	if err := conn.Control(func(fd uintptr) {
		set = unix.TimerfdSettime(int(fd), 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}, nil)
	}); err != nil {
		return err
	}
	if set != nil {
		return fmt.Errorf("timerfd: %w", set)
	}
	var expirations [8]byte
	_, err = a.file.Read(expirations[:])
	return err
}

// cancel ends the sleep under way and all later ones. Any goroutine may call it.
func (a alarm) cancel() { _ = a.file.SetReadDeadline(time.Unix(1, 0)) }

func (a alarm) close() { _ = a.file.Close() }
