package spool

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"mailrace/proto/message"
)

// twoDisks is a spool with a second home for its WALs. The WALs of the first can be made to hang, and those of both to fail.
type twoDisks struct {
	t       *testing.T
	disk    *crashDisk
	o       Options
	hang    atomic.Bool
	release chan struct{}
	fail    [2]atomic.Bool
	fatal   chan error
}

func newTwoDisks(t *testing.T) *twoDisks {
	d := &twoDisks{t: t, disk: &crashDisk{MemFS: vfs.NewCrashableMem()}, release: make(chan struct{}), fatal: make(chan error, 1)}
	if err := d.disk.MkdirAll("other", 0o700); err != nil {
		t.Fatal(err)
	}
	d.o = d.options(d.disk)
	d.o.Fatal = func(err error) { d.fatal <- err }
	d.o.FS = errorfs.Wrap(d.disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		home := primaryWAL
		if strings.HasPrefix(op.Path, "other/") {
			home = secondaryWAL
		}
		if !isSync(op) {
			return nil
		}
		if home == primaryWAL && d.hang.Load() {
			<-d.release
		}
		if d.fail[home].Load() {
			return syscall.EIO
		}
		return nil
	}))
	return d
}

// options are those of a healthy disk.
func (d *twoDisks) options(fs vfs.FS) Options {
	o := testOptions(d.t, fs)
	o.Failover, o.FailoverAfter = "other", 100*time.Millisecond
	return o
}

// mail appends messages and returns them when they are durable.
func (d *twoDisks) mail(s *Spool, n int) (acked []message.ID) {
	d.t.Helper()
	for i := range n {
		m := newMessage(s.Shard(i%2), 100*i, 1)
		do(d.t, s, &Op{Append: m})
		acked = append(acked, m.ID)
	}
	return acked
}

// crash is what a power failure leaves.
func (d *twoDisks) crash() *vfs.MemFS { return d.disk.CrashClone(vfs.CrashCloneCfg{}) }

// check opens a spool and looks for messages.
func (d *twoDisks) check(o Options, acked []message.ID) {
	d.t.Helper()
	s := mustOpen(d.t, o)
	found := recovered(d.t, s)
	for _, id := range acked {
		if found[id] == nil {
			d.t.Errorf("acknowledged message %v is lost", id)
		}
	}
	mustClose(d.t, s)
}

// TestFailoverOfHangingDisk lets the first disk hang: mail goes on by way of the second, is there after a crash, with whatever configuration the next
// start has, and the second disk is needed only until then.
func TestFailoverOfHangingDisk(t *testing.T) {
	d := newTwoDisks(t)
	s := mustOpen(t, d.o)
	acked := d.mail(s, 10)
	d.hang.Store(true)
	acked = append(acked, d.mail(s, 20)...)
	var b bytes.Buffer
	metrics.WritePrometheus(&b, false)
	for _, want := range []string{`mailrace_spool_wal_switches_total{shard="0"} `, `mailrace_spool_wal_switches_total{shard="1"} `,
		`mailrace_spool_wal_secondary_seconds_total{shard="1"} 0.`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if strings.Contains(b.String(), `mailrace_spool_wal_switches_total{shard="0"} 0`) {
		t.Error("no switch is counted")
	}
	left := [...]*vfs.MemFS{d.crash(), d.crash(), d.crash(), d.crash()}
	d.hang.Store(false)
	close(d.release)
	mustClose(t, s)
	d.check(d.o, acked)

	d.check(d.options(left[0]), acked) // the same again

	none := d.options(left[1]) // the second disk is not configured any more
	none.Failover = ""
	d.check(none, acked)
	if err := left[1].RemoveAll("other"); err != nil {
		t.Fatal(err)
	}
	d.check(none, acked)

	another := d.options(left[2])
	another.Failover = "third"
	if err := left[2].MkdirAll("third", 0o700); err != nil {
		t.Fatal(err)
	}
	d.check(another, acked)
	if names, err := left[2].List("other"); err != nil || len(names) != 0 {
		t.Errorf("left on the disk that is not needed any more: %v, %v", names, err)
	}

	readOnly := d.options(left[3]) // as of a tool that knows the spool alone
	readOnly.Failover, readOnly.ReadOnly = "", true
	d.check(readOnly, acked)
	d.check(d.options(left[3]), acked)
}

// TestFailoverOfFailingDisk lets the first disk fail, and then the second too, which is the end.
func TestFailoverOfFailingDisk(t *testing.T) {
	d := newTwoDisks(t)
	s := mustOpen(t, d.o)
	acked := d.mail(s, 10)
	d.fail[primaryWAL].Store(true)
	acked = append(acked, d.mail(s, 10)...)
	d.check(d.options(d.crash()), acked)
	d.fail[secondaryWAL].Store(true)
	last := begin(s, &Op{Append: newMessage(s.Shard(0), 10, 1)})
	if err := <-d.fatal; !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "syncing other/wal-") {
		t.Errorf("fatal: %v", err)
	}
	if err := s.Close(); !errors.Is(err, errBroken) {
		t.Errorf("closed with %v", err)
	}
	select {
	case <-last:
		t.Error("a message completed that no disk has")
	default:
	}
	d.check(d.options(d.crash()), acked)
}

