package smtp

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"mailrace/proto/message"
)

var update = flag.Bool("update", false, "rewrite the dialogues in testdata")

// session drives a Server as a connection would, and writes down what happens. Its policy: senders and recipients with the local-parts
// "refused" and "later" get 550 and 450, "shed" gets 421, mail of "lowered" gets the priority -1; content that holds "spam" gets 550.
type session struct {
	t       testing.TB
	s       Server
	held    []byte   // what Feed left
	events  []string // without NeedInput; content stands with its EndOfData
	replies []byte
	content []byte
	login   []string // responses of the AUTH under way
	open    bool     // a transaction was begun and has not ended
	over    bool
}

func newSession(t testing.TB, cfg *ServerConfig) *session {
	c := &session{t: t}
	c.s.Init(cfg)
	c.s.Greet()
	c.flush()
	return c
}

func (c *session) flush() {
	c.replies = append(c.replies, c.s.Pending()...)
	c.s.Flushed()
}

// feed presents p behind what is held.
func (c *session) feed(p string) {
	c.held = append(c.held, p...)
	for !c.over {
		presented := bytes.Clone(c.held)
		n, ev := c.s.Feed(presented)
		if n < 0 || n > len(c.held) {
			c.t.Fatalf("%v used up %d of %d octets", ev, n, len(c.held))
		}
		c.held = c.held[n:]
		if ev == NeedInput {
			break
		}
		c.record(ev)
		for i := range presented {
			presented[i] = '#' // nothing may point there any more
		}
	}
	limit := orDefault(c.s.cfg.MaxLine, DefaultMaxLine)
	if c.s.servesAuth() {
		limit = max(limit, maxAuthLine)
	}
	if !c.over && len(c.held) >= limit {
		c.t.Fatalf("%d octets left over", len(c.held))
	}
	c.flush()
}

// note writes an event down.
func (c *session) note(format string, args ...any) {
	c.events = append(c.events, fmt.Sprintf(format, args...))
}

func (c *session) record(ev Event) {
	s := &c.s
	switch ev {
	case Hello:
		c.note("Hello %q valid=%v extended=%v", s.HelloName(), s.HelloValid(), s.Extended())
		s.Offer(testOffer)
		s.Accept()
	case Mail:
		m := s.Mail()
		c.note("Mail %q size=%d 8bit=%v utf8=%v%s%s", m.Path, m.Size, m.Body == Body8Bit, m.SMTPUTF8, notedMail(m), notedWishes(m))
		if c.answer(m.Path) {
			c.open = true
		}
	case Rcpt:
		c.note("Rcpt %q local=%q domain=%q%s", s.Rcpt().Path, s.Rcpt().Local, s.Rcpt().Domain, notedRcpt(s.RcptParams()))
		c.answer(s.Rcpt().Path)
	case Data:
		c.note("Data")
		s.Accept()
	case Auth:
		c.authenticate()
	case Content:
		c.content = append(c.content, s.Content()...)
	case EndOfData:
		c.note("EndOfData size=%d dots=%v %q", s.ContentSize(), s.LeadingDots(), c.content)
		if int64(len(c.content)) != s.ContentSize() {
			c.t.Fatalf("size %d of %d octets", s.ContentSize(), len(c.content))
		}
		if bytes.Contains(c.content, []byte("spam")) {
			s.Refuse(Reply{550, "5.7.1", "We do not want that"})
		} else {
			s.AcceptQueued(1)
		}
		c.ended(ev)
	case Reset:
		c.note("Reset")
		c.ended(ev)
	case Quit, Close:
		c.note("%v", ev)
		c.over = true
		if c.open {
			c.t.Fatalf("%v in a transaction that was not reset", ev)
		}
		if n, again := s.Feed([]byte("NOOP\r\n")); n != 6 || again != ev {
			c.t.Fatalf("after %v: %d, %v", ev, n, again)
		}
	}
}

