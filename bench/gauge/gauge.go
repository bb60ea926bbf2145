// Package gauge shares a counter between processes through a mapped file: the sink counts what arrived, and the generator sees it at the cost
// of a load from memory, so that it can keep what is under way in an MTA within bounds.
package gauge

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// size of the file: a page, of which the first eight octets are the counter in the machine's byte order.
const size = 4096

// Gauge is a counter in a file. Any goroutine of any process on this machine may use it.
type Gauge struct{ page []byte }

// Open maps the file, and makes it with the counter at 0 if it is missing.
func Open(path string) (*Gauge, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("gauge: %w", err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return nil, fmt.Errorf("gauge: %w", err)
	}
	page, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("gauge: map %s: %w", path, err)
	}
	return &Gauge{page}, nil
}

func (g *Gauge) counter() *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&g.page[0])) }

// Add counts n more.
func (g *Gauge) Add(n uint64) { g.counter().Add(n) }

// Value is the count.
func (g *Gauge) Value() uint64 { return g.counter().Load() }

// Close unmaps the file. The gauge must not be used again.
func (g *Gauge) Close() error { return unix.Munmap(g.page) }
