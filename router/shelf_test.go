package router

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"mailrace/proto/message"
)

// touched is how often messages were read and written since the start.
func (d *disk) touched() (n int) {
	for _, m := range []map[message.ID]int{d.writes, d.reads} {
		for _, times := range m {
			n += times
		}
	}
	return n
}

// TestShelf: ten thousand messages for a site that is down cost one write each, and its probes a few reads and writes, however many wait. Each expires in
// its time.
func TestShelf(t *testing.T) {
	const many = 10_000
	s := newDiskSim(t, 2, 50_000, 1, func(o *Options) { o.SiteRetryMax, o.Expire = 30*time.Minute, 24*time.Hour })
	s.mx("down.test", "10 mx.down.test 192.0.2.1")
	s.host("192.0.2.1").down = true
	s.recording = false
	waiting := make([]*message.Message, many)
	for i := range waiting {
		s.run(time.Duration(i) * 100 * time.Millisecond)
		waiting[i] = s.message(fmt.Sprintf("u%d@down.test", i))
		s.disk.accept(i%2, waiting[i])
	}
	arrived := time.Duration(many) * 100 * time.Millisecond
	s.run(arrived + time.Hour)
	for range 10 { // hours, in which none comes back for its way to be found afresh
		before, dialed := s.disk.touched(), len(s.dials)
		s.run(s.now.Sub(start) + time.Hour)
		probes := len(s.dials) - dialed
		if probes < 1 || probes > 3 {
			t.Fatalf("%d probes in an hour", probes)
		}
		if got := s.disk.touched() - before; got > probes*2*2*probesMost {
			t.Fatalf("%d reads and writes for %d probes", got, probes)
		}
	}
	if most, text := s.disk.written(); len(s.disk.writes) != many {
		t.Errorf("%d messages written, %d times at most: %s", len(s.disk.writes), most, text)
	}
	once := 0
	for _, n := range s.disk.writes {
		if n == 1 {
			once++
		}
	}
	if once < many-10*probesMost {
		t.Errorf("%d of %d were written once", once, many)
	}
	attempts := 0
	for _, m := range s.disk.entries {
		attempts += int(m.Recipients[0].Attempts)
	}
	if attempts > len(s.dials)*2*probesMost {
		t.Errorf("%d attempts were counted, with %d dials", attempts, len(s.dials))
	}
	s.recording = true
	s.finishDisk(many)
	if len(s.log) < many {
		t.Fatalf("%d ends", len(s.log))
	}
	for _, e := range s.log {
		var i int
		fmt.Sscanf(e.address, "u%d@", &i)
		due := time.Duration(i)*100*time.Millisecond + 24*time.Hour
		if e.state == message.Expired && (e.at < due || e.at > due+time.Second) {
			t.Fatalf("%s expired at %v, want %v", e.address, e.at, due)
		}
	}
}

// TestShelfIsEmptied: a site that comes back gets all that was shelved, in its order, and is probed also when the mail that was to do that is gone.
func TestShelfIsEmptied(t *testing.T) {
	const many = 2000
	for _, x := range []struct {
		name  string
		first bool // those that probe expire long before the others
		back  time.Duration
	}{{"soon", false, time.Minute}, {"late", false, 10 * time.Hour}, {"probes expired", true, 30 * time.Hour}} {
		t.Run(x.name, func(t *testing.T) {
			s := newDiskSim(t, 2, 10_000, 1, func(o *Options) {
				o.SiteRetryMax = 30 * time.Minute
				o.Policies = []Policy{{Tenants: []string{"hasty"}, Expire: 20 * time.Hour}}
			})
			s.mx("down.test", "10 mx.down.test 192.0.2.1")
			h := s.host("192.0.2.1")
			h.down = true
			s.recording = false
			for i := range many {
				m := s.message(fmt.Sprintf("u%d@down.test", i))
				if x.first && i < probesMost {
					m.Tenant = "hasty"
				}
				s.disk.accept(i%2, m)
			}
			s.run(x.back)
			h.down = false
			s.run(x.back + 2*time.Hour)
			want := many
			if x.first {
				want -= probesMost
			}
			if len(h.got) != want {
				t.Fatalf("%d of %d delivered, %d on the disk; %+v", len(h.got), want, len(s.disk.entries), s.router.Totals())
			}
			var shelved []string
			for _, address := range h.got {
				var i int
				if fmt.Sscanf(address, "u%d@", &i); i >= 3*probesMost { // some before have times of their own
					shelved = append(shelved, address)
				}
			}
			if n := disorder(shelved); n > 3*probesMost && !x.first {
				t.Errorf("out of order by %d", n)
			}
			s.finishDisk(many)
		})
	}
}

