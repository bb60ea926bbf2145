package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"mailrace/bench/sink"
)

const (
	sourceMessages = 20_000
	sourceSessions = 50
	sourceOctets   = 10 << 10
)

// source sends with Postfix's smtp-source. It makes messages that differ in Message-Id and Date only.
func source(t *testing.T, address string, messages int, more ...string) {
	t.Helper()
	args := append([]string{
		"-s", strconv.Itoa(sourceSessions), "-m", strconv.Itoa(messages), "-l", strconv.Itoa(sourceOctets),
		"-f", "sender@example.com", "-t", "rcpt@example.net",
	}, more...)
	run(t, nil, "smtp-source", append(args, address)...).wait()
}

// varies are the header fields in which messages of smtp-source differ.
var varies = regexp.MustCompile(`(?m)^(Message-Id|Date): [^\r\n]*`)

// fixed is a message of smtp-source without what differs, and its Message-Id.
func fixed(message string) (string, string) {
	id := ""
	out := varies.ReplaceAllStringFunc(message, func(line string) string {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Message-Id" {
			id = value
		}
		return name
	})
	return out, id
}

// sinkDump runs Postfix's smtp-sink, which writes all it gets into one file.
type sinkDump struct {
	*process
	address, path string
}

func postfixSink(t *testing.T, address string) *sinkDump {
	t.Helper()
	dir, err := os.MkdirTemp("", "smtp-sink-") // not t.TempDir: nobody must get into it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	d := &sinkDump{address: address, path: filepath.Join(dir, "dump")}
	args := []string{"-D", d.path, address, "1024"}
	if os.Getuid() == 0 {
		args = append([]string{"-u", "nobody"}, args...)
	}
	d.process = run(t, nil, "smtp-sink", args...)
	d.awaitListening(t, "tcp")
	return d
}

// messages reads what arrived, each behind the headers that smtp-sink itself adds.
func (d *sinkDump) messages(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile(d.path)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range strings.Split("\n"+strings.TrimSuffix(string(b), "\n"), "\nX-Client-Addr: ")[1:] {
		_, m, ok := strings.Cut(m, "\n\tby ") // the name is that of -h
		if !ok {
			t.Fatalf("smtp-sink wrote %.200q", m)
		}
		// … (smtp-sink) with (?:UTF8|E)?SMTP id 234adde5;\n\tdate\n
		m = m[strings.IndexByte(m, '\n')+1:]
		out = append(out, m[strings.IndexByte(m, '\n')+1:])
	}
	return out
}

// trace is our Received header.
var traceHeader = regexp.MustCompile(`\AReceived: from \S+ \(\[127\.0\.0\.1\]\)\r?\n\tby mta\.test\.example with (?:UTF8|E)?SMTP id [0-9A-Z]{13}\r?\n\tfor <[^>\r\n]+>(?:\r?\n\tpriority -?\d)?; [^\r\n]+\r?\n`)

// compare checks that each message arrived once, and is what was sent behind our trace header.
func compare(t *testing.T, got []string, want string, count int) {
	t.Helper()
	seen := map[string]bool{}
	for i, m := range got {
		header := traceHeader.FindString(m)
		if header == "" {
			t.Fatalf("message %d does not begin with our trace header: %.300q", i, m)
		}
		body, id := fixed(m[len(header):])
		if body != want {
			t.Fatalf("message %d differs:\n got %.600q\nwant %.600q", i, body, want)
		}
		if seen[id] {
			t.Fatalf("%s arrived twice", id)
		}
		seen[id] = true
	}
	if len(seen) != count {
		t.Fatalf("%d messages arrived, %d were sent", len(seen), count)
	}
}

// reference is a message of smtp-source as smtp-sink gets it without anybody between them.
func reference(t *testing.T) string {
	t.Helper()
	d := postfixSink(t, free(t))
	source(t, d.address, 1)
	d.kill()
	m, _ := fixed(d.messages(t)[0])
	return m
}

// TestPostfixToPostfix relays from smtp-source to smtp-sink, with a connection per message and with connections that are used again.
func TestPostfixToPostfix(t *testing.T) {
	want := reference(t)
	for name, mode := range map[string][]string{"connections": nil, "sessions": {"-d"}} {
		t.Run(name, func(t *testing.T) {
			d := postfixSink(t, free(t))
			n := serve(t, configOf(t.TempDir(), "127.0.0.1:0", "smtp://"+d.address, ""))
			source(t, n.smtp, sourceMessages, mode...)
			n.awaitEmpty()
			n.stop()
			d.kill()
			compare(t, d.messages(t), want, sourceMessages)
		})
	}
}

