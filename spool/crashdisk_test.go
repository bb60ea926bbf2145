package spool

import (
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// crashDisk is a disk that may crash while it is used. Some operations of MemFS take its lock for reading twice, and a crash that came between the two
// would wait for the operation, and be waited for.
type crashDisk struct {
	*vfs.MemFS
	twice sync.RWMutex // read-locked by these operations
}

func (d *crashDisk) Link(from, to string) error {
	d.twice.RLock()
	defer d.twice.RUnlock()
	return d.MemFS.Link(from, to)
}

func (d *crashDisk) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	d.twice.RLock()
	defer d.twice.RUnlock()
	return d.MemFS.ReuseForWrite(from, to, category)
}

func (d *crashDisk) Lock(name string) (io.Closer, error) {
	d.twice.RLock()
	defer d.twice.RUnlock()
	return d.MemFS.Lock(name)
}

// CrashClone is what is left after a crash at this moment.
func (d *crashDisk) CrashClone(loss vfs.CrashCloneCfg) *vfs.MemFS {
	d.twice.Lock()
	defer d.twice.Unlock()
	return d.MemFS.CrashClone(loss)
}