// testOffer is what the clients of tests are offered.
var testOffer = Offer{MaxMessages: 50, HoldMax: 604800, HoldUntil: 1893456000}

// notedWishes writes down what was said about the delivery.
func notedWishes(m *MailParams) string {
	var b strings.Builder
	if m.Body == BodyBinary {
		b.WriteString(" binary")
	}
	if m.RequireTLS {
		b.WriteString(" requiretls")
	}
	if m.HoldFor != 0 {
		fmt.Fprintf(&b, " for=%d", m.HoldFor)
	}
	if m.HoldUntil != 0 {
		fmt.Fprintf(&b, " until=%d", m.HoldUntil)
	}
	if m.By.Mode != message.ByNone {
		fmt.Fprintf(&b, " by=%d mode=%d trace=%v", m.By.Seconds, m.By.Mode, m.By.Trace)
	}
	if m.Priority != 0 {
		fmt.Fprintf(&b, " priority=%d", m.Priority)
	}
	if len(m.Submitter) > 0 {
		fmt.Fprintf(&b, " submitter=%q", AppendDecodedXtext(nil, m.Submitter))
	}
	return b.String()
}

// notedMail and notedRcpt write down what was said about notifications, decoded.
func notedMail(m *MailParams) string {
	if m.Return == 0 && len(m.EnvID) == 0 {
		return ""
	}
	return fmt.Sprintf(" return=%d envid=%q", m.Return, AppendDecodedXtext(nil, m.EnvID))
}

func notedRcpt(p *RcptParams) string {
	if p.Notify == 0 && len(p.Original) == 0 {
		return ""
	}
	return fmt.Sprintf(" notify=%04b original=%q", p.Notify, AppendDecodedOriginal(nil, p.Original))
}

func (c *session) ended(ev Event) {
	if !c.open {
		c.t.Fatalf("%v without a transaction", ev)
	}
	c.open, c.content = false, c.content[:0]
	if c.s.InTransaction() {
		c.t.Fatalf("in a transaction after %v", ev)
	}
}

// answer answers a question about an address.
func (c *session) answer(path []byte) bool {
	if n, ev := c.s.Feed([]byte("NOOP\r\n")); n != 0 || ev != NeedInput {
		c.t.Fatalf("a question is open, and Feed said %d, %v", n, ev)
	}
	switch local, _, _ := strings.Cut(string(path), "@"); local {
	case "refused":
		c.s.Refuse(Reply{550, "5.1.1", "Nobody here"})
	case "later":
		c.s.Refuse(Reply{450, "4.2.1", "Later"})
	case "shed":
		c.s.Refuse(Reply{421, "4.3.2", "Go away"})
	case "lowered":
		c.s.AcceptChanged(-1)
		return true
	default:
		c.s.Accept()
		return true
	}
	return false
}

// converse runs a whole input, cut into pieces.
func converse(t testing.TB, cfg *ServerConfig, input string, cut func(left int) int) *session {
	c := newSession(t, cfg)
	for len(input) > 0 && !c.over {
		n := cut(len(input))
		c.feed(input[:n])
		input = input[n:]
	}
	return c
}

// converseAnyhow runs input in all ways to cut it, and checks that they make no difference.
func converseAnyhow(t testing.TB, cfg *ServerConfig, input string) *session {
	t.Helper()
	first := converse(t, cfg, input, whole)
	for _, cut := range []func(int) int{bytewise, randomly, randomly, randomly} {
		c := converse(t, cfg, input, cut)
		if got, want := strings.Join(c.events, "\n"), strings.Join(first.events, "\n"); got != want {
			t.Fatalf("input %.500q: events differ by how it is cut:\n%s\n--- whole:\n%s", input, got, want)
		}
		if !bytes.Equal(c.replies, first.replies) {
			t.Fatalf("input %.500q: replies differ by how it is cut:\n%s\n--- whole:\n%s", input, c.replies, first.replies)
		}
	}
	return first
}

