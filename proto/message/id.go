package message

import (
	"errors"
	"fmt"
	"time"
)

// ID names a message for as long as it is in this node, in the 250 that accepted it, its Received header, every record and every log
// line. From the high bits down: 42 bits of milliseconds since 2020, 14 bits of sequence, 8 bits of the shard that minted it. IDs of
// one shard therefore rise with time, and an ID printed in base32 sorts as the number does. The zero ID names nothing.
type ID uint64

// IDLength is the number of characters of a printed ID: 64 bits at 5 a character.
const IDLength = 13

const (
	shardBits = 8
	seqBits   = 14

	// MaxShards is how many shards an ID can tell apart.
	MaxShards = 1 << shardBits
)

// idEpoch keeps 42 bits of milliseconds going until the year 2159.
var idEpoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

// alphabet is in ASCII order (so printed IDs sort) and without the letters that people misread (Crockford's base32).
const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

var decoding = func() (d [256]int8) {
	for i := range d {
		d[i] = -1
	}
	for i := range len(alphabet) {
		d[alphabet[i]] = int8(i)
		if c := alphabet[i]; c >= 'A' {
			d[c+'a'-'A'] = int8(i)
		}
	}
	return d
}()

// NextID returns an ID of the given shard for the time now that is above last, which is the newest ID that the shard minted. A clock
// that stands still or goes back, and more than 16,384 IDs in a millisecond, run ahead of the clock rather than repeat an ID.
func NextID(last ID, now time.Time, shard int) ID {
	ms := uint64(max(now.UnixMilli()-idEpoch, 0))
	tick := ms << seqBits
	if prev := uint64(last) >> shardBits; tick <= prev {
		tick = prev + 1
	}
	return ID(tick<<shardBits | uint64(shard)&(MaxShards-1))
}

// Shard is the number of the shard that minted the ID, in 0..255.
func (id ID) Shard() int { return int(id & (MaxShards - 1)) }

// Time is when the ID was minted, to the millisecond.
func (id ID) Time() time.Time {
	return time.UnixMilli(int64(uint64(id)>>(shardBits+seqBits)) + idEpoch)
}

// Append appends the 13 characters of the ID to dst.
func (id ID) Append(dst []byte) []byte {
	var b [IDLength]byte
	for i := IDLength - 1; i >= 0; i-- {
		b[i] = alphabet[id&31]
		id >>= 5
	}
	return append(dst, b[:]...)
}

func (id ID) String() string { return string(id.Append(nil)) }

// ErrID is what ParseID answers to anything but 13 characters of base32.
var ErrID = errors.New("not a message id: want 13 characters of 0-9 A-Z without I, L, O, U")

// ParseID reads a printed ID, in either case. It accepts nothing but what String prints.
func ParseID(s string) (ID, error) {
	if len(s) != IDLength || decoding[s[0]] > 15 { // 13 characters carry 65 bits
		return 0, fmt.Errorf("%q: %w", s, ErrID)
	}
	var id ID
	for i := range len(s) {
		v := decoding[s[i]]
		if v < 0 {
			return 0, fmt.Errorf("%q: %w", s, ErrID)
		}
		id = id<<5 | ID(v)
	}
	return id, nil
}
