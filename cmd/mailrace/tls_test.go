package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	gosmtp "github.com/emersion/go-smtp"

	"mailrace/bench/sink"
)

// secureTraceHeader is our Received header on mail that came under TLS.
var secureTraceHeader = regexp.MustCompile(`\AReceived: from \S+ \(\[127\.0\.0\.1\]\)\r?\n\tby mta\.test\.example with ESMTPS id [0-9A-Z]{13}\r?\n` +
	`\tfor <[^>\r\n]+>\r?\n\ttls TLS_[A-Z0-9_]+; [^\r\n]+\r?\n`)

// certificate makes one for this machine, in two files of dir.
func certificate(t *testing.T, dir string) (chain, key string) {
	t.Helper()
	chain, key = filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem")
	if out, err := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
		"-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", chain).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return chain, key
}

// TestSecureClients sends under TLS with programs that people use, by STARTTLS and to a port that begins with TLS.
func TestSecureClients(t *testing.T) {
	dir := t.TempDir()
	chain, key := certificate(t, dir)
	far := receiver(t, sink.Options{Store: filepath.Join(dir, "store")})
	more := fmt.Sprintf("[tls]\ncertificates = [{ chain = %q, key = %q }]\n[[listener]]\naddress = %q\nmode = \"submissions\"\nrelay_from = [\"127.0.0.0/8\"]\n",
		chain, key, "127.0.0.1:0")
	n := serve(t, configOf(dir, "127.0.0.1:0", "smtp://"+far.Addr(), more))
	submissions := n.others[0]
	host, port, _ := strings.Cut(n.smtp, ":")
	_, portTLS, _ := strings.Cut(submissions, ":")
	content := "Date: Wed, 4 Mar 2026 05:06:07 +0000\r\nMessage-ID: <a@example.com>\r\n" + // complete: a submission listener adds nothing
		"From: <s@example.com>\r\nTo: <r@example.net>\r\nSubject: a client\r\n\r\nHello,\r\n.\r\n..two\r\nend\r\n"
	file := write(t, dir, "message.eml", content)
	script := write(t, dir, "client.py", securePythonClient)
	dialogue := "EHLO client.example\r\nMAIL FROM:<s@example.com>\r\nRCPT TO:<r@example.net>\r\nDATA\r\n" + strings.ReplaceAll(content, "\r\n.", "\r\n..") +
		".\r\nQUIT\r\n"
	envelope := []string{"--from", "s@example.com", "--to", "r@example.net", "--data", "@" + file, "--suppress-data", "--tls-verify", "--tls-ca-path", chain}
	swaks := func(args ...string) []string {
		return append(append([]string{"swaks", "--server", host}, args...), envelope...)
	}
	curl := []string{"--silent", "--show-error", "--cacert", chain, "--mail-from", "s@example.com", "--mail-rcpt", "r@example.net", "--upload-file", file}
	msmtp := []string{"sh", "-c", `exec msmtp --host=localhost --port=$1 --tls=on --tls-starttls=$3 --tls-trust-file="$0" --from=s@example.com --set-date-header=off ` +
		`--set-msgid-header=off -- r@example.net <"$2"`}
	nodemailer := []string{"env", "NODE_PATH=" + nodeModules(), "node", write(t, dir, "client.js", secureNodeClient), host}
	openssl := []string{"openssl", "s_client", "-quiet", "-verify_return_error", "-CAfile", chain, "-connect"}
	clients := [][]string{
		append([]string{"curl", "--ssl-reqd", "smtp://" + n.smtp}, curl...),
		append([]string{"curl", "smtps://" + submissions}, curl...),
		append([]string{"curl", "--tls-max", "1.2", "smtps://" + submissions}, curl...),
		append(openssl, n.smtp, "-starttls", "smtp"),
		append(openssl, submissions),
		append(openssl, submissions, "-tls1_2", "-alpn", "smtp"),
		{"python3", script, host, port, "starttls", chain, file},
		{"python3", script, host, portTLS, "tls", chain, file},
		append(msmtp, chain, port, file, "on"),
		append(msmtp, chain, portTLS, file, "off"),
		append(nodemailer, port, "starttls", chain, file),
		append(nodemailer, portTLS, "tls", chain, file),
		append(nodemailer, port, "pool", chain, file),
		append(nodemailer, portTLS, "pool-tls", chain, file),
	}
	pooled := 2 * (poolMessages - 1)
	if exec.Command("perl", "-MNet::SSLeay", "-e", "1").Run() != nil {
		t.Log("swaks is left out: it wants Perl's Net::SSLeay for TLS")
	} else {
		clients = append(clients, swaks("--port", port, "--tls"), swaks("--port", port, "--tls", "--pipeline"),
			swaks("--port", port, "--tls", "--tls-protocol", "tlsv1_2"), swaks("--port", portTLS, "--tls-on-connect"))
	}
	for _, args := range clients {
		c := exec.Command(args[0], args[1:]...)
		if args[0] == "openssl" {
			c.Stdin = strings.NewReader(dialogue)
			c.Args = append(c.Args, "-ign_eof")
		}
		if out, err := c.CombinedOutput(); err != nil || args[0] == "openssl" && !bytes.Contains(out, []byte("Ok: queued as")) {
			t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	for _, dial := range []func(*tls.Config) (*gosmtp.Client, error){
		func(c *tls.Config) (*gosmtp.Client, error) { return gosmtp.DialStartTLS(n.smtp, c) },
		func(c *tls.Config) (*gosmtp.Client, error) { return gosmtp.DialTLS(submissions, c) },
	} {
		if err := secureGoClient(dial, chain, content); err != nil {
			t.Errorf("go-smtp: %v", err)
		}
	}
	n.awaitEmpty()
	n.stop()
	got := stored(t, filepath.Join(dir, "store"))
	if want := len(clients) + pooled + 2; len(got) != want {
		t.Errorf("%d messages arrived, want %d", len(got), want)
	}
	for _, m := range got {
		header := secureTraceHeader.FindString(m)
		if body := m[len(header):]; header == "" || body != content && body != content+"\r\n" {
			t.Errorf("got %q\nwant %q", m, content)
		}
	}
}

func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// securePythonClient checks the certificate, and that nothing is left of what was said in clear.
const securePythonClient = `
import smtplib, ssl, sys
host, port, how, ca, file = sys.argv[1:6]
context = ssl.create_default_context(cafile=ca)
if how == "tls":
    s = smtplib.SMTP_SSL(host, int(port), context=context)
else:
    s = smtplib.SMTP(host, int(port))
    s.ehlo("client.example")
    assert s.has_extn("starttls")
    s.starttls(context=context)
    assert s.docmd("MAIL", "FROM:<s@example.com>")[0] == 503
s.ehlo("client.example")
assert not s.has_extn("starttls")
assert s.docmd("STARTTLS")[0] == 503
assert s.has_extn("requiretls")
assert s.mail("s@example.com", ["REQUIRETLS"])[0] == 250
assert s.rset()[0] == 250
refused = s.sendmail("s@example.com", ["r@example.net"], open(file, "rb").read())
assert not refused, refused
s.quit()
`

// poolMessages is how many messages a pool of nodemailer sends.
const poolMessages = 7

// secureNodeClient sends a file with nodemailer: with STARTTLS that it insists on, under TLS from the start, and over a pool of connections.
const secureNodeClient = `
const [host, port, how, ca, file] = process.argv.slice(2);
const fs = require("fs");
const pool = how.startsWith("pool");
const transport = require("nodemailer").createTransport({host, port: Number(port), secure: how.endsWith("tls") && how !== "starttls", requireTLS: true, pool,
  maxConnections: 2, maxMessages: 3, name: "client.example", tls: {ca: fs.readFileSync(ca), servername: "localhost"}});
const message = {envelope: {from: "s@example.com", to: ["r@example.net"]}, raw: fs.readFileSync(file)};
transport.verify()
  .then(() => Promise.all(Array.from({length: pool ? 7 : 1}, () => transport.sendMail(message))))
  .then((all) => { for (const info of all) if (info.accepted.length !== 1 || !/queued as/.test(info.response)) throw new Error(JSON.stringify(info)); })
  .catch((err) => { console.error(err); process.exitCode = 1; })
  .finally(() => transport.close());
`

// secureGoClient sends with go-smtp over a connection whose certificate it checks.
func secureGoClient(dial func(*tls.Config) (*gosmtp.Client, error), chain, content string) error {
	pem, err := os.ReadFile(chain)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	c, err := dial(&tls.Config{ServerName: "localhost", RootCAs: roots})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Hello("client.example"); err != nil {
		return err
	}
	if state, ok := c.TLSConnectionState(); !ok || state.Version != tls.VersionTLS13 {
		return fmt.Errorf("TLS is %v, %#x", ok, state.Version)
	}
	if err := c.Mail("s@example.com", &gosmtp.MailOptions{RequireTLS: true}); err != nil {
		return err
	}
	if err := c.Reset(); err != nil {
		return err
	}
	if err := c.SendMail("s@example.com", []string{"r@example.net"}, strings.NewReader(content)); err != nil {
		return err
	}
	return c.Quit()
}
