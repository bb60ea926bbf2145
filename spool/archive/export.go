package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"mailrace/proto/message"
	"mailrace/spool"
)

// The endings of the two files of a message.
const (
	contentSuffix  = ".eml"
	envelopeSuffix = ".json"
)

// Exported is what Export did.
type Exported struct {
	Messages int64         `json:"messages"` // in the directory now
	Kept     int64         `json:"kept"`     // of them: were there already, unchanged
	Octets   int64         `json:"octets"`
	Failed   []Failure     `json:"failed"`
	Took     time.Duration `json:"took_ns"`
}

// Failure is a message that could not be carried.
type Failure struct {
	Name   string `json:"name"` // id, or file
	Reason string `json:"reason"`
}

// maxFailures bounds a report.
const maxFailures = 10_000

// Export writes the messages that f picks from the spool at o.Path to the directory to, which is made. The spool is only read; no process may have
// it open. The envelope of a message is written after its content, and both whole or not at all, so that what was there when ctx ended, or the
// process, is good, and another run goes on from it.
func Export(ctx context.Context, o spool.Options, to string, f Filter, tell func(spool.Progress)) (done Exported, err error) {
	began := time.Now()
	o.ReadOnly, o.Shards = true, 0
	s, err := spool.Open(o)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := os.MkdirAll(to, 0o700); err != nil {
		return done, err
	}
	total, err := count(ctx, s, &f, tell)
	if err != nil {
		return done, err
	}
	x := &exporter{spool: s, dir: to, budget: message.NewBudget(1 << 30), done: Exported{Failed: []Failure{}}}
	meter := spool.NewMeter(ctx, tell, "exporting", "messages", total)
	picked := 0
	if scanErr := s.Scan(func(m *message.Message) bool {
		if !f.picks(m) {
			return true
		}
		if f.Limit > 0 && picked == f.Limit {
			return false
		}
		picked++
		if err = x.write(m); err != nil {
			return false
		}
		err = meter.Add(1)
		return err == nil
	}); err == nil {
		err = scanErr
	}
	meter.End()
	x.done.Took = time.Since(began)
	return x.done, errors.Join(err, syncAll(to))
}

// count says how many messages f picks.
func count(ctx context.Context, s *spool.Spool, f *Filter, tell func(spool.Progress)) (n int64, err error) {
	meter := spool.NewMeter(ctx, tell, "counting", "messages", 0)
	defer meter.End()
	scanErr := s.Scan(func(m *message.Message) bool {
		if f.picks(m) {
			n++
		}
		err = meter.Add(1)
		return err == nil && (f.Limit == 0 || n < int64(f.Limit))
	})
	if err == nil {
		err = scanErr
	}
	return n, err
}

type exporter struct {
	spool  *spool.Spool
	dir    string
	budget *message.Budget
	done   Exported
}

// write writes a message. Its error is of the directory; what cannot be read is noted.
func (x *exporter) write(m *message.Message) error {
	chunks, err := x.spool.Load(m.ID, 0, 1, x.budget)
	if err != nil {
		return x.failed(m.ID, err)
	}
	trace := chunks[0]
	defer trace.Free()
	side, err := json.MarshalIndent(describe(m, len(trace.B)), "", "  ")
	if err != nil {
		return x.failed(m.ID, err)
	}
	side = append(side, '\n')
	name := filepath.Join(x.dir, m.ID.String())
	if x.there(name, side, int64(len(trace.B))+m.Size) {
		x.done.Kept++
	} else {
		if err := os.Remove(name + envelopeSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err // an old envelope does not describe the new content
		}
		var broken error
		if err := replace(name+contentSuffix, func(w io.Writer) error {
			broken, err = x.content(w, m, trace.B)
			return errors.Join(err, broken)
		}); broken != nil {
			return x.failed(m.ID, broken)
		} else if err != nil {
			return err
		}
		if err := replace(name+envelopeSuffix, func(w io.Writer) error {
			_, err := w.Write(side)
			return err
		}); err != nil {
			return err
		}
	}
	x.done.Messages++
	x.done.Octets += m.Size
	return nil
}

// there says whether an earlier run wrote the same.
func (x *exporter) there(name string, side []byte, octets int64) bool {
	old, err := os.ReadFile(name + envelopeSuffix)
	if err != nil || !bytes.Equal(old, side) {
		return false
	}
	info, err := os.Stat(name + contentSuffix)
	return err == nil && info.Size() == octets
}

// content writes the trace header and the content. broken is why that could not be read.
func (x *exporter) content(w io.Writer, m *message.Message, trace []byte) (broken, err error) {
	if _, err := w.Write(trace); err != nil {
		return nil, err
	}
	size := int64(0)
	for i := range m.Chunks {
		chunks, err := x.spool.Load(m.ID, i+1, 1, x.budget)
		if err != nil {
			return err, nil
		}
		size += int64(len(chunks[0].B))
		_, err = w.Write(chunks[0].B)
		message.FreeAll(chunks)
		if err != nil {
			return nil, err
		}
	}
	if size != m.Size {
		return fmt.Errorf("the content has %d octets, and the envelope says %d", size, m.Size), nil
	}
	return nil, nil
}

func (x *exporter) failed(id message.ID, cause error) error {
	if len(x.done.Failed) >= maxFailures {
		return fmt.Errorf("more than %d messages cannot be read; the last: %w", maxFailures, cause)
	}
	x.done.Failed = append(x.done.Failed, Failure{id.String(), cause.Error()})
	return nil
}

// replace writes a file, whole or not at all.
func replace(name string, write func(io.Writer) error) error {
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(name+".new"))
	}
	return os.Rename(name+".new", name)
}
