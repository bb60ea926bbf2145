package ceiling

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"time"
)

// pieceOctets is what is written to a connection, and read from it, at once.
const pieceOctets = 128 << 10

// loopback sends octets over TCP on loopback, on a connection for every two cores, which its ends keep busy, and returns how many a second arrive.
func loopback(ctx context.Context, d time.Duration) (float64, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	streams := max(1, runtime.GOMAXPROCS(0)/2)
	counts, faults := make([]int64, streams), make([]error, streams)
	began := time.Now()
	var wait sync.WaitGroup
	for i := range streams {
		wait.Go(func() { counts[i], faults[i] = stream(ctx, l, began.Add(d)) })
	}
	wait.Wait()
	took, all := time.Since(began), int64(0)
	for _, n := range counts {
		all += n
	}
	return float64(all) / took.Seconds(), errors.Join(faults...)
}

// stream fills one connection until then, and returns how many octets came out at its other end.
func stream(ctx context.Context, l net.Listener, until time.Time) (int64, error) {
	out, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return 0, err
	}
	defer out.Close()
	in, err := l.Accept()
	if err != nil {
		return 0, err
	}
	defer in.Close()
	sent := make(chan error, 1)
	go func() {
		piece := make([]byte, pieceOctets)
		var err error
		for first := true; err == nil && (first || time.Now().Before(until)); first = false {
			if _, err = out.Write(piece); err == nil {
				err = ctx.Err()
			}
		}
		sent <- errors.Join(err, out.Close())
	}()
	octets, piece := int64(0), make([]byte, pieceOctets)
	for {
		n, err := in.Read(piece)
		octets += int64(n)
		if err == io.EOF {
			return octets, <-sent
		}
		if err != nil {
			return octets, errors.Join(err, out.Close(), <-sent)
		}
	}
}

// noise is octets without any pattern.
func noise(octets int) []byte {
	p := make([]byte, octets)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(p)
	return p
}
