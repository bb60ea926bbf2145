package ingress

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"mailrace/engine/auth"
	"mailrace/proto/smtp"
)

// queuedAs is what makes two runs of a dialogue differ.
var queuedAs = regexp.MustCompile(`queued as [0-9A-Z]{13}`)

// FuzzSession sends any octets over a connection, at once and cut up: the replies and the messages are the same, each message has its 250 and each
// 250 its message, and no session, content or budget is left.
func FuzzSession(f *testing.F) {
	users, err := auth.New(auth.Options{File: "users.toml", Read: func(string) ([]auth.Entry, error) { return alice(), nil }, Cache: time.Hour})
	if err != nil {
		f.Fatal(err)
	}
	var rigs [2]*rig // the second one mends newlines
	for i := range rigs {
		rigs[i] = open(f, func(d *Door, s *shelf) {
			secure(d, s)
			own := netip.MustParsePrefix("127.0.0.0/8")
			d.SMTP = &smtp.ServerConfig{
				Hostname: "mta.test.example", MaxSize: 20_000, MaxLine: 200, MaxErrors: 5, MaxRecipients: 3, MaxCommands: 20, StartTLS: true, MendNewlines: i == 1,
				AuthClear: []string{"PLAIN", "LOGIN"},
			}
			d.RelayFrom, d.XClientFrom, d.Users = []netip.Prefix{own}, []netip.Prefix{own}, &Users{Authority: users}
			d.RelayDomains = NewDomains([]string{"far.example"})
		})
	}
	f.Cleanup(users.Close)
	const begin = "EHLO client.example\r\nMAIL FROM:<s@sender.example>\r\nRCPT TO:<a@far.example>\r\n"
	f.Add([]byte(begin+"DATA\r\n"+hello+".\r\n"+begin[21:]+"BDAT 3\r\n.\r\nBDAT 0 LAST\r\nQUIT\r\n"), uint64(1))
	f.Add([]byte("XCLIENT ADDR=192.0.2.7 PORT=25\r\n"+begin+"RCPT TO:<a@other.example>\r\nDATA\r\n"+strings.Repeat("Received: x\r\n", hopsMax)+"\r\n.\r\nRSET\r\n"), uint64(2))
	f.Add([]byte("EHLO x\r\n"+plain("alice", "wrong")+"\r\nAUTH LOGIN\r\nYWxpY2U=\r\ncmlnaHQ=\r\nXCLIENT ADDR=192.0.2.7\r\n"+plain("bob", "right")+"\r\n"+begin+"DATA\r\n\n.\n\r\n.\r\n"), uint64(5))
	f.Add([]byte("EHLO x\r\nSTARTTLS\r\n\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"), uint64(3))
	f.Fuzz(func(t *testing.T, input []byte, seed uint64) {
		if len(input) > 60_000 {
			return
		}
		r, random := rigs[seed&1], rand.New(rand.NewPCG(seed, 0))
		replies, messages := r.pour(t, input, func(left int) int { return left })
		again, same := r.pour(t, input, func(left int) int { return 1 + random.IntN(min(left, 1+random.IntN(64))) })
		if bytes.Contains(bytes.ToUpper(input), []byte("STARTTLS")) {
			return // whether something stood behind it depends on how it is cut
		}
		if replies != again || strings.Join(messages, "\x00") != strings.Join(same, "\x00") {
			t.Errorf("%q\nat once: %q\n%q\ncut up: %q\n%q", input, replies, messages, again, same)
		}
	})
}

// pour has a session of one input, which cut cuts into segments, and returns what was said and the contents that were taken.
func (r *rig) pour(t *testing.T, input []byte, cut func(left int) int) (replies string, messages []string) {
	t.Helper()
	r.t = t // of this input
	before, _, _ := r.store.counts()
	c := r.connect()
	heard := make(chan string, 1)
	go func() {
		p, _ := io.ReadAll(c)
		heard <- string(p)
	}()
	for len(input) > 0 {
		n := cut(len(input))
		if _, err := c.Write(input[:n]); err != nil {
			break // the session is over
		}
		if input = input[n:]; len(input) > 0 {
			r.barrier()
		}
	}
	_ = c.CloseWrite()
	replies = receive(t, heard)
	c.Close()
	r.awaitQuiet()
	appended, _, _ := r.store.counts()
	told := queuedAs.FindAllString(replies, -1)
	for range appended - before {
		messages = append(messages, receive(t, r.accepted).content)
	}
	if len(told) != len(messages) {
		t.Errorf("%d messages, and the client heard of %d: %q", len(messages), len(told), replies)
	}
	return queuedAs.ReplaceAllString(replies, "queued as X"), messages
}
