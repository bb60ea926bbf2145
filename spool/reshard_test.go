package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"mailrace/proto/message"
)

// reshard reshards the spool of testOptions on fs.
func reshard(t testing.TB, fs vfs.FS, shards int) (Resharded, error) {
	o := testOptions(t, fs)
	o.Shards = shards
	return Reshard(t.Context(), o, nil)
}

// records are all that a spool on fs holds, as they stand, by key; each must be in the shard that it belongs to.
func records(t testing.TB, fs vfs.FS) map[string]string {
	t.Helper()
	o := testOptions(t, fs)
	o.Shards, o.ReadOnly = 0, true
	s := mustOpen(t, o)
	all := map[string]string{}
	for _, sh := range s.shards {
		it, err := sh.db.NewIter(nil)
		if err != nil {
			t.Fatal(err)
		}
		for it.First(); it.Valid(); it.Next() {
			value, err := it.ValueAndErr()
			if err != nil {
				t.Fatal(err)
			}
			if it.Key()[0] == kindMark {
				continue // each shard has one of its own
			}
			if home := shardOf(ownerOf(it.Key(), value), len(s.shards)); home != sh.index {
				t.Errorf("record %x is in shard %d, and belongs to %d of %d", it.Key(), sh.index, home, len(s.shards))
			}
			if _, twice := all[string(it.Key())]; twice {
				t.Errorf("record %x stands in two shards", it.Key())
			}
			all[string(it.Key())] = string(value)
		}
		if err := errors.Join(it.Error(), it.Close()); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, s)
	return all
}

// mixedSpool makes a spool on fs with a bit of everything in it, and returns its messages.
func mixedSpool(t testing.TB, fs vfs.FS, shards, messages int) map[message.ID]*message.Message {
	t.Helper()
	o := testOptions(t, fs)
	o.Shards = shards
	s := mustOpen(t, o)
	all := map[message.ID]*message.Message{}
	for i := range messages {
		m := newMessage(s.Shard(i%shards), (i*977)%5000, 1+i%3)
		if i%50 == 0 {
			m = newMessage(s.Shard(i%shards), message.ChunkSize+i, 2)
		}
		op := &Op{Append: m}
		if i%3 == 0 {
			op.Claim = Claim{Key: NewClaimKey("t", m.ID.String()), Expires: 1 << 62}
		}
		do(t, s, op)
		m.Release()
		if i%2 == 0 {
			deferral := &Op{Updates: []Update{{ID: m.ID, Index: 0, State: message.Deferred, Attempts: 3, Due: int64(i), Reply: "451 later"}}}
			if i%4 == 0 {
				deferral.Updates[0].Parked, deferral.Park = true, Due{At: int64(i) + 1, ID: m.ID}
			}
			begin(s, deferral)
			m.Recipients[0] = message.Recipient{Address: m.Recipients[0].Address, State: message.Deferred, Attempts: 3, Due: int64(i), Reply: "451 later"}
		}
		if i%10 == 9 {
			begin(s, &Op{Remove: Removal{ID: m.ID, Chunks: m.Chunks, Recipients: len(m.Recipients)}})
			continue
		}
		all[m.ID] = m
	}
	mustClose(t, s)
	return all
}

// spoil writes records that cannot be read to the spool on fs: an envelope, a claim, and two that were moved aside.
func spoil(t testing.TB, fs vfs.FS) {
	t.Helper()
	o := testOptions(t, fs)
	o.Shards = 0
	s := mustOpen(t, o)
	claim := make([]byte, claimRecordKeyLen)
	putClaimKey(claim, &Claim{Expires: 77, Key: NewClaimKey("", "spoilt")})
	for i, key := range [][]byte{
		keyOf(kindEnvelope, s.Shard(0).NewID()), claim, append([]byte{kindCorrupt}, claim...),
		append([]byte{kindCorrupt}, keyOf(kindRecipient, s.Shard(s.Shards()-1).NewID())...),
	} {
		value := fmt.Appendf(nil, "\x01junk %d", i)
		sh := s.shards[shardOf(ownerOf(key, value), s.Shards())]
		if err := sh.db.Set(key, value, pebble.Sync); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, s)
}

