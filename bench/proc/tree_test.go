package proc

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"
)

const (
	role  = "MAILRACE_TEST_ROLE"  // set in a child of these tests
	spent = 60 * time.Millisecond // CPU time that each child spends
)

func TestMain(m *testing.M) {
	if os.Getenv(role) == "" {
		os.Exit(m.Run())
	}
	for Self().CPU < spent {
	}
}

// metered runs a shell that waits for a line, does what it is told, and waits for the end of its input; its meter begins before that.
func metered(t *testing.T, unwaited bool, script string, args ...string) (pid int, m *Meter) {
	t.Helper()
	cmd := exec.Command("sh", append([]string{"-c", "read go; " + script + "; echo done; read end"}, args...)...)
	cmd.Env = append(os.Environ(), role+"=child")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m = NewMeter(cmd.Process.Pid, unwaited)
	t.Cleanup(func() {
		m.Close()
		in.Close()
		cmd.Wait()
	})
	io.WriteString(in, "go\n")
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "done\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return cmd.Process.Pid, m
}

// TestFamily: children that have ended count, also those that nobody waited for.
func TestFamily(t *testing.T) {
	pid, m := metered(t, false, `"$0"; "$0"`, os.Args[0])
	least := 2*spent - 2*time.Second/userHertz
	if u, err := m.Read(); err != nil || u.CPU < least || u.RSS == 0 {
		t.Errorf("%+v, %v", u, err)
	}
	u, err := Tree(pid)
	if err != nil || u.CPU < least {
		t.Errorf("%+v, %v", u, err)
	}
	if both, err := Tree(pid, pid); err != nil || both.RSS < u.RSS/2 || both.RSS > 2*u.RSS {
		t.Errorf("a root named twice: %+v, %v", both, err)
	}
	if self, err := Tree(os.Getpid()); err != nil || self.RSS <= u.RSS {
		t.Errorf("with its parent: %+v, %v", self, err)
	}
	if _, careless := metered(t, true, `trap "" CHLD; "$0"; "$0"`, os.Args[0]); !careless.Counted() {
		t.Log("NOT TESTED: the kernel does not let us count, so that children nobody waits for are missing")
	} else if u, err := careless.Read(); err != nil || u.CPU < least {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestMeterCountsSyncs(t *testing.T) {
	_, m := metered(t, false, `for f in 1 2 3; do sync "$0"; done`, t.TempDir())
	switch n, ok := m.Syncs(); {
	case !ok:
		t.Skip("NOT TESTED: the kernel does not let us count system calls")
	case n != 3:
		t.Errorf("%d syncs, want 3", n)
	}
	m.EndSyncs()
	if n, ok := m.Syncs(); ok || n != 0 {
		t.Errorf("%d syncs, and nobody counts", n)
	}
}

func TestTreeOfNobody(t *testing.T) {
	if _, err := Tree(1 << 30); err == nil {
		t.Error("no error")
	}
}
