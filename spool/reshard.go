package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"mailrace/proto/message"
)

// Resharded is what Reshard did.
type Resharded struct {
	From     int              `json:"from"` // shards
	To       int              `json:"to"`
	Messages int64            `json:"messages"`
	Records  map[string]Tally `json:"records"` // by kind
	Resumed  int64            `json:"resumed"` // records that an earlier run had moved already
	Took     time.Duration    `json:"took_ns"`
}

// Reshard gives the spool at o.Path another number of shards: o.Shards, 0 = DefaultShards. No process may have it open. Ids stay what they are.
//
// The records are copied, in the order of their keys, into a new generation of shards beside the old one, which is only read. Then both
// are read again and compared, record by record, and only then the layout file is replaced, which is the switch; the old generation is removed after it.
// So a crash at any moment leaves the old spool or the new one. What was copied before a crash, or before ctx ended, is not copied again by the next
// run with the same number: what a new shard holds durably always is a beginning of what it shall hold, since memtables are flushed in order,
// and so its last key says where to go on. No record is written twice, which matters: a message is removed by SingleDelete.
//
// tell, which may be nil, is called with the progress, by one goroutine at a time.
func Reshard(ctx context.Context, o Options, tell func(Progress)) (done Resharded, err error) {
	o = o.withDefaults()
	if o.Shards == 0 {
		o.Shards = DefaultShards()
	}
	if o.Shards < 1 || o.Shards > message.MaxShards {
		return done, fmt.Errorf("shards = %d: want 1 to %d", o.Shards, message.MaxShards)
	}
	wanted := o.Shards
	o.ReadOnly, o.Shards, o.Space = true, 0, nil // what finds no room fails
	lock, err := lockDirectory(o)
	if err != nil {
		return done, fmt.Errorf("spool %s: %w", o.Path, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	old, err := readLayout(o)
	if err != nil {
		return done, fmt.Errorf("spool %s: %w", o.Path, err)
	}
	r := &resharding{
		options: o, tell: tell, began: time.Now(),
		old: old, new: layout{shards: wanted, generation: old.generation + 1},
		done: Resharded{From: old.shards, To: wanted},
	}
	if old.shards == wanted {
		return r.done, dropOtherGenerations(o, old)
	}
	if err := guarded(ctx, r.run); err != nil {
		return r.done, fmt.Errorf("resharding %s: %w", o.Path, err)
	}
	return r.done, nil
}

// guarded runs work, and ends it when a store that is being filled reports trouble, which would make it wait for ever.
func guarded(ctx context.Context, work func(ctx context.Context, trouble func(error)) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan error, 1)
	stuck := make(chan struct{}, 1)
	go func() {
		ended <- work(ctx, func(err error) {
			cancel(err)
			select {
			case stuck <- struct{}{}:
			default:
			}
		})
	}()
	select {
	case err := <-ended:
		return err
	case <-stuck:
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(5 * time.Second): // a store that failed may hold its locks for ever
		return context.Cause(ctx)
	}
}

// resharding is one run.
type resharding struct {
	options  Options // of the spool as it is: read-only
	tell     func(Progress)
	began    time.Time
	old, new layout
	done     Resharded
}

func (r *resharding) run(ctx context.Context, trouble func(error)) error {
	source, err := openShards(r.options, r.old)
	if err != nil {
		return err
	}
	if err := r.fill(ctx, source, trouble); err != nil {
		return errors.Join(err, source.Close())
	}
	elsewhere := source.failover
	if err := errors.Join(r.verify(ctx, source), source.Close()); err != nil {
		return err
	}
	if err := r.new.write(r.options); err != nil {
		return fmt.Errorf("switching to the new shards: %w", err)
	}
	r.done.Took = time.Since(r.began)
	elsewhere.o.ReadOnly = false // what WALs in other places held has been copied
	return errors.Join(elsewhere.recovered(), dropOtherGenerations(r.options, r.new), r.options.FS.Remove(r.options.FS.PathJoin(r.new.dir(r.options), planFile)))
}

// planFile says in a new generation what it shall become; planFormat takes the layout before and after.
const (
	planFile   = "RESHARDING"
	planFormat = "from\n%vto\n%v"
)

// fill copies what the new generation does not have yet.
func (r *resharding) fill(ctx context.Context, source *Spool, trouble func(error)) error {
	counted, err := survey(ctx, source, r.tell, refuseUnknown)
	if err != nil {
		return err
	}
	r.done.Records, r.done.Messages = counted.byName(), counted.of(kindEnvelope)
	if err := r.prepare(); err != nil {
		return err
	}
	if err := r.checkRoom(counted.total()); err != nil {
		return err
	}
	o := r.options
	o.ReadOnly, o.bulk, o.Fatal, o.trouble = false, true, trouble, trouble
	target, err := openShards(o, r.new)
	if err != nil {
		if target, err = r.openAnew(o, err); err != nil {
			return fmt.Errorf("the new shards: %w", err)
		}
	}
	err = r.copy(ctx, source, target, counted.total().Records)
	return errors.Join(err, target.Close())
}

// openAnew drops what an earlier run left and cannot be opened, and opens new shards: a crash while a store is being made can leave one
// that names files which are not there.
func (r *resharding) openAnew(o Options, cause error) (*Spool, error) {
	r.options.Log.Warn("spool: an earlier resharding left what cannot be opened, beginning anew", "error", cause)
	if err := removeDir(r.options, r.options.FS.PathBase(r.new.dir(r.options))); err != nil {
		return nil, errors.Join(cause, err)
	}
	if err := r.prepare(); err != nil {
		return nil, errors.Join(cause, err)
	}
	s, err := openShards(o, r.new)
	if err != nil {
		return nil, errors.Join(cause, err)
	}
	return s, nil
}

// prepare makes the directory of the new generation, or finds the one of an earlier run, if that had the same plan.
func (r *resharding) prepare() error {
	fs, plan := r.options.FS, fmt.Sprintf(planFormat, r.old, r.new)
	name := fs.PathJoin(r.new.dir(r.options), planFile)
	found, err := readFile(fs, name)
	if err == nil && found == plan {
		return nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := dropOtherGenerations(r.options, r.old); err != nil {
		return err
	}
	if err := makeDir(fs, r.new.dir(r.options)); err != nil {
		return err
	}
	return replaceFile(fs, name, plan)
}

// roomPerShard is what a store takes at least, and roomShare is how much of the records is added for indexes and blocks: 1/roomShare.
const (
	roomPerShard = 1 << 20
	roomShare    = 16
)

// checkRoom says before anything is copied whether the disk has room for a second copy of all records.
func (r *resharding) checkRoom(all Tally) error {
	usage, err := r.options.FS.GetDiskUsage(r.options.Path)
	if err != nil {
		if !errors.Is(err, vfs.ErrUnsupported) {
			r.options.Log.Warn("spool: cannot tell whether the disk has room", "error", err)
		}
		return nil
	}
	there, err := diskBytes(r.options.FS, r.new.dir(r.options))
	if err != nil {
		return err
	}
	need := all.Bytes + all.Bytes/roomShare + int64(r.new.shards)*roomPerShard - there
	if need <= 0 || uint64(need) <= usage.AvailBytes {
		return nil
	}
	return fmt.Errorf("the copy in %d shards needs %d MiB of disk, and %d MiB are free at %s: make room and run it again; the spool is as it was",
		r.new.shards, need>>20+1, usage.AvailBytes>>20, r.options.Path)
}

// diskBytes is the size of all files in and below a directory.
func diskBytes(fs vfs.FS, dir string) (sum int64, err error) {
	names, err := fs.List(dir)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		whole := fs.PathJoin(dir, name)
		info, err := fs.Stat(whole)
		if err != nil {
			return sum, err
		}
		n := info.Size()
		if info.IsDir() {
			if n, err = diskBytes(fs, whole); err != nil {
				return sum, err
			}
		}
		sum += n
	}
	return sum, nil
}

// copy moves every record to the shard that it belongs to among the new ones, unless it is there.
func (r *resharding) copy(ctx context.Context, source, target *Spool, total int64) error {
	fillers, from, err := newFillers(target)
	if err != nil {
		return err
	}
	if r.done.Resumed, err = countBefore(ctx, source, from, r.tell); err != nil {
		return err
	}
	meter := NewMeter(ctx, r.tell, "copying", "records", total)
	meter.p.Since = r.done.Resumed
	meter.p.Done = r.done.Resumed
	marked := false
	err = eachRecord(source, from, func(key []byte, it *pebble.Iterator, _ int) error {
		if key[0] == kindMark {
			if !marked {
				marked = true
				if err := fillers.mark(ctx, source.newest()); err != nil {
					return err
				}
			}
			return meter.Add(1)
		}
		f, err := fillers.of(key, it)
		if err != nil {
			return err
		}
		if f.has(key) {
			r.done.Resumed++
			return meter.Add(1)
		}
		value, err := valueOf(it)
		if err != nil {
			return err
		}
		return errors.Join(f.set(ctx, key, value), meter.Add(1))
	})
	if err == nil {
		err = fillers.finish(ctx)
	}
	meter.End()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// countBefore counts the records that stand before a key.
func countBefore(ctx context.Context, s *Spool, key []byte, tell func(Progress)) (n int64, err error) {
	if len(key) == 0 {
		return 0, nil
	}
	meter := NewMeter(ctx, tell, "finding where it was", "records", 0)
	defer meter.End()
	err = eachRecord(s, nil, func(k []byte, _ *pebble.Iterator, _ int) error {
		if bytes.Compare(k, key) >= 0 {
			return errEnough
		}
		n++
		return meter.Add(1)
	})
	return n, err
}

// eachRecord calls fn with every record of a spool from a key on, in the order of keys: with the key, the iterator that stands on it, and the
// number of its shard. fn may end it with errEnough.
func eachRecord(s *Spool, from []byte, fn func(key []byte, it *pebble.Iterator, shard int) error) (err error) {
	m, err := merge(s, from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	var before []byte
	for m.valid() {
		it, shard := m.top()
		if before != nil && bytes.Equal(before, it.Key()) && it.Key()[0] != kindMark {
			return fmt.Errorf("record %x stands in two shards, one of which is shard %d: `mailrace spool verify` tells more", before, shard)
		}
		before = append(before[:0], it.Key()...)
		switch err := fn(before, it, shard); {
		case errors.Is(err, errEnough):
			return nil
		case err != nil:
			return err
		}
		if err := m.next(); err != nil {
			return err
		}
	}
	return nil
}

// verify compares what the new generation holds with what the old one does, record by record, and drops it if that is not the same.
func (r *resharding) verify(ctx context.Context, source *Spool) error {
	target, err := openShards(r.options, r.new)
	if err != nil {
		return fmt.Errorf("the new shards: %w", err)
	}
	var sum Tally
	for _, t := range r.done.Records {
		sum.Records += t.Records
	}
	meter := NewMeter(ctx, r.tell, "verifying", "records", sum.Records)
	difference := compare(source, target, meter)
	meter.End()
	err = errors.Join(difference, target.Close())
	if difference != nil && ctx.Err() == nil {
		err = fmt.Errorf("the copy differs from the spool, which is as it was; run it again: %w", err)
		return errors.Join(err, removeDir(r.options, r.options.FS.PathBase(r.new.dir(r.options))))
	}
	return err
}

// compare says where two spools differ in what they hold, or where a record of the second stands in a shard that it does not belong to.
func compare(a, b *Spool, meter *Meter) (err error) {
	want, err := merge(a, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, want.close()) }()
	got, err := merge(b, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, got.close()) }()
	mark := a.newest()
	for {
		if err := errors.Join(passMarks(want, 0), passMarks(got, mark)); err != nil {
			return err
		}
		if !want.valid() || !got.valid() {
			break
		}
		if err := sameRecord(want, got, len(b.shards)); err != nil {
			return err
		}
		if err := errors.Join(want.next(), got.next(), meter.Add(1)); err != nil {
			return err
		}
	}
	if want.valid() != got.valid() {
		return fmt.Errorf("one has records behind the last of the other, after %d", meter.p.Done)
	}
	return nil
}

// passMarks goes on behind the marks of shards, which must be what is wanted, 0 = anything.
func passMarks(m *merged, want message.ID) error {
	for m.valid() {
		it, shard := m.top()
		if it.Key()[0] != kindMark {
			return nil
		}
		if want != 0 {
			value, err := valueOf(it)
			if err != nil {
				return err
			}
			got, err := decodeMark(value)
			if err == nil && got != want {
				err = fmt.Errorf("the mark of shard %d is %v, should be %v", shard, got, want)
			}
			if err != nil {
				return err
			}
		}
		if err := m.next(); err != nil {
			return err
		}
	}
	return nil
}

// newest is the newest id that any shard knows of.
func (s *Spool) newest() (id message.ID) {
	for _, sh := range s.shards {
		id = max(id, message.ID(sh.newest.Load()))
	}
	return id
}

// sameRecord compares the records on which two walks stand; shards is the number of the second's.
func sameRecord(want, got *merged, shards int) error {
	w, _ := want.top()
	g, at := got.top()
	if !bytes.Equal(w.Key(), g.Key()) {
		return fmt.Errorf("record %x, and %x in the copy", w.Key(), g.Key())
	}
	wantValue, err := valueOf(w)
	if err != nil {
		return err
	}
	gotValue, err := valueOf(g)
	if err != nil {
		return err
	}
	if !bytes.Equal(wantValue, gotValue) {
		return fmt.Errorf("record %x differs in its %d bytes", w.Key(), len(wantValue))
	}
	if home := shardOf(ownerOf(w.Key(), wantValue), shards); at != home {
		return fmt.Errorf("record %x is in shard %d of the copy, and belongs to shard %d", w.Key(), at, home)
	}
	return nil
}
