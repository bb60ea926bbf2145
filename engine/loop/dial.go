package loop

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/panjf2000/gnet/v2"
)

// dialer connects on goroutines of its own, as many as there are dials, up to a bound: connect(2) may take minutes.
type dialer struct {
	group  *Group
	ctx    context.Context
	cancel context.CancelFunc
	wait   sync.WaitGroup

	mu      sync.Mutex
	waiting []dialJob
	running int
	closed  bool
}

type dialJob struct {
	Dial
	loop    *Loop
	handler Handler
}

func (d *dialer) init(g *Group) {
	d.group = g
	d.ctx, d.cancel = context.WithCancel(context.Background())
}

// add starts the dial, or queues it.
func (d *dialer) add(job dialJob) {
	if !d.group.limit.acquire() {
		d.group.limit.failed.Add(1)
		job.fail(ErrTooManyConnections)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		d.failed(job, ErrGroupClosed)
	case d.running < maxDials:
		d.running++
		d.wait.Add(1)
		go d.work(job)
	default:
		d.waiting = append(d.waiting, job)
	}
}

// work dials until nothing waits.
func (d *dialer) work(job dialJob) {
	defer d.wait.Done()
	for ok := true; ok; {
		if err := d.connect(job); err != nil {
			d.failed(job, err)
		} else {
			d.group.limit.dialled.Add(1)
		}
		job, ok = d.next()
	}
}

func (d *dialer) next() (job dialJob, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waiting) == 0 {
		d.running--
		d.waiting = nil
		return dialJob{}, false
	}
	job = d.waiting[0]
	d.waiting[0] = dialJob{}
	d.waiting = d.waiting[1:]
	return job, true
}

// connect dials and hands the connection to its loop, where Open is called before connect returns nil.
func (d *dialer) connect(job dialJob) error {
	nc, second, err := job.reach(d.ctx)
	if err != nil {
		if d.ctx.Err() != nil {
			return ErrGroupClosed
		}
		return fmt.Errorf("loop: %w", err)
	}
	c := &Conn{Handler: job.handler, loop: job.loop, listener: -1, half: -1, second: second}
	result, err := job.loop.el.Enroll(gnet.NewContext(context.Background(), c), nc)
	if err != nil {
		_ = nc.Close()
		return fmt.Errorf("loop: enrol connection to %s: %w", job.Address, err)
	}
	select {
	case r := <-result:
		if r.Err != nil {
			return fmt.Errorf("loop: enrol connection to %s: %w", job.Address, r.Err)
		}
	case <-d.group.done: // the loops ended by an error and will never answer
		return ErrGroupClosed
	}
	if !c.opened { // gnet does not tell when epoll refused it
		return errors.New("loop: enrol connection: epoll_ctl failed")
	}
	return nil
}

func (d *dialer) failed(job dialJob, err error) {
	d.group.limit.release(false)
	d.group.limit.failed.Add(1)
	job.fail(err)
}

func (j dialJob) fail(err error) { j.loop.Post(func() { j.handler.Closed(nil, err) }) }

// close cancels the dials under way, fails those that wait, and returns when none is left.
func (d *dialer) close() {
	d.mu.Lock()
	d.closed = true
	waiting := d.waiting
	d.waiting = nil
	d.mu.Unlock()
	d.cancel()
	for _, job := range waiting {
		d.failed(job, ErrGroupClosed)
	}
	d.wait.Wait()
}
