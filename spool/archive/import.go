package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mailrace/proto/message"
	"mailrace/spool"
)

// Imported is what Import did.
type Imported struct {
	Messages int64         `json:"messages"` // put into the spool
	Octets   int64         `json:"octets"`
	Present  int64         `json:"present"` // were in the spool already, by an earlier run
	Settled  int64         `json:"settled"` // not put in: nothing is left to do for them
	Renamed  []Renaming    `json:"renamed"` // of them: have another id, since theirs was taken
	Failed   []Failure     `json:"failed"`
	Took     time.Duration `json:"took_ns"`
}

// Renaming tells which id a message got.
type Renaming struct {
	Name string `json:"name"` // of the file, without its ending
	Old  string `json:"old"`
	New  string `json:"new"`
}

const (
	// renamedFile is a journal in the directory: which ids Import gave anew, noted before it uses them, so that a second run does not put the
	// same message in twice.
	renamedFile = "renamed.jsonl"

	// maxEnvelopeFile bounds a side file, and maxContentFile what it describes, in bytes.
	maxEnvelopeFile = 64 << 20
	maxContentFile  = 1 << 30

	// clockSlack is how far in the future an id may have been minted that is kept: later ids must be above it.
	clockSlack = time.Hour

	// flyingMax and flyingOctets bound what waits for the spool.
	flyingMax    = 256
	flyingOctets = 32 << 20
)

// Import puts the messages in a directory that Export wrote into the spool at o.Path, which is made if it is not there and which no process
// may have open. They keep their ids where these are free, and the states of their recipients. A message that is in the spool already, octet for
// octet under the same id, is left alone, so another run goes on where one ended.
func Import(ctx context.Context, o spool.Options, from string, tell func(spool.Progress)) (done Imported, err error) {
	began := time.Now()
	names, err := envelopeNames(from)
	if err != nil {
		return done, err
	}
	completed := make(chan *spool.Op, flyingMax+1)
	o.Post = func(_ int, ops []*spool.Op) {
		for _, op := range ops {
			completed <- op
		}
	}
	o.Shards, o.Sync = 0, true
	s, err := spool.Open(o)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	m := &importer{
		spool: s, dir: from, completed: completed, budget: message.NewBudget(math.MaxInt64), flying: map[message.ID]bool{}, shard: -1,
		done: Imported{Renamed: []Renaming{}, Failed: []Failure{}},
	}
	defer func() { err = errors.Join(err, m.settle(0), m.closeJournal()) }()
	// What a crash left of messages that are not there must not meet their ids.
	if err := s.Recover(func(*message.Message, bool) error { return ctx.Err() }); err != nil {
		return m.done, err
	}
	if err := m.readJournal(); err != nil {
		return m.done, err
	}
	meter := spool.NewMeter(ctx, tell, "importing", "messages", int64(len(names)))
	for _, name := range names {
		if ctx.Err() != nil {
			return m.done, ctx.Err()
		}
		if s.Full() { // it would wait for room
			return m.done, fmt.Errorf("spool %s: the disk is nearly full: make room and run it again", o.Path)
		}
		if err := errors.Join(m.put(name), meter.Add(1)); err != nil {
			return m.done, err
		}
	}
	err = m.settle(0)
	meter.End()
	m.done.Took = time.Since(began)
	return m.done, err
}

// envelopeNames are the messages in a directory, in the order of their names.
func envelopeNames(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), envelopeSuffix); ok && !e.IsDir() {
			names = append(names, name)
		}
	}
	return names, nil
}

// importer is one run.
type importer struct {
	spool     *spool.Spool
	dir       string
	budget    *message.Budget
	completed chan *spool.Op
	flying    map[message.ID]bool // on their way into the spool
	octets    int64               // of them
	shard     int                 // that minted the last new id
	renamed   map[string]message.ID
	journal   *os.File
	done      Imported
}

