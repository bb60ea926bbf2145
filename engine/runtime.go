package engine

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"

	"mailrace/engine/config"
	"mailrace/spool"
)

const (
	// runtimeBase is what the process holds beside content: memtables, connections, queue entries, caches.
	runtimeBase = 1 << 30
	// gcPercent trades memory for the garbage collector's time, as long as the live heap is small: then little memory saves much time.
	gcPercent = 400
	// garbageMax is about the most garbage that is let lie before the next collection, with half the budget of a small node as a bound. With tens of
	// thousands of connections the live heap is not small, and four times as much garbage would be the larger part of what a connection costs.
	garbageMax = 192 << 20
	garbageMin = 32 << 20
	// gcPercentMin bounds the collector's time when the live heap is huge.
	gcPercentMin = 25
)

// cores is how many cores the process may use, read before TuneRuntime sets GOMAXPROCS to something else.
var cores = runtime.GOMAXPROCS(0)

// TuneRuntime sets the memory limit of the Go runtime from the budget, and the number of its processors, for the whole process.
//
// A loop in epoll_wait and a shard in fdatasync keep a processor of the runtime until its monitor takes it away, for which the monitor
// wakes up every 20 µs as long as none is to spare. With one for each of them, nobody waits for the monitor: that took a tenth off the CPU time
// of an accepted message. GOMAXPROCS in the environment has the last word.
func TuneRuntime(cfg *config.Config) {
	debug.SetGCPercent(gcPercent)
	boundGarbage(uint64(min(garbageMax, max(garbageMin, cfg.Engine.Memory/2))))
	debug.SetMemoryLimit(2*cfg.Engine.Memory + runtimeBase)
	if os.Getenv("GOMAXPROCS") != "" {
		return
	}
	shards := cfg.Spool.Shards
	switch {
	case cfg.Spool.Path == nullPath:
		shards = 0
	case shards == 0:
		shards = spool.DefaultShards()
	}
	runtime.GOMAXPROCS(max(cores, loopCount(cfg.Engine.Loops)+2*shards))
}

// loopCount is the number of event loops: one per core unless configured.
func loopCount(configured int) int {
	if configured > 0 {
		return configured
	}
	return cores
}

// garbagePercent is the percentage of garbage for a live heap of that many bytes, where most bytes of garbage may lie.
func garbagePercent(live, most uint64) int {
	return int(min(gcPercent, max(gcPercentMin, most*100/max(live, 1))))
}

// garbageMost is what boundGarbage was told last.
var (
	garbageMost atomic.Uint64
	boundOnce   sync.Once
)

// boundGarbage adjusts the percentage of garbage to the live heap after each collection, from now on: the finalizer of an object that nobody
// holds runs then, and makes the next such object.
func boundGarbage(most uint64) {
	garbageMost.Store(most)
	boundOnce.Do(func() {
		percent := gcPercent
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		type cycle struct{ _ [16]byte }
		var collected func(*cycle)
		collected = func(*cycle) {
			metrics.Read(live)
			if want := garbagePercent(live[0].Value.Uint64(), garbageMost.Load()); want < percent*9/10 || want > percent*11/10 {
				percent = want
				debug.SetGCPercent(percent)
			}
			runtime.SetFinalizer(new(cycle), collected)
		}
		runtime.SetFinalizer(new(cycle), collected)
	})
}
