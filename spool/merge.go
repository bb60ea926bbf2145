package spool

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Tally counts records and their bytes, keys and values.
type Tally struct {
	Records int64 `json:"records"`
	Bytes   int64 `json:"bytes"`
}

// tallies are those of each kind, as in kinds.
type tallies [len(kinds)]Tally

func (t *tallies) add(kind, bytes int) {
	t[kind].Records++
	t[kind].Bytes += int64(bytes)
}

func (t *tallies) total() (sum Tally) {
	for i := range t {
		sum.Records += t[i].Records
		sum.Bytes += t[i].Bytes
	}
	return sum
}

// of is the number of records of a kind.
func (t *tallies) of(prefix byte) int64 { return t[kindOf([]byte{prefix})].Records }

// byName is what reports print.
func (t *tallies) byName() map[string]Tally {
	named := map[string]Tally{}
	for i := range t {
		named[kinds[i].name] = t[i]
	}
	return named
}

// merged walks over the records of all shards of a spool in the order of their keys.
type merged struct {
	all     []stream
	streams []stream // a heap
}

// stream is the walk over one shard.
type stream struct {
	it    *pebble.Iterator
	shard int
}

// merge begins a walk over what s holds, from a key on. The caller closes it.
func merge(s *Spool, from []byte) (*merged, error) {
	m := new(merged)
	for i, sh := range s.shards {
		it, err := sh.db.NewIter(&pebble.IterOptions{LowerBound: from})
		if err != nil {
			return nil, errors.Join(err, m.close())
		}
		m.all = append(m.all, stream{it, i})
		if it.First() {
			m.streams = append(m.streams, stream{it, i})
		} else if err := it.Error(); err != nil {
			return nil, errors.Join(fmt.Errorf("shard %d: %w", i, err), m.close())
		}
	}
	heap.Init(m)
	return m, nil
}

func (m *merged) Len() int { return len(m.streams) }

func (m *merged) Less(i, j int) bool {
	c := bytes.Compare(m.streams[i].it.Key(), m.streams[j].it.Key())
	return c < 0 || c == 0 && m.streams[i].shard < m.streams[j].shard
}

func (m *merged) Swap(i, j int) { m.streams[i], m.streams[j] = m.streams[j], m.streams[i] }

func (m *merged) Push(any) { panic("BUG: streams only end") }

func (m *merged) Pop() any {
	last := m.streams[len(m.streams)-1]
	m.streams = m.streams[:len(m.streams)-1]
	return last
}

// valid says whether the walk stands on a record.
func (m *merged) valid() bool { return len(m.streams) > 0 }

// top is the iterator on the record, and its shard.
func (m *merged) top() (it *pebble.Iterator, shard int) { return m.streams[0].it, m.streams[0].shard }

// next goes on. What a key or value was before is lost.
func (m *merged) next() error {
	top := m.streams[0]
	if top.it.Next() {
		heap.Fix(m, 0)
		return nil
	}
	if err := top.it.Error(); err != nil {
		return fmt.Errorf("shard %d: %w", top.shard, err)
	}
	heap.Pop(m)
	return nil
}

func (m *merged) close() error {
	var errs []error
	for _, s := range m.all {
		errs = append(errs, s.it.Close())
	}
	return errors.Join(errs...)
}

// survey counts what a spool holds, without reading the content. unknown is told of records of kinds that are not in kinds, and may end it.
func survey(ctx context.Context, s *Spool, tell func(Progress), unknown func(sh *Shard, key []byte) error) (t tallies, err error) {
	meter := NewMeter(ctx, tell, "counting", "records", 0)
	defer meter.End()
	for _, sh := range s.shards {
		if err := sh.survey(&t, meter, unknown); err != nil {
			return t, fmt.Errorf("shard %d: %w", sh.index, err)
		}
	}
	return t, nil
}

func (sh *Shard) survey(t *tallies, meter *Meter, unknown func(sh *Shard, key []byte) error) (err error) {
	it, err := sh.db.NewIter(nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.First(); it.Valid(); it.Next() {
		if k := kindOf(it.Key()); k >= 0 {
			value := it.LazyValue()
			t.add(k, len(it.Key())+value.Len())
		} else if err := unknown(sh, it.Key()); err != nil {
			return err
		}
		if err := meter.Add(1); err != nil {
			return err
		}
	}
	return it.Error()
}

// refuseUnknown ends a survey at a record of an unknown kind.
func refuseUnknown(_ *Shard, key []byte) error {
	return fmt.Errorf("record %x is of a kind that this program does not know: a later version made it", key)
}
