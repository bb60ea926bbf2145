package spool

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// blockFile is a file that takes what O_DIRECT allows alone, and notes what is written.
type blockFile struct {
	vfs.File
	t        *testing.T
	content  []byte
	writes   int
	refuse   int // so many writes end with EINVAL
	fail     error
	syncs    int
	closings int
}

func (f *blockFile) WriteAt(p []byte, at int64) (int, error) {
	if f.refuse > 0 {
		f.refuse--
		return 0, syscall.EINVAL
	}
	if f.fail != nil {
		return 0, f.fail
	}
	if at%directBlock != 0 || len(p) == 0 || len(p)%directBlock != 0 || uintptr(unsafe.Pointer(unsafe.SliceData(p)))%directBlock != 0 {
		f.t.Fatalf("%d octets from %p at %d", len(p), p, at)
	}
	if at > int64(len(f.content)) {
		f.t.Fatalf("a hole from %d to %d", len(f.content), at)
	}
	f.content = append(f.content[:min(int(at), len(f.content))], p...)
	f.writes++
	return len(p), nil
}

func (f *blockFile) Sync() error     { f.syncs++; return nil }
func (f *blockFile) SyncData() error { f.syncs++; return nil }
func (f *blockFile) Close() error    { f.closings++; return nil }
func (f *blockFile) Fd() uintptr     { return vfs.InvalidFd }

// TestDirectFile writes pieces of all sizes with syncs between them: after each of those the file is what was written, and zeros to the end of a block.
func TestDirectFile(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	disk := &blockFile{t: t}
	f := &directFile{File: disk, room: alignedBytes(4 * directBlock)}
	var all []byte
	check := func() {
		t.Helper()
		if got := disk.content; len(got) < len(all) || len(got) >= len(all)+directBlock || !bytes.Equal(got[:len(all)], all) || len(bytes.Trim(got[len(all):], "\x00")) > 0 {
			t.Fatalf("after %d octets the file has %d, or others", len(all), len(got))
		}
	}
	for range 300 {
		p := make([]byte, []int{1, 19, directBlock - 1, directBlock, directBlock + 1, 3*directBlock + 5, 9 * directBlock}[rng.IntN(7)])
		for i := range p {
			p[i] = byte(1 + rng.IntN(255))
		}
		if n, err := f.Write(p); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
		all = append(all, p...)
		clear(p) // it is the caller's again
		if rng.IntN(3) == 0 {
			before := disk.syncs
			if err := f.SyncData(); err != nil || disk.syncs != before+1 {
				t.Fatal(err)
			}
			check()
		}
	}
	if err := f.Close(); err != nil || disk.closings != 1 {
		t.Fatal(err)
	}
	check()
}

// A sync with nothing to write writes nothing.
func TestDirectFileAtRest(t *testing.T) {
	t.Parallel()
	disk := &blockFile{t: t}
	f := &directFile{File: disk, room: alignedBytes(4 * directBlock)}
	for range 3 {
		if err := errors.Join(f.SyncData(), f.Sync()); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = f.Write([]byte("x"))
	for range 3 {
		if err := errors.Join(f.SyncData(), f.Sync()); err != nil {
			t.Fatal(err)
		}
	}
	if disk.writes != 1 || disk.syncs != 12 {
		t.Errorf("%d writes, %d syncs", disk.writes, disk.syncs)
	}
}

// No sync follows a write that failed, and the failure is reported as long as the file is used.
func TestDirectFileFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	disk := &blockFile{t: t, fail: broken}
	f := &directFile{File: disk, room: alignedBytes(2 * directBlock)}
	if _, err := f.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.SyncData(); !errors.Is(err, broken) {
			t.Errorf("sync: %v", err)
		}
	}
	if _, err := f.Write(make([]byte, 3*directBlock)); !errors.Is(err, broken) {
		t.Errorf("write: %v", err)
	}
	if disk.syncs != 0 {
		t.Errorf("%d syncs", disk.syncs)
	}
	if err := f.Close(); !errors.Is(err, broken) || disk.closings != 1 {
		t.Errorf("close: %v", err)
	}
}

// TestDirectOnDisk has WALs on a true file system written past the page cache, where that can be done, read again after an end without a close, and after
// the file system turned out not to allow it.
func TestDirectOnDisk(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "000001.log")
	file, err := vfs.Default.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	sh := &Shard{spool: &Spool{options: Options{Sync: true}}}
	f, ok := sh.direct(file).(*directFile)
	if !ok {
		t.Skip("no O_DIRECT here")
	}
	text := strings.Repeat("0123456789", 1000)
	for i, step := range []func(){
		func() {},
		func() { f.File = &refusing{File: file, times: 1} },
		func() {},
	} {
		step()
		if _, err := f.Write([]byte(text)); err != nil {
			t.Fatal(i, err)
		}
		if err := f.SyncData(); err != nil {
			t.Fatal(i, err)
		}
		got, err := os.ReadFile(name)
		if want := strings.Repeat(text, i+1); err != nil || strings.TrimRight(string(got), "\x00") != want {
			t.Fatalf("step %d: %d octets, want %d: %v", i, len(got), len(want), err)
		}
		if i == 1 && f.past {
			t.Error("O_DIRECT is still set")
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := (&Shard{spool: &Spool{}}).direct(file).(*directFile); ok {
		t.Error("O_DIRECT without syncs")
	}
}

// refusing is a file whose file system finds out late that it cannot do O_DIRECT.
type refusing struct {
	vfs.File
	times int
}

func (f *refusing) WriteAt(p []byte, at int64) (int, error) {
	if f.times > 0 {
		f.times--
		return 0, syscall.EINVAL
	}
	return f.File.WriteAt(p, at)
}
