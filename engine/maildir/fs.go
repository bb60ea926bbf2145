package maildir

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// FS is what deliveries need of a file system: the real one, or one of a test. All of it may block.
type FS interface {
	Mkdir(dir string) error // mode 0700
	// Create makes a file that must not be there, with mode 0600.
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

// Disk is the file system of the machine.
type Disk struct{}

// Mkdir is os.Mkdir.
func (Disk) Mkdir(dir string) error { return os.Mkdir(dir, 0o700) }

// Create does not follow a link that stands in place of the file.
func (Disk) Create(name string) (File, error) {
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
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
	defer d.Close()
	return d.Sync()
}
