package spool

import (
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"mailrace/proto/message"
)

// recordWalk is walks over the kinds of a message's records in one shard, in step.
type recordWalk struct {
	envelopes, states, chunks, aside *pebble.Iterator
}

func walkRecords(reader pebble.Reader) (w recordWalk, err error) {
	for _, walk := range []struct {
		to   **pebble.Iterator
		kind []byte
	}{
		{&w.envelopes, []byte{kindEnvelope}}, {&w.states, []byte{kindRecipient}}, {&w.chunks, []byte{kindChunk}},
		{&w.aside, []byte{kindCorrupt, kindEnvelope}},
	} {
		if *walk.to, err = iterate(reader, walk.kind...); err != nil {
			return w, errors.Join(err, w.close())
		}
		(*walk.to).First()
	}
	return w, nil
}

func (w *recordWalk) close() error {
	var errs []error
	for _, it := range []*pebble.Iterator{w.envelopes, w.states, w.chunks, w.aside} {
		if it != nil {
			errs = append(errs, it.Close()) // tells an error of the walk too
		}
	}
	return errors.Join(errs...)
}

// checkMessages checks the envelopes of a shard with what belongs to them.
func (a *audit) checkMessages(sh *Shard, meter *Meter) (err error) {
	w, err := walkRecords(sh.db)
	if err != nil {
		return err
	}
	defer closeAfter(w.close, &err)
	for w.envelopes.Valid() {
		id := recordID(w.envelopes.Key())
		if err := a.passOrphans(sh, &w, id, meter); err != nil {
			return err
		}
		m, err := a.checkEnvelope(sh, w.envelopes)
		if err != nil {
			return err
		}
		if err := errors.Join(a.checkStates(sh, w.states, id, m, meter), a.checkContent(sh, w.chunks, id, m, meter)); err != nil {
			return err
		}
		if m != nil {
			a.note(m)
		}
		w.envelopes.Next()
		if err := meter.Add(1); err != nil {
			return err
		}
	}
	if err := w.envelopes.Error(); err != nil {
		return err
	}
	return a.passOrphans(sh, &w, 0, meter)
}

// passOrphans goes on to the records of the message id, 0 = to the end. What it passes belongs to no message, or to one whose envelope was
// kept aside.
func (a *audit) passOrphans(sh *Shard, w *recordWalk, id message.ID, meter *Meter) error {
	for _, parts := range []*pebble.Iterator{w.states, w.chunks} {
		behind := func() bool { return parts.Valid() && (id == 0 || recordID(parts.Key()) < id) }
		if behind() {
			w.aside.First()
		}
		for ; behind(); parts.Next() {
			owner := recordID(parts.Key())
			for w.aside.Valid() && recordID(w.aside.Key()[1:]) < owner {
				w.aside.Next()
			}
			if !w.aside.Valid() || recordID(w.aside.Key()[1:]) != owner {
				value := parts.LazyValue()
				a.Orphans.Records++
				a.Orphans.Bytes += int64(len(parts.Key()) + value.Len())
			}
			if err := meter.Add(1); err != nil {
				return err
			}
		}
		if err := parts.Error(); err != nil {
			return err
		}
	}
	return w.aside.Error()
}

// checkEnvelope decodes the envelope on which it stands. It is nil where that cannot be done.
func (a *audit) checkEnvelope(sh *Shard, it *pebble.Iterator) (*message.Message, error) {
	value, err := valueOf(it)
	if err != nil {
		return nil, err
	}
	m, id := new(message.Message), recordID(it.Key())
	if err := decodeEnvelope(value, m, false); err != nil {
		a.fault(unreadable("envelope", err), sh.index, id, err.Error())
		return nil, nil
	}
	if len(it.Key()) != idKeyLen || id != m.ID {
		a.fault("envelope: key", sh.index, id, fmt.Sprintf("it stands at %x and names message %v", it.Key(), m.ID))
		return nil, nil
	}
	if home := shardOf(id, a.shards); home != sh.index {
		a.fault(faultShard, sh.index, id, fmt.Sprintf("it belongs to shard %d, where alone it would be found", home))
	}
	return m, nil
}

// checkStates reads the recipient records of a message; m is nil where its envelope cannot be read.
func (a *audit) checkStates(sh *Shard, it *pebble.Iterator, id message.ID, m *message.Message, meter *Meter) error {
	parked := false
	for ; it.Valid() && recordID(it.Key()) == id; it.Next() {
		if err := meter.Add(1); err != nil {
			return err
		}
		value, err := valueOf(it)
		if err != nil {
			return err
		}
		u, err := decodeUpdate(value)
		switch {
		case err != nil:
			a.fault(unreadable("recipient", err), sh.index, id, err.Error())
		case len(it.Key()) != indexKeyLen || u.ID != id || u.Index != keyIndex(it.Key()):
			a.fault("recipient: key", sh.index, id, fmt.Sprintf("it stands at %x and names recipient %d of message %v", it.Key(), u.Index, u.ID))
		case m == nil:
		case u.Index >= len(m.Recipients):
			a.fault("recipient: key", sh.index, id, fmt.Sprintf("it names recipient %d of %d", u.Index, len(m.Recipients)))
		default:
			m.Recipients[u.Index].State = u.State
			if u.Doubt != nil && !u.State.Settled() {
				a.InDoubt++
			}
			parked = parked || u.Parked
		}
	}
	if parked && m != nil {
		a.Parked++
		a.parked[sh.index]++
	}
	return it.Error()
}

