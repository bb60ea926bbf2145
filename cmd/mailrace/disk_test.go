package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailrace/bench/ledger"
	"mailrace/bench/load"
	"mailrace/bench/sink"
)

// status is how a process ended, once it has.
func (p *process) status() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Fatalf("%s does not end\n%s", p.cmd.Path, p.output())
	}
	var failed *exec.ExitError
	if !errors.As(p.err, &failed) {
		p.t.Fatalf("ended with %v\n%s", p.err, p.output())
	}
	return failed.ExitCode()
}

// lastLine is the last that a process said.
func (p *process) lastLine() string {
	lines := strings.Split(strings.TrimSpace(p.output()), "\n")
	return lines[len(lines)-1]
}

// TestSpoolIsTaken starts a second node on the spool of the first: it names the first, and leaves it alone.
func TestSpoolIsTaken(t *testing.T) {
	dir := t.TempDir()
	config := configOf(dir, "127.0.0.1:0", "discard", "")
	n := serve(t, config)
	path := filepath.Join(t.TempDir(), "mailrace.toml")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the refusal must not take the lock away
		second := run(t, nil, bin, "serve", "--config", path)
		if code := second.status(); code != 1 {
			t.Errorf("exit status %d", code)
		}
		for _, want := range []string{"mailrace: opening the spool: ", filepath.Join(dir, "spool"), fmt.Sprintf("process %d (", n.cmd.Process.Pid), "stop that one first"} {
			if line := second.lastLine(); !strings.Contains(line, want) {
				t.Errorf("%q does not say %q", line, want)
			}
		}
	}
	n.kill() // what it leaves behind must not stand in the way
	serve(t, config).stop()
}

// TestSpoolWriteFails gives a node a disk on which no file grows beyond 4 MiB, in place of one that fails. The node ends at the first write
// that does, says so in its last line, and everything that got its 250 before arrives after the next start.
func TestSpoolWriteFails(t *testing.T) {
	dir := t.TempDir()
	far := receiver(t, sink.Options{})
	address := free(t)
	config := configOf(dir, address, "smtp://"+far.Addr(), "")
	n := serve(t, config, "sh", "-c", `ulimit -f 8192 && exec "$@"`, "sh")
	run := ledger.NewRunID()
	acked := ledger.NewTally(run, 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	loaded := make(chan error, 1)
	go func() {
		_, err := load.Run(ctx, load.Options{
			Address: address, Connections: 10, Sender: "s@example.com", Reconnect: true, Run: run, Acknowledged: acked, Domains: load.MadeUpDomains(20),
		})
		loaded <- err
	}()
	if code := n.status(); code != 1 {
		t.Errorf("exit status %d", code)
	}
	stop()
	if err := <-loaded; err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"mailrace: the spool cannot be written: shard ", "write " + filepath.Join(dir, "spool"), ".log: ", "file too large", "start again, which recovers"} {
		if !strings.Contains(n.lastLine(), want) {
			t.Errorf("%q does not say %q", n.lastLine(), want)
		}
	}
	n = serve(t, config)
	n.awaitEmpty()
	n.stop()
	a := ledger.Compare(acked, far.Book().Run(run))
	t.Logf("%d acknowledged, %d arrived, %d lost, %d twice", a.Acknowledged, a.Arrived, a.Lost, a.Doubled)
	if a.Acknowledged == 0 || a.Lost > 0 || a.Altered > 0 {
		t.Errorf("%+v", a)
	}
}
