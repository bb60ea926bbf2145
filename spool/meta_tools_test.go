package spool

import (
	"context"
)

// reshard gives the spool, which is closed, another number of shards, with crashes and faults on the way; and perhaps it is given up.
func (w *world) reshard() {
	to := []int{1, 2, 4, 16}[w.rng.IntN(4)]
	for try := 0; ; try++ {
		t := makeTrouble(w.rng, int64(30*(to+w.shards))<<try, try < 6, try < 6 && w.rng.IntN(4) == 0, false)
		w.begin(t)
		w.disk.armed.Store(true)
		w.note("reshard to %d;%v", to, t)
		o := w.options(to)
		o.Failover = ""
		done, err := Reshard(context.Background(), o, nil)
		w.note("resharded: %+v, %v", done, err)
		left, b := w.disk.crashed()
		switch {
		case err != nil && left == nil && !w.excused(err):
			w.t.Fatalf("life %d: reshard: %v", w.life, err)
		case err == nil && left == nil:
			w.shards = to
			w.tally.reshards.Add(1)
			return
		}
		if left != nil {
			w.leave(left, b)
			w.tally.crashes.Add(1)
		} else {
			w.crash(nil)
		}
		if w.rng.IntN(6) == 0 {
			w.shards = 0 // who knows
			return
		}
		if w.rng.IntN(4) == 0 {
			to = []int{1, 2, 4, 16}[w.rng.IntN(4)]
		}
	}
}

// verify reads the spool, which is closed, as the tool does.
func (w *world) verify() {
	w.begin(trouble{})
	v, err := Verify(context.Background(), w.options(0), nil)
	if err != nil {
		w.t.Fatalf("life %d: verify: %v", w.life, err)
	}
	if !v.OK() {
		w.t.Errorf("life %d: verify: %v, %+v", w.life, v.Faults, v.Examples)
	}
	w.note("verified: %d messages, %d settled", v.Messages, v.Settled)
}
