package ingress

import (
	"strings"
	"testing"
	"time"

	"mailrace/proto/smtp"
	"mailrace/spool"
)

// TestFloor turns the glass under a clock of its own (A7).
func TestFloor(t *testing.T) {
	t.Parallel()
	p := &Pace{Data: 5 * time.Minute, MinRate: 500, Window: 30 * time.Second}
	start := time.Unix(1_000_000, 0)
	for name, c := range map[string]struct {
		every  time.Duration
		octets int
		falls  time.Duration // when it falls below the floor; 0 = never within an hour
	}{
		"nothing":                     {time.Hour, 0, 30 * time.Second},
		"one octet a second":          {time.Second, 1, 31 * time.Second}, // 30 octets buy 60 ms: not the 31st second
		"one octet a minute":          {time.Minute, 1, time.Minute},
		"half the rate":               {time.Second, 250, 59 * time.Second},
		"the rate":                    {time.Second, 500, 0},
		"in bursts":                   {29 * time.Second, 500 * 29, 0},
		"in bursts that are too rare": {31 * time.Second, 500 * 100, 31 * time.Second},
	} {
		var f floor
		f.begin(start, p)
		for at := c.every; ; at += c.every {
			now := start.Add(at)
			if f.left(now, p) <= 0 {
				if c.falls == 0 || at < c.falls || c.every < c.falls && at > c.falls {
					t.Errorf("%s: below the floor after %s, want %s", name, at, c.falls)
				}
				break
			}
			if at > time.Hour {
				if c.falls != 0 {
					t.Errorf("%s: never below the floor, want after %s", name, c.falls)
				}
				break
			}
			f.add(now, c.octets, p)
		}
	}
	// Between chunks the glass lies.
	var g floor
	g.begin(start, p)
	g.turn(start.Add(10*time.Second), false, false, p)
	g.turn(start.Add(time.Hour), true, false, p)
	if got := g.left(start.Add(time.Hour), p); got != 20*time.Second {
		t.Errorf("%s left after an hour between chunks, want 20s", got)
	}
	// A fast beginning is not saved up beyond the window, and the timeout of a block holds beside the floor.
	var f floor
	f.begin(start, p)
	f.add(start, 1<<30, p)
	if got := f.left(start, p); got != p.Window {
		t.Errorf("%s left after a gigabyte, want %s", got, p.Window)
	}
	for _, p := range []*Pace{{Data: time.Second, MinRate: 500, Window: time.Minute}, {Data: time.Second}} {
		f.begin(start, p)
		f.add(start, 1000, p)
		if got := f.left(start, p); got != time.Second {
			t.Errorf("%s left, want the timeout of a block", got)
		}
	}
}

