package spool

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/VictoriaMetrics/metrics"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// veneer lies over a directory that must not be written: what is created or repaired is in memory, and seen instead of what is below.
type veneer struct {
	vfs.FS
	mem    *vfs.MemFS
	hidden map[string]bool // names that are not seen any more
}

func newVeneer(fs vfs.FS) *veneer {
	return &veneer{FS: fs, mem: vfs.NewMem(), hidden: map[string]bool{}}
}

// lay puts a file over the one below.
func (v *veneer) lay(name string, content []byte) error {
	if err := v.mem.MkdirAll(v.FS.PathDir(name), 0o700); err != nil {
		return err
	}
	f, err := v.mem.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

func (v *veneer) over(name string) bool {
	_, err := v.mem.Stat(name)
	return err == nil
}

func (v *veneer) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if v.over(name) {
		return v.mem.Open(name, opts...)
	}
	return v.FS.Open(name, opts...)
}

func (v *veneer) Stat(name string) (vfs.FileInfo, error) {
	if v.over(name) && !v.hidden[name] {
		if info, err := v.mem.Stat(name); err == nil && !info.IsDir() {
			return info, nil
		}
	}
	return v.FS.Stat(name)
}

func (v *veneer) List(dir string) ([]string, error) {
	names, err := v.FS.List(dir)
	if err != nil {
		return nil, err
	}
	if above, err := v.mem.List(dir); err == nil {
		names = append(names, above...)
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return v.hidden[v.FS.PathJoin(dir, name)] }), nil
}

func (v *veneer) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := v.lay(name, nil); err != nil {
		return nil, err
	}
	return v.mem.Create(name, category)
}

func (v *veneer) OpenDir(name string) (vfs.File, error) {
	if err := v.mem.MkdirAll(name, 0o700); err != nil {
		return nil, err
	}
	return v.mem.OpenDir(name)
}

// The rest is what nobody who only reads asks for.

func (v *veneer) Link(string, string) error          { return os.ErrPermission }
func (v *veneer) Remove(string) error                { return os.ErrPermission }
func (v *veneer) RemoveAll(string) error             { return os.ErrPermission }
func (v *veneer) Rename(string, string) error        { return os.ErrPermission }
func (v *veneer) MkdirAll(string, os.FileMode) error { return nil }
func (v *veneer) Lock(string) (io.Closer, error)     { return io.NopCloser(nil), nil }
func (v *veneer) Unwrap() vfs.FS                     { return v.FS }
func (v *veneer) OpenReadWrite(string, vfs.DiskWriteCategory, ...vfs.OpenOption) (vfs.File, error) {
	return nil, os.ErrPermission
}
func (v *veneer) ReuseForWrite(string, string, vfs.DiskWriteCategory) (vfs.File, error) {
	return nil, os.ErrPermission
}

// wreck is the directory of a shard that may be damaged, repaired in memory as far as that goes.
type wreck struct {
	fs     *veneer
	dir    string
	logs   []string // other directories that WALs are in
	damage []string // what is wrong with it, as people read it
}

func (w *wreck) wrong(format string, args ...any) {
	line, _, _ := strings.Cut(fmt.Sprintf(format, args...), "\n")
	if len(w.damage) < damageExamples && !slices.Contains(w.damage, line) {
		w.damage = append(w.damage, line)
	}
}

// survey looks at every file and repairs what a store could not be opened with.
func (w *wreck) survey() error {
	names, err := w.fs.List(w.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		whole := w.fs.PathJoin(w.dir, name)
		switch filepath.Ext(name) {
		case ".sst":
			if err := openTable(w.fs, whole, func(*sstable.Reader) error { return nil }); err != nil {
				w.wrong("%s cannot be opened: %v", name, err)
				if err := w.layEmptyTable(whole); err != nil {
					return err
				}
			}
		case ".log":
			if err := w.mendLog(whole); err != nil {
				return err
			}
		}
	}
	for _, name := range w.otherLogs() {
		if err := w.mendLog(name); err != nil {
			return err
		}
	}
	return w.mendManifest(names)
}