// TestPostfixToSink relays from smtp-source to our own sink, which stores what it gets.
func TestPostfixToSink(t *testing.T) {
	want := strings.ReplaceAll(reference(t), "\n", "\r\n")
	for name, mode := range map[string][]string{"connections": nil, "sessions": {"-d"}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			far := receiver(t, sink.Options{Store: filepath.Join(dir, "store")})
			n := serve(t, configOf(dir, "127.0.0.1:0", "smtp://"+far.Addr(), ""))
			source(t, n.smtp, sourceMessages, mode...)
			n.awaitEmpty()
			n.stop()
			compare(t, stored(t, filepath.Join(dir, "store")), want, sourceMessages)
		})
	}
}

// stored reads what a sink stored.
func stored(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.eml"))
	if err != nil {
		t.Fatal(err)
	}
	out := make([]string, len(paths))
	for i, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out[i] = string(b)
	}
	return out
}

// nameserver answers for example.net on loopback: two exchangers, the preferred one without a server.
func nameserver(t *testing.T) string {
	t.Helper()
	zone := map[string][]string{
		"example.net. MX":     {"example.net. 60 MX 10 down.example.net.", "example.net. 60 MX 20 up.example.net."},
		"down.example.net. A": {"down.example.net. 60 A 127.0.0.3"},
		"up.example.net. A":   {"up.example.net. 60 A 127.0.0.2"},
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		for _, text := range zone[q.Question[0].Name+" "+dns.TypeToString[q.Question[0].Qtype]] {
			rr, err := dns.NewRR(text)
			if err != nil {
				panic(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		w.WriteMsg(m)
	})}
	go s.ActivateAndServe()
	t.Cleanup(func() { s.ShutdownContext(context.Background()) })
	return pc.LocalAddr().String()
}

// TestPostfixByMX relays by way of MX records; the preferred exchanger is down.
func TestPostfixByMX(t *testing.T) {
	want := reference(t)
	_, port, err := net.SplitHostPort(free(t))
	if err != nil {
		t.Fatal(err)
	}
	d := postfixSink(t, "127.0.0.2:"+port)
	n := serve(t, configOf(t.TempDir(), "127.0.0.1:0", "mx", fmt.Sprintf(`
[egress]
port = %s
allow = ["127.0.0.0/8"]
[dns]
servers = [%q]
`, port, nameserver(t))))
	source(t, n.smtp, sourceMessages, "-d")
	n.awaitEmpty()
	n.stop()
	d.kill()
	compare(t, d.messages(t), want, sourceMessages)
}

// TestOddContent relays content that tempts a relay to change it, by every way of storing: short, dotted, 8-bit, and of many chunks.
func TestOddContent(t *testing.T) {
	dir := t.TempDir()
	far := receiver(t, sink.Options{Store: filepath.Join(dir, "store")})
	n := serve(t, configOf(dir, "127.0.0.1:0", "smtp://"+far.Addr(), ""))
	long := bytes.Repeat([]byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n"), 50_000) // 3.2 MB
	contents := []string{
		"\r\n",
		"Subject: no body\r\n\r\n",
		"Subject: dots\r\n\r\n.\r\n..\r\n.x\r\n\r\n.\r\nend\r\n",
		"Subject: 8-bit\r\n\r\n\xc3\xa4 \xff \x80\r\n",
		"Subject: tabs\r\n\r\n\t \r\n \r\n\r\n\r\n",
		"From line\r\n\r\nFrom here\r\n",
		"Subject: long\r\n\r\n" + string(long),
		"Subject: long with dots\r\n\r\n" + strings.Repeat(".", 3) + "\r\n" + strings.ReplaceAll(string(long), "0123", ".123"),
	}
	c := dialSMTP(t, n.smtp)
	c.say("EHLO client.test.example", 250)
	for _, content := range contents {
		c.say("MAIL FROM:<s@example.com> BODY=8BITMIME", 250)
		c.say("RCPT TO:<r@example.net>", 250)
		c.say("DATA", 354)
		stuffed := strings.ReplaceAll("\r\n"+content, "\r\n.", "\r\n..")[2:]
		c.say(stuffed+".", 250)
	}
	c.say("QUIT", 221)
	n.awaitEmpty()
	n.stop()
	left := map[string]int{}
	for _, content := range contents {
		left[content]++
	}
	for _, m := range stored(t, filepath.Join(dir, "store")) {
		body := m[len(traceHeader.FindString(m)):]
		if left[body] == 0 {
			t.Errorf("altered, or arrived twice: %.200q", body)
		}
		left[body]--
	}
	for content, n := range left {
		if n != 0 {
			t.Errorf("%d times missing: %.200q", n, content)
		}
	}
}
