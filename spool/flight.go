package spool

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"net/netip"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/VictoriaMetrics/metrics"
	"golang.org/x/sys/unix"

	"mailrace/proto/message"
)

// Flight is a delivery in flight: the last octet of a message was handed to a connection, or is about to be, and what became of it for a
// recipient is not durable yet. Whoever goes down now does not know whether the peer took the message.
type Flight struct {
	ID      message.ID
	Index   int            // of the recipient
	Attempt uint16         // number of the attempt, from 1
	Began   int64          // Unix nanoseconds
	Peer    netip.AddrPort // whom it is delivered to
}

// Mark names the place of a Flight in the table of those in flight. 0 = it has none.
type Mark uint32

const (
	slotSize = 64
	// slotBlock is how many slots a Marker takes from the table at once.
	slotBlock = 64
	// slotStep is how many slots the file of the table grows by.
	slotStep = 1024
	// slotMax bounds the table: 16 MiB.
	slotMax = 1 << 18
	// A Marker looks at slotProbes of its slots, or a quarter of them, but no more than slotProbesMax, before it takes more: those of slow deliveries
	// stand together.
	slotProbes, slotProbesMax = 8, 1024
)

// slot is the place of a Flight in the table. It belongs to a Marker, whose loop fills it, but for the seal, which the committer empties.
type slot struct {
	seal    atomic.Uint32 // 0 = free; else the checksum of what is behind it. Written last, and emptied first
	index   uint32
	id      uint64
	began   int64
	addr    [16]byte
	port    uint16
	attempt uint16
	family  uint16 // 4 or 6, 0 = no address
	_       [slotSize - 46]byte
}

// checksum is what the seal shall be, never 0. It tells a slot that is half filled, not one that somebody made up.
func (s *slot) checksum() uint32 {
	sum := uint64(s.index)<<32 | uint64(s.family)
	for _, word := range [...]uint64{
		s.id, uint64(s.began), uint64(s.port)<<16 | uint64(s.attempt),
		binary.LittleEndian.Uint64(s.addr[:8]), binary.LittleEndian.Uint64(s.addr[8:]),
	} {
		sum = bits.RotateLeft64((sum^word)*0x9e3779b97f4a7c15, 29)
	}
	return max(uint32(sum>>32)^uint32(sum), 1)
}

// fill writes f. The slot is free, and the caller's.
func (s *slot) fill(f *Flight) {
	s.index, s.id, s.began, s.attempt, s.port, s.family = uint32(f.Index), uint64(f.ID), f.Began, f.Attempt, f.Peer.Port(), 0
	switch a := f.Peer.Addr(); {
	case !a.IsValid():
		s.addr = [16]byte{}
	case a.Is4():
		s.addr, s.family = a.As16(), 4
	default:
		s.addr, s.family = a.As16(), 6
	}
	s.seal.Store(s.checksum())
}

// read returns what is in the slot. used says that it is not free, ok that it can be read: it may be filled or emptied meanwhile, or have been so
// when the process ended.
func (s *slot) read() (f Flight, used, ok bool) {
	seal := s.seal.Load()
	if seal == 0 {
		return f, false, false
	}
	copied := &slot{index: s.index, id: s.id, began: s.began, addr: s.addr, port: s.port, attempt: s.attempt, family: s.family}
	if copied.checksum() != seal {
		return f, true, false
	}
	f = Flight{ID: message.ID(copied.id), Index: int(copied.index), Attempt: copied.attempt, Began: copied.began}
	switch a := netip.AddrFrom16(copied.addr); copied.family {
	case 4:
		f.Peer = netip.AddrPortFrom(a.Unmap(), copied.port)
	case 6:
		f.Peer = netip.AddrPortFrom(a, copied.port)
	}
	return f, true, f.ID != 0 && f.Attempt != 0 && copied.index < 1<<31
}

// flights is the table of what is in flight. It lives in memory that outlives the process: a file that is mapped, on a file system in memory where
// there is one. A mark costs a few stores, whoever reads it next. See openFlights.
//
// Slots are handed to Markers in blocks, and are theirs for good. A Marker fills a slot that is free; the committer of the message's shard empties
// it when what became of the delivery is durable. What a process finds when it opens the table keeps its slots until Resolve has noted it.
type flights struct {
	file  *tableFile // nil = memory of this process
	mem   []byte     // header and slots, mapped as a whole; what is behind backed must not be touched
	slots []slot

	mu     sync.Mutex
	closed bool
	backed int          // slots that have memory
	handed atomic.Int32 // slots that Markers have, or that are passed over

	found []found // by openFlights
	left  *tableFile
	noted atomic.Bool // found is in the shards: they may hold what is in flight now

	unmarked, unreadable *metrics.Counter
}

