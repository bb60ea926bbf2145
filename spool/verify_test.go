package spool

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"mailrace/proto/message"
)

func verify(t testing.TB, fs vfs.FS) *Verified {
	t.Helper()
	v, err := Verify(t.Context(), testOptions(t, fs), nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVerify(t *testing.T) {
	fs := vfs.NewMem()
	all := mixedSpool(t, fs, 3, 200)
	before := records(t, fs)
	octets, recipients := int64(0), int64(0)
	for _, m := range all {
		octets += m.Size
		recipients += int64(len(m.Recipients))
	}
	var last Progress
	v, err := Verify(t.Context(), testOptions(t, fs), func(p Progress) { last = p })
	if err != nil {
		t.Fatal(err)
	}
	if !v.OK() || v.Messages != int64(len(all)) || v.Octets != octets || v.Shards != 3 || v.Recipients["pending"]+v.Recipients["deferred"] != recipients ||
		v.Recipients["deferred"] == 0 || v.Parked != 50 || v.Records["due"].Records != 50 || v.Records["claim"].Records == 0 || v.Orphans.Records != 0 || v.Sizes.Max != message.ChunkSize+150 {
		t.Errorf("%+v", v)
	}
	if want := time.Unix(0, 1767323045000000000); !v.Oldest.Equal(want) || !v.Newest.Equal(want) || v.Ages.P50 <= 0 {
		t.Errorf("ages %v %v %+v", v.Oldest, v.Newest, v.Ages)
	}
	if last.Step != "verifying" || last.Done != int64(len(before)+3) || last.Total != last.Done {
		t.Errorf("progress ends with %+v", last)
	}
	if after := records(t, fs); !maps.Equal(before, after) {
		t.Error("it changed something")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Verify(ctx, testOptions(t, fs), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("called off: %v", err)
	}
}

// TestVerifyFinds spoils one thing after the other.
func TestVerifyFinds(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(sh *Shard, m *message.Message) (key, value []byte) // a nil value removes
		want  string                                                  // reason; "" = no fault
	}{
		{"envelope of a later version", func(sh *Shard, m *message.Message) ([]byte, []byte) {
			return keyOf(kindEnvelope, m.ID), append([]byte{99}, appendEnvelope(nil, m)[1:]...)
		}, "envelope: unknown version"},
		{"flipped bit", func(sh *Shard, m *message.Message) ([]byte, []byte) {
			e := appendEnvelope(nil, m)
			e[20] ^= 1
			return keyOf(kindEnvelope, m.ID), e
		}, "envelope: checksum"},
		{"cut envelope", func(sh *Shard, m *message.Message) ([]byte, []byte) {
			e := appendEnvelope(nil, m)
			e = e[:len(e)-1]
			seal(e)
			return keyOf(kindEnvelope, m.ID), e
		}, "envelope: form"},
		{"another's envelope", func(sh *Shard, m *message.Message) ([]byte, []byte) {
			other := message.Message{ID: m.ID + 1<<8, Recipients: m.Recipients}
			return keyOf(kindEnvelope, m.ID), appendEnvelope(nil, &other)
		}, "envelope: key"},
		{"wrong shard", func(sh *Shard, m *message.Message) ([]byte, []byte) {
			other := message.Message{ID: m.ID + 1, Recipients: m.Recipients}
			return keyOf(kindEnvelope, other.ID), appendEnvelope(nil, &other)
		}, faultShard},
		{"chunk gone", func(sh *Shard, m *message.Message) ([]byte, []byte) { return chunkKey(m.ID, 1), nil }, faultMissing},
		{"chunk cut", func(sh *Shard, m *message.Message) ([]byte, []byte) { return chunkKey(m.ID, 2), []byte("x") }, faultSize},
		{"chunk too many", func(sh *Shard, m *message.Message) ([]byte, []byte) { return chunkKey(m.ID, 3), []byte("x") }, faultSize},
		{"chunk too large", func(sh *Shard, m *message.Message) ([]byte, []byte) {
			return chunkKey(m.ID, 2), make([]byte, message.ChunkSize+1)
		}, "chunk: key"},
		{"junk for a state", func(sh *Shard, m *message.Message) ([]byte, []byte) {
			return append(keyOf(kindRecipient, m.ID), 0, 0, 0, 0), []byte("\x01junk")
		}, "recipient: checksum"},
		{"state of nobody", func(sh *Shard, m *message.Message) ([]byte, []byte) {
			return append(keyOf(kindRecipient, m.ID), 0, 0, 0, 9), appendUpdate(nil, &Update{ID: m.ID, Index: 9})
		}, "recipient: key"},
		{"state in another's place", func(sh *Shard, m *message.Message) ([]byte, []byte) {
			return append(keyOf(kindRecipient, m.ID), 0, 0, 0, 0), appendUpdate(nil, &Update{ID: m.ID, Index: 1})
		}, "recipient: key"},
		{"claim", func(sh *Shard, m *message.Message) ([]byte, []byte) {
			key := make([]byte, claimRecordKeyLen)
			putClaimKey(key, &Claim{Expires: 77})
			return key, appendClaim(nil, &Claim{Expires: 78, ID: m.ID})
		}, "claim: form"},
		{"junk in the due index", func(sh *Shard, m *message.Message) ([]byte, []byte) {
			key := make([]byte, dueKeyLen)
			putDueKey(key, Due{77, m.ID})
			return key, []byte("\x01junk")
		}, "due: form"},
		{"not in the due index", func(sh *Shard, m *message.Message) ([]byte, []byte) {
			return append(keyOf(kindRecipient, m.ID), 0, 0, 0, 0), appendUpdate(nil, &Update{ID: m.ID, Parked: true})
		}, faultDue},
		{"junk for the mark", func(*Shard, *message.Message) ([]byte, []byte) { return []byte{kindMark}, []byte("\x01junk") }, "mark: checksum"},
		{"unknown", func(sh *Shard, m *message.Message) ([]byte, []byte) { return []byte("zebra"), []byte("crossing") }, faultKind},
		{"kept aside", func(sh *Shard, m *message.Message) ([]byte, []byte) {
			return append([]byte{kindCorrupt}, keyOf(kindEnvelope, m.ID)...), []byte("\x63aaaa")
		}, "kept aside: envelope: unknown version"},
		{"orphan", func(sh *Shard, m *message.Message) ([]byte, []byte) { return chunkKey(m.ID+1<<8, 1), []byte("x") }, ""},
		{"settled", func(sh *Shard, m *message.Message) ([]byte, []byte) {
			m.ID += 1 << 8
			m.Chunks, m.Size, m.Recipients = 0, 0, m.Recipients[:1]
			state := append(keyOf(kindRecipient, m.ID), 0, 0, 0, 0)
			if err := sh.db.Set(state, appendUpdate(nil, &Update{ID: m.ID, State: message.Delivered}), pebble.Sync); err != nil {
				panic(err)
			}
			return keyOf(kindEnvelope, m.ID), appendEnvelope(nil, m)
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := vfs.NewMem()
			o := testOptions(t, fs)
			s := mustOpen(t, o)
			good := newMessage(s.Shard(1), 100, 1)
			m := newMessage(s.Shard(0), message.ChunkSize+100, 2)
			do(t, s, &Op{Append: good})
			do(t, s, &Op{Append: m})
			key, value := c.spoil(s.shards[0], m)
			var err error
			if value == nil {
				err = s.shards[0].db.Delete(key, pebble.Sync)
			} else {
				err = s.shards[0].db.Set(key, value, pebble.Sync)
			}
			if err != nil {
				t.Fatal(err)
			}
			mustClose(t, s)
			v := verify(t, fs)
			if c.want == "" {
				if !v.OK() || v.Settled+v.Orphans.Records != 1 {
					t.Errorf("%+v", v)
				}
				return
			}
			if v.OK() || v.Faults[c.want] != 1 || len(v.Faults) > 1 && c.want != faultShard || v.Messages == 0 {
				t.Errorf("faults %v, want %q", v.Examples, c.want)
			}
		})
	}
}

func chunkKey(id message.ID, index int) []byte {
	key := make([]byte, indexKeyLen)
	putIndexKey(key, kindChunk, id, index)
	return key
}

// TestVerifyDamage takes files away and garbles them: the other shards are verified, and what is wrong is said.
func TestVerifyDamage(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 0))
	for _, ext := range []string{".sst", ".blob"} {
		for _, gone := range []bool{false, true} {
			fs := vfs.NewCrashableMem()
			mixedSpool(t, fs, 2, 400)
			if _, err := reshard(t, fs, 3); err != nil { // everything is in tables and blob files then
				t.Fatal(err)
			}
			fs = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng})
			hurt(t, fs, "mail/spool/generation-1/shard-001", ext, gone)
			v := verify(t, fs)
			if v.OK() || v.Messages == 0 {
				t.Errorf("%s, gone %v: %d messages, faults %v", ext, gone, v.Messages, v.Faults)
			}
			for _, f := range v.Examples {
				if f.Shard != 1 {
					t.Errorf("%s, gone %v: a fault of shard %d: %+v", ext, gone, f.Shard, f)
				}
			}
		}
	}
}

