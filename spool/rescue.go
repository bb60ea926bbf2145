package spool

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"mailrace/proto/message"
)

// rescue takes what can be read of one shard over. Where the store could not be read as it is, there are two readers: the store, if it
// opened, and what was found in its files one by one.
type rescue struct {
	*salvor
	shard   int
	wreck   *wreck
	store   pebble.Reader // nil where it did not open
	raw     *rawRecords   // nil where nothing is wrong
	readers []pebble.Reader
	edges   [][]byte // where tables of the store begin and end

	// What was met so far. Both are kept only where something is wrong, which is known too late for the first reader; so they are kept always,
	// at 50 bytes a message.
	rescued map[message.ID]bool
	lost    map[message.ID]string // why; a later reader may know more
}

// see makes a store the first reader.
func (r *rescue) see(db *pebble.DB) {
	r.store, r.readers = db, []pebble.Reader{db}
	tables, err := db.SSTables()
	if err != nil {
		return // then gaps are wider
	}
	for _, level := range tables {
		for _, t := range level {
			r.edges = append(r.edges, bytes.Clone(t.Smallest.UserKey), append(bytes.Clone(t.Largest.UserKey), 0))
		}
	}
	slices.SortFunc(r.edges, bytes.Compare)
}

// walk walks over the records of a kind in the last reader, with leaps.
func (r *rescue) walk(kind byte, fn visit) error {
	if len(r.readers) == 0 {
		return nil
	}
	reader, edges := r.readers[len(r.readers)-1], r.edges
	if reader != r.store {
		edges = nil
	}
	return around(walkReader(reader, kind != kindChunk), edges, kind, fn, func(after []byte, cause error) {
		r.wreck.wrong("records cannot be read behind %x: %v", after, cause)
	})
}

// messages rescues those whose envelopes the last reader shows and that are not rescued yet.
func (r *rescue) messages() error {
	if r.rescued == nil {
		r.rescued, r.lost = map[message.ID]bool{}, map[message.ID]string{}
	}
	return r.walk(kindEnvelope, func(key, value []byte, broken error) error {
		id := recordID(key)
		if r.rescued[id] {
			return nil
		}
		r.newest = max(r.newest, id)
		if err := r.meter.Add(1); err != nil {
			return err
		}
		if broken != nil {
			r.wreck.wrong("envelope of message %v: %v", id, broken)
			r.lost[id] = fmt.Sprintf("its envelope cannot be read: %v", broken)
			return nil
		}
		m := new(message.Message)
		if err := decodeEnvelope(value, m, false); err != nil || len(key) != idKeyLen || m.ID != id {
			r.lost[id] = fmt.Sprintf("its envelope is damaged, and was kept aside: %v", err)
			return nil // rest keeps it
		}
		return r.message(m, bytes.Clone(value))
	})
}

// message rescues one, if its content is there.
func (r *rescue) message(m *message.Message, envelope []byte) error {
	content, reason := r.content(m)
	if reason != "" {
		r.lost[m.ID] = reason
		return nil
	}
	states, lost := r.states(m)
	if settled(m) {
		r.done.Settled++
		r.rescued[m.ID] = true
		delete(r.lost, m.ID)
		return nil
	}
	f := r.fillers[shardOf(m.ID, len(r.fillers))]
	var key [indexKeyLen]byte
	for i, chunk := range content {
		putIndexKey(key[:], kindChunk, m.ID, i+1)
		if err := f.set(r.ctx, key[:], chunk); err != nil {
			return err
		}
	}
	putKey(key[:], kindEnvelope, m.ID)
	if err := f.set(r.ctx, key[:idKeyLen], envelope); err != nil {
		return err
	}
	for i, state := range states {
		putIndexKey(key[:], kindRecipient, m.ID, i)
		if err := f.set(r.ctx, key[:], state); err != nil {
			return err
		}
	}
	r.rescued[m.ID] = true
	delete(r.lost, m.ID)
	r.done.Messages++
	r.done.Octets += m.Size
	r.done.States += int64(lost)
	word := "rescued"
	if r.raw != nil {
		r.done.Doubtful++
		word = "rescued, perhaps delivered before:"
	}
	_, err := fmt.Fprintf(r.report, "%s %v from <%s> to %d recipients, %d octets, %d states lost\n", word, m.ID, m.From, len(m.Recipients), m.Size, lost)
	return err
}

