package smtp

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mailrace/proto/message"
)

// TestClientDialogues runs the dialogues of testdata/client: "M:" is a message to send, "S:" a line that the server says, "s:" text without
// line end, "T:" a TLS handshake; "L:" says that LMTP is spoken, "A:" that the client logs in,
// "W:" how many messages are under way by BDAT; then what came of it: "E: event", "C: line sent". With -update it rewrites those.
func TestClientDialogues(t *testing.T) {
	files, _ := filepath.Glob("testdata/client/*.dialogue")
	if len(files) == 0 {
		t.Fatal("no dialogues")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".dialogue"), func(t *testing.T) {
			golden, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, messages, input, r := runClientDialogue(t, golden)
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			} else if !bytes.Equal(got, golden) {
				t.Errorf("got:\n%s\nwant:\n%s", got, golden)
			}
			all := relayAnyhow(t, messages, wayOf(golden), input)
			if strings.Join(all.events, "\n") != strings.Join(r.events, "\n") || !bytes.Equal(all.sent, r.sent) {
				t.Errorf("fed at once it differs:\n%s\n%s", strings.Join(all.events, "\n"), all.sent)
			}
		})
	}
}

// wayOf is how the client of a dialogue speaks.
func wayOf(golden []byte) way {
	window := 0
	if _, after, ok := strings.Cut(string(golden), "\nW: "); ok {
		fmt.Sscan(after, &window)
	}
	return way{window: window, lmtp: strings.Contains(string(golden), "\nL:"), login: strings.Contains(string(golden), "\nA:")}
}

func runClientDialogue(t testing.TB, golden []byte) (got []byte, messages []outgoing, input string, r *remote) {
	var out bytes.Buffer
	for line := range strings.Lines(string(golden)) {
		kind, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if kind == "C:" || kind == "E:" {
			continue
		}
		out.WriteString(line)
		switch kind {
		case "M:":
			messages = append(messages, parseMessage(t, text))
		case "S:", "s:", "T:":
			if r == nil {
				r = newRemoteOf(t, messages, wayOf(golden))
				r.tls = strings.Contains(string(golden), "\nT:")
			}
			said := unescape(t, text)
			if kind == "S:" {
				said += "\r\n"
			}
			events, sent := len(r.events), len(r.sent)
			if kind == "T:" {
				if said = handshake; !r.over {
					r.secure()
				}
			} else {
				r.feed(said)
			}
			input += said
			for _, ev := range r.events[events:] {
				fmt.Fprintf(&out, "E: %s\n", ev)
			}
			for line := range strings.Lines(string(r.sent[sent:])) {
				fmt.Fprintf(&out, "C: %s\n", strings.TrimSuffix(line, "\r\n"))
			}
		}
	}
	return out.Bytes(), messages, input, r
}

const greetings = "220 mx ESMTP\r\n250-mx\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"

// upClient returns a Client that is ready, with what the server offers in offers.
func upClient(t testing.TB, offers string) *Client {
	c := new(Client)
	c.Init(&ClientConfig{Hello: "out.example.com"})
	for p := []byte(offers); ; {
		n, ev := c.Feed(p)
		if p = p[n:]; ev == ClientReady {
			c.Flushed()
			return c
		} else if ev != ClientNeedInput {
			t.Fatal(ev)
		}
	}
}

// TestOwnName: a server with the name of our own is known by its greeting, or by its answer to EHLO.
func TestOwnName(t *testing.T) {
	for greetings, want := range map[string]bool{
		"220 out.example.com ESMTP\r\n250 x\r\n":                                  true,
		"220 x\r\n250-OUT.example.com. hello\r\n250 PIPELINING\r\n":               true,
		"220-out.example.com\r\n220 x\r\n250 x\r\n":                               true,
		"220 x\r\n500 no\r\n250 out.example.com\r\n":                              true,
		"220 x out.example.com\r\n250-x\r\n250 out.example.com\r\n":               false,
		"220 out.example.community\r\n250 mx.out.example.com\r\n":                 false,
		"220-\r\n220 out.example.com\r\n250-\r\n250-out.example.com\r\n250 x\r\n": false,
	} {
		c := new(Client)
		c.Init(&ClientConfig{Hello: "out.example.com", Own: "out.example.com"})
		for p, ev := []byte(greetings), ClientNeedInput; ev != ClientReady; {
			var n int
			if n, ev = c.Feed(p); n == 0 && ev != ClientReady {
				t.Fatalf("%q: %v", greetings, ev)
			}
			p = p[n:]
		}
		if c.Own() != want {
			t.Errorf("%q: %v", greetings, !want)
		}
	}
}

