package spool

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"mailrace/proto/message"
)

// What is in flight of the messages of a shard stands in a record of the shard, for a crash that takes the table away: that of the machine. The
// record rides in a batch that is written anyway, and costs no sync. It is the whole of what was in flight then; what a crash finds of it and is
// noted as ended is none of it any more.

const (
	flightsVersion = 1
	flightsKeyLen  = 1 + 1

	// flightsShare is how much smaller than the batch that it rides in the record must be, or flightsEvery must have passed since the last.
	flightsShare = 16
	flightsEvery = 100 * time.Millisecond
	// flightsScan is how many slots are looked through for each batch; larger tables are every flightsEvery.
	flightsScan = 1 << 14
)

// aloft is what a committer knows of its record.
type aloft struct {
	record []byte
	bytes  int       // of the last one that was written
	empty  bool      // that said that nothing is in flight
	looked time.Time // into the table, for one
}

// noteFlights adds the record to a batch, if it is worth its bytes now.
func (sh *Shard) noteFlights(b *pebble.Batch) error {
	f, a := sh.spool.flights, &sh.aloft
	if f == nil || !f.noted.Load() {
		return nil
	}
	now := time.Now()
	if (b.Len() < flightsShare*a.bytes || f.handed.Load() > flightsScan) && now.Sub(a.looked) < flightsEvery {
		return nil
	}
	a.looked = now
	a.record = append(a.record[:0], flightsVersion, 0, 0, 0, 0)
	n := 0
	f.each(func(f Flight) {
		if sh.spool.ShardOf(f.ID) == sh {
			a.record = appendFlight(a.record, &f)
			n++
		}
	})
	if n == 0 && a.empty {
		return nil
	}
	seal(a.record)
	a.bytes, a.empty = len(a.record), n == 0
	d := b.SetDeferred(flightsKeyLen, len(a.record))
	putFlightsKey(d.Key, sh.index)
	copy(d.Value, a.record)
	return d.Finish()
}

// putFlightsKey writes the key of the record of a shard to dst. It has the number of the shard in it, so that those of several keep apart in one
// when the spool gets fewer.
func putFlightsKey(dst []byte, shard int) { dst[0], dst[1] = kindFlights, byte(shard) }

// ownerInFlights makes records of what is in flight move with the messages whose ids have the number of the shard in it.
func ownerInFlights(key, _ []byte) message.ID {
	if len(key) != flightsKeyLen {
		return 0
	}
	return message.ID(key[1])
}

func appendFlight(dst []byte, f *Flight) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(f.ID))
	dst = binary.AppendUvarint(dst, uint64(f.Index))
	dst = binary.AppendUvarint(dst, uint64(f.Attempt))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(f.Began))
	return appendPeer(dst, f.Peer)
}

// appendPeer appends an address: its family, 0, 4 or 6, its octets, and the port.
func appendPeer(dst []byte, p netip.AddrPort) []byte {
	switch a := p.Addr(); {
	case !a.IsValid():
		return append(dst, 0)
	case a.Is4():
		octets := a.As4()
		dst = append(append(dst, 4), octets[:]...)
	default:
		octets := a.As16()
		dst = append(append(dst, 6), octets[:]...)
	}
	return binary.LittleEndian.AppendUint16(dst, p.Port())
}

// peerLen is the length of an address in a record.
func peerLen(p netip.AddrPort) int {
	switch a := p.Addr(); {
	case !a.IsValid():
		return 1
	case a.Is4():
		return 1 + 4 + 2
	}
	return 1 + 16 + 2
}

func (r *fields) peer() (p netip.AddrPort) {
	n := map[byte]int{0: 0, 4: 4, 6: 16}
	family := r.byte()
	size, known := n[family]
	if !known {
		r.bad = true
	}
	if size == 0 {
		return p
	}
	octets, port := r.skip(size), r.skip(2)
	if r.bad {
		return p
	}
	a, _ := netip.AddrFromSlice(octets)
	return netip.AddrPortFrom(a, binary.LittleEndian.Uint16(port))
}

// decodeFlights reads a record of what is in flight.
func decodeFlights(b []byte) (list []Flight, err error) {
	r, err := open(b, flightsVersion)
	if err != nil {
		return nil, fmt.Errorf("in flight: %w", err)
	}
	for len(r.b) > 0 && !r.bad {
		f := Flight{ID: message.ID(r.uint64())}
		index, attempt := r.uvarint(), r.uvarint()
		f.Index, f.Attempt, f.Began = int(index), uint16(attempt), int64(r.uint64())
		f.Peer = r.peer()
		if index >= 1<<31 || attempt == 0 || attempt > 1<<16-1 || f.ID == 0 {
			r.bad = true
		}
		list = append(list, f)
	}
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("in flight: %w", err)
	}
	return list, nil
}

// readFlights returns what the records of a shard say was in flight, with their keys. Those that cannot be read are moved aside, by b.
func (sh *Shard) readFlights(b *pebble.Batch) (list []Flight, keys [][]byte, err error) {
	err = each(sh.db, kindFlights, func(it *pebble.Iterator) error {
		value, err := valueOf(it)
		if err != nil {
			return err
		}
		key := append([]byte(nil), it.Key()...)
		keys = append(keys, key)
		more, err := decodeFlights(value)
		if err != nil {
			sh.corrupt.Inc()
			_ = sh.logUnreadable(it, err)
			return b.Set(append([]byte{kindCorrupt}, key...), value, nil)
		}
		list = append(list, more...)
		return nil
	})
	return list, keys, err
}
