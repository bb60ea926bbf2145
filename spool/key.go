package spool

import (
	"encoding/binary"

	"mailrace/proto/message"
)

// The key space of a shard. Each kind of record is a range of its own, ordered by message (claims by expiry, the index by due time), so that a walk over the
// envelopes reads no content.
//
//	c <id:8> <index:4>   chunk of content, 1 and up: its octets, nothing else
//	d <due:8> <id:8>     entry of the due index: the message is parked until then, see due.go
//	e <id:8>             envelope record: the message exists
//	i <expires:8> <key:16>   claim record: an idempotency key belongs to a message
//	n                    mark: ids up to it have been used, see mark.go
//	r <id:8> <index:4>   recipient record: the state of a recipient that is no longer what it was at arrival
//	x <key>              a record that could not be read, moved aside with its bytes
//
// Numbers are big-endian. Chunks and envelopes are written once and removed by SingleDelete, which leaves nothing behind when both meet in
// a memtable; so an id must never be used again. Recipient records are overwritten and removed by Delete, as are
// entries of the index; claims are removed by DeleteRange.
const (
	kindChunk     = 'c'
	kindDue       = 'd'
	kindEnvelope  = 'e'
	kindClaim     = 'i'
	kindMark      = 'n'
	kindRecipient = 'r'
	kindCorrupt   = 'x'
)

const (
	idKeyLen    = 1 + 8
	indexKeyLen = idKeyLen + 4
)

// putKey writes the key of kind for id to dst, which has idKeyLen bytes.
func putKey(dst []byte, kind byte, id message.ID) {
	dst[0] = kind
	binary.BigEndian.PutUint64(dst[1:], uint64(id))
}

// putIndexKey writes the key of kind for the part index of id to dst, which has indexKeyLen bytes.
func putIndexKey(dst []byte, kind byte, id message.ID, index int) {
	putKey(dst, kind, id)
	binary.BigEndian.PutUint32(dst[idKeyLen:], uint32(index))
}

// recordID is the id in a key, or 0 for a key that is too short to have one, which belongs to no message.
func recordID(key []byte) message.ID {
	if len(key) < idKeyLen {
		return 0
	}
	return message.ID(binary.BigEndian.Uint64(key[1:]))
}

// keyIndex is the index in a key of indexKeyLen bytes.
func keyIndex(key []byte) int { return int(binary.BigEndian.Uint32(key[idKeyLen:])) }
