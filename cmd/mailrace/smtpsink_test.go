package main

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mailrace/bench/sink"
)

const (
	faultMessages   = 2 // for each row of TestPostfixFaults
	faultRecipients = 2 // of each message
	faultTotal      = faultMessages * faultRecipients
)

// fault is a smtp-sink with options, and what becomes of mail for it.
type fault struct {
	name    string
	options string // as in its manual page, separated by spaces; behind a "|" one more that may hold spaces
	want    string // type and enhanced code of the event of every recipient; "" = it is delivered, or deferred
	doubt   bool   // deliveries may be in doubt
	to      string // form of the target of the route, where it is not smtp://%s
	more    string // keys of the route
	mail    string // parameters of MAIL
	rcpt    string // parameters of RCPT
	body    string // of the content, where it is not the usual
	notice  bool   // the sender is told of every recipient, although it is delivered
	wrote   string // what smtp-sink writes about each message
}

const (
	taken     = "delivery 2.0.0"
	faultAuth = "user = \"u\"\npassword = \"env:PATH\"\nauth_in_clear = true\ntls = \"opportunistic\"\n"
)

// postfixFaults has a row for each option of smtp-sink that a client can notice, and for each command that it can fail at.
//
// That a host refuses everybody, or is lost, is no verdict on a message: it waits. A command that is refused for good is one for its recipients. Who is
// cut off between the end of data and its reply is in doubt.
func postfixFaults() []fault {
	rows := []fault{
		{name: "plain", want: taken, wrote: "X-Client-Proto: ESMTP"},
		{name: "ipv4", options: "-4", want: taken},
		{name: "seven", options: "-8", want: taken},
		{name: "seven-eight", options: "-8", mail: " BODY=8BITMIME", body: "\xc3\xbc\r\n", want: "bounce 5.6.3"},
		{name: "eight", mail: " BODY=8BITMIME", body: "\xc3\xbc\r\n", want: taken, wrote: "BODY=8BITMIME"},
		{name: "auth", more: faultAuth, want: taken},
		{name: "no-auth", options: "-a", want: taken},
		{name: "no-auth-wanted", options: "-a", more: faultAuth, want: "deferral 4.7.8"},
		{name: "abort", options: "-A 0", want: "bounce "},
		{name: "abort-late", options: "-A 1", want: "bounce "},
		{name: "counters", options: "-c", want: taken},
		{name: "no-xclient", options: "-C -F", want: taken},
		{name: "no-esmtp", options: "-e", want: taken, wrote: "X-Client-Proto: SMTP"},
		{name: "pix", options: "-P", want: taken, wrote: "X-Client-Proto: SMTP"},
		{name: "no-codes", options: "-E", want: taken},
		{name: "no-codes-refused", options: "-E -f rcpt", want: "bounce 5.3.0"},
		{name: "no-pipelining", options: "-p", want: taken},
		{name: "dsn", rcpt: " NOTIFY=SUCCESS", want: taken, wrote: "NOTIFY=SUCCESS"},
		{name: "no-dsn", options: "-N", rcpt: " NOTIFY=SUCCESS", want: taken, notice: true},
		{name: "hostname", options: "-h far.example", want: taken},
		{name: "our-name", options: "-h mta.test.example", want: taken}, // the operator leads mail there: it may stand in front of us
		{name: "slow-reader", options: "-H 1 -T 1024", body: strings.Repeat(strings.Repeat("0123456789abcdef", 4)+"\r\n", 20_000), want: taken},
		{name: "lmtp", options: "-L", to: "lmtp://%s", want: "delivery 2.2.0", wrote: "X-Client-Proto: LMTP"},
		{name: "lmtp-socket", options: "-L unix:", to: "lmtp+unix://%s", want: "delivery 2.2.0", wrote: "X-Client-Proto: LMTP"},
		{name: "lmtp-refused", options: "-L -f .", to: "lmtp://%s", want: "bounce 5.3.0"},
		{name: "lmtp-later", options: "-L -r .", to: "lmtp://%s", want: "deferral 4.3.0"},
		{name: "lmtp-lost", options: "-L -q .", to: "lmtp://%s", want: "deferral 4.4.2", doubt: true},
		{name: "one-at-a-time", options: "-m 1", want: taken},
		{name: "ends-after-messages", options: "-M 1", doubt: true},
		{name: "ends-after-sessions", options: "-n 2", doubt: true},
		{name: "logged", options: "-s mail,rcpt,data -v", want: taken},
		{name: "impatient", options: "-t 5", want: taken},
		{name: "slow-354", options: "-w 1", want: taken},
		{name: "soft-reply", options: "-r rcpt -b|452 4.2.2 Over quota", want: "deferral 4.2.2"},
		{name: "hard-reply", options: "-f rcpt -B|552 5.2.2 Over quota", want: "bounce 5.2.2"},
		{name: "hard-data-reply", options: "-f . -B|554 5.7.1 Spam", want: "bounce 5.7.1"},
	}
	if os.Getuid() == 0 {
		rows = append(rows, fault{name: "chroot", options: "-R", want: taken})
	}
	for _, command := range []string{"connect", "ehlo", "mail", "rcpt", "data", "."} { // it does not delay what is pipelined, but mixes it up
		rows = append(rows, fault{name: "slow-" + spelled(command), options: "-p -W " + command + ":1", want: taken})
	}
	for _, f := range []struct {
		name, option string
		want         map[string]string // by the command; taken where it is none of them
	}{
		{"hard", "-f ", map[string]string{
			"connect": "deferral 4.3.0", "mail": "bounce 5.3.0", "rcpt": "bounce 5.3.0", "data": "bounce 5.3.0", ".": "bounce 5.3.0"}},
		{"soft", "-r ", map[string]string{
			"connect": "deferral 4.3.0", "ehlo": "deferral 4.3.0", "mail": "deferral 4.3.0", "rcpt": "deferral 4.3.0", "data": "deferral 4.3.0", ".": "deferral 4.3.0"}},
		{"lost", "-q ", map[string]string{
			"connect": "deferral 4.4.1", "ehlo": "deferral 4.4.1", "mail": "deferral 4.4.2", "rcpt": "deferral 4.4.2", "data": "deferral 4.4.2", ".": "deferral 4.4.2"}},
		{"bye", "-Q ", map[string]string{
			"connect": "deferral 4.0.0", "ehlo": "deferral 4.0.0", "mail": "deferral 4.0.0", "rcpt": "deferral 4.0.0", "data": "deferral 4.0.0", ".": "deferral 4.0.0"}},
	} {
		for _, command := range []string{"connect", "helo", "ehlo", "mail", "rcpt", "data", ".", "rset", "noop", "vrfy", "quit"} {
			want, fails := f.want[command]
			if !fails {
				want = taken
			}
			rows = append(rows, fault{name: f.name + "-" + spelled(command), options: f.option + command, want: want, doubt: f.name == "lost" && command == "."})
		}
	}
	return rows
}

