package scenario

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"mailrace/bench/console"
)

// SlowClients are clients that send an octet now and then, and never come to an end.
type SlowClients struct {
	Kind     string        `json:"kind"`        // where they dawdle
	Clients  int           `json:"clients"`     // how many there were
	Deadline time.Duration `json:"deadline_ns"` // that the node gives them
	Gone     int           `json:"gone"`        // that the node has closed
	First    time.Duration `json:"first_ns"`    // when the first was closed, from the beginning of its dawdling
	Last     time.Duration `json:"last_ns"`
}

func (s SlowClients) String() string {
	return fmt.Sprintf("%d of %d gone after %s to %s (deadline %s)", s.Gone, s.Clients, console.Duration(s.First), console.Duration(s.Last), s.Deadline)
}

const (
	slowStep = 500 * time.Millisecond // between two octets of a slow client: two in a second are below any floor
	slowMost = 20 * time.Second       // beyond the deadline: then a slow client that is still there stays
)

// slowClients has clients of each kind dawdle, all at once.
func (b *idleBench) slowClients(ctx context.Context) ([]SlowClients, error) {
	begin := []string{"EHLO slow.bench.mailrace\r\n"}
	kinds := []struct {
		SlowClients
		to   *target
		says []string // first, each line answered
	}{
		{SlowClients{Kind: "command", Deadline: b.opts.Deadline}, b.slow[0], begin},
		{SlowClients{Kind: "content", Deadline: b.opts.Deadline}, b.slow[1],
			append(begin[:1:1], "MAIL FROM:<slow@bench.mailrace>\r\n", "RCPT TO:<r@bench.mailrace>\r\n", "DATA\r\n")},
		{SlowClients{Kind: "handshake", Deadline: b.opts.Deadline}, b.slow[1], append(begin[:1:1], "STARTTLS\r\n")},
	}
	if !b.opts.TLS {
		kinds = kinds[:2]
	}
	var mu sync.Mutex
	var failure error
	var wait sync.WaitGroup
	for i := range kinds {
		k := &kinds[i]
		k.Clients = b.opts.SlowClients
		for range k.Clients {
			wait.Go(func() {
				after, err := dawdle(ctx, k.to.address, k.says, k.Deadline+slowMost)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err != nil:
					failure = fmt.Errorf("slow client in the %s: %w", k.Kind, err)
				case after > 0:
					if k.Gone++; k.First == 0 || after < k.First {
						k.First = after
					}
					k.Last = max(k.Last, after)
				}
			})
		}
	}
	wait.Wait()
	var all []SlowClients
	for i := range kinds {
		all = append(all, kinds[i].SlowClients)
	}
	return all, failure
}

// dawdle is one slow client. It returns how long the server bore it, or 0 if it was still there when most had passed.
func dawdle(ctx context.Context, address string, says []string, most time.Duration) (time.Duration, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	conn.SetDeadline(time.Now().Add(most + time.Minute))
	replies := bufio.NewReader(conn)
	if _, err := readReply(replies); err != nil {
		return 0, err
	}
	for _, line := range says {
		if _, err := io.WriteString(conn, line); err != nil {
			return 0, err
		}
		if code, err := readReply(replies); err != nil || code[0] > '3' {
			return 0, fmt.Errorf("%q answered with %s, %w", line, code, orError(err))
		}
	}
	began := time.Now()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, replies) // a 421 may come before the end
	}()
	step := time.NewTicker(slowStep)
	defer step.Stop()
	octets := "\x16\x03\x01\x02" // the beginning of a ClientHello, of a command and of a line alike
	for n := 0; ; n++ {
		select {
		case <-gone:
			return time.Since(began), ctx.Err()
		case <-step.C:
			if time.Since(began) > most {
				return 0, nil
			}
			_, _ = conn.Write([]byte{octets[min(n, len(octets)-1)]})
		}
	}
}

// readReply reads a whole reply and returns its code.
func readReply(r *bufio.Reader) (code string, err error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		if len(line) < 4 {
			return "", fmt.Errorf("reply %q", strings.TrimSpace(line))
		}
		if line[3] != '-' {
			return line[:3], nil
		}
	}
}
