package loop

import (
	"container/list"
	"context"
	"net"
	"runtime"
	"sync"
)

// maxHandshakes is the most TLS handshakes of a group that have begun; more wait for their turn. One that waits for its peer costs a
// goroutine, about 20 KiB, and no processor.
const maxHandshakes = 4096

// handshake is the part of a TLS layer that lives as long as its handshake: a pipe between the loop and the goroutine on which crypto/tls
// blocks.
type handshake struct {
	s      *secure
	client bool
	begun  bool          // given to the pool; of the loop
	place  *list.Element // in the pool's queue, guarded by the pool
	err    error         // how it ended, once finished is posted

	mu       sync.Mutex
	arrived  sync.Cond
	in, out  []byte // wire bytes from, and to the peer
	flushing bool   // flush is posted
	stalled  bool   // too much is in: the socket is not read
	dead     bool   // the connection is gone
}

func newHandshake(s *secure, client bool) *handshake {
	h := &handshake{s: s, client: client}
	h.arrived.L = &h.mu
	return h
}

// begin is called on the loop when StartTLS was asked for and nothing in clear is left, and again with each arrival until the handshake is
// given to the pool. A server waits for the first record, so that who is slow to say hello takes no place there.
func (h *handshake) begin() {
	if !h.begun && (h.client || h.hello()) {
		h.begun = true
		h.s.c.loop.group.hands.add(h)
	}
}

// hello reports whether the first record is complete, or will never be one.
func (h *handshake) hello() bool {
	const handshakeRecord = 22
	in := h.in
	return len(in) > 0 && in[0] != handshakeRecord || len(in) >= recordHeader && len(in) >= recordHeader+min(int(in[3])<<8|int(in[4]), 1<<14)
}

// feed takes wire bytes on the loop.
func (h *handshake) feed(p []byte) {
	c := h.s.c
	h.mu.Lock()
	h.in = append(h.in, p...)
	h.stalled = len(h.in) > c.loop.group.opts.InboundLimit-readBuffer
	stalled := h.stalled
	h.arrived.Signal()
	h.mu.Unlock()
	if stalled {
		c.setReadOff(true)
	}
	h.begin()
}

// read is secure.Read on the pool.
func (h *handshake) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.in) == 0 && !h.dead {
		turns := h.s.c.loop.group.hands.turns
		<-turns
		for len(h.in) == 0 && !h.dead {
			h.arrived.Wait()
		}
		h.mu.Unlock()
		turns <- struct{}{}
		h.mu.Lock()
	}
	if h.dead {
		return 0, net.ErrClosed
	}
	n := h.s.frame.next(h.in, len(p))
	copy(p, h.in[:n])
	h.in = h.in[n:]
	if h.stalled && len(h.in) <= h.s.c.loop.group.opts.InboundLimit/4 {
		h.stalled = false
		h.s.c.loop.Post(h.unstall)
	}
	return n, nil
}

func (h *handshake) unstall() {
	h.mu.Lock()
	stalled := h.stalled
	h.mu.Unlock()
	if !stalled && h.s.c.state == stateOpen && h.s.hand != nil {
		h.s.c.setReadOff(false)
	}
}

// write is secure.Write on the pool.
func (h *handshake) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead {
		return 0, net.ErrClosed
	}
	h.out = append(h.out, p...)
	if !h.flushing {
		h.flushing = true
		h.s.c.loop.PostTask((*handshakeFlush)(h))
	}
	return len(p), nil
}

// handshakeFlush is a handshake seen as the task that sends what it wrote.
type handshakeFlush handshake

func (f *handshakeFlush) Run() {
	h := (*handshake)(f)
	h.mu.Lock()
	out := h.out
	h.out, h.flushing = nil, false
	h.mu.Unlock()
	if h.s.c.state == stateOpen {
		_ = h.s.c.send(out, nil)
	}
}

// abort ends the handshake of a connection that is gone.
func (h *handshake) abort() {
	h.mu.Lock()
	h.dead = true
	h.arrived.Signal()
	h.mu.Unlock()
	h.s.c.loop.group.hands.remove(h)
}

// run is the handshake, on the pool.
func (h *handshake) run() {
	h.err = h.s.tls.HandshakeContext(context.Background())
	h.s.c.loop.PostTask((*handshakeEnd)(h))
}

// handshakeEnd is a handshake seen as the task that ends it on the loop, behind the last flush.
type handshakeEnd handshake

func (e *handshakeEnd) Run() {
	s, c := e.s, e.s.c
	switch {
	case c.state != stateOpen:
		return
	case e.err != nil:
		c.setClosing(&HandshakeError{e.err})
		return
	}
	up := s.up
	s.hand, s.up = nil, nil
	c.setReadOff(false)
	up()
	if len(e.in) > 0 && c.state == stateOpen {
		s.open(e.in)
	}
}

// handshakes is the pool. Handshakes block and use the processor: each gets a goroutine, up to a bound, and as many as there are
// processors run at a time.
type handshakes struct {
	turns chan struct{} // a place for each that runs
	wait  sync.WaitGroup

	mu      sync.Mutex
	waiting list.List // of *handshake
	begun   int
}

func (p *handshakes) init() { p.turns = make(chan struct{}, runtime.NumCPU()) }

// add starts the handshake, or queues it.
func (p *handshakes) add(h *handshake) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.begun == maxHandshakes {
		h.place = p.waiting.PushBack(h)
		return
	}
	p.begun++
	p.wait.Go(func() { p.work(h) })
}

// work runs handshakes until none waits.
func (p *handshakes) work(h *handshake) {
	for h != nil {
		p.turns <- struct{}{}
		h.run()
		<-p.turns
		h = p.next()
	}
}

func (p *handshakes) next() *handshake {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := p.waiting.Front()
	if first == nil {
		p.begun--
		return nil
	}
	h := p.waiting.Remove(first).(*handshake)
	h.place = nil
	return h
}

// remove takes a handshake out of the queue, if it is there.
func (p *handshakes) remove(h *handshake) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h.place != nil {
		p.waiting.Remove(h.place)
		h.place = nil
	}
}
