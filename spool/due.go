package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/cockroachdb/pebble/v2"

	"mailrace/proto/message"
)

// Due is an entry of a shard's due index: a message that is parked, which nobody has in memory, and when somebody is to read it again. The
// entry stays while the message is being worked on, until an Op parks it anew or removes it: so whatever a crash takes back, a message that
// was parked once has an entry.
type Due struct {
	At int64      // Unix nanoseconds, above 0
	ID message.ID // 0 = there is none
}

// Compare orders entries as the index does: by time, then by message.
func (d Due) Compare(e Due) int {
	switch {
	case d.At != e.At && d.At < e.At, d.At == e.At && d.ID < e.ID:
		return -1
	case d == e:
		return 0
	}
	return 1
}

const (
	dueVersion = 1
	dueKeyLen  = 1 + 8 + 8
	dueSize    = recordHeader
)

func putDueKey(dst []byte, d Due) {
	dst[0] = kindDue
	binary.BigEndian.PutUint64(dst[1:], uint64(max(d.At, 0)))
	binary.BigEndian.PutUint64(dst[1+8:], uint64(d.ID))
}

// sealDue writes the record of an entry to dst, which has dueSize bytes: the key says all, and the checksum is the key's.
func sealDue(dst, key []byte) {
	dst[0] = dueVersion
	binary.LittleEndian.PutUint32(dst[1:], crc32.Checksum(key, castagnoli))
}

// decodeDue reads an entry.
func decodeDue(key, value []byte) (d Due, err error) {
	if len(key) != dueKeyLen || len(value) != dueSize || value[0] != dueVersion {
		return d, fmt.Errorf("due: %w: key of %d bytes, %.8x", errRecord, len(key), value)
	}
	if want, got := binary.LittleEndian.Uint32(value[1:]), crc32.Checksum(key, castagnoli); want != got {
		return d, fmt.Errorf("due: %w: checksum %08x, want %08x", errRecord, got, want)
	}
	d = Due{At: int64(binary.BigEndian.Uint64(key[1:])), ID: message.ID(binary.BigEndian.Uint64(key[1+8:]))}
	if d.At < 0 || d.ID == 0 {
		return d, fmt.Errorf("due: %w: message %v at %d", errRecord, d.ID, d.At)
	}
	return d, nil
}

// encodeIndex drops the entry that an Op takes out of the index, and then adds the one that it puts in.
func encodeIndex(b *pebble.Batch, op *Op) error {
	if op.Unpark.ID != 0 {
		d := b.DeleteDeferred(dueKeyLen)
		putDueKey(d.Key, op.Unpark)
		if err := d.Finish(); err != nil {
			return err
		}
	}
	if op.Park.ID == 0 {
		return nil
	}
	d := b.SetDeferred(dueKeyLen, dueSize)
	putDueKey(d.Key, op.Park)
	sealDue(d.Value, d.Key)
	return d.Finish()
}

// Due appends to dst up to limit entries of the index that come behind after and are due at until or before, in their order. It is a seek,
// however long the index is. An entry may be of a message that is gone. Unreadable ones are logged and passed over; Recover moves them aside
// and finds the messages. It blocks on the disk. Any goroutine.
func (sh *Shard) Due(dst []Due, after Due, until int64, limit int) ([]Due, error) {
	if err := sh.spool.Wait(); err != nil {
		return dst, err
	}
	var lower [dueKeyLen + 1]byte // the first key behind after
	putDueKey(lower[:], after)
	var upper [1 + 8 + 1]byte // the first behind all that are due at until
	upper[0] = kindDue
	binary.BigEndian.PutUint64(upper[1:], uint64(max(until, 0)))
	bounds := upper[:]
	for i := 8; ; i-- { // the next number, as a prefix
		if bounds[i]++; bounds[i] != 0 {
			bounds = bounds[:i+1]
			break
		}
	}
	it, err := sh.db.NewIter(&pebble.IterOptions{LowerBound: lower[:], UpperBound: bounds})
	if err != nil {
		return dst, fmt.Errorf("spool: shard %d: due index: %w", sh.index, err)
	}
	for it.First(); it.Valid() && limit > 0; it.Next() {
		d, err := readDue(it)
		if errors.Is(err, errRecord) {
			_ = sh.logUnreadable(it, err)
			continue
		}
		if err != nil {
			return dst, errors.Join(fmt.Errorf("spool: shard %d: due index: %w", sh.index, err), it.Close())
		}
		dst = append(dst, d)
		limit--
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return dst, fmt.Errorf("spool: shard %d: due index: %w", sh.index, err)
	}
	return dst, nil
}