// otherLogs are the logs in other directories, by whole names.
func (w *wreck) otherLogs() (logs []string) {
	for _, dir := range w.logs {
		names, err := w.fs.List(dir)
		if err != nil {
			continue // this shard never went there
		}
		for _, name := range names {
			if isWAL(name) {
				logs = append(logs, w.fs.PathJoin(dir, name))
			}
		}
	}
	return logs
}

// logNumber reads the number in the name of a log: "000012.log", or "000012-001.log" where it went on elsewhere.
func logNumber(name string) (uint64, error) {
	digits, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(name), ".log"), "-")
	return strconv.ParseUint(digits, 10, 32)
}

// openTable opens a table file for fn.
func openTable(fs vfs.FS, name string, fn func(*sstable.Reader) error) error {
	f, err := fs.Open(name)
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r, err := sstable.NewReader(context.Background(), readable, sstable.ReaderOptions{})
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	return errors.Join(fn(r), r.Close())
}

// layEmptyTable puts a table without records in the place of one that is gone: what other tables hold in its range stays readable.
func (w *wreck) layEmptyTable(name string) error {
	if err := w.fs.lay(name, nil); err != nil {
		return err
	}
	f, err := w.fs.mem.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	return sstable.NewWriter(objstorageprovider.NewFileWritable(f), sstable.WriterOptions{TableFormat: sstable.TableFormatPebblev5}).Close()
}

const (
	// walBlockBytes is the block of a WAL: no chunk goes across its end.
	walBlockBytes = 32 << 10
	// walRecyclable is the first type of chunk that carries the number of its log, behind checksum, length and type.
	walRecyclable = 5
	walHeaderLen  = 4 + 2 + 1 + 4
)

// mendLog puts all records of a WAL that can be read in the place of one that is damaged.
func (w *wreck) mendLog(whole string) error {
	name := filepath.Base(whole)
	number, err := logNumber(name)
	if err != nil {
		return nil
	}
	records, behind, broken, err := readLog(w.fs, whole, number)
	if err != nil {
		w.wrong("%s cannot be read: %v", name, err)
	}
	if broken == nil && err == nil {
		return nil
	}
	if behind > 0 {
		w.wrong("%s is damaged: %v; %d writes behind that are read all the same", name, broken, behind)
	} else if broken != nil {
		w.wrong("%s is cut short behind %d writes, as a crash leaves it, or by damage", name, len(records))
	}
	var b bytes.Buffer
	out := record.NewWriter(&b)
	for _, r := range records {
		if _, err := out.WriteRecord(r); err != nil {
			return err
		}
	}
	if err := out.Close(); err != nil {
		return err
	}
	return w.fs.lay(whole, b.Bytes())
}

// readLog reads the records of a log that are whole. broken is what is wrong with the first that is not, which may be the torn end that a
// crash leaves; behind is how many stand behind it.
func readLog(fs vfs.FS, name string, number uint64) (records [][]byte, behind int, broken, err error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, 0, nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, nil, err
	}
	for from := int64(0); from < info.Size(); {
		if from > 0 && !beginsChunk(f, from, uint32(number)) {
			from += walBlockBytes
			continue
		}
		r := newLogReader(record.NewReader, io.NewSectionReader(f, from, info.Size()-from), number)
		for {
			at := r.Offset()
			next, err := r.Next()
			var whole []byte
			if err == nil {
				whole, err = io.ReadAll(next)
			}
			if errors.Is(err, io.EOF) {
				return records, behind, broken, nil
			}
			if err != nil {
				if broken == nil {
					broken = err
				}
				from += (at/walBlockBytes + 1) * walBlockBytes
				break
			}
			records = append(records, whole)
			if broken != nil {
				behind++
			}
		}
	}
	return records, behind, broken, nil
}

// newLogReader calls record.NewReader, whose type for the number has no name outside of Pebble.
func newLogReader[N ~uint64](open func(io.Reader, N) *record.Reader, r io.Reader, number uint64) *record.Reader {
	return open(r, N(number))
}

