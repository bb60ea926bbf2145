package spool

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"mailrace/proto/message"
)

var testPeer = netip.MustParseAddrPort("192.0.2.1:25")

func goldenFlights() []Flight {
	return []Flight{
		{ID: 0x1234567890abcd07, Index: 300, Attempt: 65535, Began: 1767323999000000001, Peer: testPeer},
		{ID: 0x1234567890abcd17, Attempt: 1, Began: 1767323999000000002, Peer: netip.MustParseAddrPort("[2001:db8::7]:2525")},
		{ID: 0x1234567890abcd27, Attempt: 1},
	}
}

func sealedFlights(list []Flight) []byte {
	record := []byte{flightsVersion, 0, 0, 0, 0}
	for i := range list {
		record = appendFlight(record, &list[i])
	}
	seal(record)
	return record
}

func TestGoldenFlights(t *testing.T) {
	want := goldenFlights()
	record := golden(t, "flights.v1", sealedFlights(want))
	if got, err := decodeFlights(record); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, %v, want %+v", got, err, want)
	}
}

func FuzzDecodeFlights(f *testing.F) {
	f.Add(sealedFlights(goldenFlights()))
	f.Add(sealedFlights(nil))
	f.Fuzz(func(t *testing.T, record []byte) {
		if len(record) >= recordHeader {
			record = bytes.Clone(record)
			record[0] = flightsVersion
			seal(record)
		}
		list, err := decodeFlights(record)
		if err != nil {
			return
		}
		if again, err := decodeFlights(sealedFlights(list)); err != nil || !reflect.DeepEqual(list, again) {
			t.Fatalf("%+v encoded and read back: %+v, %v", list, again, err)
		}
	})
}

// FuzzFlightsFile opens a table of any content.
func FuzzFlightsFile(f *testing.F) {
	dir := f.TempDir()
	o := testOptions(f, vfs.Default)
	o.Path, o.InFlight, o.Sync = filepath.Join(dir, "spool"), dir, false
	s := mustOpen(f, o)
	name := s.flights.file.name
	m := s.Marker()
	for i := range goldenFlights() {
		m.Set(&goldenFlights()[i])
	}
	mustClose(f, s)
	table, err := os.ReadFile(name)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(table[:tableHeader+4*slotSize])
	f.Add(table[:20])
	f.Fuzz(func(t *testing.T, table []byte) {
		name := filepath.Join(t.TempDir(), "table")
		if err := os.WriteFile(name, table, 0o600); err != nil {
			t.Fatal(err)
		}
		fl, err := mapFlights(name)
		if err != nil {
			t.Fatal(err)
		}
		fl.unreadable = newCounters(s.metrics, 999).corrupt
		s.metrics.UnregisterAllMetrics()
		fl.look(o)
		fl.noted.Store(true)
		for _, was := range fl.found {
			if was.flight.ID == 0 || was.flight.Index < 0 || was.flight.Attempt == 0 {
				t.Errorf("%+v", was.flight)
			}
			was.slot.seal.Store(0)
		}
		if n := fl.count(); n != 0 {
			t.Errorf("%d slots are in use", n)
		}
		if err := fl.close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(name); !os.IsNotExist(err) {
			t.Error("an empty table was left behind")
		}
	})
}

// TestMarker marks far more deliveries than are ever in flight together: the table stays small, and holds exactly those that are.
func TestMarker(t *testing.T) {
	o := testOptions(t, vfs.NewMem())
	s := mustOpen(t, o)
	m := s.Marker()
	want := map[message.ID]Mark{}
	for id := message.ID(1); id < 10_000; id++ {
		mark := m.Set(&Flight{ID: id, Index: int(id % 7), Attempt: 1, Peer: testPeer})
		want[id] = mark
		if old := id - 40; id > 41 && old%100 != 0 { // some stay for good
			if old%2 == 0 {
				s.flights.free([]Mark{want[old]})
			} else {
				m.Unset(want[old])
			}
			delete(want, old)
		}
	}
	s.flights.each(func(f Flight) {
		if want[f.ID] == 0 || f.Index != int(f.ID%7) || f.Peer != testPeer {
			t.Errorf("%+v is in flight", f)
		}
		delete(want, f.ID)
	})
	if len(want) > 0 || s.flights.handed.Load() > 512 {
		t.Errorf("%d are not in the table, which has %d slots", len(want), s.flights.handed.Load())
	}
	if n := testing.AllocsPerRun(1000, func() {
		s.flights.free([]Mark{m.Set(&Flight{ID: 1, Attempt: 1, Peer: testPeer})})
	}); n != 0 {
		t.Errorf("%v allocations per mark", n)
	}
	mustClose(t, s)
}