// spelled is a command as a part of a name.
func spelled(command string) string { return strings.ReplaceAll(command, ".", "dot") }

// content is that of message i, and how it arrives behind our trace header.
func (f *fault) content(i int) (sent, arrives string) {
	body := f.body
	if body == "" {
		body = "Hello\r\n"
	}
	sent = fmt.Sprintf("Subject: %s %d\r\n\r\n%s", f.name, i, body)
	return sent, strings.ReplaceAll(sent, "\r\n", "\n")
}

// loneAddress is a loopback address that no other process uses, so that a port which was free stays so.
func loneAddress() string {
	return fmt.Sprintf("127.%d.%d.%d", 64+os.Getpid()>>16&63, os.Getpid()>>8&255, os.Getpid()&255)
}

// lonePorts returns addresses with ports that are free.
func lonePorts(t *testing.T, n int) (addresses []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", loneAddress()+":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // only then, so that none is returned twice
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

// start starts smtp-sink with the options of the row. It may not listen yet.
func (f *fault) start(t *testing.T, address string) (d *sinkDump, network, to string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "smtp-sink-") // not t.TempDir: nobody must get into it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	d = &sinkDump{address: address, path: filepath.Join(dir, "dump")}
	network = "tcp"
	dump := d.path
	options, spoken, speaks := strings.Cut(f.options, "|")
	args := strings.Fields(options)
	if speaks {
		args = append(args, spoken)
	}
	target := d.address
	if n := len(args); n > 0 && args[n-1] == "unix:" {
		network, d.address, args = "unix", filepath.Join(dir, "socket"), args[:n-1]
		target = "unix:" + d.address
	} else if n > 0 && args[n-1] == "-R" {
		args, dump = append(args, dir), "dump"
	}
	args = append(args, "-D", dump)
	if os.Getuid() == 0 {
		args = append(args, "-u", "nobody")
	}
	d.process = run(t, nil, "smtp-sink", append(args, target, "1024")...)
	if f.to != "" {
		return d, network, fmt.Sprintf(f.to, d.address)
	}
	return d, network, "smtp://" + d.address
}

