package engine

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mailrace/engine/config"
	"mailrace/engine/inject"
)

// smallDisk is where the test's own disk is, in a process that onSmallDisk started.
var smallDisk = flag.String("small.disk", "", "for the tests themselves: where the small disk is to be mounted")

// onSmallDisk runs a test in a process of its own, with a small file system in memory that is mounted for it alone, and returns its directory there;
// in the process that was asked to run the test it returns "". options are those of tmpfs.
func onSmallDisk(t *testing.T, options string) (dir string) {
	t.Helper()
	if *smallDisk != "" {
		if err := unix.Mount("tmpfs", *smallDisk, "tmpfs", 0, options); err != nil {
			t.Fatalf("mounting a tmpfs: %v", err)
		}
		return *smallDisk
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	mayMount := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	try := exec.Command("mount", "-t", "tmpfs", "-o", options, "tmpfs", t.TempDir())
	try.SysProcAttr = mayMount
	if out, err := try.CombinedOutput(); err != nil {
		t.Skipf("the kernel lets nobody mount a tmpfs in a user namespace of its own: %v %s", err, out)
	}
	c := exec.Command(exe, "-test.run=^"+t.Name()+"$", "-test.timeout=5m", "-test.v", "-small.disk="+t.TempDir())
	c.SysProcAttr = mayMount
	out, err := c.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("in a process of its own: %v", err)
	}
	return ""
}

// filler is somebody else who fills the disk.
type filler struct {
	t   *testing.T
	dir string
}

