package spool

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"mailrace/proto/message"
)

// syncGate is a file system whose WAL syncs announce themselves and wait to be let through.
type syncGate struct {
	vfs.FS
	shut    atomic.Bool
	arrived chan struct{}
	pass    chan error
}

func newSyncGate(fs vfs.FS) *syncGate {
	g := &syncGate{arrived: make(chan struct{}), pass: make(chan error)}
	g.FS = errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !isSync(op) || !g.shut.Load() {
			return nil
		}
		g.arrived <- struct{}{}
		return <-g.pass
	}))
	return g
}

// isSync says that op syncs a WAL.
func isSync(op errorfs.Op) bool {
	return (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) && path.Ext(op.Path) == ".log"
}

func TestGroupCommit(t *testing.T) {
	gate := newSyncGate(vfs.NewMem())
	o := testOptions(t, gate)
	o.Shards = 1
	s := mustOpen(t, o)
	sh := s.Shard(0)
	gate.shut.Store(true)
	first := begin(s, &Op{Append: newMessage(sh, 100, 1)})
	<-gate.arrived // a lone message is synced at once
	var rest []chan *Op
	for i := range 50 {
		rest = append(rest, begin(s, &Op{Append: newMessage(sh, 100+i, 1)}))
	}
	for i, w := range append(rest, first) {
		select {
		case <-w:
			t.Fatalf("message %d completed before its sync", i)
		default:
		}
	}
	gate.pass <- nil
	<-first
	<-gate.arrived // what waited meanwhile shares the next sync
	for i, w := range rest {
		select {
		case <-w:
			t.Fatalf("message %d completed before its sync", i)
		default:
		}
	}
	gate.shut.Store(false)
	gate.pass <- nil
	for _, w := range rest {
		<-w
	}
	if syncs, batches := sh.syncs.Get(), sh.batches.Get(); syncs != 2 || batches != 2 {
		t.Errorf("%d syncs in %d batches for 1+50 messages, want 2 in 2", syncs, batches)
	}
	mustClose(t, s)
}

// TestLoneMessages gives each message that comes alone a sync of its own, and lets none wait for another.
func TestLoneMessages(t *testing.T) {
	gate := newSyncGate(vfs.NewMem())
	o := testOptions(t, gate)
	o.Shards = 1
	s := mustOpen(t, o)
	sh := s.Shard(0)
	gate.shut.Store(true)
	for i := range 20 {
		w := begin(s, &Op{Append: newMessage(sh, 100*i, 1)})
		<-gate.arrived
		if i == 19 {
			gate.shut.Store(false)
		}
		gate.pass <- nil
		<-w
	}
	if syncs, batches := sh.syncs.Get(), sh.batches.Get(); syncs != 20 || batches != 20 {
		t.Errorf("%d syncs in %d batches for 20 messages one by one", syncs, batches)
	}
	mustClose(t, s)
}

func TestOnlyAppendsSync(t *testing.T) {
	var syncs atomic.Int32
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if isSync(op) {
			syncs.Add(1)
		}
		return nil
	}))
	o := testOptions(t, fs)
	o.Shards, o.syncDelay = 1, time.Hour
	s := mustOpen(t, o)
	m := newMessage(s.Shard(0), 100, 1)
	do(t, s, &Op{Append: m})
	before := syncs.Load()
	do(t, s, &Op{Chunk: Chunk{ID: s.Shard(0).NewID(), Index: 1, Data: testBudget.NewChunk(10)}})
	do(t, s, &Op{Updates: []Update{{ID: m.ID, State: message.Deferred}}})
	do(t, s, &Op{Remove: Removal{ID: m.ID, Chunks: m.Chunks, Recipients: 1}})
	if n := syncs.Load() - before; n != 0 {
		t.Errorf("%d syncs without an append", n)
	}
	mustClose(t, s)
}

// TestRemovalIsSyncedSoon: a removal that nothing comes after is on the disk soon all the same, and costs one sync.
func TestRemovalIsSyncedSoon(t *testing.T) {
	disk := &crashDisk{MemFS: vfs.NewCrashableMem()}
	gate := newSyncGate(disk)
	o := testOptions(t, gate)
	o.Shards = 1
	s := mustOpen(t, o)
	m := newMessage(s.Shard(0), 100, 1)
	do(t, s, &Op{Append: m})
	gate.shut.Store(true)
	do(t, s, &Op{Remove: Removal{ID: m.ID, Chunks: m.Chunks}})
	select {
	case <-gate.arrived:
	case <-time.After(30 * time.Second):
		t.Fatal("the removal is not synced")
	}
	gate.shut.Store(false)
	gate.pass <- nil
	do(t, s, &Op{Append: newMessage(s.Shard(0), 100, 1)}) // behind the sync
	if n := s.Shard(0).lateSyncs.Get(); n != 1 {
		t.Errorf("%d syncs for the removal, want 1", n)
	}
	left := disk.CrashClone(vfs.CrashCloneCfg{})
	mustClose(t, s)
	o.FS = left
	s = mustOpen(t, o)
	if recovered(t, s)[m.ID] != nil {
		t.Error("the message came back")
	}
	mustClose(t, s)
}

