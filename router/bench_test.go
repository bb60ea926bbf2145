package router

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"mailrace/proto/message"
	"mailrace/router/mx"
)

// still is an environment in which nothing takes time: Post runs from a list, connections stand at once.
type still struct {
	now    time.Time
	posted []func()
	done   int
	answer *mx.Answer
}

func (e *still) Cached(mx.Query) (*mx.Answer, bool)            { return e.answer, true }
func (e *still) Lookup(_ mx.Query, done func(*mx.Answer)) bool { done(e.answer); return true }

// puller settles all it gets at once.
type puller struct {
	link *Link
	out  Outcome
}

func (p *puller) Close() {}
func (p *puller) Wake() {
	for t := p.link.Next(); t != nil; t = p.link.Next() {
		p.out = delivered
		t.Sent()
		t.SettleAll(&p.out)
		t.Done()
	}
}

func (e *still) run() {
	for len(e.posted) > 0 {
		batch := e.posted
		e.posted = nil
		for _, fn := range batch {
			fn()
		}
	}
}

func newStill(b testing.TB, loops int, kind Kind) (*still, *Router) {
	e := &still{now: start}
	e.answer = &mx.Answer{Key: "mx.test", Hash: 1, Hosts: []mx.Host{{Name: "mx.test", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}, Expires: start.Add(time.Hour)}
	table, err := NewTable([]Route{{Domains: []string{"*"}, Kind: kind, Host: "relay.test", Port: 25}})
	if err != nil {
		b.Fatal(err)
	}
	o := Options{Table: table, Resolver: e, Messages: 1 << 60}
	buffer := make([]func(), 0, 16)
	for range loops {
		o.Envs = append(o.Envs, Env{
			Now:   func() time.Time { return e.now },
			After: func(time.Duration, func()) {},
			Post: func(fn func()) {
				if e.posted == nil {
					e.posted = buffer[:0]
				}
				e.posted = append(e.posted, fn)
			},
			Dial: func(l *Link) {
				e.posted = append(e.posted, func() { p := &puller{link: l}; l.Ready(p, Limits{}); p.Wake() })
			},
			Wait:   func(*message.Message, []int, int64) {},
			Settle: func(*message.Message, int, *Outcome) { e.done++ },
		})
	}
	r, err := New(o)
	if err != nil {
		b.Fatal(err)
	}
	return e, r
}

func benchmarkMessages(b *testing.B, loops, batch int, kind Kind) {
	e, r := newStill(b, loops, kind)
	ms := make([]*message.Message, batch)
	for i := range ms {
		ms[i] = &message.Message{Recipients: []message.Recipient{{Address: "user@example.com"}}, Arrived: start.UnixNano()}
	}
	b.ReportAllocs()
	for i := 0; i < b.N; i += batch {
		for _, m := range ms {
			m.Recipients[0].State = message.Pending
			r.Dispatch(0, m)
		}
		e.run()
	}
	if e.done < b.N {
		b.Fatalf("%d of %d settled", e.done, b.N)
	}
}

// From Dispatch over the mailbox, Next and Settle to Done, a message for one recipient. The figure is for one message.
func BenchmarkMessageMX(b *testing.B)        { benchmarkMessages(b, 2, 64, MX) }
func BenchmarkMessageHost(b *testing.B)      { benchmarkMessages(b, 2, 64, Host) }
func BenchmarkMessageAlone(b *testing.B)     { benchmarkMessages(b, 2, 1, Host) }
func BenchmarkMessageDiscarded(b *testing.B) { benchmarkMessages(b, 1, 64, Discard) }

func BenchmarkHundredRecipients(b *testing.B) {
	e, r := newStill(b, 2, MX)
	m := &message.Message{Recipients: make([]message.Recipient, 100), Arrived: start.UnixNano()}
	b.ReportAllocs()
	for b.Loop() {
		for i := range m.Recipients {
			m.Recipients[i] = message.Recipient{Address: "user@example.com"}
		}
		r.Dispatch(0, m)
		e.run()
	}
}

// TestMessagesDoNotAllocate: the whole way of a message costs no allocation.
func TestMessagesDoNotAllocate(t *testing.T) {
	if raceDetector {
		t.Skip("the detector empties pools at random")
	}
	for _, kind := range []Kind{MX, Host, Discard} {
		e, r := newStill(t, 2, kind)
		m := &message.Message{Recipients: []message.Recipient{{Address: "user@example.com"}}, Arrived: start.UnixNano()}
		send := func() {
			for range 100 {
				m.Recipients[0].State = message.Pending
				r.Dispatch(0, m)
				e.run()
			}
		}
		send()
		if n := testing.AllocsPerRun(50, send) / 100; n > 0.05 { // a collection may empty the pool
			t.Errorf("kind %d: %v allocations for a message", kind, n)
		}
	}
}

// TestDeferredMemory states what a recipient that waits costs beyond its message.
func TestDeferredMemory(t *testing.T) {
	if raceDetector {
		t.Skip("the detector takes memory of its own")
	}
	const n = 100_000
	_, r := newStill(t, 1, MX)
	ms := make([]message.Message, n)
	for i := range ms {
		ms[i] = message.Message{Recipients: []message.Recipient{{Address: "user@example.com", State: message.Deferred, Due: start.Add(time.Duration(i) * time.Second).UnixNano()}}}
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC() // empties the pools that earlier tests filled
	runtime.ReadMemStats(&before)
	for i := range ms {
		r.Dispatch(0, &ms[i])
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if per := float64(int64(after.HeapAlloc)-int64(before.HeapAlloc)) / n; per > 74 {
		t.Errorf("%.0f bytes for each", per)
	}
	runtime.KeepAlive(r)
	runtime.KeepAlive(ms)
}

// BenchmarkQueue measures a transaction that comes into the queue of a site behind a thousand others, and the first of them that leaves it.
func BenchmarkQueue(b *testing.B) {
	for name, priorities := range map[string]int{"priorities=1": 1, "priorities=19": 2*message.PriorityMax + 1} {
		b.Run(name, func(b *testing.B) {
			var l lanes
			for i := range 1000 {
				m := &message.Message{}
				if p := i%priorities - priorities/2; p != 0 {
					m.Wishes = &message.Wishes{Priority: int8(p)}
				}
				l.push(&Transaction{Message: m, open: 1})
			}
			b.ReportAllocs()
			for b.Loop() {
				l.push(l.pop())
			}
		})
	}
}

// BenchmarkChoose measures which source of a pool of eight is next at a site, by their weights.
func BenchmarkChoose(b *testing.B) {
	p := &sourcePool{}
	for i := range 8 {
		p.members = append(p.members, member{&source{Source: Source{IPv4: true}, place: i + 1}, int64(i + 1)})
	}
	s, f := &Scheduler{turns: []credits{make(credits, len(p.members))}}, &fork{sites: make([]*Site, len(p.members)+1), v4: true}
	b.ReportAllocs()
	for b.Loop() {
		f.choose(s, p, 1)
	}
}