// put puts one message in. Its error is of the spool or the directory; a file that is no message is noted.
func (x *importer) put(name string) error {
	m, content, trace, err := x.read(name)
	if err != nil {
		return x.failed(name, err)
	}
	if !slices.ContainsFunc(m.Recipients, func(r message.Recipient) bool { return !r.State.Settled() }) {
		x.done.Settled++
		return nil
	}
	old := m.ID
	if given, ok := x.renamed[name]; ok {
		m.ID = given
	}
	there, free, err := x.lookUp(m.ID, trace, content)
	if err != nil {
		return err
	}
	if there {
		x.done.Present++
		return nil
	}
	if !free || time.Until(m.ID.Time()) > clockSlack {
		if m.ID, err = x.newID(); err != nil {
			return err
		}
	}
	if m.ID != old {
		r := Renaming{Name: name, Old: old.String(), New: m.ID.String()}
		if err := x.note(r); err != nil {
			return err
		}
		x.done.Renamed = append(x.done.Renamed, r)
	}
	return x.enqueue(m, trace, content)
}

// read reads the two files of a message.
func (x *importer) read(name string) (m *message.Message, content, trace []byte, err error) {
	side, err := readBounded(filepath.Join(x.dir, name+envelopeSuffix), maxEnvelopeFile)
	if err != nil {
		return nil, nil, nil, err
	}
	e, m, err := parse(side)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%s%s: %w", name, envelopeSuffix, err)
	}
	all, err := readBounded(filepath.Join(x.dir, name+contentSuffix), maxContentFile)
	if err != nil {
		return nil, nil, nil, err
	}
	if int64(len(all)) != int64(e.Trace)+e.Size {
		return nil, nil, nil, fmt.Errorf("%s%s has %d octets, %s%s says %d: trace_octets and size must be right", name, contentSuffix, len(all),
			name, envelopeSuffix, int64(e.Trace)+e.Size)
	}
	trace, content = all[:e.Trace], all[e.Trace:]
	if len(trace) > 0 && !bytes.HasSuffix(trace, []byte("\r\n")) {
		return nil, nil, nil, fmt.Errorf("%s%s: the first %d octets are not whole header lines", name, contentSuffix, len(trace))
	}
	if err := checkContent(m, content); err != nil {
		return nil, nil, nil, fmt.Errorf("%s%s: %w", name, contentSuffix, err)
	}
	return m, content, trace, nil
}

// checkContent refuses content that no client could have handed in, and sets the flags that follow from it: somebody may have edited it.
func checkContent(m *message.Message, content []byte) error {
	m.Flags &^= message.LeadingDots
	if len(content) > 0 && content[0] == '.' || bytes.Contains(content, []byte("\n.")) {
		m.Flags |= message.LeadingDots
	}
	if slices.ContainsFunc(content, func(c byte) bool { return c >= 0x80 }) {
		m.Flags |= message.Body8Bit
	}
	if m.Flags&message.Binary != 0 {
		return nil
	}
	// RFC 5321 §2.3.8
	for i, c := range content {
		switch {
		case c == 0:
			return fmt.Errorf("NUL at octet %d", i)
		case c == '\n' && (i == 0 || content[i-1] != '\r'):
			return fmt.Errorf("line feed without carriage return at octet %d: lines end in CRLF", i)
		case c == '\r' && (i+1 == len(content) || content[i+1] != '\n'):
			return fmt.Errorf("carriage return without line feed at octet %d: lines end in CRLF", i)
		}
	}
	return nil
}

// readBounded reads a file of at most so many bytes.
func readBounded(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s has more than %d bytes", name, most)
	}
	return b, errors.Join(err, f.Close())
}

// lookUp says whether the spool has this very message, and whether its id is free.
func (x *importer) lookUp(id message.ID, trace, content []byte) (there, free bool, err error) {
	if x.flying[id] {
		if err := x.settle(0); err != nil {
			return false, false, err
		}
	}
	stored, err := x.spool.Load(id, 0, 1, x.budget)
	if errors.Is(err, spool.ErrNoMessage) {
		chunks, err := x.spool.Load(id, 1, 1, x.budget)
		message.FreeAll(chunks)
		return false, errors.Is(err, spool.ErrNoMessage), nil // chunks without an envelope belong to one that was kept aside
	}
	if err != nil {
		return false, false, nil // whatever stands there is another's
	}
	defer message.FreeAll(stored)
	if !bytes.Equal(stored[0].B, trace) {
		return false, false, nil
	}
	for i := 1; len(content) > 0; i++ {
		n := min(len(content), message.ChunkSize)
		chunks, err := x.spool.Load(id, i, 1, x.budget)
		if err != nil {
			return false, false, nil
		}
		same := bytes.Equal(chunks[0].B, content[:n])
		message.FreeAll(chunks)
		if !same {
			return false, false, nil
		}
		content = content[n:]
	}
	return true, false, nil
}

