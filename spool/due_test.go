package spool

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"mailrace/proto/message"
)

func TestGoldenDueAndMark(t *testing.T) {
	d := Due{At: 1767323999000000001, ID: 0x1234567890abcd07}
	var key [dueKeyLen]byte
	putDueKey(key[:], d)
	record := make([]byte, dueSize)
	sealDue(record, key[:])
	record = golden(t, "due.v1", append(key[:], record...))
	if got, err := decodeDue(record[:dueKeyLen], record[dueKeyLen:]); err != nil || got != d {
		t.Errorf("read %+v, %v, want %+v", got, err, d)
	}
	for i := range record {
		record[i] ^= 0x10
		if got, err := decodeDue(record[:dueKeyLen], record[dueKeyLen:]); err == nil {
			t.Errorf("byte %d damaged: read as %+v", i, got)
		}
		record[i] ^= 0x10
	}
	mark := golden(t, "mark.v1", appendMark(nil, d.ID))
	if got, err := decodeMark(mark); err != nil || got != d.ID {
		t.Errorf("read mark %v, %v", got, err)
	}
	if mark[7]++; len(mark) != markSize {
		t.Errorf("a mark of %d bytes", len(mark))
	}
	if _, err := decodeMark(mark); err == nil {
		t.Error("a damaged mark was read")
	}
}

// park is an Op that defers the first recipient of a message until then.
func park(m *message.Message, was, at int64) *Op {
	op := &Op{Park: Due{At: at, ID: m.ID}, Updates: []Update{{ID: m.ID, State: message.Deferred, Due: at, Attempts: 1, Reply: "451 later", Parked: true}}}
	if was != 0 {
		op.Unpark = Due{At: was, ID: m.ID}
	}
	return op
}

// TestDueIndex pages through the index, in any page size, while entries move and go, and after a restart.
func TestDueIndex(t *testing.T) {
	fs := vfs.NewMem()
	var told []Due
	o := testOptions(t, fs)
	o.Shards = 1
	o.Indexed = func(shard int, dropped, added Due) { told = append(told, dropped, added) }
	s := mustOpen(t, o)
	sh := s.Shard(0)
	var messages []*message.Message
	at := []int64{500, 100, 300, 300, 900, math.MaxInt64, 255, 256}
	for _, due := range at {
		m := newMessage(sh, 10, 1)
		messages = append(messages, m)
		do(t, s, &Op{Append: m})
		do(t, s, park(m, 0, due))
	}
	if len(told) != 16 || told[0].ID != 0 || told[1] != (Due{500, messages[0].ID}) {
		t.Errorf("told of %v", told)
	}
	check := func(until int64, want ...int) {
		t.Helper()
		for _, limit := range []int{1, 2, 3, 100} {
			var got []Due
			for after := (Due{}); ; after = got[len(got)-1] {
				n := len(got)
				var err error
				if got, err = sh.Due(got, after, until, limit); err != nil {
					t.Fatal(err)
				}
				if len(got) == n {
					break
				}
				if len(got) > n+limit {
					t.Fatalf("a page of %d, asked for %d", len(got)-n, limit)
				}
			}
			var wanted []Due
			for _, i := range want {
				wanted = append(wanted, Due{at[i], messages[i].ID})
			}
			if !slices.Equal(got, wanted) {
				t.Errorf("due until %d in pages of %d: %v, want %v", until, limit, got, wanted)
			}
		}
	}
	check(math.MaxInt64, 1, 6, 7, 2, 3, 0, 4, 5)
	check(255, 1, 6)
	check(299, 1, 6, 7)
	check(300, 1, 6, 7, 2, 3)
	check(99)
	do(t, s, park(messages[1], 100, 700))
	at[1] = 700
	do(t, s, &Op{Remove: Removal{ID: messages[2].ID, Chunks: 1, Recipients: 1}, Unpark: Due{300, messages[2].ID}})
	do(t, s, park(messages[4], 900, 900)) // the same again stays
	for range 2 {
		check(math.MaxInt64, 6, 7, 3, 0, 1, 4, 5)
		mustClose(t, s)
		s = mustOpen(t, o)
		sh = s.Shard(0)
	}
	ids := []message.ID{messages[7].ID, messages[2].ID, messages[1].ID}
	got, err := sh.Read(nil, ids)
	if err != nil || len(got) != 3 || got[0].ID != ids[0] || got[1] != nil || got[2].Recipients[0].Due != 700 || got[2].Recipients[0].State != message.Deferred {
		t.Errorf("read %v, %v", got, err)
	}
	parked := 0
	if err := s.Recover(func(_ *message.Message, p bool) error {
		if p {
			parked++
		}
		return nil
	}); err != nil || parked != 7 {
		t.Errorf("%d found parked, %v, want 7", parked, err)
	}
	mustClose(t, s)
}