// awaitListening waits until smtp-sink takes connections.
func (d *sinkDump) awaitListening(t *testing.T, network string) {
	t.Helper()
	await(t, "smtp-sink", func() (bool, string) {
		select {
		case <-d.exited:
			t.Fatalf("%v: %v\n%s", d.cmd.Args, d.err, d.output())
		default:
		}
		c, err := net.Dial(network, d.address)
		if err != nil {
			return false, err.Error()
		}
		c.Close()
		return true, ""
	})
}

// TestPostfixFaults sends to Postfix's smtp-sink with each of its options: every message is delivered once and as it was, or bounces and its sender is
// told, or waits, as the option wants it.
func TestPostfixFaults(t *testing.T) {
	dir := t.TempDir()
	home := receiver(t, sink.Options{Store: filepath.Join(dir, "store")})
	rows, sinks := postfixFaults(), map[string]*sinkDump{}
	more := "[queue]\nretry_min = \"1h\"\n[dsn]\ngather = \"0s\"\n"
	more += fmt.Sprintf("[[route]]\ndomains = [\"home.example\"]\nto = \"smtp://%s\"\n", home.Addr())
	networks := map[string]string{}
	for i, address := range lonePorts(t, len(rows)) {
		d, network, to := rows[i].start(t, address)
		sinks[rows[i].name], networks[rows[i].name] = d, network
		more += fmt.Sprintf("[[route]]\ndomains = [%q]\nto = %q\n%s", rows[i].name+".example", to, rows[i].more)
	}
	for name, d := range sinks {
		d.awaitListening(t, networks[name])
	}
	n := serve(t, configOf(dir, "127.0.0.1:0", "discard", more))
	c := dialSMTP(t, n.smtp)
	c.say("EHLO client.example", 250)
	for i := range faultMessages {
		for _, f := range rows {
			c.say(fmt.Sprintf("MAIL FROM:<%s@home.example>%s", f.name, f.mail), 250)
			for r := range faultRecipients {
				c.say(fmt.Sprintf("RCPT TO:<r%d@%s.example>%s", r, f.name, f.rcpt), 250)
			}
			c.say("DATA", 354)
			content, _ := f.content(i)
			c.say(content+".", 250)
		}
	}
	tally := awaitOutcomes(t, dir, len(rows)*faultTotal)
	reported := awaitReports(t, filepath.Join(dir, "store"), rows)
	queued := map[string]int{}
	q, err := n.queue()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range q.Messages {
		for _, r := range m.Recipients {
			_, domain, _ := strings.Cut(r.Address, "@")
			queued[strings.TrimSuffix(domain, ".example")]++
		}
	}
	n.stop()
	for _, f := range rows {
		sinks[f.name].kill()
		f.judge(t, tally[f.name], queued[f.name], reported[f.name], sinks[f.name])
	}
}

