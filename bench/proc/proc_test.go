package proc

import (
	"os"
	"testing"
	"time"
)

func TestUsageOfThisProcess(t *testing.T) {
	before := Self()
	for Self().CPU < before.CPU+30*time.Millisecond { // three of the steps that Read counts in
	}
	read, err := Read(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if read.CPU < 20*time.Millisecond || read.RSS < 1<<20 || read.RSSPeak < read.RSS/2 {
		t.Errorf("%+v", read)
	}
}

func TestNoSuchProcess(t *testing.T) {
	if _, err := Read(1 << 30); err == nil {
		t.Error("no error")
	}
}
