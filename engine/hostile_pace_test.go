package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mailrace/engine/config"
	"mailrace/engine/loop/looptest"
	"mailrace/proto/message"
)

// besiege runs a test on each carrier, each with a node of its own.
func besiege(t *testing.T, change func(c *config.Config), run func(t *testing.T, f *fort, carrier string)) {
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			t.Parallel()
			f := fortify(t, change)
			run(t, f, carrier)
			f.reckon()
		})
	}
}

// must opens a session that has come to a stage. It ends with the test.
func (f *fort) must(t *testing.T, carrier string, door int, to stage) *caller {
	t.Helper()
	c, err := f.call(carrier, door)
	if err == nil {
		t.Cleanup(func() { c.tcp.Close() })
		err = c.advance(to)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestA7SlowLorisOnEveryCarrier: clients that send octet by octet for ever are told so at their deadline, in a command and in content.
func TestA7SlowLorisOnEveryCarrier(t *testing.T) {
	t.Parallel()
	slow := func(c *config.Config) {
		c.Limits.CommandTimeout, c.Limits.MinRate, c.Limits.RateWindow = time.Second, 5000, 300*time.Millisecond
	}
	besiege(t, slow, func(t *testing.T, f *fort, carrier string) {
		var wait sync.WaitGroup
		for _, c := range []struct {
			stage        stage
			begin, drips string
		}{
			{greeted, "", "N"}, {helloed, "", "NOOP"}, {helloed, strings.Repeat("x", 5000), "x"}, {mailed, "RCPT TO:<", "r"}, {inData, "", "x\r\n"}, {inData, "Subject", "x"},
			{rcpted, "BDAT 100000\r\n", "x\r\n"}, {helloed, "BDAT 100000\r\n", "x"}, {inData, tooLarge, "x\r\n"},
		} {
			caller := f.must(t, carrier, doorOwn, c.stage)
			wait.Go(func() {
				caller.pour(c.begin, nil)
				gone := make(chan struct{})
				go func() {
					defer close(gone)
					if err := caller.hear("421 4.4.2"); err != nil {
						t.Errorf("%.20q, then %q: %v", c.begin, c.drips, err)
					}
				}()
				for tick := time.NewTicker(20 * time.Millisecond); ; {
					select {
					case <-gone:
						tick.Stop()
						caller.tcp.Close()
						return
					case <-tick.C:
						_, _ = io.WriteString(caller.conn, c.drips[:1])
						c.drips = c.drips[1:] + c.drips[:1]
					}
				}
			})
		}
		wait.Wait()
		if stats := f.stats.received; stats.Slow.Get() != 5 || stats.Timeouts.Get() != 4 {
			t.Errorf("%d were slow, %d timeouts", stats.Slow.Get(), stats.Timeouts.Get())
		}
	})
}

// TestA8FloodsOnEveryCarrier: connections, messages and recipients over the quota of a stranger get their 4xx. Where TLS comes first, a connection
// too many is closed without a word.
func TestA8FloodsOnEveryCarrier(t *testing.T) {
	t.Parallel()
	quota := func(c *config.Config) {
		c.Limits.Client = config.Quota{Connections: 3, Messages: 3, Recipients: 6}
		c.Limits.Interval = time.Hour
	}
	besiege(t, quota, func(t *testing.T, f *fort, carrier string) {
		door := doorStrange
		open := []*caller{f.must(t, carrier, door, helloed), f.must(t, carrier, door, helloed), f.must(t, carrier, door, helloed)}
		for range 100 {
			c, err := f.call(carrier, door)
			if err == nil {
				c.tcp.Close()
				t.Fatal("a connection over the quota gets a greeting")
			}
			if carrier != "implicit" && !strings.Contains(err.Error(), `"421 4.7.0 Too many connections`) {
				t.Fatal(err)
			}
		}
		for _, c := range open {
			if err := c.talk("MAIL FROM:<s@sender.example>\r\n", "250", "RCPT TO:<r@local.example>\r\n", "250", "RCPT TO:<q@local.example>\r\n", "250", "DATA\r\n", "354", ".\r\n", "250"); err != nil {
				t.Error(err)
			}
			f.kept.Add(1)
		}
		if err := errors.Join(open[0].talk("MAIL FROM:<s@sender.example>\r\n", "450 4.7.1"), open[0].leave(), open[1].leave(), open[2].leave()); err != nil {
			t.Error(err)
		}
	})
}

// TestA9NeverReadsOnEveryCarrier: nothing more is read from a client that does not read its replies, and it is gone at the deadline.
func TestA9NeverReadsOnEveryCarrier(t *testing.T) {
	t.Parallel()
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			t.Parallel()
			clock := looptest.NewClock(time.Now())
			f := fortifyIn(t, func(c *config.Config) { c.Limits.Commands = 1_000_000_000 }, world{clock: clock.Loop()})
			c := f.must(t, carrier, doorOwn, helloed)
			flooded := make(chan int, 1)
			go func() {
				flood := []byte(strings.Repeat("EHLO client.example\r\n", 1000))
				sent := 0
				for err := error(nil); err == nil && sent < 1<<30; sent += len(flood) {
					_ = c.hope()
					_, err = c.conn.Write(flood)
				}
				flooded <- sent
			}()
			for f.sessions() > 0 { // what the kernel takes late lets the session go on once or twice
				f.await("a session that waits for its client to read", func() bool { return f.stats.received.Clogged.Get() == 1 || f.sessions() == 0 })
				clock.Move(f.cfg.Limits.CommandTimeout)
			}
			if sent := receive(t, flooded); sent >= 1<<30 {
				t.Error("the server goes on answering somebody who does not read")
			}
			if s := f.stats.received; s.Unread.Get() != 1 || s.Timeouts.Get() != 0 || s.Clogged.Get() != 0 {
				t.Errorf("%d sessions ended for not reading, %d timeouts, %v wait", s.Unread.Get(), s.Timeouts.Get(), s.Clogged.Get())
			}
			f.reckon()
		})
	}
}

