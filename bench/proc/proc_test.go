package proc

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestUsageOfThisProcess(t *testing.T) {
	before := Self()
	for Self().CPU < before.CPU+30*time.Millisecond { // three of the steps that Read counts in
	}
	if err := os.WriteFile(filepath.Join(t.TempDir(), "file"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	read, err := Read(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if read.CPU < 20*time.Millisecond || read.RSS < 1<<20 || read.RSSPeak < read.RSS/2 || read.Written < before.Written {
		t.Errorf("%+v", read)
	}
}

func TestNoSuchProcess(t *testing.T) {
	if _, err := Read(1 << 30); err == nil {
		t.Error("no error")
	}
}

func TestBusyRow(t *testing.T) {
	for share, want := range map[float64]string{0: "0%", 0.5: "50%", BusyLimit: "85%", 0.97: "97%: may be the limit"} {
		if row := BusyRow(share); len(row) != 2 || row[1] != want {
			t.Errorf("%g: %q", share, row)
		}
	}
}
