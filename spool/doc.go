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
//   - Removals and updates are synced with the next Append, or all together after 100 ms. A crash may take the last of them back, and then a
//     message is delivered twice, never lost.
//   - A record that cannot be read is kept aside, with its content, and counted.
//   - A full disk is no failure: writes wait for room, and so do those who wait for them. See keeper.
//
// What is in flight, whose end may be lost in a crash, is marked in a table in shared memory (Marker) before the last octet leaves, and unmarked when
// the Op that notes its end is durable (Op.Marks). So what a kill leaves in the table is all that may have been delivered and is not noted: Resolve
// makes doubts of it, in the records of the recipients. A crash of the machine takes the table; what stands of it in the shards (flightrecord.go) is
// as old as the last batch that was synced and had room for it.
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
// A long queue is on the disk. What a parked message costs in memory is 16 bytes while its entry is in the pager's window, which has a bound.
// Begin reads no message. It replays the WALs of the memtables that were in use, whatever else the spool holds, 2 to 3 s for two times two of 128
// MiB on two busy cores, while mail is taken already. With 1,000,000 messages of 2 KiB, 950,000 of them parked (make queue, on the same machine), a
// node listens after 0.2 s, answers for mail and delivers what is due when the WALs are replayed, and has looked through all messages 5 to 14 s
// later, as other work leaves it the cores; it takes 290 MiB, 100 MiB of them for the 50,000 that
// are under way. The same for 100 million, on paper, none of it measured:
//
//   - Disk: 230 to 340 GiB, as compactions have come along, nearly all of it content. An entry of the index is 25 bytes, all of them are 2.5 GiB
//     at most; the next page of it is a seek: a block in each level, some milliseconds from a disk that has none of them in its cache.
//   - Begin reads the manifest: an entry of some 200 bytes for each table and each blob file, and of these there are 5,000 to 10,000 if they have
//     some 32 to 64 MiB: 2 MiB, read in well under 100 ms.
//   - The walk goes over envelopes, states, the index and the keys of the content, together about 400 bytes a message, 40 GB, which is 80 s of
//     a disk with 500 MB/s, and at 6 µs a message 600 s of one core. It runs behind everything else; only messages that were never
//     attempted when the process was killed wait for it. A parked one is found by the index at its time.
//   - All of them due within four hours are 7,000 a second: as many reads of an envelope, and 0.5 MB/s of index entries.
//   - Memory: that of an empty node, 128 KiB of window for each shard, and what is under way, which the node bounds.
//
// Ids must not be used twice, not even after a removal, since removal is by SingleDelete; a mark keeps them from it (mark.go). The key space
// is in key.go, the formats are in record.go.
package spool