// dialogue is a file of testdata: "# comment", "! MaxErrors 3" (configuration), "C: line" sent with CRLF and "c: text" sent without, both
// with Go escapes; then what came of it: "E: event", "S: reply line".
type dialogue struct {
	cfg    ServerConfig
	inputs []string
	golden []byte
}

func readDialogue(t testing.TB, file string, run func(d *dialogue, input string) []byte) (d dialogue, got []byte) {
	golden, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d.cfg.Hostname, d.golden = "mx.example.com", golden
	var out bytes.Buffer
	for line := range strings.Lines(string(golden)) {
		kind, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch kind {
		case "S:", "E:":
			continue
		case "!":
			setLimit(t, &d.cfg, text)
		}
		out.WriteString(line)
		if kind == "C:" || kind == "c:" {
			input := unescape(t, text)
			if kind == "C:" {
				input += "\r\n"
			}
			d.inputs = append(d.inputs, input)
			out.Write(run(&d, input))
		}
	}
	return d, out.Bytes()
}

func setLimit(t testing.TB, cfg *ServerConfig, text string) {
	name, value, _ := strings.Cut(text, " ")
	n, err := strconv.Atoi(value)
	if err != nil {
		t.Fatal(err)
	}
	switch name {
	case "Auth": // 1: offered in clear, 0: under TLS only
		cfg.Auth = []string{"PLAIN", "LOGIN"}
		cfg.AuthClear = cfg.Auth[:n*2]
	case "MaxSize":
		cfg.MaxSize = int64(n)
	case "MendNewlines":
		cfg.MendNewlines = n > 0
	case "MinDeliverBy":
		cfg.MinDeliverBy = int64(n)
	default:
		*map[string]*int{"MaxRecipients": &cfg.MaxRecipients, "MaxLine": &cfg.MaxLine, "MaxErrors": &cfg.MaxErrors, "MaxCommands": &cfg.MaxCommands}[name] = n
	}
}

func unescape(t testing.TB, text string) string {
	s, err := strconv.Unquote(`"` + strings.ReplaceAll(text, `"`, `\"`) + `"`)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s
}

// TestServerDialogues runs the dialogues of testdata/server. With -update it rewrites what the server says in them.
func TestServerDialogues(t *testing.T) {
	files, _ := filepath.Glob("testdata/server/*.dialogue")
	if len(files) == 0 {
		t.Fatal("no dialogues")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".dialogue"), func(t *testing.T) {
			var c *session
			d, got := readDialogue(t, file, func(d *dialogue, input string) []byte {
				var out bytes.Buffer
				if c == nil {
					c = newSession(t, &d.cfg)
				}
				events, replies := len(c.events), len(c.replies)
				if len(d.inputs) == 1 {
					replies = 0 // the greeting
				}
				c.feed(input)
				for _, ev := range c.events[events:] {
					fmt.Fprintf(&out, "E: %s\n", ev)
				}
				for line := range strings.Lines(string(c.replies[replies:])) {
					fmt.Fprintf(&out, "S: %s\n", strings.TrimSuffix(line, "\r\n"))
				}
				return out.Bytes()
			})
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			} else if !bytes.Equal(got, d.golden) {
				t.Errorf("got:\n%s\nwant:\n%s", got, d.golden)
			}
			all := converseAnyhow(t, &d.cfg, strings.Join(d.inputs, ""))
			if strings.Join(all.events, "\n") != strings.Join(c.events, "\n") || !bytes.Equal(all.replies, c.replies) {
				t.Errorf("fed at once it differs:\n%s\n%s", strings.Join(all.events, "\n"), all.replies)
			}
		})
	}
}

