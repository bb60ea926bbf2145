package egress

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
)

// TestDialFault: why there is no connection is told in few words.
func TestDialFault(t *testing.T) {
	dialled := func(syscallName string, err error) error {
		return fmt.Errorf("loop: %w", &net.OpError{
			Op: "dial", Net: "tcp", Source: &net.TCPAddr{}, Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 25}, Err: os.NewSyscallError(syscallName, err),
		})
	}
	host := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 25}
	for want, err := range map[string]error{
		"connect to 192.0.2.1:25: connection refused":                               dialled("connect", syscall.ECONNREFUSED),
		"connect to 192.0.2.1:25: i/o timeout":                                      fmt.Errorf("loop: %w", &net.OpError{Op: "dial", Net: "tcp", Addr: host, Err: os.ErrDeadlineExceeded}),
		"connect to 192.0.2.1:25: unknown error host unreachable":                   fmt.Errorf("loop: %w", &net.OpError{Op: "socks connect", Net: "tcp", Addr: host, Err: errors.New("unknown error host unreachable")}),
		"connect: dial tcp :0->192.0.2.1:25: bind: cannot assign requested address": dialled("bind", syscall.EADDRNOTAVAIL),
		"connect: proxy: dial tcp :0->192.0.2.1:25: connect: connection refused":    &unusable{fmt.Errorf("proxy: %w", errors.Unwrap(dialled("connect", syscall.ECONNREFUSED)))},
		"connect: the group is closed":                                              errors.New("the group is closed"),
	} {
		if got := dialFault(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}
