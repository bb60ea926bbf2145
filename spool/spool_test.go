package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"mailrace/proto/message"
)

// testOptions are of a small spool in memory, whose completions go to the channel in Op.Done.
func testOptions(t testing.TB, fs vfs.FS) Options {
	return Options{
		Path: "mail/spool", Shards: 2, Sync: true, FS: fs, MemTableBytes: 1 << 20,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Post: func(_ int, done []*Op) {
			for _, op := range done {
				op.Done.(chan *Op) <- op
			}
		},
		Fatal: func(err error) { t.Errorf("fatal: %v", err) },
	}
}

func mustOpen(t testing.TB, o Options) *Spool {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t testing.TB, s *Spool) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// do enqueues an Op and waits until it is complete.
func do(t testing.TB, s *Spool, op *Op) {
	t.Helper()
	if err := (<-begin(s, op)).Err; err != nil {
		t.Fatal(err)
	}
}

// begin enqueues an Op and returns where its completion arrives.
func begin(s *Spool, op *Op) chan *Op {
	done := make(chan *Op, 1)
	op.Done = done
	s.ShardOf(op.id()).Enqueue(op)
	return done
}

var testBudget = message.NewBudget(1 << 30)

// newMessage builds a message whose content is made from its id.
func newMessage(sh *Shard, size, recipients int) *message.Message {
	m := &message.Message{ID: sh.NewID(), Arrived: 1767323045000000000, From: "sender@example.com", Size: int64(size), Client: "192.0.2.1",
		Helo: "client.example.com"}
	m.Trace = fmt.Appendf(nil, "Received: by mx.example.com id %v;\r\n", m.ID)
	for i := range recipients {
		m.Recipients = append(m.Recipients, message.Recipient{Address: fmt.Sprintf("user%d@example.net", i)})
	}
	m.Body = testBudget.AppendContent(nil, contentOf(m.ID, size), int64(size))
	m.Chunks = len(m.Body)
	m.Hold(1)
	return m
}

func contentOf(id message.ID, size int) []byte {
	line := id.String() + " " + strings.Repeat("x", int(id>>8)%50) + "\r\n"
	return []byte(strings.Repeat(line, size/len(line)+1)[:size])
}

func load(t testing.TB, s *Spool, id message.ID, first, n int) []byte {
	t.Helper()
	chunks, err := s.Load(id, first, n, testBudget)
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, c := range chunks {
		all = append(all, c.B...)
	}
	message.FreeAll(chunks)
	return all
}

