package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailrace/bench/sink"
)

// authority is an issuer of certificates, made with openssl.
type authority struct {
	t            *testing.T
	dir          string
	chain, key   string
	certificates int
}

func newAuthority(t *testing.T, dir string) *authority {
	t.Helper()
	a := &authority{t: t, dir: dir, chain: filepath.Join(dir, "ca.pem"), key: filepath.Join(dir, "ca.key")}
	a.openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=Test CA", "-keyout", a.key, "-out", a.chain)
	return a
}

func (a *authority) openssl(args ...string) {
	a.t.Helper()
	if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
		a.t.Fatalf("openssl %s: %v\n%s", args[0], err, out)
	}
}

// issue makes a certificate for names in the form of subjectAltName, with a key of elliptic curves, or as -newkey of openssl says.
func (a *authority) issue(names string, newKey ...string) (chain, key string) {
	a.t.Helper()
	if len(newKey) == 0 {
		newKey = []string{"ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"}
	}
	a.certificates++
	base := filepath.Join(a.dir, fmt.Sprint("leaf", a.certificates))
	extensions := write(a.t, a.dir, "extensions", "subjectAltName="+names+"\nextendedKeyUsage=serverAuth\n")
	a.openssl(append([]string{"req", "-nodes", "-subj", "/CN=leaf", "-keyout", base + ".key", "-out", base + ".csr", "-newkey"}, newKey...)...)
	a.openssl("x509", "-req", "-in", base+".csr", "-CA", a.chain, "-CAkey", a.key, "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", base+".pem")
	return base + ".pem", base + ".key"
}

// verified makes the route of a configuration want verified certificates, issued by a.
func (a *authority) verified(config, to string) string {
	route := fmt.Sprintf("to = %q\n", to)
	return strings.Replace(config, route, route+"tls = \"verified\"\n", 1) + fmt.Sprintf("[egress]\nca = %q\n", a.chain)
}

// TestNodeToNode relays from one node to another under verified TLS, with certificates that openssl issued: also what asks for REQUIRETLS, which
// goes no further than to where it is kept. A certificate for another name gets nothing.
func TestNodeToNode(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, dir)
	far := receiver(t, sink.Options{Store: filepath.Join(dir, "store")})
	nodeDir := func(name string) string {
		d := filepath.Join(dir, name)
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		return d
	}
	with := func(names string) string {
		chain, key := ca.issue(names)
		return fmt.Sprintf("[tls]\ncertificates = [{ chain = %q, key = %q }]\n", chain, key)
	}
	second := serve(t, configOf(nodeDir("second"), "127.0.0.1:0", "smtp://"+far.Addr(), with("IP:127.0.0.1")))
	wrong := serve(t, configOf(nodeDir("wrong"), "127.0.0.1:0", "smtp://"+far.Addr(), with("DNS:other.example")))
	first := nodeDir("first")
	n := serve(t, ca.verified(configOf(first, "127.0.0.1:0", "smtp://"+second.smtp, with("IP:127.0.0.1")), "smtp://"+second.smtp))
	lost := nodeDir("lost")
	l := serve(t, ca.verified(configOf(lost, "127.0.0.1:0", "smtp://"+wrong.smtp, with("IP:127.0.0.1")), "smtp://"+wrong.smtp))

	source(t, l.smtp, 1)
	await(t, "a deferral", func() (bool, string) {
		found := eventsOf(t, lost, "deferral")
		return len(found) > 0 && found[0].Enhanced == "4.7.5" && strings.Contains(found[0].Text, "127.0.0.1"), fmt.Sprint(found)
	})
	source(t, n.smtp, 500)
	n.awaitEmpty()
	second.awaitEmpty()
	n.stop()
	second.stop()
	if got := stored(t, filepath.Join(dir, "store")); len(got) != 500 {
		t.Errorf("%d messages arrived", len(got))
	}
	for _, e := range eventsOf(t, first, "delivery") {
		if e.TLSVersion != "TLS 1.3" || e.TLSCipher == "" {
			t.Fatalf("%+v", e)
		}
	}
	for _, e := range eventsOf(t, filepath.Join(dir, "second"), "reception") {
		if e.TLSVersion != "TLS 1.3" {
			t.Fatalf("%+v", e)
		}
	}
}

// happening is a line of the event log.
type happening struct {
	Type, Recipient, Enhanced, Text string
	TLSVersion                      string `json:"tls_version"`
	TLSCipher                       string `json:"tls_cipher"`
}