// TestReshard goes through all pairs of numbers: every record is there afterwards as it was before, in its shard, and the spool works.
func TestReshard(t *testing.T) {
	counts := []int{1, 2, 4, 16, 3, 256, 1}
	fs := vfs.NewMem()
	all := mixedSpool(t, fs, 5, 300)
	spoil(t, fs)
	want := records(t, fs)
	for _, n := range counts {
		done, err := reshard(t, fs, n)
		if err != nil {
			t.Fatal(err)
		}
		if done.To != n || done.Messages != int64(len(all)+1) || done.Resumed != 0 {
			t.Errorf("%d shards: %+v", n, done)
		}
		if got := records(t, fs); !maps.Equal(got, want) {
			t.Fatalf("%d shards: %d records, want %d", n, len(got), len(want))
		}
		names, _ := fs.List("mail/spool")
		if stays := fmt.Sprint(generationPrefix, slices.Index(counts, n)+1); n != 1 && !slices.Contains(names, stays) || len(names) > 3 {
			t.Errorf("%d shards: left %v", n, names)
		}
	}
	o := testOptions(t, fs)
	o.Shards = 1
	s := mustOpen(t, o)
	if due, err := s.Shard(0).Due(nil, Due{}, 1<<62, 1000); err != nil || len(due) != 75 {
		t.Errorf("%d entries in the due index, %v", len(due), err)
	}
	var newest message.ID
	for id, m := range recovered(t, s) {
		newest = max(newest, id)
		if all[id] == nil || !slices.Equal(m.Recipients, all[id].Recipients) {
			t.Errorf("%v came through as %+v", id, m.Recipients)
			continue
		}
		if got := load(t, s, id, 1, m.Chunks); string(got) != string(contentOf(id, int(m.Size))) {
			t.Errorf("%v: content differs", id)
		}
		begin(s, &Op{Remove: Removal{ID: id, Chunks: m.Chunks, Recipients: len(m.Recipients)}})
		delete(all, id)
	}
	if len(all) != 0 {
		t.Errorf("%d messages are lost", len(all))
	}
	m := newMessage(s.Shard(0), 100, 1)
	if m.ID <= newest {
		t.Errorf("%v after %v, which was removed", m.ID, newest)
	}
	do(t, s, &Op{Append: m})
	mustClose(t, s)
	s = mustOpen(t, o)
	if found := recovered(t, s); len(found) != 1 || found[m.ID] == nil {
		t.Errorf("after all were removed and one came: %v", found)
	}
	mustClose(t, s)
}

// TestReshardWithFailover takes a spool through whose WALs may be elsewhere as well: afterwards none is.
func TestReshardWithFailover(t *testing.T) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("other", 0o700); err != nil {
		t.Fatal(err)
	}
	mixedSpool(t, fs, 2, 20)
	o := testOptions(t, fs)
	o.Failover = "other"
	s := mustOpen(t, o)
	do(t, s, &Op{Append: newMessage(s.Shard(0), 10, 1)})
	mustClose(t, s)
	want := records(t, fs)
	if _, err := reshard(t, fs, 3); err != nil {
		t.Fatal(err)
	}
	if got := records(t, fs); !maps.Equal(got, want) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
	if dirs, err := fs.List("other"); err != nil || len(dirs) != 0 {
		t.Errorf("left %v, %v", dirs, err)
	}
	o.Shards = 3
	s = mustOpen(t, o)
	do(t, s, &Op{Append: newMessage(s.Shard(2), 10, 1)})
	mustClose(t, s)
	if done := salvage(t, fs, "rescue/spool"); done.Messages != 20 || !done.OK() {
		t.Errorf("%+v", done)
	}
	mustRemove(t, fs, "other")
	if done := salvage(t, fs, "rescue/again"); done.Messages != 20 || done.OK() || len(done.Damage) != 1 {
		t.Errorf("%+v", done)
	}
}

