package spool

import (
	"errors"
	"unsafe"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

const (
	// directBlock is what O_DIRECT asks memory, offsets and lengths to be multiples of, or more.
	directBlock = 4 << 10
	// directRoom is how much is gathered before it is written although nobody asks for a sync: a batch of a busy shard nearly always fits.
	directRoom = 1 << 20
)

// directFile is a WAL that is written past the page cache (O_DIRECT). A WAL is written once, synced within milliseconds, and read after a crash alone:
// the kernel's copy of it serves nobody, and taking it in and having it written back costs more than to gather it here. What is gathered goes to the
// disk when it fills its room, at a sync, and at the end.
//
// The last block of a write is filled up with zeros, and written once more with what comes behind, as the kernel would; a reader that meets zeros takes
// them for the end of the log. Nothing counts as written before a sync, and that writes and then syncs: the promise of the 250 is the same. What
// nobody waits for is lost with the process until the next sync, 100 ms later at most (syncDelay), instead of with the machine.
//
// It belongs to one goroutine at a time, the one that flushes the log.
type directFile struct {
	vfs.File
	past  bool   // O_DIRECT is set
	room  []byte // aligned
	n     int    // octets in it
	at    int64  // where they begin in the file: a multiple of directBlock
	dirty bool   // not all of them are in the file
}

// direct makes f, a new WAL or one that is to be written over, one that is written past the page cache. Where the file system cannot do that, and
// where nothing is synced, it stays as it is.
func (sh *Shard) direct(f vfs.File) vfs.File {
	o := &sh.spool.options
	d := &directFile{File: f, past: o.Sync && setDirect(f, true)}
	if !d.past && !o.inBlocks {
		return f
	}
	d.room = alignedBytes(directRoom)
	return d
}

// setDirect sets or clears O_DIRECT, and says whether that could be done.
func setDirect(f vfs.File, on bool) bool {
	fd := f.Fd()
	if fd == vfs.InvalidFd {
		return false
	}
	flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
	if err != nil {
		return false
	}
	if flags &^= unix.O_DIRECT; on {
		flags |= unix.O_DIRECT
	}
	_, err = unix.FcntlInt(fd, unix.F_SETFL, flags)
	return err == nil
}

// alignedBytes is memory that begins at a multiple of directBlock.
func alignedBytes(n int) []byte {
	b := make([]byte, n+directBlock)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (directBlock - 1))
	return b[skip : skip+n : skip+n]
}

// Write gathers p. A failure is of what was gathered before, and leaves a file that is of no more use.
func (f *directFile) Write(p []byte) (written int, err error) {
	for len(p) > 0 {
		n := copy(f.room[f.n:], p)
		f.n, written, p, f.dirty = f.n+n, written+n, p[n:], true
		if f.n == len(f.room) {
			if err := f.write(); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

// write brings what was gathered into the file, and keeps the begin of the last block.
func (f *directFile) write() error {
	if !f.dirty {
		return nil
	}
	full := f.n &^ (directBlock - 1)
	end := full
	if full < f.n {
		end += directBlock
		clear(f.room[f.n:end])
	}
	_, err := f.File.WriteAt(f.room[:end], f.at)
	if errors.Is(err, unix.EINVAL) && f.past && setDirect(f.File, false) { // it wants larger blocks, or cannot do it at all
		f.past = false
		_, err = f.File.WriteAt(f.room[:end], f.at)
	}
	if err != nil {
		return err
	}
	f.n, f.at, f.dirty = copy(f.room, f.room[full:f.n]), f.at+int64(full), false
	return nil
}

func (f *directFile) Sync() error {
	if err := f.write(); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *directFile) SyncData() error {
	if err := f.write(); err != nil {
		return err
	}
	return f.File.SyncData()
}

// SyncTo has nothing to do: what is in the file is on its way already.
func (f *directFile) SyncTo(int64) (fullSync bool, err error) { return false, nil }

func (f *directFile) Close() error { return errors.Join(f.write(), f.File.Close()) }