// TestI2CommandWriter: no argument can become more than an argument.
func TestI2CommandWriter(t *testing.T) {
	c := upClient(t, greetings)
	for _, evil := range []string{"a\r\nDATA", "a b", "+0D+0A", "a=b", "+", "\xff", strings.Repeat("x", maxEnvelopeID+1)} {
		if err := c.Begin("a@a", MailParams{EnvID: []byte(evil)}, []string{"b@b"}); err != ErrParameter {
			t.Errorf("ENVID %q: %v", evil, err)
		}
		if err := c.Begin("a@a", MailParams{}, []string{"b@b"}, RcptParams{Original: []byte("rfc822;" + strings.Repeat(evil, 5))}); err != ErrParameter {
			t.Errorf("ORCPT %q: %v", evil, err)
		}
	}
	for _, p := range [][]RcptParams{{{Notify: 3}}, {{Notify: 16}}, {{}, {}}, {{Original: []byte("utf-8;\xc3\xbc@b")}}, {{Original: []byte("b@b")}}} {
		if err := c.Begin("a@a", MailParams{}, []string{"b@b"}, p...); err != ErrParameter {
			t.Errorf("%+v: %v", p, err)
		}
	}
	bad := []string{"a@b\r\nDATA", "a\r@b", "a@b\n", "a\x00@b", "a@b> NOTIFY=NEVER <c@d", "a@b>", "<a@b>", "a b@c", "\"a\r\n\"@b", "@r:a@b", "a", "a@", "ü@b", "a@b\x7f"}
	for _, addr := range append(bad, "postmaster") {
		var ae *AddressError
		if err := c.Begin(addr, MailParams{}, []string{"b@b"}); !errors.As(err, &ae) || ae.Index != -1 {
			t.Errorf("from %q: %v", addr, err)
		}
	}
	for _, addr := range append(bad, "") {
		var ae *AddressError
		if err := c.Begin("a@a", MailParams{}, []string{"b@b", addr}); !errors.As(err, &ae) || ae.Index != 1 {
			t.Errorf("rcpt %q: %v", addr, err)
		}
	}
	if len(c.Pending()) > 0 || !c.CanBegin() {
		t.Fatalf("queued: %q", c.Pending())
	}
	if err := c.Begin("ü@a", MailParams{SMTPUTF8: true}, []string{"ü@b", "postmaster"}); err != nil {
		t.Error(err)
	}
	if want := "MAIL FROM:<ü@a> SMTPUTF8\r\nRCPT TO:<ü@b>\r\nRCPT TO:<postmaster>\r\nDATA\r\n"; string(c.Pending()) != want {
		t.Errorf("queued %q", c.Pending())
	}
	var hello Client
	hello.Init(&ClientConfig{Hello: "a\r\nMAIL"})
	if _, ev := hello.Feed([]byte("220 mx\r\n")); ev != ClientFailed || hello.Err() != ErrHelloName || len(hello.Pending()) > 0 {
		t.Errorf("%v, %v, queued %q", ev, hello.Err(), hello.Pending())
	}
}

