package router

import (
	"runtime"
	"testing"
	"time"

	"mailrace/proto/message"
)

// TestBytesOfWheel: a recipient that waits in memory, since others of its message are under way, takes at most 120 bytes beside the message.
func TestBytesOfWheel(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector takes memory of its own")
	}
	s := newSim(t, 1, 1, parking)
	const n, most = 50_000, 120
	ms := make([]*message.Message, n)
	for i := range ms {
		ms[i] = &message.Message{ID: message.ID(i + 1), Recipients: make([]message.Recipient, 2)}
		ms[i].SetPending(2)
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for i, m := range ms {
		s.router.schedulers[0].wait(m, []int{i % 2}, s.now.Add(time.Duration(i)*time.Second).UnixNano())
	}
	held := float64(heap()-before) / n
	t.Logf("%.0f bytes for a recipient on the wheel", held)
	if held > most {
		t.Errorf("more than %d", most)
	}
	runtime.KeepAlive(ms)
	runtime.KeepAlive(s)
}
