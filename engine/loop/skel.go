package loop

import (
	"net"
	"net/netip"
	"time"
)

type Stats struct{ Accepted, Refused, Dialled, DialsFailed, Open int64 }

type Group struct{}

func Start(o Options) (*Group, error)     { return nil, nil }
func (g *Group) Loops() []*Loop           { return nil }
func (g *Group) Addr(i int) net.Addr      { return nil }
func (g *Group) StopAccepting()           {}
func (g *Group) Close() error             { return nil }
func (g *Group) Done() <-chan struct{}    { return nil }
func (g *Group) Err() error               { return nil }
func (g *Group) Stats() Stats             { return Stats{} }

// Task is work for a loop.
type Task interface{ Run() }

type Loop struct{ Value any }

func (l *Loop) Index() int                        { return 0 }
func (l *Loop) Group() *Group                     { return nil }
func (l *Loop) Now() time.Time                    { return time.Time{} }
func (l *Loop) Post(fn func()) bool               { return false }
func (l *Loop) PostTask(t Task) bool              { return false }
func (l *Loop) After(d time.Duration, t *Timer)   {}
func (l *Loop) Dial(d Dial, h Handler)            {}

// Timer: set Fire, hand it to Loop.After.
type Timer struct{ Fire func() }

func (t *Timer) Stop() bool { return false }

type Dial struct {
	Network, Address string
	Local            netip.Addr
	Timeout          time.Duration
}

type Conn struct{ Handler Handler }

func (c *Conn) Loop() *Loop                 { return nil }
func (c *Conn) Write(p []byte) error        { return nil }
func (c *Conn) Writev(bs [][]byte) error    { return nil }
func (c *Conn) Outbound() int               { return 0 }
func (c *Conn) HighWater() int              { return 0 }
func (c *Conn) Full() bool                  { return false }
func (c *Conn) Pause()                      {}
func (c *Conn) Resume()                     {}
func (c *Conn) SetDeadline(d time.Duration) {}
func (c *Conn) Close()                      {}
func (c *Conn) CloseAfterFlush()            {}
func (c *Conn) Remote() netip.AddrPort      { return netip.AddrPort{} }
func (c *Conn) Local() netip.AddrPort       { return netip.AddrPort{} }
func (c *Conn) Listener() int               { return 0 }
