package dialog

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"mailrace/bench/console"
)

// peer is a scripted server: it greets, answers each line by the longest entry that the line begins with, and hangs up behind an answer that
// ends in "hangup".
type peer struct {
	answers map[string]string
	t       *testing.T
	tls     *tls.Config // of STARTTLS
	once    bool        // says 421 to all but the first connection
	from    bool        // TLS from the start
}

const hangup = "hangup"

// good is what a well-behaved server says, as far as the tests ask.
func good(more map[string]string) map[string]string {
	answers := map[string]string{
		"greeting": "220 peer.example\r\n", "EHLO": "250-peer.example\r\n250-SIZE 1000\r\n250 AUTH PLAIN\r\n", "MAIL": "250 Ok\r\n", "RCPT": "250 Ok\r\n",
		"DATA": "354 Go\r\n", "RSET": "250 Ok\r\n", "NOOP": "250 Ok\r\n", "QUIT": "221 Bye\r\n" + hangup, "": "500 What\r\n",
	}
	for k, v := range more {
		answers[k] = v
	}
	return answers
}

func (p *peer) listen() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { l.Close() })
	go func() {
		for first := true; ; first = false {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if p.once && !first {
				p.say(conn, "421 4.7.0 Too many\r\n")
				conn.Close()
				continue
			}
			go p.serve(conn)
		}
	}()
	return l.Addr().String()
}

func (p *peer) serve(conn net.Conn) {
	defer func() { conn.Close() }()
	var line []byte
	b := make([]byte, 1)
	if p.from {
		conn = tls.Server(conn, p.tls)
	}
	if p.say(conn, p.answers["greeting"]) {
		return
	}
	for {
		if _, err := conn.Read(b); err != nil {
			return
		}
		if line = append(line, b[0]); b[0] != '\n' {
			continue
		}
		best := ""
		for prefix := range p.answers {
			if len(prefix) > len(best) && strings.HasPrefix(string(line), prefix) {
				best = prefix
			}
		}
		if line = line[:0]; p.say(conn, p.answers[best]) {
			return
		}
		if best == "STARTTLS" {
			conn = tls.Server(conn, p.tls)
		}
	}
}

func (p *peer) say(conn net.Conn, answer string) (over bool) {
	answer, over = strings.CutSuffix(answer, hangup)
	conn.Write([]byte(answer))
	return over
}

// askPeer has one dialog with a scripted server.
func askPeer(t *testing.T, mode Mode, answers map[string]string, source string) Result {
	t.Helper()
	p := &peer{answers: answers, t: t}
	dialogs, err := Parse("t/t", "== d\n"+source)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), Options{Address: p.listen(), Dialogs: dialogs, Mode: mode, Timeout: time.Second, Quiet: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return r.Dialogs[0]
}

