package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"mailrace/proto/message"
)

// crampedFS is a disk that can be full: then a write of more than a byte writes half of it, and fails.
type crampedFS struct {
	vfs.FS
	full atomic.Bool
	met  chan struct{} // something failed
}

func cramp(fs vfs.FS) *crampedFS { return &crampedFS{FS: fs, met: make(chan struct{}, 1)} }

func (fs *crampedFS) check() error {
	if !fs.full.Load() {
		return nil
	}
	select {
	case fs.met <- struct{}{}:
	default:
	}
	return syscall.ENOSPC
}

func (fs *crampedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := fs.check(); err != nil {
		return nil, err
	}
	f, err := fs.FS.Create(name, category)
	return crampedFile{f, fs}, err
}

func (fs *crampedFS) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.ReuseForWrite(from, to, category)
	return crampedFile{f, fs}, err
}

func (fs *crampedFS) MkdirAll(dir string, perm os.FileMode) error {
	return errors.Join(fs.check(), fs.FS.MkdirAll(dir, perm))
}

func (fs *crampedFS) Unwrap() vfs.FS { return fs.FS }

type crampedFile struct {
	vfs.File
	fs *crampedFS
}

func (f crampedFile) Write(p []byte) (int, error) {
	if err := f.fs.check(); err != nil {
		n, _ := f.File.Write(p[:len(p)/2])
		return n, err
	}
	return f.File.Write(p)
}

func (f crampedFile) WriteAt(p []byte, at int64) (int, error) {
	if err := f.fs.check(); err != nil {
		n, _ := f.File.WriteAt(p[:len(p)/2], at)
		return n, err
	}
	return f.File.WriteAt(p, at)
}

// room is what the test says that there is.
type room struct{ free, inodes atomic.Int64 }

func (r *room) space(string) (Space, error) {
	return Space{Free: r.free.Load(), Total: 1 << 40, FreeInodes: r.inodes.Load(), Inodes: 1 << 20}, nil
}

func newRoom() *room {
	r := new(room)
	r.free.Store(1 << 39)
	r.inodes.Store(1 << 19)
	return r
}

func TestFullByMarks(t *testing.T) {
	r := newRoom()
	o := testOptions(t, vfs.NewMem())
	o.Space, o.MinFree, o.MinInodes = r.space, 8000, 800
	s := mustOpen(t, o)
	for _, step := range []struct {
		free, inodes int64
		full         bool
	}{
		{8000, 800, false},
		{7999, 800, true},
		{8999, 800, true},  // not an eighth above
		{9000, 899, true},  // nor are the inodes
		{9000, 900, false}, // now both are
		{9000, 799, true},
		{1 << 30, 1 << 19, false},
	} {
		r.free.Store(step.free)
		r.inodes.Store(step.inodes)
		s.keeper.look()
		if s.Full() != step.full {
			t.Errorf("with %d bytes and %d inodes full is %v", step.free, step.inodes, s.Full())
		}
	}
	mustClose(t, s)
}

func TestMarks(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		o     Options
		s     Space
		marks marks
	}{
		{Options{}, Space{Total: 100 * gib, Inodes: 1 << 20}, marks{2 * gib, 10_000}},
		{Options{}, Space{Total: 5 * gib, Inodes: 1000}, marks{gib / 2, 100}},
		{Options{}, Space{Total: 100 * gib}, marks{2 * gib, 0}},
		{Options{MinFree: 1, MinInodes: 2}, Space{Total: 5 * gib, Inodes: 1000}, marks{1, 2}},
	} {
		if m := marksFor(c.o, c.s, 2*gib); m != c.marks {
			t.Errorf("%+v of %+v: %+v, want %+v", c.o, c.s, m, c.marks)
		}
	}
	if (marks{1, 5}).below(Space{Free: 2}, true) {
		t.Error("a file system without inodes is short of them")
	}
}

// TestFullDiskIsWaitedOut fills the disk under a spool that is at work, and gives it room again, a few times. What was appended meanwhile
// completes when there is room, and everything is there when the spool is opened again. The memtables are so small that WALs, flushes,
// compactions and the manifest meet the full disk.
func TestFullDiskIsWaitedOut(t *testing.T) {
	t.Run("through the page cache", func(t *testing.T) { waitOut(t, false) })
	t.Run("past it", func(t *testing.T) { waitOut(t, true) })
}

