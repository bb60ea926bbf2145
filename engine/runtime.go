package engine

import (
	"runtime/debug"

	"mailrace/engine/config"
)

const (
	// runtimeBase is what the process holds beside content: memtables, connections, queue entries, caches.
	runtimeBase = 1 << 30
	// gcPercent trades memory for the garbage collector's time: the live heap of a busy node is small beside its budget, and the limit
	// makes the collector work harder before that is exceeded.
	gcPercent = 400
)

// TuneRuntime sets the memory limit of the Go runtime from the budget, for the whole process.
func TuneRuntime(cfg *config.Config) {
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(2*cfg.Engine.Memory + runtimeBase)
}
