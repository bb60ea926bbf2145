package main

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"mailrace/bench/proc"
	"mailrace/engine/auth"
)

// siegeMemory is the budget of the nodes under siege. None of the attacks may cost more, all that the process has resident included.
const siegeMemory = 256 << 20

// besieged starts a node that knows one user, serves AUTH in clear, and gives everybody a second for a command.
func besieged(t *testing.T) *node {
	t.Helper()
	dir := t.TempDir()
	hash, err := auth.HashPassword("right")
	if err != nil {
		t.Fatal(err)
	}
	users := write(t, dir, "users.toml", fmt.Sprintf("[[user]]\nname = \"alice\"\npassword = %q\n", hash))
	if err := os.Chmod(users, 0o600); err != nil {
		t.Fatal(err)
	}
	return serve(t, configOf(dir, "127.0.0.1:0", "discard", fmt.Sprintf("[engine]\nmemory = \"%dMiB\"\n[limits]\ncommand_timeout = \"1s\"\ncommands = 1000000\n"+
		"[auth]\nusers = %q\nfailure_delay = \"0s\"\n[[listener]]\naddress = \"0.0.0.0:0\"\nmode = \"submission\"\nauth_in_clear = true\n"+
		"relay_domains = [\"example.net\"]\n", siegeMemory>>20, users)))
}

// resident runs an attack, and fails the test if the process grew by more than the budget meanwhile.
func (n *node) resident(attack func()) {
	n.t.Helper()
	pid := n.cmd.Process.Pid
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil { // the peak begins anew: proc(5)
		n.t.Fatal(err)
	}
	before, err := proc.Read(pid)
	if err != nil {
		n.t.Fatal(err)
	}
	attack()
	after, err := proc.Read(pid)
	if err != nil {
		n.t.Fatal(err)
	}
	grown := after.RSSPeak - before.RSS
	n.t.Logf("%.1f MiB resident before, %.1f MiB at most: %.1f MiB more, of a budget of %d MiB", mib(before.RSS), mib(after.RSSPeak), mib(grown), siegeMemory>>20)
	if grown > siegeMemory {
		n.t.Errorf("%d bytes more were resident, want at most %d", grown, siegeMemory)
	}
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// stranger is a client that says one thing after the other; it comes from an address of its own.
type stranger struct {
	net.Conn
	r *bufio.Reader
}

func (n *node) stranger(from, port string) (*stranger, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return nil, err
	}
	return &stranger{c, bufio.NewReader(c)}, c.SetDeadline(time.Now().Add(patience))
}

// reply reads a reply and returns its last line.
func (s *stranger) reply() (string, error) {
	for {
		line, err := s.r.ReadString('\n')
		if err != nil || len(line) < 4 || line[3] != '-' {
			return line, err
		}
	}
}

// say returns the reply to a line.
func (s *stranger) say(line string) (string, error) {
	if _, err := io.WriteString(s, line+"\r\n"); err != nil {
		return "", err
	}
	return s.reply()
}

// answers counts replies by their codes.
type answers struct {
	mu     sync.Mutex
	counts map[string]int
}

func (a *answers) add(reply string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.counts == nil {
		a.counts = map[string]int{}
	}
	a.counts[reply[:min(9, len(reply))]]++
}

