package ingress

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"mailrace/proto/message"
	"mailrace/proto/smtp"
)

const hello = "Subject: hello\r\n\r\nHow do you do?\r\n"

// TestNo250BeforeCompletion is P1: whatever the client sends meanwhile, the reply waits for the store.
func TestNo250BeforeCompletion(t *testing.T) {
	t.Parallel()
	r := open(t, hold)
	c := r.greet()
	c.envelope()
	c.send(hello + ".\r\nNOOP\r\n")
	op := receive(t, r.store.held)
	r.barrier()
	c.silent()
	if op.Append.Pending() != 1 || op.Append.From != "s@sender.example" || op.Append.Recipients[0].Address != "a@far.example" {
		t.Errorf("%+v", op.Append)
	}
	if len(r.accepted) != 0 {
		t.Error("passed on before it was durable")
	}
	id := op.Append.ID
	r.store.complete(op, nil)
	if got := c.expect(250); got != "250 2.0.0 Ok: queued as "+id.String()+"\r\n" {
		t.Errorf("%q", got)
	}
	c.expect(250) // NOOP
	if got := receive(t, r.accepted); got.ID != id || got.content != hello || got.Client != "127.0.0.1" || got.Helo != "client.example" {
		t.Errorf("%+v", got)
	}
	c.say("QUIT", 221)
	c.end()
	r.awaitQuiet()
}

// TestStoreFails answers 451 and passes nothing on; the session goes on.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	r := open(t, hold)
	c := r.greet()
	for range 2 {
		c.envelope()
		c.send(hello + ".\r\n")
		r.store.complete(receive(t, r.store.held), errors.New("closed"))
		if got := c.expect(451); !strings.HasPrefix(got, "451 4.3.0 ") {
			t.Errorf("%q", got)
		}
	}
	c.envelope()
	c.send(hello + ".\r\n")
	r.store.complete(receive(t, r.store.held), nil)
	c.expect(250)
	c.Close()
	r.awaitQuiet()
	if n := len(r.accepted); n != 1 || r.door.Stats.StoreErrors.Get() != 2 {
		t.Errorf("%d messages passed on", n)
	}
}

// TestDisconnectAtEveryByte cuts a dialogue off everywhere (B15): only a message whose end was sent is kept, and nothing leaks (P3).
func TestDisconnectAtEveryByte(t *testing.T) {
	t.Parallel()
	r := open(t, nil)
	before := "EHLO client.example\r\nMAIL FROM:<s@sender.example>\r\nRCPT TO:<a@far.example>\r\nDATA\r\n" + hello + "."
	dialogue := before + "\r\nRSET\r\nMAIL FROM:<s@sender.example>\r\nRCPT TO:<b@far.example>\r\nDATA\r\nunfinished"
	for cut := range len(dialogue) + 1 {
		c := r.connect()
		c.expect(220)
		c.send(dialogue[:cut])
		if cut%2 == 0 { // half of them with a reset
			_ = c.SetLinger(0)
			c.Close()
		} else {
			_ = c.CloseWrite()
		}
		want := 0
		if cut >= len(before)+2 {
			want = 1
		}
		r.awaitQuiet()
		c.Close()
		appended, chunks, aborted := r.store.counts()
		if cut%2 == 0 && want == 1 && appended == 0 {
			want = 0 // the reset overtook the end
		}
		if appended != want || chunks != 0 || aborted != 0 || len(r.accepted) != want {
			t.Fatalf("cut after %q: %d appended, %d passed on, %d chunks, %d aborted", dialogue[:cut], appended, len(r.accepted), chunks, aborted)
		}
		if want == 1 {
			receive(t, r.accepted)
		}
		r.store.forget()
	}
}

