package ingress

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"mailrace/engine/loop"
	"mailrace/proto/smtp"
)

// known are recipients by their local-parts: "absent…" are not there, "later…" cannot be verified, "ask…" must be asked for, all others are there.
type known struct {
	mu    sync.Mutex
	asked []func(*smtp.Reply)
	loop  *loop.Loop
}

func (k *known) Check(l *loop.Loop, rcpt *smtp.Path, tell func(*smtp.Reply)) (*smtp.Reply, bool) {
	switch local := string(rcpt.Local); {
	case strings.HasPrefix(local, "absent"):
		return &smtp.Reply{Code: 550, Enhanced: "5.1.1", Text: "No such recipient here"}, true
	case strings.HasPrefix(local, "later"):
		return &smtp.Reply{Code: 450, Enhanced: "4.1.1", Text: "Later"}, true
	case strings.HasPrefix(local, "ask"):
		k.mu.Lock()
		defer k.mu.Unlock()
		k.loop, k.asked = l, append(k.asked, tell)
		return nil, false
	}
	return nil, true
}

// tell answers the next question.
func (k *known) tell(r *rig, refusal *smtp.Reply) {
	r.t.Helper()
	r.await("a question", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return len(k.asked) > 0 })
	k.mu.Lock()
	tell := k.asked[0]
	k.asked = k.asked[1:]
	k.mu.Unlock()
	k.loop.Post(func() { tell(refusal) })
}

// knowing makes the client a stranger who may send to far.example, some of whose recipients are there.
func knowing(k *known, tarpit Tarpit) func(d *Door, _ *shelf) {
	return func(d *Door, _ *shelf) {
		d.RelayFrom, d.RelayDomains, d.Recipients, d.Tarpit = nil, NewDomains([]string{"far.example"}), k, tarpit
	}
}

// TestUnknownRecipientsA3 are refused at RCPT, and leave no trace in the envelope.
func TestUnknownRecipientsA3(t *testing.T) {
	t.Parallel()
	k := &known{}
	r := open(t, knowing(k, Tarpit{}))
	c := r.greet()
	c.say("MAIL FROM:<s@sender.example>", 250)
	c.say("RCPT TO:<absent@far.example> ORCPT=rfc822;absent@x", 550)
	c.say("RCPT TO:<a@far.example> NOTIFY=NEVER", 250)
	c.say("RCPT TO:<absent@far.example> NOTIFY=SUCCESS ORCPT=rfc822;absent@x", 550)
	c.say("RCPT TO:<later@far.example>", 450)
	c.say("RCPT TO:<a@other.example>", 550) // relaying is denied before anything is asked
	c.send("RCPT TO:<ask1@far.example> ORCPT=rfc822;one@x\r\nRCPT TO:<ask2@far.example> ORCPT=rfc822;two@x\r\nRCPT TO:<b@far.example>\r\nDATA\r\n")
	k.tell(r, nil)
	c.expect(250)
	k.tell(r, &smtp.Reply{Code: 550, Enhanced: "5.1.1"})
	for _, code := range []int{550, 250, 354} {
		c.expect(code)
	}
	c.send(hello + ".\r\n")
	c.expect(250)
	m := receive(t, r.accepted)
	var got string
	for i, rcpt := range m.Recipients {
		got += fmt.Sprintf("%s %d %s, ", rcpt.Address, rcpt.Notify, m.DSN.Original(i))
	}
	if want := "a@far.example 1 , ask1@far.example 0 rfc822;one@x, b@far.example 0 , "; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	c.say("MAIL FROM:<s@sender.example>", 250)
	c.say("RCPT TO:<absent@far.example>", 550)
	c.say("DATA", 554)
	c.Close()
	r.awaitQuiet()
	if n := r.door.Stats.NoRecipient.Get(); n != 4 {
		t.Errorf("%d unknown recipients counted", n)
	}
}

// TestGoneWhileAsking: whoever is asked for a client that is gone tells nobody.
func TestGoneWhileAsking(t *testing.T) {
	t.Parallel()
	k := &known{}
	r := open(t, knowing(k, Tarpit{First: time.Hour}))
	for range 3 {
		c := r.greet()
		c.send("MAIL FROM:<s@sender.example>\r\nRCPT TO:<a@far.example>\r\nRCPT TO:<ask@far.example>\r\n")
		c.expect(250)
		c.expect(250)
		r.await("a question", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return len(k.asked) > 0 })
		c.reset()
		r.await("the end of the session", func() bool { return r.sessions() == 0 })
		k.tell(r, nil)
		r.barrier()
	}
	c := r.greet() // in the tarpit
	c.send("MAIL FROM:<s@sender.example>\r\nRCPT TO:<absent@far.example>\r\n")
	c.expect(250)
	r.barrier()
	c.reset()
	r.awaitQuiet()
	if appended, _, _ := r.store.counts(); appended != 0 {
		t.Errorf("%d appended", appended)
	}
}

