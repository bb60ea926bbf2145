package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"mailrace/proto/message"
)

func salvage(t testing.TB, fs vfs.FS, to string) Salvaged {
	t.Helper()
	done, err := Salvage(t.Context(), testOptions(t, fs), to, nil)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// tree is every file below a directory with its content, but for locks.
func tree(t testing.TB, fs vfs.FS, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		whole := fs.PathJoin(dir, name)
		info, err := fs.Stat(whole)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			files[whole] = "directory"
			maps.Copy(files, tree(t, fs, whole))
			continue
		}
		if name == "LOCK" {
			continue
		}
		f, err := fs.Open(whole)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		files[whole] = string(b)
	}
	return files
}

// inTables makes a spool of some messages and brings them into tables and blob files, all but a few, which are in a log.
func inTables(t testing.TB) (*vfs.MemFS, map[message.ID]*message.Message) {
	t.Helper()
	fs := vfs.NewCrashableMem()
	all := mixedSpool(t, fs, 2, 400)
	if _, err := reshard(t, fs, 3); err != nil {
		t.Fatal(err)
	}
	o := testOptions(t, fs)
	o.Shards = 3
	s := mustOpen(t, o)
	for i := range 30 {
		m := newMessage(s.Shard(1+i%2), 100+i, 1)
		do(t, s, &Op{Append: m})
		all[m.ID] = m
	}
	mustClose(t, s)
	return fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))}), all
}

const wreckDir = "mail/spool/generation-1/shard-001"

// TestSalvage damages one thing after the other: what is not hit is rescued, what is hit is rescued or told to be lost, and nothing is written
// to what is damaged.
func TestSalvage(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, fs vfs.FS)
		share  float64 // of the messages of the shard that are rescued, at least
		whole  bool    // there is nothing to tell
	}{
		{"nothing", func(*testing.T, vfs.FS) {}, 1, true},
		{"a table garbled", func(t *testing.T, fs vfs.FS) { hurt(t, fs, wreckDir, ".sst", false) }, 0, false},
		{"a table gone", func(t *testing.T, fs vfs.FS) { hurt(t, fs, wreckDir, ".sst", true) }, 0.05, false},
		{"blobs garbled", func(t *testing.T, fs vfs.FS) { hurt(t, fs, wreckDir, ".blob", false) }, 0.15, false},
		{"blobs gone", func(t *testing.T, fs vfs.FS) { hurt(t, fs, wreckDir, ".blob", true) }, 0.15, false},
		{"log garbled", func(t *testing.T, fs vfs.FS) { hurt(t, fs, wreckDir, ".log", false) }, 0.7, false},
		{"log gone", func(t *testing.T, fs vfs.FS) { hurt(t, fs, wreckDir, ".log", true) }, 0.7, true}, // who could tell
		{"manifest garbled", func(t *testing.T, fs vfs.FS) { hurt(t, fs, wreckDir, "MANIFEST-", false) }, 1, false},
		{"manifest gone", func(t *testing.T, fs vfs.FS) { hurt(t, fs, wreckDir, "MANIFEST-", true) }, 1, false},
		{"manifest marker gone", func(t *testing.T, fs vfs.FS) { hurt(t, fs, wreckDir, "marker.manifest", true) }, 1, false},
		{"format marker gone", func(t *testing.T, fs vfs.FS) { hurt(t, fs, wreckDir, "marker.format", true) }, 1, false},
		{"options garbled", func(t *testing.T, fs vfs.FS) { hurt(t, fs, wreckDir, "OPTIONS", false) }, 1, true},
		{"layout gone", func(t *testing.T, fs vfs.FS) { mustRemove(t, fs, "mail/spool/SPOOL") }, 1, true},
		{"shard gone", func(t *testing.T, fs vfs.FS) { mustRemove(t, fs, wreckDir) }, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs, all := inTables(t)
			c.damage(t, fs)
			before := tree(t, fs, "mail/spool")
			done := salvage(t, fs, "rescue/spool")
			if after := tree(t, fs, "mail/spool"); !maps.Equal(before, after) {
				t.Error("the damaged spool was changed")
			}
			o := testOptions(t, fs)
			o.Path, o.Shards = "rescue/spool", 0
			checkRescued(t, o, all, c.share)
			if done.OK() != c.whole {
				t.Errorf("%+v", done)
			}
			if v, err := Verify(t.Context(), o, nil); err != nil || !v.OK() || v.Messages != done.Messages {
				t.Errorf("%+v, %v", v, err)
			}
			t.Logf("%d of %d messages, %d lost, %d doubtful, %d states lost: %q", done.Messages, len(all), done.Lost, done.Doubtful, done.States, done.Damage)
		})
	}
}

