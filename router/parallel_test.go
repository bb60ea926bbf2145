package router

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailrace/proto/message"
	"mailrace/router/mx"
)

// goLoop is a loop on a goroutine of its own: functions run in the order in which they were posted.
type goLoop struct {
	mu      sync.Mutex
	waiting []func()
	bell    chan struct{}
	rand    *rand.Rand
}

func newGoLoop(seed uint64) *goLoop {
	return &goLoop{bell: make(chan struct{}, 1), rand: rand.New(rand.NewPCG(seed, 1))}
}

func (l *goLoop) post(fn func()) {
	l.mu.Lock()
	l.waiting = append(l.waiting, fn)
	l.mu.Unlock()
	select {
	case l.bell <- struct{}{}:
	default:
	}
}

func (l *goLoop) run(stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-l.bell:
		}
		l.mu.Lock()
		batch := l.waiting
		l.waiting = nil
		l.mu.Unlock()
		for _, fn := range batch {
			fn()
		}
	}
}

// loopConn answers each transaction on a later turn of its loop.
type loopConn struct {
	loop  *goLoop
	link  *Link
	under bool
}

func (c *loopConn) Wake()  { c.loop.post(c.pull) }
func (c *loopConn) Close() { c.loop.post(func() { c.link.Gone(GoneClosed, nil) }) }

func (c *loopConn) pull() {
	if c.under {
		return
	}
	t := c.link.Next()
	if t == nil {
		return
	}
	c.under = true
	c.loop.post(func() {
		if c.loop.rand.IntN(50) == 0 {
			c.link.Gone(GoneBroken, &Outcome{Text: "reset"})
			return
		}
		if t.Held && len(t.Message.Body) != 1 {
			panic("held content is gone")
		}
		for i := range t.Recipients {
			o := delivered
			if c.loop.rand.IntN(4) == 0 {
				o = later
			}
			t.Settle(i, &o)
		}
		t.Done()
		c.under = false
		c.pull()
	})
}

// fewSites resolves every domain to one of a few sites, on goroutines.
type fewSites struct{ known sync.Map }

func (f *fewSites) Cached(q mx.Query) (*mx.Answer, bool) {
	a, ok := f.known.Load(q)
	if !ok {
		return nil, false
	}
	return a.(*mx.Answer), true
}

func (f *fewSites) Lookup(q mx.Query, done func(*mx.Answer)) bool {
	go func() {
		n := uint64(len(q.Name) + int(q.Name[0]))
		a := &mx.Answer{Query: q, Key: fmt.Sprint("site", n%17), Hash: n % 17, Hosts: []mx.Host{{Name: "h", Addrs: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(n % 17)})}}}, Expires: time.Now().Add(time.Hour)}
		f.known.Store(q, a)
		done(a)
	}()
	return true
}

// parkOn has a message that left read again and dispatched on the loop when it is due.
func parkOn(l *goLoop, r *Router, loop int, m *message.Message, at int64) {
	read := &message.Message{ID: m.ID, Arrived: m.Arrived, Wishes: m.Wishes, Recipients: m.Recipients, Parked: at}
	read.SetPending(read.Unsettled())
	m.Recipients = nil
	time.AfterFunc(time.Until(time.Unix(0, at)), func() { l.post(func() { r.Dispatch(loop, read) }) })
}

// TestLoopsInParallel drives four loops on four goroutines, each message with recipients on several of them, until every recipient is settled.
func TestLoopsInParallel(t *testing.T) {
	const loops, messages = 4, 4000
	table, err := NewTable([]Route{{Domains: []string{"*"}}})
	if err != nil {
		t.Fatal(err)
	}
	var left atomic.Int64
	over := make(chan struct{})
	budget := message.NewBudget(1 << 30)
	o := Options{Table: table, Resolver: &fewSites{}, RetryMin: time.Millisecond, RetryMax: 10 * time.Millisecond, HostRetry: time.Millisecond, Park: true}
	var r *Router
	var parked atomic.Int64
	var all []*goLoop
	for i := range loops {
		l := newGoLoop(uint64(i))
		all = append(all, l)
		o.Envs = append(o.Envs, Env{
			Now:   time.Now,
			After: func(d time.Duration, fn func()) { time.AfterFunc(d, func() { l.post(fn) }) },
			Post:  l.post,
			Dial: func(link *Link) {
				l.post(func() { c := &loopConn{loop: l, link: link}; link.Ready(c, Limits{Recipients: 2}); c.pull() })
			},
			Settle: func(m *message.Message, _ int, out *Outcome) {
				if out.State.Settled() && m.End(1, true) == message.Waiting {
					parkOn(l, r, i, m, r.Leave(m))
				}
				if out.State.Settled() && left.Add(-1) == 0 {
					close(over)
				}
			},
			Wait: func(m *message.Message, _ []int, park int64) {
				if park != 0 {
					parked.Add(1)
					parkOn(l, r, i, m, park)
				}
			},
		})
	}
	if r, err = New(o); err != nil {
		t.Fatal(err)
	}
	var ms []*message.Message
	random := rand.New(rand.NewPCG(7, 7))
	for n := range messages {
		m := &message.Message{ID: message.ID(n + 1), Arrived: time.Now().UnixNano()}
		for range 1 + random.IntN(5) {
			m.Recipients = append(m.Recipients, message.Recipient{Address: fmt.Sprintf("u@%c%0*d.test", 'a'+random.IntN(20), 1+random.IntN(9), random.IntN(10))})
		}
		if random.IntN(3) == 0 {
			soon := func() int64 { return time.Now().Add(time.Duration(random.IntN(200)) * time.Millisecond).UnixNano() }
			m.Wishes = &message.Wishes{Priority: int8(random.IntN(19) - 9), ByMode: message.ByMode(random.IntN(3)), Deadline: soon(), Release: soon()}
		}
		m.SetPending(len(m.Recipients))
		left.Add(int64(len(m.Recipients)))
		ms = append(ms, m)
	}
	stop := make(chan struct{})
	var running sync.WaitGroup
	for i, l := range all {
		for n := i; n < messages; n += loops {
			m := ms[n]
			l.post(func() {
				m.Body = budget.AppendContent(nil, []byte("content"), 7)
				m.Hold(1)
				r.Dispatch(i, m)
				m.Release()
			})
		}
		running.Go(func() { l.run(stop) })
	}
	<-over
	if parked.Load() == 0 {
		t.Error("nothing was parked")
	}
	close(stop)
	running.Wait()
	if budget.Used() != 0 {
		for _, s := range r.schedulers { // the last transactions may be settled and not done
			for _, site := range s.sites {
				for _, l := range site.links {
					for _, tx := range l.taken {
						tx.drop()
					}
				}
			}
		}
	}
	if budget.Used() != 0 {
		t.Errorf("%d bytes of content are still held", budget.Used())
	}
}
