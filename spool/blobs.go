package spool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/objstorage"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/blob"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/sstable/colblk"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// blobHandle is what a table says of a value that is in a blob file: which of the files that the manifest lists for the table, and where in it.
type blobHandle struct {
	table                int // by number in rawRecords
	reference            uint32
	block, value, length uint32
}

const blobHandleLen = 5 * 4

func (h blobHandle) encode() []byte {
	var b []byte
	for _, v := range []uint32{uint32(h.table), h.reference, h.block, h.value, h.length} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

func decodeBlobHandle(b []byte) blobHandle {
	at := func(i int) uint32 { return binary.LittleEndian.Uint32(b[4*i:]) }
	return blobHandle{int(at(0)), at(1), at(2), at(3), at(4)}
}

// parseBlobHandle reads what sstable.DebugHandlesBlobContext makes of a handle.
func parseBlobHandle(value []byte, table int) (h blobHandle, ok bool) {
	h.table = table
	n, err := fmt.Sscanf(string(value), "blob-value:(f%d,blk%d,id%d,len%d)", &h.reference, &h.block, &h.value, &h.length)
	return h, n == 4 && err == nil
}

// blobReference is one blob file that a table refers to, by its number there.
type blobReference struct {
	table     int
	reference uint32
}

const (
	// matchAtLeast is how many lengths must occur among the values of a reference before a file that fits them all is taken for theirs: mail must
	// not get another's content. matchAtMost bounds how many values are tried.
	matchAtLeast = 8
	matchAtMost  = 2000
)

// blobMatcher finds out which blob file a table refers to when no manifest tells: the one file that has a value of the right length at
// each place that the table names. Where two fit, or too little is known, none is taken.
type blobMatcher struct {
	samples map[blobReference][]blobHandle
	files   []*blobFile
	found   map[blobReference]*blobFile
}

// note keeps a handle as a sample.
func (m *blobMatcher) note(h blobHandle) {
	if m.samples == nil {
		m.samples = map[blobReference][]blobHandle{}
	}
	r := blobReference{h.table, h.reference}
	if s := m.samples[r]; len(s) < matchAtMost {
		m.samples[r] = append(s, h)
	}
}

// open opens a blob file to be tried. One that is damaged is left out.
func (m *blobMatcher) open(fs vfs.FS, name string) error {
	f, err := openBlob(fs, name)
	if err == nil {
		m.files = append(m.files, f)
	}
	return err
}

// match finds the files of all references.
func (m *blobMatcher) match() {
	m.found = map[blobReference]*blobFile{}
	for r, samples := range m.samples {
		lengths := map[uint32]bool{}
		for _, h := range samples {
			lengths[h.length] = true
		}
		if len(lengths) < matchAtLeast {
			continue
		}
		var fits []*blobFile
		for _, f := range m.files {
			if f.fits(samples) {
				fits = append(fits, f)
			}
		}
		if len(fits) == 1 {
			m.found[r] = fits[0]
		}
	}
}

// value reads a value, if its file is known.
func (m *blobMatcher) value(h blobHandle) ([]byte, bool) {
	f := m.found[blobReference{h.table, h.reference}]
	if f == nil {
		return nil, false
	}
	value, err := f.value(h)
	return value, err == nil
}

func (m *blobMatcher) close() error {
	var errs []error
	for _, f := range m.files {
		errs = append(errs, f.close())
	}
	return errors.Join(errs...)
}

// blobFile reads values out of a blob file, by itself.
type blobFile struct {
	r       *blob.FileReader
	room    objstorageprovider.PreallocatedReadHandle
	handle  objstorage.ReadHandle
	blocks  []block.Handle
	virtual []uint64 // of a file that was rewritten: where blocks went, the physical one in the low 32 bits, the first of its values in the high
	loaded  int      // the block in values, or -1
	buffer  block.BufferHandle
	values  colblk.RawBytes
}

func openBlob(fs vfs.FS, name string) (f *blobFile, err error) {
	file, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	readable, err := sstable.NewSimpleReadable(file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	r, err := blob.NewFileReader(context.Background(), readable, blob.FileReaderOptions{})
	if err != nil {
		return nil, errors.Join(err, readable.Close())
	}
	f = &blobFile{r: r, loaded: -1}
	f.handle = r.InitReadHandle(&f.room)
	if err := f.readIndex(); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

// blobIndexHeader is the length of the number of virtual blocks in front of an index.
const blobIndexHeader = 4

func (f *blobFile) readIndex() error {
	b, err := f.r.ReadIndexBlock(context.Background(), block.NoReadEnv, f.handle)
	if err != nil {
		return err
	}
	defer b.Release()
	data := b.BlockData()
	index := colblk.DecodeBlock(data, blobIndexHeader)
	if n := int(binary.LittleEndian.Uint32(data)); n > 0 {
		virtual := colblk.DecodeColumn(&index, 0, n, colblk.DataTypeUint, colblk.DecodeUnsafeUints)
		for i := range n {
			f.virtual = append(f.virtual, virtual.At(i))
		}
	}
	offsets := colblk.DecodeColumn(&index, 1, index.Rows()+1, colblk.DataTypeUint, colblk.DecodeUnsafeUints)
	for i := range index.Rows() {
		f.blocks = append(f.blocks, block.Handle{Offset: offsets.At(i), Length: offsets.At(i+1) - offsets.At(i) - block.TrailerLen})
	}
	return nil
}

// fits says whether the file has a value of the right length wherever one is named.
func (f *blobFile) fits(samples []blobHandle) bool {
	for _, h := range samples {
		if _, err := f.value(h); err != nil {
			return false
		}
	}
	return true
}

// value reads a value, which is good until the next is read.
func (f *blobFile) value(h blobHandle) ([]byte, error) {
	at, index := uint64(h.block), int(h.value)
	if f.virtual != nil {
		if at >= uint64(len(f.virtual)) {
			return nil, errBlob
		}
		moved := f.virtual[at]
		at, index = moved&(1<<32-1), index+int(moved>>32)
	}
	if at >= uint64(len(f.blocks)) {
		return nil, errBlob
	}
	if f.loaded != int(at) {
		b, err := f.r.ReadValueBlock(context.Background(), block.NoReadEnv, f.handle, f.blocks[at])
		if err != nil {
			return nil, err
		}
		f.buffer.Release()
		decoder := colblk.DecodeBlock(b.BlockData(), 0)
		f.buffer, f.values, f.loaded = b, decoder.RawBytes(0), int(at)
	}
	if index >= f.values.Slices() {
		return nil, errBlob
	}
	value := f.values.At(index)
	if len(value) != int(h.length) {
		return nil, errBlob
	}
	return value, nil
}

func (f *blobFile) close() error {
	f.buffer.Release()
	return errors.Join(f.handle.Close(), f.r.Close())
}