// TestI15NothingThatTheServerCannotTake: 8-bit content and addresses are not sent raw to a server that does not offer to take them.
func TestI15NothingThatTheServerCannotTake(t *testing.T) {
	plain, all := upClient(t, "220 mx\r\n250 mx\r\n"), upClient(t, greetings)
	for _, tc := range []struct {
		c    *Client
		p    MailParams
		want error
	}{{plain, MailParams{Body: Body8Bit}, ErrNeeds8BitMIME}, {plain, MailParams{SMTPUTF8: true}, ErrNeedsSMTPUTF8}, {all, MailParams{Size: 1001}, ErrTooLarge}} {
		if err := tc.c.Begin("a@a", tc.p, []string{"b@b"}); err != tc.want {
			t.Errorf("%+v: %v, want %v", tc.p, err, tc.want)
		}
	}
	if err := all.Begin("a@a", MailParams{Size: 1000, Body: Body8Bit}, []string{"b@b"}); err != nil || !strings.HasPrefix(string(all.Pending()), "MAIL FROM:<a@a> SIZE=1000 BODY=8BITMIME\r\n") {
		t.Errorf("%v, %q", err, all.Pending())
	}
	if err := plain.Begin("a@a", MailParams{Size: 1000}, []string{"b@b"}); err != nil || string(plain.Pending()) != "MAIL FROM:<a@a>\r\n" {
		t.Errorf("%v, %q", err, plain.Pending())
	}
}

// TestClientNotReady: what is not the time for anything leaves no trace.
func TestClientNotReady(t *testing.T) {
	var c Client
	c.Init(&ClientConfig{Hello: "out.example.com"})
	if c.CanBegin() || c.Begin("a@a", MailParams{}, []string{"b@b"}) != ErrNotReady || c.Reset() || c.Quit() || len(c.Pending()) > 0 {
		t.Errorf("before the greeting: queued %q", c.Pending())
	}
	u := upClient(t, greetings)
	if u.Begin("a@a", MailParams{}, nil) != ErrNotReady || u.Begin("a@a", MailParams{}, []string{"b@b"}) != nil {
		t.Error("Begin")
	}
	u.Flushed()
	u.EndContent()
	if u.CanBegin() || u.Reset() || u.Quit() || len(u.Pending()) > 0 {
		t.Errorf("under way: queued %q", u.Pending())
	}
}

func TestClientReset(t *testing.T) {
	c := upClient(t, greetings)
	if !c.Reset() || c.CanBegin() || c.Reset() || string(c.Pending()) != "RSET\r\n" {
		t.Fatalf("%q", c.Pending())
	}
	if _, ev := c.Feed([]byte("250 Ok\r\n")); ev != ClientReady || !c.CanBegin() {
		t.Error(ev)
	}
	if _, ev := c.Feed([]byte("250 Ok\r\n")); ev != ClientFailed || c.Err() != ErrUnexpectedReply {
		t.Error(ev, c.Err())
	}
	if n, ev := c.Feed([]byte("250 Ok\r\n")); ev != ClientGone || n != 8 {
		t.Error(n, ev)
	}
}

// TestAnswerInMidContent: a server that answers before the content has ended is out of step. What it said can be read, and a refusal is of the message.
func TestAnswerInMidContent(t *testing.T) {
	for reply, want := range map[string]ClientEvent{
		"550 5.5.2 bare <LF>\r\n": ClientDone, "451 later\r\n": ClientDone, "421 bye\r\n": ClientGone, "250 ok\r\n": ClientFailed, "354 go\r\n": ClientFailed,
	} {
		c := upClient(t, greetings)
		if err := c.Begin("a@a", MailParams{}, relayedTo); err != nil {
			t.Fatal(err)
		}
		p := []byte("250 ok\r\n250 ok\r\n354 go\r\n" + reply)
		for n, ev := c.Feed(p); ev != ClientStart; n, ev = c.Feed(p) {
			p = p[n:]
		}
		left := 1
		if want == ClientDone {
			left = 0
		}
		if _, ev := c.Feed([]byte(reply)); ev != want || c.Outstanding() != left || !strings.HasPrefix(reply, c.Reply().String()) {
			t.Errorf("%q: %v, %v", reply, ev, c.Reply())
		}
		if _, ev := c.Feed([]byte("250 ok\r\n")); ev != ClientGone || c.CanBegin() || c.Quit() {
			t.Errorf("%q: it goes on with %v", reply, ev)
		}
	}
}

