package spool

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/cockroachdb/pebble/v2"
)

// errBlob is what became of a value whose blob file is gone or has lost its beginning or its end.
var errBlob = fmt.Errorf("%w: the blob file with it is missing or damaged", errRecord)

// valueOf is the value of the record on which an iterator stands, until the iterator moves.
func valueOf(it *pebble.Iterator) (value []byte, err error) {
	defer catchBlob(&err)
	return it.ValueAndErr()
}

// get is the value at key. The caller closes closer.
func (sh *Shard) get(key []byte) (value []byte, closer io.Closer, err error) {
	defer func() {
		if errors.Is(err, errBlob) {
			sh.leaked.Store(true)
		}
	}()
	defer catchBlob(&err)
	return sh.db.Get(key)
}

// close closes the store. Where get met a blob file that is gone, Pebble still counts that read as going on, and panics when all else is closed.
func (sh *Shard) close() (err error) {
	if sh.db == nil {
		return nil
	}
	if sh.leaked.Load() {
		defer func() {
			if r := recover(); r != nil {
				err = errors.Join(err, errBlob)
			}
		}()
	}
	return sh.db.Close()
}

// catchBlob makes an error of the panic with which this version of Pebble meets a blob file that it cannot open: its report of the
// damage knows tables only. Nothing is held there. It is deferred.
func catchBlob(err *error) {
	switch r := recover().(type) {
	case nil:
	case string:
		if !strings.HasPrefix(r, "unknown metadata type") {
			panic(r)
		}
		*err = errBlob
	default:
		panic(r)
	}
}