// TestExpectations: a server that does not do what a dialog expects is caught, by each kind of expectation; one that does is not.
func TestExpectations(t *testing.T) {
	for name, c := range map[string]struct {
		more   map[string]string
		dialog string
		reason string // "" is ok
	}{
		"code":                     {nil, "C: NOOP\nS: 250", ""},
		"wrong code":               {map[string]string{"NOOP": "251 Ok\r\n"}, "C: NOOP\nS: 250", `line 3: want 250, got "251 Ok"`},
		"alternatives":             {nil, "C: XYZZY\nS: 421 50x", ""},
		"no alternative":           {nil, "C: XYZZY\nS: 421 4xx 501", `line 3: want 421 4xx 501, got "500 What"`},
		"text":                     {nil, "C: NOOP\nS: 250 /k$/", ""},
		"wrong text":               {nil, "C: NOOP\nS: 250 /^Ok/", `want 250 /^Ok/, got "250 Ok"`},
		"silence":                  {map[string]string{"NOOP": ""}, "C: NOOP\nS: nothing", ""},
		"no silence":               {nil, "C: NOOP\nS: nothing", `want nothing, got "250 Ok"`},
		"no reply":                 {map[string]string{"NOOP": ""}, "C: NOOP\nS: 250", "no reply in time"},
		"half a reply":             {map[string]string{"NOOP": "250-Ok\r\n"}, "C: NOOP\nS: 250", "no reply in time"},
		"closed":                   {nil, "C: QUIT\nS: 221\nS: close", ""},
		"not closed":               {map[string]string{"QUIT": "221 Bye\r\n"}, "C: QUIT\nS: 221\nS: close", "want close: no reply in time"},
		"closed instead":           {map[string]string{"NOOP": hangup}, "C: NOOP\nS: 250 close", ""},
		"closed unasked":           {map[string]string{"NOOP": hangup}, "C: NOOP\nS: 250", "want 250: the server closed"},
		"closed behind half":       {map[string]string{"NOOP": "250 O" + hangup}, "C: NOOP\nS: 250 close", "behind a part of a reply: 250 O"},
		"reply before close":       {map[string]string{"QUIT": "221 Bye\r\n250 Ok\r\n" + hangup}, "C: QUIT\nS: 221\nS: close", `want close, got "250 Ok"`},
		"one too many":             {map[string]string{"NOOP": "250 Ok\r\n250 Ok\r\n"}, "C: NOOP\nS: 250", `nobody asked for "250 Ok"`},
		"one too many in between":  {map[string]string{"NOOP": "250 Ok\r\n250 Ok\r\n"}, "C: NOOP\nS: 250\nC: NOOP\nS: 250", `line 5: nobody asked for "250 Ok"`},
		"optional, there":          {map[string]string{"NOOP": "250 Ok\r\n421 Bye\r\n"}, "C: NOOP\nS: 250\nS?: 421", ""},
		"optional, not there":      {nil, "C: NOOP\nS?: 421\nS: 250", ""},
		"optional, another":        {map[string]string{"NOOP": "250 Ok\r\n554 No\r\n"}, "C: NOOP\nS: 250\nS?: 421", `nobody asked for "554 No"`},
		"many":                     {nil, "R: {5*NOOP\\r\\n}\nC: QUIT\nS*: 250\nS: 221", ""},
		"many, a stranger within":  {nil, "C: NOOP\nC: XYZZY\nC: QUIT\nS*: 250\nS: 221", `want 221, got "500 What"`},
		"several codes":            {map[string]string{"NOOP": "250-Ok\r\n251 Ok\r\n"}, "C: NOOP\nS: 25x", "several codes"},
		"bare LF":                  {map[string]string{"NOOP": "250 Ok\n"}, "C: NOOP\nS: 250", "does not end in CRLF"},
		"no reply line":            {map[string]string{"NOOP": "hello\r\n"}, "C: NOOP\nS: 250", "hello is no reply line"},
		"refused before it begins": {map[string]string{"MAIL": "550 No\r\n"}, "start: mail\nC: NOOP\nS: 250", `before the dialog: want 250, got "550 No"`},
	} {
		for _, mode := range []Mode{Whole, Bytes, Segments} {
			t.Run(name+"/"+string(mode), func(t *testing.T) {
				t.Parallel()
				r := askPeer(t, mode, good(c.more), c.dialog)
				switch {
				case c.reason == "" && r.Outcome != Ok:
					t.Errorf("%+v", r)
				case c.reason != "" && (r.Outcome != Failed || !strings.Contains(r.Reason, c.reason) || len(r.Transcript) == 0):
					t.Errorf("%+v", r)
				}
			})
		}
	}
}