// found is what a table had when it was opened.
type found struct {
	flight Flight
	slot   *slot
}

const tableHeader = 4096

// tableMagic begins a table. It is in the byte order of the machine, as the table is.
var tableMagic = [2]uint64{binary.NativeEndian.Uint64([]byte("mailrace")), 0x0001_0040_0000_0001}

// memoryFlights is a table in memory of the process: it serves only what the shards hold of it.
func memoryFlights() (*flights, error) {
	mem, err := unix.Mmap(-1, 0, tableHeader+slotMax*slotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	f := newFlights(mem)
	f.backed = slotMax
	return f, nil
}

func newFlights(mem []byte) *flights {
	return &flights{mem: mem, slots: unsafe.Slice((*slot)(unsafe.Pointer(&mem[tableHeader])), (len(mem)-tableHeader)/slotSize)}
}

// take hands out a block of slots, without those that are in use, and goes on where all of them are.
func (f *flights) take(dst []Mark) ([]Mark, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for had := len(dst); len(dst) == had; {
		from := int(f.handed.Load())
		to := from + slotBlock
		if to > slotMax {
			return dst, errTableFull
		}
		if to > f.backed {
			if err := f.file.grow(f.backed + slotStep); err != nil {
				return dst, err
			}
			f.backed += slotStep
		}
		for i := from; i < to; i++ {
			if f.slots[i].seal.Load() == 0 {
				dst = append(dst, Mark(i+1))
			}
		}
		f.handed.Store(int32(to))
	}
	return dst, nil
}

var errTableFull = errors.New("it is full")

// free empties the slots of marks. The committer's.
func (f *flights) free(marks []Mark) {
	for _, m := range marks {
		f.slots[m-1].seal.Store(0)
	}
}

// each calls fn with everything that is in flight at about this moment. Any goroutine.
func (f *flights) each(fn func(Flight)) {
	for i := range f.slots[:f.handed.Load()] {
		if flight, _, ok := f.slots[i].read(); ok {
			fn(flight)
		}
	}
}

// count is how many slots are in use.
func (f *flights) count() (n int) {
	for i := range f.slots[:f.handed.Load()] {
		if f.slots[i].seal.Load() != 0 {
			n++
		}
	}
	return n
}

// figure is count for those who may come when the table is closed.
func (f *flights) figure() float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return 0
	}
	return float64(f.count())
}

// close unmaps the table, and removes its file when nothing is in flight. Nobody uses it any more.
func (f *flights) close() error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	idle := f.count() == 0 && f.noted.Load()
	err := unix.Munmap(f.mem)
	if f.file != nil {
		err = errors.Join(err, f.file.close(idle))
	}
	if f.left != nil {
		err = errors.Join(err, f.left.close(false))
	}
	return err
}

// Marker marks deliveries as in flight. It belongs to one goroutine, as of an event loop.
type Marker struct {
	flights *flights
	own     []Mark // its slots, in use or not
	next    int    // the one that was in use for longest
	refused bool   // no more slots were to be had
	log     func(error)
}

// Marker returns a new Marker, for one goroutine.
func (s *Spool) Marker() *Marker {
	return &Marker{flights: s.flights, log: func(err error) {
		s.options.Log.Error("spool: no more deliveries can be marked as in flight; they go on, and will not be listed as in doubt after a crash", "error", err)
	}}
}

// Unset takes back a mark of this Marker's, for a delivery that turned out not to have begun.
func (m *Marker) Unset(mark Mark) {
	if mark != 0 {
		m.flights.slots[mark-1].seal.Store(0)
	}
}

// Set marks a delivery before the last octet of its message leaves. The mark belongs to the caller, who passes it on with the Op that notes
// what became of the delivery (Op.Marks). It is 0 when there is no room, which is counted. It makes no system call but when more is in flight
// than ever before.
func (m *Marker) Set(f *Flight) Mark {
	for range min(max(slotProbes, len(m.own)/4), slotProbesMax, len(m.own)) {
		mark := m.own[m.next]
		if m.next++; m.next == len(m.own) {
			m.next = 0
		}
		if s := &m.flights.slots[mark-1]; s.seal.Load() == 0 {
			s.fill(f)
			return mark
		}
	}
	n := len(m.own)
	own, err := m.flights.take(m.own)
	if m.own = own; len(own) == n {
		if err != nil && !m.refused {
			m.refused = true
			m.log(err)
		}
		m.flights.unmarked.Inc()
		return 0
	}
	m.next = n
	mark := m.own[n]
	m.next = (n + 1) % len(m.own)
	m.flights.slots[mark-1].fill(f)
	return mark
}
