package ceiling

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestMeasure: there is a figure for all, again and again, logs keep their length, and nothing is left behind.
func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	m, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r, err := m.Measure(t.Context(), 20*time.Millisecond)
		if err != nil || r.Syncs <= 0 || r.Written < LargeBatch/10 || r.Loopback <= 0 {
			t.Errorf("%+v, %v", r, err)
		}
	}
	for _, l := range m.logs {
		if info, err := l.file.Stat(); err != nil || info.Size() != logOctets {
			t.Errorf("a log of %d octets (%v)", info.Size(), err)
		}
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestLogWrapsAround: what does not fit any more goes to the start.
func TestLogWrapsAround(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := &log{file: f, at: logOctets - SmallBatch}
	batch := noise(SmallBatch)
	for _, want := range []int64{logOctets, SmallBatch, 2 * SmallBatch} {
		if err := l.append(batch); err != nil || l.at != want {
			t.Errorf("at %d, want %d (%v)", l.at, want, err)
		}
	}
}

func TestMeasureFails(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	m, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Measure(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := loopback(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("loopback: %v", err)
	}
	m.logs[0].file.Close()
	if _, err := m.Measure(t.Context(), time.Millisecond); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed log: %v", err)
	}
	if err := m.Close(); err == nil {
		t.Error("no error of a log that was closed already")
	}
}
