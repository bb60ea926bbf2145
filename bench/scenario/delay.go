package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// delayLine is a TCP proxy that makes the network slow: what goes through it, either way, arrives half a round trip later. It holds nothing back
// otherwise, so it is a network of much bandwidth.
type delayLine struct {
	listener net.Listener
	to       string
	oneWay   atomic.Int64 // nanoseconds

	wait  sync.WaitGroup
	mu    sync.Mutex
	conns map[net.Conn]bool // nil = closed
}

// delayed begins a delay line to an address, without delay.
func delayed(to string) (*delayLine, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("delay line: %w", err)
	}
	d := &delayLine{listener: l, to: to, conns: map[net.Conn]bool{}}
	d.wait.Go(d.accept)
	return d, nil
}

// slow sets the round trip of what is read from now on.
func (d *delayLine) slow(roundTrip time.Duration) { d.oneWay.Store(int64(roundTrip / 2)) }

func (d *delayLine) address() string { return d.listener.Addr().String() }

func (d *delayLine) accept() {
	for {
		near, err := d.listener.Accept()
		if err != nil {
			return
		}
		if d.add(near) {
			d.wait.Go(func() { d.join(near) })
		}
	}
}

// add notes a connection, or closes it when all are closed.
func (d *delayLine) add(c net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conns == nil {
		c.Close()
		return false
	}
	d.conns[c] = true
	return true
}

// join carries the two ways of a connection.
func (d *delayLine) join(near net.Conn) {
	defer d.drop(near)
	far, err := net.Dial("tcp", d.to)
	if err != nil || !d.add(far) {
		return
	}
	defer d.drop(far)
	var both sync.WaitGroup
	both.Go(func() { d.carry(far, near) })
	both.Go(func() { d.carry(near, far) })
	both.Wait()
}

func (d *delayLine) drop(c net.Conn) {
	c.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, c)
}

// onTheWay is how many reads of one direction are on their way at most, each of at most readMax octets.
const (
	onTheWay = 4096
	readMax  = 64 << 10
	dueMax   = 32 // of them are written at once
)

// piece is what was read at once, and when it arrives.
type piece struct {
	octets []byte
	at     time.Time
}

// carry carries one way to its end, which arrives late as well.
func (d *delayLine) carry(to, from net.Conn) {
	way := make(chan piece, onTheWay)
	go func() {
		defer close(way)
		buf := make([]byte, readMax)
		for {
			n, err := from.Read(buf)
			if n > 0 {
				way <- piece{bytes.Clone(buf[:n]), time.Now().Add(time.Duration(d.oneWay.Load()))}
			}
			if err != nil {
				if !errors.Is(err, io.EOF) { // a reset is not carried on, but an end
					from.Close()
				}
				return
			}
		}
	}()
	broken := false
	last := time.Now()
	for p := range way {
		if last = p.at; broken {
			continue
		}
		time.Sleep(time.Until(p.at))
		due := net.Buffers{p.octets}
		for len(way) > 0 && len(due) < dueMax && time.Until(last) <= 0 { // what is due by now goes along
			p = <-way
			last, due = p.at, append(due, p.octets)
		}
		time.Sleep(time.Until(last))
		if _, err := due.WriteTo(to); err != nil {
			broken = true
			from.Close()
		}
	}
	time.Sleep(time.Until(last))
	_ = to.(*net.TCPConn).CloseWrite()
}

// close ends all connections, and returns when nothing is on its way any more.
func (d *delayLine) close() {
	d.listener.Close()
	d.mu.Lock()
	for c := range d.conns {
		c.Close()
	}
	d.conns = nil
	d.mu.Unlock()
	d.wait.Wait()
}