// TestGoodbyeToContent: 421 to the end of data is an answer: the message was not taken. What stands behind was not looked at. RFC 5321 §3.8
func TestGoodbyeToContent(t *testing.T) {
	c := upClient(t, greetings)
	begin := func() {
		if err := c.Begin("a@a", MailParams{}, relayedTo); err != nil {
			t.Fatal(err)
		}
	}
	begin()
	for rest := []byte("250 ok\r\n250 ok\r\n354 go\r\n"); len(rest) > 0; {
		n, _ := c.Feed(rest)
		rest = rest[n:]
	}
	c.EndContent()
	begin()
	p := []byte("421 4.7.28 bye\r\n")
	if n, ev := c.Feed(p); n != len(p) || ev != ClientGone || c.Outstanding() != 2 || c.Undecided() != 0 {
		t.Error(n, ev, c.Outstanding(), c.Undecided())
	}
}

// relayed is one message of a connection that sends many: what the server says to it, with the answer to the message before in front.
const relayed = "250 2.0.0 Ok: queued as 0000000000001\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 go\r\n"

var relayedTo = []string{"someone@recipient.example.net"}

// relayMessage runs one message through c, whose message before waits for its answer.
func relayMessage(t testing.TB, c *Client, replies []byte) {
	for p := replies; ; {
		n, ev := c.Feed(p)
		p = p[n:]
		switch ev {
		case ClientNeedInput:
			c.Flushed()
			return
		case ClientStart:
			c.EndContent()
			if err := c.Begin("bounce-123@news.example.com", MailParams{Size: 900}, relayedTo); err != nil {
				t.Fatal(err)
			}
		case ClientDone, ClientMail, ClientRcpt:
		default:
			t.Fatal(ev, c.Err())
		}
	}
}

func relayingClient(t testing.TB) *Client {
	c := upClient(t, greetings)
	if err := c.Begin("a@a", MailParams{}, relayedTo); err != nil {
		t.Fatal(err)
	}
	relayMessage(t, c, []byte("250 Ok\r\n250 Ok\r\n354 go\r\n"))
	return c
}

func TestClientDoesNotAllocate(t *testing.T) {
	c := relayingClient(t)
	replies := []byte(relayed)
	if n := testing.AllocsPerRun(100, func() { relayMessage(t, c, replies) }); n != 0 {
		t.Errorf("%v allocations per message", n)
	}
}

// TestWindowDoesNotAllocate: once its ring is as long as the window, whole messages cost nothing.
func TestWindowDoesNotAllocate(t *testing.T) {
	const window = 20
	c := upClient(t, "220 mx\r\n250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
	if !c.UseChunks(window) {
		t.Fatal("no chunks")
	}
	fill := func() (begun int) {
		for ; c.CanBegin(); begun++ {
			if err := c.Begin("bounce-123@news.example.com", MailParams{Size: 900}, relayedTo); err != nil {
				t.Fatal(err)
			}
			c.EndContent()
		}
		c.Flushed()
		return begun
	}
	if n := fill(); n != window || c.Outstanding() != window {
		t.Errorf("%d messages are under way", n)
	}
	answered, replies := 0, []byte("250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.0.0 Ok: queued\r\n250 2.0.0 Reset\r\n")
	message := func() {
		for p := replies; ; {
			n, ev := c.Feed(p)
			p = p[n:]
			switch ev {
			case ClientNeedInput:
				if n := fill(); n != 1 {
					t.Fatalf("%d more messages", n)
				}
				return
			case ClientDone:
				answered++
			case ClientMail, ClientRcpt:
			default:
				t.Fatal(ev, c.Err())
			}
		}
	}
	for range 3 * window { // around the ring
		message()
	}
	if n := testing.AllocsPerRun(100, message); n != 0 || answered < 4*window {
		t.Errorf("%v allocations per message, %d answered", n, answered)
	}
}

func BenchmarkClient(b *testing.B) {
	c := relayingClient(b)
	replies := []byte(relayed)
	b.ReportAllocs()
	for b.Loop() {
		relayMessage(b, c, replies)
	}
}

func BenchmarkAppendStuffed(b *testing.B) {
	content := lines(10 << 10)
	dst := make([]byte, 0, 2*len(content))
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		AppendStuffed(dst, content, true)
	}
}

