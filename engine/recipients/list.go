package recipients

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"mailrace/proto/smtp"
	"mailrace/router/mx"
)

const (
	// listMax is the most entries of a list, of 8 bytes each.
	listMax = 50_000_000
	// lineMax is the most octets of a line of a list.
	lineMax = 1024
)

// list is a file of recipients: one a line, user@example.com, or *@example.com for a whole domain; "#" begins a comment. Of each entry only a
// hash under a secret seed is kept, in 8 bytes. Two addresses have the same one by chance once in 10^13 lookups in a million entries, and nobody
// can look for them.
type list struct {
	path string
	seed maphash.Seed
	data atomic.Pointer[[]uint64] // sorted
	seen fileState                // of the file that was read; touched by Refresh alone
}

// fileState tells one version of a file from another.
type fileState struct {
	modified time.Time
	size     int64
}

func openList(path string) (*list, error) {
	l := &list{path: path, seed: maphash.MakeSeed()}
	if _, err := l.refresh(); err != nil {
		return nil, err
	}
	return l, nil
}

// CheckFile says what is wrong with a list.
func CheckFile(path string) error {
	_, err := openList(path)
	return err
}

func (l *list) len() int { return len(*l.data.Load()) }

// refresh reads the file if it is not the one that was read last.
func (l *list) refresh() (changed bool, err error) {
	f, err := os.Open(l.path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	state := fileState{info.ModTime(), info.Size()}
	if state == l.seen {
		return false, nil
	}
	l.seen = state // also of one that cannot be read, which is told once
	entries, err := l.read(f)
	if err != nil {
		return false, fmt.Errorf("%s:%w", l.path, err)
	}
	l.data.Store(&entries)
	return true, nil
}

// read reads the entries. An error begins with the number of its line.
func (l *list) read(f *os.File) (entries []uint64, err error) {
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, lineMax), lineMax)
	n := 0
	for lines.Scan() {
		n++
		line, _, _ := bytes.Cut(lines.Bytes(), []byte("#"))
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		entry, ok := l.entry(line)
		if !ok {
			return nil, fmt.Errorf("%d: %.100q is no recipient: want user@example.com, or *@example.com", n, line)
		}
		if len(entries) == listMax {
			return nil, fmt.Errorf("%d: more than %d recipients", n, listMax)
		}
		entries = append(entries, entry)
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("%d: longer than %d octets", n+1, lineMax)
	} else if err != nil {
		return nil, fmt.Errorf("%d: %w", n+1, err)
	}
	slices.Sort(entries)
	return slices.Clip(slices.Compact(entries)), nil
}

// entry is the hash of a line.
func (l *list) entry(line []byte) (uint64, bool) {
	path, rest, err := smtp.ParsePath(fmt.Appendf(nil, "<%s>", line), true)
	if err != nil || len(bytes.TrimSpace(rest)) > 0 || len(path.Path) != len(line) || len(path.Domain) == 0 {
		return 0, false
	}
	domain, err := mx.Normal(string(path.Domain))
	if err != nil {
		return 0, false
	}
	return l.hash(appendLocal(nil, path.Local), domain), true
}

func (l *list) hash(local []byte, domain string) uint64 {
	var room [maxKey]byte
	key := append(append(append(room[:0], local...), '@'), domain...)
	return maphash.Bytes(l.seed, key)
}

// has says whether a recipient is in the list: itself, without its subaddress, or by its domain.
func (l *list) has(local []byte, domain, delimiter string) bool {
	entries := *l.data.Load()
	found := func(local []byte) bool {
		_, ok := slices.BinarySearch(entries, l.hash(local, domain))
		return ok
	}
	if found(local) || found([]byte("*")) {
		return true
	}
	if at := bytes.IndexAny(local, delimiter); delimiter != "" && at > 0 {
		return found(local[:at])
	}
	return false
}
