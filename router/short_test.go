package router

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"mailrace/proto/message"
)

// TestShort: where the process has room for fewer connections than the loops may have, mail waits for one and arrives at its first attempt, nothing is
// held against the hosts, and when there is room again it is used.
func TestShort(t *testing.T) {
	const sites = 200
	for _, loops := range []int{1, 2} {
		s := newSim(t, loops, 1, func(o *Options) { o.IdleTimeout = time.Hour })
		s.room = 10
		for i := range sites {
			s.mx(fmt.Sprintf("d%d.test", i), fmt.Sprintf("10 mx%d.test 192.0.2.%d", i, i+1))
			s.host(fmt.Sprintf("192.0.2.%d", i+1)).latency = 10 * time.Millisecond
		}
		for i := range sites {
			s.send(i%loops, fmt.Sprintf("u@d%d.test", i))
		}
		s.run(10 * time.Minute)
		if len(s.log) != sites {
			t.Fatalf("%d loops: %d of %d settled", loops, len(s.log), sites)
		}
		for _, e := range s.log {
			if e.state != message.Delivered || e.out.Attempt != 1 {
				t.Errorf("%d loops: %s: %v at attempt %d", loops, e.address, e.state, e.out.Attempt)
			}
		}
		if n := s.router.Totals(); n.Backoff != 0 || n.Connections > 10 {
			t.Errorf("%d loops: %+v", loops, n)
		}
		if s.router.sum(func(st *stats) *atomic.Int64 { return &st.short }) == 0 {
			t.Errorf("%d loops: no shortage", loops)
		}
		s.room = 0
		s.run(20 * time.Minute)
		for _, x := range s.router.schedulers {
			if x.most != x.opts.Connections || x.raise != 0 {
				t.Errorf("%d loops: %d connections of %d in the end", loops, x.most, x.opts.Connections)
			}
		}
	}
}

// TestNoRoomAtAll: mail waits as long as nothing can be opened, and its time ends as that of any.
func TestNoRoomAtAll(t *testing.T) {
	s := newSim(t, 1, 1, func(o *Options) { o.Expire = time.Hour })
	s.mx("x.test", "10 a 192.0.2.1")
	s.host("192.0.2.1")
	s.room = -1
	s.send(0, "u@x.test")
	s.run(time.Minute)
	if n := s.router.Totals(); n.Queued != 1 || n.Deferred != 0 || n.Connections != 0 || len(s.dials) > 310 {
		t.Errorf("%+v, %d dials", n, len(s.dials))
	}
	s.room = 1
	s.run(2 * time.Minute)
	if got := s.history("u@x.test"); got != "delivered@1m0s" {
		t.Error(got)
	}
}