func recovered(t testing.TB, s *Spool) map[message.ID]*message.Message {
	t.Helper()
	found := map[message.ID]*message.Message{}
	var last message.ID
	err := s.Recover(func(m *message.Message, _ bool) error {
		if m.ID <= last && m.ID.Shard() == last.Shard() {
			t.Errorf("%v after %v", m.ID, last)
		}
		last, found[m.ID] = m.ID, m
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestAppendLoadRecover(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, testOptions(t, fs))
	var all []*message.Message
	for i, size := range []int{0, 1, 1000, message.ChunkSize, message.ChunkSize + 1, 5*message.ChunkSize + 17} {
		m := newMessage(s.Shard(i%2), size, i+1)
		m.Flags = message.Flags(i)
		do(t, s, &Op{Append: m})
		all = append(all, m)
	}
	for range 2 { // from the memtable, and after a restart
		for _, m := range all {
			if got := load(t, s, m.ID, 0, m.Chunks+1); !bytes.Equal(got, append(m.Trace[:len(m.Trace):len(m.Trace)], contentOf(m.ID, int(m.Size))...)) {
				t.Errorf("message of %d octets read back as %d", m.Size, len(got))
			}
		}
		mustClose(t, s)
		s = mustOpen(t, testOptions(t, fs))
		found := recovered(t, s)
		if len(found) != len(all) {
			t.Fatalf("%d messages recovered, want %d", len(found), len(all))
		}
		for _, m := range all {
			want := &message.Message{ID: m.ID, Arrived: m.Arrived, From: m.From, Recipients: m.Recipients, Flags: m.Flags, Size: m.Size,
				Chunks: m.Chunks, Client: m.Client, Helo: m.Helo}
			if got := found[m.ID]; !reflect.DeepEqual(got, want) {
				t.Errorf("recovered %+v, want %+v", got, want)
			}
		}
	}
	if _, err := s.Load(s.Shard(0).NewID(), 0, 1, testBudget); !errors.Is(err, ErrNoMessage) {
		t.Errorf("a message that is not there: %v", err)
	}
	mustClose(t, s)
}

func TestStreamedChunks(t *testing.T) {
	before := testBudget.Used()
	for _, keep := range []bool{false, true} {
		s := mustOpen(t, testOptions(t, vfs.NewMem()))
		m := newMessage(s.Shard(0), 3*message.ChunkSize+5, 1)
		var waits []chan *Op
		for i, c := range m.Body[:3] {
			waits = append(waits, begin(s, &Op{Chunk: Chunk{ID: m.ID, Index: i + 1, Data: c, Keep: keep}}))
			m.Stored++
		}
		if !keep {
			m.Body = m.Body[3:]
		}
		do(t, s, &Op{Append: m})
		for _, w := range waits {
			<-w
		}
		if got := load(t, s, m.ID, 1, m.Chunks); !bytes.Equal(got, contentOf(m.ID, int(m.Size))) {
			t.Errorf("keep=%v: streamed content differs", keep)
		}
		do(t, s, &Op{Remove: Removal{ID: m.ID, Chunks: m.Chunks}})
		if n := countKeys(t, s); n != 0 {
			t.Errorf("keep=%v: %d records after removal", keep, n)
		}
		mustClose(t, s)
		m.Release()
	}
	if leaked := testBudget.Used() - before; leaked != 0 {
		t.Errorf("%d bytes of chunks leaked", leaked)
	}
}

func TestAbortedAndOrphanChunksVanish(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, testOptions(t, fs))
	aborted, orphan := s.Shard(0).NewID(), s.Shard(1).NewID()
	for _, id := range []message.ID{aborted, orphan} {
		for i := range 3 {
			do(t, s, &Op{Chunk: Chunk{ID: id, Index: i + 1, Data: testBudget.NewChunk(10)}})
		}
	}
	do(t, s, &Op{Abort: Removal{ID: aborted, Chunks: 3}})
	if n := countKeys(t, s); n != 3 {
		t.Errorf("%d records, want the orphan's 3", n)
	}
	mustClose(t, s)
	s = mustOpen(t, testOptions(t, fs))
	if id := s.Shard(1).NewID(); id <= orphan {
		t.Errorf("new id %v is not above the orphan %v", id, orphan)
	}
	if found := recovered(t, s); len(found) != 0 {
		t.Errorf("%d messages recovered", len(found))
	}
	if n := countKeys(t, s); n != 0 {
		t.Errorf("%d records after recovery", n)
	}
	mustClose(t, s)
}

// countKeys is the number of records of all shards, but for their marks.
func countKeys(t testing.TB, s *Spool) (n int) {
	t.Helper()
	for _, sh := range s.shards {
		it, err := sh.db.NewIter(nil)
		if err != nil {
			t.Fatal(err)
		}
		for it.First(); it.Valid(); it.Next() {
			if it.Key()[0] != kindMark {
				n++
			}
		}
		if err := it.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func TestUpdatesAndSettledMessages(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, testOptions(t, fs))
	m := newMessage(s.Shard(1), 100, 3)
	do(t, s, &Op{Append: m})
	deferral := Update{ID: m.ID, Index: 1, State: message.Deferred, Attempts: 2, Due: 77, Reply: "451 4.7.1 come back later"}
	do(t, s, &Op{Updates: []Update{{ID: m.ID, Index: 1, State: message.Deferred, Attempts: 1}, deferral}})
	do(t, s, &Op{Updates: []Update{{ID: m.ID, Index: 0, State: message.Delivered, Attempts: 1, Reply: strings.Repeat("r", 2*maxReply)}}})
	mustClose(t, s)

	s = mustOpen(t, testOptions(t, fs))
	r := recovered(t, s)[m.ID].Recipients
	if r[1].State != deferral.State || r[1].Attempts != 2 || r[1].Due != 77 || r[1].Reply != deferral.Reply {
		t.Errorf("deferred recipient came back as %+v", r[1])
	}
	if r[0].State != message.Delivered || len(r[0].Reply) != maxReply || r[2].State != message.Pending {
		t.Errorf("recipients came back as %+v", r)
	}
	do(t, s, &Op{Updates: []Update{
		{ID: m.ID, Index: 1, State: message.Expired, Attempts: 3}, {ID: m.ID, Index: 2, State: message.Bounced, Attempts: 1}}})
	if err := s.Scan(func(m *message.Message) bool { t.Errorf("settled message %v scanned", m.ID); return true }); err != nil {
		t.Error(err)
	}
	mustClose(t, s)

	s = mustOpen(t, testOptions(t, fs))
	if found := recovered(t, s); len(found) != 0 {
		t.Errorf("settled message recovered: %v", found)
	}
	if n := countKeys(t, s); n != 0 {
		t.Errorf("%d records of a settled message are left", n)
	}
	mustClose(t, s)
}

func TestRemoveWithUpdates(t *testing.T) {
	s := mustOpen(t, testOptions(t, vfs.NewMem()))
	m := newMessage(s.Shard(0), 100, 3)
	dsn := newMessage(s.Shard(0), 50, 1)
	dsn.From = ""
	do(t, s, &Op{Append: m})
	do(t, s, &Op{Updates: []Update{{ID: m.ID, Index: 2, State: message.Bounced}}})
	do(t, s, &Op{Append: dsn, Remove: Removal{ID: m.ID, Chunks: m.Chunks, Recipients: 3}})
	if n := countKeys(t, s); n != 2 {
		t.Errorf("%d records, want the DSN's envelope and chunk", n)
	}
	mustClose(t, s)
}

func TestScanStops(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, testOptions(t, fs))
	for i := range 10 {
		do(t, s, &Op{Append: newMessage(s.Shard(i%2), 10, 1)})
	}
	n := 0
	if err := s.Scan(func(*message.Message) bool { n++; return n < 4 }); err != nil || n != 4 {
		t.Errorf("scan called %d times, %v; want 4", n, err)
	}
	mustClose(t, s)

	o := testOptions(t, fs)
	o.ReadOnly, o.Shards = true, 0
	s = mustOpen(t, o)
	n = 0
	if err := s.Scan(func(*message.Message) bool { n++; return true }); err != nil || n != 10 {
		t.Errorf("read-only scan called %d times, %v; want 10", n, err)
	}
	if len(recovered(t, s)) != 10 {
		t.Error("read-only recovery misses messages")
	}
	op := &Op{Append: newMessage(s.Shard(0), 10, 1)}
	if got := <-begin(s, op); !errors.Is(got.Err, ErrClosed) {
		t.Errorf("append to a read-only spool: %v", got.Err)
	}
	mustClose(t, s)
}

func TestUnreadableRecordsAreKept(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, testOptions(t, fs))
	good, bad := newMessage(s.Shard(0), 100, 2), newMessage(s.Shard(0), 100, 1)
	do(t, s, &Op{Append: good})
	do(t, s, &Op{Append: bad})
	do(t, s, &Op{Updates: []Update{{ID: good.ID, Index: 1, State: message.Delivered}}})
	for _, key := range [][]byte{keyOf(kindEnvelope, bad.ID), append(keyOf(kindRecipient, good.ID), 0, 0, 0, 1)} {
		if err := s.shards[0].db.Set(key, []byte("\x01junk"), pebble.Sync); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 2 { // the second recovery finds it moved already, and keeps its content
		mustClose(t, s)
		s = mustOpen(t, testOptions(t, fs))
		found := recovered(t, s)
		if len(found) != 1 || found[good.ID] == nil || found[good.ID].Recipients[1].State != message.Pending {
			t.Errorf("round %d: recovered %v", round, found)
		}
		if n := s.shards[0].corrupt.Get(); n != 2 {
			t.Errorf("round %d: %d corrupt records counted, want 2", round, n)
		}
		value, closer, err := s.shards[0].db.Get(append([]byte{kindCorrupt}, keyOf(kindEnvelope, bad.ID)...))
		if err != nil || string(value) != "\x01junk" {
			t.Fatalf("round %d: corrupt record is %q, %v", round, value, err)
		}
		_ = closer.Close()
		if got := load(t, s, bad.ID, 1, 1); !bytes.Equal(got, contentOf(bad.ID, 100)) {
			t.Errorf("round %d: content of the unreadable message is gone", round)
		}
	}
	mustClose(t, s)
}

// TestDamagedMessageIsKept finds messages unreadable while they are served. Their removal keeps what is left of them, and the next start does not
// find them.
func TestDamagedMessageIsKept(t *testing.T) {
	for name, spoil := range map[string]func(db *pebble.DB, id message.ID) error{
		"chunk missing": func(db *pebble.DB, id message.ID) error {
			return db.Delete(append(keyOf(kindChunk, id), 0, 0, 0, 2), pebble.Sync)
		},
		"chunk too long": func(db *pebble.DB, id message.ID) error {
			return db.Set(append(keyOf(kindChunk, id), 0, 0, 0, 2), make([]byte, message.ChunkSize+1), pebble.Sync)
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			s := mustOpen(t, testOptions(t, fs))
			m, good := newMessage(s.Shard(0), 3*message.ChunkSize, 2), newMessage(s.Shard(0), 10, 1)
			do(t, s, &Op{Append: m})
			do(t, s, &Op{Append: good})
			do(t, s, &Op{Updates: []Update{{ID: m.ID, Index: 1, State: message.Delivered}}})
			if err := spoil(s.shards[0].db, m.ID); err != nil {
				t.Fatal(err)
			}
			load(t, s, m.ID, 1, 1)
			for range 2 {
				if _, err := s.Load(m.ID, 1, 3, testBudget); !errors.Is(err, ErrUnreadable) {
					t.Fatal(err)
				}
			}
			if n := s.shards[0].damaged.Get(); n != 1 {
				t.Errorf("%d damaged messages counted", n)
			}
			do(t, s, &Op{Updates: []Update{{ID: m.ID, State: message.Bounced}}})
			do(t, s, &Op{Remove: Removal{ID: m.ID, Chunks: m.Chunks, Recipients: 2}})
			do(t, s, &Op{Remove: Removal{ID: good.ID, Chunks: good.Chunks}})
			if _, err := s.Load(m.ID, 1, 3, testBudget); !errors.Is(err, ErrNoMessage) || errors.Is(err, ErrUnreadable) {
				t.Errorf("a message that was moved aside: %v", err)
			}
			for range 2 {
				value, closer, err := s.shards[0].db.Get(append(append([]byte{kindCorrupt}, keyOf(kindChunk, m.ID)...), 0, 0, 0, 1))
				if err != nil || !bytes.Equal(value, contentOf(m.ID, int(m.Size))[:message.ChunkSize]) {
					t.Errorf("the first chunk is not kept: %v", err)
				} else {
					_ = closer.Close()
				}
				mustClose(t, s)
				s = mustOpen(t, testOptions(t, fs))
				if found := recovered(t, s); len(found) != 0 {
					t.Errorf("found again: %v", found)
				}
				if n := s.shards[0].corrupt.Get(); n < 5 || n > 6 {
					t.Errorf("%d records kept", n)
				}
			}
			mustClose(t, s)
		})
	}
}