func waitOut(t *testing.T, inBlocks bool) {
	disk, r := vfs.NewMem(), newRoom()
	fs := cramp(disk)
	o := testOptions(t, fs)
	o.Space, o.MemTableBytes, o.Reserve, o.inBlocks = r.space, 256<<10, 16<<10, inBlocks
	s := mustOpen(t, o)
	var acked []message.ID
	for round := range 10 {
		var waits []chan *Op
		half := func() {
			for i := range 10 {
				waits = append(waits, begin(s, &Op{Append: newMessage(s.Shard(i%2), 1000*round*(i+1), 1)}))
			}
		}
		half()
		fs.full.Store(true)
		half()
		for s.keeper.reserve.files.Load() > 0 || s.keeper.waiting.Load() == 0 {
			<-fs.met
		}
		if !s.Full() {
			t.Errorf("round %d: writes wait, and the spool is not full", round)
		}
		s.keeper.look() // there seems to be room
		if !s.Full() {
			t.Errorf("round %d: writes wait, and the spool is not full any more", round)
		}
		fs.full.Store(false)
		for _, w := range waits {
			op := <-w
			if op.Err != nil {
				t.Fatal(op.Err)
			}
			acked = append(acked, op.Append.ID)
		}
		for s.keeper.waiting.Load() > 0 { // something in the background tries again soon
			runtime.Gosched()
		}
		if s.keeper.look(); s.Full() || !s.keeper.reserve.whole() {
			t.Errorf("round %d: there is room, and the spool is full", round)
		}
	}
	mustClose(t, s)
	checkAcked(t, disk, acked)
}

// TestReclaimRests: for long after long work, and not after it stood still for long.
func TestReclaimRests(t *testing.T) {
	for _, c := range []struct {
		took   time.Duration
		waited bool
		rest   time.Duration
	}{
		{2 * time.Second, false, 18 * time.Second},
		{time.Hour, true, time.Second},
		{time.Millisecond, true, 9 * time.Millisecond},
	} {
		if rest := restAfter(c.took, c.waited); rest != c.rest {
			t.Errorf("after %v, waited %v: %v, want %v", c.took, c.waited, rest, c.rest)
		}
	}
}

// TestFullDiskEndsNoWait shows that a spool that waits for room can be closed, and says why what it was told to do is not done.
func TestFullDiskEndsNoWait(t *testing.T) {
	r := newRoom()
	fs := cramp(vfs.NewMem())
	o := testOptions(t, fs)
	o.Space = r.space
	fatal := make(chan error, 1)
	o.Fatal = func(err error) { fatal <- err }
	s := mustOpen(t, o)
	fs.full.Store(true)
	begin(s, &Op{Append: newMessage(s.Shard(0), 1000, 1)})
	for s.keeper.waiting.Load() == 0 {
		<-fs.met
	}
	if err := s.Close(); !errors.Is(err, errBroken) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("closed with %v", err)
	}
	if err := <-fatal; !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), ".log") {
		t.Errorf("fatal: %v", err)
	}
}

// TestFullDiskAtOpen gives the reserve for the opening, and then waits for room, also where there is no reserve left from the beginning.
func TestFullDiskAtOpen(t *testing.T) {
	disk, r := vfs.NewMem(), newRoom()
	o := testOptions(t, disk)
	o.Space, o.Reserve = r.space, 16<<10
	s := mustOpen(t, o)
	m := newMessage(s.Shard(0), 1000, 1)
	do(t, s, &Op{Append: m})
	mustClose(t, s)
	for range 2 {
		fs := cramp(disk)
		o.FS = fs
		fs.full.Store(true)
		opened := make(chan *Spool)
		go func() {
			s, err := Open(o)
			if err != nil {
				t.Error(err)
			}
			opened <- s
		}()
		for files := 1; files > 0; {
			<-fs.met
			names, err := disk.List(disk.PathJoin(o.Path, reserveDir))
			if err != nil {
				t.Fatal(err)
			}
			files = len(names)
		}
		select {
		case <-fs.met: // it is tried again
		case <-opened:
			t.Fatal("a full disk was not waited for")
		}
		fs.full.Store(false)
		s := <-opened
		if !s.keeper.reserve.whole() {
			t.Error("the reserve is not whole")
		}
		mustClose(t, s)
		for s.keeper.reserve.release() { // all of it, for the next round
		}
	}
	o.FS = disk
	checkAcked(t, disk, []message.ID{m.ID})
}

