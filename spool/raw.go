package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// rawRecords reads every table and every log in a wreck by itself, whatever the manifest says of them, and keeps of each key what was written
// last. It is for what a store does not show: because it does not open, or because files stand in its way. Values that are separated into
// blob files are among it where it is beyond doubt which, see blobMatcher. Files that were obsolete, and not removed yet, may bring back
// messages that were removed.
type rawRecords struct {
	wreck   *wreck
	fs      vfs.FS
	dir     string     // for two stores, to be removed afterwards
	all     *pebble.DB // every version of every key
	db      *pebble.DB // the last of each
	batch   *pebble.Batch
	blobs   blobMatcher
	tables  int // read so far
	outside int // values in blob files that nobody can tell
}

// How a version ends in all: what it was.
const (
	rawSet     = 's'
	rawOutside = 'b' // a value that is in a blob file
	rawRemoved = 'd'
)

// rawBatchBytes is the most of a batch.
const rawBatchBytes = 1 << 20

func readRaw(w *wreck, fs vfs.FS, dir string) (r *rawRecords, err error) {
	r = &rawRecords{wreck: w, fs: fs, dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	for i, to := range []**pebble.DB{&r.all, &r.db} {
		o := &pebble.Options{FS: fs, DisableWAL: true, FormatMajorVersion: pebble.FormatValueSeparation, Logger: quiet{}, MemTableSize: 16 << 20}
		if *to, err = pebble.Open(fs.PathJoin(dir, strconv.Itoa(i)), o); err != nil {
			return r, err
		}
	}
	names, err := w.fs.List(w.dir)
	if err != nil {
		return r, err
	}
	r.batch = r.all.NewBatch()
	for _, name := range names {
		switch filepath.Ext(name) {
		case ".sst":
			err = r.readTable(name)
		case ".blob":
			if cause := r.blobs.open(w.fs, w.fs.PathJoin(w.dir, name)); cause != nil {
				w.wrong("%s cannot be opened: %v", name, cause)
			}
		case ".log":
			err = r.readLog(w.fs.PathJoin(w.dir, name))
		}
		if err != nil {
			return r, fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, name := range w.otherLogs() {
		if err := r.readLog(name); err != nil {
			return r, fmt.Errorf("%s: %w", name, err)
		}
	}
	r.blobs.match()
	return r, errors.Join(r.flush(1), r.resolve())
}

// quiet is the logger of stores that are thrown away.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}

// version notes what was done to a key.
func (r *rawRecords) version(key []byte, seq uint64, what byte, value []byte) error {
	if len(key) == 0 || len(key) > 255 {
		return nil
	}
	k := append([]byte{byte(len(key))}, key...)
	k = binary.BigEndian.AppendUint64(k, ^seq) // the last first
	if err := r.batch.Set(k, append([]byte{what}, value...), nil); err != nil {
		return err
	}
	return r.flush(rawBatchBytes)
}

func (r *rawRecords) flush(limit int) error {
	if r.batch.Empty() || r.batch.Len() < limit {
		return nil
	}
	if err := r.all.Apply(r.batch, pebble.NoSync); err != nil {
		return err
	}
	r.batch.Reset()
	return nil
}

// readTable reads what can be read of a table.
func (r *rawRecords) readTable(name string) error {
	r.tables++
	err := openTable(r.wreck.fs, r.wreck.fs.PathJoin(r.wreck.dir, name), func(table *sstable.Reader) error {
		for i := range kinds {
			if err := around(r.walkTable(table), nil, kinds[i].prefix, func([]byte, []byte, error) error { return nil }, func(after []byte, cause error) {
				r.wreck.wrong("%s cannot be read behind %x: %v", name, after, cause)
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && !pebble.IsCorruptionError(err) {
		return err
	}
	return nil
}

// walkTable walks over a table and notes the versions in it. fn is called for each, and may end it.
func (r *rawRecords) walkTable(table *sstable.Reader) walkFunc {
	return func(from, upper []byte, fn visit) (last []byte, broken, err error) {
		last = bytes.Clone(from)
		it, err := table.NewIter(sstable.NoTransforms, from, upper, sstable.DebugHandlesBlobContext)
		if err != nil {
			return last, err, nil
		}
		defer func() { _ = it.Close() }()
		kv := it.SeekGE(from, 0)
		for ; kv != nil; kv = it.Next() {
			last = append(last[:0], kv.K.UserKey...)
			if err := fn(last, nil, nil); err != nil {
				return last, nil, err
			}
			what, value := byte(rawRemoved), []byte(nil)
			switch kv.Kind() {
			case pebble.InternalKeyKindSet, pebble.InternalKeyKindSetWithDelete:
				if value, _, err = kv.Value(nil); err != nil {
					return last, err, nil
				}
				what = rawSet
				if h, ok := parseBlobHandle(value, r.tables); ok {
					r.blobs.note(h)
					what, value = rawOutside, h.encode()
				}
			case pebble.InternalKeyKindDelete, pebble.InternalKeyKindSingleDelete, pebble.InternalKeyKindDeleteSized:
			default:
				continue
			}
			if err := r.version(last, uint64(kv.SeqNum()), what, value); err != nil {
				return last, nil, err
			}
		}
		return last, it.Error(), nil
	}
}

// readLog reads the batches in a log.
func (r *rawRecords) readLog(name string) error {
	number, err := logNumber(name)
	if err != nil {
		return nil
	}
	records, _, _, err := readLog(r.wreck.fs, name, number)
	if err != nil {
		return err
	}
	for _, b := range records {
		if _, ok := batchrepr.ReadHeader(b); !ok {
			continue
		}
		seq, entries := uint64(batchrepr.ReadSeqNum(b)), batchrepr.Read(b)
		for {
			kind, key, value, ok, err := entries.Next()
			if !ok || err != nil {
				break
			}
			switch kind {
			case pebble.InternalKeyKindSet:
				err = r.version(key, seq, rawSet, value)
			case pebble.InternalKeyKindDelete, pebble.InternalKeyKindSingleDelete, pebble.InternalKeyKindDeleteSized:
				err = r.version(key, seq, rawRemoved, nil)
			case pebble.InternalKeyKindLogData:
				continue // has no number of its own
			}
			if err != nil {
				return err
			}
			seq++
		}
	}
	return nil
}

// resolve takes the last version of each key over.
func (r *rawRecords) resolve() (err error) {
	it, err := r.all.NewIter(nil)
	if err != nil {
		return err
	}
	defer closeAfter(it.Close, &err)
	batch := r.db.NewBatch()
	defer closeAfter(batch.Close, &err)
	var before []byte
	for it.First(); it.Valid(); it.Next() {
		key := it.Key()[1 : len(it.Key())-8]
		if bytes.Equal(key, before) {
			continue
		}
		before = append(before[:0], key...)
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		what, value := value[0], value[1:]
		if what == rawOutside && len(value) == blobHandleLen {
			inside, ok := r.blobs.value(decodeBlobHandle(value))
			if !ok {
				r.outside++
				continue
			}
			what, value = rawSet, inside
		}
		if what != rawSet {
			continue
		}
		if err := batch.Set(key, value, nil); err != nil {
			return err
		}
		if batch.Len() >= rawBatchBytes {
			if err := r.db.Apply(batch, pebble.NoSync); err != nil {
				return err
			}
			batch.Reset()
		}
	}
	return errors.Join(it.Error(), r.db.Apply(batch, pebble.NoSync))
}

// close closes and removes the stores.
func (r *rawRecords) close() error {
	errs := []error{r.blobs.close()}
	if r.batch != nil {
		errs = append(errs, r.batch.Close())
	}
	for _, db := range []*pebble.DB{r.all, r.db} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(append(errs, r.fs.RemoveAll(r.dir))...)
}