// TestTableIsBounded: what is beyond goes on unmarked, and is counted.
func TestTableIsBounded(t *testing.T) {
	o := testOptions(t, vfs.NewMem())
	s := mustOpen(t, o)
	m := s.Marker()
	for i := range slotMax + 10 {
		if mark := m.Set(&Flight{ID: message.ID(i + 1), Attempt: 1}); (mark == 0) != (i >= slotMax) {
			t.Fatalf("mark %d for delivery %d", mark, i)
		}
	}
	if n := s.flights.unmarked.Get(); n != 10 {
		t.Errorf("%d unmarked", n)
	}
	s.flights.free([]Mark{m.own[m.next]})
	if m.Set(&Flight{ID: 1, Attempt: 1}) == 0 {
		t.Error("no mark where there is room again")
	}
	mustClose(t, s)
}

// TestTableIsOurs: a file that somebody else put there is not used, nor is what a link leads to.
func TestTableIsOurs(t *testing.T) {
	for name, plant := range map[string]func(name, elsewhere string) error{
		"link":      func(name, elsewhere string) error { return os.Symlink(elsewhere, name) },
		"hard link": func(name, elsewhere string) error { return os.Link(elsewhere, name) },
		"readable":  func(name, _ string) error { return os.WriteFile(name, nil, 0o644) },
		"pipe":      func(name, _ string) error { return unix.Mkfifo(name, 0o600) },
		"directory": func(name, _ string) error { return os.Mkdir(name, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := testOptions(t, vfs.Default)
			o.Path, o.InFlight = filepath.Join(dir, "spool"), dir
			if err := os.Mkdir(o.Path, 0o700); err != nil {
				t.Fatal(err)
			}
			elsewhere := filepath.Join(dir, "elsewhere")
			if err := os.WriteFile(elsewhere, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			table, err := flightsName(o)
			if err == nil {
				err = plant(table, elsewhere)
			}
			if err != nil {
				t.Fatal(err)
			}
			s := mustOpen(t, o)
			if got, want := s.flights.file.name, filepath.Join(o.Path, flightsFile); got != want {
				t.Errorf("the table is %s, want %s", got, want)
			}
			mustClose(t, s)
			if text, err := os.ReadFile(elsewhere); string(text) != "precious" {
				t.Errorf("%q, %v", text, err)
			}
		})
	}
}

// TestTableInTheSpool: where the table cannot be made, it is in the spool; a later process that can make it finds what is there. Where it cannot
// grow, deliveries go on without marks.
func TestTableInTheSpool(t *testing.T) {
	dir := t.TempDir()
	o := testOptions(t, vfs.Default)
	o.Path, o.InFlight = filepath.Join(dir, "spool"), filepath.Join(dir, "missing")
	s := mustOpen(t, o)
	resolved(t, s)
	m := newMessage(s.Shard(0), 100, 1)
	do(t, s, &Op{Append: m})
	mark := s.Marker()
	mark.Set(&Flight{ID: m.ID, Attempt: 1, Began: 7, Peer: testPeer})
	fd := s.flights.file.fd
	s.flights.file.fd = -1
	for range slotStep + 10 {
		mark.Set(&Flight{ID: m.ID, Attempt: 1, Began: 7, Peer: testPeer})
	}
	s.flights.file.fd = fd
	if n := s.flights.unmarked.Get(); n != 11 {
		t.Errorf("%d unmarked, want 11", n)
	}
	mustClose(t, s)
	if n := s.flights.figure(); n != 0 {
		t.Errorf("%v in flight in a spool that is closed", n)
	}

	inside := filepath.Join(o.Path, flightsFile)
	if _, err := os.Stat(inside); err != nil {
		t.Fatal(err)
	}
	o.InFlight = dir
	s = mustOpen(t, o)
	if list := resolved(t, s); len(list) != 1 || list[0] != (Flight{ID: m.ID, Attempt: 1, Began: 7, Peer: testPeer}) {
		t.Errorf("%+v", list)
	}
	if _, err := os.Stat(inside); !os.IsNotExist(err) {
		t.Error("the table in the spool is still there")
	}
	mustClose(t, s)
}

// resolved resolves, and says what was in doubt.
func resolved(t *testing.T, s *Spool) (list []Flight) {
	t.Helper()
	noted := 0
	err := s.Resolve(func(m *message.Message, f Flight) {
		m.Recipients[f.Index].Cast(message.Doubt{Began: f.Began, Attempt: f.Attempt, Peer: f.Peer})
		list = append(list, f)
	}, func() { noted++ })
	if err != nil || noted != 1 {
		t.Fatalf("%v, noted %d times", err, noted)
	}
	return list
}

// TestDoubts ends a process (its table stays) with deliveries in every state of flight, and looks what the next one makes of them.
func TestDoubts(t *testing.T) {
	dir := t.TempDir()
	o := testOptions(t, vfs.Default)
	o.Path, o.InFlight = filepath.Join(dir, "spool"), dir
	s := mustOpen(t, o)
	if list := resolved(t, s); list != nil {
		t.Fatalf("in doubt at first: %+v", list)
	}
	ms := make([]*message.Message, 6)
	for i := range ms {
		ms[i] = newMessage(s.Shard(i%2), 100, 2)
		do(t, s, &Op{Append: ms[i]})
	}
	mark := s.Marker()
	set := func(i, recipient int, attempt uint16) Mark {
		return mark.Set(&Flight{ID: ms[i].ID, Index: recipient, Attempt: attempt, Began: 7, Peer: testPeer})
	}
	set(0, 1, 1) // in flight
	set(1, 0, 1) // one that failed before
	do(t, s, &Op{Updates: []Update{{ID: ms[1].ID, State: message.Deferred, Attempts: 1, Due: 5}}})
	set(1, 0, 2) // and is in flight again, parked
	do(t, s, &Op{Park: Due{At: 5, ID: ms[1].ID}, Updates: []Update{{ID: ms[1].ID, Index: 1, State: message.Deferred, Attempts: 3, Due: 5, Parked: true}}})
	set(2, 0, 1) // delivered, though the mark is still there
	do(t, s, &Op{Updates: []Update{{ID: ms[2].ID, State: message.Delivered, Attempts: 1}}})
	set(3, 0, 1) // gone
	do(t, s, &Op{Remove: Removal{ID: ms[3].ID, Chunks: ms[3].Chunks}})
	done := set(4, 0, 1) // delivered, and the mark was taken away
	do(t, s, &Op{Updates: []Update{{ID: ms[4].ID, State: message.Delivered, Attempts: 1}}, Marks: []Mark{done}})
	do(t, s, &Op{Append: newMessage(s.ShardOf(ms[4].ID), 10, 1)}) // syncs it
	set(5, 7, 1)                                                  // no such recipient
	if n := s.flights.count(); n != 6 {
		t.Errorf("%d in flight, want 6", n)
	}
	s.flights.slots[mark.own[0]-1].addr[0]++ // of no use any more: it was cut short
	set(0, 1, 1)
	mustClose(t, s)

	s = mustOpen(t, o)
	if n := s.flights.unreadable.Get(); n != 1 {
		t.Errorf("%d unreadable", n)
	}
	func() { // a crash when the doubts are noted, and the table still stands
		defer func() { _ = recover() }()
		_ = s.Resolve(func(m *message.Message, f Flight) { m.Recipients[f.Index].Cast(message.Doubt{Attempt: f.Attempt}) }, func() { panic("crash") })
	}()
	checkDoubts(t, s, ms)
	mustClose(t, s)

	s = mustOpen(t, o)
	if n := len(s.flights.found); n != 6 {
		t.Errorf("%d were in flight, want 6", n)
	}
	if list := resolved(t, s); list != nil {
		t.Errorf("in doubt once more: %+v", list)
	}
	checkDoubts(t, s, ms)
	name := s.flights.file.name
	mustClose(t, s)
	if _, err := os.Stat(name); !os.IsNotExist(err) {
		t.Error("the table of a process that ended in order is still there")
	}
}

func checkDoubts(t *testing.T, s *Spool, ms []*message.Message) {
	t.Helper()
	found := map[message.ID]*message.Message{}
	if err := s.Scan(func(m *message.Message) bool { found[m.ID] = m; return true }); err != nil {
		t.Fatal(err)
	}
	for i, m := range ms {
		for index := range m.Recipients {
			attempt := uint16(0)
			if at := [2]int{i, index}; at == [2]int{0, 1} {
				attempt = 1
			} else if at == [2]int{1, 0} {
				attempt = 2
			}
			if found[m.ID] == nil {
				if i != 3 {
					t.Errorf("message %d is lost", i)
				}
				continue
			}
			r := &found[m.ID].Recipients[index]
			if (r.Doubt != nil) != (attempt > 0) || attempt > 0 && (r.Attempts != attempt || r.Doubt.Times != 1) {
				t.Errorf("message %d, recipient %d: %+v", i, index, r)
			}
		}
	}
}

// TestDoubtsOfAMachine: where the table is lost with the machine, the shards know what was in flight when a batch was synced, also after a
// resharding, and when recovery crashes.
func TestDoubtsOfAMachine(t *testing.T) {
	for _, shards := range []int{2, 1, 3} {
		disk := &crashDisk{MemFS: vfs.NewCrashableMem()}
		o := testOptions(t, disk)
		s := mustOpen(t, o)
		resolved(t, s)
		mark := s.Marker()
		var flying, landed []message.ID
		for i := range 10 {
			m := newMessage(s.Shard(i%2), 20_000, 1)
			do(t, s, &Op{Append: m})
			flight := mark.Set(&Flight{ID: m.ID, Attempt: 1, Began: 7, Peer: testPeer})
			if i%4 < 2 {
				flying = append(flying, m.ID)
				continue
			}
			landed = append(landed, m.ID)
			do(t, s, &Op{Remove: Removal{ID: m.ID, Chunks: m.Chunks}, Marks: []Mark{flight}})
		}
		for i := range 2 {
			do(t, s, &Op{Append: newMessage(s.Shard(i), 20_000, 1)})
		}
		left := disk.CrashClone(vfs.CrashCloneCfg{})
		mustClose(t, s)
		o.FS, o.Shards = left, shards
		if shards != 2 {
			if _, err := Reshard(t.Context(), o, nil); err != nil {
				t.Fatal(err)
			}
		}
		if v, err := Verify(t.Context(), o, nil); err != nil || !v.OK() || v.InFlight == 0 {
			t.Errorf("%+v, %v", v, err)
		}
		s = mustOpen(t, o)
		var got []message.ID
		for _, f := range resolved(t, s) {
			got = append(got, f.ID)
		}
		slices.Sort(flying)
		if !slices.Equal(got, flying) {
			t.Errorf("%d shards: in doubt are %v, want %v and none of %v", shards, got, flying, landed)
		}
		mustClose(t, s)
		if v, err := Verify(t.Context(), o, nil); err != nil || !v.OK() || v.InFlight != 0 || int(v.InDoubt) != len(flying) {
			t.Errorf("%+v, %v", v, err)
		}
	}
}

// TestFlightsAreFewBytes: what a batch holds of what is in flight is a small part of it, or comes seldom.
func TestFlightsAreFewBytes(t *testing.T) {
	o := testOptions(t, vfs.NewMem())
	o.Shards = 1
	s := mustOpen(t, o)
	resolved(t, s)
	sh, mark := s.Shard(0), s.Marker()
	for i := range 100 {
		mark.Set(&Flight{ID: message.ID(i + 1), Attempt: 1, Peer: testPeer})
	}
	b := sh.db.NewBatch()
	defer b.Close()
	note := func() int {
		t.Helper()
		before := b.Len()
		if err := sh.noteFlights(b); err != nil {
			t.Fatal(err)
		}
		return b.Len() - before
	}
	n := note()
	if n < 100*16 || n > 100*32 {
		t.Errorf("%d bytes for 100 flights", n)
	}
	sh.aloft.looked = time.Now().Add(time.Hour)
	if again := note(); again != 0 {
		t.Errorf("%d bytes in a batch of %d", again, b.Len())
	}
	if err := b.Set([]byte("x"), make([]byte, flightsShare*n), nil); err != nil {
		t.Fatal(err)
	}
	if again := note(); again != n {
		t.Errorf("%d bytes in a batch of %d", again, b.Len())
	}
	mustClose(t, s)
}

// TestMarkBesideWhatWasFound: as long as it is not noted what a crash left in the table, marks go behind it.
func TestMarkBesideWhatWasFound(t *testing.T) {
	s := mustOpen(t, testOptions(t, vfs.NewMem()))
	for i := range 3 * slotBlock {
		s.flights.slots[i].fill(&Flight{ID: 1, Attempt: 1})
	}
	if mark := s.Marker().Set(&Flight{ID: 2, Attempt: 1}); int(mark) != 3*slotBlock+1 {
		t.Errorf("mark %d", mark)
	}
	mustClose(t, s)
}