// TestCloseOnFullDiskAtOpen: who closes a spool that waits for room to be opened does not wait for it.
func TestCloseOnFullDiskAtOpen(t *testing.T) {
	disk, r := vfs.NewMem(), newRoom()
	o := testOptions(t, disk)
	o.Space = r.space
	s := mustOpen(t, o)
	do(t, s, &Op{Append: newMessage(s.Shard(0), 1000, 1)})
	mustClose(t, s)
	fs := cramp(disk)
	o.FS = fs
	fs.full.Store(true)
	s, err := Begin(o)
	if err != nil {
		t.Fatal(err)
	}
	<-fs.met
	s.Hurry()
	if err := s.Wait(); !isFull(err) {
		t.Errorf("opened with %v", err)
	}
	mustClose(t, s)
}

func TestReserve(t *testing.T) {
	fs := vfs.NewMem()
	r := &reserve{fs: fs, dir: "spool/reserve", bytes: 32 << 10}
	if err := errors.Join(r.open(), r.fill()); err != nil || !r.whole() || r.size() != 32<<10 {
		t.Fatalf("%v, %d bytes", err, r.size())
	}
	for n := reserveFiles - 1; n > 2; n-- {
		if !r.release() || int(r.files.Load()) != n || r.missing() != int64(reserveFiles-n)<<11 {
			t.Fatalf("%d files, %d bytes missing", r.files.Load(), r.missing())
		}
	}
	again := &reserve{fs: fs, dir: r.dir, bytes: r.bytes}
	if err := again.open(); err != nil || again.files.Load() != 3 {
		t.Errorf("%v, %d files found again", err, again.files.Load())
	}
	larger := &reserve{fs: fs, dir: r.dir, bytes: 64 << 10}
	if err := larger.open(); err != nil || larger.files.Load() != 0 {
		t.Errorf("%v, %d files of the wrong size", err, larger.files.Load())
	}
	if err := larger.fill(); err != nil || !larger.whole() {
		t.Error(err)
	}
	none := &reserve{fs: fs, dir: r.dir}
	if err := none.open(); err != nil || none.release() || !none.whole() {
		t.Error(err)
	}
	if _, err := fs.Stat(r.dir); err == nil {
		t.Error("a reserve that is not wanted is still there")
	}
}

// TestStatfs asks the operating system.
func TestStatfs(t *testing.T) {
	s, err := statfs(t.TempDir())
	if err != nil || s.Free <= 0 || s.Free > s.Total || s.FreeInodes > s.Inodes {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := statfs(t.TempDir() + "/nowhere"); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
}

// plainLog is a log without times.
func plainLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// TestFullIsLogged: once for each change, with the figures and what to do.
func TestFullIsLogged(t *testing.T) {
	var log bytes.Buffer
	r := newRoom()
	o := testOptions(t, vfs.NewMem())
	o.Log = plainLog(&log)
	o.Space, o.MinFree = r.space, 8000
	s := mustOpen(t, o)
	for _, free := range []int64{100, 100, 10_000, 10_000} {
		r.free.Store(free)
		s.keeper.look()
	}
	mustClose(t, s)
	want := `level=ERROR msg="spool: the disk is nearly full: no mail is taken, delivery goes on. Free some space, and it is taken again" ` +
		fmt.Sprintf("path=%s free_bytes=100 min_free=8000 free_inodes=%d min_inodes=%d\n", o.Path, 1<<19, minInodes) +
		"level=INFO msg=\"spool: there is room again, mail is taken\"\n"
	if log.String() != want {
		t.Errorf("logged\n%swant\n%s", &log, want)
	}
}

// TestWaitIsLoggedOnce: however often a write is tried again, until there is room.
func TestWaitIsLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	o := testOptions(t, vfs.NewMem())
	o.Log, o.Space = plainLog(&log), newRoom().space
	s := mustOpen(t, o)
	for range 2 {
		for range 3 {
			if !s.keeper.await("writing", "x", syscall.ENOSPC) {
				t.Error("no wait")
			}
		}
		s.keeper.look() // there is room
	}
	mustClose(t, s)
	if n := strings.Count(log.String(), "writes wait"); n != 2 {
		t.Errorf("logged %d times, want 2\n%s", n, &log)
	}
}

