package spool

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"mailrace/proto/message"
)

func goldenClaim() Claim {
	return Claim{Key: NewClaimKey("shop", "order 77"), ID: 0x1234567890abcd07, Expires: 1767409445678901234}
}

// claimsOf reads the claims of a spool, which must each be there once.
func claimsOf(t testing.TB, s *Spool) map[message.ID]Claim {
	t.Helper()
	found := map[message.ID]Claim{}
	err := s.Claims(func(c Claim) error {
		if _, ok := found[c.ID]; ok {
			t.Errorf("two claims for %v", c.ID)
		}
		found[c.ID] = c
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestGoldenClaim(t *testing.T) {
	want := goldenClaim()
	record := golden(t, "claim.v1", appendClaim(nil, &want))
	got, err := decodeClaim(record)
	if err != nil || got != want {
		t.Errorf("read %+v, %v, want %+v", got, err, want)
	}
	if len(record) != claimSize {
		t.Errorf("size %d announced, is %d", claimSize, len(record))
	}
}

func TestDamagedClaimsAreRefused(t *testing.T) {
	c := goldenClaim()
	record := appendClaim(nil, &c)
	for i := range record {
		damaged := append([]byte(nil), record...)
		damaged[i] ^= 0x10
		for _, b := range [][]byte{record[:i], damaged} {
			if _, err := decodeClaim(b); !errors.Is(err, errRecord) {
				t.Fatalf("%x: %v", b, err)
			}
		}
	}
	for _, c := range []Claim{{Key: c.Key, Expires: 1}, {Key: c.Key, ID: 1}, {Key: c.Key, ID: 1, Expires: -1}} {
		if _, err := decodeClaim(appendClaim(nil, &c)); !errors.Is(err, errRecord) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// FuzzDecodeClaim feeds claim records whose checksum is right.
func FuzzDecodeClaim(f *testing.F) {
	c := goldenClaim()
	f.Add(appendClaim(nil, &c))
	f.Fuzz(func(t *testing.T, record []byte) {
		if len(record) >= recordHeader {
			record = append([]byte(nil), record...)
			record[0] = claimVersion
			seal(record)
		}
		c, err := decodeClaim(record)
		if err != nil {
			if !errors.Is(err, errRecord) {
				t.Fatal(err)
			}
			return
		}
		if again := appendClaim(nil, &c); string(again) != string(record) {
			t.Fatalf("%x read as %+v and written as %x", record, c, again)
		}
	})
}

func TestClaimKeys(t *testing.T) {
	seen := map[ClaimKey]string{}
	for _, pair := range [][2]string{{"", ""}, {"", "a"}, {"a", ""}, {"a", "b"}, {"ab", ""}, {"", "ab"}, {"\x01", "a"}, {"", "\x01a"}} {
		key := NewClaimKey(pair[0], pair[1])
		if other, ok := seen[key]; ok {
			t.Errorf("%q has the hash of %q", pair, other)
		}
		seen[key] = fmt.Sprint(pair)
	}
	if n := testing.AllocsPerRun(100, func() { NewClaimKey("shop", "order 77") }); n != 0 {
		t.Errorf("%v allocations per hash", n)
	}
}

// TestClaimsOutliveTheirMessages until they expire: over removals, restarts, and beside claims that go.
func TestClaimsOutliveTheirMessages(t *testing.T) {
	fs, now := vfs.NewMem(), time.Now()
	s := mustOpen(t, testOptions(t, fs))
	want := map[message.ID]Claim{}
	for i := range 20 {
		m := newMessage(s.Shard(i%2), 100, 1)
		c := Claim{Key: NewClaimKey("shop", fmt.Sprint(i)), ID: m.ID, Expires: now.Add(time.Duration(i+1) * time.Hour).UnixNano()}
		do(t, s, &Op{Append: m, Claim: Claim{Key: c.Key, Expires: c.Expires}})
		do(t, s, &Op{Remove: Removal{ID: m.ID, Chunks: m.Chunks}})
		want[m.ID] = c
	}
	for _, hours := range []time.Duration{0, 3, 3, 11, 30} {
		limit := now.Add(hours*time.Hour + time.Minute).UnixNano()
		s.Expire(limit)
		for id, c := range want {
			if c.Expires < limit {
				delete(want, id)
			}
		}
		mustClose(t, s)
		s = mustOpen(t, testOptions(t, fs))
		found := claimsOf(t, s)
		if n := countKeys(t, s); n != len(want) || len(found) != len(want) {
			t.Errorf("after %d hours: %d records, %d claims, want %d", hours, n, len(found), len(want))
		}
		for id, c := range want {
			if found[id] != c {
				t.Errorf("after %d hours: %+v, want %+v", hours, found[id], c)
			}
		}
	}
	mustClose(t, s)
}

// TestClaimsExpireByTheClock although nobody has dropped them yet.
func TestClaimsExpireByTheClock(t *testing.T) {
	o := testOptions(t, vfs.NewMem())
	now := time.Now()
	o.Now = func() time.Time { return now }
	s := mustOpen(t, o)
	m := newMessage(s.Shard(0), 100, 1)
	do(t, s, &Op{Append: m, Claim: Claim{Key: NewClaimKey("", "k"), Expires: now.Add(time.Hour).UnixNano()}})
	mustClose(t, s)
	for _, hours := range []int{0, 1} {
		now = now.Add(time.Duration(hours) * time.Hour)
		s = mustOpen(t, o)
		if found := claimsOf(t, s); len(found) != 1-hours {
			t.Errorf("after %d hours: %+v", hours, found)
		}
		mustClose(t, s)
	}
}

// TestUnreadableClaimsAreKept aside, and the others are found.
func TestUnreadableClaimsAreKept(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, testOptions(t, fs))
	var ids []message.ID
	for i := range 3 {
		m := newMessage(s.Shard(0), 100, 1)
		do(t, s, &Op{Append: m, Claim: Claim{Key: NewClaimKey("", fmt.Sprint(i)), Expires: time.Now().Add(time.Hour).UnixNano()}})
		ids = append(ids, m.ID)
	}
	damage := claimsOf(t, s)
	var broken, strange [claimRecordKeyLen]byte
	c := damage[ids[0]]
	putClaimKey(broken[:], &c)
	c = damage[ids[1]]
	record := appendClaim(nil, &c)
	putClaimKey(strange[:], &c)
	strange[3]++ // a good record at a place that is not its own
	db := s.shards[0].db
	for _, err := range []error{db.Set(broken[:], []byte("?"), pebble.Sync), db.Set(strange[:], record, pebble.Sync)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		mustClose(t, s)
		s = mustOpen(t, testOptions(t, fs))
		recovered(t, s)
		if found := claimsOf(t, s); len(found) != 2 || found[ids[0]].ID != 0 {
			t.Errorf("found %+v", found)
		}
		if n := s.shards[0].corrupt.Get(); n != 2 {
			t.Errorf("%d records aside, want 2", n)
		}
		mustClose(t, s)
		o := testOptions(t, fs)
		o.ReadOnly = true
		s = mustOpen(t, o)
		if found := claimsOf(t, s); len(found) != 2 {
			t.Errorf("found %+v", found)
		}
	}
	mustClose(t, s)
}
