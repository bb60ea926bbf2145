package spool

import (
	"errors"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"mailrace/proto/message"
)

// barred is a file system on which the options that a store had last cannot be read until the bar is lifted, so that no store opens. What is sent is
// what reading them ends with.
func barred(fs vfs.FS) (_ vfs.FS, lift chan error) {
	lift = make(chan error)
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpOpen && strings.HasPrefix(path.Base(op.Path), "OPTIONS-") {
			return <-lift
		}
		return nil
	})), lift
}

// TestBegin takes mail before the stores are open: it is answered for when they are, and what was there before is untouched.
func TestBegin(t *testing.T) {
	disk := vfs.NewMem()
	o := testOptions(t, disk)
	s := mustOpen(t, o)
	var before []message.ID
	for i := range 20 {
		m := newMessage(s.Shard(i%2), 3000, 1)
		do(t, s, &Op{Append: m})
		before = append(before, m.ID)
	}
	mustClose(t, s)

	var lift chan error
	o.FS, lift = barred(disk)
	s, err := Begin(o)
	if err != nil {
		t.Fatal(err)
	}
	loaded := make(chan error, 1)
	go func() {
		cs, err := s.Load(before[0], 1, 1, testBudget)
		message.FreeAll(cs)
		loaded <- err
	}()
	var mail []*message.Message
	var answers []chan *Op
	for i := range 20 {
		m := newMessage(s.Shard(i%2), 3000, 1)
		mail, answers = append(mail, m), append(answers, begin(s, &Op{Append: m}))
	}
	if _, err := Begin(o); err == nil || !strings.Contains(err.Error(), "has it open") {
		t.Errorf("another one: %v", err)
	}
	lift <- nil
	for i, answer := range answers { // one store is open, and nothing is answered for: the other may be beyond repair
		select {
		case <-answer:
			t.Errorf("message %d was answered for before the stores were open", i)
		case <-loaded:
			t.Error("a message was read before the stores were open")
		default:
		}
	}
	lift <- nil
	if err := s.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, answer := range answers {
		if op := <-answer; op.Err != nil {
			t.Error(op.Err)
		}
	}
	if err := <-loaded; err != nil {
		t.Error(err)
	}
	found := recovered(t, s) // what was there at Open
	for _, id := range before {
		if found[id] == nil {
			t.Errorf("%v is lost", id)
		}
		for _, m := range mail {
			if m.ID == id {
				t.Errorf("%v came twice", id)
			}
		}
	}
	mustClose(t, s)
	o.FS = disk
	s = mustOpen(t, o)
	if found := recovered(t, s); len(found) != 40 {
		t.Errorf("%d messages, want 40", len(found))
	}
	mustClose(t, s)
}

// TestBeginClockBack mints ids by a clock that went back, while nobody knows yet which were used: messages with such ids are refused, and those that
// have them already stay as they are.
func TestBeginClockBack(t *testing.T) {
	disk := vfs.NewMem()
	o := testOptions(t, disk)
	o.Shards = 1
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	o.Now = func() time.Time { return now }
	s := mustOpen(t, o)
	sh := s.Shard(0)
	kept := newMessage(sh, 100_000, 1)
	kept.ID += markAhead // as a node mints it that has just begun
	do(t, s, &Op{Append: kept})
	now = now.Add(time.Hour)
	do(t, s, &Op{Append: newMessage(sh, 100, 1)})
	mustClose(t, s)

	now = now.Add(-time.Hour)
	var lift chan error
	o.FS, lift = barred(disk)
	s, err := Begin(o)
	if err != nil {
		t.Fatal(err)
	}
	sh = s.Shard(0)
	late := newMessage(sh, 100, 1)
	if late.ID != kept.ID {
		t.Fatalf("minted %v, want %v again", late.ID, kept.ID)
	}
	size := int(testBudget.Used())
	answers := []chan *Op{
		begin(s, &Op{Chunk: Chunk{ID: late.ID, Index: 1, Data: testBudget.NewChunk(10)}}),
		begin(s, &Op{Append: late}),
		begin(s, &Op{Abort: Removal{ID: late.ID, Chunks: 1}}),
	}
	lift <- nil
	for i, answer := range answers {
		if op := <-answer; !errors.Is(op.Err, ErrUsedID) {
			t.Errorf("operation %d ended with %v", i, op.Err)
		}
	}
	if n := int(testBudget.Used()); n != size {
		t.Errorf("%d octets of a chunk were not freed", n-size)
	}
	do(t, s, &Op{Append: newMessage(sh, 100, 1)}) // by an id of now
	if got := load(t, s, kept.ID, 1, kept.Chunks); string(got) != string(contentOf(kept.ID-markAhead, 100_000)) {
		t.Error("a message has the content of another")
	}
	mustClose(t, s)
}

// TestBeginFails completes what waits for stores of which one cannot be opened.
func TestBeginFails(t *testing.T) {
	disk := vfs.NewMem()
	o := testOptions(t, disk)
	mustClose(t, mustOpen(t, o))
	var lift chan error
	o.FS, lift = barred(disk)
	s, err := Begin(o)
	if err != nil {
		t.Fatal(err)
	}
	var answers []chan *Op
	for i := range 4 {
		answers = append(answers, begin(s, &Op{Append: newMessage(s.Shard(i%2), 100, 1)}))
	}
	lift <- nil
	lift <- errors.New("the disk is on fire")
	for _, answer := range answers {
		if op := <-answer; op.Err == nil || !strings.Contains(op.Err.Error(), "the disk is on fire") {
			t.Errorf("a message ended with %v", op.Err)
		}
	}
	if err := s.Wait(); err == nil || !strings.Contains(err.Error(), "of 2: ") || !strings.Contains(err.Error(), "the disk is on fire") {
		t.Errorf("opened with %v", err)
	}
	if err := s.Recover(nil); err == nil {
		t.Error("there is something to recover")
	}
	if op := <-begin(s, &Op{Append: newMessage(s.Shard(0), 100, 1)}); !errors.Is(op.Err, ErrClosed) {
		t.Errorf("a late message ended with %v", op.Err)
	}
	mustClose(t, s)
	o.FS = disk
	s = mustOpen(t, o)
	if found := recovered(t, s); len(found) != 0 {
		t.Errorf("%d messages", len(found))
	}
	mustClose(t, s)
}

// TestCloseWhileOpening commits what was enqueued before the stores were open.
func TestCloseWhileOpening(t *testing.T) {
	disk := vfs.NewMem()
	o := testOptions(t, disk)
	mustClose(t, mustOpen(t, o))
	var lift chan error
	o.FS, lift = barred(disk)
	s, err := Begin(o)
	if err != nil {
		t.Fatal(err)
	}
	answer := begin(s, &Op{Append: newMessage(s.Shard(0), 100, 1)})
	ended := make(chan error, 1)
	go func() { ended <- s.Close() }()
	lift <- nil
	lift <- nil
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if op := <-answer; op.Err != nil {
		t.Error(op.Err)
	}
	o.FS = disk
	s = mustOpen(t, o)
	if found := recovered(t, s); len(found) != 1 {
		t.Errorf("%d messages", len(found))
	}
	mustClose(t, s)
}
