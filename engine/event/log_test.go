package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"mailrace/proto/message"
)

// disk is a sink that a test can stop and break.
type disk struct {
	mu     sync.Mutex
	lines  bytes.Buffer
	fault  error
	stop   chan struct{} // nil = goes on; else each write waits for it
	writes chan struct{} // told of each write that succeeded
}

func newDisk() *disk { return &disk{writes: make(chan struct{}, 1000)} }

func (d *disk) Write(lines []byte) error {
	d.mu.Lock()
	stop, fault := d.stop, d.fault
	d.mu.Unlock()
	if stop != nil {
		<-stop
	}
	if fault != nil {
		return fault
	}
	d.mu.Lock()
	d.lines.Write(lines)
	d.mu.Unlock()
	d.writes <- struct{}{}
	return nil
}

func (d *disk) Close() error { return nil }

func (d *disk) set(stop chan struct{}, fault error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stop, d.fault = stop, fault
}

func (d *disk) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lines.String()
}

// tally counts the records of a log by type, the dropped ones as "dropped". Each line must be JSON.
func tally(t *testing.T, text string) map[string]int {
	t.Helper()
	n := map[string]int{}
	for line := range strings.Lines(text) {
		var r struct {
			Type    string
			Dropped int
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil || line[len(line)-1] != '\n' {
			t.Fatalf("%q: %v", line, err)
		}
		n[r.Type]++
		n["dropped"] += r.Dropped
	}
	return n
}

func open(t *testing.T, o Options) *Log {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWritersShareAFile(t *testing.T) {
	const writers, records = 4, 5000
	path := filepath.Join(t.TempDir(), "log", "events.jsonl")
	l := open(t, Options{Path: path, Writers: writers})
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for j := range records {
				l.Writer(i).Record(&Record{Type: Delivery, ID: message.ID(i<<32 | j), Sender: "a@b.example"})
			}
		})
	}
	wg.Wait()
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	text := read(t, path)
	if n := tally(t, text); n["delivery"] != writers*records || n["loss"] != 0 {
		t.Fatalf("got %v, want %d deliveries", n, writers*records)
	}
	for i := range writers { // the records of one writer keep their order
		want := 0
		for line := range strings.Lines(text) {
			if strings.Contains(line, message.ID(i<<32|want).String()) {
				want++
			}
		}
		if want != records {
			t.Errorf("writer %d: %d records in order, want %d", i, want, records)
		}
	}
}

// TestFlushUnasked: a single record reaches the disk without anyone waiting for it, and Close writes the rest.
func TestFlushUnasked(t *testing.T) {
	d := newDisk()
	l := open(t, Options{sink: d, Writers: 2})
	l.Writer(1).Record(&sample)
	<-d.writes
	l.Writer(0).Record(&sample)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if n := tally(t, d.text()); n["deferral"] != 2 {
		t.Errorf("got %v", n)
	}
	l.Writer(0).Record(&sample)
	if err := l.Sync(); err == nil {
		t.Error("Sync of a closed log reports success")
	}
}

// TestSlowDisk: the disk stops; recording goes on, memory stays bounded, and every record is either in the log or counted there.
func TestSlowDisk(t *testing.T) {
	const limit, records = 256 << 10, 20_000
	var complaints bytes.Buffer
	d, stop := newDisk(), make(chan struct{})
	d.set(stop, nil)
	l := open(t, Options{sink: d, Buffer: limit, Log: slog.New(slog.NewTextHandler(&complaints, nil))})
	w, before := l.Writer(0), droppedTotal.Get()
	for range records {
		w.Record(&sample)
	}
	w.mu.Lock()
	held := len(w.buf)
	w.mu.Unlock()
	if held > limit {
		t.Errorf("%d bytes wait, want at most %d", held, limit)
	}
	d.set(nil, nil)
	close(stop)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	n := tally(t, d.text())
	if n["deferral"]+n["dropped"] != records || n["deferral"] == 0 || n["loss"] == 0 {
		t.Errorf("got %v, want %d records or losses", n, records)
	}
	if got := droppedTotal.Get() - before; got != uint64(n["dropped"]) {
		t.Errorf("metric says %d dropped, log says %d", got, n["dropped"])
	}
	told := 0
	for _, m := range regexp.MustCompile(`dropped=(\d+)`).FindAllStringSubmatch(complaints.String(), -1) {
		k, _ := strconv.Atoi(m[1])
		told += k
	}
	if told != n["dropped"] {
		t.Errorf("complaints of %d dropped, want %d: %s", told, n["dropped"], complaints.String())
	}
}