func TestFailoverRefuses(t *testing.T) {
	d := newTwoDisks(t)
	refused := func(o Options, want ...string) {
		t.Helper()
		s, err := Open(o)
		if err == nil {
			mustClose(t, s)
			t.Fatal("opened")
		}
		for _, w := range append(want, o.Path) {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q does not say %q", err, w)
			}
		}
	}
	missing := d.options(d.disk)
	missing.Failover = "nowhere"
	refused(missing, "wal_failover nowhere: make that directory, on another disk", "mount")
	o := d.options(d.disk)
	s := mustOpen(t, o)
	acked := d.mail(s, 3)
	mustClose(t, s)
	if err := d.disk.Rename("other", "unmounted"); err != nil {
		t.Fatal(err)
	}
	refused(o, "accepted mail may be in other/wal-", "mount its disk", o.Path+"/"+failoverNote)
	if err := d.disk.MkdirAll("other", 0o700); err != nil { // where the disk should be mounted
		t.Fatal(err)
	}
	refused(o, "accepted mail may be in other/wal-")
	none := o
	none.Failover = ""
	refused(none, "accepted mail may be in other/wal-")
	if err := errors.Join(d.disk.RemoveAll("other"), d.disk.Rename("unmounted", "other")); err != nil {
		t.Fatal(err)
	}
	d.check(o, acked)
	if err := errors.Join(d.disk.RemoveAll("other"), d.disk.Remove(o.Path+"/"+failoverNote)); err != nil { // lost for good
		t.Fatal(err)
	}
	d.check(none, acked)
	if _, err := d.disk.Stat("other"); !errors.Is(err, os.ErrNotExist) {
		t.Error("the directory was made anew")
	}
}

// TestFailoverFillsMemory takes no mail while the memtables cannot be flushed, which grow without bound then.
func TestFailoverFillsMemory(t *testing.T) {
	d := newTwoDisks(t)
	r := newRoom()
	d.o.Space, d.o.MemTableBytes = r.space, 256<<10
	var stuck atomic.Bool
	release := make(chan struct{})
	d.o.FS = errorfs.Wrap(d.o.FS, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if stuck.Load() && op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".sst") {
			<-release
		}
		return nil
	}))
	s := mustOpen(t, d.o)
	d.hang.Store(true)
	stuck.Store(true)
	var acked []message.ID
	for !s.Full() {
		acked = append(acked, d.mail(s, 100)...)
		s.keeper.look()
	}
	d.hang.Store(false)
	close(d.release)
	close(release)
	for s.Full() {
		acked = append(acked, d.mail(s, 1)...)
		s.keeper.look()
	}
	mustClose(t, s)
	d.check(d.options(d.disk), acked)
}
