package spool

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"mailrace/proto/message"
)

// gatherer is a shard of which nothing but the queue works, and whose patience lasts.
func gatherer(last int) *Shard {
	sh := &Shard{spool: new(Spool), goal: last + last/4, took: time.Hour, patience: time.Hour, gathered: true}
	sh.spool.shards = []*Shard{sh}
	sh.ready.L = &sh.mu
	sh.lazyTimer = time.AfterFunc(time.Hour, sh.hurry)
	sh.gatherTime = time.AfterFunc(time.Hour, sh.endGather)
	return sh
}

func (sh *Shard) append(n int) {
	for range n {
		sh.Enqueue(&Op{Append: &message.Message{ID: 1 << 20}})
	}
}

// taken is the number of Ops in the batch that take returns.
func taken(sh *Shard) <-chan int {
	sizes := make(chan int)
	go func() {
		n := 0
		for op, _ := sh.take(); op != nil; op = op.next {
			n++
		}
		sizes <- n
	}()
	return sizes
}

func TestBatchesGrow(t *testing.T) {
	sh := gatherer(8)
	sizes := taken(sh)
	sh.append(10) // a quarter more than the last batch: the wait is over with the tenth
	if n := <-sizes; n != 10 {
		t.Errorf("a batch of %d after one of 8", n)
	}
	sh.append(50)
	if n := <-taken(sh); n != 50 {
		t.Errorf("%d of 50 that wait", n)
	}
}

func TestGatheringEnds(t *testing.T) {
	sh := gatherer(8)
	sh.append(3)
	sizes := taken(sh)
	n := 0
	for n == 0 {
		sh.endGather() // the time is up; again, if take had not begun to wait
		select {
		case n = <-sizes:
		default:
			runtime.Gosched()
		}
	}
	if n != 3 {
		t.Errorf("a batch of %d, want 3", n)
	}
	if sh.goal != 3 {
		t.Errorf("the goal is %d after a batch of 3", sh.goal)
	}
}

// TestLoneMessageDoesNotWait holds for the first message, for one after another, and for removals, which have no goal.
func TestLoneMessageDoesNotWait(t *testing.T) {
	sh := gatherer(0)
	var once sync.WaitGroup
	for range 5 {
		once.Go(func() { sh.append(1) })
		if n := <-taken(sh); n != 1 {
			t.Errorf("a batch of %d", n)
		}
		once.Wait()
	}
	sh.Enqueue(&Op{Remove: Removal{ID: 1 << 20}})
	sh.hurry()
	if n := <-taken(sh); n != 1 {
		t.Errorf("a batch of %d", n)
	}
}
