package loop

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// reach makes the connection of a dial within its time.
func (j *dialJob) reach(ctx context.Context) (nc net.Conn, second bool, err error) {
	if j.Second == "" && j.Via == nil {
		nc, err = j.attempt(ctx, j.Address)
		return nc, false, err
	}
	if j.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, j.Timeout)
		defer cancel()
	}
	if j.Second == "" {
		nc, err = j.attempt(ctx, j.Address)
		return nc, false, err
	}
	return race(ctx, j.Stagger, func(ctx context.Context, second bool) (net.Conn, error) {
		if second {
			return j.attempt(ctx, j.Second)
		}
		return j.attempt(ctx, j.Address)
	})
}

// Connect connects to Address, for others than a loop. Any goroutine.
func (j *Dial) Connect(ctx context.Context) (net.Conn, error) { return j.attempt(ctx, j.Address) }

// attempt connects to one address. One that is an address needs no resolver.
func (j *Dial) attempt(ctx context.Context, address string) (net.Conn, error) {
	network := cmp.Or(j.Network, "tcp")
	if j.Via != nil {
		return j.Via(ctx, network, address)
	}
	dialer := net.Dialer{Timeout: j.Timeout, KeepAlive: -1} // deadlines on the loop find dead peers
	if j.Local.IsValid() {
		dialer.Control = bindLate
	}
	if to, err := netip.ParseAddrPort(address); err == nil {
		local := j.Local
		if j.Local6.IsValid() && to.Addr().Is6() && !to.Addr().Is4In6() {
			local = j.Local6
		}
		conn, err := dialer.DialTCP(ctx, network, netip.AddrPortFrom(local, 0), to)
		if err != nil {
			return nil, err // and no interface around a nil pointer
		}
		return conn, nil
	}
	if j.Local.IsValid() {
		dialer.LocalAddr = &net.TCPAddr{IP: j.Local.AsSlice(), Zone: j.Local.Zone()}
	}
	return dialer.DialContext(ctx, network, address)
}

// bindLate leaves the choice of the local port to connect(2): then two connections to different hosts may share one, and an address has more than the
// 28,000 of its range.
func bindLate(_, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) }) // where it is not known ports are fewer
}

// race makes two attempts, the second one when the first fails or has taken longer than stagger, and returns the first connection that there is. The
// error is that of the first attempt, which was the better address. No connection is left over. RFC 8305 §5
func race(ctx context.Context, stagger time.Duration, attempt func(ctx context.Context, second bool) (net.Conn, error)) (net.Conn, bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		nc     net.Conn
		second bool
		err    error
	}
	results := make(chan result, 2)
	begin := func(second bool) {
		go func() {
			nc, err := attempt(ctx, second)
			results <- result{nc, second, err}
		}()
	}
	begin(false)
	wait := time.NewTimer(stagger)
	defer wait.Stop()
	begun, ended := 1, 0
	var first error
	for {
		select {
		case <-wait.C:
		case r := <-results:
			ended++
			if r.err == nil {
				cancel()
				if ended < begun {
					go func() { // it ends soon, by the cancelled context, but may have won as well
						if late := <-results; late.nc != nil {
							_ = late.nc.Close()
						}
					}()
				}
				return r.nc, r.second, nil
			}
			if !r.second {
				first = r.err
			}
			if ended == 2 {
				cancel()
				return nil, false, first
			}
		}
		if begun == 1 {
			begun = 2
			begin(true)
		}
	}
}