// beginsChunk says whether a chunk of this log may stand at the beginning of a block.
func beginsChunk(f io.ReaderAt, at int64, number uint32) bool {
	var header [walHeaderLen]byte
	if n, _ := f.ReadAt(header[:], at); n < len(header) || header[6] == 0 {
		return false
	}
	return header[6] < walRecyclable || binary.LittleEndian.Uint32(header[7:]) == number
}

// The names by which a store finds its manifest and its format: vfs/atomicfs of Pebble writes them.
var (
	manifestMarker = regexp.MustCompile(`^marker\.manifest\.(\d{6})\.(MANIFEST-\d+)$`)
	formatMarker   = regexp.MustCompile(`^marker\.format-version\.(\d{6})\.(\d{3})$`)
)

// mendManifest finds the manifest if what points to it is lost, and cuts it before the first record that cannot be read.
func (w *wreck) mendManifest(names []string) error {
	var manifest, current string
	iteration, format := 0, false
	for _, name := range names {
		if strings.HasPrefix(name, "MANIFEST-") {
			manifest = max(manifest, name)
		}
		if found := manifestMarker.FindStringSubmatch(name); found != nil {
			current = found[2]
			iteration, _ = strconv.Atoi(found[1])
		}
		format = format || formatMarker.MatchString(name)
		if strings.HasPrefix(name, "OPTIONS-") {
			w.fs.hidden[w.fs.PathJoin(w.dir, name)] = true // ours are known, and a garbled file keeps a store closed
		}
	}
	if manifest == "" {
		return fmt.Errorf("the MANIFEST is missing")
	}
	if current == "" || !slices.Contains(names, current) {
		w.wrong("what names the MANIFEST is missing: taking %s", manifest)
		current = manifest
		if err := w.fs.lay(w.fs.PathJoin(w.dir, fmt.Sprintf("marker.manifest.%06d.%s", iteration+1, current)), nil); err != nil {
			return err
		}
	}
	if !format {
		w.wrong("the marker of the format is missing")
		if err := w.fs.lay(w.fs.PathJoin(w.dir, fmt.Sprintf("marker.format-version.%06d.%03d", 1, int(pebble.FormatValueSeparation))), nil); err != nil {
			return err
		}
	}
	return w.cutManifest(current)
}

func (w *wreck) cutManifest(name string) error {
	whole := w.fs.PathJoin(w.dir, name)
	f, err := w.fs.Open(whole)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	var b bytes.Buffer
	out := record.NewWriter(&b)
	in := newLogReader(record.NewReader, f, 0)
	for edits := 0; ; edits++ {
		next, err := in.Next()
		var edit []byte
		if err == nil {
			edit, err = io.ReadAll(next)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && edits == 0 {
			return fmt.Errorf("%s cannot be read: %w", name, err)
		}
		if err != nil {
			w.wrong("%s is damaged behind %d edits: %v", name, edits, err)
			return errors.Join(out.Close(), w.fs.lay(whole, b.Bytes()))
		}
		if _, err := out.WriteRecord(edit); err != nil {
			return err
		}
	}
}

// open opens the store to be read, damaged as it may be.
func (w *wreck) open(s *Spool, index int) (*Shard, error) {
	if err := w.survey(); err != nil {
		w.wrong("%v", err)
		return nil, err
	}
	sh, err := openShard(s, index)
	if err == nil {
		return sh, nil
	}
	if len(w.damage) == 0 {
		w.wrong("the store does not open: %v", err)
	}
	// A table that the manifest knows and that is gone.
	for _, number := range regexp.MustCompile(`\b\d{6,}\b`).FindAllString(err.Error(), -1) {
		name := w.fs.PathJoin(w.dir, number+".sst")
		if _, err := w.fs.Stat(name); err == nil {
			continue
		}
		if _, err := w.fs.Stat(w.fs.PathJoin(w.dir, number+".blob")); err == nil {
			continue
		}
		w.wrong("%s.sst, or .blob, is missing", number)
		if err := w.layEmptyTable(name); err != nil {
			return nil, err
		}
	}
	s.options.lenient, s.metrics = true, metrics.NewSet()
	if sh, err = openShard(s, index); err != nil {
		w.wrong("the store does not open, repaired as it is: %v", err)
	}
	return sh, err
}
