package spool

import (
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"

	"github.com/VictoriaMetrics/metrics"
	"github.com/cockroachdb/pebble/v2/vfs"

	"mailrace/proto/message"
)

// meteredFS counts what is written to a disk, by the kind of file.
type meteredFS struct {
	vfs.FS
	meter *meter
}

type meter struct {
	mu    sync.Mutex
	bytes map[string]int64 // by extension
}

func metered(fs vfs.FS) meteredFS {
	return meteredFS{fs, &meter{bytes: map[string]int64{}}}
}

func (fs meteredFS) file(f vfs.File, name string, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return meteredFile{f, fs.meter, filepath.Ext(name)}, nil
}

func (fs meteredFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, category)
	return fs.file(f, name, err)
}

func (fs meteredFS) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.ReuseForWrite(from, to, category)
	return fs.file(f, to, err)
}

func (fs meteredFS) Unwrap() vfs.FS { return fs.FS }

type meteredFile struct {
	vfs.File
	meter *meter
	kind  string
}

func (f meteredFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	f.count(n)
	return n, err
}

func (f meteredFile) WriteAt(p []byte, at int64) (int, error) {
	n, err := f.File.WriteAt(p, at)
	f.count(n)
	return n, err
}

func (f meteredFile) count(n int) {
	f.meter.mu.Lock()
	f.meter.bytes[f.kind] += int64(n)
	f.meter.mu.Unlock()
}

// total is all that was written.
func (m *meter) total() (all int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.bytes {
		all += n
	}
	return all
}

// amplifier brings mail into a spool of one shard on a disk that is metered.
type amplifier struct {
	t     *testing.T
	s     *Spool
	disk  meteredFS
	mail  int64 // bytes of content and envelopes
	alive []*lodger
	rng   *rand.Rand
	wait  []chan *Op // of the batch under way
}

// lodger is a message that stays.
type lodger struct {
	m      *message.Message
	due    int64 // of its entry in the index
	tries  int
	leaves int // when so many messages have come
}

func newAmplifier(t *testing.T, memtable int) *amplifier {
	a := &amplifier{t: t, disk: metered(vfs.NewMem()), rng: rand.New(rand.NewPCG(1, 2))}
	o := testOptions(t, a.disk)
	o.Shards, o.MemTableBytes, o.rewriteAge = 1, memtable, 1
	a.s = mustOpen(t, o)
	return a
}

// arrive stores a message.
func (a *amplifier) arrive(size int) *message.Message {
	m := newMessage(a.s.Shard(0), size, 1)
	a.mail += int64(size + envelopeSize(m))
	a.enqueue(&Op{Append: m})
	return m
}

// enqueue waits for a batch of 50, as the committer would make under load.
func (a *amplifier) enqueue(op *Op) {
	a.wait = append(a.wait, begin(a.s, op))
	if len(a.wait) == 50 {
		a.flush()
	}
}

func (a *amplifier) flush() {
	for _, w := range a.wait {
		op := <-w
		if op.Err != nil {
			a.t.Fatal(op.Err)
		}
		if op.Append != nil {
			op.Append.Release()
		}
	}
	a.wait = a.wait[:0]
}

// judge holds what was written against what came in: the shard tells what the disk does, and Pebble of its WALs as well.
func (a *amplifier) judge(limit float64) {
	a.t.Helper()
	a.flush()
	sh := a.s.shards[0]
	m := sh.db.Metrics()
	mustClose(a.t, a.s)
	a.t.Logf("%d MiB of mail, %.2f bytes written for each of it: %v", a.mail>>20, sh.writeAmplification(), a.disk.meter.bytes)
	if got := int64(sh.mail.Get()); got != a.mail {
		a.t.Errorf("the spool counted %d bytes of mail, want %d", got, a.mail)
	}
	if got := sh.writeAmplification(); got > limit {
		a.t.Errorf("%.2f bytes were written for each byte of mail, want %.1f at most", got, limit)
	}
	outside := a.disk.meter.bytes[".new"] + a.disk.meter.bytes[""] // of the spool's own files
	if got, want := int64(sh.written.total()), a.disk.meter.total(); got > want || got < want-outside {
		a.t.Errorf("the shard counted %d bytes, the disk %d", got, want)
	}
	for kind, counted := range map[string]*metrics.Counter{".log": sh.written.wal, ".sst": sh.written.table, ".blob": sh.written.blob} {
		if got, want := int64(counted.Get()), a.disk.meter.bytes[kind]; got != want {
			a.t.Errorf("the shard counted %d bytes of %s, the disk %d", got, kind, want)
		}
	}
	if got, want := float64(sh.written.wal.Get()), float64(m.WAL.BytesWritten); got < 0.98*want || got > 1.02*want {
		a.t.Errorf("the shard counted %.0f bytes of WALs, Pebble %.0f", got, want)
	}
}

// TestAmplificationOfFleetingMail writes mail that is delivered within seconds once, to the WAL. What is under way when a memtable is full is flushed,
// here an eighth of it: 100 messages, as with memtables of 128 MiB some 1,600.
func TestAmplificationOfFleetingMail(t *testing.T) {
	a := newAmplifier(t, 8<<20)
	var under []Removal
	for range 6000 {
		m := a.arrive(10 << 10)
		if under = append(under, removalOf(m)); len(under) > 100 {
			a.enqueue(&Op{Remove: under[0]})
			under = under[1:]
		}
	}
	a.judge(1.3)
}

// TestAmplificationOfLastingMail keeps mail for many memtables, while it is deferred four times on average, and parked each time. Messages leave at
// random, so that blob files have garbage all over them.
func TestAmplificationOfLastingMail(t *testing.T) {
	a := newAmplifier(t, 512<<10)
	for i := range 6000 {
		a.alive = append(a.alive, &lodger{m: a.arrive(10 << 10), leaves: i + int(1200*a.rng.ExpFloat64())})
		for range 4 {
			a.attempt(a.alive[a.rng.IntN(len(a.alive))], i)
		}
		a.leave(i)
	}
	a.judge(3)
}

// attempt defers a message, for the first time or again.
func (a *amplifier) attempt(l *lodger, i int) {
	was := l.due
	l.tries++
	l.due = int64(i+a.rng.IntN(5000)) << 30
	op := &Op{Updates: []Update{{ID: l.m.ID, State: message.Deferred, Attempts: uint16(l.tries), Due: l.due, Reply: "451 4.7.1 Greylisted, try again later", Parked: true}},
		Park: Due{At: l.due, ID: l.m.ID}}
	if was != 0 {
		op.Unpark = Due{At: was, ID: l.m.ID}
	}
	a.enqueue(op)
}

// leave removes those whose time has come.
func (a *amplifier) leave(i int) {
	kept := a.alive[:0]
	for _, l := range a.alive {
		if l.leaves > i {
			kept = append(kept, l)
			continue
		}
		op := &Op{Remove: removalOf(l.m)}
		if l.tries > 0 {
			op.Remove.Recipients, op.Unpark = 1, Due{At: l.due, ID: l.m.ID}
		}
		a.enqueue(op)
	}
	a.alive = kept
}
