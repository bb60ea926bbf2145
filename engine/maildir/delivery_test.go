package maildir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// faulty is a file system on the disk whose n-th operation fails.
type faulty struct {
	Disk
	root  string
	fails int // number of the operation, from 1; 0 = none does
	err   error
	done  []string
}

func (f *faulty) step(format string, args ...any) error {
	f.done = append(f.done, strings.ReplaceAll(fmt.Sprintf(format, args...), f.root, ""))
	if len(f.done) == f.fails {
		return &fs.PathError{Op: "test", Path: f.root, Err: f.err}
	}
	return nil
}

func (f *faulty) Mkdir(dir string) error {
	if err := f.step("mkdir %s", dir); err != nil {
		return err
	}
	return f.Disk.Mkdir(dir)
}

func (f *faulty) Create(name string) (File, error) {
	if err := f.step("create %s", name); err != nil {
		return nil, err
	}
	file, err := f.Disk.Create(name)
	return &faultyFile{f, file}, err
}

func (f *faulty) Rename(from, to string) error {
	if err := f.step("rename %s %s", from, to); err != nil {
		return err
	}
	return f.Disk.Rename(from, to)
}

func (f *faulty) Remove(name string) error {
	if err := f.step("remove %s", name); err != nil {
		return err
	}
	return f.Disk.Remove(name)
}

func (f *faulty) SyncDir(dir string) error {
	if err := f.step("syncdir %s", dir); err != nil {
		return err
	}
	return f.Disk.SyncDir(dir)
}

type faultyFile struct {
	f *faulty
	File
}

func (f *faultyFile) Write(b []byte) (int, error) {
	if err := f.f.step("write %d", len(b)); err != nil {
		n, _ := f.File.Write(b[:len(b)/2])
		return n, err
	}
	return f.File.Write(b)
}

func (f *faultyFile) Sync() error {
	if err := f.f.step("sync"); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultyFile) Close() error {
	err := f.f.step("close")
	return errors.Join(f.File.Close(), err)
}

// deliver delivers a message of two parts into /a/b.
func deliver(on *faulty, content ...string) error {
	d, err := Begin(on, filepath.Join(on.root, "a/b"), "name", false)
	if err != nil {
		return err
	}
	for _, part := range content {
		if err := d.Write([]byte(part)); err != nil {
			d.Abort()
			return err
		}
	}
	return d.Commit(func(size int64) string { return fmt.Sprintf("name,S=%d", size) })
}

// found lists the files of the mailbox with their content.
func found(t *testing.T, root string) (files []string) {
	t.Helper()
	for _, dir := range []string{"tmp", "new", "cur"} {
		names, _ := filepath.Glob(filepath.Join(root, "a/b", dir, "*"))
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, fmt.Sprintf("%s/%s %q", dir, filepath.Base(name), text))
		}
	}
	return files
}

// TestOrder: the content is durable before it is shown, and where it stands before it counts as delivered.
func TestOrder(t *testing.T) {
	on := &faulty{root: t.TempDir()}
	want := []string{
		"create /a/b/tmp/name", "mkdir /a/b", "mkdir /a", "syncdir ", "mkdir /a/b", "syncdir /a", "mkdir /a/b/cur", "mkdir /a/b/new", "syncdir /a/b", "mkdir /a/b/tmp",
		"create /a/b/tmp/name", "write 4", "sync", "close", "rename /a/b/tmp/name /a/b/new/name,S=4", "syncdir /a/b/new",
	}
	if err := deliver(on, "x\r", "\ny\n"); err != nil || !slices.Equal(on.done, want) {
		t.Errorf("%q, %v", on.done, err)
	}
	if got := found(t, on.root); !slices.Equal(got, []string{`new/name,S=4 "x\ny\n"`}) {
		t.Errorf("%q", got)
	}
	for _, dir := range []string{"a", "a/b", "a/b/new"} {
		if info, err := os.Stat(filepath.Join(on.root, dir)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, info.Mode(), err)
		}
	}
}

// TestFaultAtEveryOperation: whichever fails, nothing of the message is shown, or all of it; an error says why; and the next attempt
// leaves one message.
func TestFaultAtEveryOperation(t *testing.T) {
	for n := 1; ; n++ {
		on := &faulty{root: t.TempDir(), fails: n, err: syscall.ENOSPC}
		err := deliver(on, "x\r\n", strings.Repeat("y", 2*bufferSize), "\r\n")
		if len(on.done) < n {
			if err != nil || n < 15 {
				t.Errorf("%d operations, %v", len(on.done), err)
			}
			break
		}
		failed := on.done[n-1]
		if err == nil || !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("%s: %v", failed, err)
		}
		got := found(t, on.root)
		shown := len(got) == 1 && strings.HasPrefix(failed, "syncdir") && strings.HasSuffix(failed, "/new")
		if len(got) != 0 && !shown {
			t.Errorf("%s left %.100q", failed, got)
		}
		on.fails = 0
		if err := deliver(on, "x\r\n", strings.Repeat("y", 2*bufferSize), "\r\n"); err != nil {
			t.Fatalf("after %s: %v", failed, err)
		}
		want := fmt.Sprintf("new/name,S=%d %q", 2*bufferSize+3, "x\n"+strings.Repeat("y", 2*bufferSize)+"\n")
		if got := found(t, on.root); len(got) != 1 || got[0] != want {
			t.Errorf("after %s: %.100q", failed, got)
		}
	}
}

// TestLeftBehind: what a crash left in tmp, or somebody put there, is not written through.
func TestLeftBehind(t *testing.T) {
	on := &faulty{root: t.TempDir()}
	if err := deliver(on, "x\r\n"); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(on.root, "victim")
	if err := os.WriteFile(victim, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(on.root, "a/b/tmp/name")); err != nil {
		t.Fatal(err)
	}
	if err := deliver(on, "longer\r\n"); err != nil {
		t.Fatal(err)
	}
	if got := found(t, on.root); len(got) != 2 || got[0] != `new/name,S=2 "x\n"` || got[1] != `new/name,S=7 "longer\n"` {
		t.Errorf("%q", got)
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != "kept" {
		t.Errorf("%q, %v", text, err)
	}
}