// awaitOutcomes waits until the event log tells what became of so many recipients, and counts by domain what it says.
func awaitOutcomes(t *testing.T, dir string, recipients int) map[string]map[string]int {
	t.Helper()
	tally := map[string]map[string]int{}
	await(t, "all attempts", func() (bool, string) {
		clear(tally)
		settled, missing := 0, map[string]int{}
		for _, typ := range []string{"delivery", "bounce", "deferral", "in-doubt"} {
			for _, e := range eventsOf(t, dir, typ) {
				_, domain, _ := strings.Cut(e.Recipient, "@")
				name := strings.TrimSuffix(domain, ".example")
				if name == "home" {
					continue
				}
				if tally[name] == nil {
					tally[name] = map[string]int{}
				}
				if typ == "in-doubt" {
					tally[name][typ]++
					continue
				}
				tally[name][typ+" "+e.Enhanced]++
				missing[name]++
				settled++
			}
		}
		maps.DeleteFunc(missing, func(_ string, n int) bool { return n == faultTotal })
		return settled >= recipients, fmt.Sprintf("%d of %d, not whole %v", settled, recipients, missing)
	})
	return tally
}

// finalRecipient finds whom a notification tells of.
var finalRecipient = regexp.MustCompile(`(?m)^Final-Recipient: rfc822; ?[^@]+@([a-z0-9-]+)\.example`)

// awaitReports waits until the senders were told what they are to be told, and counts by domain of whom.
func awaitReports(t *testing.T, store string, rows []fault) map[string]int {
	t.Helper()
	want := 0
	for _, f := range rows {
		if f.notice || strings.HasPrefix(f.want, "bounce") {
			want += faultTotal
		}
	}
	told := map[string]int{}
	await(t, "notifications", func() (bool, string) {
		clear(told)
		sum := 0
		for _, m := range stored(t, store) {
			for _, found := range finalRecipient.FindAllStringSubmatch(m, -1) {
				told[found[1]]++
				sum++
			}
		}
		return sum >= want, fmt.Sprintf("of %d recipients, want %d", sum, want)
	})
	return told
}

// judge compares what became of the mail of a row with what it wants: what the events say, how many recipients wait, and of how many the sender was told.
func (f *fault) judge(t *testing.T, events map[string]int, queued, reported int, d *sinkDump) {
	t.Helper()
	doubts := events["in-doubt"]
	delete(events, "in-doubt")
	waits, told, deliveries := 0, 0, 0
	for what, n := range events {
		switch kind, _, _ := strings.Cut(what, " "); {
		case f.want != "" && what != f.want, f.want == "" && kind == "bounce":
			t.Errorf("%s: %v, want %s", f.name, events, f.want)
		case kind == "deferral":
			waits += n
		case kind == "bounce" || f.notice:
			told += n
		}
		if strings.HasPrefix(what, "delivery") {
			deliveries += n
		}
	}
	if sum := deliveries + waits + events[f.want]; f.want != "" && events[f.want] != faultTotal || f.want == "" && sum != faultTotal {
		t.Errorf("%s: %v, want %d times %q", f.name, events, faultTotal, f.want)
	}
	if queued != waits || reported != told || !f.doubt && doubts > 0 || f.doubt && f.want != "" && doubts == 0 {
		t.Errorf("%s: %v: %d wait in the queue, the sender knows of %d, %d in doubt", f.name, events, queued, reported, doubts)
	}
	if deliveries == 0 {
		return
	}
	left := map[string]int{}
	for i := range faultMessages {
		_, arrives := f.content(i)
		left[arrives]++
	}
	for _, m := range d.messages(t) {
		at := strings.Index(m, "Subject: ")
		if f.want == "" && (at < 0 || !strings.HasSuffix(m, "Hello\n")) { // smtp-sink ended while it wrote
			continue
		}
		if !strings.HasPrefix(m, "Received: from client.example ") || at < 0 || left[m[at:]] != 1 {
			t.Errorf("%s: altered, or arrived twice: %.300q", f.name, m)
			continue
		}
		left[m[at:]]--
	}
	missing := 0
	for _, n := range slices.Collect(maps.Values(left)) {
		missing += n
	}
	if arrived := faultMessages - missing; deliveries > arrived*faultRecipients {
		t.Errorf("%s: %d messages arrived, and %d deliveries are noted", f.name, arrived, deliveries)
	}
	if log, err := os.ReadFile(d.path); err != nil || strings.Count(string(log), f.wrote) < faultMessages {
		t.Errorf("%s: %v, it did not write %q of each message", f.name, err, f.wrote)
	}
}