func mustRemove(t testing.TB, fs vfs.FS, name string) {
	t.Helper()
	if err := fs.RemoveAll(name); err != nil {
		t.Fatal(err)
	}
}

// checkRescued holds the spool of o against the messages that there were: none in it is altered; those of shards that were not hit are all
// there, and a share of the others.
func checkRescued(t *testing.T, o Options, all map[message.ID]*message.Message, share float64) {
	t.Helper()
	s := mustOpen(t, o)
	found := recovered(t, s)
	for id, m := range found {
		want := all[id]
		if want == nil {
			continue // brought back from a file that was obsolete
		}
		if got := load(t, s, id, 0, m.Chunks+1); string(got) != string(want.Trace)+string(contentOf(id, int(want.Size))) {
			t.Errorf("%v: content differs", id)
		}
		if len(m.Recipients) != len(want.Recipients) || m.From != want.From {
			t.Errorf("%v: %+v", id, m)
		}
	}
	hit, rescued := 0, 0
	for id, m := range all {
		switch {
		case shardOf(id, 3) != 1:
			if found[id] == nil || !slices.Equal(found[id].Recipients, m.Recipients) {
				t.Errorf("%v of another shard: %+v", id, found[id])
			}
		default:
			hit++
			if found[id] != nil {
				rescued++
			}
		}
	}
	if float64(rescued) < share*float64(hit) {
		t.Errorf("rescued %d of %d of the shard that was hit, want %.0f %%", rescued, hit, 100*share)
	}
	mustClose(t, s)
}

// TestSalvageKeepsAside rescues a spool with unreadable records: they are kept aside with their content, as a recovery does.
func TestSalvageKeepsAside(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, testOptions(t, fs))
	good, bad := newMessage(s.Shard(0), 100, 2), newMessage(s.Shard(0), message.ChunkSize+100, 1)
	op := &Op{Append: good, Claim: Claim{Key: NewClaimKey("", "k"), Expires: 1 << 62}}
	do(t, s, op)
	do(t, s, &Op{Append: bad})
	if err := s.shards[0].db.Set(keyOf(kindEnvelope, bad.ID), []byte("\x01junk"), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	spoil(t, fs)
	o := testOptions(t, fs)
	o.Shards = 5
	done, err := Salvage(t.Context(), o, "rescue/spool", nil)
	if err != nil || done.Messages != 1 || done.Claims != 1 || done.Aside != 4 || done.Lost != 2 || len(done.Damage) != 0 || done.Shards != 2 {
		t.Errorf("%+v, %v", done, err)
	}
	o.Path = "rescue/spool"
	s = mustOpen(t, o)
	if found := recovered(t, s); len(found) != 1 || found[good.ID] == nil {
		t.Errorf("%v", found)
	}
	if got := claimsOf(t, s); len(got) != 1 || got[good.ID].ID != good.ID {
		t.Errorf("claims %v", got)
	}
	if got := load(t, s, bad.ID, 1, 2); string(got) != string(contentOf(bad.ID, int(bad.Size))) {
		t.Error("the content of an envelope that was kept aside is gone")
	}
	mustClose(t, s)
}