// parallel runs fn for each number below n, by eight goroutines.
func parallel(t *testing.T, n int, fn func(i int) error) {
	t.Helper()
	var wait sync.WaitGroup
	next := make(chan int)
	for range 8 {
		wait.Go(func() {
			for i := range next {
				if err := fn(i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wait.Wait()
}

// TestA6BruteForceMemory: a thousand guesses from one address, and as many from many, at one user and at names that nobody has. No guess gets in; after
// ten an address is turned away, after twenty a user's password is not even looked at, and the third try ends each session.
func TestA6BruteForceMemory(t *testing.T) {
	n := besieged(t)
	_, port, _ := net.SplitHostPort(n.others[0])
	var a answers
	guess := func(from, name string, i int) error {
		s, err := n.stranger(from, port)
		if err != nil {
			return err
		}
		defer s.Close()
		for _, line := range []string{"", "EHLO x"} {
			reply := ""
			if line == "" {
				reply, err = s.reply()
			} else {
				reply, err = s.say(line)
			}
			if err != nil {
				return err
			}
			if reply[0] != '2' {
				a.add(reply)
				return nil
			}
		}
		guesses := 0
		for try := range 4 {
			word := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "\x00%s\x00guess %d.%d", name, i, try))
			reply, err := s.say("AUTH PLAIN " + word)
			if err != nil {
				return err
			}
			a.add(reply)
			if strings.HasPrefix(reply, "421") {
				return nil
			}
			if strings.HasPrefix(reply, "535") {
				guesses++
			}
		}
		if guesses >= 3 {
			return fmt.Errorf("%s: a fourth guess after %d", from, guesses)
		}
		return nil
	}
	n.resident(func() {
		parallel(t, 250, func(i int) error { return guess("127.9.9.9", "alice", i) })
		parallel(t, 250, func(i int) error {
			name := "alice"
			if i%2 == 0 {
				name = fmt.Sprint("nobody", i)
			}
			return guess(fmt.Sprintf("127.10.%d.1", i), name, i)
		})
	})
	t.Log(a.counts)
	for code := range a.counts {
		if !strings.HasPrefix(code, "535 5.7.8") && !strings.HasPrefix(code, "421 4.7.0") && !strings.HasPrefix(code, "454 4.7.0") {
			t.Errorf("%q", code)
		}
	}
	if n := a.counts["535 5.7.8"]; n < 100 || n > 10+20+3*250 {
		t.Errorf("%d passwords were looked at", n)
	}
}

// TestA8FloodMemory: of ten thousand connections from one address fifty are served, and the others told to go. Another address is served meanwhile.
func TestA8FloodMemory(t *testing.T) {
	const flood, most = 10_000, 50
	n := besieged(t)
	_, port, _ := net.SplitHostPort(n.others[0])
	var a answers
	var mu sync.Mutex
	var open []net.Conn
	n.resident(func() {
		parallel(t, flood, func(int) error {
			s, err := n.stranger("127.9.9.9", port)
			if err != nil {
				return err
			}
			reply, err := s.reply()
			if err != nil {
				return err
			}
			a.add(reply)
			mu.Lock()
			defer mu.Unlock()
			if strings.HasPrefix(reply, "220 ") {
				open = append(open, s)
				return nil
			}
			return s.Close()
		})
		s, err := n.stranger("127.10.1.1", port)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if reply, err := s.reply(); err != nil || !strings.HasPrefix(reply, "220 ") {
			t.Errorf("another address: %q, %v", reply, err)
		}
	})
	for _, c := range open {
		c.Close()
	}
	t.Log(a.counts)
	// An address may open 200 in a minute, so some came in when the first had timed out.
	if served, refused := len(open), a.counts["421 4.7.0"]; served < most || served > 200 || served+refused != flood {
		t.Errorf("%d served, %d refused of %d", served, refused, flood)
	}
}

// TestA9NoReaderMemory: clients that send commands without end and read nothing are not listened to any more, and closed at their deadline.
func TestA9NoReaderMemory(t *testing.T) {
	const clients = 40
	n := besieged(t)
	flood := []byte(strings.Repeat("EHLO client.example\r\n", 1000))
	n.resident(func() {
		parallel(t, clients, func(int) error {
			c, err := net.Dial("tcp", n.smtp)
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
				return err
			}
			sent := 0
			for err == nil && sent < 1<<30 {
				var k int
				k, err = c.Write(flood)
				sent += k
			}
			if timeout, ok := err.(net.Error); err == nil || ok && timeout.Timeout() {
				return fmt.Errorf("after %d octets: %v", sent, err)
			}
			return nil
		})
	})
}

// TestB13TooLargeMemory: a message of 50 MiB is refused before its content comes if its size is told, and behind its true end, or with the chunk that is
// too much, if not. No content is taken for commands.
func TestB13TooLargeMemory(t *testing.T) {
	const octets = 50 << 20
	n := besieged(t)
	line := strings.Repeat("x", 62) + "\r\n"
	block := strings.Repeat(line, 1<<20/len(line))
	large := func(i int) error {
		c, err := net.Dial("tcp", n.smtp)
		if err != nil {
			return err
		}
		s := &stranger{c, bufio.NewReader(c)}
		defer s.Close()
		if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		expect := func(want, got string, err error) error {
			if err != nil || !strings.HasPrefix(got, want) {
				return fmt.Errorf("%q, %v, want %q", got, err, want)
			}
			return nil
		}
		ask := func(line, want string) error {
			reply, err := s.say(line)
			return expect(want, reply, err)
		}
		reply, err := s.reply()
		if err := expect("220 ", reply, err); err != nil {
			return err
		}
		for _, step := range [][2]string{{"EHLO x", "250 "}, {fmt.Sprintf("MAIL FROM:<a@b.example> SIZE=%d", octets), "552 5.3.4"},
			{"MAIL FROM:<a@b.example>", "250 "}, {"RCPT TO:<r@example.net>", "250 "}} {
			if err := ask(step[0], step[1]); err != nil {
				return err
			}
		}
		if i%2 == 0 {
			if err := ask("DATA", "354 "); err != nil {
				return err
			}
			for range octets >> 20 {
				if _, err := io.WriteString(s, block); err != nil {
					return err
				}
			}
			if err := ask("RSET\r\nQUIT\r\n.", "552 5.3.4"); err != nil { // lines of the content
				return err
			}
		} else {
			over := 0 // chunks that came when the message was too large already
			for at := 0; over < 3; at++ {
				if at == octets>>20 {
					return errors.New("all chunks were taken")
				}
				if _, err := fmt.Fprintf(s, "BDAT %d\r\n%s", len(block), block); err != nil {
					return err
				}
				reply, err := s.reply()
				switch {
				case err != nil:
					return err
				case over > 0:
					err = expect("503 5.5.1", reply, err)
				case reply[0] == '5':
					err = expect("552 5.3.4", reply, err)
				}
				if err != nil {
					return err
				}
				if reply[0] == '5' {
					over++
				}
			}
		}
		return ask("NOOP", "250 ")
	}
	n.resident(func() { parallel(t, 8, large) })
	n.stop()
}
