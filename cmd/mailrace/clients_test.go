package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	gosmtp "github.com/emersion/go-smtp"

	"mailrace/bench/sink"
)

// TestClients sends with programs that people use. Each message must arrive unchanged behind our trace header.
func TestClients(t *testing.T) {
	dir := t.TempDir()
	far := receiver(t, sink.Options{Store: filepath.Join(dir, "store")})
	n := serve(t, configOf(dir, "127.0.0.1:0", "smtp://"+far.Addr(), ""))
	host, port, _ := strings.Cut(n.smtp, ":")
	content := "From: <s@example.com>\r\nTo: <r@example.net>\r\nSubject: a client\r\n\r\nHello,\r\n.\r\n..two\r\nend\r\n"
	file := filepath.Join(dir, "message.eml")
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	script, chunks, nodeScript := filepath.Join(dir, "client.py"), filepath.Join(dir, "chunks.py"), filepath.Join(dir, "client.js")
	for name, text := range map[string]string{script: pythonClient, chunks: pythonChunks, nodeScript: nodeClient} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	clients := [][]string{
		{"swaks", "--server", host, "--port", port, "--from", "s@example.com", "--to", "r@example.net", "--data", "@" + file, "--suppress-data"},
		{"swaks", "--server", host, "--port", port, "--from", "s@example.com", "--to", "r@example.net", "--data", "@" + file, "--pipeline",
			"--suppress-data"},
		{"swaks", "--server", host, "--port", port, "--from", "s@example.com", "--to", "r@example.net", "--data", "@" + file, "--protocol", "SMTP",
			"--suppress-data"},
		{"curl", "--silent", "--show-error", "smtp://" + n.smtp, "--mail-from", "s@example.com", "--mail-rcpt", "r@example.net", "--upload-file", file},
		{"python3", script, host, port, file},
		{"python3", chunks, host, port, file},
		{"sh", "-c", `exec msmtp --host=$0 --port=$1 --from=s@example.com --set-date-header=off --set-msgid-header=off -- r@example.net <"$2"`, host, port, file},
		{"env", "NODE_PATH=" + nodeModules(), "node", nodeScript, host, port, file},
	}
	for _, args := range clients {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	if err := goClient(n.smtp, content); err != nil {
		t.Errorf("go-smtp: %v", err)
	}
	n.awaitEmpty()
	n.stop()
	got := stored(t, filepath.Join(dir, "store"))
	if want := len(clients) + 1; len(got) != want {
		t.Errorf("%d messages arrived from %d clients", len(got), want)
	}
	for _, m := range got {
		header := traceHeader.FindString(m)
		// swaks ends what it is given with one more line end.
		if body := m[len(header):]; header == "" || body != content && body != content+"\r\n" {
			t.Errorf("got %q\nwant %q", m, content)
		}
	}
}

// pythonClient asks what a careful client asks, and sends a file with the standard library.
const pythonClient = `
import smtplib, sys
with smtplib.SMTP(sys.argv[1], int(sys.argv[2])) as s:
    s.ehlo("client.example")
    for ext in ("pipelining", "size", "8bitmime", "smtputf8", "enhancedstatuscodes", "dsn", "chunking", "binarymime", "limits", "futurerelease", "deliverby", "mt-priority"):
        assert s.has_extn(ext), ext
    assert s.verify("someone@example.net")[0] == 252
    assert s.noop()[0] == 250
    assert s.mail("s@example.com")[0] == 250
    assert s.rset()[0] == 250
    assert s.docmd("EXPN", "list")[0] == 502
    assert s.docmd("HELP")[0] == 214
    assert b"RCPT TO:" in s.help("RCPT")
    assert s.mail("s@example.com", ["HOLDFOR=60", "BY=3600;R"])[0] == 250
    assert s.rset()[0] == 250
    assert s.mail("s@example.com", ["HOLDUNTIL=2020-01-01", "SIZE=5"])[0] == 501
    assert s.docmd("RCPT", "TO:<r@example.net>")[0] == 503
    refused = s.sendmail("s@example.com", ["r@example.net"], open(sys.argv[3], "rb").read(), mail_options=["BODY=8BITMIME", "RET=HDRS", "ENVID=job+2B1", "BY=86400;N", "MT-PRIORITY=-1"], rcpt_options=["NOTIFY=FAILURE,DELAY", "ORCPT=rfc822;r@example.net"])
    assert not refused, refused
`

// pythonChunks sends a file in chunks of all sizes, with the standard library as far as that goes.
const pythonChunks = `
import smtplib, sys
content = open(sys.argv[3], "rb").read()
with smtplib.SMTP(sys.argv[1], int(sys.argv[2])) as s:
    s.ehlo("client.example")
    assert s.mail("s@example.com", ["RET=FULL"])[0] == 250
    assert s.rcpt("r@example.net", ["NOTIFY=NEVER"])[0] == 250
    for size in range(100):
        chunk, content = content[:size], content[size:]
        last = b"" if content else b" LAST"
        s.send(b"BDAT %d%s\r\n" % (len(chunk), last) + chunk)
        code, text = s.getreply()
        assert code == 250 and (b"queued as" in text) == bool(last), text
        if last:
            break
`

// nodeModules is where .ci/deps puts nodemailer.
func nodeModules() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("mailrace-test-node-%d", os.Getuid()), "node_modules")
}

// nodeClient sends a file with nodemailer.
const nodeClient = `
const [host, port, file] = process.argv.slice(2);
const transport = require("nodemailer").createTransport({host, port: Number(port), ignoreTLS: true, name: "client.example"});
transport.verify()
  .then(() => transport.sendMail({envelope: {from: "s@example.com", to: ["r@example.net"]}, raw: require("fs").readFileSync(file),
    dsn: {id: "a + b", return: "headers", notify: ["failure", "delay"], recipient: "r@example.net"}}))
  .then((info) => { if (info.accepted.length !== 1 || !/queued as/.test(info.response)) throw new Error(JSON.stringify(info)); })
  .catch((err) => { console.error(err); process.exitCode = 1; });
`

