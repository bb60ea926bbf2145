package spool

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"mailrace/proto/message"
)

var (
	benchDir     = flag.String("spool.dir", "", "directory for benchmarks that write (default: the system's temporary one)")
	benchMem     = flag.Int("spool.memtable", 0, "memtable bytes of each shard in benchmarks (0 = default)")
	outstanding  = flag.Int("spool.outstanding", 200, "messages that wait for their sync at a time in benchmarks")
	removeBehind = flag.Int("spool.behind", 200, "messages that are accepted before one is removed in benchmarks")
)

// BenchmarkAccept measures what a durable message costs: two producers, as two event loops, keep messages outstanding, and remove each
// some milliseconds after it was committed. CPU is that of the whole process, with the producers' own share.
func BenchmarkAccept(b *testing.B) {
	for _, size := range []int{2 << 10, 10 << 10, 100 << 10} {
		for _, shards := range []int{1, 2} {
			b.Run(fmt.Sprintf("size=%dKiB/shards=%d", size>>10, shards), func(b *testing.B) { benchAccept(b, size, shards) })
		}
	}
}

func benchAccept(b *testing.B, size, shards int) {
	const producers = 2
	done := [producers]chan []*Op{}
	for i := range done {
		done[i] = make(chan []*Op, *outstanding)
	}
	dir, err := os.MkdirTemp(*benchDir, "spoolbench")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	s, err := Open(Options{Path: dir, Shards: shards, Sync: true, MemTableBytes: *benchMem,
		Post: func(origin int, ops []*Op) { done[origin] <- ops }})
	if err != nil {
		b.Fatal(err)
	}
	run := func(n int) {
		var left atomic.Int64
		left.Store(int64(n))
		var wg sync.WaitGroup
		for i := range producers {
			wg.Add(1)
			go func() { defer wg.Done(); produce(s, i, size, (*outstanding+i)/producers, &left, done[i]) }()
		}
		wg.Wait()
	}
	run(max(4*benchMemTable()/size, 100)) // memtables at their full size, WAL files to recycle
	before := usage()
	syncs, batches := counts(s)
	b.ReportAllocs()
	b.ResetTimer()
	start := time.Now()
	run(b.N)
	elapsed := time.Since(start)
	b.StopTimer()
	after := usage()
	syncs2, batches2 := counts(s)
	n := float64(b.N)
	b.ReportMetric(n/elapsed.Seconds(), "msgs/s")
	b.ReportMetric(float64(after.cpu-before.cpu)/1e3/n, "cpu-µs/msg")
	b.ReportMetric(n/float64(syncs2-syncs), "msgs/sync")
	b.ReportMetric(n/float64(batches2-batches), "msgs/batch")
	b.ReportMetric(float64(after.written-before.written)/n/float64(size), "written/byte")
	b.ReportMetric(0, "ns/op")
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

// produce is one event loop with a window of messages.
func produce(s *Spool, origin, size, window int, left *atomic.Int64, done chan []*Op) {
	sh := s.Shard(origin % s.Shards())
	budget := message.NewBudget(1 << 30)
	trace := bytes.Repeat([]byte("r"), 200)
	line := bytes.Repeat([]byte("0123456789abcdefghij"), 4)
	body := bytes.Repeat(append(line[:76], "\r\n"...), size/78+1)[:size]
	var behind []Removal
	full := size / message.ChunkSize
	begin := func(op *Op) bool {
		if left.Add(-1) < 0 {
			return false
		}
		m := op.Done.(*message.Message)
		m.ID, m.Stored = sh.NewID(), full
		for i := range full { // as a session does: chunks that are full go ahead
			ahead := NewOp()
			ahead.Chunk, ahead.Origin = Chunk{ID: m.ID, Index: i + 1, Data: budget.NewChunk(message.ChunkSize)}, -1
			ahead.Chunk.Data.B = append(ahead.Chunk.Data.B, body[i*message.ChunkSize:(i+1)*message.ChunkSize]...)
			sh.Enqueue(ahead)
		}
		op.Append, op.Origin = m, origin
		sh.Enqueue(op)
		return true
	}
	flying := 0
	for range window {
		m := &message.Message{From: "sender@example.com", Recipients: []message.Recipient{{Address: "recipient@example.net"}}, Size: int64(size),
			Chunks: (size + message.ChunkSize - 1) / message.ChunkSize, Trace: trace, Client: "192.0.2.1:12345", Helo: "client.example.com"}
		m.Body = append(make([]*message.Chunk, full), budget.AppendContent(nil, body[full*message.ChunkSize:], 0)...)
		op := NewOp()
		op.Done = m
		if begin(op) {
			flying++
		}
	}
	for flying > 0 {
		for _, op := range <-done {
			m := op.Done.(*message.Message)
			behind = append(behind, removalOf(m))
			if len(behind) >= *removeBehind/2 {
				remove(sh, behind[0])
				behind = behind[1:]
			}
			if !begin(op) {
				flying--
			}
		}
	}
	for _, r := range behind {
		remove(sh, r)
	}
}

func removalOf(m *message.Message) Removal { return Removal{ID: m.ID, Chunks: m.Chunks} }

func remove(sh *Shard, r Removal) {
	op := NewOp()
	op.Remove, op.Origin = r, -1
	sh.Enqueue(op)
}

type use struct {
	cpu     time.Duration
	written int64
}

func usage() (u use) {
	runtime.GC()
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	u.cpu = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	text, _ := os.ReadFile("/proc/self/io")
	for _, line := range bytes.Split(text, []byte("\n")) {
		_, _ = fmt.Sscanf(string(line), "write_bytes: %d", &u.written)
	}
	return u
}

func counts(s *Spool) (syncs, batches uint64) {
	for _, sh := range s.shards {
		syncs += sh.syncs.Get()
		batches += sh.batches.Get()
	}
	return syncs, batches
}

func benchMemTable() int {
	if *benchMem > 0 {
		return *benchMem
	}
	return defaultMemTableBytes
}

// BenchmarkCommit measures the committer by itself: batches of 64 messages of 10 KiB, each of which removes one of the batch before, to files that are
// not synced. The figures are for one message.
func BenchmarkCommit(b *testing.B) {
	const batch, size = 64, 10 << 10
	b.SetBytes(size)
	o := testOptions(b, vfs.Default)
	o.Path, o.Shards, o.Sync, o.MemTableBytes, o.Post = b.TempDir(), 1, false, 64<<20, func(int, []*Op) {}
	s := mustOpen(b, o)
	sh := s.Shard(0)
	sh.refuse() // the committer ends: what it does is done here
	<-sh.done
	var ops [batch]*Op
	for i := range ops {
		ops[i] = &Op{Append: newMessage(sh, size, 1)}
		defer ops[i].Append.Release()
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += batch {
		for i, op := range ops {
			if n > 0 {
				op.Remove = removalOf(op.Append)
			}
			op.Append.ID = sh.NewID()
			if op.next = nil; i > 0 {
				ops[i-1].next = op
			}
		}
		if rest := sh.commit(ops[0], false); rest != nil {
			b.Fatal("more than a batch")
		}
	}
	b.StopTimer()
	mustClose(b, s)
}

// BenchmarkRecover measures a start with mail in the spool, per message of 2 KiB.
func BenchmarkRecover(b *testing.B) {
	const messages = 20_000
	o := testOptions(b, vfs.NewMem())
	o.MemTableBytes = 8 << 20
	s := mustOpen(b, o)
	for range messages / 100 {
		var waits []chan *Op
		for i := range 100 {
			waits = append(waits, begin(s, &Op{Append: newMessage(s.Shard(i%2), 2<<10, 1)}))
		}
		for _, w := range waits {
			(<-w).Append.Release()
		}
	}
	mustClose(b, s)
	b.ReportAllocs()
	for b.Loop() {
		s := mustOpen(b, o)
		n := 0
		if err := s.Recover(func(*message.Message, bool) error { n++; return nil }); err != nil || n != messages {
			b.Fatal(n, err)
		}
		mustClose(b, s)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/messages, "ns/msg")
}