// checkContent reads the chunks of a message; m is nil where its envelope cannot be read.
func (a *audit) checkContent(sh *Shard, it *pebble.Iterator, id message.ID, m *message.Message, meter *Meter) error {
	chunks, size := 0, int64(0)
	for ; it.Valid() && recordID(it.Key()) == id; it.Next() {
		if err := meter.Add(1); err != nil {
			return err
		}
		value, err := valueOf(it)
		switch {
		case err != nil:
			a.fault(faultContent, sh.index, id, err.Error())
			m = nil
		case len(it.Key()) != indexKeyLen || len(value) > message.ChunkSize:
			a.fault("chunk: key", sh.index, id, fmt.Sprintf("%d octets at %x", len(value), it.Key()))
			m = nil
		case keyIndex(it.Key()) == chunks+1:
			chunks++
			size += int64(len(value))
		}
	}
	switch {
	case it.Error() != nil:
		return it.Error()
	case m == nil:
	case chunks < m.Chunks:
		a.fault(faultMissing, sh.index, id, fmt.Sprintf("chunk %d of %d", chunks+1, m.Chunks))
	case chunks > m.Chunks || size != m.Size:
		a.fault(faultSize, sh.index, id, fmt.Sprintf("%d octets in %d chunks, should be %d in %d", size, chunks, m.Size, m.Chunks))
	}
	return nil
}

// note counts a message.
func (a *audit) note(m *message.Message) {
	a.Messages++
	a.Octets += m.Size
	a.sizes.add(m.Size)
	arrived := m.Arrival()
	a.ages.add(int64(a.now.Sub(arrived) / time.Second))
	if a.Oldest.IsZero() || arrived.Before(a.Oldest) {
		a.Oldest = arrived.UTC()
	}
	if arrived.After(a.Newest) {
		a.Newest = arrived.UTC()
	}
	for i := range m.Recipients {
		a.Recipients[m.Recipients[i].State.String()]++
	}
	if settled(m) {
		a.Settled++
	}
}

// checkDue checks the due index of a shard. An entry may be of a message that is gone; one too few is a fault.
func (a *audit) checkDue(sh *Shard, meter *Meter) error {
	entries := int64(0)
	if err := each(sh.db, kindDue, func(it *pebble.Iterator) error {
		d, err := readDue(it)
		switch {
		case errors.Is(err, errRecord):
			a.fault(unreadable("due", err), sh.index, ownerInDue(it.Key(), nil), err.Error())
		case err != nil:
			return err
		case shardOf(d.ID, a.shards) != sh.index:
			a.fault(faultShard, sh.index, d.ID, "its entry in the due index is here")
		default:
			entries++
		}
		return meter.Add(1)
	}); err != nil {
		return err
	}
	if lacking := a.parked[sh.index] - entries; lacking > 0 {
		a.fault(faultDue, sh.index, 0, fmt.Sprintf("%d entries for %d messages", entries, a.parked[sh.index]))
	}
	return nil
}

// checkFlights checks what was in flight when batches were written.
func (a *audit) checkFlights(sh *Shard, meter *Meter) error {
	return each(sh.db, kindFlights, func(it *pebble.Iterator) error {
		value, err := valueOf(it)
		if err != nil {
			return err
		}
		list, err := decodeFlights(value)
		if err != nil {
			a.fault(unreadable("in flight", err), sh.index, 0, err.Error())
		}
		a.InFlight += int64(len(list))
		return meter.Add(1)
	})
}

// checkMark checks what keeps ids of a shard from coming twice.
func (a *audit) checkMark(sh *Shard, meter *Meter) error {
	return each(sh.db, kindMark, func(it *pebble.Iterator) error {
		value, err := valueOf(it)
		if err != nil {
			return err
		}
		if _, err := decodeMark(value); err != nil {
			a.fault(unreadable("mark", err), sh.index, 0, err.Error())
		}
		return meter.Add(1)
	})
}

// checkClaims checks the idempotency keys of a shard.
func (a *audit) checkClaims(sh *Shard, meter *Meter) error {
	return each(sh.db, kindClaim, func(it *pebble.Iterator) error {
		c, err := readClaim(it)
		switch {
		case errors.Is(err, errRecord):
			a.fault(unreadable("claim", err), sh.index, c.ID, err.Error())
		case err != nil:
			return err
		case c.Expires <= a.now.UnixNano():
			a.ExpiredClaims++
		}
		return meter.Add(1)
	})
}

// checkAside counts what recoveries kept aside, by why they did.
func (a *audit) checkAside(sh *Shard, meter *Meter) error {
	return each(sh.db, kindCorrupt, func(it *pebble.Iterator) error {
		value, err := valueOf(it)
		if err != nil {
			return err
		}
		key := it.Key()[1:]
		name, cause := whyAside(key, value)
		reason := "kept aside: " + name
		if cause != nil {
			reason = unreadable(reason, cause)
		}
		var id message.ID
		if name != kinds[kindOf([]byte{kindClaim})].name {
			id = recordID(key)
		}
		a.fault(reason, sh.index, id, fmt.Sprintf("%d bytes at %x", len(value), it.Key()))
		return meter.Add(1)
	})
}

// whyAside decodes a record that was moved aside, once more.
func whyAside(key, value []byte) (kind string, err error) {
	k := kindOf(key)
	if k < 0 {
		return "unknown", nil
	}
	switch kinds[k].prefix {
	case kindEnvelope:
		err = decodeEnvelope(value, new(message.Message), false)
	case kindRecipient:
		_, err = decodeUpdate(value)
	case kindClaim:
		_, err = decodeClaim(value)
	case kindFlights:
		_, err = decodeFlights(value)
	}
	return kinds[k].name, err
}
