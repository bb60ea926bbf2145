package spool

import (
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// trouble is what a disk does in one life of a spool.
type trouble struct {
	crashAt int64             // the machine goes down before so many-th change of the disk; 0 = not by itself
	loss    vfs.CrashCloneCfg // then

	fault   error // that an operation ends with; nil = none
	kinds   []errorfs.OpKind
	faultAt int64 // of these kinds the so many-th
	times   int64 // a full disk stays so for so many operations
	follow  int64 // the machine goes down so many changes after the first that failed; 0 = not for that
}

func (t trouble) String() string {
	text := ""
	if t.crashAt > 0 {
		text += fmt.Sprintf(" crash at change %d, %d%% of what is not synced stays", t.crashAt, t.loss.UnsyncedDataPercent)
	}
	if t.fault != nil {
		text += fmt.Sprintf(" %v at %d of %v, %d times, crash %d later", t.fault, t.faultAt, t.kinds, t.times, t.follow)
	}
	return text
}

// faultKinds are groups of operations that fail.
var faultKinds = [][]errorfs.OpKind{
	{errorfs.OpFileWrite, errorfs.OpFileWriteAt},
	{errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo},
	{errorfs.OpCreate, errorfs.OpReuseForWrite},
	{errorfs.OpRename, errorfs.OpLink},
	{errorfs.OpRemove, errorfs.OpRemoveAll},
	{errorfs.OpFileClose},
	{errorfs.OpMkdirAll, errorfs.OpOpenDir, errorfs.OpList},
}

var roomKinds = []errorfs.OpKind{
	errorfs.OpCreate, errorfs.OpLink, errorfs.OpRename, errorfs.OpReuseForWrite, errorfs.OpMkdirAll, errorfs.OpFileWrite, errorfs.OpFileWriteAt,
}

// makeTrouble draws what happens in a life of about so many changes of the disk.
func makeTrouble(rng *rand.Rand, changes int64, crash, fault, full bool) (t trouble) {
	t.loss = vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 100, rng.IntN(101)}[rng.IntN(3)], RNG: rand.New(rand.NewPCG(rng.Uint64(), 0))}
	if crash {
		t.crashAt = 1 + rng.Int64N(1+rng.Int64N(changes))
	}
	if rng.IntN(2) == 0 {
		t.follow = 1 + rng.Int64N(10)
	}
	switch {
	case full:
		t.fault, t.kinds, t.faultAt, t.times = syscall.ENOSPC, roomKinds, 1+rng.Int64N(changes), 1+rng.Int64N(1+rng.Int64N(20))
	case fault:
		t.fault, t.kinds, t.times = syscall.EIO, faultKinds[rng.IntN(len(faultKinds))], 1
		t.faultAt = 1 + rng.Int64N(1+changes/int64(2+rng.IntN(60)))
	}
	return t
}

// wreckable is a disk in memory with its trouble.
type wreckable struct {
	vfs.FS
	mem     *vfs.MemFS
	trouble trouble
	limits  func() bounds

	armed   atomic.Bool // operations may fail
	crashAt atomic.Int64
	changes atomic.Int64
	matches atomic.Int64 // operations that could have failed
	met     atomic.Bool  // something has failed

	twice sync.Mutex // held while MemFS takes its own lock twice: a crash between the two would wait for the operation, and be waited for

	mu     sync.Mutex
	left   *vfs.MemFS // by the crash
	bounds bounds     // then
}

func newWreckable(mem *vfs.MemFS, t trouble, limits func() bounds) *wreckable {
	d := &wreckable{mem: mem, trouble: t, limits: limits}
	d.crashAt.Store(t.crashAt)
	d.FS = errorfs.Wrap(shortWrites{mem, d}, errorfs.InjectorFunc(d.operate))
	return d
}

// operate is told of each operation before it is done.
func (d *wreckable) operate(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && d.changes.Add(1) == d.crashAt.Load() {
		d.crash()
	}
	if d.trouble.fault == syscall.ENOSPC && (op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpFileWriteAt) {
		return nil // shortWrites does these
	}
	return d.fail(op.Kind)
}

// fail is the error that an operation of a kind ends with.
func (d *wreckable) fail(kind errorfs.OpKind) error {
	t := &d.trouble
	if t.fault == nil || !d.armed.Load() {
		return nil
	}
	for _, k := range t.kinds {
		if k == kind {
			if n := d.matches.Add(1); n >= t.faultAt && n < t.faultAt+t.times {
				if !d.met.Swap(true) && t.follow > 0 {
					d.crashAt.CompareAndSwap(0, d.changes.Load()+t.follow)
				}
				return t.fault
			}
			return nil
		}
	}
	return nil
}

// crash notes what is on the disk after a crash at this moment.
func (d *wreckable) crash() {
	d.twice.Lock()
	defer d.twice.Unlock()
	before := d.limits()
	left := d.mem.CrashClone(d.trouble.loss)
	for {
		after := d.limits()
		if &after.of[0] == &before.of[0] {
			before.high = after.high
			break
		}
		before = after // the model was made anew meanwhile
		left = d.mem.CrashClone(d.trouble.loss)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left == nil {
		d.left, d.bounds = left, before
	}
}

// crashed is what a crash left, if there was one.
func (d *wreckable) crashed() (left *vfs.MemFS, b bounds) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.left, d.bounds
}

// shortWrites writes half of what a full disk has no room for.
type shortWrites struct {
	vfs.FS
	d *wreckable
}

func (fs shortWrites) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, category)
	return fs.file(f, err)
}

func (fs shortWrites) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	fs.d.twice.Lock()
	defer fs.d.twice.Unlock()
	f, err := fs.FS.ReuseForWrite(from, to, category)
	return fs.file(f, err)
}

func (fs shortWrites) Lock(name string) (io.Closer, error) {
	fs.d.twice.Lock()
	defer fs.d.twice.Unlock()
	return fs.FS.Lock(name)
}

func (fs shortWrites) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return shortFile{f, fs.d}, nil
}

func (fs shortWrites) Unwrap() vfs.FS { return fs.FS }

type shortFile struct {
	vfs.File
	d *wreckable
}

func (f shortFile) Write(p []byte) (int, error) {
	if f.d.trouble.fault == syscall.ENOSPC {
		if err := f.d.fail(errorfs.OpFileWrite); err != nil {
			n, _ := f.File.Write(p[:len(p)/2])
			return n, err
		}
	}
	return f.File.Write(p)
}

func (f shortFile) WriteAt(p []byte, at int64) (int, error) {
	if f.d.trouble.fault == syscall.ENOSPC {
		if err := f.d.fail(errorfs.OpFileWriteAt); err != nil {
			n, _ := f.File.WriteAt(p[:len(p)/2], at)
			return n, err
		}
	}
	return f.File.WriteAt(p, at)
}