// TestNotOffered: what a server does not have is no failure.
func TestNotOffered(t *testing.T) {
	for source, reason := range map[string]string{
		"needs: SIZE\nC: NOOP\nS: 250":              "",
		"needs: CHUNKING\nC: NOOP\nS: 250":          "CHUNKING is not offered",
		"needs: AUTH PLAIN\nC: NOOP\nS: 250":        "",
		"needs: AUTH LOGIN\nC: NOOP\nS: 250":        "AUTH LOGIN is not offered",
		"lacks: SIZE\nC: NOOP\nS: 250":              "SIZE is offered",
		"lacks: CHUNKING\nC: NOOP\nS: 250":          "",
		"C: NOOP {oversize}\nS: 250":                "",
		"start: data\nC: {overlines*x}\nS: nothing": "",
	} {
		if r := askPeer(t, Whole, good(map[string]string{"": ""}), source); r.Reason != reason || (r.Outcome == NotOffered) != (reason != "") {
			t.Errorf("%q: %+v", source, r)
		}
	}
	plain := good(map[string]string{"EHLO": "250 peer.example\r\n", "RCPT": "550 5.7.1 No\r\n"})
	for source, reason := range map[string]string{
		"C: NOOP {oversize}\nS: 250":    "the server gives no oversize",
		"start: rcpt\nC: NOOP\nS: 250":  "the recipient is refused: 550 5.7.1 No",
		"start: mail\nC: NOOP\nS: 250":  "",
		"needs: SIZE\nC: NOOP\nS: 250":  "SIZE is not offered",
		"lacks: SIZE\nC: XYZZY\nS: 500": "",
	} {
		if r := askPeer(t, Whole, plain, source); r.Reason != reason || (r.Outcome == NotOffered) != (reason != "") {
			t.Errorf("%q: %+v", source, r)
		}
	}
}

