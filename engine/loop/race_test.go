package loop

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// attempted is how long an attempt takes, and what comes of it.
type attempted struct {
	takes time.Duration
	err   error
}

// pipe is a connection that notes its end.
type pipe struct {
	net.Conn
	closed bool
}

func (p *pipe) Close() error { p.closed = true; return nil }

// TestRace: the second attempt begins when the first fails, or after the head start; the first connection wins, and no other is left.
func TestRace(t *testing.T) {
	down, refused := errors.New("down"), errors.New("refused")
	const head = 250 * time.Millisecond
	for name, x := range map[string]struct {
		first, second attempted
		begins        time.Duration // of the second; -1 = never
		ends          time.Duration
		wins          int // 0 = none
		err           error
	}{
		"first is quick":           {attempted{100 * time.Millisecond, nil}, attempted{0, nil}, -1, 100 * time.Millisecond, 1, nil},
		"first is slow, and ahead": {attempted{300 * time.Millisecond, nil}, attempted{time.Second, nil}, head, 300 * time.Millisecond, 1, nil},
		"first is slower":          {attempted{time.Hour, nil}, attempted{time.Second, nil}, head, head + time.Second, 2, nil},
		"first fails":              {attempted{10 * time.Millisecond, down}, attempted{time.Second, nil}, 10 * time.Millisecond, 1010 * time.Millisecond, 2, nil},
		"first fails late":         {attempted{2 * time.Second, down}, attempted{5 * time.Second, nil}, head, head + 5*time.Second, 2, nil},
		"second fails":             {attempted{2 * time.Second, nil}, attempted{time.Second, down}, head, 2 * time.Second, 1, nil},
		"both fail":                {attempted{2 * time.Second, down}, attempted{time.Second, refused}, head, 2 * time.Second, 0, down},
		"both at once":             {attempted{time.Second, nil}, attempted{time.Second - head, nil}, head, time.Second, -1, nil},
		"nobody answers":           {attempted{time.Hour, nil}, attempted{time.Hour, nil}, head, time.Minute, 0, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				begin, begins := time.Now(), time.Duration(-1)
				var mu sync.Mutex
				var made []*pipe
				nc, second, err := race(ctx, head, func(ctx context.Context, second bool) (net.Conn, error) {
					a := x.first
					if second {
						a, begins = x.second, time.Since(begin)
					}
					select {
					case <-time.After(a.takes):
					case <-ctx.Done():
						return nil, ctx.Err()
					}
					if a.err != nil {
						return nil, a.err
					}
					p := new(pipe)
					mu.Lock()
					defer mu.Unlock()
					made = append(made, p)
					return p, nil
				})
				took := time.Since(begin)
				synctest.Wait()
				wins := 0
				if err == nil {
					if wins = 1; second {
						wins = 2
					}
				}
				if took != x.ends || begins != x.begins || !errors.Is(err, x.err) || x.wins >= 0 && wins != x.wins || x.wins < 0 && wins == 0 {
					t.Errorf("ended after %v with %d, %v; the second began after %v", took, wins, err, begins)
				}
				for _, p := range made {
					if p.closed == (nc == net.Conn(p)) {
						t.Error("a connection is left over, or closed")
					}
				}
			})
		})
	}
}