// TestBrokenDisk: what could not be written is counted in the log once it can be written again.
func TestBrokenDisk(t *testing.T) {
	var complaints bytes.Buffer
	d, fault := newDisk(), errors.New("no space left on device")
	d.set(nil, fault)
	l := open(t, Options{sink: d, Log: slog.New(slog.NewTextHandler(&complaints, nil))})
	for range 3 {
		l.Writer(0).Record(&sample)
		if err := l.Sync(); !errors.Is(err, fault) {
			t.Fatalf("Sync: %v, want %v", err, fault)
		}
	}
	d.set(nil, nil)
	l.Writer(0).Record(&sample)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if n := tally(t, d.text()); n["deferral"] != 1 || n["dropped"] != 3 || n["loss"] != 1 {
		t.Errorf("got %v", n)
	}
	if got := complaints.String(); !strings.Contains(got, "no space left on device") || strings.Count(got, "\n") != 2 {
		t.Errorf("complaints: %s", got)
	}
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "events.jsonl")
	line := len(sample.Append(nil))
	l := open(t, Options{Path: path, MaxSize: int64(3 * line), Keep: 2})
	for range 20 {
		l.Writer(0).Record(&sample)
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(files) != 3 {
		t.Fatalf("files %v, want one and two old ones", files)
	}
	for file, want := range map[string]int{path: 2, path + ".1": 3, path + ".2": 3} {
		if n := tally(t, read(t, file)); n["deferral"] != want {
			t.Errorf("%s: %v, want %d", file, n, want)
		}
	}
}

func TestRotationKeepsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	l := open(t, Options{Path: path, MaxSize: int64(2 * len(sample.Append(nil)))})
	for range 5 {
		l.Writer(0).Record(&sample)
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	if n := tally(t, read(t, path)); n["deferral"] != 1 {
		t.Errorf("got %v", n)
	}
}

// TestContinue: a log goes on behind what is there; a line that a crash tore does not take the next one with it.
func TestContinue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	if err := os.WriteFile(path, []byte(`{"type":"deliv`), 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, Options{Path: path})
	l.Writer(0).Record(&sample)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	torn, rest, _ := strings.Cut(read(t, path), "\n")
	if n := tally(t, rest); torn != `{"type":"deliv` || n["deferral"] != 1 {
		t.Errorf("%q, then %v", torn, n)
	}
}

func TestOff(t *testing.T) {
	l := open(t, Options{Path: "off"})
	before := recordsTotal[Deferral].Get()
	l.Writer(0).Record(&sample)
	if err := errors.Join(l.Sync(), l.Close(), l.Close()); err != nil {
		t.Error(err)
	}
	if got := recordsTotal[Deferral].Get() - before; got != 1 {
		t.Errorf("counted %d, want 1", got)
	}
}

func TestOpenFails(t *testing.T) {
	if _, err := Open(Options{Path: t.TempDir()}); err == nil {
		t.Error("a directory was opened as a log")
	}
}

// BenchmarkRecord is what a loop pays for a record, with a disk that keeps up.
func BenchmarkRecord(b *testing.B) {
	l, err := Open(Options{sink: stream{mustOpen(b, os.DevNull)}, Buffer: 64 << 20})
	if err != nil {
		b.Fatal(err)
	}
	w, before := l.Writer(0), droppedTotal.Get()
	b.ReportAllocs()
	for b.Loop() {
		w.Record(&sample)
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(droppedTotal.Get()-before)/float64(b.N), "dropped/op")
}

func mustOpen(tb testing.TB, path string) *os.File {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	return f
}
