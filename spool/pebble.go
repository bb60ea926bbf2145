package spool

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable/block"
)

const (
	// defaultMemTableBytes, for all shards together, holds 25,000 messages of 10 KiB: about a second at full rate. Mail that is delivered
	// sooner is mostly removed from the memtable that it was written to, and a flush does not write what has been removed.
	defaultMemTableBytes = 256 << 20
	minMemTableBytes     = 16 << 20

	// cacheBytes is the block cache that all shards share. The spool reads little: what is delivered soon is delivered from memory.
	cacheBytes = 32 << 20

	// separateBytes is the size from which a value goes to a blob file at its flush, so that compactions move the key and not the content.
	separateBytes = 1 << 10

	// blobDepth is how many blob files a table may refer to before a compaction writes the content again to have it together. Mail is read one
	// message at a time, and it does not matter to that where the others are: with a bound of 10, as for scans, mail that stays and is deferred a few
	// times is written 3.2 times, without one 2.4 times (TestAmplificationOfLastingMail, which has memtables of 50 messages).
	blobDepth = 1 << 10
	// garbageRatio is the share of what is in blob files that may be garbage until one is written anew. With 0.3 a message that stays is written 2.7
	// times; with half it is 2.4 times, and the disk holds up to twice what the queue has.
	garbageRatio = 0.5
	// Where the disk is short of room, that is worth more than what it takes to write.
	tightBlobDepth    = 10
	tightGarbageRatio = 0.3
	// rewriteAge is how old a blob file is before what lives in it may be written anew: most of what is left in a young one goes soon.
	rewriteAge = 10 * time.Minute
)

// pebbleOptions tunes a store for mail: written once, read seldom, and deleted soon, in the order in which it was written.
func (sh *Shard) pebbleOptions(opts Options) *pebble.Options {
	o := &pebble.Options{
		FS:                 sh.guard(opts.FS, primaryWAL),
		Cache:              sh.spool.cache,
		FormatMajorVersion: pebble.FormatValueSeparation,
		Logger:             sh,
		ReadOnly:           opts.ReadOnly,
		ErrorIfNotExists:   opts.ReadOnly,
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) {
				if opts.bulk {
					opts.trouble(fmt.Errorf("shard %d: %w", sh.index, err))
					return
				}
				if !sh.opened.Load() && sh.spool.keeper.hurried() { // Pebble would try it again at once, for ever, and Open wait for that
					sh.standStill(err)
				}
				sh.log.Error("spool: background work failed, will be tried again", "error", err)
			},
			DataCorruption: func(i pebble.DataCorruptionInfo) {
				sh.log.Error("spool: a file is damaged", "path", i.Path, "error", i.Details)
			},
			WriteStallBegin: func(i pebble.WriteStallBeginInfo) {
				sh.stalls.Inc()
				sh.log.Debug("spool: writes wait for the disk", "reason", i.Reason)
			},
		},
		MemTableSize: uint64(opts.MemTableBytes),
		// A third memtable lets the intake go on while a flush takes its time. It is also how many WAL files are kept to be written over:
		// syncing one that has its blocks already is several times as fast as syncing one that grows.
		MemTableStopWritesThreshold: 3,
		// Content that streams in ahead of its envelope is on its way to the disk when the envelope's sync comes.
		WALBytesPerSync: 2 << 20,
		// What comes and goes leaves next to nothing in a flush, but of all kinds of keys: compacting it copies those of the mail that waits, all
		// of them where that is not much. So it is done seldom.
		L0CompactionThreshold: 16,
		L0StopWritesThreshold: 64,
		LBaseMaxBytes:         256 << 20,
		MaxOpenFiles:          256,
	}
	o.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		depth, ratio := blobDepth, garbageRatio
		if sh.spool.Full() {
			depth, ratio = tightBlobDepth, tightGarbageRatio
		}
		return pebble.ValueSeparationPolicy{
			Enabled:               true,
			MinimumSize:           separateBytes,
			MaxBlobReferenceDepth: depth,
			TargetGarbageRatio:    ratio,
			RewriteMinimumAge:     opts.rewriteAge,
		}
	}
	o.Experimental.ReadSamplingMultiplier = -1 // no compactions because something is read often: mail is read once
	o.DisableConsistencyCheck = opts.lenient
	if opts.bulk {
		o.DisableWAL = true
		o.MemTableStopWritesThreshold = 1 << 10 // fillers bound what waits for a flush, and can be called off
	}
	for i := range o.Levels {
		o.Levels[i].Compression = func() *block.CompressionProfile { return block.NoCompression }
	}
	return o
}

// Infof, Errorf and Fatalf make a Shard the logger of its store. What Pebble has to say is for those who look for it.
func (sh *Shard) Infof(format string, args ...any) {
	if sh.log.Enabled(context.Background(), slog.LevelDebug) {
		sh.log.Debug("spool: " + fmt.Sprintf(format, args...))
	}
}

// Errorf logs trouble that Pebble can live with.
func (sh *Shard) Errorf(format string, args ...any) {
	sh.log.Error("spool: " + fmt.Sprintf(format, args...))
}

// Fatalf is what Pebble calls when it cannot go on: a write to the WAL failed, or a sync of it. It does not return.
func (sh *Shard) Fatalf(format string, args ...any) {
	sh.standStill(fmt.Errorf("shard %d: "+format, append([]any{sh.index}, args...)...))
}