// content reads the chunks of a message, or says why it cannot be had.
func (r *rescue) content(m *message.Message) (chunks [][]byte, reason string) {
	size := int64(0)
	var key [indexKeyLen]byte
	for i := range m.Chunks {
		putIndexKey(key[:], kindChunk, m.ID, i+1)
		chunk, err := r.get(key[:])
		if err != nil {
			return nil, fmt.Sprintf("chunk %d of the %d of its content: %v", i+1, m.Chunks, err)
		}
		if len(chunk) > message.ChunkSize || size+int64(len(chunk)) > m.Size {
			return nil, fmt.Sprintf("chunk %d of the %d of its content has %d octets", i+1, m.Chunks, len(chunk))
		}
		size += int64(len(chunk))
		chunks = append(chunks, chunk)
	}
	if size != m.Size {
		return nil, fmt.Sprintf("its content has %d octets of %d", size, m.Size)
	}
	return chunks, ""
}

// states reads the records of m's recipients into m, and returns them by index; lost counts those that are there and cannot be read.
func (r *rescue) states(m *message.Message) (states map[int][]byte, lost int) {
	var key [indexKeyLen]byte
	for i := range m.Recipients {
		putIndexKey(key[:], kindRecipient, m.ID, i)
		value, err := r.get(key[:])
		if errors.Is(err, ErrNoMessage) {
			continue
		}
		u, decodeErr := decodeUpdate(value)
		if err != nil || decodeErr != nil || u.ID != m.ID || u.Index != i {
			lost++
			continue
		}
		if states == nil {
			states = map[int][]byte{}
		}
		states[i] = value
		m.Recipients[i].State = u.State
	}
	return states, lost
}

// get is the value at a key from the first reader that has it, as a copy. Its error is ErrNoMessage where all can tell that there is none.
func (r *rescue) get(key []byte) (value []byte, err error) {
	var broken error
	for _, reader := range r.readers {
		value, err := getFrom(reader, key)
		if err == nil {
			return value, nil
		}
		if !errors.Is(err, pebble.ErrNotFound) {
			broken = err
			if len(r.wreck.damage) == 0 {
				r.wreck.wrong("record %x: %v", key, err)
			}
		}
	}
	if broken != nil {
		return nil, broken
	}
	return nil, ErrNoMessage
}

// getFrom reads by an iterator: unlike Get it leaves nothing open when it meets a blob file that is gone.
func getFrom(reader pebble.Reader, key []byte) (value []byte, err error) {
	it, err := reader.NewIter(&pebble.IterOptions{LowerBound: key, UpperBound: append(bytes.Clone(key), 0)})
	if err != nil {
		return nil, err
	}
	defer closeAfter(it.Close, &err)
	if !it.First() {
		return nil, cmp.Or(it.Error(), pebble.ErrNotFound)
	}
	if value, err = valueOf(it); err != nil {
		return nil, err
	}
	return bytes.Clone(value), nil
}

// rest takes over what is no message: claims, what was kept aside, envelopes that are damaged, with their content, and tells what is lost.
func (r *rescue) rest() error {
	now := r.options.Now().UnixNano()
	readers := r.readers
	defer func() { r.readers = readers }()
	aside := map[string]bool{}
	for i := range readers {
		r.readers = readers[:i+1]
		if err := errors.Join(r.claims(now), r.aside(aside), r.envelopesAside(aside), r.due(), r.flights(), r.mark()); err != nil {
			return err
		}
		if len(r.wreck.damage) > 0 {
			if err := r.strays(); err != nil {
				return err
			}
		}
	}
	return r.tellLost()
}

// claims takes idempotency keys over.
func (r *rescue) claims(now int64) error {
	return r.walk(kindClaim, func(key, value []byte, broken error) error {
		if broken != nil {
			r.wreck.wrong("an idempotency key: %v", broken)
			return nil
		}
		c, err := decodeClaim(value)
		if err != nil || c.Expires <= now {
			return nil
		}
		r.done.Claims++
		return r.fillers[shardOf(c.ID, len(r.fillers))].set(r.ctx, key, value)
	})
}

