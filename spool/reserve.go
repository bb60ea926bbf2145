package spool

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// reserveDir, in the directory of the spool, holds files that take up room until removals need it.
	reserveDir = "reserve"
	// reserveFiles are that many, each a share of the reserve, and an inode.
	reserveFiles = 16
)

// reserve is room that the spool holds for the moment when the disk is full. Removing mail takes room before it frees any: for the removals
// themselves, and for compactions. Any goroutine may use it.
type reserve struct {
	fs    vfs.FS
	dir   string
	bytes int64 // of all files; 0 = there is no reserve

	mu    sync.Mutex
	files atomic.Int32 // that there are, numbered from 0
}

func (r *reserve) name(i int) string { return r.fs.PathJoin(r.dir, fmt.Sprintf("%02d", i)) }

// size is about how many bytes are held.
func (r *reserve) size() int64 { return int64(r.files.Load()) * r.share() }

func (r *reserve) share() int64 { return r.bytes / reserveFiles }

// missing is how many bytes it lacks.
func (r *reserve) missing() int64 { return r.bytes - r.size() }

// whole says that all of the reserve is held.
func (r *reserve) whole() bool { return r.bytes == 0 || r.files.Load() == reserveFiles }

// open finds what there is of the reserve. Files of a reserve of another size go, to be made anew.
func (r *reserve) open() error {
	if r.bytes == 0 {
		return r.fs.RemoveAll(r.dir)
	}
	for r.files.Load() < reserveFiles {
		text, err := readFile(r.fs, r.name(int(r.files.Load())))
		if err != nil {
			break
		}
		if text != r.label() {
			r.files.Store(0)
			return r.fs.RemoveAll(r.dir)
		}
		r.files.Add(1)
	}
	return nil
}

// label is what a file of the reserve says: how large it is.
func (r *reserve) label() string { return strconv.FormatInt(r.share(), 10) + "\n" }

// fill makes the reserve whole.
func (r *reserve) fill() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.fs.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	for !r.whole() {
		name := r.name(int(r.files.Load()))
		if err := r.make(name); err != nil {
			return errors.Join(err, r.fs.Remove(name))
		}
		r.files.Add(1)
	}
	return nil
}

// make makes one file, whose blocks are taken whether or not anything is written to them.
func (r *reserve) make(name string) error {
	f, err := r.fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(r.label()))
	if e := f.Preallocate(0, r.share()); err == nil && isFull(e) {
		err = e // a file system that cannot preallocate has no reserve, and waits sooner
	}
	return errors.Join(err, f.Close())
}

// release gives one file up, and says whether there was one.
func (r *reserve) release() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := int(r.files.Load())
	if n == 0 || r.fs.Remove(r.name(n-1)) != nil {
		return false
	}
	r.files.Store(int32(n - 1))
	return true
}
