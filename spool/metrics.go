package spool

import (
	"fmt"
	"path/filepath"

	"github.com/VictoriaMetrics/metrics"
	"github.com/cockroachdb/pebble/v2"
)

// counters are what a shard counts itself.
type counters struct {
	stored    *metrics.Counter // messages
	mail      *metrics.Counter // bytes of their content and envelopes
	ops       *metrics.Counter
	batches   *metrics.Counter
	syncs     *metrics.Counter // of the WAL that were asked for
	lateSyncs *metrics.Counter // of those, the ones for removals and updates alone
	bytes     *metrics.Counter // of batches
	stalls    *metrics.Counter // times that writes waited for flushes or compactions
	orphans   *metrics.Counter // records collected that belonged to no message
	corrupt   *metrics.Counter // records moved aside, by this process or one before
	damaged   *metrics.Counter // messages found to be so while they were served

	replayed *metrics.Counter // bytes read of WALs when the store was opened

	written written

	syncSeconds  *metrics.Histogram // of batches that were synced, with writing them
	queueSeconds *metrics.Histogram // that the first Op of a batch waited before it
}

func metricName(name string, shard int) string {
	return fmt.Sprintf(`mailrace_spool_%s{shard="%d"}`, name, shard)
}

func newCounters(set *metrics.Set, shard int) counters {
	counter := func(name string) *metrics.Counter { return set.NewCounter(metricName(name, shard)) }
	return counters{
		stored: counter("messages_stored_total"), mail: counter("mail_bytes_total"), ops: counter("ops_total"), batches: counter("batches_total"), syncs: counter("syncs_total"), lateSyncs: counter("late_syncs_total"),
		bytes: counter("batch_bytes_total"), stalls: counter("write_stalls_total"), orphans: counter("orphans_total"),
		corrupt: counter("corrupt_records_total"), damaged: counter("damaged_messages_total"),
		replayed:    counter("replayed_bytes_total"),
		written:     newWritten(set, shard),
		syncSeconds: set.NewHistogram(metricName("sync_seconds", shard)), queueSeconds: set.NewHistogram(metricName("queue_seconds", shard)),
	}
}

// written counts the bytes that a store hands to the disk, by the kind of file. Every write goes through it, so that it knows more than Pebble tells,
// which leaves out the rewriting of blob files.
type written struct{ wal, table, blob, other *metrics.Counter }

func newWritten(set *metrics.Set, shard int) written {
	counter := func(file string) *metrics.Counter {
		return set.NewCounter(fmt.Sprintf(`mailrace_spool_written_bytes_total{shard="%d",file=%q}`, shard, file))
	}
	return written{wal: counter("wal"), table: counter("table"), blob: counter("blob"), other: counter("other")}
}

// of is the counter for a file.
func (w *written) of(name string) *metrics.Counter {
	switch {
	case isWAL(name):
		return w.wal
	case isBlob(name):
		return w.blob
	case filepath.Ext(name) == ".sst":
		return w.table
	}
	return w.other
}

// stores is what went to tables and blob files.
func (w *written) stores() uint64 { return w.table.Get() + w.blob.Get() }

func (w *written) total() uint64 { return w.wal.Get() + w.stores() + w.other.Get() }

// registerMetrics adds mailrace_spool_* to what the process exposes, per shard, until unregisterMetrics.
func (s *Spool) registerMetrics() {
	s.metrics.NewGauge("mailrace_spool_open_seconds", s.took.Seconds)
	for _, sh := range s.shards {
		for name, f := range map[string]func(*pebble.Metrics) float64{
			"disk_bytes":            func(m *pebble.Metrics) float64 { return float64(m.DiskSpaceUsage()) },
			"memtable_bytes":        func(m *pebble.Metrics) float64 { return float64(m.MemTable.Size) },
			"memtables":             func(m *pebble.Metrics) float64 { return float64(m.MemTable.Count) },
			"flushed_bytes_total":   flushedBytes,
			"compacted_bytes_total": func(m *pebble.Metrics) float64 { return float64(sh.written.stores()) - flushedBytes(m) },
		} {
			s.metrics.NewGauge(metricName(name, sh.index), sh.measure(f))
		}
		s.metrics.NewGauge(metricName("write_amplification", sh.index), sh.writeAmplification)
		if s.failover.dir == "" {
			continue
		}
		for name, f := range map[string]func(*pebble.Metrics) float64{
			"wal_switches_total":          func(m *pebble.Metrics) float64 { return float64(m.WAL.Failover.DirSwitchCount) },
			"wal_secondary_seconds_total": func(m *pebble.Metrics) float64 { return m.WAL.Failover.SecondaryWriteDuration.Seconds() },
		} {
			s.metrics.NewGauge(metricName(name, sh.index), sh.measure(f))
		}
	}
	s.measured = true
	metrics.RegisterSet(s.metrics)
}

// unregisterMetrics takes them back, and waits for those who are asking.
func (s *Spool) unregisterMetrics() {
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

// writeAmplification is the bytes written to the disk for each byte of mail that was taken, content and envelope, since the store was opened: to WALs,
// by flushes and by compactions, for the mail and for all that happens to it until it is removed.
func (sh *Shard) writeAmplification() float64 {
	mail := sh.mail.Get()
	if mail == 0 {
		return 0
	}
	return float64(sh.written.total()) / float64(mail)
}
