package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mailrace/bench/sink"
	"mailrace/engine/admin"
)

// patience is how long a black-box test waits for an event before it fails. It is no measure of speed.
const patience = 2 * time.Minute

// workshop is a directory for what tests share. No test has it in its own TMPDIR.
var workshop string

// program builds the binary once for all tests of the package.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(workshop, "mailrace")
	build := exec.Command("go", "build", "-o", path, ".")
	build.Env = append(os.Environ(), "TMPDIR="+workshop)
	out, err := build.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	var err error
	if workshop, err = os.MkdirTemp("", "mailrace-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
	os.RemoveAll(workshop)
	os.Exit(status)
}

// process is a program that a test started; it ends with the test.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	exited chan struct{}
	err    error

	mu  sync.Mutex
	log bytes.Buffer // standard error
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// run starts a program; lines of its standard error go to line as well, if that is not nil.
func run(t *testing.T, line func(string), name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(name, args...), exited: make(chan struct{})}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("%s: %v (make test installs what the tests need)", name, err)
	}
	go func() {
		scanner := bufio.NewScanner(stderr)
		for scanner.Scan() {
			fmt.Fprintln(p, scanner.Text())
			if line != nil {
				line(scanner.Text())
			}
		}
		io.Copy(io.Discard, stderr)
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(p.kill)
	return p
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.exited
}

// stop ends the process with SIGTERM and expects it to end well.
func (p *process) stop() {
	p.t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.wait()
}

// wait expects the process to end well by itself.
func (p *process) wait() {
	p.t.Helper()
	select {
	case <-p.exited:
		if p.err != nil {
			p.t.Fatalf("%s: %v\n%s", p.cmd.Path, p.err, p.output())
		}
	case <-time.After(patience):
		p.t.Fatalf("%s does not end\n%s", p.cmd.Path, p.output())
	}
}

// node is a running `mailrace serve`.
type node struct {
	*process
	smtp, admin string
	others      []string // listeners behind the first
}

// serve starts a node with a configuration and waits until it listens. under is a program with arguments that starts it.
func serve(t *testing.T, config string, under ...string) *node {
	t.Helper()
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "mailrace.toml")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	n := new(node)
	listening := make(chan struct{})
	n.process = run(t, func(line string) {
		for _, word := range strings.Fields(line) {
			if a, ok := strings.CutPrefix(word, "smtp="); ok && n.smtp == "" {
				n.smtp = a
			} else if ok {
				n.others = append(n.others, a)
			}
			if a, ok := strings.CutPrefix(word, "http="); ok {
				n.admin = a
				close(listening)
			}
		}
	}, append(under, bin)[0], append(under, bin, "serve", "--config", path)[1:]...)
	select {
	case <-listening:
	case <-n.exited:
		t.Fatalf("serve: %v\n%s", n.err, n.output())
	case <-time.After(patience):
		t.Fatalf("serve does not listen\n%s", n.output())
	}
	return n
}

// configOf is a configuration for tests: spool and event log in dir, one route, further sections at the end.
func configOf(dir, listen, route, more string) string {
	return fmt.Sprintf(`hostname = "mta.test.example"
[[listener]]
address = %q
mode = "mx"
relay_from = ["127.0.0.0/8"]
[spool]
path = %q
in_flight = %q
[[route]]
domains = ["*"]
to = %q
[admin]
address = "127.0.0.1:0"
[events]
path = %q
%s`, listen, filepath.Join(dir, "spool"), dir, route, filepath.Join(dir, "events.jsonl"), more)
}

// queue asks the node for its queue.
func (n *node) queue() (admin.Queue, error) {
	var q admin.Queue
	resp, err := http.Get("http://" + n.admin + "/v1/queue?limit=10000")
	if err != nil {
		return q, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return q, fmt.Errorf("queue: %s", resp.Status)
	}
	return q, json.NewDecoder(resp.Body).Decode(&q)
}

// awaitEmpty waits until nothing is queued.
func (n *node) awaitEmpty() {
	n.t.Helper()
	await(n.t, "an empty queue", func() (bool, string) {
		q, err := n.queue()
		if err != nil {
			return false, err.Error()
		}
		return len(q.Messages) == 0, fmt.Sprintf("%d messages", len(q.Messages))
	})
}

// await polls a condition of another process, which has no other way to tell.
func await(t *testing.T, what string, holds func() (bool, string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		ok, state := holds()
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waiting for %s: %s", what, state)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// free returns an address on loopback that nobody listens on.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// receiver is a sink inside the test.
func receiver(t *testing.T, o sink.Options) *sink.Sink {
	t.Helper()
	o.Address = "127.0.0.1:0"
	s, err := sink.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
