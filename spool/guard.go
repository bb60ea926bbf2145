package spool

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// guardedFS stands between a store and the disk, and ends the process at the first write or sync of a WAL or a blob file that fails, unless it is
// of a WAL with another home to go on in. Pebble would as well, but where it meets the failure while it changes WALs, or finishes a blob file,
// it panics with its locks in disorder, and the operator reads a stack instead of the reason.
type guardedFS struct {
	vfs.FS
	sh   *Shard
	home int // of the WALs
}

// check does not return from a failure but of a WAL with another home, when nothing writes any more: Pebble goes there from one that does not answer, and
// panics over an error while it changes WALs, for the committer or to reclaim room. While the store is being opened, any failure is the answer of Open.
func (fs guardedFS) check(what, name string, err error) error {
	if err != nil {
		failure := fmt.Errorf("shard %d: %s %s: %w", fs.sh.index, what, name, err)
		if !fs.sh.opened.Load() || !isWAL(name) || !fs.sh.tolerates(fs.home, failure) {
			fs.sh.standStill(failure)
		}
		<-fs.sh.spool.calm
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

// isMarker says that a file tells by its name which manifest is in use.
func isMarker(name string) bool { return strings.HasPrefix(filepath.Base(name), "marker.manifest.") }

func isBlob(name string) bool { return filepath.Ext(name) == ".blob" }

func (fs guardedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if isMarker(name) { // Pebble makes both names durable at once, and so a crash could leave the marker alone
		if err := syncDir(fs, fs.PathDir(name)); err != nil {
			return nil, err
		}
	}
	f, err := fs.FS.Create(name, category)
	return fs.file(f, name, err)
}

func (fs guardedFS) ReuseForWrite(oldName, newName string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.ReuseForWrite(oldName, newName, category)
	return fs.file(f, newName, err)
}

// Open counts what is replayed of WALs.
func (fs guardedFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.Open(name, opts...)
	if err != nil || !isWAL(name) || fs.sh.opened.Load() {
		return f, err
	}
	return replayedFile{f, fs.sh}, nil
}

// file guards a file that was created. A blob file that cannot be is no matter.
func (fs guardedFS) file(f vfs.File, name string, err error) (vfs.File, error) {
	switch {
	case err != nil && isWAL(name):
		return nil, fs.check("creating", name, err)
	case err != nil:
		return nil, err
	case isWAL(name):
		return guardedFile{fs.sh.direct(f), fs, name}, nil
	case isBlob(name):
		return guardedFile{f, fs, name}, nil
	}
	return f, nil
}

// OpenDir guards the directories too: a WAL whose name is not durable is not either.
func (fs guardedFS) OpenDir(name string) (vfs.File, error) {
	f, err := fs.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return guardedFile{f, fs, name}, nil
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

// replayedFile is a WAL that is read while its store is opened.
type replayedFile struct {
	vfs.File
	sh *Shard
}

func (f replayedFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	f.sh.replayed.Add(n)
	return n, err
}