// drip writes text one octet at a time until the connection ends.
func (c *client) drip(text string) {
	go func() {
		for i := 0; ; i = (i + 1) % len(text) {
			if _, err := c.Write([]byte{text[i]}); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
}

// TestA7SlowLoris ends clients that send just often enough never to be silent.
func TestA7SlowLoris(t *testing.T) {
	t.Parallel()
	const short = 400 * time.Millisecond
	for name, c := range map[string]struct {
		does    func(c *client)
		text    string
		counter func(s *Stats) uint64
	}{
		"in a command": {func(c *client) { c.drip("N") }, "421 4.4.2 Timeout", func(s *Stats) uint64 { return s.Timeouts.Get() }},
		"in a line that is too long": {func(c *client) {
			c.send(strings.Repeat("x", 5000))
			c.drip("x")
		}, "421 4.4.2 Timeout", func(s *Stats) uint64 { return s.Timeouts.Get() }},
		"in the content": {func(c *client) {
			c.envelope()
			c.drip("x\r\n")
		}, "421 4.4.2 Your message", func(s *Stats) uint64 { return s.Slow.Get() }},
		"in a line of the content": {func(c *client) {
			c.envelope()
			c.drip("x")
		}, "421 4.4.2 Your message", func(s *Stats) uint64 { return s.Slow.Get() }},
		"in a chunk": {func(c *client) {
			c.say("MAIL FROM:<s@sender.example>", 250)
			c.say("RCPT TO:<a@far.example>", 250)
			c.send("BDAT 4000\r\n")
			c.drip("x\r\n")
		}, "421 4.4.2 Your message", func(s *Stats) uint64 { return s.Slow.Get() }},
		"in a second chunk": {func(c *client) {
			c.say("MAIL FROM:<s@sender.example>", 250)
			c.say("RCPT TO:<a@far.example>", 250)
			c.send("BDAT 1\r\nx")
			c.expect(250)
			c.send("BDAT 4000\r\n")
			c.drip("x\r\n")
		}, "421 4.4.2 Your message", func(s *Stats) uint64 { return s.Slow.Get() }},
		"in a chunk that is refused": {func(c *client) {
			c.send("BDAT 4000\r\n")
			c.drip("x\r\n")
		}, "421 4.4.2 Your message", func(s *Stats) uint64 { return s.Slow.Get() }},
		"in content that is too large": {func(c *client) {
			c.envelope()
			c.send(lines(10_000))
			c.drip("x\r\n")
		}, "421 4.4.2 Your message", func(s *Stats) uint64 { return s.Slow.Get() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := open(t, func(d *Door, _ *shelf) {
				d.SMTP = &smtp.ServerConfig{Hostname: "mta.test.example", MaxSize: 5000}
				d.Pace = Pace{Command: 3 * short, Data: patience, MinRate: 5000, Window: short}
			})
			client := r.greet()
			c.does(client)
			if got := client.expect(421); !strings.HasPrefix(got, c.text) {
				t.Errorf("%q", got)
			}
			client.Close()
			r.awaitQuiet()
			if appended, _, _ := r.store.counts(); appended != 0 || c.counter(r.door.Stats) != 1 {
				t.Errorf("%d appended, %d sessions ended", appended, c.counter(r.door.Stats))
			}
		})
	}
}

// onLoop runs fn on the loop with each session.
func (r *rig) onLoop(fn func(s *session)) {
	r.t.Helper()
	l, done := r.group.Loops()[0], make(chan struct{})
	l.Post(func() {
		for s := range r.door.rooms[0].sessions {
			fn(s)
		}
		close(done)
	})
	receive(r.t, done)
}

// TestRefusedChunkHasItsTime: the octets of a chunk that nobody is to get have as long to come as those of any other.
func TestRefusedChunkHasItsTime(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, _ *shelf) { d.Pace.MinRate, d.Pace.Window = 500, time.Minute })
	c := r.greet()
	c.say("MAIL FROM:<a@b.example>", 250)
	c.send("BDAT 12\r\nRSET")
	begun := false
	r.await("the chunk", func() bool {
		r.onLoop(func(s *session) {
			if begun = s.smtp.InContent(); begun {
				if left := s.floor.left(s.conn.Loop().Now(), &s.door.Pace); left < 30*time.Second {
					t.Errorf("%v left", left)
				}
			}
		})
		return begun
	})
	c.send("\r\nQUIT\r\n")
	c.expect(554)
}

// TestA7SlowStoreIsNotTheClientsFault turns the glass anew when a client that was held back may go on.
func TestA7SlowStoreIsNotTheClientsFault(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, s *shelf) {
		hold(d, s)
		d.Pace = Pace{Command: patience, Data: patience, MinRate: 500, Window: patience}
	})
	c := r.greet()
	c.envelope()
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write([]byte(lines(512<<10) + ".\r\n"))
		sent <- err
	}()
	var ops []*spool.Op
	for range aheadMax {
		ops = append(ops, receive(t, r.store.held))
	}
	r.onLoop(func(s *session) {
		s.floor.due = s.conn.Loop().Now().Add(-time.Hour) // it was a long wait
		s.Timeout(s.conn)
	})
	c.silent()
	for ; ; ops = append(ops, receive(t, r.store.held)) {
		for _, op := range ops {
			if op.Append == nil && op.Chunk.Data == nil {
				t.Errorf("abort %+v", op.Abort)
			}
			last := op.Append != nil
			r.store.complete(op, nil)
			if last {
				c.expect(250)
				if err := receive(t, sent); err != nil {
					t.Error(err)
				}
				c.Close()
				r.awaitQuiet()
				return
			}
		}
		ops = ops[:0]
	}
}

