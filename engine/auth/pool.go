package auth

import "sync"

// pool runs what blocks, or takes the processor for long, on a bounded number of goroutines, with a bounded queue in front of them.
type pool struct {
	mu     sync.Mutex
	wake   sync.Cond
	queue  []func()
	most   int // that wait
	closed bool
	done   sync.WaitGroup
}

func newPool(workers, most int) *pool {
	p := &pool{most: most}
	p.wake.L = &p.mu
	for range workers {
		p.done.Go(p.run)
	}
	return p
}

// try runs fn on a worker, unless too much waits already, or the pool is closed.
func (p *pool) try(fn func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.queue) >= p.most {
		return false
	}
	p.queue = append(p.queue, fn)
	p.wake.Signal()
	return true
}

func (p *pool) run() {
	for {
		p.mu.Lock()
		for len(p.queue) == 0 && !p.closed {
			p.wake.Wait()
		}
		if len(p.queue) == 0 {
			p.mu.Unlock()
			return
		}
		fn := p.queue[0]
		p.queue[0] = nil
		p.queue = p.queue[1:]
		p.mu.Unlock()
		fn()
	}
}

// close runs what waits, and returns when that has ended.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.wake.Broadcast()
	p.mu.Unlock()
	p.done.Wait()
}
