package spool

import (
	"encoding/binary"
	"hash/crc32"

	"mailrace/proto/message"
)

// The key space of a shard. Each kind of record is a range of its own, ordered by message (claims by expiry, the index by due time), so that a walk over the
// envelopes reads no content.
//
//	c <id:8> <index:4>   chunk of content, 1 and up: its octets, nothing else
//	d <due:8> <id:8>     entry of the due index: the message is parked until then, see due.go
//	e <id:8>             envelope record: the message exists
//	f <shard:1>          what was in flight of a shard when a batch was written, see flightrecord.go
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
	kindFlights   = 'f'
	kindClaim     = 'i'
	kindMark      = 'n'
	kindRecipient = 'r'
	kindCorrupt   = 'x'
)

// kind is what the tools know of a kind of record.
type kind struct {
	prefix byte
	name   string

	// owner is the message that a record belongs to, in whose shard it lives. It answers for records that cannot be read as well, the same each
	// time. A record moved aside belongs to whom it belonged before.
	owner func(key, value []byte) message.ID

	valued bool // owner needs the value

	wide bool // a shard's own, one in each, and no message's: Reshard and Salvage make it anew
}

// kinds are all there are, in the order of their keys. A record of another kind is of a later version of this program: the tools refuse it.
var kinds = [...]kind{
	{prefix: kindChunk, name: "chunk", owner: ownerInKey},
	{prefix: kindDue, name: "due", owner: ownerInDue},
	{prefix: kindEnvelope, name: "envelope", owner: ownerInKey},
	{prefix: kindFlights, name: "in flight", owner: ownerInFlights},
	{prefix: kindClaim, name: "claim", owner: ownerInClaim, valued: true},
	{prefix: kindMark, name: "mark", wide: true},
	{prefix: kindRecipient, name: "recipient", owner: ownerInKey},
	{prefix: kindCorrupt, name: "unreadable", valued: true},
}

// kindOf is the index in kinds of the record at key, or -1.
func kindOf(key []byte) int {
	for i := range kinds {
		if len(key) > 0 && kinds[i].prefix == key[0] {
			return i
		}
	}
	return -1
}

// ownerOf is the message that a record belongs to.
func ownerOf(key, value []byte) message.ID {
	for len(key) > 0 && key[0] == kindCorrupt {
		key = key[1:]
	}
	if k := kindOf(key); k >= 0 && !kinds[k].wide {
		return kinds[k].owner(key, value)
	}
	return 0
}

func ownerInDue(key, _ []byte) message.ID {
	if len(key) < dueKeyLen {
		return 0
	}
	return recordID(key[8:])
}

func ownerInKey(key, _ []byte) message.ID { return recordID(key) }

func ownerInClaim(key, value []byte) message.ID {
	c, err := decodeClaim(value)
	if err != nil {
		return message.ID(crc32.Checksum(key, castagnoli)) // any will do: the claims of all shards are read
	}
	return c.ID
}

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
