package engine

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"mailrace/engine/config"
)

// ordeal is a row that takes more than one input and its answers. It is gone through on each carrier.
type ordeal struct {
	row, name string
	on        []string // carriers; nil = all
	run       func(f *fort, carrier string) error
}

// ordeals are the ones that any node goes through.
var ordeals = []ordeal{
	{"T1", "clear text behind STARTTLS", []string{"clear"}, injectBehindStartTLS},
	{"T3", "nothing is kept", []string{"clear"}, upgrade},
	{"T4", "nobody stays logged in", []string{"clear"}, upgradeUser},
	{"T7", "close_notify within a message", []string{"starttls", "implicit"}, endSecurity},
	{"T9", "other protocols by ALPN", []string{"starttls", "implicit"}, negotiate},
	{"B9", "words before the greeting", []string{"clear", "implicit"}, talkEarly},
	{"B15", "disconnect at every octet", nil, disconnect},
	{"B15", "disconnect at every octet of AUTH", nil, disconnectUser},
	{"B17", "headers of proxies", nil, proxies},
}

// injectBehindStartTLS: commands that come in clear behind STARTTLS are not run, however the segments fall: they end the session at once, or the
// handshake that they stand in for.
func injectBehindStartTLS(f *fort, carrier string) error {
	const input = "STARTTLS\r\n" + evil
	for cut := 1; cut < len(input); cut++ {
		c, err := f.call(carrier, doorOwn)
		if err != nil {
			return err
		}
		if err := c.advance(helloed); err != nil {
			return err
		}
		c.pour(input, []int{cut})
		want := "554 5.5.0"
		if cut == len("STARTTLS\r\n") {
			want = "220 2.0.0"
		}
		if err := c.hear(want); err != nil {
			return fmt.Errorf("cut behind %d octets: %w", cut, err)
		}
		// Of a handshake that fails an alert may come, and no reply.
		if rest, _ := io.ReadAll(c.r); bytes.Contains(rest, []byte("250")) || bytes.Contains(rest, []byte("354")) || want[0] == '5' && len(rest) > 0 {
			return fmt.Errorf("cut behind %d octets: behind the reply %q", cut, rest)
		}
		c.tcp.Close()
	}
	return nil
}

// upgrade: what was said in clear is forgotten, and nothing is said unasked under TLS. RFC 3207 §4.2
func upgrade(f *fort, carrier string) error {
	for _, before := range []string{"HELO old.example\r\n", "EHLO old.example\r\n", "EHLO old.example\r\nMAIL FROM:<s@sender.example>\r\nRCPT TO:<r@local.example>\r\nRSET\r\n"} {
		c, err := f.call(carrier, doorOwn)
		if err != nil {
			return err
		}
		defer c.tcp.Close()
		c.pour(before, nil)
		for range strings.Count(before, "\n") {
			if err := c.hear("250"); err != nil {
				return err
			}
		}
		if err := c.talk("STARTTLS\r\n", "220"); err != nil {
			return err
		}
		if err := c.secure(doorOwn); err != nil {
			return err
		}
		if err := c.talk("MAIL FROM:<s@sender.example>\r\n", "503", "RCPT TO:<r@local.example>\r\n", "503", "DATA\r\n", "503", "BDAT 0 LAST\r\n", "503",
			"STARTTLS\r\n", "503", "EHLO new.example\r\n", "250", "STARTTLS\r\n", "503"); err != nil {
			return err
		}
		if err := c.leave(); err != nil {
			return err
		}
	}
	return nil
}

