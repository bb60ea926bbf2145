package egress

import (
	"errors"
	"syscall"
	"time"

	"mailrace/engine/loop"
)

// shortagePause is between two warnings of a shortage.
const shortagePause = time.Minute

// isShortage says whether a dial failed because this process, or the system, has no room for another connection.
func isShortage(err error) bool {
	return errors.Is(err, loop.ErrTooManyConnections) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// shortage warns of one, now and then. Any loop.
func (o *Options) shortage(now time.Time, err error) {
	last := o.warned.Load()
	if now.UnixNano()-last < int64(shortagePause) || !o.warned.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	o.Log.Warn("no room for another connection: mail waits for one. Raise the limit of open files (ulimit -n), or lower [engine] max_connections", "error", err)
}
