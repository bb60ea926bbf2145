package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"mailrace/engine/config"
	"mailrace/engine/inject"
	"mailrace/proto/message"
	"mailrace/router"
	"mailrace/spool"
)

// submitMany hands in n messages to u0@far.example and so on, without waiting for their delivery.
func (r *rig) submitMany(n int) {
	r.t.Helper()
	r.submitTo("far.example", 0, n)
}

// submitTo hands in n messages to a domain, from u<first> on.
func (r *rig) submitTo(domain string, first, n int) {
	r.t.Helper()
	b := r.NewBatch()
	for i := range n {
		b.Add(r.t.Context(), &inject.Mail{From: "", To: []string{fmt.Sprintf("u%d@%s", first+i, domain)}, Content: []byte(hello)})
	}
	for _, result := range b.Wait(r.t.Context()) {
		if result.Err != nil {
			r.t.Fatal(result.Err)
		}
	}
}

// TestQueueOnDisk takes in many times as much mail as may be in memory while the far side stands still, restarts in the middle, and then
// delivers everything once.
func TestQueueOnDisk(t *testing.T) {
	t.Parallel()
	const n, limit = 5000, 200
	open := make(chan struct{})
	f := listen(t, func(p *peer) {
		select {
		case <-open:
			polite(p)
		case <-t.Context().Done():
		}
	})
	c := settings(t, f.route("*"))
	c.Queue.InMemory = limit
	r := start(t, c)
	r.submitMany(n)
	check := func() {
		t.Helper()
		r.await("all to be counted", func() bool { return !r.pager.walking.Load() && r.Status().Queue == n })
		for range 20 {
			if s := r.Status(); s.Queued+s.InFlight+s.Resolving > limit || r.router.Free() < 0 || s.Queue != n {
				t.Fatalf("%+v", s)
			}
		}
		if q := r.queue(); len(q) != n && len(q) != 100 {
			t.Errorf("%d messages are listed", len(q))
		}
	}
	check()
	if got := r.pager.parked.Get(); got < n-limit {
		t.Errorf("%d were parked", got)
	}
	for range 2 {
		r.stop()
		r = start(t, c)
		check()
	}
	close(open)
	got := map[string]int{}
	for range n {
		got[f.next().to[0]]++
	}
	if len(got) != n {
		t.Errorf("%d of %d arrived", len(got), n)
	}
	r.awaitEmpty()
	f.none()
	r.awaitForgotten()
}

// TestSlowSiteLeavesRoom: a site that takes mail slowly, and has ten times as much of it as fits into memory, does not make the mail of others
// wait; its own arrives once, and is written few times.
func TestSlowSiteLeavesRoom(t *testing.T) {
	t.Parallel()
	const n, limit, others = 2000, 200, 300
	permits := make(chan struct{}, n)
	slow := listen(t, answering(func(_ *peer, line string) string {
		if strings.HasPrefix(line, "MAIL") {
			select {
			case <-permits:
			case <-t.Context().Done():
			}
		}
		return ""
	}))
	fast := listen(t, polite)
	c := settings(t, slow.route("slow.example"), fast.route("*"))
	c.Queue.InMemory = limit
	r := start(t, c)
	bounded := func() {
		t.Helper()
		if s := r.Status(); s.Queued+s.InFlight+s.Resolving > limit || r.pager.limit-r.router.Free() > limit {
			t.Fatalf("%+v", s)
		}
	}
	delivered := map[string]int{}
	for i := range 10 {
		r.submitTo("slow.example", i*n/10, n/10)
		bounded()
		permits <- struct{}{}
		delivered[slow.next().to[0]]++
	}
	for i := range others {
		r.submitTo("fast.example", i, 1)
		if got, want := fast.next().to[0], fmt.Sprintf("u%d@fast.example", i); got != want {
			t.Fatalf("%s arrived, want %s", got, want)
		}
		bounded()
	}
	if s := r.Status(); s.Queue < n-10-1 || s.Deferred < n-limit {
		t.Errorf("%+v", s)
	}
	for range n - len(delivered) {
		permits <- struct{}{}
		delivered[slow.next().to[0]]++
	}
	if len(delivered) != n {
		t.Errorf("%d of %d arrived", len(delivered), n)
	}
	r.awaitEmpty()
	slow.none()
	fast.none()
	r.awaitForgotten()
	entries := float64(r.pager.parked.Get()) / n
	t.Logf("%.2f entries of the index were written for each message, %d put off, %d set aside", entries, r.pager.putOffs.Get(), r.pager.aside.Get())
	if entries > 3 {
		t.Error("too many")
	}
	if r.router.Free() != limit {
		t.Errorf("there is room for %d of %d recipients when nothing is in memory", r.router.Free(), limit)
	}
}

