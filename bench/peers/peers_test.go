package peers

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestFind(t *testing.T) {
	every, err := Find(nil)
	if err != nil || len(every) != len(Names()) {
		t.Fatalf("%v, %v", every, err)
	}
	for _, p := range every {
		if p.Durable == "" || p.Tuned == "" || p.Held == "" || p.missing == "" || p.find == nil || p.version == nil || p.prepare == nil {
			t.Errorf("%+v", p)
		}
	}
	some, err := Find([]string{"postfix"})
	if err != nil || len(some) != 1 || some[0].Name != "postfix" {
		t.Errorf("%v, %v", some, err)
	}
	if _, err := Find([]string{"postfix", "nobody"}); err == nil || !strings.Contains(err.Error(), `no peer "nobody": there are postfix`) {
		t.Error(err)
	}
}

// TestMissing: the error says what to install.
func TestMissing(t *testing.T) {
	for _, p := range all() {
		p.find = func() (string, error) { return "", exec.ErrNotFound }
		if _, err := p.Installed(t.Context()); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "make deps") {
			t.Error(err)
		}
	}
}

// TestInstaller: it knows the peers that it says it knows, and refuses others before it does anything.
func TestInstaller(t *testing.T) {
	for _, name := range unpackable {
		if !strings.Contains(installer, "\n\t"+name+") ") || !slices.Contains(Names(), name) {
			t.Errorf("the installer does not know %s", name)
		}
	}
	out, err := exec.Command("bash", "install", "postfix").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "postfix: it installs exim") {
		t.Errorf("%v\n%s", err, out)
	}
	if err := Install(t.Context(), io.Discard, nil); err != nil {
		t.Error(err)
	}
}

// TestConfigurations: each is written whole, with its next hop or without.
func TestConfigurations(t *testing.T) {
	for _, p := range all() {
		program, err := p.find()
		if err != nil || os.Geteuid() != 0 {
			t.Logf("NOT TESTED: %s: %v", p.Name, err)
			continue
		}
		for _, next := range []string{"", "127.0.0.1:2526"} {
			s := &setup{Options: Options{Connections: 7, Next: next, Largest: 1000}, ctx: t.Context(), program: program, dir: t.TempDir(), host: "127.0.0.1", port: "2525"}
			s.nextHost, s.nextPort, _ = strings.Cut(next, ":")
			j, err := p.prepare(s)
			if err != nil || len(j.args) == 0 {
				t.Fatalf("%s: %+v, %v", p.Name, j, err)
			}
			text := ""
			filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
				if b, err := os.ReadFile(path); err == nil && len(b) < 10_000 {
					text += string(b)
				}
				return err
			})
			if strings.Contains(text, "2526") != (next != "") || !strings.Contains(text, "2525") || strings.Contains(text, "{dir}") || strings.Contains(text, "{next") {
				t.Errorf("%s, next hop %q:\n%s", p.Name, next, text)
			}
		}
	}
}

// sleeper is a peer that does nothing.
func sleeper(args ...string) *Peer {
	return &Peer{Name: "sleeper", find: func() (string, error) { return "/bin/sh", nil },
		prepare: func(s *setup) (job, error) {
			if err := os.WriteFile(filepath.Join(s.dir, "log"), []byte("the log\n"), 0o600); err != nil {
				return job{}, err
			}
			return job{args: args, users: []string{"peeruser"}, own: []string{"/var/spool"}}, nil
		}}
}

// started is a peer in a directory that its users can get into.
func started(t *testing.T, p *Peer) (*Instance, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root can run peers")
	}
	if out, err := exec.Command("unshare", "-m", "-p", "-f", "true").CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED: peers need name spaces: %v\n%s", err, out)
	}
	dir, err := os.MkdirTemp("", "peers-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	i, err := p.Start(t.Context(), Options{Dir: dir, Listen: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Stop() })
	return i, dir
}

// TestApart: a peer sees its own users, processes, name servers and empty directories, and the machine sees nothing of that.
func TestApart(t *testing.T) {
	i, dir := started(t, sleeper("sh", "-c", `grep ^peeruser: /etc/passwd /etc/group && cat /etc/resolv.conf && ls -A /var/spool | wc -l && touch /var/spool/mine &&
		ls -d /proc/[0-9]* | wc -l && exit 3`))
	<-i.Exited()
	text := i.Failure(errors.New("it ended")).Error()
	for _, want := range []string{"sleeper: it ended (exit status 3)", "/etc/passwd:peeruser:x:61234:", "/etc/group:peeruser:x:61234:", "nameserver 127.0.0.1\n", "\n0\n", "the log"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if _, err := os.Stat("/var/spool/mine"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the machine has it: %v", err)
	}
	if err := i.Stop(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestStopEndsAll: no process is left, not even one that has gone into a session of its own and has lost its parent.
func TestStopEndsAll(t *testing.T) {
	link := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(link, 0o600); err != nil {
		t.Fatal(err)
	}
	i, _ := started(t, sleeper("sh", "-c", `setsid sh -c 'sleep 1000 >"$0" &' "$0"; sleep 1000`, link))
	held, err := os.Open(link) // returns when the process has it, too
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := i.Stop(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(held); err != nil || len(b) != 0 { // ends when nobody has it any more
		t.Errorf("%q, %v", b, err)
	}
	if _, err := i.Usage(); err == nil {
		t.Error("it is still there")
	}
	if err := i.Stop(); err != nil {
		t.Errorf("again: %v", err)
	}
}

// TestClosedDirectory: a peer whose users could not get at its files does not start.
func TestClosedDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root can run peers")
	}
	dir, err := os.MkdirTemp("", "peers-") // 0700
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if _, err := sleeper("true").Start(t.Context(), Options{Dir: dir, Listen: "127.0.0.1:1"}); err == nil || !strings.Contains(err.Error(), "give another directory") {
		t.Error(err)
	}
}
