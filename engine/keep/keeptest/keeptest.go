// Package keeptest has a file system in memory for tests of what is kept: any operation can fail, and a crash takes what was not synced.
package keeptest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"sync"

	"mailrace/engine/keep"
)

// ErrFault is what operations fail with.
var ErrFault = errors.New("input/output error")

// FS is a file system in memory. The zero value is empty, and fails nowhere. Any goroutine.
type FS struct {
	mu     sync.Mutex
	live   map[string]*file // by name, as programs see it
	synced map[string]*file // as directories were when they were synced
	ops    int
	fail   int  // the operation that fails, from 1; 0 = none
	after  bool // all operations after it fail, too
}

// file is an inode.
type file struct{ content, synced []byte }

// Fail has the operation with this number fail, from 1 on, which begins to count anew; 0 = none. If all, those after it fail as well.
func (f *FS) Fail(operation int, all bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ops, f.fail, f.after = 0, operation, all
}

// Operations is how many there were since Fail.
func (f *FS) Operations() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// Crash is what a machine finds that starts again: content that was synced, under the names that were synced, or, if lucky, under those that are there.
func (f *FS) Crash(lucky bool) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := f.synced
	if lucky {
		names = f.live
	}
	again := &FS{live: map[string]*file{}}
	for name, inode := range names {
		again.live[name] = &file{inode.synced, inode.synced}
	}
	again.synced = maps.Clone(again.live)
	return again
}

// Put writes a file that is durable.
func (f *FS) Put(name string, content []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begin()
	inode := &file{bytes.Clone(content), bytes.Clone(content)}
	f.live[name], f.synced[name] = inode, inode
}

// Content is what stands in a file; nil = it is not there.
func (f *FS) Content(name string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if inode := f.live[name]; inode != nil {
		return bytes.Clone(inode.content)
	}
	return nil
}

func (f *FS) begin() {
	if f.live == nil {
		f.live, f.synced = map[string]*file{}, map[string]*file{}
	}
}

// operate counts an operation, and does it unless it is to fail.
func (f *FS) operate(do func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begin()
	f.ops++
	if f.fail != 0 && (f.ops == f.fail || f.after && f.ops > f.fail) {
		return ErrFault
	}
	return do()
}

// Open implements keep.FS.
func (f *FS) Open(name string) (r io.ReadCloser, err error) {
	err = f.operate(func() error {
		inode := f.live[name]
		if inode == nil {
			return fs.ErrNotExist
		}
		r = io.NopCloser(bytes.NewReader(bytes.Clone(inode.content)))
		return nil
	})
	return r, err
}

// Create implements keep.FS.
func (f *FS) Create(name string) (w keep.File, err error) {
	err = f.operate(func() error {
		inode := f.live[name]
		if inode == nil {
			inode = &file{}
			f.live[name] = inode
		}
		inode.content = nil
		w = &handle{f, inode}
		return nil
	})
	return w, err
}

// Rename implements keep.FS.
func (f *FS) Rename(from, to string) error {
	return f.operate(func() error {
		if f.live[from] == nil {
			return fs.ErrNotExist
		}
		f.live[to] = f.live[from]
		delete(f.live, from)
		return nil
	})
}

// Remove implements keep.FS.
func (f *FS) Remove(name string) error {
	return f.operate(func() error {
		delete(f.live, name)
		return nil
	})
}

// SyncDir implements keep.FS.
func (f *FS) SyncDir(dir string) error {
	return f.operate(func() error {
		maps.DeleteFunc(f.synced, func(name string, _ *file) bool { return filepath.Dir(name) == dir })
		for name, inode := range f.live {
			if filepath.Dir(name) == dir {
				f.synced[name] = inode
			}
		}
		return nil
	})
}

// handle is a file that is open.
type handle struct {
	fs    *FS
	inode *file
}

// Write implements keep.File. One that fails leaves half of it.
func (h *handle) Write(p []byte) (int, error) {
	err := h.fs.operate(func() error {
		h.inode.content = append(h.inode.content, p...)
		return nil
	})
	if err != nil {
		h.fs.mu.Lock()
		h.inode.content = append(h.inode.content, p[:len(p)/2]...)
		h.fs.mu.Unlock()
		return len(p) / 2, err
	}
	return len(p), nil
}

// Sync implements keep.File.
func (h *handle) Sync() error {
	return h.fs.operate(func() error {
		h.inode.synced = bytes.Clone(h.inode.content)
		return nil
	})
}

// Close implements keep.File.
func (h *handle) Close() error { return h.fs.operate(func() error { return nil }) }
