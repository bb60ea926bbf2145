package router

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"mailrace/proto/message"
)

// disk stands for the spool with its index of what is due, and for the pager.
type disk struct {
	sim     *sim
	entries map[message.ID]*message.Message // what is parked; Parked is when it is due
	writes  map[message.ID]int              // of index entries, ever
	reads   map[message.ID]int
	queries int
	asked   bool // whether sites may ask
}

// newDiskSim is newSim with a bound of the memory and a disk.
func newDiskSim(t testing.TB, loops, limit int, seed uint64, change func(*Options)) *sim {
	d := &disk{entries: map[message.ID]*message.Message{}, writes: map[message.ID]int{}, reads: map[message.ID]int{}, asked: true}
	var s *sim
	s = newSim(t, loops, seed, func(o *Options) {
		parking(o)
		o.InMemory = limit
		for loop := range o.Envs {
			o.Envs[loop].Fetch = func(q Query) { s.after(time.Millisecond, func() { d.fetch(loop, q) }) }
		}
		if change != nil {
			change(o)
		}
	})
	d.sim, s.disk = s, d
	return s
}

// accept takes a message in, as the engine does.
func (d *disk) accept(loop int, m *message.Message) {
	r, now := d.sim.router, d.sim.now.UnixNano()
	at := r.Place(m, now)
	if at == 0 {
		if r.Reserve(len(m.Recipients), 0) {
			d.sim.dispatch(loop, m)
			d.check()
			return
		}
		at = Plain(m.Arrived)
	}
	r.Waits(len(m.Recipients))
	m.Parked = at
	d.park(m)
}

// park puts a message on the disk: it can be read a moment later.
func (d *disk) park(m *message.Message) {
	s := d.sim
	m.SetPending(m.Unsettled())
	d.writes[m.ID]++
	s.after(time.Millisecond, func() {
		d.entries[m.ID] = m
		d.arm(m.ID, m.Parked)
		s.router.Indexed(m.Parked)
	})
}

// find has a router that was just started find what was parked before, and returns how many messages that is.
func (d *disk) find(parked map[message.ID]*message.Message) int {
	for id, m := range parked {
		d.entries[id] = m
		d.arm(id, m.Parked)
		d.sim.router.Waits(m.Unsettled())
		d.sim.router.Found(m)
	}
	return len(parked)
}

// arm looks at an entry when it is due.
func (d *disk) arm(id message.ID, at int64) {
	d.sim.after(time.Duration(at-d.sim.now.UnixNano()), func() {
		m := d.entries[id]
		if m == nil || m.Parked != at {
			return
		}
		if later := d.sim.router.PutOff(at, m.Arrived, d.sim.now.UnixNano()); later != 0 {
			m.Parked = later
			d.writes[id]++
			d.arm(id, later)
			d.sim.router.Indexed(later)
			return
		}
		if !d.read(d.sim.rand.IntN(len(d.sim.router.schedulers)), m) {
			d.sim.after(20*time.Millisecond, func() { d.arm(id, at) })
		}
	})
}

// read brings a message back if there is room.
func (d *disk) read(loop int, m *message.Message) bool {
	if !d.sim.router.Reserve(m.Pending(), 0) {
		return false
	}
	delete(d.entries, m.ID)
	d.reads[m.ID]++
	d.sim.router.Dispatch(loop, m)
	d.check()
	return true
}

func (d *disk) fetch(loop int, q Query) {
	d.queries++
	var found []*message.Message
	for _, m := range d.entries {
		if d.asked && Tag(m.Parked) == q.Tag && m.Parked >= q.From {
			found = append(found, m)
		}
	}
	slices.SortFunc(found, func(a, b *message.Message) int {
		if a.Parked != b.Parked {
			return int(a.Parked>>tagBits) - int(b.Parked>>tagBits)
		}
		return int(a.ID) - int(b.ID)
	})
	next, n := int64(math.MaxInt64), 0
	for _, m := range found {
		if n >= q.Recipients || !d.read(loop, m) {
			next = m.Parked
			break
		}
		n += m.Pending()
	}
	pause := time.Duration(0)
	if n == 0 && next != math.MaxInt64 {
		pause = 20 * time.Millisecond
	}
	d.sim.after(pause, func() { d.sim.router.Fetched(loop, q.Tag, next) })
}