// hurt takes the files with an ending away from a directory, or garbles them in the middle.
func hurt(t testing.TB, fs vfs.FS, dir, ending string, gone bool) {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	n := 0
	for _, name := range names {
		if !strings.Contains(name, ending) {
			continue
		}
		n++
		name = fs.PathJoin(dir, name)
		if gone {
			if err := fs.Remove(name); err != nil {
				t.Fatal(err)
			}
			continue
		}
		garble(t, fs, name)
	}
	if n == 0 {
		t.Fatalf("no file with %s among %v", ending, names)
	}
}

// garble overwrites a stretch in the middle of a file.
func garble(t testing.TB, fs vfs.FS, name string) {
	t.Helper()
	info, err := fs.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	junk := []byte(strings.Repeat("\xde\xad", int(min(info.Size()/8, 500))))
	if _, err := f.WriteAt(junk, info.Size()/2); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestSpread(t *testing.T) {
	var s spread
	for i := range int64(100_000) {
		s.add(i)
	}
	p := s.percentiles()
	near := func(got, want int64) bool { return got <= want && float64(got) > 0.93*float64(want) }
	if p.Min != 0 || p.Max != 99_999 || !near(p.P50, 50_000) || !near(p.P90, 90_000) || !near(p.P99, 99_000) {
		t.Errorf("%+v", p)
	}
	for _, v := range []int64{0, 1, 15, 16, 17, 31, 32, 1 << 40, 1<<63 - 1} {
		if got := spreadValue(spreadBucket(uint64(v))); got > v || float64(got) < 0.93*float64(v) {
			t.Errorf("%d in the bucket of %d", v, got)
		}
	}
}
