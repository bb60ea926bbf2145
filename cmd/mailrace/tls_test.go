package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

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
	}
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
	n.awaitEmpty()
	n.stop()
	got := stored(t, filepath.Join(dir, "store"))
	if len(got) != len(clients) {
		t.Errorf("%d messages arrived from %d clients", len(got), len(clients))
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
