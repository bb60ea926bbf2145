package spool

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"mailrace/proto/message"
)

// crashOpen opens a spool and closes it, and returns what is left of the disk after a crash before the n-th change, or nil where there are fewer.
func crashOpen(t *testing.T, disk *vfs.MemFS, n int64, loss vfs.CrashCloneCfg) (left *vfs.MemFS) {
	t.Helper()
	var changes atomic.Int64
	crashing := &crashDisk{MemFS: disk}
	o := testOptions(t, errorfs.Wrap(crashing, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && changes.Add(1) == n {
			left = crashing.CrashClone(loss)
		}
		return nil
	})))
	o.Shards = 1
	mustClose(t, mustOpen(t, o))
	return left
}

// TestCrashWhileOpening takes the disk away before each change that an Open makes, of a new spool and of one with mail, with any share of what was
// not synced lost. The next Open succeeds, and the mail is there.
func TestCrashWhileOpening(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 0))
	full := vfs.NewCrashableMem()
	all := mixedSpool(t, full, 1, 40)
	for _, from := range []struct {
		name string
		disk *vfs.MemFS
		mail map[message.ID]*message.Message
	}{{"new", vfs.NewCrashableMem(), nil}, {"old", full, all}} {
		opened := 0
		for n := int64(1); ; n++ {
			ended := false
			for _, percent := range []int{0, 20, 50, 80, 100} {
				disk := from.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng})
				left := crashOpen(t, disk, n, vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
				if left == nil {
					ended = true
					break
				}
				o := testOptions(t, left)
				o.Shards = 1
				s, err := Open(o)
				if err != nil {
					t.Fatalf("%s: after a crash at change %d, with %d%% of what was not synced: %v", from.name, n, percent, err)
				}
				if found := recovered(t, s); len(found) != len(from.mail) {
					t.Fatalf("%s: after a crash at change %d: %d messages, want %d", from.name, n, len(found), len(from.mail))
				}
				mustClose(t, s)
				opened++
			}
			if ended {
				break
			}
		}
		t.Logf("%s: %d crashes", from.name, opened)
	}
}

// TestUnfinishedSpool: the tools say of a spool that was never made whole that it holds nothing, and Open makes it, with another number of shards too.
func TestUnfinishedSpool(t *testing.T) {
	fs := vfs.NewMem()
	o := testOptions(t, errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if strings.Contains(op.Path, "shard-001") && op.Kind == errorfs.OpMkdirAll {
			return syscall.EIO
		}
		return nil
	})))
	if _, err := Open(o); !errors.Is(err, syscall.EIO) {
		t.Fatalf("opened with %v", err)
	}
	o = testOptions(t, fs)
	o.Shards = 3
	if _, err := Verify(context.Background(), o, nil); !errors.Is(err, errMaking) {
		t.Errorf("verified with %v", err)
	}
	if _, err := Reshard(context.Background(), o, nil); !errors.Is(err, errMaking) {
		t.Errorf("resharded with %v", err)
	}
	s := mustOpen(t, o)
	do(t, s, &Op{Append: newMessage(s.Shard(2), 10, 1)})
	mustClose(t, s)
	if v, err := Verify(context.Background(), o, nil); err != nil || v.Messages != 1 || v.Shards != 3 {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestFaultWhileOpening lets the n-th operation fail that changes the disk while a spool is opened which has WALs to replay, for all n: Open returns an
// error, and everything is there when it is tried again by another process.
func TestFaultWhileOpening(t *testing.T) {
	origin := vfs.NewCrashableMem()
	all := mixedSpool(t, origin, 1, 100)
	origin = origin.CrashClone(vfs.CrashCloneCfg{})
	failures := 0
	for n := int32(0); ; n++ {
		disk := origin.CrashClone(vfs.CrashCloneCfg{})
		at := errorfs.OnIndex(n)
		var armed, met atomic.Bool
		armed.Store(true)
		o := testOptions(t, errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if armed.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && at.MaybeError(op) != nil {
				met.Store(true)
				return syscall.EIO
			}
			return nil
		})))
		o.Shards = 1
		s, err := Open(o)
		armed.Store(false)
		if err == nil {
			mustClose(t, s)
		} else if failures++; !strings.Contains(err.Error(), syscall.EIO.Error()) {
			t.Errorf("operation %d: %v", n, err)
		}
		if !met.Load() {
			break
		}
		o = testOptions(t, disk.CrashClone(vfs.CrashCloneCfg{}))
		o.Shards = 1
		s = mustOpen(t, o)
		if found := recovered(t, s); len(found) != len(all) {
			t.Fatalf("operation %d failed: %d messages, want %d", n, len(found), len(all))
		}
		mustClose(t, s)
	}
	if failures < 10 {
		t.Errorf("only %d operations failed", failures)
	}
}
