package engine

import "sync"

// readers run blocking reads of the spool on a bounded number of goroutines. What waits is bounded by who asks: each connection has at most
// one read under way, and each loop one for its DSNs.
type readers struct {
	mu     sync.Mutex
	wake   sync.Cond
	queue  []func()
	closed bool
	done   sync.WaitGroup
}

func newReaders(n int) *readers {
	r := new(readers)
	r.wake.L = &r.mu
	for range n {
		r.done.Go(r.run)
	}
	return r
}

// do runs fn on a reader. After close it does nothing.
func (r *readers) do(fn func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.queue = append(r.queue, fn)
		r.wake.Signal()
	}
}

func (r *readers) run() {
	for {
		r.mu.Lock()
		for len(r.queue) == 0 && !r.closed {
			r.wake.Wait()
		}
		if r.closed {
			r.mu.Unlock()
			return
		}
		fn := r.queue[0]
		r.queue[0] = nil
		r.queue = r.queue[1:]
		r.mu.Unlock()
		fn()
	}
}

// close forgets what waits and returns when the last read has ended.
func (r *readers) close() {
	r.mu.Lock()
	r.closed = true
	r.wake.Broadcast()
	r.mu.Unlock()
	r.done.Wait()
}
