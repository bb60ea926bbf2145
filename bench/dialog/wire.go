package dialog

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"time"
)

// Mode says how what a client sends is cut into writes.
type Mode string

const (
	// Whole: steps in a row go out in one write.
	Whole Mode = "whole"
	// Bytes: every octet is a write of its own.
	Bytes Mode = "bytes"
	// Segments: writes end before and behind each CR, LF, NUL and dot.
	Segments Mode = "segments"
)

const (
	// pieceGap is the pause between two writes of which one ends or begins with an octet that a server decides by, so that it sees each alone.
	pieceGap = 50 * time.Microsecond
	// fineEdge is how much of a long text is cut finely, at its begin and at its end. What is between goes in pieces of coarsePiece.
	fineEdge    = 3 << 10
	coarsePiece = 16<<10 - 1
	// heardMax is the most octets of replies that may wait to be looked at.
	heardMax = 4 << 20
)

var (
	errTimeout = errors.New("no reply in time")
	errClosed  = errors.New("the server closed the connection")
	errDeaf    = errors.New("the server does not read in time")
	errFlood   = errors.New("the server says more than 4 MiB")
)

// wire is a connection whose replies are gathered whether or not anybody waits for them, so that no write of ours can block for good.
type wire struct {
	conn    net.Conn
	mode    Mode
	timeout time.Duration
	arrived chan struct{} // holds a token when heard or ended may have changed

	mu    sync.Mutex
	heard []byte
	ended error // why nothing more comes
}

func newWire(conn net.Conn, mode Mode, timeout time.Duration) *wire {
	w := &wire{conn: conn, mode: mode, timeout: timeout, arrived: make(chan struct{}, 1)}
	go w.listen()
	return w
}

// listen gathers what the server says.
func (w *wire) listen() {
	b := make([]byte, 16<<10)
	for {
		n, err := w.conn.Read(b)
		w.mu.Lock()
		w.heard = append(w.heard, b[:n]...)
		if len(w.heard) > heardMax {
			err = errFlood
		}
		w.ended = err
		w.mu.Unlock()
		select {
		case w.arrived <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// look returns the next reply without taking it; n is its length. It waits for up to d, and fails with errTimeout, errClosed, or what is wrong
// with the reply.
func (w *wire) look(d time.Duration) (r reply, n int, err error) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		w.mu.Lock()
		r, n, err = cutReply(w.heard)
		left, ended := len(w.heard), w.ended
		w.mu.Unlock()
		switch {
		case err != nil || n > 0:
			return r, n, err
		case errors.Is(ended, errFlood):
			return r, 0, ended
		case ended != nil && left > 0:
			return r, 0, fmt.Errorf("the server closed behind a part of a reply: %s", quote(w.rest()))
		case ended != nil:
			return r, 0, errClosed
		}
		select {
		case <-w.arrived:
		case <-timer.C:
			return r, 0, errTimeout
		}
	}
}

func (w *wire) take(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard = w.heard[n:]
}

// rest is what nobody took.
func (w *wire) rest() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]byte(nil), w.heard...)
}

// send writes p in the pieces of the mode. A connection that the server has closed takes it without an error: what the server said before that
// is what counts.
func (w *wire) send(p []byte) error {
	for done := 0; done < len(p); {
		if err := w.conn.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
			return nil
		}
		n := w.piece(p, done)
		_, err := w.conn.Write(p[done : done+n])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return errDeaf
		case err != nil:
			return nil
		}
		done += n
		switch {
		case done == len(p) || w.mode == Whole:
		case telling(p[done-1]) || telling(p[done]):
			time.Sleep(pieceGap)
		default:
			runtime.Gosched()
		}
	}
	return nil
}

// piece is how many octets of p the write at i takes.
func (w *wire) piece(p []byte, i int) int {
	switch {
	case w.mode == Whole:
		return len(p) - i
	case i >= fineEdge && i < len(p)-fineEdge:
		return min(coarsePiece, len(p)-fineEdge-i)
	case w.mode == Bytes || telling(p[i]):
		return 1
	}
	n := 1
	for i+n < len(p) && !telling(p[i+n]) && n < fineEdge {
		n++
	}
	return n
}

// telling octets are the ones that a reader of SMTP decides by.
func telling(c byte) bool { return c == '\r' || c == '\n' || c == '.' || c == 0 }

// halfClose ends our side.
func (w *wire) halfClose() {
	if c, ok := w.conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
	}
}
