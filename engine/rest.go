package engine

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	restStep    = 2 * time.Second // between two looks at how busy the process is
	restRate    = 1 << 20         // octets that a process at rest allocates in one step at most
	restGarbage = 32 << 20        // octets allocated since the last collection for which another one is worth while
)

// rest gives the memory of a process that came to rest back to the system: what ten thousand handshakes left behind would otherwise lie there until the
// next ones, or for minutes. A process at work keeps it, as it needs it again.
type rest struct {
	last    uint64 // octets allocated since the start, at the last look
	cleaned uint64 // and at the last collection that was asked for
	collect func() // and give back
}

// look is told how many octets were allocated since the start, once in each step.
func (r *rest) look(allocated uint64) {
	calm := allocated-r.last <= restRate
	r.last = allocated
	if calm && allocated-r.cleaned >= restGarbage {
		r.cleaned = allocated
		r.collect()
	}
}

// GiveBack returns memory to the system whenever the process is at rest, until ctx ends.
func GiveBack(ctx context.Context) {
	r := rest{collect: func() {
		runtime.GC() // what pools hold goes with the second collection
		debug.FreeOSMemory()
	}}
	allocated := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	ticker := time.NewTicker(restStep)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			metrics.Read(allocated)
			r.look(allocated[0].Value.Uint64())
		}
	}
}
