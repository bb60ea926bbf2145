package spool

import (
	"fmt"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// guardedFS stands between a store and the disk, and ends the process at the first write or sync of a WAL that fails, unless it has another home to go on in. Pebble would as well,
// but where it meets the failure while it changes WALs it panics with its locks in disorder, and the operator reads a stack instead of the
// reason.
type guardedFS struct {
	vfs.FS
	sh   *Shard
	home int // of the WALs
}

// check passes err on while the store is being opened, when it is the answer of Open; later it is fatal.
func (fs guardedFS) check(what, name string, err error) error {
	if err != nil && fs.sh.opened.Load() {
		failure := fmt.Errorf("shard %d: %s %s: %w", fs.sh.index, what, name, err)
		if !fs.sh.tolerates(fs.home, failure) {
			fs.sh.spool.fail(failure)
		}
	}
	return err
}

// synced is check for a sync, which shows that the home of the WAL is well if it succeeds.
func (fs guardedFS) synced(name string, err error) error {
	if err == nil && fs.sh.homes[fs.home].Load() {
		fs.sh.homes[fs.home].Store(false)
	}
	return fs.check("syncing", name, err)
}

func isWAL(name string) bool { return filepath.Ext(name) == ".log" }

func (fs guardedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, category)
	if !isWAL(name) {
		return f, err
	}
	return guardedFile{f, fs, name}, fs.check("creating", name, err)
}

func (fs guardedFS) ReuseForWrite(oldName, newName string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.ReuseForWrite(oldName, newName, category)
	if !isWAL(newName) {
		return f, err
	}
	return guardedFile{f, fs, newName}, fs.check("creating", newName, err)
}

// OpenDir guards the directories too: a WAL whose name is not durable is not either.
func (fs guardedFS) OpenDir(name string) (vfs.File, error) {
	f, err := fs.FS.OpenDir(name)
	return guardedFile{f, fs, name}, err
}

func (fs guardedFS) Unwrap() vfs.FS { return fs.FS }

type guardedFile struct {
	vfs.File
	fs   guardedFS
	name string
}

func (f guardedFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.fs.check("writing", f.name, err)
}

func (f guardedFile) Sync() error { return f.fs.synced(f.name, f.File.Sync()) }

func (f guardedFile) SyncData() error { return f.fs.synced(f.name, f.File.SyncData()) }