// TestA10NoRoomOnEveryCarrier: with the memory used up MAIL gets 452 4.3.1, what is under way comes to its end, and mail is taken again by itself.
func TestA10NoRoomOnEveryCarrier(t *testing.T) {
	t.Parallel()
	const memory = 1 << 20
	besiege(t, func(c *config.Config) { c.Engine.Memory = memory }, func(t *testing.T, f *fort, carrier string) {
		var open []*caller
		for range memory / message.ChunkSize {
			c := f.must(t, carrier, doorOwn, inData)
			c.pour(strings.Repeat("a line of text\r\n", 3000), nil)
			open = append(open, c)
		}
		f.await("full memory", f.budget.Full)
		late := f.must(t, carrier, doorOwn, helloed)
		if err := late.talk("MAIL FROM:<s@sender.example>\r\n", "452 4.3.1", "RCPT TO:<r@local.example>\r\n", "503", "DATA\r\n", "503"); err != nil {
			t.Error(err)
		}
		for _, c := range open {
			if err := errors.Join(c.talk(".\r\n", "250"), c.leave()); err != nil {
				t.Error(err)
			}
			f.kept.Add(1)
		}
		f.await("free memory", func() bool { return !f.budget.Full() })
		if err := late.talk("MAIL FROM:<s@sender.example>\r\n", "250"); err != nil {
			t.Error(err)
		}
		late.tcp.Close()
	})
}

// logs gathers what a node says about itself.
type logs struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

// TestI10LogsAreClean: whatever clients call themselves, their senders and their messages, a line of a log is one line, printable and of bounded
// length.
func TestI10LogsAreClean(t *testing.T) {
	t.Parallel()
	for form, handler := range map[string]func(io.Writer, *slog.HandlerOptions) slog.Handler{
		"text": func(w io.Writer, o *slog.HandlerOptions) slog.Handler { return slog.NewTextHandler(w, o) },
		"json": func(w io.Writer, o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(w, o) },
	} {
		var said logs
		c := doors(t)
		c.Events.Path = filepath.Join(t.TempDir(), "events.jsonl")
		f := &fort{rig: launch(t, c, slog.New(handler(&said, &slog.HandlerOptions{Level: slog.LevelDebug})))}
		f.tickets = tickets(c)
		for _, hello := range []string{"%s%n%x", "a\" level=ERROR msg=\"b", "{\"a\":1}", "\xff\xfe", "\u2028\u202e\u0085", "a\x1b[2J", strings.Repeat("%s", 900), "a) by x; ("} {
			for _, carrier := range carriers {
				for _, door := range []int{doorOwn, doorStrange} {
					c, err := f.call(carrier, door)
					if err != nil {
						t.Fatal(err)
					}
					c.pour(fmt.Sprintf("EHLO %s\r\nMAIL FROM:<\"%%s\\\"\\\\{}\"@sender.example> ENVID=%%25%%0A\r\nRCPT TO:<\"level=ERROR\"@local.example>\r\nDATA\r\n"+
						"Message-ID: <%%s\x1b[31m>\r\nSubject: \x07%%n\r\n\r\n.\r\nVRFY %%s\r\n%%s\r\nQUIT\r\n", hello), nil)
					_, _ = io.Copy(io.Discard, c.r)
					c.tcp.Close()
				}
			}
		}
		for _, early := range []string{"\x16\x03\x01\x00\x05%s%n%x\r\n", "%s\x1b[2J\n"} { // no handshake, no greeting
			for _, door := range []int{doorOwnTLS, doorSlow} {
				conn := connect(t, f.Addr(door).String())
				_, _ = io.WriteString(conn, early)
				_, _ = io.Copy(io.Discard, conn)
			}
		}
		f.await("the end of all sessions", func() bool { return f.sessions() == 0 })
		f.stop()
		events, err := os.ReadFile(c.Events.Path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(events, []byte("\n")) < 10 || bytes.Count(said.Bytes(), []byte("\n")) < 10 {
			t.Fatalf("%s: nothing is logged:\n%s%s", form, events, said.Bytes())
		}
		checkLines(t, "events", events, true)
		checkLines(t, form, said.Bytes(), form == "json")
	}
}

// checkLines looks for lines that are no records, and for octets that a terminal would act on.
func checkLines(t *testing.T, name string, log []byte, structured bool) {
	t.Helper()
	for line := range bytes.Lines(log) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if structured && !json.Valid(line) || !structured && !bytes.HasPrefix(line, []byte("time=")) || len(line) > 4096 {
			t.Errorf("%s: %q", name, line)
		}
		if bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u202e' }) {
			t.Errorf("%s: a line that a terminal acts on: %q", name, line)
		}
	}
}
