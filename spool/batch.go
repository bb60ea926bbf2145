package spool

import (
	"github.com/cockroachdb/pebble/v2"

	"mailrace/proto/message"
)

// encoders fill a batch kind by kind, so that it consists of a few runs of rising keys: the memtable is searched once for a run and not
// once for a key, which saves a tenth of a message's whole CPU. Order within a batch matters only for a key that is written twice, and
// that is a recipient's, or an entry's of the index: those stay in order, and a message is removed after all else that happened to it.
var encoders = [...]func(*pebble.Batch, *Op) error{encodeChunks, encodeEnvelope, encodeClaims, encodeIndex, encodeUpdates, encodeChunkRemovals, encodeRemovals}

// encodeChunks adds the content of an Op to the batch, and frees the chunk that came ahead of its message unless it is to be kept.
func encodeChunks(b *pebble.Batch, op *Op) error {
	if c := &op.Chunk; c.Data != nil {
		if err := encodeChunk(b, c.ID, c.Index, c.Data.B); err != nil {
			return err
		}
		c.release()
	}
	if m := op.Append; m != nil {
		for i, c := range unstored(m) {
			if err := encodeChunk(b, m.ID, m.Stored+1+i, c.B); err != nil {
				return err
			}
		}
	}
	return nil
}

func encodeChunk(b *pebble.Batch, id message.ID, index int, content []byte) error {
	d := b.SetDeferred(indexKeyLen, len(content))
	putIndexKey(d.Key, kindChunk, id, index)
	copy(d.Value, content)
	return d.Finish()
}

func encodeEnvelope(b *pebble.Batch, op *Op) error {
	m := op.Append
	if m == nil {
		return nil
	}
	d := b.SetDeferred(idKeyLen, envelopeSize(m))
	putKey(d.Key, kindEnvelope, m.ID)
	appendEnvelope(d.Value[:0], m)
	return d.Finish()
}

func encodeUpdates(b *pebble.Batch, op *Op) error {
	for i := range op.Updates {
		u := &op.Updates[i]
		d := b.SetDeferred(indexKeyLen, updateSize(u))
		putIndexKey(d.Key, kindRecipient, u.ID, u.Index)
		appendUpdate(d.Value[:0], u)
		if err := d.Finish(); err != nil {
			return err
		}
	}
	return nil
}

func encodeChunkRemovals(b *pebble.Batch, op *Op) error {
	if err := removeChunks(b, op.Remove); err != nil {
		return err
	}
	return removeChunks(b, op.Abort)
}

func encodeRemovals(b *pebble.Batch, op *Op) error { return removeRecords(b, op.Remove) }

// removeRecords adds the removal of a message's envelope and recipient records to a batch.
func removeRecords(b *pebble.Batch, r Removal) error {
	if r.ID == 0 {
		return nil
	}
	d := b.SingleDeleteDeferred(idKeyLen)
	putKey(d.Key, kindEnvelope, r.ID)
	if err := d.Finish(); err != nil {
		return err
	}
	for i := range r.Recipients {
		d := b.DeleteDeferred(indexKeyLen)
		putIndexKey(d.Key, kindRecipient, r.ID, i)
		if err := d.Finish(); err != nil {
			return err
		}
	}
	return nil
}

// removeChunks adds the removal of a message's content to a batch.
func removeChunks(b *pebble.Batch, r Removal) error {
	for i := range r.Chunks {
		d := b.SingleDeleteDeferred(indexKeyLen)
		putIndexKey(d.Key, kindChunk, r.ID, i+1)
		if err := d.Finish(); err != nil {
			return err
		}
	}
	return nil
}
