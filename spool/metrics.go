package spool

import (
	"fmt"

	"github.com/VictoriaMetrics/metrics"
	"github.com/cockroachdb/pebble/v2"
)

// registerMetrics adds mailrace_spool_* to what the process exposes, per shard, until Close.
func (s *Spool) registerMetrics() {
	s.metrics = metrics.NewSet()
	for _, sh := range s.shards {
		for name, value := range map[string]func() float64{
			"messages_stored_total":   func() float64 { return float64(sh.stored.Load()) },
			"ops_total":               func() float64 { return float64(sh.ops.Load()) },
			"batches_total":           func() float64 { return float64(sh.batches.Load()) },
			"syncs_total":             func() float64 { return float64(sh.syncs.Load()) },
			"accepted_bytes_total":    func() float64 { return float64(sh.bytes.Load()) },
			"write_stalls_total":      func() float64 { return float64(sh.stalls.Load()) },
			"orphans_total":           func() float64 { return float64(sh.orphans.Load()) },
			"corrupt_records":         func() float64 { return float64(sh.corrupt.Load()) },
			"disk_bytes":              sh.measure(func(m *pebble.Metrics) float64 { return float64(m.DiskSpaceUsage()) }),
			"wal_written_bytes_total": sh.measure(func(m *pebble.Metrics) float64 { return float64(m.WAL.BytesWritten) }),
			"flushed_bytes_total":     sh.measure(flushedBytes),
			"compacted_bytes_total":   sh.measure(compactedBytes),
			"memtable_bytes":          sh.measure(func(m *pebble.Metrics) float64 { return float64(m.MemTable.Size) }),
			"memtables":               sh.measure(func(m *pebble.Metrics) float64 { return float64(m.MemTable.Count) }),
			"write_amplification":     sh.measure(writeAmplification),
		} {
			s.metrics.NewGauge(fmt.Sprintf(`mailrace_spool_%s{shard="%d"}`, name, sh.index), value)
		}
	}
	s.measured = true
	metrics.RegisterSet(s.metrics)
}

// unregisterMetrics takes them back, and waits for those who are asking.
func (s *Spool) unregisterMetrics() {
	if s.metrics == nil {
		return
	}
	metrics.UnregisterSet(s.metrics, true)
	s.measuring.Lock()
	s.measured = false
	s.measuring.Unlock()
}

// measure returns a gauge of what Pebble counts, which is asked anew for each.
func (sh *Shard) measure(f func(*pebble.Metrics) float64) func() float64 {
	return func() float64 {
		sh.spool.measuring.RLock()
		defer sh.spool.measuring.RUnlock()
		if !sh.spool.measured {
			return 0
		}
		return f(sh.db.Metrics())
	}
}

// flushedBytes were written by flushes of memtables: mail that stayed longer than its memtable.
func flushedBytes(m *pebble.Metrics) float64 {
	return float64(m.Levels[0].TableBytesFlushed + m.Levels[0].BlobBytesFlushed)
}

// compactedBytes were written again by compactions.
func compactedBytes(m *pebble.Metrics) (n float64) {
	for i := range m.Levels {
		n += float64(m.Levels[i].TableBytesCompacted + m.Levels[i].BlobBytesCompacted)
	}
	return n
}

// writeAmplification is the bytes written to the disk for each byte that was handed to the store, since it was opened.
func writeAmplification(m *pebble.Metrics) float64 {
	if m.WAL.BytesIn == 0 {
		return 0
	}
	return (float64(m.WAL.BytesWritten) + flushedBytes(m) + compactedBytes(m)) / float64(m.WAL.BytesIn)
}
