package smtp

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"mailrace/proto/message"
)

// outgoing is a message for the test's client to send.
type outgoing struct {
	from    string
	params  MailParams
	rcpts   []string
	content string
	notes   []RcptParams
}

// remote drives a Client as a connection would: it sends its messages one after another as soon as CanBegin allows, then quits, and writes
// down what happens.
type remote struct {
	t        testing.TB
	c        Client
	messages []outgoing // not begun
	sending  []outgoing // begun and not ended, the oldest first
	held     []byte
	events   []string
	sent     []byte
	answered int  // recipients of the oldest transaction that got an answer
	tls      bool // STARTTLS is used where it is offered
	login    bool // AUTH is to be used where it is offered
	window   int  // content goes by BDAT where the server can, with so many messages under way; 0 = by DATA
	settled  int  // recipients of the oldest transaction that were told of behind the content
	over     bool
}

func newRemote(t testing.TB, messages []outgoing) *remote { return newRemoteOf(t, messages, way{}) }

// way is how a test's client speaks.
type way struct {
	lmtp  bool
	login bool // AUTH is used where it is offered
	// window is how many messages are under way by BDAT; 0 = content goes by DATA.
	window int
}

func newRemoteOf(t testing.TB, messages []outgoing, w way) *remote {
	r := &remote{t: t, messages: messages, login: w.login, window: w.window}
	r.c.Init(&ClientConfig{Hello: "out.example.com", LMTP: w.lmtp})
	return r
}

func (r *remote) note(format string, args ...any) {
	r.events = append(r.events, fmt.Sprintf(format, args...))
}

func (r *remote) feed(p string) {
	r.held = append(r.held, p...)
	for !r.over {
		presented := bytes.Clone(r.held)
		n, ev := r.c.Feed(presented)
		if n < 0 || n > len(r.held) {
			r.t.Fatalf("%v used up %d of %d octets", ev, n, len(r.held))
		}
		r.held = r.held[n:]
		if ev == ClientNeedInput {
			break
		}
		r.record(ev)
		r.pump()
		for i := range presented {
			presented[i] = '#'
		}
	}
	if !r.over && len(r.held) >= MaxReplyLine {
		r.t.Fatalf("%d octets left over", len(r.held))
	}
	r.flush()
}

func (r *remote) flush() {
	r.sent = append(r.sent, r.c.Pending()...)
	r.c.Flushed()
}

// pump begins what may begin.
func (r *remote) pump() {
	for len(r.messages) > 0 && r.c.CanBegin() {
		m := r.messages[0]
		r.messages = r.messages[1:]
		before := len(r.c.Pending())
		if err := r.c.Begin(m.from, m.params, m.rcpts, m.notes...); err != nil {
			r.note("Begin: %v", err)
			if len(r.c.Pending()) != before {
				r.t.Fatalf("%v, and %q is queued", err, r.c.Pending()[before:])
			}
			continue
		}
		r.sending = append(r.sending, m)
		if (m.params.Body == BodyBinary || r.chunks(m)) && r.c.Extensions().Has(ExtPipelining) {
			r.write(m.content)
		}
		if r.window > 0 && r.c.Outstanding() > max(r.window, 2) {
			r.t.Fatalf("%d messages are under way", r.c.Outstanding())
		}
	}
	if len(r.messages) == 0 && r.c.Outstanding() == 0 {
		r.c.Quit()
	}
	if r.c.Outstanding() != len(r.sending) && !r.over {
		r.t.Fatalf("%d transactions are under way, the machine says %d", len(r.sending), r.c.Outstanding())
	}
}

func (r *remote) record(ev ClientEvent) {
	switch ev {
	case ClientReady:
		r.note("Ready extensions=%05b size=%d", r.c.Extensions(), r.c.MaxSize())
		if l := r.c.Limits(); l != (Limits{}) || r.c.MinDeliverBy() != 0 {
			r.note("Limits %+v by=%d", l, r.c.MinDeliverBy())
		}
		if r.window > 0 {
			r.note("UseChunks %v", r.c.UseChunks(r.window))
		}
		if r.tls && r.c.StartTLS() && (r.c.CanBegin() || r.c.StartTLS() || r.c.Quit()) {
			r.t.Fatal("STARTTLS is under way, and something else may go")
		}
		r.logIn()
	case ClientChallenge:
		r.note("Challenge %q", r.c.Challenge())
		response := []byte("answer")
		if string(r.c.Challenge()) == "give up" {
			response = nil
		}
		r.c.AuthResponse(response)
	case ClientRcpt:
		if r.c.RcptIndex() != r.answered || r.answered >= len(r.sending[0].rcpts) {
			r.t.Fatalf("answer %d is for recipient %d", r.answered, r.c.RcptIndex())
		}
		r.answered++
		r.note("Rcpt %d: %v", r.c.RcptIndex(), r.c.Reply())
	case ClientStart:
		r.note("Start accepted=%d: %v", r.c.Accepted(), r.c.Reply())
		if r.c.Accepted() == 0 {
			r.t.Fatal("content for nobody")
		}
		if m := r.sending[0]; m.params.Body == BodyBinary {
			r.write(m.content)
		} else {
			content, _ := AppendStuffed(nil, []byte(m.content), true)
			r.write(string(content))
		}
	case ClientSettled:
		r.note("Settled %d: %v", r.c.RcptIndex(), r.c.Reply())
		if r.settled++; r.settled > r.c.Accepted() {
			r.t.Fatalf("%d replies for %d recipients", r.settled, r.c.Accepted())
		}
	case ClientDone, ClientDataRefused:
		r.note("%v: %v", ev, r.c.Reply())
		r.sending, r.answered, r.settled = r.sending[1:], 0, 0
	case ClientHandshake: // see secure
	case ClientFailed:
		r.note("Failed: %v", r.c.Err())
		r.over = true
	case ClientGone:
		r.note("Gone: %v", r.c.Reply())
		if r.window > 0 {
			r.note("Undecided %d of %d", r.c.Undecided(), r.c.Outstanding())
		}
		r.over = true
	default:
		r.note("%v: %v", ev, r.c.Reply())
	}
}

