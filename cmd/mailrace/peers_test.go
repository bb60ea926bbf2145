package main

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailrace/bench/sink"
)

// mta is somebody else's MTA as a test runs it: it takes mail under TLS for far.example, home.example and example.net from everybody, for auth.example
// from the user "u" with the password "secret", and hands everything on to the next host, under TLS. nobody@far.example is unknown to it, mail for
// later@far.example is put off, and messages may have 5,000,000 octets.
type mta struct {
	*process
	dir     string // its own
	address string
	log     string // file; "" = standard error
}

// mtaSetup is what an MTA is configured by.
type mtaSetup struct {
	dir        string // of its own, that every user can get into
	host, port string // where it listens
	chain, key string
	nextHost   string
	nextPort   string
}

// peerMTA is one kind of MTA.
type peerMTA struct {
	name      string
	start     func(t *testing.T, s *mtaSetup) *mta
	chunked   *regexp.Regexp // what its log says of content by BDAT; nil = it does not offer that
	smtpUTF8  bool           // it offers SMTPUTF8
	mechanism string         // of AUTH, what is used
}

var peerMTAs = []peerMTA{
	{"postfix", startPostfix, regexp.MustCompile(` bdat=\d`), true, "SCRAM-SHA-256"},
	{"exim", startExim, regexp.MustCompile(` <= .* P=\S*esmtps\S* .* K `), true, "PLAIN"},
	{"opensmtpd", startOpenSMTPD, nil, false, "LOGIN"},
}

// peerDir is where .ci/deps unpacks a Debian package.
func peerDir(t *testing.T, pkg string) string {
	t.Helper()
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("mailrace-test-peers-%d", os.Getuid()), pkg)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("NOT TESTED against %s: .ci/deps did not unpack it: %v", pkg, err)
	}
	return dir
}

// run starts an MTA, as a program with arguments, and waits until it takes connections. It ends with the test.
func (s *mtaSetup) run(t *testing.T, log string, args ...string) *mta {
	t.Helper()
	m := &mta{dir: s.dir, address: s.host + ":" + s.port, log: log}
	m.process = run(t, nil, args[0], args[1:]...)
	t.Cleanup(m.end)
	await(t, args[len(args)-1], func() (bool, string) {
		select {
		case <-m.exited:
			t.Fatalf("%v: %v\n%s", args, m.err, m.said())
		default:
		}
		conn, err := net.Dial("tcp", m.address)
		if err != nil {
			return false, err.Error() + "\n" + m.said()
		}
		conn.Close()
		return true, ""
	})
	return m
}

// end ends it with its children.
func (m *mta) end() {
	m.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-m.exited:
	case <-time.After(patience):
		m.t.Errorf("%v does not end", m.cmd.Args)
	}
}

// said is its log so far.
func (m *mta) said() string {
	if m.log == "" {
		return m.output()
	}
	log, _ := os.ReadFile(m.log)
	return m.output() + string(log)
}

// mtaChain is a node, an MTA, and a node behind it, each of which hands everything on to the next over TLS, with sinks at the end.
type mtaChain struct {
	t           *testing.T
	kind        *peerMTA
	first, last *node
	dir         string // of the first
	mta         *mta
	secure      bool   // the MTA is able to make TLS handshakes
	far, home   string // what arrived: for home.example, and for others
	box         string // the mailbox of ok@box.example
}