func TestReshardToTheSame(t *testing.T) {
	fs := vfs.NewMem()
	mixedSpool(t, fs, 2, 10)
	if done, err := reshard(t, fs, 2); err != nil || done.From != 2 || done.To != 2 || done.Records != nil {
		t.Errorf("%+v, %v", done, err)
	}
}

func TestReshardRefuses(t *testing.T) {
	fs := vfs.NewMem()
	refused := func(what string, fs vfs.FS, shards int, want ...string) {
		t.Helper()
		_, err := reshard(t, fs, shards)
		for _, w := range want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v does not say %q", what, err, w)
			}
		}
	}
	refused("nothing", fs, 3, "mail/spool", "there is no spool")
	all := mixedSpool(t, fs, 2, 100)
	refused("too many", fs, message.MaxShards+1, "want 1 to 256")
	refused("no room", smallDisk{fs, 1000}, 3, "needs", "0 MiB are free", "the spool is as it was")
	o := testOptions(t, fs)
	s := mustOpen(t, o)
	refused("in use", fs, 3, "another process has it open")
	if err := s.shards[0].db.Set([]byte("zebra"), nil, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	refused("of a later version", fs, 3, "a later version made it")
	o.Shards = 3
	if _, err := Open(o); !errors.Is(err, ErrShards) || !strings.Contains(err.Error(), "mailrace spool reshard --path mail/spool --shards 3") {
		t.Errorf("%v", err)
	}
	o.Shards = 2
	s = mustOpen(t, o)
	if found := recovered(t, s); len(found) != len(all) {
		t.Errorf("%d messages after refusals, want %d", len(found), len(all))
	}
	mustClose(t, s)
}

// smallDisk has some bytes left.
type smallDisk struct {
	vfs.FS
	left uint64
}

func (d smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: d.left, TotalBytes: 1 << 30}, nil
}

// TestReshardIsCalledOff ends it in the middle: the spool is as it was, and the next run goes on where it was.
func TestReshardIsCalledOff(t *testing.T) {
	fs := vfs.NewMem()
	all := mixedSpool(t, fs, 2, 3000)
	want := records(t, fs)
	for _, step := range []string{"counting", "copying", "verifying"} {
		ctx, cancel := context.WithCancel(t.Context())
		o := testOptions(t, fs)
		o.Shards = 4
		_, err := Reshard(ctx, o, func(p Progress) {
			if p.Step == step {
				cancel()
			}
		})
		if cancel(); !errors.Is(err, context.Canceled) {
			t.Fatalf("called off while %s: %v", step, err)
		}
	}
	done, err := reshard(t, fs, 4)
	if err != nil || done.Resumed != int64(len(want)) { // all had been copied before the verification was called off
		t.Errorf("%d messages: %+v, %v", len(all), done, err)
	}
	if got := records(t, fs); !maps.Equal(got, want) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
}

// TestReshardGivesWay drops an unfinished copy when the spool is used again, or shall get another number.
func TestReshardGivesWay(t *testing.T) {
	fs := vfs.NewMem()
	mixedSpool(t, fs, 2, 100)
	callOff := func(shards int) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		o := testOptions(t, fs)
		o.Shards = shards
		if _, err := Reshard(ctx, o, func(p Progress) {
			if p.Step == "verifying" {
				cancel()
			}
		}); err == nil {
			t.Fatal("was not called off")
		}
	}
	callOff(4)
	callOff(3) // of another plan
	s := mustOpen(t, testOptions(t, fs))
	do(t, s, &Op{Append: newMessage(s.Shard(0), 10, 1)})
	mustClose(t, s)
	want := records(t, fs)
	if done, err := reshard(t, fs, 3); err != nil || done.Resumed != 0 {
		t.Errorf("%+v, %v", done, err)
	}
	if got := records(t, fs); !maps.Equal(got, want) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
}

