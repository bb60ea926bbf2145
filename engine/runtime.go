package engine

import (
	"os"
	"runtime"
	"runtime/debug"

	"mailrace/engine/config"
	"mailrace/spool"
)

const (
	// runtimeBase is what the process holds beside content: memtables, connections, queue entries, caches.
	runtimeBase = 1 << 30
	// gcPercent trades memory for the garbage collector's time: the live heap of a busy node is small beside its budget, and the limit
	// makes the collector work harder before that is exceeded.
	gcPercent = 400
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