// TestPipelinedCommandsHaveOnePending: many commands in one Feed are answered by one write.
func TestPipelinedCommandsHaveOnePending(t *testing.T) {
	var s Server
	s.Init(&ServerConfig{Hostname: "mx.example.com"})
	s.Greet()
	s.Flushed()
	p := []byte("EHLO a.example\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n")
	for {
		n, ev := s.Feed(p)
		p = p[n:]
		if ev == NeedInput {
			break
		}
		s.Accept()
	}
	want := "250-mx.example.com\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-LIMITS RCPTMAX=1000\r\n250-DELIVERBY\r\n250-MT-PRIORITY\r\n" +
		"250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250 ENHANCEDSTATUSCODES\r\n" +
		"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n"
	if string(s.Pending()) != want || len(p) != 0 {
		t.Fatalf("%q left, pending %q", p, s.Pending())
	}
}

// TestBye: the caller may end a session at any time.
func TestBye(t *testing.T) {
	c := newSession(t, &ServerConfig{Hostname: "mx.example.com"})
	c.feed("EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@b.example>\r\nDATA\r\nhalf a mess")
	c.s.Bye(Reply{421, "4.4.2", "Timeout"})
	c.s.Bye(Reply{421, "4.4.2", "Timeout"})
	if got := string(c.s.Pending()); got != "421 4.4.2 Timeout\r\n" {
		t.Errorf("pending %q", got)
	}
	if n, ev := c.s.Feed([]byte("age\r\n")); n != 5 || ev != Close || c.s.InTransaction() {
		t.Errorf("%d, %v, in transaction %v", n, ev, c.s.InTransaction())
	}
}

// TestRefuseData: a refusal of DATA takes the envelope with it, and an answer that nobody asked for does nothing.
func TestRefuseData(t *testing.T) {
	s := greetedServer()
	s.Accept()
	s.AcceptQueued(1)
	s.Refuse(Reply{550, "", "x"})
	p := []byte(messageCommands + "RCPT TO:<b@b>\r\n")
	for answered := ""; ; {
		n, ev := s.Feed(p)
		p = p[n:]
		switch ev {
		case Mail, Rcpt:
			s.Accept()
		case Data:
			s.AcceptQueued(1) // not an answer to this question
			if n, ev := s.Feed(p); n != 0 || ev != NeedInput || !s.InTransaction() || s.Recipients() != 1 {
				t.Fatal(n, ev)
			}
			s.Refuse(Reply{451, "4.3.1", "Full"})
			answered = string(s.Pending())
		case NeedInput:
			if got := string(s.Pending()); got != "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n451 4.3.1 Full\r\n503 5.5.1 Bad sequence of commands\r\n" || answered == "" {
				t.Errorf("%q", got)
			}
			return
		default:
			t.Fatal(ev)
		}
	}
}

// TestRepeatedSessions: a Server is used for one session after another, whatever became of the one before.
func TestRepeatedSessions(t *testing.T) {
	cfg := &ServerConfig{Hostname: "mx.example.com"}
	c := newSession(t, cfg)
	c.feed("EHLO a\r\nMAIL FROM:<a@b> SMTPUTF8\r\nRCPT TO:<b@b>\r\nDATA\r\nx\n")
	if !c.over {
		t.Fatal("bare LF did not end the session")
	}
	c.s.Init(cfg)
	if len(c.s.Pending()) > 0 || c.s.InTransaction() || c.s.Extended() {
		t.Fatal("something is left of the session before")
	}
	c.s.Greet()
	c.over, c.held, c.replies = false, nil, nil
	c.feed("MAIL FROM:<a@b>\r\n")
	if got := string(c.replies); got != "220 mx.example.com ESMTP Mailrace\r\n503 5.5.1 Bad sequence of commands\r\n" {
		t.Errorf("%q", got)
	}
}

// messageCommands is one message of a connection that sends many.
const (
	chunkedCommands = "MAIL FROM:<bounce-123@news.example.com> SIZE=10240\r\nRCPT TO:<someone@recipient.example.net>\r\n"
	messageCommands = chunkedCommands + "DATA\r\n"
)

