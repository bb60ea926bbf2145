package loop

import (
	"errors"
	"fmt"
	"os"
	"reflect"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// reactor is what lies under a gnet event loop, and gnet does not offer: it cannot pause reads, nor stop listening. The descriptors are
// read from its unexported fields, checked at start against the kernel, and used on the loop's goroutine.
type reactor struct {
	epoll     int
	listeners []int
	resting   bool // the listeners are out of epoll for a while
}

// inspect finds the reactor and the index of an event loop. probe is a descriptor that the loop is known to watch.
func inspect(el gnet.EventLoop, probe int) (r reactor, index int, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("loop: gnet's event loop (%T) is not laid out as expected, is it v2.9.7? %v", el, p)
		}
	}()
	v := reflect.ValueOf(el).Elem()
	index = int(v.FieldByName("idx").Int())
	r.epoll = int(v.FieldByName("poller").Elem().FieldByName("fd").Int())
	for _, fd := range v.FieldByName("listeners").MapKeys() {
		r.listeners = append(r.listeners, int(fd.Int()))
	}
	if err := r.modify(probe, true, false); err != nil {
		return r, index, fmt.Errorf("loop: descriptor %d is not the epoll of gnet's event loop: %w", r.epoll, err)
	}
	for _, fd := range r.listeners {
		if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || on == 0 {
			return r, index, fmt.Errorf("loop: descriptor %d is not a listener of gnet's event loop: %w", fd, errors.Join(err))
		}
	}
	return r, index, nil
}

// modify sets the events that are watched for fd. Errors and hang-up always are.
func (r *reactor) modify(fd int, in, out bool) error {
	ev := unix.EpollEvent{Fd: int32(fd)}
	if in {
		ev.Events |= unix.EPOLLIN | unix.EPOLLPRI
	}
	if out {
		ev.Events |= unix.EPOLLOUT
	}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(r.epoll, unix.EPOLL_CTL_MOD, fd, &ev))
}

// rest takes the listeners out of epoll, and with on false puts them back. Connections wait in the backlog meanwhile.
func (r *reactor) rest(on bool) error {
	if r.resting == on {
		return nil
	}
	r.resting = on
	op := unix.EPOLL_CTL_ADD
	if on {
		op = unix.EPOLL_CTL_DEL
	}
	var errs []error
	for _, fd := range r.listeners {
		ev := unix.EpollEvent{Fd: int32(fd), Events: unix.EPOLLIN | unix.EPOLLPRI}
		errs = append(errs, os.NewSyscallError("epoll_ctl", unix.EpollCtl(r.epoll, op, fd, &ev)))
	}
	return errors.Join(errs...)
}

// stopListening takes the listeners out of epoll for good and shuts them down, so that connects are refused; gnet closes them when it
// ends. It must run on the loop, between rounds of epoll: gnet ends its loops when accept(2) fails.
func (r *reactor) stopListening() error {
	errs := []error{r.rest(true)}
	for _, fd := range r.listeners {
		errs = append(errs, os.NewSyscallError("shutdown", unix.Shutdown(fd, unix.SHUT_RDWR)))
	}
	r.listeners = nil
	return errors.Join(errs...)
}

// lowestFree is the number that the next descriptor of the process will get.
func (r *reactor) lowestFree() (int, error) {
	fd, err := unix.FcntlInt(uintptr(r.epoll), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("fcntl", err)
	}
	return fd, os.NewSyscallError("close", unix.Close(fd))
}
