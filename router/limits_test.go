package router

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"mailrace/proto/message"
)

// TestPeerLimits: a peer never gets more than it said it takes; everybody arrives at the first attempt all the same.
func TestPeerLimits(t *testing.T) {
	for _, limits := range []Limits{{}, {Recipients: 1}, {Recipients: 3}, {Messages: 1}, {Messages: 2, Recipients: 2}, {Domains: 1}, {Domains: 2}, {1, 1, 1}, {5, 4, 3}} {
		for _, connections := range []int{1, 5} {
			t.Run(fmt.Sprint(limits, connections), func(t *testing.T) { testPeerLimits(t, limits, connections) })
		}
	}
}

func testPeerLimits(t *testing.T, limits Limits, connections int) {
	s := newSim(t, 2, 1, func(o *Options) { o.SiteConnections, o.Recipients = connections, 10 })
	h := s.host("192.0.2.1")
	h.limits, h.window, h.sessions = limits, 2, map[*conn][]string{}
	for _, d := range []string{"a", "b", "c", "d"} {
		s.mx(d+".test", "10 mx.test 192.0.2.1")
	}
	recipients := 0
	for i := range 40 {
		var to []string
		for k := range 1 + i%7 {
			to = append(to, fmt.Sprintf("%d.%d@%c.test", i, k, 'a'+rune(i+k*k)%4))
		}
		to[0] = strings.ToUpper(to[0])
		recipients += len(to)
		s.send(i%2, to...)
	}
	s.run(time.Hour)
	if len(h.got) != recipients {
		t.Errorf("%d of %d recipients", len(h.got), recipients)
	}
	for _, e := range s.log {
		if e.state != message.Delivered || e.out.Attempt != 1 {
			t.Errorf("%s: %v at attempt %d", e.address, e.state, e.out.Attempt)
		}
	}
	for _, take := range h.takes {
		if limits.Recipients > 0 && len(take) > limits.Recipients {
			t.Errorf("%d recipients in a transaction", len(take))
		}
	}
	for c, took := range h.sessions {
		domains := map[string]bool{}
		for _, address := range took {
			domains[strings.ToLower(address[strings.IndexByte(address, '@'):])] = true
		}
		if limits.Domains > 0 && len(domains) > limits.Domains || limits.Messages > 0 && c.n > limits.Messages {
			t.Errorf("%d transactions with %d domains in a session", c.n, len(domains))
		}
	}
	s.finish(recipients)
}

// TestPriorities: of what waits for a site the highest priority goes first, and within a priority what came first.
func TestPriorities(t *testing.T) {
	s := newSim(t, 1, 1, func(o *Options) { o.SiteConnections = 1 })
	s.mx("a.test", "10 mx.test 192.0.2.1")
	h := s.host("192.0.2.1")
	s.send(0, "first@a.test")
	s.run(time.Second)
	h.latency = time.Second
	s.send(0, "under-way@a.test")
	s.run(time.Second + 100*time.Millisecond)
	var want []string
	for _, n := range []int8{9, 4, 1, 0, -1, -9} {
		for k := range 3 {
			want = append(want, fmt.Sprintf("%d.%d@a.test", n, k))
		}
	}
	for k := range 3 {
		for _, n := range []int8{0, -9, 4, -1, 9, 1} {
			s.wish(0, message.Wishes{Priority: n}, fmt.Sprintf("%d.%d@a.test", n, k))
		}
	}
	s.finish(2 + len(want))
	if got := strings.Join(h.got[2:], " "); got != strings.Join(want, " ") {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestLanes compares the lanes with a sorted list.
func TestLanes(t *testing.T) {
	s := newSim(t, 1, 7, nil)
	var l lanes
	var list []*Transaction // as they are to come out
	insert := func(t *Transaction, before bool) {
		p := priority(t.Message)
		at := 0
		for at < len(list) && (priority(list[at].Message) > p || !before && priority(list[at].Message) == p) {
			at++
		}
		list = append(list[:at], append([]*Transaction{t}, list[at:]...)...)
	}
	check := func() {
		t.Helper()
		recipients := 0
		for _, t := range list {
			recipients += t.open
		}
		if l.length != len(list) || l.recipients != recipients || (l.front().first == nil) != (len(list) == 0) {
			t.Fatalf("%d transactions, %d recipients, want %d, %d", l.length, l.recipients, len(list), recipients)
		}
	}
	for range 20_000 {
		switch n := s.rand.IntN(20); {
		case n < 8:
			tx := newTransaction(&message.Message{Recipients: make([]message.Recipient, 3)}, "a.test", 0)
			if n > 2 {
				tx.Message.Wishes = &message.Wishes{Priority: int8(s.rand.IntN(19) - 9)}
			}
			tx.add(0)
			if n == 7 {
				l.pushFront(tx)
				insert(tx, true)
				break
			}
			l.push(tx)
			insert(tx, false)
			more := newTransaction(tx.Message, "a.test", 0)
			more.add(1)
			if !l.merge(more, 2) || l.merge(more, 2) {
				t.Fatal("merge")
			}
		case n < 17:
			tx := l.pop()
			if tx == nil != (len(list) == 0) || tx != nil && tx != list[0] {
				t.Fatal("not in order")
			}
			if tx != nil {
				list = list[1:]
			}
		default:
			gone := map[*Transaction]bool{}
			l.all(func(t *Transaction) bool {
				gone[t] = s.rand.IntN(5) == 0
				return gone[t]
			})
			kept := list[:0]
			for _, t := range list {
				if !gone[t] {
					kept = append(kept, t)
				}
			}
			list = kept
		}
		check()
	}
}