func keyOf(kind byte, id message.ID) []byte {
	key := make([]byte, idKeyLen)
	putKey(key, kind, id)
	return key
}

func TestRecoverLeavesNewMailAlone(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, testOptions(t, fs))
	old := newMessage(s.Shard(0), 10, 1)
	do(t, s, &Op{Append: old})
	mustClose(t, s)
	s = mustOpen(t, testOptions(t, fs))
	m := newMessage(s.Shard(0), message.ChunkSize+1, 1)
	do(t, s, &Op{Chunk: Chunk{ID: m.ID, Index: 1, Data: m.Body[0], Keep: true}})
	m.Stored = 1
	if found := recovered(t, s); len(found) != 1 || found[old.ID] == nil {
		t.Errorf("recovered %v, want %v alone", found, old.ID)
	}
	do(t, s, &Op{Append: m})
	if got := load(t, s, m.ID, 1, 2); !bytes.Equal(got, contentOf(m.ID, int(m.Size))) {
		t.Error("recovery took a chunk of a message on its way")
	}
	mustClose(t, s)
}

func TestIDsContinue(t *testing.T) {
	fs := vfs.NewMem()
	o := testOptions(t, fs)
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	o.Now = func() time.Time { return now }
	s := mustOpen(t, o)
	m := newMessage(s.Shard(1), 10, 1)
	do(t, s, &Op{Append: m})
	mustClose(t, s)
	now = now.Add(-24 * time.Hour) // the clock was set back while the node was down
	s = mustOpen(t, o)
	if id := s.Shard(1).NewID(); id <= m.ID || id.Shard() != 1 {
		t.Errorf("new id %v is not above %v", id, m.ID)
	}
	mustClose(t, s)
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	o := testOptions(t, vfs.Default)
	o.Path = dir + "/spool"
	refused := func(what string, o Options, want ...string) {
		t.Helper()
		s, err := Open(o)
		if err == nil {
			t.Errorf("%s: opened", what)
			mustClose(t, s)
			return
		}
		for _, w := range append(want, o.Path) {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", what, err, w)
			}
		}
	}
	readOnly := o
	readOnly.ReadOnly = true
	refused("nothing to read", readOnly, "there is no spool")
	s := mustOpen(t, o)
	refused("in use", o, "another process has it open")
	mustClose(t, s)
	other := o
	other.Shards = 3
	refused("other number of shards", other, "the spool has 2", "3 are configured", "spool reshard --path "+o.Path+" --shards 3", "set shards = 2")
	other.Shards = message.MaxShards + 1
	refused("too many shards", other, "want 1 to 256")
	other.Shards = 0
	s = mustOpen(t, other)
	if s.Shards() != 2 {
		t.Errorf("%d shards, want the 2 that are there", s.Shards())
	}
	mustClose(t, s)
	if err := vfs.Default.Remove(o.Path + "/" + layoutFile); err != nil {
		t.Fatal(err)
	}
	refused("layout lost", o, "damaged")
	if err := writeFile(vfs.Default, o.Path+"/"+layoutFile, "mailrace spool 9\n"); err != nil {
		t.Fatal(err)
	}
	refused("layout of another version", o, "mailrace spool 9")
}