// TestShelfAcrossRestart: what was shelved before a start is delivered after it, though nothing of it is due for days; in a day or so where its domain has
// other hosts by then.
func TestShelfAcrossRestart(t *testing.T) {
	const many = 100
	for mx, within := range map[string]time.Duration{"10 old.test 192.0.2.1": 10 * time.Minute, "10 new.test 192.0.2.2": 48 * time.Hour} {
		before := newDiskSim(t, 1, 10_000, 1, nil)
		before.mx("down.test", "10 old.test 192.0.2.1")
		before.host("192.0.2.1").down = true
		for i := range many {
			before.disk.accept(0, before.message(fmt.Sprintf("u%d@down.test", i)))
		}
		before.run(time.Minute)
		maps.DeleteFunc(before.disk.entries, func(_ message.ID, m *message.Message) bool { return Tag(m.Parked) == 0 }) // it comes by itself
		after := newDiskSim(t, 3, 10_000, 2, nil)
		after.mx("down.test", mx)
		h := after.host(mx[len("10 xxx.test "):])
		after.now = before.now
		shelved := after.disk.find(before.disk.entries)
		after.run(within)
		if shelved < many-2*probesMost || len(h.got) != shelved {
			t.Errorf("%s: %d of %d delivered", mx, len(h.got), shelved)
		}
		after.finishDisk(shelved)
	}
}

// TestShelfTellsDelays: senders hear of delays in time, of mail that nobody tries.
func TestShelfTellsDelays(t *testing.T) {
	const many = 50
	s := newDiskSim(t, 1, 10_000, 1, func(o *Options) {
		o.SiteRetryMax, o.NoticeAll = 30*time.Minute, true
		o.Notices = []time.Duration{4 * time.Hour, 24 * time.Hour}
	})
	s.mx("down.test", "10 mx.down.test 192.0.2.1")
	s.host("192.0.2.1").down = true
	for i := range many {
		s.disk.accept(0, s.message(fmt.Sprintf("u%d@down.test", i)))
	}
	s.run(30 * time.Hour)
	punctual := 0
	told := map[string][]time.Duration{}
	for _, e := range s.log {
		if e.out.Notice {
			told[e.address] = append(told[e.address], e.at)
		}
	}
	for address, at := range told {
		if at[len(at)-1] < 24*time.Hour+time.Second {
			punctual++
		}
		if len(at) != 2 || at[0] < 4*time.Hour || at[0] > 5*time.Hour || at[1] < 24*time.Hour || at[1] > 29*time.Hour { // those that probe at their next attempt
			t.Errorf("%s: told at %v", address, at)
		}
	}
	if len(told) != many || punctual < many-2*probesMost {
		t.Errorf("%d were told, %d in the second", len(told), punctual)
	}
	s.finishDisk(many)
}

// TestDeadlineOfSlowSite: mail with a deadline that was put back for a site which stays slow is told of in time.
func TestDeadlineOfSlowSite(t *testing.T) {
	const many = 3000
	s := newDiskSim(t, 1, 400, 1, fiveConnections)
	s.slowSite(1)
	s.recording = false
	for i := range many {
		s.disk.accept(0, s.message(fmt.Sprintf("u%d@slow.test", i)))
	}
	s.recording = true
	deadline := 25 * time.Minute
	modes := map[string]message.ByMode{"notify@slow.test": message.ByNotify, "return@slow.test": message.ByReturn}
	for address, mode := range modes {
		m := s.message(address)
		m.Wishes = &message.Wishes{ByMode: mode, Deadline: in(deadline)}
		s.disk.accept(0, m)
	}
	s.run(2 * time.Hour)
	for address, mode := range modes {
		var at time.Duration
		for _, e := range s.log {
			if e.address == address && (e.out.Late || e.state == message.Bounced) && at == 0 {
				at = e.at
			}
		}
		if at < deadline || at > deadline+2*time.Second {
			t.Errorf("%v: told at %v, want %v; %s", mode, at, deadline, s.history(address))
		}
	}
	s.finishDisk(many + len(modes))
}

// TestShelfOfSources: what was shelved while hosts were down from all sources is delivered when they are up from one of them, or all.
func TestShelfOfSources(t *testing.T) {
	const many = 3000
	for _, blocked := range []string{"", "a"} {
		t.Run("blocked "+blocked, func(t *testing.T) {
			s := newDiskSim(t, 2, 20_000, 1, func(o *Options) {
				o.SiteRetryMax, o.Jitter = 10*time.Minute, -1
				o.Sources = []Source{{Name: "a", IPv4: true}, {Name: "b", IPv4: true}}
				o.Pools = []Pool{{Name: "p", Members: []Member{{"a", 1}, {"b", 1}}}}
				o.Pool = "p"
			})
			s.mx("down.test", "10 mx.down.test 192.0.2.1")
			h := s.host("192.0.2.1")
			h.down = true
			s.recording = false
			for i := range many {
				s.disk.accept(i%2, s.message(fmt.Sprintf("u%d@down.test", i)))
			}
			s.run(6 * time.Hour)
			before, dialed := s.disk.touched(), len(s.dials)
			s.run(10 * time.Hour)
			if got, probes := s.disk.touched()-before, len(s.dials)-dialed; probes == 0 || got > probes*4*probesMost {
				t.Errorf("%d reads and writes for %d probes", got, probes)
			}
			h.down, h.blocks = false, blocked
			s.run(13 * time.Hour) // those that probed may wait for their next attempt, in four hours
			if len(h.got) < many-2*probesMost {
				t.Errorf("%d of %d delivered", len(h.got), many)
			}
			s.finishDisk(many)
		})
	}
}