// TestChunkRefusedEarly: an answer to a chunk that is still on its way ends the session, behind what it decided.
func TestChunkRefusedEarly(t *testing.T) {
	const offers = "220 mx\r\n250-mx\r\n250-CHUNKING\r\n250-PIPELINING\r\n250 BINARYMIME\r\n"
	for reply, want := range map[string][]ClientEvent{
		"250 Ok\r\n250 Ok\r\n552 5.3.4 Too large\r\n":   {ClientMail, ClientRcpt, ClientDone, ClientGone},
		"250 Ok\r\n550 Unknown\r\n554 For nobody\r\n":   {ClientMail, ClientRcpt, ClientDataRefused, ClientGone},
		"250 Ok\r\n250 Ok\r\n250 Thank you already\r\n": {ClientMail, ClientRcpt, ClientFailed},
	} {
		c := upClient(t, offers)
		if err := c.Begin("a@a", MailParams{Body: BodyBinary, Size: 10}, []string{"b@b"}); err != nil {
			t.Fatal(err)
		}
		if c.CanBegin() || c.Quit() {
			t.Error("the content is under way, and something else may go")
		}
		c.Flushed()
		var got []ClientEvent
		for p := []byte(reply); len(got) < len(want); {
			n, ev := c.Feed(p)
			p, got = p[n:], append(got, ev)
		}
		if !slices.Equal(got, want) || len(c.Pending()) > 0 {
			t.Errorf("%q: %v, want %v; queued %q", reply, got, want, c.Pending())
		}
	}
}

func FuzzClient(f *testing.F) { fuzzClient(f, way{login: true}) }

// FuzzWindowClient is FuzzClient with messages one behind the other.
func FuzzWindowClient(f *testing.F) { fuzzClient(f, way{window: 3}) }

// FuzzLMTPClient is FuzzClient for LMTP.
func FuzzLMTPClient(f *testing.F) { fuzzClient(f, way{lmtp: true}) }

func fuzzClient(f *testing.F, w way) {
	files, _ := filepath.Glob("testdata/client/*.dialogue")
	for _, file := range files {
		golden, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		_, _, input, _ := runClientDialogue(f, golden)
		f.Add(input)
	}
	messages := []outgoing{
		{from: "a@a.example", rcpts: []string{"b@b.example", "c@c.example"}, content: "one\r\n"},
		{from: "", rcpts: []string{"d@d.example"}, params: MailParams{Size: 6, Body: Body8Bit}, content: ".two\r\n"},
		{from: "e@e.example", rcpts: []string{"f@f.example", "g@g.example", "h@h.example"}, content: ""},
		{from: "i@i.example", rcpts: []string{"j@j.example", "k@k.example"}, params: MailParams{Size: 5, Body: BodyBinary, RequireTLS: true}, content: ".\n.\r\n"},
		{from: "n@n.example", rcpts: []string{"o@o.example"}, params: MailParams{Size: 6}, content: "four\r\n"},
		{from: "p@p.example", rcpts: []string{"q@q.example", "r@r.example"}, params: MailParams{Size: 6}, content: ".\r\n.\r\n"},
		{from: "l@l.example", rcpts: []string{"m@m.example"}, params: MailParams{By: DeliverBy{Seconds: 60, Mode: message.ByReturn}, Priority: -1}, content: "three\r\n"},
	}
	f.Fuzz(func(t *testing.T, input string) {
		r := relayAnyhow(t, messages, w, input)
		for line := range strings.Lines(string(r.sent)) {
			if line == ".\n" { // of the content that goes by BDAT
				continue
			}
			if !strings.HasSuffix(line, "\r\n") || controlIn([]byte(line[:len(line)-2])) != noControl {
				t.Fatalf("sent %q", line)
			}
		}
	})
}
