// Package maildir puts messages into mailboxes that are directories. A message is written to tmp and synced, moved to new, and the directory is
// synced: only then is it delivered. Whatever fails before leaves nothing in new, or, where the last sync failed, the whole message, which
// the next attempt puts there again under the same name.
//
// It is our own: emersion/go-maildir, the library of the field, syncs neither file nor directory, and leaves no room to do it around it.
package maildir

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"mailrace/proto/maildir"
)

// bufferSize is how much of a message is written at a time, in octets.
const bufferSize = 64 << 10

// Delivery is a message on its way into one mailbox. It belongs to one goroutine at a time. After Begin either Commit or Abort ends it.
type Delivery struct {
	fs     FS
	dir    string // the mailbox
	tmp    string // the file while it is written
	file   File
	binary bool
	lines  maildir.Lines
	buffer []byte
	size   int64
}

// Begin makes the file, and the mailbox where it is not there yet. name is unique in the mailbox; what an attempt before left under it goes.
// Content that is binary is kept as it is, of others lines end in LF.
func Begin(on FS, dir, name string, binary bool) (*Delivery, error) {
	d := &Delivery{fs: on, dir: dir, tmp: path.Join(dir, "tmp", name), binary: binary}
	var err error
	for range 2 {
		d.file, err = on.Create(d.tmp)
		switch {
		case errors.Is(err, fs.ErrExist): // from before a crash
			err = on.Remove(d.tmp)
		case errors.Is(err, fs.ErrNotExist):
			err = build(on, dir)
		case err == nil:
			return d, nil
		}
		if err != nil {
			return nil, fmt.Errorf("maildir: %w", err)
		}
	}
	if d.file, err = on.Create(d.tmp); err != nil {
		return nil, fmt.Errorf("maildir: %w", err)
	}
	return d, nil
}

// build makes the mailbox, and the directories above it that are not there, durably.
func build(on FS, dir string) error {
	if err := makeAll(on, dir); err != nil {
		return err
	}
	for _, name := range []string{"cur", "new", "tmp"} {
		if name == "tmp" { // whoever finds it finds the others, durable
			if err := on.SyncDir(dir); err != nil {
				return err
			}
		}
		if err := on.Mkdir(path.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// makeAll makes a directory and those above it. One that is there already may have been made by another delivery, just now.
func makeAll(on FS, dir string) error {
	err := on.Mkdir(dir)
	above := path.Dir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && above != dir:
		if err = makeAll(on, above); err == nil {
			err = on.Mkdir(dir)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return on.SyncDir(above)
}

// Write adds a part of the message, of which lines end in CRLF. After an error only Abort is of use.
func (d *Delivery) Write(part []byte) error {
	for len(part) > 0 {
		n := min(len(part), bufferSize)
		if d.binary {
			d.buffer = append(d.buffer, part[:n]...)
		} else {
			d.buffer = d.lines.Append(d.buffer, part[:n])
		}
		part = part[n:]
		if len(d.buffer) >= bufferSize {
			if err := d.empty(); err != nil {
				return fmt.Errorf("maildir: %w", err)
			}
		}
	}
	return nil
}

// empty writes what is collected.
func (d *Delivery) empty() error {
	n, err := d.file.Write(d.buffer)
	d.size += int64(n)
	d.buffer = d.buffer[:0]
	return err
}

// Commit makes the message durable and shows it to readers, under the name that name gives for its size. After an error nothing is left, or, where
// the last step failed, the whole message.
func (d *Delivery) Commit(name func(size int64) string) error {
	d.buffer = d.lines.End(d.buffer)
	err := d.empty()
	if err == nil {
		if err = d.file.Sync(); err == nil {
			err, d.file = d.file.Close(), nil
		}
	}
	if err != nil {
		d.Abort()
		return fmt.Errorf("maildir: %w", err)
	}
	fresh := path.Join(d.dir, "new")
	if err = d.fs.Rename(d.tmp, path.Join(fresh, name(d.size))); err != nil {
		d.Abort()
		return fmt.Errorf("maildir: %w", err)
	}
	if err = d.fs.SyncDir(fresh); err != nil {
		return fmt.Errorf("maildir: %w", err)
	}
	return nil
}

// Abort removes what was written. What that leaves behind goes with the next attempt.
func (d *Delivery) Abort() {
	if d.file != nil {
		_ = d.file.Close()
		d.file = nil
	}
	_ = d.fs.Remove(d.tmp)
}
