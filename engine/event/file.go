package event

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// file is a log file that is rotated by size: path is being written, path.1 is the newest full one, path.<keep> the oldest.
//
// It is not lumberjack because that refuses a write longer than a file may be, counts sizes in megabytes, leaves a torn line when the
// disk fills up, and starts a goroutine that never ends.
type file struct {
	path    string
	maxSize int64 // 0 = no rotation
	keep    int
	f       *os.File
	size    int64
}

func openFile(path string, maxSize int64, keep int) (*file, error) {
	f := &file{path: path, maxSize: maxSize, keep: keep}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	return f, f.open()
}

// open begins or continues the file at path. Addresses are nobody else's business: 0640.
func (f *file) open() (err error) {
	if f.f, err = os.OpenFile(f.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640); err != nil {
		return err
	}
	if f.size, err = f.f.Seek(0, io.SeekEnd); err != nil || f.size == 0 {
		return errors.Join(err, f.closeOn(err))
	}
	// A crash of the machine may have torn the last line. It is ended, so that the first new line is not lost with it.
	var last [1]byte
	if _, err = f.f.ReadAt(last[:], f.size-1); err == nil && last[0] != '\n' {
		_, err = f.f.Write([]byte{'\n'})
		f.size++
	}
	return errors.Join(err, f.closeOn(err))
}

func (f *file) closeOn(err error) error {
	if err == nil {
		return nil
	}
	return f.f.Close()
}

// Write appends lines, to a new file if they would make this one too long. Either all of them are written or none.
func (f *file) Write(lines []byte) error {
	if f.maxSize > 0 && f.size > 0 && f.size+int64(len(lines)) > f.maxSize {
		if err := f.rotate(); err != nil {
			return err
		}
	}
	n, err := f.f.Write(lines)
	if err != nil {
		if n > 0 {
			err = errors.Join(err, f.f.Truncate(f.size))
		}
		return err
	}
	f.size += int64(n)
	return nil
}

// rotate moves every file one number up, drops the oldest, and begins a new one. After an error the current file goes on.
func (f *file) rotate() error {
	if f.keep == 0 {
		if err := f.f.Truncate(0); err != nil {
			return fmt.Errorf("begin anew: %w", err)
		}
		f.size = 0
		return nil
	}
	for i := f.keep; i > 0; i-- {
		if err := os.Rename(f.name(i-1), f.name(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("rotate: %w", err)
		}
	}
	full := f.f
	if err := f.open(); err != nil {
		f.f = full
		return fmt.Errorf("rotate: %w", err)
	}
	return full.Close()
}

// name of the i-th file; 0 is the one being written.
func (f *file) name(i int) string {
	if i == 0 {
		return f.path
	}
	return f.path + "." + strconv.Itoa(i)
}

func (f *file) Close() error { return f.f.Close() }
