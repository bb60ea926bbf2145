package scenario

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"mailrace/bench/profile"
)

// queueProfile is how long profiles are taken of a node that works off a queue, from its beginning.
const queueProfile = 5 * time.Second

// profiler has profiles taken of one node. Of a nil one none are. Its methods are for one goroutine.
type profiler struct {
	node     *child
	address  string // where the node serves them
	dir      string
	taken    map[string]bool // by name
	progress io.Writer
}

// profileServer is what makes a node serve profiles, and where.
func profileServer(dir string, progress io.Writer) (args []string, p *profiler, err error) {
	if dir == "" {
		return nil, nil, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, fmt.Errorf("profiles: %w", err)
	}
	if progress == nil {
		progress = io.Discard
	}
	p = &profiler{dir: dir, taken: map[string]bool{}, progress: progress}
	if p.address, err = freeAddress(); err != nil {
		return nil, nil, err
	}
	return []string{"--profile-address", p.address}, p, nil
}

// beside has profiles taken of what the node does for d from now on, and returns what waits for them.
func (p *profiler) beside(ctx context.Context, name string, d time.Duration) (wait func() error) {
	if p == nil {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() {
		err := await(ctx, p.node, p.address, func(ctx context.Context, address string) error {
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			if err != nil {
				return err
			}
			return c.Close()
		})
		if err == nil {
			err = profile.Take(ctx, p.address, filepath.Join(p.dir, name), d)
		}
		done <- err
	}()
	return func() error {
		err := <-done
		if err == nil {
			fmt.Fprintf(p.progress, "profiles: %s-*.pprof (nodes note what they need for them: figures are lower)\n", filepath.Join(p.dir, name))
		}
		return err
	}
}

// under has profiles taken while load runs, which should take d. That is done once for each name, and not at all without a profiler.
func (p *profiler) under(ctx context.Context, name string, d time.Duration, load func() error) error {
	if p == nil || p.taken[name] {
		return nil
	}
	p.taken[name] = true
	wait := p.beside(ctx, name, d)
	err := load()
	if taking := wait(); err == nil {
		err = taking
	}
	return err
}