// TestOldLayoutFile puts the layout file from before a resharding back: the mail of the newer generation must not be removed.
func TestOldLayoutFile(t *testing.T) {
	fs := vfs.NewMem()
	mixedSpool(t, fs, 2, 10)
	for _, n := range []int{3, 4} {
		if _, err := reshard(t, fs, n); err != nil {
			t.Fatal(err)
		}
	}
	want := records(t, fs)
	if err := writeFile(fs, "mail/spool/SPOOL", layout{shards: 3, generation: 1}.String()); err != nil {
		t.Fatal(err)
	}
	o := testOptions(t, fs)
	o.Shards = 0
	if _, err := Open(o); err == nil || !strings.Contains(err.Error(), "is that an old one?") {
		t.Errorf("opened: %v", err)
	}
	if err := writeFile(fs, "mail/spool/SPOOL", layout{shards: 4, generation: 2}.String()); err != nil {
		t.Fatal(err)
	}
	if got := records(t, fs); !maps.Equal(got, want) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
}

// TestReshardSurvives crashes it at every so many operations of the disk, with any share of what was not synced lost, and runs it again.
func TestReshardSurvives(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 0))
	origin := vfs.NewCrashableMem()
	mixedSpool(t, origin, 2, 400)
	spoil(t, origin)
	want := records(t, origin)
	resumed := 0
	for range 20 {
		disk := origin.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng})
		shards := []int{1, 4, 16}[rng.IntN(3)]
		crashes := 0
		for {
			left, err := crashReshard(t, disk, rng, shards, 1+rng.IntN(50*shards)<<crashes)
			if left == nil {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			disk = left
			crashes++
		}
		if crashes > 0 {
			resumed++
		}
		if got := records(t, disk); !maps.Equal(got, want) {
			t.Fatalf("to %d shards, with %d crashes: %d records, want %d", shards, crashes, len(got), len(want))
		}
	}
	if resumed < 5 {
		t.Errorf("only %d of 20 had a crash", resumed)
	}
}

// crashReshard reshards, and returns what is left of the disk after a crash at its n-th operation, or nil if it had fewer.
func crashReshard(t testing.TB, disk *vfs.MemFS, rng *rand.Rand, shards, n int) (left *vfs.MemFS, err error) {
	var ops atomic.Int64
	loss := vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 100, rng.IntN(101)}[rng.IntN(3)], RNG: rng}
	crashing := &crashDisk{MemFS: disk}
	fs := errorfs.Wrap(crashing, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && ops.Add(1) == int64(n) {
			left = crashing.CrashClone(loss)
		}
		return nil
	}))
	_, err = reshard(t, fs, shards)
	return left, err
}

// TestReshardMeetsFaults lets an operation of the disk fail, each in its turn: it ends with an error or does its work, and in the end the spool
// has what it had.
func TestReshardMeetsFaults(t *testing.T) {
	origin := vfs.NewCrashableMem()
	mixedSpool(t, origin, 2, 60)
	want := records(t, origin)
	failed, rng := 0, rand.New(rand.NewPCG(1, 0))
	for n := int64(1); ; n += 7 {
		disk := origin.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng})
		var ops atomic.Int64
		fs := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if ops.Add(1) == n {
				return errorfs.ErrInjected
			}
			return nil
		}))
		o := testOptions(t, fs)
		o.Shards, o.Log = 3, slog.New(slog.NewTextHandler(io.Discard, nil))
		_, err := Reshard(t.Context(), o, nil)
		if err != nil {
			failed++
		}
		left := disk.CrashClone(vfs.CrashCloneCfg{})
		if _, err := reshard(t, left, 4); err != nil {
			t.Fatalf("operation %d failed, and then: %v", n, err)
		}
		if got := records(t, left); !maps.Equal(got, want) {
			t.Fatalf("operation %d failed: %d records, want %d", n, len(got), len(want))
		}
		if ops.Load() < n {
			break
		}
	}
	if failed < 10 {
		t.Errorf("only %d faults were noticed", failed)
	}
}
