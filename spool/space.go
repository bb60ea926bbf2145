package spool

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Space is the room that a file system has.
type Space struct {
	Free, Total        int64 // bytes; Free is what this process may use of them
	FreeInodes, Inodes int64 // Inodes 0 = as many as it likes
}

// statfs asks the operating system for the room on the file system of a directory.
func statfs(dir string) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Space{}, fmt.Errorf("statfs %s: %w", dir, err)
	}
	unit := int64(st.Bsize)
	return Space{
		Free: int64(st.Bavail) * unit, Total: int64(st.Blocks) * unit, FreeInodes: int64(st.Ffree), Inodes: int64(st.Files),
	}, nil
}

const (
	// lookEvery is how often the room is measured; it is sooner when an eighth of MinFree was written since.
	lookEvery = time.Second
	// tryEvery is how often something that found no room is tried again.
	tryEvery = 100 * time.Millisecond

	// minInodes is the default of Options.MinInodes: a shard has some hundred files at most, so this is for all of them to be written anew.
	minInodes = 10_000
	// fraction of a file system is the most that the defaults ask for.
	fraction = 10
)

// marks are below which the spool is full, and where it is not any more: an eighth above, so that it does not change with every message.
type marks struct{ bytes, inodes int64 }

// below says whether s is under the marks. Once it was, it has to come an eighth above them.
func (m marks) below(s Space, full bool) bool {
	if full {
		m.bytes, m.inodes = m.bytes+m.bytes/8, m.inodes+m.inodes/8
	}
	return s.Free < m.bytes || s.Inodes > 0 && s.FreeInodes < m.inodes
}

// marksFor are the marks that o asks for, or the defaults for a file system like s. underWay is what may still be written of mail that is on
// its way when the mark is met.
func marksFor(o Options, s Space, underWay int64) marks {
	m := marks{o.MinFree, o.MinInodes}
	if m.bytes == 0 {
		m.bytes = min(underWay, s.Total/fraction)
	}
	if m.inodes == 0 {
		m.inodes = min(minInodes, s.Inodes/fraction)
	}
	return m
}