// logIn begins AUTH, once.
func (r *remote) logIn() {
	if !r.login {
		return
	}
	if r.c.Auth(SASLPlain, []byte("\x00u\x00p")) || r.c.Auth(SASLOAuthBearer, []byte{}) || r.c.Auth(SASLLogin, nil) {
		if r.login = false; r.c.CanBegin() || r.c.Auth(SASLPlain, nil) || r.c.StartTLS() || r.c.Quit() || r.c.Waits() != WaitReply {
			r.t.Fatal("AUTH is under way, and something else may go")
		}
	}
}

// chunks says whether m goes by BDAT although it need not.
func (r *remote) chunks(m outgoing) bool {
	return r.window > 0 && m.params.Size > 0 && !r.c.cfg.LMTP && r.c.Extensions().Has(ExtChunking|ExtPipelining)
}

// write sends content behind what is pending.
func (r *remote) write(content string) {
	r.flush()
	r.sent = append(r.sent, content...)
	r.c.EndContent()
}

// secure is the TLS handshake.
func (r *remote) secure() {
	r.note("Handshake")
	r.c.Secured()
	r.flush()
}

// handshake parts what the server says in clear from what it says under TLS.
const handshake = "\x16"

func relay(t testing.TB, messages []outgoing, w way, input string, cut func(left int) int) *remote {
	clear, secret, secured := strings.Cut(input, handshake)
	r := newRemoteOf(t, messages, w)
	r.tls = secured
	for _, input := range []string{clear, secret} {
		for len(input) > 0 && !r.over {
			n := cut(len(input))
			r.feed(input[:n])
			input = input[n:]
		}
		if secured && !r.over {
			r.secure()
			secured = false
		}
	}
	return r
}

// relayAnyhow runs input in all ways to cut it, and checks that they make no difference.
func relayAnyhow(t testing.TB, messages []outgoing, w way, input string) *remote {
	t.Helper()
	first := relay(t, messages, w, input, whole)
	for _, cut := range []func(int) int{bytewise, randomly, randomly, randomly} {
		r := relay(t, messages, w, input, cut)
		if got, want := strings.Join(r.events, "\n"), strings.Join(first.events, "\n"); got != want || !bytes.Equal(r.sent, first.sent) {
			t.Fatalf("input %.500q: differs by how it is cut:\n%s\n%s\n--- whole:\n%s\n%s", input, got, r.sent, want, first.sent)
		}
	}
	return first
}

// parseMessage reads "from | rcpt rcpt | parameters | content" of a dialogue, behind which the parameters of each recipient may stand, with " | "
// between.
func parseMessage(t testing.TB, text string) outgoing {
	parts := strings.Split(unescape(t, text), " | ")
	m := outgoing{from: parts[0], rcpts: strings.Split(parts[1], " "), content: parts[3]}
	if rest := m.wishes(parts[2]); rest != "-" && m.params.parse([]byte(rest), ^mailParam(0)) != "" {
		t.Fatalf("parameters %q", rest)
	}
	for _, rest := range parts[4:] {
		var p RcptParams
		if rest != "-" && p.parse([]byte(rest), m.params.SMTPUTF8) != "" {
			t.Fatalf("parameters %q", rest)
		}
		m.notes = append(m.notes, p)
	}
	return m
}

// wishes takes those parameters out of a list that only a client meets in this form.
func (m *outgoing) wishes(list string) (rest string) {
	var others []string
	for _, word := range strings.Fields(list) {
		var mode byte
		switch {
		case word == "BODY=BINARYMIME":
			m.params.Body, m.params.Size = BodyBinary, int64(len(m.content))
		case word == "REQUIRETLS":
			m.params.RequireTLS = true
		case strings.HasPrefix(word, "BY="):
			fmt.Sscanf(word, "BY=%d;%c", &m.params.By.Seconds, &mode)
			m.params.By.Mode = map[byte]message.ByMode{'R': message.ByReturn, 'N': message.ByNotify}[mode]
			m.params.By.Trace = strings.HasSuffix(word, "T")
		case strings.HasPrefix(word, "MT-PRIORITY="):
			fmt.Sscanf(word, "MT-PRIORITY=%d", &m.params.Priority)
		default:
			others = append(others, word)
		}
	}
	return strings.Join(others, " ")
}
