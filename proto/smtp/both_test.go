package smtp

import (
	"fmt"
	"strings"
	"testing"

	"mailrace/proto/message"
)

// TestClientMeetsServer: what our client sends, our server takes as it was meant, dots and all, in whatever pieces it travels.
func TestClientMeetsServer(t *testing.T) {
	messages := []outgoing{
		{from: "a@a.example", rcpts: []string{"b@b.example", "refused@b.example"}, content: "one\r\n"},
		{from: "", rcpts: []string{"refused@b.example", "later@b.example"}, content: "nobody gets this\r\n"},
		{from: "refused@a.example", rcpts: []string{"b@b.example"}, content: "nor this\r\n"},
		{from: "ü@a.example", params: MailParams{Size: 20, Body: Body8Bit, SMTPUTF8: true}, rcpts: []string{"b@b.example"}, content: ".\r\n..\r\n\r\n.ü\r\n"},
		{from: "a@a.example", rcpts: []string{`"b c"@[192.0.2.1]`}, content: "spam\r\n"},
		{from: "a@a.example", rcpts: []string{"postmaster"}, content: ""},
		{from: "n@a.example", params: MailParams{Return: message.ReturnFull, EnvID: []byte("a+2Bb")}, rcpts: []string{"c@c", "d@d"},
			notes: []RcptParams{{Notify: message.NotifyNever}, {Notify: message.NotifySuccess | message.NotifyDelay, Original: []byte("rfc822;x+3Dy@d")}}},
		{from: "x@a.example", params: MailParams{Size: 9, Body: BodyBinary, Priority: -7}, rcpts: []string{"b@b.example"}, content: "x\r\n\r\n\x00\n\r."},
		{from: "x@a.example", params: MailParams{Size: 6, Body: BodyBinary}, rcpts: []string{"refused@b.example"}, content: "RSET\r\n"},
		{from: "x@a.example", params: MailParams{Size: 5, Body: BodyBinary}, rcpts: []string{"refused@b.example", "b@b.example"}, content: "end\r\n"},
		{from: "x@a.example", params: MailParams{By: DeliverBy{Seconds: -3, Mode: message.ByNotify, Trace: true}}, rcpts: []string{"b@b.example"}, content: "by data\r\n"},
	}
	want := []string{`5 dots=false "one\r\n"`, `14 dots=true ".\r\n..\r\n\r\n.ü\r\n"`, `6 dots=false "spam\r\n"`, `0 dots=false ""`, `0 dots=false ""`,
		`9 dots=false "x\r\n\r\n\x00\n\r."`, `5 dots=false "end\r\n"`, `9 dots=false "by data\r\n"`}
	for _, cut := range []func(int) int{whole, bytewise, randomly} {
		r, c := newRemote(t, messages), newSession(t, hostileConfig)
		toClient, toServer := 0, 0
		for !r.over {
			if n := len(c.replies) - toClient; n > 0 {
				n = cut(n)
				r.feed(string(c.replies[toClient : toClient+n]))
				toClient += n
			} else if n := len(r.sent) - toServer; n > 0 {
				n = cut(n)
				c.feed(string(r.sent[toServer : toServer+n]))
				toServer += n
			} else {
				t.Fatalf("both wait\n%q\n%q", r.events, c.events)
			}
		}
		var got []string
		for _, ev := range c.events {
			if rest, ok := strings.CutPrefix(ev, "EndOfData size="); ok {
				got = append(got, rest)
			}
		}
		for _, ev := range []string{`Mail "n@a.example" size=0 8bit=false utf8=false return=2 envid="a+b"`, `Rcpt "c@c" local="c" domain="c" notify=0001 original=""`,
			`Rcpt "d@d" local="d" domain="d" notify=1010 original="rfc822;x=y@d"`} {
			if !c.has(ev) {
				t.Errorf("%s is not among %q", ev, c.events)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || c.events[len(c.events)-1] != "Quit" || len(r.sending)+len(r.messages) > 0 {
			t.Fatalf("server saw %q\nclient saw %q", c.events, r.events)
		}
	}
}
