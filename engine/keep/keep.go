// Package keep keeps small things across restarts, each in one file that is replaced as a whole: after a crash, at whatever moment, there is the
// old one or the new one. What is larger, or must not be lost with the last seconds before a crash, belongs into the spool.
package keep

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrTooLarge is the error of a file that is larger than any that was written.
var ErrTooLarge = errors.New("it is larger than any that was written")

// FS is what is needed of a file system: the real one, or one of a test. All of it may block.
type FS interface {
	// Open opens a file to be read. One that is not there is fs.ErrNotExist.
	Open(name string) (io.ReadCloser, error)
	// Create makes an empty file with mode 0600, in place of one that is there.
	Create(name string) (File, error)
	Rename(from, to string) error
	Remove(name string) error
	// SyncDir makes durable what stands in a directory.
	SyncDir(dir string) error
}

// File is one that is written.
type File interface {
	io.Writer
	Sync() error
	Close() error
}

// Write replaces the file. Content and directory are durable when it returns without an error; with one there is the old file or the new one, also
// after a crash.
func Write(fsys FS, name string, content []byte) (err error) {
	f, err := fsys.Create(name + ".new")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = cmp.Or(err, f.Sync())
	if err = cmp.Or(err, f.Close()); err == nil {
		err = fsys.Rename(name+".new", name)
	}
	if err != nil {
		_ = fsys.Remove(name + ".new") // where that fails, too, the next Write overwrites it
		return err
	}
	return fsys.SyncDir(filepath.Dir(name))
}

// Read returns the content of a file, which has at most so many octets. Without one it is nil.
func Read(fsys FS, name string, most int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(content)) > most {
		return nil, fmt.Errorf("read %s: %w", name, ErrTooLarge)
	}
	return content, nil
}

// Disk is the file system of the machine.
type Disk struct{}

// Open is os.Open.
func (Disk) Open(name string) (io.ReadCloser, error) { return os.Open(name) }

// Create is os.OpenFile.
func (Disk) Create(name string) (File, error) {
	return os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
}

// Rename is os.Rename.
func (Disk) Rename(from, to string) error { return os.Rename(from, to) }

// Remove is os.Remove.
func (Disk) Remove(name string) error { return os.Remove(name) }

// SyncDir is fsync(2) of the directory.
func (Disk) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return cmp.Or(d.Sync(), d.Close())
}