// TestDamagedIndex: a message whose entry cannot be read is found all the same, and one whose record lost its mark as well.
func TestDamagedIndex(t *testing.T) {
	fs := vfs.NewMem()
	o := testOptions(t, fs)
	o.Shards = 1
	s := mustOpen(t, o)
	sh := s.Shard(0)
	var messages []*message.Message
	for i := range 5 {
		m := newMessage(sh, 10, 1)
		messages = append(messages, m)
		do(t, s, &Op{Append: m})
		do(t, s, park(m, 0, int64(100*(i+1))))
	}
	var key [dueKeyLen]byte
	putDueKey(key[:], Due{200, messages[1].ID})
	if err := sh.db.Set(key[:], []byte("junk!"), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	putDueKey(key[:], Due{400, messages[3].ID})
	if err := sh.db.Delete(key[:], pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if due, err := sh.Due(nil, Due{}, math.MaxInt64, 10); err != nil || len(due) != 3 {
		t.Errorf("%v, %v", due, err)
	}
	mustClose(t, s)
	s = mustOpen(t, o)
	sh = s.Shard(0)
	loose := map[message.ID]bool{}
	if err := s.Recover(func(m *message.Message, parked bool) error {
		if !parked {
			loose[m.ID] = true
		}
		return nil
	}); err != nil || len(loose) != 2 || !loose[messages[1].ID] || !loose[messages[3].ID] {
		t.Errorf("found %v, %v", loose, err)
	}
	if n := sh.corrupt.Get(); n != 1 {
		t.Errorf("%d corrupt records counted", n)
	}
	mustClose(t, s)
}

// TestIDsDoNotRepeat: not even when nothing is left of the messages and the clock went back, or when recovery removed the last of them.
func TestIDsDoNotRepeat(t *testing.T) {
	fs := vfs.NewMem()
	o := testOptions(t, fs)
	o.Shards = 1
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	o.Now = func() time.Time { return now }
	s := mustOpen(t, o)
	m := newMessage(s.Shard(0), 10, 1)
	do(t, s, &Op{Append: m})
	do(t, s, &Op{Remove: Removal{ID: m.ID, Chunks: 1}})
	last := m.ID
	for round := range 4 {
		mustClose(t, s)
		now = now.Add(-time.Hour)
		s = mustOpen(t, o)
		if n := countKeys(t, s); n != 3*(round%2) {
			t.Fatalf("round %d: %d records", round, n)
		}
		recovered(t, s)
		m := newMessage(s.Shard(0), 10, 1)
		if m.ID <= last {
			t.Fatalf("round %d: id %v is not above %v", round, m.ID, last)
		}
		last = m.ID
		do(t, s, &Op{Append: m})
		if round%2 == 0 { // recovery will remove it
			do(t, s, &Op{Updates: []Update{{ID: m.ID, State: message.Delivered}}})
		} else {
			do(t, s, &Op{Remove: Removal{ID: m.ID, Chunks: 1}})
		}
		if round == 0 {
			_ = s.Scan(func(m *message.Message) bool { t.Errorf("%v is settled", m.ID); return true })
		}
	}
	mustClose(t, s)
}

// TestWhatParkingCosts bounds the bytes that a deferral adds to a batch.
func TestWhatParkingCosts(t *testing.T) {
	o := testOptions(t, vfs.NewMem())
	o.Shards = 1
	s := mustOpen(t, o)
	sh := s.Shard(0)
	m := newMessage(sh, 10, 1)
	do(t, s, &Op{Append: m})
	cost := func(op *Op) uint64 {
		before := sh.bytes.Get()
		do(t, s, op)
		return sh.bytes.Get() - before
	}
	update := Update{ID: m.ID, State: message.Deferred, Attempts: 1, Due: time.Now().UnixNano(), Reply: "451 4.7.1 try again later"}
	plain := cost(&Op{Updates: []Update{update}})
	update.Parked = true
	first := cost(&Op{Updates: []Update{update}, Park: Due{1000, m.ID}})
	again := cost(&Op{Updates: []Update{update}, Unpark: Due{1000, m.ID}, Park: Due{2000, m.ID}})
	t.Logf("bytes in the WAL: %d for a deferral, %d more to park, %d more to park again", plain, first-plain, again-plain)
	if first-plain > 30 || again-plain > 50 {
		t.Errorf("parking costs %d and %d bytes", first-plain, again-plain)
	}
	mustClose(t, s)
}