func newChain(t *testing.T, kind *peerMTA) *mtaChain {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skipf("NOT TESTED against %s: it must be started by root, who has users for its parts", kind.name)
	}
	dir := t.TempDir()
	c := &mtaChain{t: t, kind: kind, dir: filepath.Join(dir, "first"), far: filepath.Join(dir, "far"), home: filepath.Join(dir, "home")}
	far, home := receiver(t, sink.Options{Store: c.far}), receiver(t, sink.Options{Store: c.home})
	c.box = filepath.Join(dir, "box")
	toHome := fmt.Sprintf("[queue]\nretry_min = \"1h\"\n[dsn]\ngather = \"0s\"\n[[route]]\ndomains = [\"home.example\"]\nto = \"smtp://%s\"\n", home.Addr())
	ca := newAuthority(t, dir)
	for _, d := range []string{c.dir, filepath.Join(dir, "last")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	chain, key := ca.issue("IP:127.0.0.1")
	c.last = serve(t, configOf(filepath.Join(dir, "last"), "127.0.0.1:0", "smtp://"+far.Addr(),
		fmt.Sprintf("[tls]\ncertificates = [{ chain = %q, key = %q }]\n", chain, key)+toHome+
			fmt.Sprintf("[[route]]\ndomains = [\"box.example\"]\nto = \"maildir://%s\"\n", c.box)))
	s := &mtaSetup{dir: commonDir(t, kind.name)}
	s.host, s.port, _ = strings.Cut(lonePorts(t, 1)[0], ":")
	s.nextHost, s.nextPort, _ = strings.Cut(c.last.smtp, ":")
	s.chain, s.key = ca.issue("IP:"+s.host, "rsa:2048")
	s.chain, s.key = s.copy(t, s.chain), s.copy(t, s.key)
	c.mta = kind.start(t, s)
	to := "smtp://" + c.mta.address
	c.secure = shakesHands(c.mta.address, ca.chain)
	if !c.secure { // OpenSMTPD 6.8 of Debian 12 offers STARTTLS, and fails at it under OpenSSL 3
		t.Logf("%s fails at TLS with OpenSSL's own client, too: it must get its mail in clear, and AUTH is not tested", kind.name)
		c.first = serve(t, configOf(c.dir, "127.0.0.1:0", to, toHome))
		return c
	}
	more := ""
	for domain, password := range map[string]string{"auth.example": "secret", "wrong.example": "other"} {
		file := write(t, c.dir, domain, password)
		if err := os.Chmod(file, 0o600); err != nil {
			t.Fatal(err)
		}
		more += fmt.Sprintf("[[route]]\ndomains = [%q]\nto = %q\ntls = \"verified\"\nuser = \"u\"\npassword = \"file:%s\"\nmechanism = %q\n", domain, to, file, kind.mechanism)
	}
	c.first = serve(t, ca.verified(configOf(c.dir, "127.0.0.1:0", to, toHome+more), to))
	return c
}

// shakesHands says whether openssl comes to terms with a server.
func shakesHands(address, ca string) bool {
	out, err := exec.Command("openssl", "s_client", "-starttls", "smtp", "-connect", address, "-CAfile", ca, "-verify_return_error").CombinedOutput()
	return err == nil && !strings.Contains(string(out), "alert")
}

