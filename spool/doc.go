// Package spool keeps messages durable from the 250 that accepted them until the last recipient is settled.
//
// A spool is a directory with a few shards, each a Pebble store of its own with one committer, the only goroutine that writes to it. The
// loops hand it Ops (Enqueue, which never waits for the disk); the committer takes all that wait, writes them as one batch, syncs the WAL
// once, and posts the completions back, once to each loop. While it syncs, the next batch gathers, so batches grow with the load.
//
// What it promises:
//
//   - An Append completes only after the sync that covers it. Nothing completes after a write that failed: that ends the process, and
//     recovery at the next start is the only repair.
//   - An Op is done whole or not at all.
//   - A message exists when its envelope record does. Chunks of content that went ahead of an envelope that never came are garbage,
//     which Recover collects.
//   - An idempotency key that comes with an Append (Claim) is as durable as the message, and stays when that is removed, until it expires.
//   - A message that nobody has in memory is parked: it has an entry in the due index (Due), whose next entries are a seek, however long it
//     is. Entry and states change in one Op. From the first time that it is parked until it is removed, a message has an entry.
//   - Removals and updates are not synced on their own. A crash may take the last of them back, and then a message is delivered twice,
//     never lost.
//   - A record that cannot be read is kept aside, with its content, and counted.
//   - A full disk is no failure: writes wait for room, and so do those who wait for them. See keeper.
//
// A message that is delivered within seconds costs one sequential write: it is removed from the memtable that holds it, and the flush
// of that memtable writes neither. Its WAL file is written over by a later one, so that a sync changes no metadata of the file system.
//
// Memory: a batch is bounded by 4 MiB and one Op; two memtables exist under load, three when the disk lags (Options.MemTableBytes); Ops that
// wait belong to callers who are bounded themselves, by sessions and by the budget of the chunks.
//
// How many shards a spool has is written in its layout file. Reshard changes it, offline: it copies into a new generation of shards, compares,
// and replaces the layout file. Verify reads everything and judges it; Salvage makes a new spool from what can be read of a damaged one;
// package archive carries messages out and in. All go by one table of the kinds of records (key.go), and take the lock of the spool.
//
// Ids must not be used twice, not even after a removal, since removal is by SingleDelete; a mark keeps them from it (mark.go). The key space
// is in key.go, the formats are in record.go.
package spool