// check asserts that the memory is within its bound, and that what is counted is there.
func (d *disk) check() {
	r := d.sim.router
	if held := r.room.held.Load(); held > r.room.limit || held < r.Active() {
		d.sim.t.Fatalf("%d recipients in memory, at most %d are allowed, %d are under way", held, r.room.limit, r.Active())
	}
}

// written is how often messages were written to the index, as in "1×900 2×100".
func (d *disk) written() (most int, text string) {
	count := map[int]int{}
	for _, n := range d.writes {
		count[n]++
		most = max(most, n)
	}
	for _, n := range slices.Sorted(maps.Keys(count)) {
		text += fmt.Sprintf(" %d×%d", n, count[n])
	}
	return most, strings.TrimSpace(text)
}

// finishDisk is finish with nothing left on the disk.
func (s *sim) finishDisk(recipients int) {
	s.t.Helper()
	s.finish(recipients)
	if len(s.disk.entries) > 0 || s.router.room.held.Load() != 0 {
		s.t.Errorf("%d messages are on the disk, %d recipients in memory", len(s.disk.entries), s.router.room.held.Load())
	}
}

// slowSite makes slow.test, which takes so many messages a second over five connections, and fast.test.
func (s *sim) slowSite(perSecond int) *host {
	s.mx("slow.test", "10 mx.slow.test 192.0.2.1")
	s.mx("fast.test", "10 mx.fast.test 192.0.2.2")
	h := s.host("192.0.2.1")
	h.latency = 5 * time.Second / time.Duration(perSecond)
	s.host("192.0.2.2")
	return h
}

func fiveConnections(o *Options) { o.SiteConnections = 5 }

// disorder is how far a host took mail from the order in which it was handed in, at most: messages that came later and went before.
func disorder(got []string) (most int) {
	highest := -1
	for i, address := range got {
		n := 0
		fmt.Sscanf(address, "u%d@", &n)
		highest = max(highest, n)
		most = max(most, highest-n, i-n)
	}
	return most
}

// TestSlowSite: a site with ten times as much mail as fits into memory does not make the mail of others wait; its own comes in its order, once,
// and is written once.
func TestSlowSite(t *testing.T) {
	const limit, n = 1000, 10_000
	s := newDiskSim(t, 2, limit, 1, fiveConnections)
	h := s.slowSite(10)
	for i := range n {
		s.disk.accept(i%2, s.message(fmt.Sprintf("u%d@slow.test", i)))
		if i%20 == 0 {
			s.run(s.now.Sub(start) + 10*time.Millisecond)
		}
	}
	others := 0
	for s.now.Sub(start) < 900*time.Second {
		m := s.message(fmt.Sprintf("o%d@fast.test", others))
		s.disk.accept(others%2, m)
		others++
		s.run(s.now.Sub(start) + 500*time.Millisecond)
		if got := len(s.host("192.0.2.2").got); got != others || s.disk.writes[m.ID] > 0 {
			t.Fatalf("%d of %d messages to the other site are delivered, %d have to wait on the disk", got, others, s.disk.writes[m.ID])
		}
		s.disk.check()
		if held := s.router.room.held.Load(); len(h.got) < n*3/4 && (held < limit/8 || held > limit*5/8) {
			t.Fatalf("after %v %d recipients are in memory", s.now.Sub(start), held)
		}
	}
	s.finishDisk(n + others)
	if len(h.got) != n {
		t.Errorf("%d of %d arrived", len(h.got), n)
	}
	most, text := s.disk.written()
	reads := 0
	for _, r := range s.disk.reads {
		reads = max(reads, r)
	}
	t.Logf("index writes × messages: %s; read %d times at most; %d queries; disorder %d", text, reads, s.disk.queries, disorder(h.got))
	if most > 2 || reads > 2 || disorder(h.got) > limit {
		t.Errorf("written %d times, read %d times, disorder %d", most, reads, disorder(h.got))
	}
	for _, e := range s.log {
		if e.state != message.Delivered || e.out.Attempt != 1 {
			t.Fatalf("%+v", e)
		}
	}
}