// TestDisconnectWhileParked keeps a message whose client is gone when it becomes durable: it was asked for, and the client will send it again
// if it does not trust us. RFC 1047
func TestDisconnectWhileParked(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(c *client){
		"end of stream": func(c *client) { c.Close() },
		"reset":         func(c *client) { _ = c.SetLinger(0); c.Close() },
		"half":          func(c *client) { _ = c.CloseWrite() },
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t, hold)
			c := r.greet()
			c.envelope()
			c.send(hello + ".\r\n")
			op := receive(t, r.store.held)
			leave(c)
			if name == "reset" {
				r.await("the end of the session", func() bool { return r.sessions() == 0 })
			}
			r.barrier()
			r.store.complete(op, nil)
			if got := receive(t, r.accepted); got.content != hello {
				t.Errorf("%q", got.content)
			}
			if name == "half" {
				c.expect(250)
				c.end()
			}
			r.awaitQuiet()
		})
	}
}

// TestPipelinedTransactions runs what stands behind the dot after the store has answered, in order, and answers in as few writes as can be.
func TestPipelinedTransactions(t *testing.T) {
	t.Parallel()
	r := open(t, hold)
	c := r.greet()
	segments := c.segments()
	envelope := "MAIL FROM:<s@sender.example>\r\nRCPT TO:<a@far.example>\r\nRCPT TO:<b@far.example>\r\nDATA\r\n"
	c.send(envelope)
	for _, code := range []int{250, 250, 250, 354} {
		c.expect(code)
	}
	if segments++; c.segments() != segments {
		t.Errorf("%d segments, want %d: the replies to one group are one write", c.segments(), segments)
	}
	for i := range 3 {
		c.send(fmt.Sprintf("Subject: %d\r\n.\r\n", i) + envelope)
		op := receive(t, r.store.held)
		r.barrier()
		c.silent()
		r.store.complete(op, nil)
		for _, code := range []int{250, 250, 250, 250, 354} {
			c.expect(code)
		}
		if segments++; c.segments() != segments {
			t.Errorf("%d segments, want %d: the 250 and the replies behind it are one write", c.segments(), segments)
		}
		if got := receive(t, r.accepted); got.content != fmt.Sprintf("Subject: %d\r\n", i) || len(got.Recipients) != 2 {
			t.Errorf("message %d: %+v", i, got)
		}
	}
	// All at once: content without waiting for its 354.
	c.send("last but one\r\n.\r\n" + envelope + "last\r\n.\r\nQUIT\r\n")
	r.store.complete(receive(t, r.store.held), nil)
	r.store.complete(receive(t, r.store.held), nil)
	for _, code := range []int{250, 250, 250, 250, 354, 250, 221} {
		c.expect(code)
	}
	c.end()
	for _, want := range []string{"last but one\r\n", "last\r\n"} {
		if got := receive(t, r.accepted); got.content != want {
			t.Errorf("%q, want %q", got.content, want)
		}
	}
	r.awaitQuiet()
}

// TestRelayDenied is A1.
func TestRelayDenied(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, _ *shelf) { d.RelayFrom = nil })
	c := r.greet()
	c.say("MAIL FROM:<s@sender.example>", 250)
	if got := c.say("RCPT TO:<a@far.example>", 550); !strings.HasPrefix(got, "550 5.7.1 ") {
		t.Errorf("%q", got)
	}
	c.say("DATA", 554)
	c.say("RCPT TO:<a@far.example>", 503)
	c.say("QUIT", 221)
	c.end()
	r.awaitQuiet()
	if n := r.door.Stats.NoRelay.Get(); n != 1 {
		t.Errorf("%d refusals counted", n)
	}
}

// TestHops is A4.
func TestHops(t *testing.T) {
	t.Parallel()
	r := open(t, nil)
	c := r.greet()
	body := "\r\nreceived: in the body does not count\r\n" + strings.Repeat("x\r\n", message.ChunkSize/2)
	for _, content := range []string{"\r\n", body} {
		for hops, code := range map[int]int{hopsMax - 1: 250, hopsMax: 554} {
			c.envelope()
			c.send(strings.Repeat("Received: from somewhere\r\n\tby elsewhere\r\n", hops-1) + "RECEIVED: x\r\nSubject: y\r\n" + content)
			if got := c.say(".", code); code == 554 && !strings.HasPrefix(got, "554 5.4.6 ") {
				t.Errorf("%q", got)
			}
		}
	}
	c.say("QUIT", 221)
	c.end()
	r.awaitQuiet()
	if appended, _, aborted := r.store.counts(); appended != 2 || aborted != 0 { // nothing of a loop is written
		t.Errorf("%d appended, %d aborted", appended, aborted)
	}
}

