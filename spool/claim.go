package spool

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"mailrace/proto/message"
)

// Claim says that the idempotency key of an injection belongs to a message, and until when. It is stored with the message, by the same Op,
// so that after a crash both are there or neither is; it outlives the message, which may be delivered and removed long before.
type Claim struct {
	Key     ClaimKey
	ID      message.ID // of the message; in an Op the one that it appends
	Expires int64      // Unix nanoseconds; 0 = no claim
}

// ClaimKey stands for an idempotency key and the tenant that used it: the first 128 bits of a SHA-256.
type ClaimKey [claimKeyLen]byte

const claimKeyLen = 16

// NewClaimKey hashes a tenant's idempotency key. It allocates nothing where the two have up to 500 octets together.
func NewClaimKey(tenant, key string) ClaimKey {
	var room [512]byte
	b := binary.AppendUvarint(room[:0], uint64(len(tenant))) // no tenant can use what is another's
	b = append(b, tenant...)
	b = append(b, key...)
	sum := sha256.Sum256(b)
	return ClaimKey(sum[:claimKeyLen])
}

const (
	claimVersion = 1
	claimSize    = recordHeader + 8 + 8 + claimKeyLen
)

// A claim's key in the store begins with its expiry, so that all that expired before a moment are one range.
const claimRecordKeyLen = 1 + 8 + claimKeyLen

func putClaimKey(dst []byte, c *Claim) {
	dst[0] = kindClaim
	binary.BigEndian.PutUint64(dst[1:], uint64(c.Expires))
	copy(dst[1+8:], c.Key[:])
}

// appendClaim appends c's record to dst.
func appendClaim(dst []byte, c *Claim) []byte {
	start := len(dst)
	dst = append(dst, claimVersion, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(c.ID))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(c.Expires))
	dst = append(dst, c.Key[:]...)
	seal(dst[start:])
	return dst
}

// decodeClaim reads a claim record.
func decodeClaim(b []byte) (c Claim, err error) {
	r, err := open(b, claimVersion)
	if err != nil {
		return c, fmt.Errorf("claim: %w", err)
	}
	c.ID, c.Expires = message.ID(r.uint64()), int64(r.uint64())
	copy(c.Key[:], r.skip(claimKeyLen))
	if err := r.end(); err != nil {
		return c, fmt.Errorf("claim: %w", err)
	}
	if c.ID == 0 || c.Expires <= 0 {
		return c, fmt.Errorf("claim: %w: of message %v, expires at %d", errRecord, c.ID, c.Expires)
	}
	return c, nil
}

// encodeClaims adds the claim of an Op to the batch, and drops those that have expired.
func encodeClaims(b *pebble.Batch, op *Op) error {
	if op.Claim.Expires != 0 {
		c := op.Claim
		c.ID = op.Append.ID
		d := b.SetDeferred(claimRecordKeyLen, claimSize)
		putClaimKey(d.Key, &c)
		appendClaim(d.Value[:0], &c)
		if err := d.Finish(); err != nil {
			return err
		}
	}
	if op.Expire == 0 {
		return nil
	}
	var upper [1 + 8]byte
	upper[0] = kindClaim
	binary.BigEndian.PutUint64(upper[1:], uint64(op.Expire))
	return b.DeleteRange([]byte{kindClaim}, upper[:], nil)
}

// Claims calls fn with every claim that has not expired, in no particular order. Unreadable ones are moved aside, counted and logged: the
// repetition of such an injection will be taken for a new one. An error of fn ends it and is returned. Call it once, before Appends with claims.
func (s *Spool) Claims(fn func(Claim) error) error {
	if err := s.Wait(); err != nil {
		return err
	}
	now := s.options.Now().UnixNano()
	for _, sh := range s.shards {
		if err := sh.claims(now, fn); err != nil {
			return fmt.Errorf("reading the claims of shard %d of %s: %w", sh.index, s.options.Path, err)
		}
	}
	return nil
}

func (sh *Shard) claims(now int64, fn func(Claim) error) (err error) {
	r := &repair{sh: sh, batch: sh.db.NewBatch()}
	defer func() { err = errors.Join(err, r.batch.Close()) }()
	unreadable := r.moveAside
	if sh.spool.options.ReadOnly {
		unreadable = sh.logUnreadable
	}
	err = each(sh.db, kindClaim, func(it *pebble.Iterator) error {
		c, err := readClaim(it)
		switch {
		case errors.Is(err, errRecord):
			return unreadable(it, err)
		case err == nil && c.Expires > now:
			return fn(c)
		}
		return err
	})
	if err != nil {
		return err
	}
	return r.flush(1)
}

// readClaim reads the claim on which an iterator stands.
func readClaim(it *pebble.Iterator) (Claim, error) {
	value, err := valueOf(it)
	if err != nil {
		return Claim{}, err
	}
	c, err := decodeClaim(value)
	if err != nil {
		return c, err
	}
	var want [claimRecordKeyLen]byte
	putClaimKey(want[:], &c)
	if string(it.Key()) != string(want[:]) {
		return c, fmt.Errorf("claim: %w: stands at %x", errRecord, it.Key())
	}
	return c, nil
}

// Expire drops the claims that expire before a moment, in Unix nanoseconds, with one range for each shard. Any goroutine.
func (s *Spool) Expire(before int64) {
	for _, sh := range s.shards {
		op := NewOp()
		op.Expire, op.Origin = before, -1
		sh.Enqueue(op)
	}
}
