package spool

import (
	"context"
	"fmt"
	"maps"
)

// reshard gives the spool, which is closed, another number of shards, with crashes and faults on the way; and perhaps it is given up.
func (w *world) reshard() {
	to := []int{1, 2, 4, 16}[w.rng.IntN(4)]
	w.sound = false
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

// salvage makes a new spool of this one, which was closed and is sound, and compares that.
func (w *world) salvage() {
	if !w.sound {
		return // a WAL that was cut short is damage, as far as Salvage can tell
	}
	w.begin(trouble{})
	to := fmt.Sprint("rescue/", w.life)
	o := w.options(0)
	done, err := Salvage(context.Background(), o, to, nil)
	if err != nil || !done.OK() {
		w.t.Fatalf("life %d: salvage: %+v, %v", w.life, done, err)
	}
	w.note("salvaged: %d messages", done.Messages)
	o.Path, o.ReadOnly, o.Failover = to, true, ""
	s := mustOpen(w.t, o)
	defer mustClose(w.t, s)
	in, err := w.sightOf(s)
	if err != nil {
		w.t.Fatal(err)
	}
	for i, h := range w.histories {
		want := h.now.clone()
		part := in.of(i, len(w.histories))
		for _, due := range []map[Due]bool{want.due, part.due} { // entries of messages that are gone may be left behind, or not
			maps.DeleteFunc(due, func(d Due, _ bool) bool { return want.letters[d.ID] == nil || want.letters[d.ID].settled() })
		}
		_, faults := (&history{base: want}).settle(part, 0, 0)
		for _, fault := range faults {
			w.t.Errorf("life %d: shard %d of %d, salvaged: %s", w.life, i, len(w.histories), fault)
		}
	}
}
