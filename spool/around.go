package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// maxGaps bounds the places of a kind of record that a walk leaps over.
const maxGaps = 10_000

// visit gets a record, or why its value alone cannot be read. Key and value are its own until it returns.
type visit func(key, value []byte, broken error) error

// walk calls fn with the records from a key on, below upper, until fn has an error, which is err, or until it comes to a place that cannot be
// read: broken says why, and last is where the walk was before.
type walkFunc func(from, upper []byte, fn visit) (last []byte, broken, err error)

// around walks over the records of a kind that can be read, leaping over those that cannot. edges are keys where files begin and end, in
// order. gap is told of each leap: behind which key, and why.
func around(walk walkFunc, edges [][]byte, kind byte, fn visit, gap func(after []byte, cause error)) error {
	from, upper := []byte{kind}, []byte{kind + 1}
	for gaps := 0; from != nil; gaps++ {
		last, broken, err := walk(from, upper, fn)
		if err != nil || broken == nil {
			return err
		}
		if gaps == maxGaps {
			return fmt.Errorf("more than %d places cannot be read, the last behind %x: %w", maxGaps, last, broken)
		}
		gap(last, broken)
		from = nextReadable(walk, edges, last, upper)
	}
	return nil
}

// nextReadable is the first key behind last from which on a walk can begin, as far as edges, and halving the space between them, find it; nil
// if there is none.
func nextReadable(walk walkFunc, edges [][]byte, last, upper []byte) []byte {
	readable := func(key []byte) bool {
		_, broken, err := walk(key, upper, func([]byte, []byte, error) error { return errEnough })
		return errors.Is(err, errEnough) || err == nil && broken == nil
	}
	kind := last[0]
	bad, good := last, numberKey(kind, 1<<64-1)
	for _, edge := range edges {
		if bytes.Compare(edge, last) <= 0 || bytes.Compare(edge, upper) >= 0 {
			continue
		}
		if readable(edge) {
			good = edge
			break
		}
		bad = edge
	}
	lo, hi := keyNumber(bad), keyNumber(good)
	for lo+1 < hi {
		if mid := lo + (hi-lo)/2; readable(numberKey(kind, mid)) {
			hi = mid
		} else {
			lo = mid
		}
	}
	if found := numberKey(kind, hi); bytes.Compare(found, last) > 0 && readable(found) {
		return found
	}
	if bytes.Compare(good, last) > 0 && readable(good) {
		return good
	}
	return nil
}

func keyNumber(key []byte) uint64 {
	var b [8]byte
	copy(b[:], key[1:])
	return binary.BigEndian.Uint64(b[:])
}

func numberKey(kind byte, n uint64) []byte { return binary.BigEndian.AppendUint64([]byte{kind}, n) }

// walkReader walks over what a store holds, with values or without.
func walkReader(reader pebble.Reader, values bool) walkFunc {
	return func(from, upper []byte, fn visit) (last []byte, broken, err error) {
		last = bytes.Clone(from)
		it, err := reader.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: upper})
		if err != nil {
			return last, err, nil
		}
		defer func() { _ = it.Close() }() // its error is that of the walk
		for it.First(); it.Valid(); it.Next() {
			last = append(last[:0], it.Key()...)
			var value []byte
			var cause error
			if values {
				value, cause = valueOf(it)
			}
			if err := fn(last, value, cause); err != nil {
				return last, nil, err
			}
		}
		return last, it.Error(), nil
	}
}