// serveMessage runs one message through s.
func serveMessage(s *Server, p []byte) {
	for {
		n, ev := s.Feed(p)
		p = p[n:]
		switch ev {
		case NeedInput:
			s.Flushed()
			return
		case EndOfData:
			s.AcceptQueued(123456789)
		case Hello, Mail, Rcpt, Data:
			s.Accept()
		}
	}
}

func greetedServer() *Server {
	s := new(Server)
	s.Init(&ServerConfig{Hostname: "mx.example.com"})
	s.Greet()
	s.Feed([]byte("EHLO client.example.com\r\n"))
	s.Offer(testOffer)
	s.Accept()
	s.Flushed()
	return s
}

func TestServerDoesNotAllocate(t *testing.T) {
	s := greetedServer()
	message := []byte(messageCommands + "Subject: x\r\n\r\n..\r\n.\r\nRSET\r\nNOOP\r\nVRFY x\r\n")
	message = append(message, chunkedCommands+"RSET\r\nMAIL FROM:<a@b> RET=FULL ENVID=a+2Bb\r\nRCPT TO:<c@d> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;c+2Bx@d\r\nRSET\r\n"+
		"MAIL FROM:<a@b> HOLDFOR=5 BY=100;RT MT-PRIORITY=-3\r\nRSET\r\nMAIL FROM:<a@b> HOLDUNTIL=2029-01-01T00:00:00.5Z\r\nRSET\r\nEHLO a\r\nHELP\r\nHELP DATA\r\n"+
		"MAIL FROM:<a@b> BODY=BINARYMIME\r\nRCPT TO:<c@d>\r\nBDAT 3 LAST\r\na\nb"+chunkedCommands+"BDAT 3\r\n.\r\nBDAT 0\r\nBDAT 1 LAST\r\nxBDAT 2\r\nxx"...)
	serveMessage(s, message)
	if n := testing.AllocsPerRun(100, func() { serveMessage(s, message) }); n != 0 {
		t.Errorf("%v allocations per message", n)
	}
}

func BenchmarkServer(b *testing.B) {
	for _, bc := range []struct {
		name, content string
	}{{"commands", ""}, {"message-10KiB", string(lines(10 << 10))}} {
		b.Run(bc.name, func(b *testing.B) {
			benchmarkMessage(b, messageCommands+bc.content+".\r\n")
		})
	}
	b.Run("commands-dsn", func(b *testing.B) {
		benchmarkMessage(b, "MAIL FROM:<bounce-123@news.example.com> RET=HDRS ENVID=campaign+2B77\r\n"+
			"RCPT TO:<someone@recipient.example.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;someone+2Bx@recipient.example.net\r\nDATA\r\n.\r\n")
	})
	b.Run("chunk-10KiB", func(b *testing.B) {
		content := string(lines(10 << 10))
		benchmarkMessage(b, fmt.Sprintf("%sBDAT %d LAST\r\n%s", chunkedCommands, len(content), content))
	})
}

func benchmarkMessage(b *testing.B, input string) {
	s, p := greetedServer(), []byte(input)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		serveMessage(s, p)
	}
}

func FuzzServer(f *testing.F) {
	files, _ := filepath.Glob("testdata/server/*.dialogue")
	for _, file := range files {
		d, _ := readDialogue(f, file, func(*dialogue, string) []byte { return nil })
		f.Add(strings.Join(d.inputs, ""))
	}
	f.Fuzz(func(t *testing.T, input string) {
		for _, mend := range []bool{false, true} {
			c := converseAnyhow(t, &ServerConfig{
				Hostname: "mx.example.com", MaxSize: 1000, MaxLine: 100, MaxErrors: 5, MaxRecipients: 3, MaxCommands: 10, MendNewlines: mend,
			}, input)
			var r ReplyParser
			for p := c.replies; len(p) > 0; {
				n, done, err := r.Parse(p)
				if !done || err != nil {
					t.Fatalf("we say %q, which is no reply: %v", p, err)
				}
				p = p[n:]
			}
		}
	})
}