// TestTarpitA14 lets strangers who guess wait longer with each guess, others not.
func TestTarpitA14(t *testing.T) {
	t.Parallel()
	p := Tarpit{After: 2, First: time.Second}
	for n, want := range map[int]time.Duration{1: 0, 2: 0, 3: time.Second, 4: 2 * time.Second, 5: 4 * time.Second, 7: 16 * time.Second, 8: tarpitMax, 1000: tarpitMax} {
		if got := p.wait(n); got != want {
			t.Errorf("unknown recipient %d waits %v, want %v", n, got, want)
		}
	}
	if never := (Tarpit{After: 1}); never.wait(100) != 0 {
		t.Error("the zero delay waits")
	}

	r := open(t, func(d *Door, s *shelf) {
		knowing(&known{}, Tarpit{After: 2, First: time.Hour})(d, s)
		d.SMTP = &smtp.ServerConfig{Hostname: "mta.test.example", MaxErrors: 6}
	})
	c := r.greet()
	for range 2 { // counted over transactions
		c.say("MAIL FROM:<s@sender.example>", 250)
		c.say("RCPT TO:<absent@far.example>", 550)
		c.say("RCPT TO:<later@far.example>", 450) // no guess
		c.say("RSET", 250)
	}
	c.say("MAIL FROM:<s@sender.example>", 250)
	c.say("RCPT TO:<a@far.example>", 250)
	c.send("RCPT TO:<absent@far.example>\r\nRCPT TO:<a@far.example>\r\n")
	r.await("the third", func() bool { return r.door.Stats.NoRecipient.Get() == 3 })
	r.barrier()
	c.silent()
	c.reset()
	r.awaitQuiet()

	quick := open(t, func(d *Door, s *shelf) { // and when the time has come, all goes on
		knowing(&known{}, Tarpit{First: time.Millisecond})(d, s)
		d.SMTP = &smtp.ServerConfig{Hostname: "mta.test.example", MaxErrors: 4}
	})
	c = quick.greet()
	c.send("MAIL FROM:<s@sender.example>\r\n" + strings.Repeat("RCPT TO:<absent@far.example>\r\nRCPT TO:<a@far.example>\r\n", 5))
	c.expect(250)
	for range 3 {
		c.expect(550)
		c.expect(250)
	}
	c.expect(550)
	c.expect(421) // they are errors too
	c.end()
	quick.awaitQuiet()

	trusted := open(t, func(d *Door, s *shelf) {
		from := d.RelayFrom
		knowing(&known{}, Tarpit{First: time.Hour})(d, s)
		d.RelayFrom = from
	})
	c = trusted.greet()
	c.say("MAIL FROM:<s@sender.example>", 250)
	for range 5 {
		c.say("RCPT TO:<absent@far.example>", 550)
	}
	c.Close()
	trusted.awaitQuiet()
}

// TestErrorsBehindPause: a session that ends with the refusal of a recipient that was waited for ends at once, whatever the client says or not.
func TestErrorsBehindPause(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]time.Duration{"asked": 0, "tarpit": time.Millisecond} {
		k := &known{}
		r := open(t, func(d *Door, s *shelf) {
			knowing(k, Tarpit{First: first})(d, s)
			d.SMTP = &smtp.ServerConfig{Hostname: "mta.test.example", MaxErrors: 1}
			d.Pace.Command = time.Hour
		})
		c := r.greet()
		c.say("MAIL FROM:<s@sender.example>", 250)
		c.send("RCPT TO:<ask@far.example>\r\n")
		k.tell(r, &smtp.Reply{Code: 550, Enhanced: "5.1.1", Text: name})
		c.expect(550)
		c.expect(421)
		c.end()
		r.awaitQuiet()
	}
}

// TestVrfyA14 tells nobody who is there.
func TestVrfyA14(t *testing.T) {
	t.Parallel()
	r := open(t, knowing(&known{}, Tarpit{}))
	c := r.greet()
	if there, absent := c.say("VRFY a@far.example", 252), c.say("VRFY absent@far.example", 252); there != absent {
		t.Errorf("%q and %q", there, absent)
	}
	c.Close()
	r.awaitQuiet()
}

// TestErrorsEndTheSessionLaterA14: a session whose last error was found out later ends with it, though its client says nothing more.
func TestErrorsEndTheSessionLaterA14(t *testing.T) {
	t.Parallel()
	k := &known{}
	r := open(t, func(d *Door, s *shelf) {
		knowing(k, Tarpit{First: time.Millisecond})(d, s)
		d.SMTP, d.Pace.Command = &smtp.ServerConfig{Hostname: "mta.test.example", MaxErrors: 2}, time.Hour
	})
	for _, last := range []string{"RCPT TO:<ask@far.example>", "RCPT TO:<absent@far.example>"} {
		c := r.greet()
		c.say("MAIL FROM:<s@sender.example>", 250)
		c.say("RCPT TO:<absent@far.example>", 550)
		c.send(last + "\r\n")
		if strings.Contains(last, "ask") {
			k.tell(r, &smtp.Reply{Code: 550, Enhanced: "5.1.1"})
		}
		c.expect(550)
		c.expect(421)
		c.end()
	}
	r.awaitQuiet()
}
