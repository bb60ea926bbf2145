package proc

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Meter counts what a process and all that descends from it use. By itself it reads Tree. Where children are waited for by nobody it can have counters of the
// kernel (perf_event_open(2)), which each process inherits that is made, and which count on when that has ended, whoever its parent was: nothing escapes
// those. They cost some time at each switch between processes, a few hundredths of that of an MTA of many processes, so they are not for all. One goroutine at a time.
type Meter struct {
	pid   int
	clock int // descriptor of the CPU clock; -1 = not counted
	syncs []int
}

// NewMeter makes the meter of a process, which must have one thread and no child yet: counters do not see what is there already. unwaited asks for the counter
// of CPU time. Syncs are counted until EndSyncs.
func NewMeter(pid int, unwaited bool) *Meter {
	m := &Meter{pid: pid, clock: -1}
	if unwaited {
		if fd, err := count(pid, unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_TASK_CLOCK); err == nil {
			m.clock = fd
		}
	}
	for _, id := range syncCalls() {
		fd, err := count(pid, unix.PERF_TYPE_TRACEPOINT, id)
		if err != nil {
			m.EndSyncs()
			break
		}
		m.syncs = append(m.syncs, fd)
	}
	return m
}

// count begins to count an event in a process, its threads to come and its descendants to come.
func count(pid int, kind uint32, event uint64) (int, error) {
	attr := unix.PerfEventAttr{Type: kind, Config: event, Bits: unix.PerfBitInherit, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
	fd, err := unix.PerfEventOpen(&attr, pid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	runtime.KeepAlive(&attr)
	if err != nil {
		return -1, fmt.Errorf("count in process %d: %w", pid, err)
	}
	return fd, nil
}

// syncCalls are the events of the system calls that wait for a disk, or none where they cannot be told. The kernel names them in a file system that is not
// mounted everywhere, and root mounts it where nobody else sees it.
func syncCalls() (ids []uint64) {
	out, err := exec.Command("unshare", "-m", "sh", "-c", `mount -t tracefs tracefs /mnt && cd /mnt/events/syscalls &&
		cat sys_enter_fsync/id sys_enter_fdatasync/id sys_enter_msync/id sys_enter_sync/id sys_enter_syncfs/id`).Output()
	if err != nil {
		return nil
	}
	for _, field := range strings.Fields(string(out)) {
		id, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return nil
		}
		ids = append(ids, id)
	}
	return ids
}

// Counted says that the kernel counts the CPU time, so that no process escapes.
func (m *Meter) Counted() bool { return m.clock >= 0 }

// Read returns the usage until now.
func (m *Meter) Read() (Usage, error) {
	u, err := Tree(m.pid)
	if err != nil || m.clock < 0 {
		return u, err
	}
	u.CPU, err = m.CPU()
	return u, err
}

// CPU returns the CPU time of Read, at a small part of its cost where the kernel counts it.
func (m *Meter) CPU() (time.Duration, error) {
	if m.clock < 0 {
		u, err := Tree(m.pid)
		return u.CPU, err
	}
	n, err := value(m.clock)
	if err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", m.pid, err)
	}
	return time.Duration(n), nil
}

// Syncs returns the number of fsync(2), fdatasync(2), msync(2), sync(2) and syncfs(2) since the meter was made; ok is false where they are not
// counted, or not any more.
func (m *Meter) Syncs() (n uint64, ok bool) {
	for _, fd := range m.syncs {
		v, err := value(fd)
		if err != nil {
			return 0, false
		}
		n += v
	}
	return n, len(m.syncs) > 0
}

// value reads a counter.
func value(fd int) (uint64, error) {
	var b [8]byte
	n, err := unix.Read(fd, b[:])
	if err != nil || n != len(b) {
		return 0, os.NewSyscallError("read", err)
	}
	return binary.NativeEndian.Uint64(b[:]), nil
}

// Close ends the counting.
func (m *Meter) Close() {
	m.EndSyncs()
	if m.clock >= 0 {
		unix.Close(m.clock)
		m.clock = -1
	}
}

// EndSyncs ends the counting of syncs, and its cost.
func (m *Meter) EndSyncs() {
	for _, fd := range m.syncs {
		unix.Close(fd)
	}
	m.syncs = nil
}
