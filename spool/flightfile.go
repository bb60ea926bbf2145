package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/VictoriaMetrics/metrics"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// flightsFile is the table of what is in flight in the directory of the spool, where it cannot be made elsewhere. There writes to it may wait for
// the disk, which is why it should be elsewhere.
const flightsFile = "INFLIGHT"

// tableFile is the file of a table.
type tableFile struct {
	name string
	fd   int
}

// openFlights opens the table of the spool at o.Path, whose lock the caller holds, in the directory o.InFlight, or else in the spool, or else in
// memory of the process. The name of the file is made of what the kernel calls the spool's directory, so it is found again whatever path leads
// there, and not by a copy of the spool; it is gone after a boot, when the shards have what is left to know.
func openFlights(o Options, set *metrics.Set) (*flights, error) {
	f, err := makeFlights(o)
	if err != nil {
		return nil, err
	}
	f.unmarked, f.unreadable = set.NewCounter("mailrace_spool_in_flight_unmarked_total"), set.NewCounter("mailrace_spool_in_flight_unreadable_total")
	set.NewGauge("mailrace_spool_in_flight", f.figure)
	f.look(o)
	if inside := filepath.Join(o.Path, flightsFile); f.file != nil && f.file.name != inside {
		if _, err := os.Lstat(inside); err == nil { // of a process that could not make the other
			f.adopt(o, inside)
		}
	}
	return f, nil
}

func makeFlights(o Options) (*flights, error) {
	if o.InFlight == "" || o.FS != vfs.Default {
		return memoryFlights()
	}
	name, err := flightsName(o)
	if err == nil {
		var f *flights
		if f, err = mapFlights(name); err == nil {
			return f, nil
		}
	}
	cause := fmt.Errorf("in_flight = %q: %w", o.InFlight, err)
	inside := filepath.Join(o.Path, flightsFile)
	f, err := mapFlights(inside)
	if err != nil {
		o.Log.Error("spool: what is in flight cannot be noted outside of the process: after a crash, deliveries in doubt may not be known",
			"error", errors.Join(cause, err))
		return memoryFlights()
	}
	o.Log.Warn("spool: what is in flight is noted in the directory of the spool, where that may wait for the disk", "path", inside, "error", cause)
	return f, nil
}

// flightsName is where the table of a spool is, or is to be made.
func flightsName(o Options) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(o.Path, &st); err != nil {
		return "", err
	}
	return filepath.Join(o.InFlight, fmt.Sprintf("mailrace-%x-%x", st.Dev, st.Ino)), nil
}

// mapFlights maps a table that there is, or a new one.
func mapFlights(name string) (f *flights, err error) {
	file, size, err := openFlightFile(name, unix.O_CREAT)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.close(false))
		}
	}()
	backed := max(int(size-tableHeader)/slotSize/slotStep*slotStep, slotStep)
	backed = min(backed, slotMax)
	if err := file.grow(backed); err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(file.fd, 0, tableHeader+slotMax*slotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	f = newFlights(mem)
	f.file, f.backed = file, backed
	return f, nil
}

// openFlightFile opens the file of a table. The directory may be everybody's, so it must be a file of our own, and nobody else's.
func openFlightFile(name string, flags int) (*tableFile, int64, error) {
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK|flags, 0o600)
	if err != nil {
		return nil, 0, &os.PathError{Op: "open", Path: name, Err: err}
	}
	file := &tableFile{name: name, fd: fd}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1:
		err = errors.New("is no file of its own")
	case int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0:
		err = errors.New("belongs to, or may be opened by, another user")
	}
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("%s: %w", name, err), file.close(false))
	}
	return file, st.Size, nil
}

// grow gives the file memory for that many slots: what is mapped and has none is a fatal signal when it is touched.
func (t *tableFile) grow(slots int) error {
	if err := unix.Fallocate(t.fd, 0, 0, int64(tableHeader+slots*slotSize)); err != nil {
		return &os.PathError{Op: "fallocate", Path: t.name, Err: err}
	}
	return nil
}

// close closes the file, and removes it, too.
func (t *tableFile) close(remove bool) error {
	err := unix.Close(t.fd)
	if remove {
		err = errors.Join(err, os.Remove(t.name))
	}
	return err
}

// look reads what the table has from an earlier process. What cannot be read is counted, and goes: a mark that was not finished when the process
// ended, or that something else wrote over. It allows for a table of any content.
func (f *flights) look(o Options) {
	var magic [16]byte
	binary.NativeEndian.PutUint64(magic[:], tableMagic[0])
	binary.NativeEndian.PutUint64(magic[8:], tableMagic[1])
	if string(f.mem[:16]) != string(magic[:]) {
		if string(f.mem[:16]) != string(make([]byte, 16)) {
			f.unreadable.Inc()
			o.Log.Warn("spool: what was in flight cannot be read: it is of another version", "path", f.file.name)
		}
		if f.file != nil { // memory of the process is empty
			clear(f.mem[:tableHeader+f.backed*slotSize])
		}
		copy(f.mem, magic[:])
		return
	}
	for i := range f.slots[:f.backed] {
		flight, used, ok := f.slots[i].read()
		switch {
		case ok:
			f.found = append(f.found, found{flight, &f.slots[i]})
		case used:
			f.unreadable.Inc()
			f.slots[i].seal.Store(0)
		}
	}
}

// adopt takes over what another table has. Its file goes when that is noted.
func (f *flights) adopt(o Options, name string) {
	other, err := mapFlights(name)
	if err != nil {
		o.Log.Warn("spool: what was in flight cannot be read", "error", err)
		return
	}
	other.unreadable = f.unreadable
	other.look(o)
	for _, was := range other.found {
		f.found = append(f.found, found{flight: was.flight})
	}
	f.left = other.file
	if err := unix.Munmap(other.mem); err != nil {
		o.Log.Warn("spool: a table of what was in flight", "error", err)
	}
}
