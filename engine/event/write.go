package event

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"time"
)

// run is the writer goroutine.
func (l *Log) run() {
	spare := make([]byte, 0, flushBytes+lineMax)
	var delay *time.Timer // nil = nothing waits
	var due <-chan time.Time
	for {
		var answer chan error
		var closing bool
		select {
		case <-l.waiting:
			if delay == nil {
				delay = time.NewTimer(flushDelay)
				due = delay.C
			}
			continue
		case <-due:
		case <-l.full:
		case answer = <-l.syncs:
		case <-l.done:
			closing = true
		}
		if delay != nil {
			delay.Stop()
			delay, due = nil, nil
		}
		var err error
		spare, err = l.drain(spare)
		if answer != nil {
			answer <- err
		}
		if closing {
			l.complained = time.Time{}
			l.complain(nil)
			l.ended <- errors.Join(err, l.sink.Close())
			return
		}
	}
}

// drain takes what waits in every writer and writes it. spare is the empty buffer that the next writer gets in exchange for its own;
// the one that is left at the end is returned.
func (l *Log) drain(spare []byte) ([]byte, error) {
	var first error
	for _, w := range l.writers {
		w.mu.Lock()
		lines, dropped := w.buf, w.dropped
		w.buf, w.dropped = spare[:0], 0
		w.mu.Unlock()
		l.drop(dropped)
		if len(lines) > 0 {
			if err := l.write(lines); err != nil && first == nil {
				first = err
			}
		}
		spare = lines
	}
	if cap(spare) < flushBytes { // a writer that never wrote gave nothing back
		spare = make([]byte, 0, flushBytes+lineMax)
	}
	if l.lost > 0 {
		l.complain(l.writeLoss(time.Now()))
	}
	return spare, first
}

// write writes whole lines. Those that cannot be written are dropped.
func (l *Log) write(lines []byte) error {
	err := l.sink.Write(lines)
	if err != nil {
		writeErrors.Inc()
		n := bytes.Count(lines, []byte{'\n'})
		droppedTotal.Add(n)
		l.drop(int64(n))
		l.complain(err)
		return err
	}
	writtenBytes.Add(len(lines))
	return nil
}

func (l *Log) drop(n int64) {
	l.lost += n
	l.silent += n
}

// writeLoss puts a line into the log that tells its readers how many records are missing before it. After an error the next drain
// tries again.
func (l *Log) writeLoss(now time.Time) error {
	line := append([]byte(nil), `{"time":"`...)
	line = appendTime(line, now.UnixNano())
	line = append(line, `","type":"loss","dropped":`...)
	line = strconv.AppendInt(line, l.lost, 10)
	err := l.sink.Write(append(line, '}', '\n'))
	if err == nil {
		l.lost = 0
	}
	return err
}

// complain tells the node's log of dropped records, but not at each drain.
func (l *Log) complain(err error) {
	now := time.Now()
	if l.silent == 0 || now.Sub(l.complained) < complainEvery {
		return
	}
	if err != nil {
		l.log.Error("event log cannot be written", "dropped", l.silent, "err", err)
	} else {
		l.log.Warn("event log could not keep up", "dropped", l.silent)
	}
	l.silent, l.complained = 0, now
}

// stream is standard output, which is not ours to close.
type stream struct{ f *os.File }

func (s stream) Write(lines []byte) error {
	_, err := s.f.Write(lines)
	return err
}

func (s stream) Close() error { return nil }