// TestTLS has dialogs under TLS, from the start and after STARTTLS.
func TestTLS(t *testing.T) {
	certificate := selfSigned(t)
	dialogs, err := Parse("t/t", "== greeting\nstart: connect\nS: 220\n== hello\nC: NOOP\nS: 250\n== data\nstart: data\nC: x\nS: 500\n== half\nC: NOOP\nS: 250\nX: half\nS: close")
	if err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[string]int{"implicit": 4, "starttls": 3} {
		p := &peer{t: t, tls: &tls.Config{Certificates: []tls.Certificate{certificate}}, from: mode == "implicit", answers: good(map[string]string{"STARTTLS": "220 Go\r\n"})}
		r, err := Run(t.Context(), Options{Address: p.listen(), Dialogs: dialogs, TLS: mode, Mode: Segments})
		if err != nil {
			t.Fatal(err)
		}
		if r.Ok != want || r.Failed != 0 {
			t.Errorf("%s: %+v", mode, r)
		}
	}
	for want, answers := range map[string]map[string]string{
		"tls: 454 No":            good(map[string]string{"STARTTLS": "454 No\r\n"}),
		"more in clear behind":   good(map[string]string{"STARTTLS": "220 Go\r\n250-evil\r\n"}),
		"no reply line":          good(map[string]string{"STARTTLS": "Go\r\n"}),
		"tls: EOF":               good(map[string]string{"STARTTLS": hangup}),
		"tls: 554 5.3.2 Not now": good(map[string]string{"greeting": "554 5.3.2 Not now\r\n"}),
	} {
		p := &peer{t: t, answers: answers}
		if _, err := Run(t.Context(), Options{Address: p.listen(), Dialogs: dialogs, TLS: "starttls"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"peer.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestUnaskable: a server that does not come as far as HELO is an error, not a failed dialog.
func TestUnaskable(t *testing.T) {
	for want, answers := range map[string]map[string]string{
		"greeting: 554 No": good(map[string]string{"greeting": "554 No\r\n"}),
		"HELO: 500 What":   good(map[string]string{"EHLO": "500 What\r\n"}),
		"EHLO: the server": good(map[string]string{"EHLO": hangup}),
	} {
		p := &peer{answers: answers, t: t}
		if _, err := Run(t.Context(), Options{Address: p.listen(), Timeout: time.Second}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for want, o := range map[string]Options{"mode": {Mode: "x"}, "tls": {TLS: "x"}, "only": {Only: "("}, "no dialog matches": {Only: "^$"}, "above 0": {Parallel: -1}} {
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestGullible: a server that takes a bare LF for the end of a line, and so of the message, is caught by the smuggling dialogs of that kind.
func TestGullible(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, answers: good(map[string]string{"EHLO": "250 peer.example\r\n", ".\n": "250 Ok\r\n", ".\r\n": "250 Ok\r\n", "Subject": "", "text": "", "smuggled": "", "": ""})}
	var body []Dialog
	for _, d := range all {
		if strings.HasPrefix(d.Name, "smuggling/smuggling/body/") {
			body = append(body, d)
		}
	}
	r, err := Run(t.Context(), Options{Address: p.listen(), Dialogs: body, Timeout: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	caught := make(map[string]bool)
	for _, d := range r.Dialogs {
		caught[d.Name[strings.LastIndexByte(d.Name, '/')+1:]] = d.Outcome == Failed
	}
	for _, id := range []string{"S1", "S5", "S7"} {
		if !caught[id] {
			t.Errorf("%s is not caught", id)
		}
	}
}

// TestTurnedAway: a server that has enough of a client is no server that answers wrongly.
func TestTurnedAway(t *testing.T) {
	dialogs, err := Parse("t/t", "== hello\nC: NOOP\nS: 250\n== connect\nstart: connect\nS: 220\n== content\nstart: connect\nS: 220 421")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{answers: good(nil), t: t, once: true}
	var text, errs bytes.Buffer
	err = Command(t.Context(), Options{Address: p.listen(), Dialogs: dialogs}, console.Output{Stdout: &text, Stderr: &errs})
	if err == nil || !strings.HasPrefix(err.Error(), "2 of 3 dialogs were turned away") {
		t.Error(err)
	}
	for _, want := range []string{"turned away  t/t/hello: 421 4.7.0 Too many\n", "1 ok, 0 failed, 0 not offered, 2 turned away"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%s does not hold %q", text.String(), want)
		}
	}
}

func TestCommand(t *testing.T) {
	dialogs, err := Parse("t/t", "== ok\nC: NOOP\nS: 250\n== bad\nnote: why\nC: NOOP\nS: 251\n== missing\nneeds: CHUNKING\nC: BDAT 0\nS: 250")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{answers: good(nil), t: t}
	o := Options{Address: p.listen(), Dialogs: dialogs}
	var text, structured, errs bytes.Buffer
	if err := Command(t.Context(), o, console.Output{Stdout: &text, Stderr: &errs}); err == nil || err.Error() != "1 of 3 dialogs failed" {
		t.Errorf("%v", err)
	}
	for _, want := range []string{"not offered  t/t/missing: CHUNKING is not offered\n", `failed       t/t/bad: line 7: want 251, got "250 Ok"`, "    note: why\n", `    C: NOOP\r\n`,
		"1 ok, 1 failed, 1 not offered"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%s does not hold %q", text.String(), want)
		}
	}
	if err := Command(t.Context(), o, console.Output{JSON: true, Stdout: &structured, Stderr: &errs}); err == nil {
		t.Error("no error")
	}
	var r Report
	if err := json.Unmarshal(structured.Bytes(), &r); err != nil || r.Ok != 1 || r.Failed != 1 || r.NotOffered != 1 || len(r.Dialogs) != 3 || r.Dialogs[1].Outcome != Failed {
		t.Errorf("%v: %s", err, structured.String())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Command(ctx, o, console.Output{Stdout: &text, Stderr: &errs}); err == nil {
		t.Error("no error when there is no time")
	}
}

// TestPieces: whatever the mode, the writes make up the text, and end where the mode says.
func TestPieces(t *testing.T) {
	p := []byte("ab.\r\nc" + strings.Repeat("x", 100_000) + "\r\n.\r\n")
	for mode, most := range map[Mode]int{Whole: 1, Bytes: 2*fineEdge + 10, Segments: 30} {
		w := &wire{mode: mode}
		var cuts []int
		for i := 0; i < len(p); i = cuts[len(cuts)-1] {
			n := w.piece(p, i)
			if n <= 0 || i+n > len(p) {
				t.Fatalf("%s: %d octets at %d", mode, n, i)
			}
			cuts = append(cuts, i+n)
		}
		if len(cuts) > most {
			t.Errorf("%s: %d writes", mode, len(cuts))
		}
		if mode == Segments && (cuts[0] != 2 || cuts[1] != 3 || cuts[2] != 4 || cuts[3] != 5) {
			t.Errorf("%v", cuts[:4])
		}
	}
}
