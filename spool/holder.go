package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// holder says who holds the lock that refused us: the kernel knows, so that no file with a number in it can be wrong. It cannot name a process
// of another container, or of another host. refusal is what locking ended with.
func holder(lock string, refusal error) string {
	const somebody = "another process"
	if !errors.Is(refusal, unix.EAGAIN) && !errors.Is(refusal, unix.EACCES) {
		return somebody // it may be this one, whose lock would be gone with the descriptor that asks
	}
	f, err := os.OpenFile(lock, os.O_RDWR, 0)
	if err != nil {
		return somebody
	}
	defer f.Close()
	who := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &who); err != nil || who.Type == unix.F_UNLCK || who.Pid <= 0 {
		return somebody
	}
	text := fmt.Sprintf("process %d", who.Pid)
	if name, err := os.ReadFile("/proc/" + strconv.Itoa(int(who.Pid)) + "/comm"); err == nil {
		text += fmt.Sprintf(" (%.20q)", name[:max(len(name)-1, 0)])
	}
	return text
}