// newID mints an id that is free.
func (x *importer) newID() (message.ID, error) {
	for {
		x.shard = (x.shard + 1) % x.spool.Shards()
		id := x.spool.Shard(x.shard).NewID()
		_, free, err := x.lookUp(id, nil, nil)
		if free || err != nil {
			return id, err
		}
	}
}

// enqueue hands a message to the spool, with the states of its recipients, and waits for earlier ones when there are many.
func (x *importer) enqueue(m *message.Message, trace, content []byte) error {
	m.Trace = bytes.Clone(trace)
	m.Body = x.budget.AppendContent(nil, content, int64(len(content)))
	m.Chunks = len(m.Body)
	m.Hold(1)
	op := spool.NewOp()
	op.Append, op.Done = m, m
	park(op, m)
	x.flying[m.ID] = true
	x.octets += m.Size
	x.spool.ShardOf(m.ID).Enqueue(op)
	if len(x.flying) < flyingMax && x.octets < flyingOctets {
		return nil
	}
	return x.settle(flyingMax / 2)
}

// park notes the states of the recipients of m in op, and puts m into the index of what is due, so that a node brings it when its time has come
// and not before: at once if a recipient was never tried, otherwise at the first next attempt, or at a deadline before that is to be reported.
func park(op *spool.Op, m *message.Message) {
	op.Park.ID = m.ID
	for i := range m.Recipients {
		r := &m.Recipients[i]
		if !r.State.Settled() {
			at := r.Due
			if r.State == message.Pending {
				at = m.Arrived
			}
			if w := m.Wishes; w != nil && w.ByMode == message.ByNotify && w.Deadline > m.Arrived && !r.Late {
				at = min(at, w.Deadline)
			}
			if at = max(at, 1); op.Park.At == 0 || at < op.Park.At {
				op.Park.At = at
			}
		}
		op.Updates = append(op.Updates, spool.Update{
			ID: m.ID, Index: i, State: r.State, Attempts: r.Attempts, Due: r.Due, Reply: r.Reply, Late: r.Late, Noticed: r.Noticed, Doubt: r.Doubt,
			Parked: true,
		})
	}
}

// settle waits until at most so many messages are on their way, and none when they are large.
func (x *importer) settle(most int) error {
	for len(x.flying) > 0 && (len(x.flying) > most || x.octets > flyingOctets/2) {
		op := <-x.completed
		m := op.Done.(*message.Message)
		err := op.Err
		op.Free()
		delete(x.flying, m.ID)
		x.octets -= m.Size
		m.Release()
		if err != nil {
			return fmt.Errorf("message %v: %w", m.ID, err)
		}
		x.done.Messages++
		x.done.Octets += m.Size
	}
	return nil
}

func (x *importer) failed(name string, cause error) error {
	if len(x.done.Failed) >= maxFailures {
		return fmt.Errorf("more than %d files are no messages; the last: %w", maxFailures, cause)
	}
	x.done.Failed = append(x.done.Failed, Failure{name, cause.Error()})
	return nil
}

// readJournal reads which ids an earlier run gave.
func (x *importer) readJournal() error {
	x.renamed = map[string]message.ID{}
	text, err := os.ReadFile(filepath.Join(x.dir, renamedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for line := range bytes.Lines(text) {
		var r Renaming
		if json.Unmarshal(line, &r) != nil {
			continue // cut short by a crash: that id was not used
		}
		if id, err := message.ParseID(r.New); err == nil {
			x.renamed[r.Name] = id
		}
	}
	return nil
}

// note writes to the journal, durably.
func (x *importer) note(r Renaming) (err error) {
	if x.journal == nil {
		if x.journal, err = os.OpenFile(filepath.Join(x.dir, renamedFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
			return err
		}
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := x.journal.Write(append([]byte("\n"), append(line, '\n')...)); err != nil {
		return err
	}
	return x.journal.Sync()
}

func (x *importer) closeJournal() error {
	if x.journal == nil {
		return nil
	}
	return x.journal.Close()
}
