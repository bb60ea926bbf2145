package spool

import (
	"os"

	"github.com/VictoriaMetrics/metrics"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// patientFS stands between a store and the disk, and lets no operation fail for want of room: see keeper. A store takes such a failure badly: of
// its WAL and its manifest it is fatal, and of a blob file it can panic.
type patientFS struct {
	vfs.FS
	keeper *keeper
	count  *written
}

// retry does an operation until it ends with something else than a full disk.
func (fs patientFS) retry(what, name string, do func() error) error {
	for {
		err := do()
		if err == nil || !fs.keeper.await(what, name, err) {
			return err
		}
	}
}

func (fs patientFS) open(what, name string, do func() (vfs.File, error)) (f vfs.File, err error) {
	err = fs.retry(what, name, func() (err error) {
		f, err = do()
		return err
	})
	if err != nil {
		return nil, err
	}
	return patientFile{f, fs.keeper, name, fs.count.of(name)}, nil
}

func (fs patientFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.open("creating", name, func() (vfs.File, error) { return fs.FS.Create(name, category) })
}

func (fs patientFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return fs.open("opening", name, func() (vfs.File, error) { return fs.FS.OpenReadWrite(name, category, opts...) })
}

func (fs patientFS) ReuseForWrite(oldName, newName string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.open("creating", newName, func() (vfs.File, error) { return fs.FS.ReuseForWrite(oldName, newName, category) })
}

func (fs patientFS) Link(oldName, newName string) error {
	return fs.retry("linking", newName, func() error { return fs.FS.Link(oldName, newName) })
}

func (fs patientFS) Rename(oldName, newName string) error {
	return fs.retry("renaming", newName, func() error { return fs.FS.Rename(oldName, newName) })
}

func (fs patientFS) MkdirAll(dir string, perm os.FileMode) error {
	return fs.retry("creating", dir, func() error { return fs.FS.MkdirAll(dir, perm) })
}

func (fs patientFS) Unwrap() vfs.FS { return fs.FS }

type patientFile struct {
	vfs.File
	keeper *keeper
	name   string
	count  *metrics.Counter
}

// wrote counts what the disk took.
func (f patientFile) wrote(n int) {
	f.count.Add(n)
	f.keeper.wrote(n)
}

// Write goes on behind what was written when there was no more room.
func (f patientFile) Write(p []byte) (n int, err error) {
	for {
		m, err := f.File.Write(p[n:])
		n += m
		f.wrote(m)
		if err == nil || !f.keeper.await("writing", f.name, err) {
			return n, err
		}
	}
}

func (f patientFile) WriteAt(p []byte, at int64) (n int, err error) {
	for {
		m, err := f.File.WriteAt(p[n:], at+int64(n))
		n += m
		f.wrote(m)
		if err == nil || !f.keeper.await("writing", f.name, err) {
			return n, err
		}
	}
}