// TestPostOncePerOrigin shows that a batch wakes each loop once.
func TestPostOncePerOrigin(t *testing.T) {
	gate := newSyncGate(vfs.NewMem())
	o := testOptions(t, gate)
	o.Shards = 1
	var mu sync.Mutex
	posts := map[int][]int{}
	var completed sync.WaitGroup
	o.Post = func(origin int, done []*Op) {
		mu.Lock()
		posts[origin] = append(posts[origin], len(done))
		mu.Unlock()
		for _, op := range done {
			op.Free()
			completed.Done()
		}
	}
	s := mustOpen(t, o)
	enqueue := func(origin int) {
		op := NewOp()
		op.Append, op.Origin = newMessage(s.Shard(0), 10, 1), origin
		completed.Add(1)
		s.Shard(0).Enqueue(op)
	}
	gate.shut.Store(true)
	enqueue(3)
	<-gate.arrived
	for i := range 30 {
		enqueue(i % 3)
	}
	nobody := NewOp()
	nobody.Append, nobody.Origin = newMessage(s.Shard(0), 10, 1), -1
	s.Shard(0).Enqueue(nobody)
	gate.shut.Store(false)
	gate.pass <- nil
	completed.Wait()
	if got, want := fmt.Sprint(posts), "map[0:[10] 1:[10] 2:[10] 3:[1]]"; got != want {
		t.Errorf("posted %s, want %s", got, want)
	}
	mustClose(t, s)
}

func TestBatchesAreBounded(t *testing.T) {
	gate := newSyncGate(vfs.NewMem())
	o := testOptions(t, gate)
	o.Shards, o.MemTableBytes = 1, 64<<20
	s := mustOpen(t, o)
	gate.shut.Store(true)
	waits := []chan *Op{begin(s, &Op{Append: newMessage(s.Shard(0), 10, 1)})}
	<-gate.arrived
	const size = 60 << 10
	for range 3 * batchBytes / size {
		waits = append(waits, begin(s, &Op{Append: newMessage(s.Shard(0), size, 1)}))
	}
	gate.shut.Store(false)
	gate.pass <- nil
	for _, w := range waits {
		<-w
	}
	if n := s.shards[0].batches.Get(); n != 1+3 {
		t.Errorf("%d batches, want 1 and 3 of 4 MiB", n)
	}
	mustClose(t, s)
}

// TestFaultIsFatal lets the n-th write or sync of a WAL fail, for all n up to where nothing fails any more. Whatever completed before is
// there when the file system is opened again with nothing but what was synced, and nothing completes after.
func TestFaultIsFatal(t *testing.T) {
	t.Run("through the page cache", func(t *testing.T) { failEach(t, false) })
	t.Run("past it", func(t *testing.T) { failEach(t, true) })
}

func failEach(t *testing.T, inBlocks bool) {
	failures := 0
	for n := int32(0); ; n++ {
		disk := &crashDisk{MemFS: vfs.NewCrashableMem()}
		inject := errorfs.OnIndex(n)
		var armed, failed, fired atomic.Bool
		fs := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if !armed.Load() || path.Ext(op.Path) != ".log" || op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
				return nil
			}
			err := inject.MaybeError(op)
			switch op.Kind {
			case errorfs.OpFilePreallocate, errorfs.OpFileClose, errorfs.OpFileSyncTo, errorfs.OpRemove:
				// Nothing is lost by these.
			default:
				if err != nil {
					failed.Store(true)
				}
			}
			fired.Store(fired.Load() || err != nil)
			return err
		}))
		o := testOptions(t, fs)
		o.Shards, o.inBlocks = 1, inBlocks
		fatal := make(chan error, 1)
		o.Fatal = func(err error) { fatal <- err }
		s := mustOpen(t, o)
		armed.Store(true)
		acked, ended := appendUntilFatal(s, fatal)
		armed.Store(false)
		if !ended {
			mustClose(t, s)
			if failed.Load() {
				t.Fatalf("operation %d failed and nobody was told", n)
			}
		} else {
			failures++
			if err := s.Close(); !errors.Is(err, errBroken) {
				t.Errorf("operation %d: closed with %v", n, err)
			}
		}
		checkAcked(t, disk.CrashClone(vfs.CrashCloneCfg{}), acked)
		if !fired.Load() {
			break
		}
	}
	if failures < 10 {
		t.Errorf("only %d operations failed", failures)
	}
}

// appendUntilFatal appends messages one after the other, and some at once, and returns those that completed, and whether Fatal was called.
func appendUntilFatal(s *Spool, fatal chan error) (acked []message.ID, ended bool) {
	for i := range 6 {
		m := newMessage(s.Shard(0), 20_000*i, 1)
		select {
		case op := <-begin(s, &Op{Append: m}):
			acked = append(acked, op.Append.ID)
		case <-fatal:
			return acked, true
		}
	}
	return acked, false
}

func checkAcked(t *testing.T, fs vfs.FS, acked []message.ID) {
	t.Helper()
	o := testOptions(t, fs)
	o.Shards = 0
	o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	s := mustOpen(t, o)
	found := recovered(t, s)
	for _, id := range acked {
		if m := found[id]; m == nil {
			t.Errorf("acknowledged message %v is lost", id)
		} else if got := load(t, s, id, 1, m.Chunks); string(got) != string(contentOf(id, int(m.Size))) {
			t.Errorf("content of %v differs", id)
		}
	}
	mustClose(t, s)
}