// TestFullOnceIsNothing lets the n-th operation that takes room find none, once, for all n: of WALs, tables, blobs, manifests and directories. Nobody
// notices.
func TestFullOnceIsNothing(t *testing.T) {
	faultAtEach(t, syscall.ENOSPC, "", func(n int32, op errorfs.Op, ended error) {
		if ended != nil {
			t.Errorf("operation %d (%v): fatal: %v", n, op, ended)
		}
	})
}

// TestFaultEndsOrNot lets the n-th operation that changes the disk fail, for all n. Either the process ends with an error that says where, or the
// failure is of work in the background that is done again; and everything that was acknowledged is there at the next start.
func TestFaultEndsOrNot(t *testing.T) {
	ends := map[string]int{}
	for _, failover := range []string{"", "other"} {
		faultAtEach(t, syscall.EIO, failover, func(n int32, op errorfs.Op, ended error) {
			if ended == nil {
				return
			}
			ends[failover]++
			if !strings.Contains(ended.Error(), syscall.EIO.Error()) || !strings.HasPrefix(ended.Error(), "shard ") {
				t.Errorf("operation %d (%v): fatal: %v", n, op, ended)
			}
		})
	}
	if ends[""] < 10 || ends["other"] >= ends[""] {
		t.Errorf("fatal operations: %v, want some, and fewer with another directory for WALs", ends)
	}
}

// faultAtEach runs a small spool through flushes and compactions again and again, with an error at the n-th operation that changes the disk, until
// nothing fails any more. judge is told of each run which operation failed, and what the process would have ended with.
func faultAtEach(t *testing.T, fault error, failover string, judge func(n int32, op errorfs.Op, ended error)) {
	for n := int32(0); ; n++ {
		disk := &crashDisk{MemFS: vfs.NewCrashableMem()}
		if err := disk.MkdirAll("other", 0o700); err != nil {
			t.Fatal(err)
		}
		at := errorfs.OnIndex(n)
		var armed atomic.Bool
		failed := make(chan errorfs.Op, 1)
		fs := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if !armed.Load() || op.Kind.ReadOrWrite() != errorfs.OpIsWrite || fault == syscall.ENOSPC && !takesRoom(op) {
				return nil
			}
			if at.MaybeError(op) == nil {
				return nil
			}
			failed <- op
			return fault
		}))
		o := testOptions(t, fs)
		o.Shards, o.MemTableBytes, o.Space, o.Reserve = 1, 64<<10, newRoom().space, 16<<10
		o.Failover, o.FailoverAfter = failover, 100*time.Millisecond
		fatal := make(chan error, 1)
		o.Fatal = func(err error) { fatal <- err }
		s := mustOpen(t, o)
		armed.Store(true)
		acked, ended := fill(s, fatal)
		armed.Store(false)
		if err := s.Close(); ended == nil && err != nil && fault == syscall.ENOSPC || ended != nil && !errors.Is(err, errBroken) {
			t.Errorf("operation %d: closed with %v", n, err)
		}
		select {
		case op := <-failed:
			judge(n, op, ended)
		default:
			t.Logf("%d operations", n)
			checkAcked(t, disk.CrashClone(vfs.CrashCloneCfg{}), acked)
			return
		}
		checkAcked(t, disk.CrashClone(vfs.CrashCloneCfg{}), acked)
	}
}

// fill appends messages that fill a few memtables, and returns those that completed, and what the process would have ended with.
func fill(s *Spool, fatal chan error) (acked []message.ID, ended error) {
	for i := range 12 {
		select {
		case op := <-begin(s, &Op{Append: newMessage(s.Shard(0), 2000*i, 1)}):
			acked = append(acked, op.Append.ID)
		case err := <-fatal:
			return acked, err
		}
	}
	flushed := make(chan error, 1)
	go func() { flushed <- s.shards[0].db.Compact(context.Background(), []byte{0}, []byte{kindCorrupt}, false) }()
	select {
	case <-flushed:
		return acked, nil
	case err := <-fatal:
		return acked, err
	}
}

// takesRoom says that an operation needs blocks or an inode.
func takesRoom(op errorfs.Op) bool {
	switch op.Kind {
	case errorfs.OpCreate, errorfs.OpLink, errorfs.OpRename, errorfs.OpReuseForWrite, errorfs.OpMkdirAll, errorfs.OpFileWrite, errorfs.OpFileWriteAt:
		return true
	}
	return false
}
