package spool

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/wal"
)

// failoverNote, in the directory of a spool, names the directories elsewhere that WALs of it may be in, one a line. They must all be read at Open.
const failoverNote = "WAL_FAILOVER"

// failoverAfter is the default of Options.FailoverAfter.
const failoverAfter = 100 * time.Millisecond

// swollenMemTables of each shard are where no more mail is let in.
const swollenMemTables = 5

// failover is the second home of the WALs of a spool. Each spool has a directory of its own in Options.Failover, by a name that was never used
// before: what another spool, or an earlier life of this one, has left there is not read.
//
// The note is written before the first WAL can be there, and a directory is taken out of it when all of its WALs have been recovered by an Open
// that does not use it any more. So no configuration, and no tool that knows the spool's own directory only, can leave mail out.
type failover struct {
	o      Options
	dir    string   // in use; "" = none
	former []string // noted, and not in use
	lock   *pebble.Lock
}

// openFailover finds out where WALs may be, and locks the directory that is in use.
func openFailover(o Options) (f *failover, err error) {
	f = &failover{o: o}
	noted, err := f.read()
	if err != nil {
		return nil, err
	}
	for _, dir := range noted {
		if _, err := o.FS.Stat(dir); err != nil && o.wreck {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("accepted mail may be in %s, by wal_failover, and that cannot be read: mount its disk. If it is lost for good, and the mail "+
				"with it, remove the file %s (%w)", dir, f.note(), err)
		}
		if !o.ReadOnly && o.Failover != "" && o.FS.PathDir(dir) == o.Failover {
			f.dir = dir
		} else {
			f.former = append(f.former, dir)
		}
	}
	if o.ReadOnly || o.Failover == "" {
		return f, nil
	}
	there, err := o.FS.Stat(o.Failover)
	if err != nil {
		return nil, fmt.Errorf("wal_failover %s: make that directory, on another disk than the spool's, or mount that disk (%w)", o.Failover, err)
	}
	if here, err := o.FS.Stat(o.Path); err == nil && here.DeviceID() == there.DeviceID() {
		o.Log.Warn("spool: wal_failover is on the same disk as the spool, and helps with nothing", "path", o.Path, "wal_failover", o.Failover)
	}
	if f.dir == "" {
		if err := f.settleIn(noted); err != nil {
			return nil, fmt.Errorf("wal_failover %s: %w", o.Failover, err)
		}
	}
	if f.lock, err = pebble.LockDirectory(f.dir, o.FS); err != nil {
		return nil, fmt.Errorf("wal_failover: %s has %s open (%w)", holder(o.FS.PathJoin(f.dir, lockFile), err), f.dir, err)
	}
	return f, nil
}

// settleIn makes a new directory for the WALs, and notes it beside the others.
func (f *failover) settleIn(noted []string) error {
	dir := f.o.FS.PathJoin(f.o.Failover, "wal-"+strings.ToLower(rand.Text()))
	if err := makeDir(f.o.FS, dir); err != nil {
		return err
	}
	f.dir = dir
	return f.write(append(slices.Clone(noted), dir))
}

// recovered forgets the former directories: all shards have been opened, and what they held is in the stores.
func (f *failover) recovered() error {
	if len(f.former) == 0 || f.o.ReadOnly {
		return nil
	}
	var in []string
	if f.dir != "" {
		in = []string{f.dir}
	}
	if err := f.write(in); err != nil {
		return err
	}
	for _, dir := range f.former {
		if err := f.o.FS.RemoveAll(dir); err != nil {
			f.o.Log.Warn("spool: a directory of WALs that is not needed any more cannot be removed", "path", dir, "error", err)
		}
	}
	f.former = nil
	return nil
}

func (f *failover) note() string { return f.o.FS.PathJoin(f.o.Path, failoverNote) }

func (f *failover) read() (dirs []string, err error) {
	text, err := readFile(f.o.FS, f.note())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' }), err
}

// write notes directories, durably; a crash leaves the old note or the new one.
func (f *failover) write(dirs []string) error {
	text := ""
	for _, dir := range dirs {
		text += dir + "\n"
	}
	if err := errors.Join(writeFile(f.o.FS, f.note()+".new", text), f.o.FS.Rename(f.note()+".new", f.note())); err != nil {
		return err
	}
	return syncDir(f.o.FS, f.o.Path)
}

// close lets go of the directory.
func (f *failover) close() error {
	if f.lock == nil {
		return nil
	}
	return f.lock.Close()
}

// apply tells a shard whose store is in dir where its WALs are, and may go.
func (f *failover) apply(sh *Shard, dir string, o *pebble.Options) {
	place := strings.TrimPrefix(dir, f.o.Path)
	o.Unsafe.AllowMissingWALDirs = true // the note knows
	for _, former := range f.former {
		path := f.o.FS.PathJoin(former, place)
		if _, err := f.o.FS.Stat(path); err == nil {
			o.WALRecoveryDirs = append(o.WALRecoveryDirs, wal.Dir{FS: f.o.FS, Dirname: path})
		}
	}
	if f.dir == "" {
		return
	}
	after := f.o.FailoverAfter
	if after == 0 {
		after = failoverAfter
	}
	o.WALFailover = &pebble.WALFailoverOptions{
		Secondary: wal.Dir{FS: sh.guard(f.o.FS, secondaryWAL), Dirname: f.o.FS.PathJoin(f.dir, place)},
		FailoverOptions: wal.FailoverOptions{
			UnhealthySamplingInterval:          min(after, failoverAfter),
			UnhealthyOperationLatencyThreshold: func() (time.Duration, bool) { return after, true },
		},
	}
}

// The homes of a WAL.
const (
	primaryWAL = iota
	secondaryWAL
)

// homes notes which home of a shard's WALs fails, if there are two.
type homes [2]atomic.Bool

// tolerates says whether the shard can go on with its WAL in the other home after a failure in this one.
func (sh *Shard) tolerates(home int, failure error) bool {
	if sh.spool.failover.dir == "" || sh.spool.keeper.stopped.Err() != nil {
		return false
	}
	if !sh.homes[home].Swap(true) {
		sh.log.Error("spool: a WAL cannot be written; going on with the other directory for WALs", "error", failure)
	}
	return !sh.homes[1-home].Load()
}

// guard is the disk as the shard's store sees it.
func (sh *Shard) guard(fs vfs.FS, home int) vfs.FS {
	return guardedFS{patientFS{fs, sh.spool.keeper, &sh.written}, sh, home}
}
