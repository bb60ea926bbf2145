package loop

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/panjf2000/gnet/v2"
)

// Task is work for a loop. A type of one's own that implements it is posted without allocation.
type Task interface{ Run() }

// Func is a Task made of a function.
type Func func()

// Run calls the function.
func (f Func) Run() { f() }

// drainRounds bounds how often a loop takes its queue again before it looks at its sockets.
const drainRounds = 8

// Loop is one event loop: a goroutine with its connections, its timers and its queue of tasks.
type Loop struct {
	// Value is for the user of the package: what belongs to this loop. Set it in Options.Setup.
	Value any

	group *Group
	index int
	el    gnet.EventLoop
	reactor
	clock *Clock
	epoch time.Time // tick 0 of the wheel

	// Of the loop's goroutine.
	wheel           Wheel
	alarm           Alarm // wakes the loop for the earliest slot of the wheel
	wakeAt          int64 // tick that alarm is set for; 0 when it is not set
	now             time.Time
	nowValid        bool
	depth           int   // entries from gnet that are on the stack
	current         *Conn // connection whose event is being handled
	draining        bool  // running tasks: no event of this round of epoll is left
	live            bool  // connections are opened (see Group.goLive)
	conns           connList
	polled          []*Conn // connections whose outbound buffer is watched
	polledB         []*Conn // the other half of the double buffer
	pollT           Timer
	opened, joined  []byte  // plaintext that comes and goes under TLS, during one call
	sealed          []byte  // wire bytes that crypto/tls wrote, during one call
	unsettled, late []*Conn // connections that something is to be called for, or to be closed in the next drain

	mu      sync.Mutex
	queue   []Task
	spare   []Task // the other half of the double buffer
	woken   bool   // gnet was told to call drain, and has not emptied the queue since
	ended   bool
	writers sync.WaitGroup // calls into gnet that write to its eventfd: they must end before gnet closes it
}

// Index is the number of the loop, from 0. Any goroutine may call it.
func (l *Loop) Index() int { return l.index }

// Group is the group of the loop. Any goroutine may call it.
func (l *Loop) Group() *Group { return l.group }

// Now is the time, read once for each event or queue of tasks. On the loop only.
func (l *Loop) Now() time.Time {
	if !l.nowValid {
		l.now, l.nowValid = l.clock.Now(), true
	}
	return l.now
}

// Post runs fn on the loop; see PostTask.
func (l *Loop) Post(fn func()) bool { return l.PostTask(Func(fn)) }

// PostTask runs t on the loop. Tasks run in the order of posting, and however many wait, the loop is woken once. Any goroutine may call
// it; it does not block. After the loop has ended tasks are dropped and it returns false.
func (l *Loop) PostTask(t Task) bool {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return false
	}
	l.queue = append(l.queue, t)
	wake := !l.woken
	if wake {
		l.woken = true
		l.writers.Add(1)
	}
	l.mu.Unlock()
	if wake {
		l.wake()
		l.writers.Done()
	}
	return true
}

// wake makes gnet call drain. The caller holds l.writers.
func (l *Loop) wake() {
	if err := l.el.Execute(context.Background(), (*drainer)(l)); err != nil {
		l.group.log.Error("event loop cannot be woken", "loop", l.index, "error", err)
	}
}

// drainer is a Loop seen as gnet's Runnable.
type drainer Loop

func (d *drainer) Run(context.Context) error {
	(*Loop)(d).drain()
	return nil
}

// drain runs the posted tasks and the timers that are due.
func (l *Loop) drain() {
	l.enter(nil)
	l.draining = true
	l.settleLate()
	for round := 0; ; round++ {
		l.mu.Lock()
		batch := l.queue
		if len(batch) == 0 {
			l.woken = false
			l.mu.Unlock()
			break
		}
		if round == drainRounds {
			// Tasks post tasks: let the sockets have a turn. gnet would run a task that is handed to it here before it looks at them, so
			// another goroutine does it.
			if !l.ended {
				l.writers.Go(l.wake)
			}
			l.mu.Unlock()
			break
		}
		l.queue, l.spare = l.spare[:0], nil
		l.mu.Unlock()
		for i, t := range batch {
			batch[i] = nil
			t.Run()
			l.settleAll()
		}
		l.mu.Lock()
		l.spare = batch[:0]
		l.mu.Unlock()
		l.nowValid = false
	}
	l.draining = false
	l.leave()
}