// TestTimeouts ends sessions that go quiet, or that keep a line from coming to its end.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	short := 500 * time.Millisecond
	for name, c := range map[string]struct {
		command, data time.Duration
		does          func(c *client)
	}{
		"before EHLO":          {short, patience, func(c *client) {}},
		"between commands":     {short, patience, func(c *client) { c.say("EHLO client.example", 250) }},
		"in a transaction":     {short, patience, func(c *client) { c.say("EHLO c.example", 250); c.say("MAIL FROM:<s@sender.example>", 250) }},
		"in the content":       {patience, short, func(c *client) { c.say("EHLO c.example", 250); c.envelope(); c.send("Subject: x\r\n") }},
		"in a line of content": {patience, short, func(c *client) { c.say("EHLO c.example", 250); c.envelope(); c.send("Subject") }},
		"drip": {short, patience, func(c *client) {
			go func() {
				for {
					if _, err := c.Write([]byte("N")); err != nil {
						return
					}
					time.Sleep(20 * time.Millisecond)
				}
			}()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := open(t, func(d *Door, _ *shelf) { d.Pace.Command, d.Pace.Data = c.command, c.data })
			client := r.connect()
			client.expect(220)
			c.does(client)
			if got := client.expect(421); !strings.HasPrefix(got, "421 4.4.2 ") {
				t.Errorf("%q", got)
			}
			client.Close()
			r.awaitQuiet()
			if appended, _, _ := r.store.counts(); appended != 0 || r.door.Stats.Timeouts.Get() != 1 {
				t.Errorf("%d appended, %d timeouts", appended, r.door.Stats.Timeouts.Get())
			}
		})
	}
}

// TestNoTimeoutWhileParked does not blame a client for a slow disk.
func TestNoTimeoutWhileParked(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, s *shelf) {
		hold(d, s)
		d.Pace.Command = 500 * time.Millisecond
	})
	c := r.greet()
	c.envelope()
	c.send(hello + ".\r\n")
	op := receive(t, r.store.held)
	for range 2 {
		receive(t, r.timeouts)
	}
	r.barrier()
	c.silent()
	r.store.complete(op, nil)
	c.expect(250)
	c.Close()
	r.awaitQuiet()
}

// TestDrain ends sessions by where they are.
func TestDrain(t *testing.T) {
	t.Parallel()
	r := open(t, hold)
	idle, inData, parked, tooLarge := r.greet(), r.greet(), r.greet(), r.greet()
	for _, c := range []*client{inData, parked, tooLarge} {
		c.envelope()
	}
	parked.send(hello + ".\r\n")
	op := receive(t, r.store.held)
	l := r.group.Loops()[0]
	l.Post(func() { r.door.Drain(l) })
	idle.expect(421)
	idle.end()
	late := r.connect()
	late.expect(421)
	late.end()
	inData.send(hello + ".\r\nMAIL FROM:<s@sender.example>\r\n")
	r.store.complete(receive(t, r.store.held), nil)
	inData.expect(250)
	if got := inData.expect(421); !strings.HasPrefix(got, "421 4.3.2 ") {
		t.Errorf("%q", got)
	}
	inData.end()
	r.store.complete(op, nil)
	parked.expect(250)
	parked.expect(421)
	parked.end()
	tooLarge.send(strings.Repeat("Received: x\r\n", hopsMax) + "\r\n.\r\n")
	tooLarge.expect(554)
	tooLarge.expect(421)
	tooLarge.end()
	r.awaitQuiet()
}

// TestErrorsEndTheSession counts refusals, also of what is sent behind a refused DATA (B11).
func TestErrorsEndTheSession(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, _ *shelf) { d.SMTP = &smtp.ServerConfig{Hostname: "mta.test.example", MaxErrors: 5} })
	c := r.greet()
	c.say("DATA", 503)
	c.send(strings.Repeat("a line of mail that nobody wants\r\n", 1000))
	for {
		reply, err := c.reply()
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(reply, "421 4.7.0 ") {
			break
		}
	}
	c.end()
	r.awaitQuiet()
}