func TestEnqueueAfterClose(t *testing.T) {
	s := mustOpen(t, testOptions(t, vfs.NewMem()))
	m := newMessage(s.Shard(0), 10, 1)
	wait := begin(s, &Op{Remove: Removal{ID: s.Shard(0).NewID(), Chunks: 1}}) // lazy: Close must not leave it behind
	mustClose(t, s)
	if op := <-wait; op.Err != nil {
		t.Errorf("queued before Close: %v", op.Err)
	}
	if op := <-begin(s, &Op{Append: m}); !errors.Is(op.Err, ErrClosed) {
		t.Errorf("queued after Close: %v", op.Err)
	}
}

// TestShortLivedMailIsWrittenOnce shows that mail which is removed soon goes to the WAL and nowhere else, and that WAL files are used again.
func TestShortLivedMailIsWrittenOnce(t *testing.T) {
	var reused atomic.Int32
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpReuseForWrite {
			reused.Add(1)
		}
		return nil
	}))
	o := testOptions(t, fs)
	o.Shards, o.MemTableBytes = 1, 4<<20
	s := mustOpen(t, o)
	sh := s.Shard(0)
	var last [10]*message.Message
	for range 600 {
		var waits []chan *Op
		for i, old := range last {
			if old != nil {
				begin(s, &Op{Remove: Removal{ID: old.ID, Chunks: old.Chunks}})
			}
			last[i] = newMessage(sh, 10<<10, 1)
			waits = append(waits, begin(s, &Op{Append: last[i]}))
		}
		for i, w := range waits {
			<-w
			last[i].Release()
		}
	}
	if err := sh.db.Flush(); err != nil {
		t.Fatal(err)
	}
	m := sh.db.Metrics()
	if flushed := flushedBytes(m); m.Flush.Count < 5 || flushed > 0.1*float64(m.WAL.BytesIn) {
		t.Errorf("%.0f bytes flushed in %d flushes, of %d accepted", flushed, m.Flush.Count, m.WAL.BytesIn)
	}
	if amplification := sh.writeAmplification(); amplification > 1.2 {
		t.Errorf("write amplification %.2f", amplification)
	}
	if reused.Load() == 0 {
		t.Error("no WAL file was used again")
	}
	mustClose(t, s)
}

func TestMetrics(t *testing.T) {
	s := mustOpen(t, testOptions(t, vfs.NewMem()))
	do(t, s, &Op{Append: newMessage(s.Shard(1), 10, 1)})
	var b bytes.Buffer
	metrics.WritePrometheus(&b, false)
	for _, want := range []string{`mailrace_spool_messages_stored_total{shard="1"} 1`, `mailrace_spool_syncs_total{shard="1"} 1`,
		`mailrace_spool_sync_seconds_count{shard="1"} 1`, `mailrace_spool_queue_seconds_count{shard="1"} 1`,
		`mailrace_spool_write_amplification{shard="0"}`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	mustClose(t, s)
	b.Reset()
	metrics.WritePrometheus(&b, false)
	if strings.Contains(b.String(), "mailrace_spool_") {
		t.Error("a closed spool still shows metrics")
	}
}