// eventsOf reads what the event log in dir holds of a type so far.
func eventsOf(t *testing.T, dir, typ string) (found []happening) {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(dir, "events.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		var h happening
		if !strings.HasSuffix(line, "\n") {
			break
		}
		if err := json.Unmarshal([]byte(line), &h); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if h.Type == typ {
			found = append(found, h)
		}
	}
	return found
}

// TestOpenSSLServers delivers to servers whose TLS is OpenSSL's: versions 1.2 and 1.3, binary content among the others.
func TestOpenSSLServers(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, dir)
	chain, key := ca.issue("IP:127.0.0.1")
	script := write(t, dir, "server.py", securePythonServer)
	for _, version := range []string{"TLSv1.2", "TLSv1.3"} {
		t.Run(version, func(t *testing.T) {
			address, out := make(chan string, 1), filepath.Join(dir, version)
			server := run(t, func(line string) {
				select {
				case address <- line:
				default: // it is no address
				}
			}, "python3", script, out, chain, key, version)
			to := "smtp://" + receive(t, address, server)
			nodeDir := t.TempDir()
			n := serve(t, ca.verified(configOf(nodeDir, "127.0.0.1:0", to, ""), to))
			source(t, n.smtp, 200)
			const binary = "Subject: b\r\n\r\n\x00.\n.\r\r\n.\r\n\xff no end"
			d := dialSMTP(t, n.smtp)
			d.say("EHLO client.example", 250)
			for range 20 {
				d.say("MAIL FROM:<b@example.com> BODY=BINARYMIME", 250)
				d.say("RCPT TO:<r@example.net>", 250)
				d.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(binary), binary))
				d.expect(250)
			}
			n.awaitEmpty()
			n.stop()
			server.stop()
			binaries, others := 0, 0
			log, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(log)) {
				var m struct{ TLS, Mail, Content string } // octets as the code points of Latin-1
				if err := json.Unmarshal([]byte(line), &m); err != nil {
					t.Fatal(err)
				}
				var content []byte
				for _, c := range m.Content {
					content = append(content, byte(c))
				}
				if m.TLS != version {
					t.Fatalf("by %q", m.TLS)
				}
				if !strings.Contains(m.Mail, "BODY=BINARYMIME") {
					others++
				} else if binaries++; !strings.HasSuffix(string(content), "\r\n"+binary) {
					t.Fatalf("%q", content)
				}
			}
			if binaries != 20 || others != 200 {
				t.Errorf("%d and %d messages arrived", binaries, others)
			}
		})
	}
}

// receive waits for what a process says.
func receive(t *testing.T, from <-chan string, p *process) string {
	t.Helper()
	select {
	case s := <-from:
		return s
	case <-p.exited:
		t.Fatalf("%v\n%s", p.err, p.output())
	case <-time.After(patience):
		t.Fatalf("nothing is said\n%s", p.output())
	}
	return ""
}

// securePythonServer writes a line for each message. It says where it listens.
const securePythonServer = `
import json, signal, socket, ssl, sys, threading
out, chain, key, version = sys.argv[1:5]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(chain, key)
context.minimum_version = context.maximum_version = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}[version]
lock, log = threading.Lock(), open(out, "w")

def serve(c):
    f, secure, mail, ok = c.makefile("rb"), "", "", b"250 ok\r\n"
    def say(b):
        c.sendall(b)
    def keep(content):
        with lock:
            log.write(json.dumps({"tls": secure, "mail": mail, "content": content.decode("latin-1")}) + "\n")
            log.flush()
        say(ok)
    say(b"220 far.example\r\n")
    while True:
        line = f.readline()
        if not line:
            return
        verb = line[:4].upper()
        if verb == b"EHLO":
            say(b"250-far.example\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250-8BITMIME\r\n" + (b"250 SIZE\r\n" if secure else b"250 STARTTLS\r\n"))
        elif verb == b"STAR":
            say(b"220 go ahead\r\n")
            c = context.wrap_socket(c, server_side=True)
            f, secure = c.makefile("rb"), c.version()
        elif verb == b"DATA":
            say(b"354 go on\r\n")
            lines = []
            while True:
                line = f.readline()
                if line == b".\r\n":
                    break
                lines.append(line[1:] if line.startswith(b".") else line)
            keep(b"".join(lines))
        elif verb == b"BDAT":
            keep(f.read(int(line.split()[1])))
        elif verb == b"QUIT":
            say(b"221 bye\r\n")
            return
        else:
            if verb == b"MAIL":
                mail = line.decode()
            say(ok)

l = socket.create_server(("127.0.0.1", 0), backlog=100)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("127.0.0.1:%d" % l.getsockname()[1], file=sys.stderr, flush=True)
while True:
    c, _ = l.accept()
    threading.Thread(target=serve, args=(c,), daemon=True).start()
`
