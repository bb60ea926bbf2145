package engine

import (
	"runtime"
	"testing"

	"mailrace/proto/message"
	"mailrace/spool"
)

// deferredBytes is the most that a deferred recipient may take of the memory.
const deferredBytes = 120

// TestBytesOfWindow: what a parked message costs in memory, while its entry is in the window and while somebody has the message by it. Beyond the
// window it costs nothing.
func TestBytesOfWindow(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector takes memory of its own")
	}
	const shards, n = 16, 16 * windowMax
	ws := make([]*window, shards)
	before := heapInUse()
	for i := range ws {
		ws[i] = newWindow()
		ws[i].whole = true
		for j := range windowMax {
			ws[i].indexed(spool.Due{}, spool.Due{At: int64(j + 1), ID: message.ID(j + 1)})
		}
	}
	known := float64(heapInUse()-before) / n
	for _, w := range ws {
		if due, _, _ := w.take(windowMax, windowMax); len(due) != windowMax {
			t.Fatalf("%d were taken", len(due))
		}
	}
	taken := float64(heapInUse()-before) / n
	t.Logf("%.0f bytes for an entry in the window, %.0f when its message was taken", known, taken)
	if known > deferredBytes || taken > deferredBytes {
		t.Errorf("more than %d bytes", deferredBytes)
	}
	for _, w := range ws { // many times as many: the later ones are forgotten
		for i := range 4 * windowMax {
			w.indexed(spool.Due{}, spool.Due{At: int64(windowMax + i + 1), ID: message.ID(windowMax + i + 1)})
		}
		if len(w.entries) > windowMax {
			t.Fatalf("%d entries", len(w.entries))
		}
	}
	runtime.KeepAlive(ws)
}
