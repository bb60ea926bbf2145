package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/pires/go-proxyproto"
	"golang.org/x/net/proxy"

	"mailrace/engine/loop"
	"mailrace/proto/smtp"
	"mailrace/router"
)

// stagger is how long a connection attempt has the field to itself before the other family is tried beside it. RFC 8305 §5
const stagger = 250 * time.Millisecond

// Source is what connections of a router.Source are made of. It is immutable.
type Source struct {
	IPv4, IPv6 netip.Addr // that remote hosts see; bound to, unless a proxy connects
	SMTP, LMTP *smtp.ClientConfig

	SOCKS5   string                 // host:port of a proxy that connects; "" = none. RFC 1928
	User     string                 // of that; "" = it wants none
	Password func() (string, error) // of User; it may wait for a disk

	Proxy string // host:port of a proxy that connects where a PROXY header says; "" = none
}

// unusable is an error on our side of a connection.
type unusable struct{ err error }

func (u *unusable) Error() string { return u.err.Error() }
func (u *unusable) Unwrap() error { return u.err }

// atFault says whether a dial failed for its source.
func atFault(err error) bool {
	var u *unusable
	var call *os.SyscallError
	return errors.As(err, &u) || errors.As(err, &call) && call.Syscall == "bind"
}

// dialFault says in words what a dial failed for: with the address of the host, or where they are at fault that of the source or its proxy.
func dialFault(err error) string {
	var op *net.OpError
	if !errors.As(err, &op) || op.Addr == nil || atFault(err) {
		return "connect: " + strings.TrimPrefix(err.Error(), "loop: ")
	}
	err = op.Err
	if call, ok := err.(*os.SyscallError); ok {
		err = call.Err
	}
	return fmt.Sprintf("connect to %s: %v", op.Addr, err)
}

// address is where remote hosts see the source come from, if that is known.
func (src *Source) address(to netip.Addr) netip.Addr {
	if to.Is6() {
		return src.IPv6
	}
	return src.IPv4
}

// proxied says whether others make its connections.
func (src *Source) proxied() bool { return src.SOCKS5 != "" || src.Proxy != "" }

// use has a dial come from the source.
func (src *Source) use(d *loop.Dial) {
	switch {
	case src.SOCKS5 != "":
		d.Via = src.viaSOCKS
	case src.Proxy != "":
		d.Via = src.viaProxy
	default:
		d.Local, d.Local6 = src.IPv4, src.IPv6
		if !d.Local.IsValid() {
			d.Local = src.IPv6
		}
	}
}

// Connect connects to an address from a source, for others than a loop; "" = from any address of this machine. Any goroutine.
func (o *Options) Connect(ctx context.Context, source string, to netip.AddrPort) (net.Conn, error) {
	d := loop.Dial{Network: "tcp", Address: to.String()}
	if src := o.Sources[source]; src != nil {
		src.use(&d)
	}
	return d.Connect(ctx)
}

// hop connects to a proxy.
func hop(ctx context.Context, address string) (net.Conn, error) {
	dial := net.Dialer{KeepAlive: -1}
	nc, err := dial.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, &unusable{fmt.Errorf("proxy: %w", err)}
	}
	return nc, nil
}

// asked is a connection to a SOCKS5 proxy that notes whether the proxy let us come to our request: from then on faults are of the far host.
type asked struct {
	net.Conn
	request bool
}

// Write notes a CONNECT, which is longer than a greeting, and begins unlike an authentication. RFC 1928 §3, §4, RFC 1929 §2
func (a *asked) Write(p []byte) (int, error) {
	a.request = a.request || len(p) >= 10 && p[0] == 5
	return a.Conn.Write(p)
}

// connecter is what dialers of x/net/proxy can do besides.
type connecter interface {
	DialWithConn(ctx context.Context, c net.Conn, network, address string) (net.Addr, error)
}

// viaSOCKS connects through the SOCKS5 proxy.
func (src *Source) viaSOCKS(ctx context.Context, network, address string) (net.Conn, error) {
	var auth *proxy.Auth
	if src.User != "" {
		password, err := src.Password()
		if err != nil {
			return nil, &unusable{fmt.Errorf("password of the SOCKS5 proxy: %w", err)}
		}
		auth = &proxy.Auth{User: src.User, Password: password}
	}
	dialer, err := proxy.SOCKS5("tcp", src.SOCKS5, auth, nil)
	if err != nil {
		return nil, &unusable{err}
	}
	nc, err := hop(ctx, src.SOCKS5)
	if err != nil {
		return nil, err
	}
	watched := &asked{Conn: nc}
	if _, err = dialer.(connecter).DialWithConn(ctx, watched, network, address); err != nil {
		_ = nc.Close()
		if !watched.request {
			err = &unusable{err}
		}
		return nil, err
	}
	return nc, nil
}

// viaProxy connects through the proxy that is told by a header where to connect, and from what address.
func (src *Source) viaProxy(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	nc, err := hop(ctx, src.Proxy)
	if err != nil {
		return nil, err
	}
	from := netip.AddrPortFrom(src.address(to.Addr()), 0)
	header := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(from), net.TCPAddrFromAddrPort(to))
	if deadline, ok := ctx.Deadline(); ok {
		_ = nc.SetDeadline(deadline)
	}
	if _, err = header.WriteTo(nc); err != nil {
		_ = nc.Close()
		return nil, &unusable{fmt.Errorf("proxy: %w", err)}
	}
	return nc, nc.SetDeadline(time.Time{})
}

// protocol is what is spoken to the target.
func (o *Options) protocol(target *router.Target) *smtp.ClientConfig {
	from := Source{SMTP: o.SMTP, LMTP: o.LMTP}
	if src := o.Sources[target.Source]; src != nil {
		from = *src
	}
	if target.Manner.Protocol == router.LMTP {
		return from.LMTP
	}
	return from.SMTP
}

// origin is our address on a connection.
func (o *Options) origin(c *loop.Conn, target *router.Target) netip.Addr {
	if src := o.Sources[target.Source]; src != nil && src.proxied() {
		if a := src.address(target.Addr.Addr()); a.IsValid() {
			return a
		}
	}
	return c.Local().Addr()
}