// TestA10SlowStoreClosesNobody lets sessions wait for the store at the end of their data, past all of their deadlines, and past the end of their
// session: all get their 250.
func TestA10SlowStoreClosesNobody(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, s *shelf) {
		hold(d, s)
		d.Pace = Pace{Command: patience, Data: patience, MinRate: 500, Window: patience, Session: time.Hour}
	})
	var clients []*client
	var ops []*spool.Op
	for range 5 {
		c := r.greet()
		c.envelope()
		c.send(hello + ".\r\nNOOP\r\n")
		clients, ops = append(clients, c), append(ops, receive(t, r.store.held))
	}
	r.onLoop(func(s *session) {
		past := s.conn.Loop().Now().Add(-time.Hour)
		s.floor.due, s.ends = past, past
		for range 3 {
			s.Timeout(s.conn)
		}
	})
	for _, c := range clients {
		c.silent()
	}
	for i, op := range ops {
		if op.Append == nil {
			t.Fatalf("abort %+v", op.Abort)
		}
		r.store.complete(op, nil)
		clients[i].expect(250)
		clients[i].expect(250)
		clients[i].Close()
	}
	r.awaitQuiet()
	if s := r.door.Stats; s.Timeouts.Get()+s.Slow.Get() != 0 { // they may be over their time now
		t.Errorf("%d timeouts, %d too slow", s.Timeouts.Get(), s.Slow.Get())
	}
}

// TestSessionTime ends sessions that have lasted long enough: at once between messages, at the next MAIL behind a message under way.
func TestSessionTime(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, _ *shelf) {
		d.RelayFrom, d.RelayDomains, d.Pace.Session = nil, NewDomains([]string{"far.example"}), time.Hour
	})
	idle, asking, busy := r.greet(), r.greet(), r.greet()
	busy.envelope()
	busy.send("Subject: x\r\n")
	idle.say("MAIL FROM:<s@sender.example>", 250)
	r.barrier()
	n := 0
	r.onLoop(func(s *session) {
		s.ends = s.conn.Loop().Now()
		if s.smtp.InContent() || s.smtp.InTransaction() {
			s.arm()
		}
		n++
	})
	if n != 3 {
		t.Fatalf("%d sessions", n)
	}
	if got := idle.expect(421); !strings.HasPrefix(got, "421 4.4.2 ") {
		t.Errorf("%q", got)
	}
	idle.end()
	asking.send("MAIL FROM:<s@sender.example>\r\n")
	if got := asking.expect(421); !strings.HasPrefix(got, "421 4.4.2 ") {
		t.Errorf("%q", got)
	}
	asking.end()
	busy.say(".", 250)
	busy.expect(421)
	busy.end()
	r.awaitQuiet()
	if n := r.door.Stats.OverTime.Get(); n != 3 {
		t.Errorf("%d sessions ended", n)
	}
}

// TestSessionMessages refuses the message after the last, and leaves clients that may relay alone.
func TestSessionMessages(t *testing.T) {
	t.Parallel()
	for _, relay := range []bool{false, true} {
		r := open(t, func(d *Door, _ *shelf) {
			d.Pace.Messages, d.Pace.Session = 2, time.Hour
			if !relay {
				d.RelayFrom, d.RelayDomains = nil, NewDomains([]string{"far.example"})
			}
		})
		c := r.greet()
		for range 2 {
			c.envelope()
			c.say(hello+".", 250)
		}
		r.onLoop(func(s *session) {
			if s.ends.IsZero() != relay {
				t.Errorf("relay %v: the session ends at %s", relay, s.ends)
			}
		})
		if relay {
			c.envelope()
			c.say(hello+".", 250)
			c.Close()
		} else {
			if got := c.say("MAIL FROM:<s@sender.example>", 421); !strings.HasPrefix(got, "421 4.7.0 ") {
				t.Errorf("%q", got)
			}
			c.end()
		}
		r.awaitQuiet()
		if n := r.door.Stats.OverMessages.Get() == 1; n == relay {
			t.Errorf("relay %v: %d sessions ended", relay, r.door.Stats.OverMessages.Get())
		}
	}
}

// BenchmarkFloor measures the glass: octets of content, and the deadline after them.
func BenchmarkFloor(b *testing.B) {
	p := &Pace{Data: 5 * time.Minute, MinRate: 500, Window: 30 * time.Second}
	var f floor
	now := time.Unix(1_000_000, 0)
	f.begin(now, p)
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Millisecond)
		f.add(now, 10<<10, p)
		if f.left(now, p) <= 0 {
			b.Fatal("below the floor")
		}
	}
}