// commonDir makes a directory that every user can get into, unlike those of t.TempDir.
func commonDir(t *testing.T, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", name+"-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// copy copies a file into the directory of the MTA, for its user alone who is root.
func (s *mtaSetup) copy(t *testing.T, from string) string {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(s.dir, filepath.Base(from))
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}

// send hands a message in at the first node.
func (c *mtaChain) send(mail, content string, rcpts ...string) {
	c.t.Helper()
	d := dialSMTP(c.t, c.first.smtp)
	d.say("EHLO client.example", 250)
	d.say("MAIL FROM:"+mail, 250)
	for _, to := range rcpts {
		d.say("RCPT TO:"+to, 250)
	}
	d.say("DATA", 354)
	d.say(strings.ReplaceAll("\r\n"+content, "\r\n.", "\r\n..")[2:]+".", 250)
	d.say("QUIT", 221)
}

// arrived waits until so many messages are in a store, and returns them.
func (c *mtaChain) arrived(store string, messages int) (got []string) {
	c.t.Helper()
	await(c.t, fmt.Sprintf("%d messages behind %s", messages, c.kind.name), func() (bool, string) {
		got = stored(c.t, store)
		return len(got) >= messages, fmt.Sprintf("%d have arrived\n%s", len(got), tail(c.mta.said()))
	})
	if len(got) > messages {
		c.t.Errorf("%d messages arrived, want %d", len(got), messages)
	}
	return got
}

// tail is the end of a text.
func tail(s string) string { return s[max(0, len(s)-4000):] }

// receivedFields are those that hosts put in front.
var receivedFields = regexp.MustCompile(`\A(?:Received: [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)+`)

// behindTrace is a message without its trace fields, of which there must be one of the last node, of the MTA (under TLS both, unless the MTA cannot), and of the
// first.
func (c *mtaChain) behindTrace(m string) string {
	t := c.t
	t.Helper()
	with := "SMTPS"
	if !c.secure {
		with = "SMTP"
	}
	fields := receivedFields.FindString(m)
	hops := regexp.MustCompile(`(?m)^Received: `).Split(fields, -1)[1:]
	over := regexp.MustCompile(`(?is)by far\.example.* with [a-z0-9]*` + with + `A?[ \t\r]`)
	if len(hops) != 3 || !strings.Contains(hops[0], "by mta.test.example with ") || !strings.Contains(hops[0], "SMTPS id") || !over.MatchString(hops[1]) ||
		!strings.Contains(hops[2], "by mta.test.example with ") {
		t.Fatalf("trace fields %q", fields)
	}
	return m[len(fields):]
}

// TestPeers relays through Postfix, Exim and OpenSMTPD from node to node, over TLS on both sides, as smart hosts that want AUTH too. Each message arrives
// once, as it was, or bounces, or waits, as the MTA says.
func TestPeers(t *testing.T) {
	for i := range peerMTAs {
		kind := &peerMTAs[i]
		t.Run(kind.name, func(t *testing.T) {
			c := newChain(t, kind)
			c.relays()
		})
	}
}

// oddContents tempt a relay to change them, within what any host takes.
var oddContents = []string{
	"Subject: no body\r\n\r\n",
	"Subject: dots\r\n\r\n.\r\n..\r\n.x\r\n\r\n.\r\nend\r\n",
	"Subject: eight\r\n\r\n\xc3\xa4 \xff \x80\r\n",
	"Subject: blanks\r\n\r\n\t \r\n \r\n\r\n\r\n",
	"Subject: From\r\n\r\nFrom here\r\n>From there\r\n",
	"Subject: folded\r\n\tand more\r\nX-Empty:\r\n\r\nbody\r\n",
	"Subject: large\r\n\r\n" + strings.Repeat(strings.Repeat("0123456789abcdef", 4)+"\r\n.dot\r\n", 20_000),
}

func (c *mtaChain) relays() {
	t := c.t
	const bulk = 50
	source(t, c.first.smtp, bulk)
	for _, content := range oddContents {
		c.send("<s@home.example> BODY=8BITMIME", content, "<ok@far.example>")
	}
	const many = "Subject: many\r\n\r\nto four\r\n"
	c.send("<s@home.example>", many, "<a@far.example>", "<nobody@far.example>", "<later@far.example>", "<b@far.example>")
	const asked = "Subject: asked\r\n\r\nnotify\r\n"
	c.send("<s@home.example> ENVID=a+2Bb RET=HDRS", asked, "<ok@box.example> NOTIFY=SUCCESS")
	const large = 5_100_000
	c.send("<s@home.example>", "Subject: too large\r\n\r\n"+strings.Repeat(strings.Repeat("x", 66)+"\r\n", large/68), "<ok@far.example>")
	const wide = "Subject: wide \xc3\xa4\r\n\r\nbody\r\n"
	c.send("<\xc3\xbc@home.example> SMTPUTF8 BODY=8BITMIME", wide, "<\xc3\xb6@far.example>")
	const login = "Subject: logged in\r\n\r\nbody\r\n"
	want, queued := map[string]int{many: 1}, map[string]string{"later@far.example": "45"}
	if c.secure {
		c.send("<s@home.example>", login, "<ok@auth.example>")
		c.send("<s@home.example>", login, "<ok@wrong.example>")
		want[login], queued["ok@wrong.example"] = 1, "535 "
	}
	for _, content := range oddContents {
		want[content]++
	}
	notices := 3 // nobody, who asked, too large
	if c.kind.smtpUTF8 {
		want[wide]++
	} else {
		notices++
	}
	messages := bulk
	for _, n := range want {
		messages += n
	}
	got := c.arrived(c.far, messages)
	told := c.arrived(c.home, notices)
	c.first.awaitQueued(queued)
	c.last.awaitEmpty()
	c.first.stop()
	c.last.stop()
	c.mta.end()
	c.account(got, want, bulk)
	c.notified(told)
	c.logged(bulk)
	boxed, err := filepath.Glob(filepath.Join(c.box, "new/*"))
	if err != nil || len(boxed) != 1 {
		t.Fatalf("%v, %v", boxed, err)
	}
	if b, err := os.ReadFile(boxed[0]); err != nil || !strings.HasSuffix(string(b), "\n"+strings.ReplaceAll(asked, "\r\n", "\n")) {
		t.Errorf("%v: %q", err, b)
	}
}

// awaitQueued waits until only these recipients are queued, with what the host said last about each.
func (n *node) awaitQueued(want map[string]string) {
	n.t.Helper()
	await(n.t, "nothing but deferrals in the queue", func() (bool, string) {
		q, err := n.queue()
		if err != nil {
			return false, err.Error()
		}
		left := maps.Clone(want)
		var others []string
		for _, m := range q.Messages {
			for _, r := range m.Recipients {
				if reply, ok := left[r.Address]; ok && r.State == "deferred" && strings.HasPrefix(r.Reply, reply) {
					delete(left, r.Address)
				} else if r.State != "delivered" && r.State != "bounced" {
					others = append(others, fmt.Sprint(r))
				}
			}
		}
		return len(left)+len(others) == 0, fmt.Sprintf("%v missing, and there is %v", left, others)
	})
}

// account checks that everything arrived once, and is what was sent.
func (c *mtaChain) account(got []string, want map[string]int, bulk int) {
	t := c.t
	left, seen := maps.Clone(want), map[string]bool{}
	reference := strings.ReplaceAll(reference(t), "\n", "\r\n")
	for _, m := range got {
		content := c.behindTrace(m)
		if body, id := fixed(content); id != "" && body == reference && !seen[id] {
			seen[id] = true
			continue
		}
		if left[content] == 0 {
			t.Errorf("altered, or arrived twice: %.600q", content)
		}
		left[content]--
	}
	if len(seen) != bulk {
		t.Errorf("%d messages of smtp-source arrived", len(seen))
	}
}

// notified checks what the sender was told.
func (c *mtaChain) notified(told []string) {
	all := strings.Join(told, "\n")
	for _, want := range []string{
		"(?mi)^Final-Recipient: rfc822; ?nobody@far.example\r\n(?:.*\r\n)*?Action: failed\r\nStatus: 5\\.[01]\\.[01]\r",
		"(?mi)^Original-Envelope-Id: a\\+b\r\n(?:.*\r\n)*?Action: delivered\r\n",
		"(?mi)^Action: failed\r\nStatus: 5.3.4",
	} {
		if n := len(regexp.MustCompile(want).FindAllString(all, -1)); n != 1 {
			c.t.Errorf("%s: %d times", want, n)
		}
	}
}

// logged checks the event log, and the log of the MTA.
func (c *mtaChain) logged(bulk int) {
	t, outcomes := c.t, map[string]int{}
	for _, typ := range []string{"delivery", "bounce", "deferral", "expiry", "in-doubt"} {
		for _, e := range eventsOf(t, c.dir, typ) {
			if strings.HasSuffix(e.Recipient, "@home.example") {
				continue
			}
			outcomes[typ+" "+e.Recipient]++
			if typ == "delivery" && c.secure != (e.TLSVersion == "TLS 1.3") {
				t.Errorf("%+v", e)
			}
		}
	}
	expect := map[string]int{
		"delivery rcpt@example.net": bulk, "delivery ok@far.example": len(oddContents), "delivery ok@box.example": 1, "delivery a@far.example": 1, "delivery b@far.example": 1,
		"bounce nobody@far.example": 1, "bounce ok@far.example": 1, "deferral later@far.example": 1,
	}
	if c.secure {
		expect["deferral ok@wrong.example"], expect["delivery ok@auth.example"] = 1, 1
	}
	if c.kind.smtpUTF8 {
		expect["delivery \xc3\xb6@far.example"] = 1
	} else {
		expect["bounce \xc3\xb6@far.example"] = 1
	}
	for _, what := range slices.Sorted(maps.Keys(outcomes)) {
		if outcomes[what] != expect[what] {
			t.Errorf("%s: %d times, want %d", what, outcomes[what], expect[what])
		}
	}
	if len(outcomes) != len(expect) {
		t.Errorf("%v, want %v", outcomes, expect)
	}
	if c.kind.chunked != nil && !c.kind.chunked.MatchString(c.mta.said()) {
		t.Errorf("no content went by BDAT:\n%s", tail(c.mta.said()))
	}
}

// succeed runs a program to its end, and returns what it says.
func succeed(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}
