package engine

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailrace/proto/message"
	"mailrace/spool"
)

// queueLength is how many messages the queue of TestLongQueue has; `make queue` has a million.
var queueLength = flag.Int("queue", 50_000, "messages in the queue of TestLongQueue")

// Of the messages of TestLongQueue, one in pendingShare was never tried, and dueNow are due at the start.
const (
	pendingShare = 20
	dueNow       = 100
)

// TestLongQueue starts a node on a spool that is full of mail: it listens and delivers what is due at once, counts the rest behind the back of its
// loops, and holds next to nothing of what is deferred in memory. Times are printed, bytes and counts are asserted. It runs in a process of its
// own: what other tests have left in memory does not count.
func TestLongQueue(t *testing.T) {
	n := *queueLength
	const alone = "MAILRACE_TEST_ALONE"
	if os.Getenv(alone) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run", "^TestLongQueue$", "-test.timeout", "30m", "-queue", strconv.Itoa(n))
		cmd.Env = append(os.Environ(), alone+"=1")
		out, err := cmd.CombinedOutput()
		if t.Logf("%s", out); err != nil {
			t.Error(err)
		}
		return
	}
	f := listen(t, polite)
	silent := listen(t, func(p *peer) { <-t.Context().Done() })
	c := settings(t, silent.route("silent.example"), f.route("*"))
	began := time.Now()
	fillSpool(t, c.Spool.Path, n)
	t.Logf("%d messages of 2 KiB are in the spool after %v, %d MiB on the disk", n, time.Since(began).Round(time.Millisecond), diskUsage(t, c.Spool.Path)>>20)
	pending := n / pendingShare

	heap := heapInUse()
	began = time.Now()
	r := start(t, c)
	listening := time.Since(began)
	<-r.stored
	opened := time.Since(began)
	f.next()
	first := time.Since(began)
	for range dueNow - 1 {
		f.next()
	}
	due := time.Since(began)
	r.awaitLong("the spool to be looked through", func() bool { return !r.pager.walking.Load() })
	known := time.Since(began)
	rss := residentBytes(t)
	r.await("all to be counted", func() bool { return r.Status().Queue == int64(n-dueNow) })
	held := heapInUse() - heap
	t.Logf("listening after %v, the spool open after %v, first delivery after %v, all %d that were due after %v, the whole schedule known after %v; RSS %d MiB, heap %+d KiB",
		listening, opened, first, dueNow, due, known, rss>>20, held>>10)
	if got := r.stats.recovered.Get(); got != uint64(n) {
		t.Errorf("%d messages were found, want %d", got, n)
	}
	if s := r.Status(); s.Totals.Deferred != int64(n-dueNow-pending) {
		t.Errorf("%+v", s)
	}
	if raceDetector { // which takes memory of its own for everything
		return
	}
	if rss > 400<<20 {
		t.Errorf("RSS is %d MiB", rss>>20)
	}
	// What is under way costs about 1 KiB each, and a node by itself something as well.
	if per := float64(held-int64(pending)*1500-(16<<20)) / float64(n-pending); per > 120 {
		t.Errorf("a deferred recipient costs %.0f bytes", per)
	}
}

// fillSpool makes a spool of n messages: some that were never tried, some that are due, and all others deferred for up to four hours. Its
// memtables are full when it is closed, or hold all of it, as when a process is killed: the next node replays their WALs.
func fillSpool(t *testing.T, path string, n int) {
	t.Helper()
	const window = 2000
	done := make(chan int, 64)
	s, err := spool.Open(spool.Options{Path: path, Shards: 2, Post: func(_ int, ops []*spool.Op) {
		for _, op := range ops {
			op.Append.Release()
			op.Free()
		}
		done <- len(ops)
	}})
	if err != nil {
		t.Fatal(err)
	}
	budget := message.NewBudget(1 << 30)
	content := []byte(strings.Repeat("Nothing in here is of any interest, but it takes room.\r\n", 36) + "\r\n")
	now, flying := time.Now(), 0
	for i := range n {
		sh := s.Shard(i % 2)
		m := &message.Message{
			ID: sh.NewID(), Arrived: now.Add(-time.Hour).UnixNano(), From: fmt.Sprintf("bounce+%d@sender.example", i), Size: int64(len(content)), Client: "192.0.2.1",
			Helo: "client.example", Recipients: []message.Recipient{{Address: fmt.Sprintf("user%d@silent.example", i)}},
		}
		op := spool.NewOp()
		if i%pendingShare != 0 {
			due := now.Add(10*time.Minute + time.Duration(i)*(4*time.Hour/time.Duration(n))).UnixNano()
			if i%pendingShare == 1 && i/pendingShare < dueNow {
				m.Recipients[0].Address, due = "user@far.example", now.UnixNano()
			}
			op.Updates = append(op.Updates, spool.Update{ID: m.ID, State: message.Deferred, Attempts: 3, Due: due, Reply: "451 4.7.1 try again later", Parked: true})
			op.Park = spool.Due{At: due, ID: m.ID}
		}
		m.Trace = fmt.Appendf(nil, "Received: from client.example by mta.test.example with ESMTP id %v\r\n", m.ID)
		m.Body = budget.AppendContent(nil, content, int64(len(content)))
		m.Chunks = len(m.Body)
		m.Hold(1)
		op.Append = m
		sh.Enqueue(op)
		for flying++; flying >= window; {
			flying -= <-done
		}
	}
	for flying > 0 {
		flying -= <-done
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// awaitLong is await for what takes its time with very much mail.
func (r *rig) awaitLong(what string, holds func() bool) {
	r.t.Helper()
	limit, look := time.After(10*patience), time.NewTicker(2*time.Millisecond)
	defer look.Stop()
	for !holds() {
		select {
		case <-look.C:
		case <-limit:
			r.t.Fatalf("waited in vain for %s", what)
		}
	}
}

func heapInUse() int64 {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// residentBytes is the memory that the process has of the machine.
func residentBytes(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

func diskUsage(t *testing.T, path string) (n int64) {
	t.Helper()
	if err := filepath.Walk(path, func(_ string, info os.FileInfo, err error) error {
		if err == nil {
			n += info.Size()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return n
}
