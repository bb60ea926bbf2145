package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mailrace/bench/console"
	"mailrace/bench/load"
)

const (
	// heldDomain is the one whose mail the nodes of a depth bench hold: nobody listens where its route leads.
	heldDomain = "held.bench.mailrace"
	// holdFor is how long a node leaves alone what it could not deliver: longer than any bench.
	holdFor = 24 * time.Hour
	// fillStep is between two looks at how far the filling is.
	fillStep = 250 * time.Millisecond
)

// Filled is how a queue was filled.
type Filled struct {
	Depth   int           `json:"depth"`      // messages that the MTA holds, of one recipient each
	Elapsed time.Duration `json:"elapsed_ns"` // to the reply for the last of them
	Rate    float64       `json:"messages_per_second"`
	CPU     float64       `json:"mta_cpu_us"`     // microseconds of the MTA per message, until it held the last
	Written float64       `json:"mta_disk_bytes"` // that the MTA wrote to disks, per message, until it had come to rest
	RSS     int64         `json:"rss_bytes"`      // when it had come to rest
	Disk    int64         `json:"disk_bytes"`     // likewise
	Left    int           `json:"left"`           // messages that it held at the end

	written int64         // by the MTA before, octets
	runs    []load.Report // of the generator
}

// fill sends the MTA n messages that it can deliver nowhere, and waits until it holds them all.
func fill(ctx context.Context, t *target, n int, o *DepthOptions) (Filled, error) {
	f := Filled{Depth: n}
	if n == 0 {
		return f, nil
	}
	before, err := t.sample(ctx)
	if err != nil {
		return f, err
	}
	type sent struct {
		runs []load.Report
		err  error
	}
	sending := make(chan sent, 1)
	ctx, cancel := context.WithCancel(ctx)
	var generator sync.WaitGroup
	defer generator.Wait()
	defer cancel()
	generator.Go(func() {
		runs, err := sendHeld(ctx, t, n, o)
		sending <- sent{runs, err}
	})
	if err := watchFilling(ctx, t, n, o, func() (bool, error) {
		select {
		case s := <-sending:
			f.runs = s.runs
			for _, r := range s.runs {
				f.Elapsed += r.Sending
			}
			return true, s.err
		default:
			return false, nil
		}
	}); err != nil {
		return f, err
	}
	after, err := t.sample(ctx)
	if err != nil {
		return f, err
	}
	f.written = before.usage.Written
	f.CPU = float64((after.usage.CPU - before.usage.CPU).Microseconds()) / float64(n)
	if f.Elapsed > 0 {
		f.Rate = float64(n) / f.Elapsed.Seconds()
	}
	return f, nil
}

// sendHeld sends n messages for the domain that is held, and returns the runs that it took: what is refused for now is sent again.
func sendHeld(ctx context.Context, t *target, n int, o *DepthOptions) (runs []load.Report, err error) {
	for left := uint64(n); left > 0; {
		r, err := runLoad(ctx, o.Program, load.Options{Address: t.address, Connections: min(o.Connections, n), Messages: left, Sizes: o.Held,
			Sender: "sender@bench.mailrace", Domains: load.Domains{heldDomain}})
		if err != nil {
			return runs, err
		}
		if r.Accepted == 0 || r.Lost > 0 {
			return runs, fmt.Errorf("filling the queue: %d of %d messages accepted, %d lost: %s", r.Accepted, left, r.Lost, r.Failure)
		}
		left -= r.Accepted
		runs = append(runs, r)
	}
	return runs, nil
}

// watchFilling shows how far the filling is, and returns when it is done: sent says so, and the MTA holds all n messages.
func watchFilling(ctx context.Context, t *target, n int, o *DepthOptions, sent func() (bool, error)) error {
	bar := console.NewBar(o.Progress)
	defer bar.End()
	ticker := time.NewTicker(fillStep)
	defer ticker.Stop()
	began, moved, last, all := time.Now(), time.Now(), 0, false
	for {
		if !all {
			var err error
			if all, err = sent(); err != nil {
				return err
			}
		}
		now, err := held(ctx, t, o)
		if err != nil {
			return err
		}
		step := console.Step{Name: "filling", Unit: "messages", Done: int64(now), Total: int64(n), Left: -1}
		if step.Rate = float64(now) / time.Since(began).Seconds(); now > 0 {
			step.Left = time.Duration(float64(n-now) / step.Rate * float64(time.Second))
		}
		bar.Show(step)
		if all && now >= n {
			return nil
		}
		if now != last || !all {
			last, moved = now, time.Now()
		} else if time.Since(moved) > o.Drain {
			return fmt.Errorf("filling the queue: %d of %d messages are held, and no more for %v", now, n, o.Drain)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// held is how many messages of one recipient each the MTA has tried to deliver in vain and holds now; with o.Slow, how many it holds at all.
func held(ctx context.Context, t *target, o *DepthOptions) (int, error) {
	page, err := metricsPage(ctx, t.metrics)
	if err != nil {
		return 0, t.process.failure(err)
	}
	if o.Slow {
		all, err := sumMetric(bytes.NewReader(page), "mailrace_router_recipients")
		return int(all), err
	}
	waiting, err := sumMetric(bytes.NewReader(page), `mailrace_router_recipients{state="deferred"}`)
	if err != nil {
		return 0, err
	}
	// What waits because there was no room for it in memory counts as deferred, too, and is not tried yet.
	tried, err := sumMetric(bytes.NewReader(page), `mailrace_router_outcomes_total{outcome="deferred"}`)
	if err != nil {
		return 0, err
	}
	return int(min(waiting, tried)), nil
}

// left is what is left at the end of n messages that are held: what else the MTA has gets some time to go.
func left(ctx context.Context, t *target, n int, o *DepthOptions) (int, error) {
	for began := time.Now(); ; {
		now, err := held(ctx, t, o)
		if err != nil || now == n || time.Since(began) > o.Drain {
			return now, err
		}
		select {
		case <-time.After(fillStep):
		case <-ctx.Done():
			return now, ctx.Err()
		}
	}
}

// diskUsage is how much room the files below a directory take.
func diskUsage(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil {
			info, err = d.Info()
		}
		if errors.Is(err, fs.ErrNotExist) { // the MTA is at work
			return nil
		}
		if err != nil {
			return err
		}
		if s, ok := info.Sys().(*syscall.Stat_t); ok {
			n += s.Blocks * 512 // st_blocks, stat(2)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("disk usage: %w", err)
	}
	return n, nil
}

// closedPort is a port on loopback to which nobody can connect, and which nobody else can listen on.
type closedPort struct {
	socket  int
	address string // host:port
}

// newClosedPort binds a socket, and does not listen.
func newClosedPort() (*closedPort, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	p := &closedPort{socket: fd}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		p.close()
		return nil, os.NewSyscallError("bind", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		p.close()
		return nil, os.NewSyscallError("getsockname", err)
	}
	p.address = net.JoinHostPort("127.0.0.1", strconv.Itoa(name.(*unix.SockaddrInet4).Port))
	return p, nil
}

// close frees the port. It may be called again.
func (p *closedPort) close() {
	if p.socket >= 0 {
		_ = unix.Close(p.socket)
		p.socket = -1
	}
}
