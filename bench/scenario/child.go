package scenario

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"mailrace/bench/load"
	"mailrace/bench/sink"
)

const (
	startLimit = 60 * time.Second // for a child to be up
	stopLimit  = 40 * time.Second // for a child to end after SIGTERM; then it is killed
)

// child is a process of the bench: the MTA, the generator or the sink. It dies with the bench, even if that is killed.
type child struct {
	name   string
	cmd    *exec.Cmd
	stderr tail
	exited chan struct{} // closed when the process has ended and err is set
	err    error
}

// tail keeps the last octets written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailOctets = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailOctets; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.buf))
}

// start runs the program with further arguments. read, if not nil, gets standard output and must read it to the end.
func start(name string, program []string, args []string, read func(io.Reader)) (*child, error) {
	c := &child{name: name, exited: make(chan struct{})}
	argv := append(append([]string(nil), program...), args...)
	c.cmd = exec.Command(argv[0], argv[1:]...)
	c.cmd.Stderr = &c.stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // Ctrl-C is for the bench alone; it stops its children
	var out io.ReadCloser
	if read != nil {
		var err error
		if out, err = c.cmd.StdoutPipe(); err != nil {
			return nil, fmt.Errorf("start %s: %w", name, err)
		}
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		if read != nil {
			read(out)
		}
		c.err = c.cmd.Wait()
		close(c.exited)
	}()
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// failure describes a child that ended or does not do what it should.
func (c *child) failure(err error) error {
	if text := c.stderr.String(); text != "" {
		return fmt.Errorf("%s: %w\n%s", c.name, err, text)
	}
	return fmt.Errorf("%s: %w", c.name, err)
}

// stop ends the child and waits for it.
func (c *child) stop() {
	c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.exited:
	case <-time.After(stopLimit):
		c.cmd.Process.Kill()
		<-c.exited
	}
}

// awaitBanner waits until an SMTP server greets at the address. c is its process, or nil.
func awaitBanner(ctx context.Context, c *child, address string) error {
	return await(ctx, c, address, readBanner)
}

// awaitMetrics waits until a child serves its metrics at the URL.
func awaitMetrics(ctx context.Context, c *child, url string) error {
	return await(ctx, c, url, func(ctx context.Context, url string) error {
		_, err := metricsPage(ctx, url)
		return err
	})
}

// await waits until there is what look looks for at an address.
func await(ctx context.Context, c *child, address string, look func(ctx context.Context, address string) error) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		err := look(ctx, address)
		if err == nil {
			return nil
		}
		var exited chan struct{}
		if c != nil {
			exited = c.exited
		}
		select {
		case <-exited:
			return c.failure(fmt.Errorf("ended at start: %w", orError(c.err)))
		case <-ctx.Done():
			if c != nil {
				return c.failure(fmt.Errorf("not up at %s: %w: %w", address, ctx.Err(), err))
			}
			return fmt.Errorf("nothing at %s: %w: %w", address, ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func orError(err error) error {
	if err == nil {
		return fmt.Errorf("exit status 0")
	}
	return err
}

func readBanner(ctx context.Context, address string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "220") {
		return fmt.Errorf("greeted with %q", strings.TrimSpace(line))
	}
	_, err = io.WriteString(conn, "QUIT\r\n")
	return err
}

// runLoad runs a generator to its end.
func runLoad(ctx context.Context, program []string, o load.Options) (load.Report, error) {
	return watchLoad(ctx, program, o, func(load.Report) {})
}

// watchLoad runs a generator to its end, and shows what it reports of itself on the way if the options ask for lines: each call is by one
// goroutine, the last is over before it returns.
func watchLoad(ctx context.Context, program []string, o load.Options, show func(load.Report)) (load.Report, error) {
	var r load.Report
	var fault error // of what it prints; nothing at all is one, too
	c, err := start("generator", program, append([]string{"load", "--json"}, o.Args()...), func(out io.Reader) {
		dec := json.NewDecoder(out)
		for n := 0; ; n++ {
			var next load.Report // progress has less of it
			if fault = dec.Decode(&next); fault != nil {
				if errors.Is(fault, io.EOF) && n > 0 {
					fault = nil
				}
				io.Copy(io.Discard, out)
				return
			}
			r = next
			show(next)
		}
	})
	if err != nil {
		return r, err
	}
	select {
	case <-c.exited:
	case <-ctx.Done():
		c.stop()
		return r, ctx.Err()
	}
	if c.err != nil {
		return r, c.failure(c.err)
	}
	if fault != nil {
		return r, c.failure(fmt.Errorf("its report: %w", fault))
	}
	return r, nil
}

// reporter is a child that prints reports all the time, one JSON object a line.
type reporter[T any] struct {
	*child

	mu     sync.Mutex
	latest T
	fresh  chan struct{} // closed with each report, and made anew
}

// startReporter runs the program and waits for its first report.
func startReporter[T any](ctx context.Context, name string, program, args []string) (*reporter[T], error) {
	r := &reporter[T]{fresh: make(chan struct{})}
	_, fresh := r.report()
	var err error
	if r.child, err = start(name, program, args, r.read); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	select {
	case <-fresh:
	case <-r.exited:
		return nil, r.failure(fmt.Errorf("ended at start: %w", orError(r.err)))
	case <-ctx.Done():
		r.stop()
		return nil, r.failure(ctx.Err())
	}
	return r, nil
}

// read takes the reports.
func (r *reporter[T]) read(from io.Reader) {
	dec := json.NewDecoder(from)
	for {
		var report T
		if dec.Decode(&report) != nil {
			io.Copy(io.Discard, from)
			return
		}
		r.mu.Lock()
		r.latest = report
		close(r.fresh)
		r.fresh = make(chan struct{})
		r.mu.Unlock()
	}
}

// report returns the latest report, and a channel that is closed when there is a newer one.
func (r *reporter[T]) report() (T, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.latest, r.fresh
}

// sinkChild is a sink that reports all the time.
type sinkChild struct {
	*reporter[sink.Report]
	address string
}

// sinkInterval is how often the sink reports; it bounds how late the bench learns that all has arrived.
const sinkInterval = 50 * time.Millisecond

func startSink(ctx context.Context, program []string, o sink.Options) (*sinkChild, error) {
	o.Interval = sinkInterval
	r, err := startReporter[sink.Report](ctx, "sink", program, append([]string{"sink", "--json"}, o.Args()...))
	if err != nil {
		return nil, err
	}
	first, _ := r.report()
	return &sinkChild{reporter: r, address: first.Address}, nil
}

// writeConfig writes the configuration of a target into dir.
func writeConfig(dir, name, text string) (string, error) {
	path := filepath.Join(dir, name+".toml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return "", fmt.Errorf("write configuration: %w", err)
	}
	return path, nil
}
