package keep_test

import (
	"errors"
	"path/filepath"
	"testing"

	"mailrace/engine/keep"
	"mailrace/engine/keep/keeptest"
)

// TestWrite: whichever operation fails, alone or with all that follow, there is the old file or the new one, also after a crash; and the new one
// where no error was told.
func TestWrite(t *testing.T) {
	const name = "dir/state.json"
	content := func(f *keeptest.FS) string {
		got, err := keep.Read(f, name, 100)
		if err != nil {
			t.Fatal(err)
		}
		return string(got)
	}
	for _, all := range []bool{false, true} {
		for operation := 1; ; operation++ {
			f := &keeptest.FS{}
			f.Put(name, []byte("old"))
			f.Put(name+".new", []byte("left over from a crash"))
			f.Fail(operation, all)
			err := keep.Write(f, name, []byte("new"))
			done := f.Operations() < operation
			f.Fail(0, false)
			for how, found := range map[string]string{"lucky": content(f.Crash(true)), "unlucky": content(f.Crash(false)), "live": content(f)} {
				if found != "new" && (err == nil || found != "old") {
					t.Errorf("operation %d fails, all %v: %v, and %s %q is found", operation, all, err, how, found)
				}
			}
			if err := keep.Write(f, name, []byte("newer")); err != nil || content(f.Crash(false)) != "newer" {
				t.Errorf("operation %d fails, all %v: the next write: %v, %q", operation, all, err, content(f.Crash(false)))
			}
			if done {
				if err != nil || operation != 7 {
					t.Errorf("%v after %d operations", err, operation-1)
				}
				break
			}
			if !errors.Is(err, keeptest.ErrFault) {
				t.Errorf("operation %d fails, all %v: %v", operation, all, err)
			}
		}
	}
}

// TestDisk: the same on the file system of the machine.
func TestDisk(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if content, err := keep.Read(keep.Disk{}, name, 10); content != nil || err != nil {
		t.Errorf("%q, %v of a file that is not there", content, err)
	}
	for _, text := range []string{"a longer one", "short"} {
		if err := keep.Write(keep.Disk{}, name, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if content, err := keep.Read(keep.Disk{}, name, 12); string(content) != text || err != nil {
			t.Errorf("%q, %v", content, err)
		}
	}
	if _, err := keep.Read(keep.Disk{}, name, 4); !errors.Is(err, keep.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if err := keep.Write(keep.Disk{}, filepath.Join(name, "g"), nil); err == nil {
		t.Error("written below a file")
	}
}