// awaitForgotten waits until the pager holds nothing, and neither the disk.
func (r *rig) awaitForgotten() {
	r.t.Helper()
	r.await("the pager to forget all", func() bool {
		for i, w := range r.pager.windows {
			w.mu.Lock()
			held := len(w.entries) + len(w.out)
			w.mu.Unlock()
			if held > 0 {
				return false
			}
			if due, err := r.store.Due(i, spool.Due{}, 10); err != nil || len(due) > 0 {
				return false
			}
		}
		return true
	})
}

// TestDeferredMailIsParked: deferred mail is not in memory, is counted and listed across restarts, and is attempted when it is due.
func TestDeferredMailIsParked(t *testing.T) {
	t.Parallel()
	f := listen(t, answering(func(_ *peer, line string) string {
		if len(line) > 4 && line[:4] == "RCPT" {
			return "450 4.2.0 later"
		}
		return ""
	}))
	c := settings(t, f.route("*"))
	c.Queue = config.Queue{RetryMin: 20 * time.Minute, RetryMax: time.Hour, Expire: 24 * time.Hour}
	r := start(t, c)
	const n = 40
	r.submitMany(n)
	parked := func() bool {
		s := r.Status()
		return !r.pager.walking.Load() && s.Totals.Deferred == n && s.Queue == n && len(r.queue()) == n
	}
	r.await("all to be deferred", parked)
	for range 2 {
		r.stop()
		r = start(t, c)
		r.await("all to be counted again", parked)
		if r.stats.recovered.Get() != n || r.Status().Totals != (router.Totals{Deferred: n}) {
			t.Errorf("%d recovered, %+v", r.stats.recovered.Get(), r.Status())
		}
		windowed := 0
		for _, w := range r.pager.windows {
			r.await("the window to be read", func() bool {
				w.mu.Lock()
				defer w.mu.Unlock()
				return w.whole
			})
			windowed += len(w.entries)
		}
		if windowed != n {
			t.Errorf("%d entries in the windows", windowed)
		}
	}
	r.stop()
	c.Queue = config.Queue{RetryMin: 20 * time.Millisecond, RetryMax: time.Second, Expire: 24 * time.Hour}
	for _, m := range inSpool(t, c) {
		if m.Recipients[0].Due < time.Now().Add(10*time.Minute).UnixNano() || m.Recipients[0].Attempts != 1 {
			t.Errorf("%+v", m.Recipients[0])
		}
	}
}

// TestRoomOfRefusedMail: mail that the spool does not take leaves no trace in the memory that is accounted for.
func TestRoomOfRefusedMail(t *testing.T) {
	t.Parallel()
	c := settings(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToDiscard}})
	c.Queue.InMemory = 3
	r := start(t, c)
	var done []*spool.Op
	for range 3 { // the first finds room for both of its recipients, the others do not
		op := spool.NewOp()
		op.Append, op.Err = &message.Message{Recipients: make([]message.Recipient, 2)}, spool.ErrUsedID
		r.pager.place(op)
		done = append(done, op)
	}
	if n := r.router.Free(); n != 1 {
		t.Errorf("room for %d, want 1", n)
	}
	r.pager.giveBack(done)
	if n := r.router.Free(); n != 3 {
		t.Errorf("room for %d when all were refused, want 3", n)
	}
}