// upgradeUser: who logged in in clear is nobody under TLS, and has to log in again.
func upgradeUser(f *fort, carrier string) error {
	for _, before := range []string{rightPlain, "AUTH LOGIN\r\n" + aliceRight[:len(aliceRight)/2], "AUTH LOGIN YWxpY2U=\r\n*\r\n"} {
		c, err := f.call(carrier, doorOpen)
		if err != nil {
			return err
		}
		defer c.tcp.Close()
		if err := c.advance(helloed); err != nil {
			return err
		}
		c.pour(before, nil)
		for range strings.Count(before, "\n") {
			line, err := c.r.ReadString('\n')
			if err != nil || !strings.HasPrefix(line, "235") && !strings.HasPrefix(line, "334") && !strings.HasPrefix(line, "501") {
				return fmt.Errorf("%q, %v", line, err)
			}
		}
		if strings.HasPrefix(before, "AUTH LOGIN\r\n") { // in the middle of an exchange STARTTLS is a response like any other, and a wrong one
			if err := c.talk("STARTTLS\r\n", "535", "MAIL FROM:<s@sender.example>\r\n", "250", "RCPT TO:<r@far.example>\r\n", "550"); err != nil {
				return err
			}
			continue
		}
		if err := c.talk("STARTTLS\r\n", "220"); err != nil {
			return err
		}
		if err := c.secure(doorOpen); err != nil {
			return err
		}
		if err := c.talk(rightPlain, "503", "EHLO client.example\r\n", "250", "MAIL FROM:<s@sender.example>\r\n", "250", "RCPT TO:<r@far.example>\r\n", "550 5.7.1",
			"RSET\r\n", "250", rightPlain, "235", "MAIL FROM:<s@sender.example>\r\n", "250", "RCPT TO:<r@far.example>\r\n", "250"); err != nil {
			return err
		}
		if err := c.leave(); err != nil {
			return err
		}
	}
	return nil
}

// endSecurity: TLS ends in the middle of a message, and octets in clear follow: the message is gone.
func endSecurity(f *fort, carrier string) error {
	const content = "Subject: x\r\n\r\ntext\r\n"
	for _, begin := range []string{fmt.Sprintf("BDAT %d LAST\r\n%s", len(content)+1, content), fmt.Sprintf("BDAT %d\r\n%s", len(content), content), "DATA\r\n" + content + ".\r"} {
		for cut := 1; cut <= len(begin); cut++ {
			c, err := f.call(carrier, doorOwn)
			if err != nil {
				return err
			}
			if err := c.advance(rcpted); err != nil {
				return err
			}
			c.pour(begin[:cut], nil)
			f.settle()
			if err := c.conn.(*tls.Conn).CloseWrite(); err != nil {
				return err
			}
			_, _ = io.WriteString(c.tcp, "\n.\r\nBDAT 0 LAST\r\n"+evil)
			rest, _ := io.ReadAll(c.r)
			if bytes.Contains(rest, []byte("queued")) {
				return fmt.Errorf("%q, then the end of TLS: %q", begin[:cut], rest)
			}
			c.tcp.Close()
		}
	}
	return nil
}

// negotiate: a client that wants another protocol gets no session, and one that wants SMTP among others gets that.
func negotiate(f *fort, carrier string) error {
	for _, protocols := range [][]string{{"http/1.1"}, {"h2", "http/1.1"}, {"imap"}, {"smtp"}, {"h2", "smtp"}} {
		c, _, err := f.dial(carrier, doorOwn)
		if err != nil {
			return err
		}
		defer c.tcp.Close()
		if carrier == "starttls" {
			if err := c.talk("", "220", "EHLO x\r\n", "250", "STARTTLS\r\n", "220"); err != nil {
				return err
			}
		}
		t := tls.Client(c.tcp, &tls.Config{InsecureSkipVerify: true, NextProtos: protocols})
		if err, want := t.Handshake(), protocols[len(protocols)-1] == "smtp"; (err == nil) != want {
			return fmt.Errorf("%v: %v", protocols, err)
		}
	}
	return nil
}

// talkEarly: whoever does not wait for the greeting is told so, and goes.
func talkEarly(f *fort, carrier string) error {
	const input = "EHLO client.example\r\n" + evil
	for cut := 1; cut < len(input); cut++ {
		c, err := f.call(carrier, doorSlow)
		if err != nil {
			return err
		}
		c.pour(input, []int{cut})
		if err := c.hear("554 5.5.1"); err != nil {
			return err
		}
		if err := c.ended(); err != nil {
			return err
		}
		c.tcp.Close()
	}
	return nil
}

