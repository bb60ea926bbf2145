package peers

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"mailrace/bench/proc"
)

// apart is the first process of a peer's own name spaces of processes and mounts: it hides what of the machine is not for the peer, waits for a line, and runs
// the peer. $0 is the peer's directory; behind that come directories, each with the place where the peer is to see it, --, and the peer. When it ends, the kernel
// ends all others there.
const apart = `set -e
mount --make-rprivate /
mount -t proc proc /proc
for f in passwd group resolv.conf hosts; do mount --bind "$0/machine/$f" "/etc/$f"; done
if [ -e /dev/log ]; then mount --bind /dev/null /dev/log; fi
while [ "$1" != -- ]; do mount --bind "$1" "$2"; shift 2; done
shift
read -r go
"$@"
exit $?`

// firstUser is the id of the first user that is made up.
const firstUser = 61234

// home is that of users who are made up. There is no such directory.
const home = "/nonexistent"

// logTail is how much of what a peer said is shown, in octets.
const logTail = 2000

// Instance is a peer that runs.
type Instance struct {
	Address string

	name   string
	dir    string
	cmd    *exec.Cmd
	meter  *proc.Meter
	said   lines
	exited chan struct{} // closed when all its processes have ended and err is set
	err    error
}

// lines keeps what was written to it last.
type lines struct {
	mu  sync.Mutex
	buf []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, p...)
	if len(l.buf) > 2*logTail {
		l.buf = append(l.buf[:0], l.buf[len(l.buf)-logTail:]...)
	}
	return len(p), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimSpace(string(l.buf[max(0, len(l.buf)-logTail):]))
}

// runApart starts a peer where it sees its own users, processes and empty directories. They all end with this program.
func (s *setup) runApart(name string, j job) (*Instance, error) {
	if err := s.writeUsers(j.users); err != nil {
		return nil, err
	}
	args := []string{"-c", apart, s.dir}
	for _, dir := range j.own {
		from := filepath.Join(s.dir, "own", dir)
		if err := os.MkdirAll(from, 0o755); err != nil {
			return nil, err
		}
		args = append(args, from, dir)
	}
	for to, from := range j.bring {
		to = filepath.Join(s.dir, to)
		if err := os.Mkdir(to, 0o755); err != nil {
			return nil, err
		}
		args = append(args, from, to)
	}
	i := &Instance{Address: s.Listen, name: name, dir: s.dir, exited: make(chan struct{})}
	i.cmd = exec.Command("sh", append(append(args, "--"), j.args...)...)
	i.cmd.Dir, i.cmd.Stdout, i.cmd.Stderr = s.dir, &i.said, &i.said
	i.cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin:" + os.Getenv("PATH"), "HOME=" + s.dir, "LANG=C"}
	i.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL, Setpgid: true}
	in, err := i.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := i.cmd.Start(); err != nil {
		if errors.Is(err, syscall.EPERM) {
			err = fmt.Errorf("it needs name spaces of its own, which this machine does not allow: %w", err)
		}
		return nil, err
	}
	i.meter = proc.NewMeter(i.cmd.Process.Pid, j.unwaited)
	go func() {
		i.err = i.cmd.Wait()
		close(i.exited)
	}()
	_, err = io.WriteString(in, "go\n")
	if err = errors.Join(err, in.Close()); err != nil {
		i.Stop()
		return nil, i.Failure(err)
	}
	return i, nil
}

// writeUsers writes the files of users and groups that the peer sees, those of the machine and more, and hides its name servers.
func (s *setup) writeUsers(users []string) error {
	files := map[string]string{"resolv.conf": "nameserver 127.0.0.1\nlookup file\n", "hosts": "127.0.0.1 localhost\n"}
	for _, name := range []string{"passwd", "group"} {
		b, err := os.ReadFile("/etc/" + name)
		if err != nil {
			return err
		}
		var lines []string
		for line := range strings.Lines(string(b)) {
			for _, user := range users {
				if strings.HasPrefix(line, user+":") {
					line = ""
				}
			}
			lines = append(lines, line)
		}
		files[name] = strings.Join(lines, "")
	}
	for n, user := range users {
		files["passwd"] += fmt.Sprintf("%s:x:%d:%d::%s:/usr/sbin/nologin\n", user, firstUser+n, firstUser+n, home)
		files["group"] += fmt.Sprintf("%s:x:%d:\n", user, firstUser+n)
	}
	for name, text := range files {
		if _, err := s.write("machine/"+name, text); err != nil {
			return err
		}
	}
	return nil
}

// Exited is closed when the peer has ended.
func (i *Instance) Exited() <-chan struct{} { return i.exited }

// Usage is what all processes of the peer have used.
func (i *Instance) Usage() (proc.Usage, error) { return i.meter.Read() }

// CPU is the CPU time of Usage, at less cost.
func (i *Instance) CPU() (time.Duration, error) { return i.meter.CPU() }

// Syncs is how often the peer has asked for stable storage; ok is false where that is not counted, or not any more.
func (i *Instance) Syncs() (n uint64, ok bool) { return i.meter.Syncs() }

// EndSyncs ends the counting of syncs, which has a cost.
func (i *Instance) EndSyncs() { i.meter.EndSyncs() }

// Failure is an error with what the peer said last.
func (i *Instance) Failure(err error) error {
	said := i.said.String()
	logs, _ := filepath.Glob(filepath.Join(i.dir, "log*"))
	for _, name := range logs {
		if b, err := os.ReadFile(name); err == nil {
			said += "\n" + string(bytes.TrimSpace(b[max(0, len(b)-logTail):]))
		}
	}
	if i.err != nil {
		err = fmt.Errorf("%w (%w)", err, i.err)
	}
	return fmt.Errorf("%s: %w\n%s", i.name, err, strings.TrimSpace(said))
}

// Stop ends all processes of the peer, at once: nobody needs its queue any more. Then its directory is removed.
func (i *Instance) Stop() error {
	i.cmd.Process.Kill() // the first of its name space: the kernel kills all others
	<-i.exited
	i.meter.Close()
	return os.RemoveAll(i.dir)
}