func TestSalvageRefuses(t *testing.T) {
	fs := vfs.NewMem()
	mixedSpool(t, fs, 2, 10)
	refused := func(to, want string) {
		t.Helper()
		if _, err := Salvage(t.Context(), testOptions(t, fs), to, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("to %s: %v, want %q", to, err, want)
		}
	}
	refused("mail/spool", "another process has it open")
	salvage(t, fs, "rescue/spool")
	refused("rescue/spool", "there is a spool already")
	refused("mail", "it holds spool")
	s := mustOpen(t, testOptions(t, fs))
	refused("rescue/other", "another process has it open")
	mustClose(t, s)
	if _, err := Salvage(t.Context(), Options{Path: "nowhere", FS: fs}, "rescue/third", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Salvage(ctx, testOptions(t, fs), "rescue/fourth", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if done := salvage(t, fs, "rescue/fourth"); done.Messages != 9 { // begins anew
		t.Errorf("%+v", done)
	}
}

// TestSalvageDoesNotGuess takes the manifest and a blob file away from messages that are all of the same size: any file would fit, and none
// is taken.
func TestSalvageDoesNotGuess(t *testing.T) {
	fs := vfs.NewMem()
	o := testOptions(t, fs)
	o.Shards = 1
	s := mustOpen(t, o)
	for range 3000 {
		begin(s, &Op{Append: newMessage(s.Shard(0), 4000, 1)})
	}
	mustClose(t, s)
	for _, shards := range []int{2, 1} { // into tables and blob files
		if _, err := reshard(t, fs, shards); err != nil {
			t.Fatal(err)
		}
	}
	hurt(t, fs, "mail/spool/generation-2/shard-000", "MANIFEST-", true)
	if done := salvage(t, fs, "rescue/spool"); done.Messages != 0 || done.Lost != 3000 || len(done.Damage) != 2 {
		t.Errorf("%d rescued, %d lost, %q", done.Messages, done.Lost, done.Damage)
	}
}

// FuzzLayout holds layout files to what they say.
func FuzzLayout(f *testing.F) {
	f.Add("mailrace spool 1\nshards 4\n")
	f.Add("mailrace spool 2\nshards 256\ngeneration 7\n")
	f.Fuzz(func(t *testing.T, text string) {
		if l, ok := parseLayout(text); ok && (l.String() != text || l.shards < 1 || l.shards > message.MaxShards || l.generation < 0) {
			t.Errorf("%q is %+v", text, l)
		}
	})
}

// TestReadLog garbles a log at every block: all writes before it are read, and those behind it too.
func TestReadLog(t *testing.T) {
	origin := vfs.NewMem()
	o := testOptions(t, origin)
	s := mustOpen(t, o)
	for range 40 {
		do(t, s, &Op{Append: newMessage(s.Shard(0), 20_000, 1)})
	}
	mustClose(t, s)
	dir := "mail/spool/shard-000"
	names, err := origin.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	var name string
	var number uint64
	var whole [][]byte
	for _, log := range slices.DeleteFunc(names, func(s string) bool { return !isWAL(s) }) { // the one with most in it
		var n uint64
		fmt.Sscanf(log, "%d.log", &n)
		records, _, broken, err := readLog(origin, dir+"/"+log, n)
		if err != nil || broken != nil {
			t.Fatal(log, broken, err)
		}
		if len(records) > len(whole) {
			name, number, whole = dir+"/"+log, n, records
		}
	}
	if len(whole) < 5 {
		t.Fatal(len(whole))
	}
	info, err := origin.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	for block := int64(0); block < 5 && block*walBlockBytes < info.Size(); block++ { // behind which there is more
		fs := vfs.NewMem()
		if _, err := vfs.Clone(origin, fs, "mail", "mail"); err != nil {
			t.Fatal(err)
		}
		f, err := fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("garbage"), block*walBlockBytes+1000); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		records, behind, broken, err := readLog(fs, name, number)
		if err != nil || broken == nil || len(records) < len(whole)-3 || len(records) == len(whole) || behind == 0 {
			t.Errorf("block %d: %d records of %d, %d behind %v, %v", block, len(records), len(whole), behind, broken, err)
		}
	}
}