// disconnect cuts a session off behind every octet, with the end of the stream, with a reset, and in between the two ends of TLS: a message is
// kept exactly if its end was sent.
func disconnect(f *fort, carrier string) error {
	const input = "EHLO client.example\r\n" + letterOf + "Subject: x\r\n\r\n..text\r\n.\r\nRSET\r\nMAIL FROM:<s@sender.example>\r\nRCPT TO:<r@local.example>\r\n" +
		"BDAT 14\r\nSubject: x\r\n\r\nBDAT 2 LAST\r\n\r\nMAIL FROM:<s@sender.example>\r\nRCPT TO:<r@local.example>\r\nBDAT 9\r\nunfini"
	ends := []int{strings.Index(input, "\r\n.\r\n") + 5, strings.Index(input, "LAST") + 8}
	for cut := range len(input) + 1 {
		for _, how := range []string{"end", "reset", "notify"} {
			if how == "notify" && carrier == "clear" {
				continue
			}
			c, err := f.call(carrier, doorOwn)
			if err != nil {
				return err
			}
			c.pour(input[:cut], nil)
			f.settle()
			for _, end := range ends {
				if cut >= end {
					f.kept.Add(1)
				}
			}
			switch how {
			case "end":
				err = c.tcp.CloseWrite()
			case "reset":
				err = errors.Join(c.answered(cut, ends), c.tcp.SetLinger(0), c.tcp.Close())
			case "notify":
				err = c.conn.(*tls.Conn).CloseWrite()
			}
			if err != nil {
				return fmt.Errorf("%s behind %d octets: %w", how, cut, err)
			}
			_, _ = io.Copy(io.Discard, c.r) // until the server closes, too
			c.tcp.Close()
		}
	}
	return nil
}

// answered waits for the replies to the messages whose end was sent, so that a reset does not overtake them.
func (c *caller) answered(cut int, ends []int) error {
	for _, end := range ends {
		for cut >= end {
			line, err := c.r.ReadString('\n')
			if err != nil {
				return err
			}
			if strings.Contains(line, "queued as") {
				break
			}
		}
	}
	return nil
}

// TestT11HandshakeThatStops: a handshake that stops behind any octet of its first flight, or drips, ends at the deadline.
func TestT11HandshakeThatStops(t *testing.T) {
	t.Parallel()
	f := fortify(t, func(c *config.Config) { c.TLS.HandshakeTimeout = 200 * time.Millisecond })
	flight := firstFlight(t)
	for _, carrier := range []string{"starttls", "implicit"} {
		t.Run(carrier, func(t *testing.T) {
			var wait sync.WaitGroup
			for cut := range flight {
				if cut%4 > 0 && cut > 16 {
					continue
				}
				wait.Go(func() {
					if err := f.stopHandshake(carrier, flight[:cut]); err != nil {
						t.Errorf("behind %d octets: %v", cut, err)
					}
				})
			}
			wait.Wait()
		})
	}
	f.awaitQuiet()
	if stats := f.stats.received; stats.Handshakes.Get() != 0 || stats.HandshakesFailed.Get() == 0 || stats.HandshakesFailed.Get() != stats.Timeouts.Get() {
		t.Errorf("%d handshakes, %d failed, %d timeouts", stats.Handshakes.Get(), stats.HandshakesFailed.Get(), stats.Timeouts.Get())
	}
}

// stopHandshake sends a part of a handshake, and waits for the end.
func (f *fort) stopHandshake(carrier string, part []byte) error {
	c, _, err := f.dial(carrier, doorOwn)
	if err != nil {
		return err
	}
	defer c.tcp.Close()
	if carrier == "starttls" {
		if err := c.talk("", "220", "EHLO x\r\n", "250", "STARTTLS\r\n", "220"); err != nil {
			return err
		}
	}
	if _, err := c.tcp.Write(part); err != nil {
		return err
	}
	return c.ended()
}

// firstFlight is what a client says first.
func firstFlight(t *testing.T) []byte {
	t.Helper()
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	go func() { _ = tls.Client(there, insecure("mta.test.example")).Handshake() }()
	flight := make([]byte, 64<<10)
	n, err := here.Read(flight)
	if err != nil {
		t.Fatal(err)
	}
	return flight[:n]
}
