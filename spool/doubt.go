package spool

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"mailrace/proto/message"
)

// Resolve finds out which deliveries may have happened that were in flight when the last process, or the machine, ended, and notes them: of each
// whose recipient is not settled, and whose attempt is not known to have ended, it notes that the attempt was made (Attempts), and what fn makes of
// the recipient: fn is to Cast a doubt on it. When all that is durable, it calls noted, and then forgets what was in flight. A crash in the middle
// does no harm: the next Resolve finds the rest, and what was noted once more at the most by fn.
//
// Call it once, before anything that Recover or Due finds is delivered. Mail that came in since Open may be on its way. It reads what was in
// flight, and no more.
func (s *Spool) Resolve(fn func(m *message.Message, f Flight), noted func()) error {
	if s.flights == nil {
		return nil
	}
	batches := make([]*pebble.Batch, len(s.shards))
	for i, sh := range s.shards {
		batches[i] = sh.db.NewBatch()
		defer batches[i].Close()
	}
	list, keys, err := s.wereInFlight(batches)
	if err != nil {
		return fmt.Errorf("reading what was in flight in %s: %w", s.options.Path, err)
	}
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].ID == list[0].ID {
			n++
		}
		sh := s.ShardOf(list[0].ID)
		if err := sh.resolve(batches[sh.index], list[:n], fn); err != nil {
			return fmt.Errorf("noting what was in flight in %s: message %v: %w", s.options.Path, list[0].ID, err)
		}
		list = list[n:]
	}
	if err := s.applyAll(batches); err != nil {
		return fmt.Errorf("noting what was in flight in %s: %w", s.options.Path, err)
	}
	noted()
	return s.forgetFlights(batches, keys)
}

// wereInFlight gathers what was in flight, each once, by message and recipient, with the last of its attempts.
func (s *Spool) wereInFlight(batches []*pebble.Batch) (list []Flight, keys [][][]byte, err error) {
	for _, was := range s.flights.found {
		list = append(list, was.flight)
	}
	for i, sh := range s.shards {
		more, ks, err := sh.readFlights(batches[i])
		if err != nil {
			return nil, nil, fmt.Errorf("shard %d: %w", i, err)
		}
		list, keys = append(list, more...), append(keys, ks)
	}
	slices.SortFunc(list, func(a, b Flight) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Index, b.Index), cmp.Compare(b.Attempt, a.Attempt))
	})
	list = slices.CompactFunc(list, func(a, b Flight) bool { return a.ID == b.ID && a.Index == b.Index })
	return list, keys, nil
}

// resolve notes doubts about recipients of one message.
func (sh *Shard) resolve(b *pebble.Batch, list []Flight, fn func(*message.Message, Flight)) (err error) {
	states, err := iterate(sh.db, kindRecipient)
	if err != nil {
		return err
	}
	defer closeAfter(states.Close, &err)
	m, parked, err := sh.readParked(list[0].ID, states)
	if err != nil || m == nil {
		return err
	}
	for _, f := range list {
		if f.Index >= len(m.Recipients) {
			continue
		}
		r := &m.Recipients[f.Index]
		if r.State.Settled() || r.Attempts >= f.Attempt {
			continue
		}
		r.Attempts = f.Attempt
		fn(m, f)
		u := Update{
			ID: m.ID, Index: f.Index, State: r.State, Attempts: r.Attempts, Due: r.Due, Reply: r.Reply, Late: r.Late, Noticed: r.Noticed,
			Parked: parked, Doubt: r.Doubt,
		}
		if err := encodeUpdates(b, &Op{Updates: []Update{u}}); err != nil {
			return err
		}
	}
	return nil
}

// applyAll writes and syncs what the batches have, one for each shard, and empties them.
func (s *Spool) applyAll(batches []*pebble.Batch) error {
	mode := pebble.Sync
	if !s.options.Sync {
		mode = pebble.NoSync
	}
	for i, sh := range s.shards {
		if batches[i].Empty() {
			continue
		}
		if err := sh.db.Apply(batches[i], mode); err != nil {
			return fmt.Errorf("shard %d: %w", i, err)
		}
		batches[i].Reset()
	}
	return nil
}

// forgetFlights drops what was in flight: it is noted. From now on the shards may hold what is in flight today.
func (s *Spool) forgetFlights(batches []*pebble.Batch, keys [][][]byte) error {
	for i := range s.shards {
		for _, key := range keys[i] {
			if err := batches[i].Delete(key, nil); err != nil {
				return err
			}
		}
	}
	if err := s.applyAll(batches); err != nil {
		return fmt.Errorf("forgetting what was in flight in %s: %w", s.options.Path, err)
	}
	f := s.flights
	for _, was := range f.found {
		if was.slot != nil {
			was.slot.seal.Store(0)
		}
	}
	f.found = nil
	var err error
	if f.left != nil {
		err = f.left.close(true)
		f.left = nil
	}
	f.noted.Store(true)
	if err != nil {
		err = errors.Join(errors.New("removing a table of what was in flight"), err)
	}
	return err
}