// brim takes all bytes that there are, and says how many.
func (f filler) brim() (taken int64) {
	f.t.Helper()
	file, err := os.OpenFile(filepath.Join(f.dir, "full"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	defer file.Close()
	for block := make([]byte, 4096); ; taken += int64(len(block)) {
		if _, err := file.Write(block); errors.Is(err, unix.ENOSPC) {
			return taken
		} else if err != nil {
			f.t.Fatal(err)
		}
	}
}

// files makes files until there are no inodes left.
func (f filler) files() {
	f.t.Helper()
	for i := 0; ; i++ {
		file, err := os.Create(filepath.Join(f.dir, fmt.Sprint("full-", i)))
		if errors.Is(err, unix.ENOSPC) {
			return
		} else if err != nil {
			f.t.Fatal(err)
		}
		file.Close()
	}
}

// clear gives everything back.
func (f filler) clear() {
	f.t.Helper()
	names, err := filepath.Glob(filepath.Join(f.dir, "full*"))
	if err != nil {
		f.t.Fatal(err)
	}
	for _, name := range names {
		if err := os.Remove(name); err != nil {
			f.t.Fatal(err)
		}
	}
}

// torrent is mail that comes in at full speed over several connections, and the ledger of what was acknowledged.
type torrent struct {
	t       *testing.T
	address string
	stop    atomic.Bool
	wait    sync.WaitGroup
	acked   atomic.Int64
	refused atomic.Int64 // with 452 4.3.1 at MAIL

	mu     sync.Mutex
	ledger map[string]bool // recipients of messages that got a 250
}

// pour begins n senders.
func (o *torrent) pour(n int) {
	body := strings.Repeat("a line of the body of a message that is not short\r\n", 2400)
	for i := range n {
		o.wait.Go(func() {
			c, err := net.Dial("tcp", o.address)
			if err != nil {
				o.t.Error(err)
				return
			}
			defer c.Close()
			if err := o.send(c, i, body); err != nil {
				o.t.Error(err)
			}
		})
	}
}

func (o *torrent) send(c net.Conn, sender int, body string) error {
	r := bufio.NewReader(c)
	say := func(text string) (string, error) {
		if _, err := c.Write([]byte(text)); err != nil {
			return "", err
		}
		return r.ReadString('\n')
	}
	if _, err := r.ReadString('\n'); err != nil {
		return err
	}
	if _, err := say("HELO client.example\r\n"); err != nil {
		return err
	}
	for n := 0; !o.stop.Load(); n++ {
		to := fmt.Sprintf("r%d-%d@far.example", sender, n)
		reply, err := say("MAIL FROM:<s@sender.example>\r\n")
		if err != nil {
			return err
		}
		if strings.HasPrefix(reply, "452 4.3.1 ") {
			o.refused.Add(1)
			continue
		}
		for _, text := range []string{"RCPT TO:<" + to + ">\r\n", "DATA\r\n", "Subject: " + to + "\r\n\r\n" + body + ".\r\n"} {
			if reply, err = say(text); err != nil {
				return err
			}
			if reply[0] != '2' && reply[0] != '3' {
				return fmt.Errorf("%.20q got %q", text, reply)
			}
		}
		o.acked.Add(1)
		o.mu.Lock()
		o.ledger[to] = true
		o.mu.Unlock()
	}
	return nil
}

// reckon stops the senders, waits until everything that was acknowledged has arrived, and is gone from the spool.
func (o *torrent) reckon(f *far, r *rig) {
	o.t.Helper()
	o.stop.Store(true)
	o.wait.Wait()
	arrived := map[string]int{}
	for missing := len(o.ledger); missing > 0; {
		l := f.next()
		for _, to := range l.to {
			if arrived[to]++; arrived[to] == 1 && o.ledger[to] {
				missing--
			}
			if !strings.Contains(l.content, "\r\nSubject: "+to+"\r\n") || !strings.HasSuffix(l.content, "not short\r\n") {
				o.t.Errorf("%s: content differs", to)
			}
		}
	}
	r.awaitEmpty()
	o.t.Logf("%d acknowledged and delivered, %d refused for want of room", len(arrived), o.refused.Load())
}

// diskNode starts a node whose spool is on a small disk, and a far server that takes mail only after open was called: it defers a few messages, and then
// does not answer. If it deferred all, attempts for what waits, and reading that back, would leave little time to take mail.
func diskNode(t *testing.T, dir string) (r *rig, f *far, open func()) {
	opened := make(chan struct{})
	var asked atomic.Int64
	f = listen(t, answering(func(_ *peer, line string) string {
		if !strings.HasPrefix(line, "MAIL") {
			return ""
		}
		select {
		case <-opened:
			return ""
		default:
		}
		if asked.Add(1) <= 100 {
			return "451 4.3.0 not now"
		}
		<-opened
		return ""
	}))
	f.mail = make(chan letter, 1_000_000)
	c := settings(t, f.route("*"))
	c.Engine.Memory, c.Spool.Shards = 16<<20, 1
	c.Spool.Path, c.Spool.Reserve = filepath.Join(dir, "spool"), 8<<20
	c.Admin = config.Default().Admin
	c.Admin.Address, c.Admin.InjectFrom = "127.0.0.1:0", loopback
	c.Queue.RetryMin, c.Queue.RetryMax = c.Queue.RetryMax*10, c.Queue.RetryMax*20
	return start(t, c), f, sync.OnceFunc(func() { close(opened) })
}

// ready asks the node whether it wants traffic.
func (r *rig) readiness() int {
	r.t.Helper()
	a, err := http.Get("http://" + r.AdminAddr().String() + "/readyz")
	if err != nil {
		r.t.Fatal(err)
	}
	a.Body.Close()
	return a.StatusCode
}

// TestA10DiskFull fills a small disk while mail comes in at full speed: first by the mail itself, up to the mark, where MAIL gets 452, and then to
// the brim by somebody else. Delivery goes on, from the full disk; nothing that was acknowledged is lost; and mail is taken again by itself
// when there is space.
func TestA10DiskFull(t *testing.T) {
	t.Parallel()
	dir := onSmallDisk(t, "size=256m")
	if dir == "" {
		return
	}
	r, f, open := diskNode(t, dir)
	others := filler{t, dir}
	o := &torrent{t: t, address: r.Addr(0).String(), ledger: map[string]bool{}}
	o.pour(8)
	r.awaitLong("a disk that is full of mail", r.store.Full)
	r.awaitLong("refusals", func() bool { return o.refused.Load() > 100 })
	if n := r.readiness(); n != http.StatusServiceUnavailable {
		t.Errorf("/readyz answers %d", n)
	}
	if _, err := r.Submit(t.Context(), Mail{To: []string{"r@far.example"}, Content: []byte(hello)}); !errors.Is(err, inject.ErrFull) {
		t.Errorf("Submit: %v", err)
	}
	t.Logf("%d acknowledged, %d bytes were left", o.acked.Load(), others.brim())

	open()
	before := o.acked.Load()
	r.awaitLong("all mail to be delivered from a full disk", func() bool { return int64(len(f.mail)) >= before })
	others.brim() // what that has freed
	r.awaitLong("a full spool again", r.store.Full)
	others.clear()
	before = o.acked.Load()
	r.awaitLong("mail to be taken again", func() bool { return o.acked.Load() > before+100 })
	if n := r.readiness(); n != http.StatusOK {
		t.Errorf("/readyz answers %d", n)
	}
	o.reckon(f, r)
}

// TestA10InodesFull is the same with inodes.
func TestA10InodesFull(t *testing.T) {
	t.Parallel()
	dir := onSmallDisk(t, "size=512m,nr_inodes=500")
	if dir == "" {
		return
	}
	r, f, open := diskNode(t, dir)
	open()
	others := filler{t, dir}
	o := &torrent{t: t, address: r.Addr(0).String(), ledger: map[string]bool{}}
	o.pour(4)
	r.await("mail", func() bool { return o.acked.Load() > 100 })
	others.files()
	r.await("a full spool", r.store.Full)
	r.await("refusals", func() bool { return o.refused.Load() > 100 })
	others.clear()
	before := o.acked.Load()
	r.await("mail to be taken again", func() bool { return o.acked.Load() > before+100 })
	o.reckon(f, r)
}

// TestWALFailover runs a node with a second directory for its WALs, and takes that away from it.
func TestWALFailover(t *testing.T) {
	t.Parallel()
	f := listen(t, answering(func(_ *peer, line string) string {
		if strings.HasPrefix(line, "RCPT") {
			return "451 4.3.0 later"
		}
		return ""
	}))
	c := settings(t, f.route("*"))
	c.Spool.Failover = filepath.Join(t.TempDir(), "other")
	if _, err := New(c, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "wal_failover "+c.Spool.Failover+": make that directory") {
		t.Errorf("without the directory: %v", err)
	}
	if err := os.Mkdir(c.Spool.Failover, 0o700); err != nil {
		t.Fatal(err)
	}
	r := start(t, c)
	r.send("s@sender.example", hello, "r@far.example")
	r.stop()
	c.Spool.Failover = ""
	r = start(t, c)
	if q := r.queue(); len(q) != 1 {
		t.Errorf("queue: %+v", q)
	}
}