// enter begins every call from gnet; c is the connection that has an event, if any.
func (l *Loop) enter(c *Conn) {
	if l.depth++; l.depth == 1 {
		l.current, l.nowValid = c, false
	}
}

// leave ends what enter began; the outermost one calls what was put off.
func (l *Loop) leave() {
	if l.depth == 1 {
		l.settleAll()
		l.current = nil
	}
	l.depth--
}

// unsettle notes that something is to be called for c when the running callback or task has returned.
func (l *Loop) unsettle(c *Conn) {
	if !c.unsettled {
		c.unsettled = true
		l.unsettled = append(l.unsettled, c)
	}
}

func (l *Loop) settleAll() {
	for i := 0; i < len(l.unsettled); i++ {
		c := l.unsettled[i]
		l.unsettled[i] = nil
		c.unsettled = false
		c.settle()
	}
	l.unsettled = l.unsettled[:0]
}

// postpone leaves the closing of c to the next drain: while events of a round of epoll are still to be handled, its descriptor could be
// taken by a new connection, which a stale event would then hit.
func (l *Loop) postpone(c *Conn) {
	l.late = append(l.late, c)
	if len(l.late) == 1 {
		l.PostTask(Func(func() {})) // drain does it before the tasks
	}
}

func (l *Loop) settleLate() {
	for i, c := range l.late {
		l.late[i] = nil
		l.unsettle(c)
	}
	l.late = l.late[:0]
	l.settleAll()
}

// After fires t when d has passed, within a tick of 5 ms, never early. A timer that is armed is moved. On the loop only.
func (l *Loop) After(d time.Duration, t *Timer) { l.armTick(t, ticks(l.Now().Sub(l.epoch)+d)) }

// armTick sets t to a tick, and the alarm if that comes first. A slot of a higher level may begin before wakeAt; it is then taken apart
// a little late, which is before anything in it is due.
func (l *Loop) armTick(t *Timer, when int64) {
	l.wheel.Arm(t, when)
	if l.wakeAt == 0 || t.when < l.wakeAt {
		l.armWheel()
	}
}

// armWheel sets the alarm to the next tick that the wheel has something to do at.
func (l *Loop) armWheel() {
	next, ok := l.wheel.Next()
	if !ok || l.wakeAt != 0 && l.wakeAt <= next {
		return
	}
	l.wakeAt = next
	at := l.epoch.Add(time.Duration(next) * tick)
	if l.alarm == nil {
		l.alarm = l.clock.Wake(at, func() { l.PostTask((*turner)(l)) })
		return
	}
	l.alarm.Set(at)
}

// turner is a Loop seen as the task that turns its wheel.
type turner Loop

func (w *turner) Run() {
	l := (*Loop)(w)
	l.wakeAt = 0
	l.nowValid = false
	l.wheel.Advance(int64(l.Now().Sub(l.epoch) / tick))
	l.armWheel()
}

// Dial describes a connection to be made.
type Dial struct {
	// Network is tcp (the default), tcp4, tcp6 or unix.
	Network string
	// Address is ip:port, or a path. A host name is resolved by the system, for tools.
	Address string
	// Local is the source address for addresses of its family, if valid, and Local6 that of the other one.
	Local, Local6 netip.Addr
	// Second is tried beside Address when that takes longer than Stagger, or fails: the first that connects is used, and Conn.Second tells which.
	// "" = nothing.
	Second  string
	Stagger time.Duration
	// Via makes the connection in another way, as through a proxy; network and address are those that are wanted, the local address is its business.
	// It returns a *net.TCPConn or *net.UnixConn, on any goroutine, and ends when ctx does. nil = directly.
	Via func(ctx context.Context, network, address string) (net.Conn, error)
	// Timeout bounds the connecting; 0 leaves it to the system.
	Timeout time.Duration
}

// Dial connects and gives the connection to this loop: it ends in h.Open, or in h.Closed(nil, err), on the loop. Once the group is closed
// neither is called. Any goroutine may call it; it does not block. At most 256 dials of a group are under way, further ones wait.
func (l *Loop) Dial(d Dial, h Handler) { l.group.dials.add(dialJob{d, l, h}) }