// readDue reads the entry on which an iterator stands.
func readDue(it *pebble.Iterator) (Due, error) {
	value, err := valueOf(it)
	if err != nil {
		return Due{}, err
	}
	return decodeDue(it.Key(), value)
}

// Read reads messages of the shard as Recover does: their recipients in the state last noted, without trace and content. dst gets one for
// each id; nil for one that the shard does not have or that cannot be read. It blocks on the disk. Any goroutine.
func (sh *Shard) Read(dst []*message.Message, ids []message.ID) (_ []*message.Message, err error) {
	if err := sh.spool.Wait(); err != nil {
		return dst, err
	}
	states, err := iterate(sh.db, kindRecipient)
	if err != nil {
		return dst, fmt.Errorf("spool: shard %d: %w", sh.index, err)
	}
	defer func() { err = errors.Join(err, states.Close()) }()
	for _, id := range ids {
		m, err := sh.read(id, states)
		if err != nil {
			return dst, fmt.Errorf("spool: message %v: %w", id, err)
		}
		dst = append(dst, m)
	}
	return dst, nil
}

// read reads one message, its states by an iterator over all recipients. The envelope comes first: if it is removed meanwhile, the states
// that are missing do no harm, for then somebody had the message.
func (sh *Shard) read(id message.ID, states *pebble.Iterator) (*message.Message, error) {
	m, _, err := sh.readParked(id, states)
	return m, err
}

// readParked is read that says, too, whether a state says that the message is parked.
func (sh *Shard) readParked(id message.ID, states *pebble.Iterator) (_ *message.Message, parked bool, err error) {
	var key [idKeyLen]byte
	putKey(key[:], kindEnvelope, id)
	value, closer, err := sh.db.Get(key[:])
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	m := new(message.Message)
	err = errors.Join(decodeEnvelope(value, m, false), closer.Close())
	if err == nil && m.ID != id {
		err = fmt.Errorf("envelope: %w: names message %v", errRecord, m.ID)
	}
	if errors.Is(err, errRecord) {
		sh.log.Error("spool: record cannot be read", "id", id, "error", err)
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	putKey(key[:], kindRecipient, id)
	states.SeekGE(key[:])
	parked, err = readStates(states, m, sh.logUnreadable)
	return m, parked, errors.Join(err, states.Error())
}

// countDue counts the readable entries of the index, and moves the others aside.
func (r *repair) countDue(reader pebble.Reader) (n int, err error) {
	err = each(reader, kindDue, func(it *pebble.Iterator) error {
		_, err := readDue(it)
		switch {
		case errors.Is(err, errRecord):
			return r.moveAside(it, err)
		case err == nil:
			n++
		}
		return err
	})
	return n, err
}

// unindexed calls fn with every message that says to be parked and has no entry in the index: some record was damaged. It takes 8 bytes of
// memory for each entry, for once.
func (sh *Shard) unindexed(reader pebble.Reader, fn func(*message.Message) error) (err error) {
	entries := map[message.ID]struct{}{}
	if err := each(reader, kindDue, func(it *pebble.Iterator) error {
		if d, err := readDue(it); err == nil {
			entries[d.ID] = struct{}{}
		}
		return nil
	}); err != nil {
		return err
	}
	return sh.visitUnsettled(reader, sh.found, func(m *message.Message, parked bool) error {
		if _, ok := entries[m.ID]; ok || !parked {
			return nil
		}
		sh.log.Warn("spool: a parked message is missing in the index of what is due, it is taken up now", "id", m.ID)
		return fn(m)
	})
}