// flights takes over what was in flight.
func (r *rescue) flights() error {
	return r.walk(kindFlights, func(key, value []byte, broken error) error {
		if _, err := decodeFlights(value); err != nil || broken != nil {
			r.wreck.wrong("what was in flight: %v", errors.Join(err, broken))
			return nil
		}
		return r.fillers[shardOf(ownerInFlights(key, nil), len(r.fillers))].set(r.ctx, key, value)
	})
}

// due takes over where rescued messages are in the index of what is due. Recover finds those that are not.
func (r *rescue) due() error {
	return r.walk(kindDue, func(key, value []byte, broken error) error {
		if broken != nil {
			r.wreck.wrong("the due index: %v", broken)
			return nil
		}
		d, err := decodeDue(key, value)
		if err != nil || !r.rescued[d.ID] {
			return nil
		}
		return r.fillers[shardOf(d.ID, len(r.fillers))].set(r.ctx, key, value)
	})
}

// mark notes up to where ids were used.
func (r *rescue) mark() error {
	return r.walk(kindMark, func(_, value []byte, broken error) error {
		if id, err := decodeMark(value); broken == nil && err == nil {
			r.newest = max(r.newest, id)
		}
		return nil
	})
}

// aside takes over what earlier recoveries kept aside, with the content that it names.
func (r *rescue) aside(seen map[string]bool) error {
	return r.walk(kindCorrupt, func(key, value []byte, broken error) error {
		if broken != nil {
			r.wreck.wrong("a record that was kept aside: %v", broken)
			return nil
		}
		return r.keepAside(seen, key[1:], value)
	})
}

// envelopesAside keeps envelopes aside that cannot be decoded, as a recovery would.
func (r *rescue) envelopesAside(seen map[string]bool) error {
	return r.walk(kindEnvelope, func(key, value []byte, broken error) error {
		id := recordID(key)
		if broken != nil || r.rescued[id] || len(r.lost[id]) == 0 {
			return nil
		}
		if m := new(message.Message); decodeEnvelope(value, m, false) == nil && m.ID == id && len(key) == idKeyLen {
			return nil
		}
		return r.keepAside(seen, key, value)
	})
}

func (r *rescue) keepAside(seen map[string]bool, key, value []byte) error {
	if seen[string(key)] {
		return nil
	}
	seen[string(key)] = true
	r.done.Aside++
	id := ownerOf(key, value)
	f := r.fillers[shardOf(id, len(r.fillers))]
	if err := f.set(r.ctx, append([]byte{kindCorrupt}, key...), value); err != nil {
		return err
	}
	if len(key) == 0 || key[0] != kindEnvelope {
		return nil
	}
	var chunk [indexKeyLen]byte
	for i := 1; ; i++ {
		putIndexKey(chunk[:], kindChunk, id, i)
		content, err := r.get(chunk[:])
		if err != nil {
			return nil
		}
		if err := f.set(r.ctx, chunk[:], content); err != nil {
			return err
		}
	}
}

// strays notes messages of which only content or states are left: their envelopes are lost, unless they never had any.
func (r *rescue) strays() error {
	for _, kind := range []byte{kindChunk, kindRecipient} {
		if err := r.walk(kind, func(key, _ []byte, _ error) error {
			id := recordID(key)
			r.newest = max(r.newest, id)
			if !r.rescued[id] && r.lost[id] == "" {
				r.lost[id] = "its envelope is lost; it may be what is left of a message that was delivered or never accepted"
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// tellLost reports what was not rescued, in the order of ids.
func (r *rescue) tellLost() error {
	ids := make([]message.ID, 0, len(r.lost))
	for id := range r.lost {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		r.done.Lost++
		if len(r.done.Examples) < lossExamples {
			r.done.Examples = append(r.done.Examples, Loss{id.String(), r.shard, r.lost[id]})
		}
		if _, err := fmt.Fprintf(r.report, "lost %v: %s\n", id, r.lost[id]); err != nil {
			return err
		}
	}
	return nil
}
