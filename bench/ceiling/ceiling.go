// Package ceiling measures the most that a machine does of what an MTA asks of it: syncs and sequential writes of a disk, and octets over
// loopback. A rate of mail stands beside them as a share, which says how much is left to gain, whatever the machine.
package ceiling

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Rates are what a machine reached in one look at it.
type Rates struct {
	Syncs    float64 `json:"disk_syncs_per_second"` // of logs that grow by SmallBatch octets for each
	Written  float64 `json:"disk_bytes_per_second"` // into logs that grow by LargeBatch octets for each sync
	Loopback float64 `json:"loopback_bytes_per_second"`
}

// What a log grows by between two syncs: a batch of one small message, and one of as much mail as comes in during a sync.
const (
	SmallBatch = 4 << 10
	LargeBatch = 1 << 20
)

// logOctets is how long a log is. It is written over from its start again and again, as the logs of a database are that recycles them: so a
// sync writes what is new, and no metadata.
const logOctets = 32 << 20

// Meter has the logs that it writes, one for each core, as a spool has a log for each of its shards. Its methods are for one goroutine.
type Meter struct {
	dir   string
	logs  []*log
	batch []byte // what is written: octets that a disk cannot make less of
}

// log is a file that is written over. at is where the next batch goes.
type log struct {
	file *os.File
	at   int64
}

// Open makes a meter with its logs in a directory of its own below dir, which Close removes.
func Open(dir string) (_ *Meter, err error) {
	m := &Meter{batch: noise(LargeBatch)}
	if m.dir, err = os.MkdirTemp(dir, "ceiling-"); err != nil {
		return nil, fmt.Errorf("ceilings: %w", err)
	}
	for i := range runtime.GOMAXPROCS(0) {
		l, err := m.newLog(i)
		if err != nil {
			return nil, fmt.Errorf("ceilings: %w", errors.Join(err, m.Close()))
		}
		m.logs = append(m.logs, l)
	}
	return m, nil
}

// newLog makes a log at its full length.
func (m *Meter) newLog(n int) (*log, error) {
	f, err := os.Create(filepath.Join(m.dir, fmt.Sprintf("log-%d", n)))
	if err != nil {
		return nil, err
	}
	l := &log{file: f}
	for range logOctets / LargeBatch {
		if err := l.append(m.batch); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	if err := f.Sync(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

// append writes the next octets, without a sync.
func (l *log) append(p []byte) error {
	if l.at+int64(len(p)) > logOctets {
		l.at = 0
	}
	n, err := l.file.WriteAt(p, l.at)
	l.at += int64(n)
	return err
}

// Measure takes three times d.
func (m *Meter) Measure(ctx context.Context, d time.Duration) (r Rates, err error) {
	if r.Syncs, err = m.write(ctx, SmallBatch, d); err != nil {
		return r, fmt.Errorf("ceilings: %w", err)
	}
	if r.Written, err = m.write(ctx, LargeBatch, d); err != nil {
		return r, fmt.Errorf("ceilings: %w", err)
	}
	r.Written *= LargeBatch
	if r.Loopback, err = loopback(ctx, d); err != nil {
		return r, fmt.Errorf("ceilings: loopback: %w", err)
	}
	return r, nil
}

// write lets all logs grow at the same time, in batches of so many octets with a sync behind each, and returns the batches per second.
func (m *Meter) write(ctx context.Context, octets int, d time.Duration) (float64, error) {
	counts, faults := make([]int, len(m.logs)), make([]error, len(m.logs))
	began := time.Now()
	var wait sync.WaitGroup
	for i, l := range m.logs {
		wait.Go(func() {
			for faults[i] == nil && (counts[i] == 0 || time.Since(began) < d) {
				if faults[i] = errors.Join(l.append(m.batch[:octets]), unix.Fdatasync(int(l.file.Fd())), ctx.Err()); faults[i] == nil {
					counts[i]++
				}
			}
		})
	}
	wait.Wait()
	took, all := time.Since(began), 0
	for _, n := range counts {
		all += n
	}
	return float64(all) / took.Seconds(), errors.Join(faults...)
}

// Close removes the logs. The meter must not be used again.
func (m *Meter) Close() error {
	var errs []error
	for _, l := range m.logs {
		errs = append(errs, l.file.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(m.dir))...)
}
