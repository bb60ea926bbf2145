package smtp

import (
	"slices"
	"testing"
)

// upLMTP returns a Client that sent content to two of three recipients by LMTP.
func upLMTP(t testing.TB) *Client {
	c := new(Client)
	c.Init(&ClientConfig{Hello: "out.example.com", LMTP: true})
	for p := []byte(greetings); ; {
		n, ev := c.Feed(p)
		if p = p[n:]; ev == ClientReady {
			break
		}
	}
	if err := c.Begin("a@a", MailParams{}, []string{"b@b", "c@c", "d@d"}); err != nil {
		t.Fatal(err)
	}
	for p := []byte("250 Ok\r\n550 No\r\n250 Ok\r\n250 Ok\r\n354 go\r\n"); ; {
		n, ev := c.Feed(p)
		if p = p[n:]; ev == ClientStart {
			break
		}
	}
	c.EndContent()
	c.Flushed()
	return c
}

// TestLMTPReplies: what is said for each recipient, in shapes that a server should not say it in. Those whom nothing was said of are undecided.
func TestLMTPReplies(t *testing.T) {
	for input, want := range map[string][]ClientEvent{
		"250 a\r\n250 b\r\n":                   {ClientSettled, ClientSettled, ClientDone},
		"250-a\r\n250 a\r\n550-b\r\n550 b\r\n": {ClientSettled, ClientSettled, ClientDone},
		"250 too few\r\n":                      {ClientSettled, ClientNeedInput},
		"250 a\r\n250 b\r\n250 too many\r\n":   {ClientSettled, ClientSettled, ClientDone, ClientFailed},
		"250 a\r\n421 bye\r\n":                 {ClientSettled, ClientGone},
		"421 bye\r\n":                          {ClientGone},
		"250 a\r\nnoise\r\n":                   {ClientSettled, ClientFailed},
		"250-a\r\n550 b\r\n":                   {ClientFailed},
		"354 go\r\n":                           {ClientFailed},
		"250 a\r\n250 b":                       {ClientSettled, ClientNeedInput},
	} {
		c := upLMTP(t)
		if c.CanBegin() || c.Waits() != WaitFinal {
			t.Error("something may go behind the content")
		}
		var got []ClientEvent
		var places []int
		for p := []byte(input); len(got) < len(want); {
			n, ev := c.Feed(p)
			p, got = p[n:], append(got, ev)
			if ev == ClientSettled {
				places = append(places, c.RcptIndex())
			}
		}
		if !slices.Equal(got, want) || !slices.Equal(places, []int{1, 2}[:len(places)]) {
			t.Errorf("%q: %v for %v, want %v", input, got, places, want)
		}
	}
}

func TestLMTPDoesNotAllocate(t *testing.T) {
	c := upLMTP(t)
	to, replies := []string{"b@b", "c@c"}, []byte("250 Ok\r\n250 Ok\r\n250 Ok\r\n354 go\r\n250 Ok\r\n250 Ok\r\n")
	message := func(p []byte) {
		for {
			n, ev := c.Feed(p)
			p = p[n:]
			switch ev {
			case ClientStart:
				c.EndContent()
			case ClientDone:
				if err := c.Begin("a@a", MailParams{}, to); err != nil {
					t.Fatal(err)
				}
				c.Flushed()
				return
			case ClientFailed, ClientGone, ClientNeedInput:
				t.Fatal(ev, c.Err())
			}
		}
	}
	message(replies[len(replies)-len("250 Ok\r\n250 Ok\r\n"):])
	if n := testing.AllocsPerRun(100, func() { message(replies) }); n != 0 {
		t.Errorf("%v allocations per message", n)
	}
}