// goClient sends with go-smtp, asking for what the server offers.
func goClient(address, content string) error {
	c, err := gosmtp.Dial(address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Hello("client.example"); err != nil {
		return err
	}
	if err := c.Noop(); err != nil {
		return err
	}
	if err := c.Mail("dropped@example.com", nil); err != nil {
		return err
	}
	if err := c.Reset(); err != nil {
		return err
	}
	size, ok := c.MaxMessageSize()
	if !ok || size <= 0 {
		return fmt.Errorf("SIZE is not offered")
	}
	if err := c.Mail("s@example.com", &gosmtp.MailOptions{Size: int64(size) + 1}); err == nil {
		return fmt.Errorf("a message over %d octets is not refused", size)
	}
	if err := c.Mail("s@example.com", &gosmtp.MailOptions{Size: int64(len(content)), Body: gosmtp.Body8BitMIME, UTF8: true, Return: gosmtp.DSNReturnFull, EnvelopeID: "a+b = c"}); err != nil {
		return err
	}
	if err := c.Rcpt("r@example.net", &gosmtp.RcptOptions{
		Notify: []gosmtp.DSNNotify{gosmtp.DSNNotifyFailure}, OriginalRecipientType: gosmtp.DSNAddressTypeRFC822, OriginalRecipient: "a+b@example.net",
	}); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, content); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return c.Quit()
}

// mailrace runs the program to its end.
func mailrace(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(bin, args...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil && c.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.toml"), filepath.Join(dir, "bad.toml")
	text := configOf(dir, "127.0.0.1:0", "mx", "")
	if err := os.WriteFile(good, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bad, []byte(strings.Replace(text, "relay_from", "relay_form", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, errs, status := mailrace(t, "check", "--config", good); status != 0 {
		t.Errorf("status %d: %s%s", status, out, errs)
	}
	for _, old := range [][2]string{{"127.0.0.1:0", ":0"}, {"127.0.0.0/8", "0.0.0.0/0"}} {
		text = strings.Replace(text, old[0], old[1], 1)
	}
	if err := os.WriteFile(good, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, errs, status := mailrace(t, "check", "--config", good); status != 0 || !strings.Contains(errs, good+": warning: listener :0: relay_from is everybody") {
		t.Errorf("status %d: %s%s", status, out, errs)
	}
	_, errs, status := mailrace(t, "check", "--config", bad)
	if status != 1 || !strings.Contains(errs, bad+":5") || !strings.Contains(errs, "relay_from") {
		t.Errorf("status %d: %s", status, errs)
	}
	if _, errs, status := mailrace(t, "serve", "--config", bad); status != 1 || !strings.Contains(errs, bad+":5") {
		t.Errorf("serve: status %d: %s", status, errs)
	}
}

// TestLoadAndSink runs both as programs, against each other, and reads their JSON.
func TestLoadAndSink(t *testing.T) {
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	s := run(t, func(line string) {
		if a, ok := strings.CutPrefix(line, "listening on "); ok {
			address <- a
		}
	}, bin, "sink", "--address", "127.0.0.1:0", "--permfail", "rcpt=0.5", "--seed", "1")
	out, errs, status := mailrace(t, "load", "--address", <-address, "--messages", "200", "--connections", "4", "--json")
	if status != 0 {
		t.Fatalf("status %d: %s", status, errs)
	}
	var r struct{ Accepted, Permfail, Lost int }
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if r.Accepted+r.Permfail != 200 || r.Accepted == 0 || r.Permfail == 0 || r.Lost != 0 {
		t.Errorf("%+v", r)
	}
	s.stop()
}

// TestQueueLs lists what a closed destination holds up.
func TestQueueLs(t *testing.T) {
	dir := t.TempDir()
	n := serve(t, configOf(dir, "127.0.0.1:0", "smtp://"+free(t), ""))
	c := dialSMTP(t, n.smtp)
	c.say("EHLO client.test.example", 250)
	c.say("MAIL FROM:<s@example.com>", 250)
	c.say("RCPT TO:<r@example.net>", 250)
	c.say("DATA", 354)
	queued := c.say("Subject: held up\r\n\r\n.", 250)
	id := strings.Fields(queued)[len(strings.Fields(queued))-1]
	await(t, "a deferral", func() (bool, string) {
		q, err := n.queue()
		if err != nil {
			return false, err.Error()
		}
		return len(q.Messages) == 1 && q.Messages[0].Recipients[0].State == "deferred", ""
	})
	out, errs, status := mailrace(t, "queue", "ls", "--admin", n.admin)
	for _, want := range []string{id, "<s@example.com>", "r@example.net", "deferred"} {
		if !strings.Contains(out, want) {
			t.Errorf("status %d: %q is missing in\n%s%s", status, want, out, errs)
		}
	}
	n.stop()
	if _, errs, status := mailrace(t, "queue", "ls", "--admin", n.admin); status != 1 || !strings.Contains(errs, "is the node running?") {
		t.Errorf("status %d: %s", status, errs)
	}
}

// TestDemo runs the demo as `make run` does, for a moment, and looks for what it may have left behind.
func TestDemo(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	out, errs, status := mailrace(t, "demo", "--duration", "3s", "--rate", "500")
	if status != 0 || !strings.Contains(out, "accepted") || strings.Contains(out, "accepted 0,") {
		t.Errorf("status %d:\n%s%s", status, out, errs)
	}
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
