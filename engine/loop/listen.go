package loop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// endpoint is the address that a listener is bound to. An empty host means every address of the machine: one IPv6 socket takes IPv4 as
// well, unlike the host [::].
type endpoint struct {
	at   netip.AddrPort
	dual bool
}

// url is the endpoint as gnet wants it.
func (e endpoint) url() string {
	if e.dual {
		return fmt.Sprintf("tcp://:%d", e.at.Port())
	}
	return "tcp://" + e.at.String()
}

// is reports whether a is the address that gnet made of url.
func (e endpoint) is(a *net.TCPAddr) bool {
	at := a.AddrPort()
	return at.Port() == e.at.Port() && (e.dual == !at.Addr().IsValid()) && (e.dual || at.Addr().Unmap() == e.at.Addr())
}

// reserve finds out the endpoint of a listener and binds a socket to it that does not listen: it holds a port that the kernel chose until
// every loop has its own listener there. The caller closes the socket.
func reserve(address string) (e endpoint, fd int, err error) {
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return e, -1, err
	}
	e = endpoint{tcp.AddrPort(), tcp.IP == nil}
	host := tcp.AddrPort().Addr().Unmap()
	if e.dual {
		host = netip.IPv6Unspecified()
	}
	e.at = netip.AddrPortFrom(host, uint16(tcp.Port))
	fd, err = bindExclusive(e)
	if e.dual && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) { // no IPv6 here
		e = endpoint{netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(tcp.Port)), false}
		fd, err = bindExclusive(e)
	}
	if err != nil {
		return e, -1, err
	}
	port, err := boundPort(fd)
	if err != nil {
		return e, -1, errors.Join(err, unix.Close(fd))
	}
	e.at = netip.AddrPortFrom(e.at.Addr(), port)
	return e, fd, nil
}

func boundPort(fd int) (uint16, error) {
	sa, err := unix.Getsockname(fd)
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return uint16(sa.Port), nil
	case *unix.SockaddrInet6:
		return uint16(sa.Port), nil
	}
	return 0, os.NewSyscallError("getsockname", err)
}

// bindExclusive binds a socket with SO_REUSEPORT, as gnet's listeners do. As that would let a second process of the same user share the
// port unnoticed, it first binds without.
func bindExclusive(e endpoint) (int, error) {
	if e.at.Port() != 0 {
		fd, err := bind(e, false)
		if err != nil {
			return -1, err
		}
		_ = unix.Close(fd)
	}
	return bind(e, true)
}

func bind(e endpoint, share bool) (int, error) {
	family, sa, err := sockaddr(e.at)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil && share {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err == nil && family == unix.AF_INET6 && !e.dual {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, os.NewSyscallError("bind", err)
	}
	return fd, nil
}

func sockaddr(at netip.AddrPort) (int, unix.Sockaddr, error) {
	a := at.Addr()
	if a.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(at.Port()), Addr: a.As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: int(at.Port()), Addr: a.As16()}
	if zone := a.Zone(); zone != "" {
		ifi, err := net.InterfaceByName(zone)
		if err != nil {
			return 0, nil, fmt.Errorf("zone of %s: %w", a, err)
		}
		sa.ZoneId = uint32(ifi.Index)
	}
	return unix.AF_INET6, sa, nil
}

// enrollProbe puts one end of a socket pair on gnet's next event loop. The caller closes the other end when no probe is needed any more;
// gnet then closes its own.
func (g *Group) enrollProbe(p *probe) (other *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	end, other := os.NewFile(uintptr(fds[0]), "probe"), os.NewFile(uintptr(fds[1]), "probe")
	defer end.Close()
	nc, err := net.FileConn(end)
	if err != nil {
		return other, fmt.Errorf("loop: probe: %w", err)
	}
	defer nc.Close()
	if g.client != nil {
		_, err = g.client.EnrollContext(nc, p)
		return other, err
	}
	ctx := gnet.NewNetConnContext(gnet.NewContext(context.Background(), p), nc)
	result, err := g.engine.Register(ctx)
	if err != nil {
		return other, fmt.Errorf("loop: probe: %w", err)
	}
	r := <-result
	return other, r.Err
}
