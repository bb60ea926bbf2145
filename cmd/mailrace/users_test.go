package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"

	"mailrace/bench/dialog"
	"mailrace/bench/sink"
)

// typing runs a program on a terminal and answers its prompts.
const typing = `
import os, pty, sys
answers, argv = sys.argv[1].split("|"), sys.argv[2:]
pid, tty = pty.fork()
if pid == 0:
    os.execvp(argv[0], argv)
said = b""
while True:
    try:
        p = os.read(tty, 1000)
    except OSError:
        break
    if not p:
        break
    said += p
    if p.rstrip().endswith(b":") and answers:
        os.write(tty, answers.pop(0).encode() + b"\n")
sys.stdout.write(said.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`

// with runs the program to its end with a standard input.
func with(t *testing.T, stdin string, args ...string) (out string, status int) {
	t.Helper()
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(bin, args...)
	c.Stdin = strings.NewReader(stdin)
	b, err := c.CombinedOutput()
	if err != nil && c.ProcessState == nil {
		t.Fatal(err)
	}
	return string(b), c.ProcessState.ExitCode()
}

func TestUserCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, script := filepath.Join(dir, "users.toml"), write(t, dir, "typing.py", typing)
	cfg := write(t, dir, "mailrace.toml", fmt.Sprintf("[auth]\nusers = %q\n", file)) // the rest may follow
	for _, step := range []struct {
		stdin  string
		args   []string
		status int
		want   string
	}{
		{"secret\n", []string{"add", "alice@example.com", "--password-stdin", "--sender", "*@example.com", "--sender", "<>", "--tenant", "acme", "--messages", "1000"}, 0, "added alice@example.com"},
		{"secret\r\n", []string{"add", "bob", "--password-stdin", "--scram=false"}, 0, "added bob"},
		{"secret\n", []string{"add", "Bob", "--password-stdin"}, 1, "already: mailrace user passwd"},
		{"", []string{"add", "carol", "--password-stdin"}, 1, "the password is empty"},
		{"", []string{"add", "carol"}, 1, "no terminal"},
		{"x\n", []string{"add", "c d", "--password-stdin"}, 1, "the name has spaces"},
		{"x\n", []string{"add", "carol", "--password-stdin", "--sender", "example.com"}, 1, `--sender: "example.com" is no sender`},
		{"x\n", []string{"add", "carol", "--password-stdin", "--messages", "-1"}, 1, "limits below 0"},
		{"\U0001f511\n", []string{"add", "carol", "--password-stdin"}, 0, "cannot log in by SCRAM"},
		{"new\n", []string{"passwd", "BOB", "--password-stdin"}, 0, "changed the password of BOB"},
		{"new\n", []string{"passwd", "dave", "--password-stdin"}, 1, `"dave" is not in`},
		{"", []string{"rm", "carol"}, 0, "removed carol"},
		{"", []string{"rm", "carol"}, 1, `"carol" is not in`},
		{"", []string{"ls"}, 0, "acme"},
	} {
		out, status := with(t, step.stdin, append(append([]string{"user"}, step.args...), "--config", cfg)...)
		if status != step.status || !strings.Contains(out, step.want) || strings.Contains(out, "secret") {
			t.Errorf("%v: status %d: %s", step.args, status, out)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	out, _ := with(t, "", "user", "ls", "--json", "--file", file)
	var list struct{ Users []listedUser }
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Users) != 2 || list.Users[0].Messages != 1000 || list.Users[0].Senders[1] != "<>" ||
		list.Users[1].Password != "argon2id" || !list.Users[1].SCRAM || strings.Contains(out, "$") {
		t.Errorf("%v: %s", err, out)
	}
	bin, _ := program()
	for answers, want := range map[string]string{"hidden|hidden": "added eve", "hidden|other": "the passwords are not the same"} {
		b, err := exec.Command("python3", script, answers, bin, "user", "add", "eve", "--file", filepath.Join(dir, "others.toml")).CombinedOutput()
		if !bytes.Contains(b, []byte(want)) || bytes.Contains(b, []byte("hidden")) || (err == nil) != strings.HasPrefix(want, "added") {
			t.Errorf("%s: %v\n%s", answers, err, b)
		}
	}
	bad := write(t, dir, "bad.toml", "[[user]]\nname = \"x\"\npassword = \"secret\"\n")
	own := write(t, dir, "own.toml", fmt.Sprintf("hostname = \"a.example\"\n[[listener]]\naddress = \"127.0.0.1:0\"\nmode = \"mx\"\n[auth]\nusers = %q\n", bad))
	want := bad + `:3:12: user.password: not a hash of a known form: want "$argon2id$…" or "$2y$…", as mailrace user makes them` + "\n"
	for _, args := range [][]string{{"check", "--config", own}, {"user", "ls", "--file", bad}} {
		if out, status := with(t, "", args...); status != 1 || out != "mailrace: "+want {
			t.Errorf("%v: status %d: %s", args, status, out)
		}
	}
}

// authTraceHeader is our Received header on mail of a user under TLS.
var authTraceHeader = regexp.MustCompile(`\AReceived: from \S+ \(\[127\.0\.0\.1\]\)\r?\n\tby mta\.test\.example with ESMTPSA id [0-9A-Z]{13}\r?\n`)

// authTry is what a round of clients tries: with a password and a token that are right, or not.
type authTry struct {
	submission, submissions string // addresses
	chain, file             string // the certificate, and the message
	user, password, token   string
	ok                      bool
}

// passwords are clients that log in with the password. Each sends a message.
func (a *authTry) passwords(scripts map[string]string) (clients [][]string) {
	host, port, _ := strings.Cut(a.submission, ":")
	withTLS := exec.Command("perl", "-MNet::SSLeay", "-e", "1").Run() == nil // swaks
	for _, mechanism := range []string{"PLAIN", "LOGIN"} {
		clients = append(clients,
			append(a.curl("smtp://"+a.submission, mechanism), "--ssl-reqd", "--user", a.user+":"+a.password),
			[]string{"python3", scripts["py"], host, port, a.chain, a.file, mechanism, a.user, a.password}, a.node(scripts, mechanism))
		if withTLS {
			clients = append(clients, []string{"swaks", "--server", host, "--port", port, "--from", "s@example.com", "--to", "r@example.net", "--data", "@" + a.file,
				"--suppress-data", "--tls", "--auth", mechanism, "--auth-user", a.user, "--auth-password", a.password})
		}
	}
	for _, mechanism := range []string{"plain", "login", "scram-sha-256"} {
		clients = append(clients, a.msmtp(mechanism, a.password))
	}
	return clients
}

// tokens are clients that log in with the token.
func (a *authTry) tokens(scripts map[string]string) (clients [][]string) {
	for _, mechanism := range []string{"XOAUTH2", "OAUTHBEARER"} {
		clients = append(clients, append(a.curl("smtps://"+a.submissions, mechanism), "--user", a.user, "--oauth2-bearer", a.token),
			a.msmtp(strings.ToLower(mechanism), a.token))
	}
	return append(clients, a.node(scripts, "XOAUTH2"))
}

func (a *authTry) curl(url, mechanism string) []string {
	return []string{"curl", "--silent", "--show-error", url, "--cacert", a.chain, "--mail-from", "s@example.com", "--mail-rcpt", "r@example.net",
		"--upload-file", a.file, "--login-options", "AUTH=" + mechanism}
}

func (a *authTry) msmtp(mechanism, secret string) []string {
	_, port, _ := strings.Cut(a.submission, ":")
	return []string{"sh", "-c", `exec msmtp --host=localhost --port=$0 --tls=on --tls-trust-file="$1" --from=s@example.com --auth=$3 --user=$4 --passwordeval="printf %s '$5'" ` +
		`--set-date-header=off --set-msgid-header=off -- r@example.net <"$2"`, port, a.chain, a.file, mechanism, a.user, secret}
}

func (a *authTry) node(scripts map[string]string, mechanism string) []string {
	_, port, _ := strings.Cut(a.submission, ":")
	return []string{"env", "NODE_PATH=" + nodeModules(), "NODE_EXTRA_CA_CERTS=" + a.chain, "node", scripts["js"], "localhost", port, a.file, mechanism, a.user, a.password, a.token}
}

// TestAuthClients logs in with programs that people use, by every mechanism that they know, and with a wrong password.
func TestAuthClients(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	chain, key := certificate(t, dir)
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"active":%v,"email":"alice@example.com"}`, r.PostFormValue("token") == "t0ken")
	}))
	t.Cleanup(idp.Close)
	users := filepath.Join(dir, "users.toml")
	if out, status := with(t, "pa ss+w\u00f6rd\n", "user", "add", "alice@example.com", "--password-stdin", "--sender", "*@example.com", "--file", users); status != 0 {
		t.Fatal(out)
	}
	if out, status := with(t, "right\n", "user", "add", "bob", "--password-stdin", "--file", users); status != 0 {
		t.Fatal(out)
	}
	far := receiver(t, sink.Options{Store: filepath.Join(dir, "store")})
	n := serve(t, strings.Replace(configOf(dir, "127.0.0.1:0", "smtp://"+far.Addr(), fmt.Sprintf(`[tls]
certificates = [{ chain = %q, key = %q }]
[[listener]]
address = "127.0.0.1:0"
mode = "submission"
[[listener]]
address = "127.0.0.1:0"
mode = "submissions"
[auth]
users = %q
failure_delay = "0s"
failures = 0
[auth.oauth]
introspection = %q
[limits.client]
auth_failures = 0
`, chain, key, users, idp.URL)), `relay_from = ["127.0.0.0/8"]`, "", 1))
	content := "From: <s@example.com>\r\nTo: <r@example.net>\r\nSubject: a client\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <a@example.com>\r\n\r\nHello,\r\n"
	file := write(t, dir, "message.eml", content)
	scripts := map[string]string{"py": write(t, dir, "auth.py", authPython), "js": write(t, dir, "auth.js", authNode)}
	sent := 0
	for _, round := range []authTry{
		{n.others[0], n.others[1], chain, file, "alice@example.com", "pa ss+w\u00f6rd", "t0ken", true},
		{n.others[0], n.others[1], chain, file, "alice@example.com", "pa ss+w\u00f6rdx", "t0kenx", false},
	} {
		clients := append(round.passwords(scripts), round.tokens(scripts)...)
		for _, args := range clients {
			out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
			if (err == nil) != round.ok {
				t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
			}
		}
		libraries := []sasl.Client{
			sasl.NewPlainClient("", round.user, round.password), sasl.NewLoginClient(round.user, round.password),
			sasl.NewOAuthBearerClient(&sasl.OAuthBearerOptions{Username: round.user, Token: round.token, Host: "localhost", Port: 465}),
		}
		for _, c := range libraries {
			if err := goAuthClient(round.submissions, c, content); (err == nil) != round.ok {
				t.Errorf("go-smtp with %T: %v", c, err)
			}
		}
		if round.ok {
			sent = len(clients) + len(libraries)
		}
	}
	n.awaitEmpty()
	figures := metricsOf(t, n)
	n.stop()
	got := stored(t, filepath.Join(dir, "store"))
	if len(got) != sent {
		t.Errorf("%d messages arrived from %d clients", len(got), sent)
	}
	for _, m := range got {
		if !authTraceHeader.MatchString(m) {
			t.Errorf("%q", m)
		}
	}
	log, err := os.ReadFile(filepath.Join(dir, "events.jsonl"))
	if err != nil || strings.Count(string(log), `"user":"alice@example.com"`) < sent {
		t.Errorf("the event log does not name the user: %v\n%.2000s", err, log)
	}
	for _, mechanism := range []string{"PLAIN", "LOGIN", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2"} {
		for _, result := range []string{"ok", "refused"} {
			if want := fmt.Sprintf(`mailrace_ingress_auth_total{mechanism=%q,result=%q}`, mechanism, result); !strings.Contains(figures, want) {
				t.Errorf("%s is missing", want)
			}
		}
	}
	if !strings.Contains(figures, "\nmailrace_auth_users 2\n") {
		t.Error("the number of users is missing")
	}
}

// metricsOf asks the node for its figures.
func metricsOf(t *testing.T, n *node) string {
	t.Helper()
	resp, err := http.Get("http://" + n.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// goAuthClient logs in with go-sasl, on a port that begins with TLS, and sends with go-smtp.
func goAuthClient(address string, how sasl.Client, content string) error {
	c, err := gosmtp.DialTLS(address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Auth(how); err != nil {
		return err
	}
	if err := c.SendMail("s@example.com", []string{"r@example.net"}, strings.NewReader(content)); err != nil {
		return err
	}
	return c.Quit()
}

// authPython logs in with a password that the standard library would encode otherwise, and as somebody else with the standard library's own means.
const authPython = `
import smtplib, ssl, sys
host, port, ca, file, mechanism, user, password = sys.argv[1:]
with smtplib.SMTP(host, int(port)) as s:
    s.ehlo("client.example")
    assert not s.has_extn("auth"), "AUTH is offered in clear"
    assert s.docmd("AUTH", "PLAIN AGEAYg==")[0] == 538
    s.starttls(context=ssl.create_default_context(cafile=ca))
    s.ehlo("client.example")
    assert s.esmtp_features["auth"].split() == ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2"], s.esmtp_features["auth"]
    assert s.mail("s@example.com")[0] == 530
    import base64
    def encode(s):
        return base64.b64encode(s.encode()).decode()
    if mechanism == "PLAIN":
        code, text = s.docmd("AUTH", "PLAIN " + encode("\0" + user + "\0" + password))
    else:
        code, text = s.docmd("AUTH", "LOGIN")
        assert (code, text) == (334, encode("Username:").encode()), text
        code, text = s.docmd(encode(user))
        assert (code, text) == (334, encode("Password:").encode()), text
        code, text = s.docmd(encode(password))
    assert code == 235, text
    assert s.mail("s@example.org")[0] == 553
    refused = s.sendmail("s@example.com", ["r@example.net"], open(file, "rb").read())
    assert not refused, refused
with smtplib.SMTP(host, int(port)) as s:
    s.starttls(context=ssl.create_default_context(cafile=ca))
    s.ehlo("client.example")
    if mechanism == "PLAIN":
        s.login("bob", "right")
    else:
        s.user, s.password = "bob", "right"
        s.auth("LOGIN", s.auth_login)
    assert s.mail("anybody@example.org")[0] == 250
`

// authNode logs in with nodemailer.
const authNode = `
const [host, port, file, method, user, pass, accessToken] = process.argv.slice(2);
const auth = method === "XOAUTH2" ? {type: "OAuth2", user, accessToken} : {user, pass};
const transport = require("nodemailer").createTransport({host, port: Number(port), requireTLS: true, name: "client.example", auth, authMethod: method});
transport.sendMail({envelope: {from: "s@example.com", to: ["r@example.net"]}, raw: require("fs").readFileSync(file)})
  .then((info) => { if (info.accepted.length !== 1) throw new Error(JSON.stringify(info)); })
  .catch((err) => { console.error(err); process.exitCode = 1; });
`

// TestDialogsWithUsers has the dialogs with a submission listener, as nobody and as a user, in clear and under TLS.
func TestDialogsWithUsers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	chain, key := certificate(t, dir)
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"active":false}`) }))
	t.Cleanup(idp.Close)
	// a hash that costs next to nothing, as the dialogs measure silence
	users := write(t, dir, "users.toml", "[[user]]\nname = \"alice\"\npassword = \"$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$P3OLBQw3O3GiY9hpX8wpK8qO6gQccIdDXnlkdzKceqU\"\n")
	free := "connections = 0\nconnection_rate = 0\nmessages = 0\nrecipients = 0\nerrors = 0\nauth_failures = 0\n"
	n := serve(t, configOf(dir, "127.0.0.1:0", "discard", fmt.Sprintf("[tls]\ncertificates = [{ chain = %q, key = %q }]\n[auth]\nusers = %q\nfailures = 0\nfailure_delay = \"0s\"\n"+
		"[auth.oauth]\nintrospection = %q\n[limits]\nmessage_size = 100000\n[limits.client]\n%s[limits.network]\n%s"+
		"[[listener]]\naddress = \"127.0.0.1:0\"\nmode = \"submission\"\nauth_in_clear = true\nrelay_from = [\"127.0.0.0/8\"]\n", chain, key, users, idp.URL, free, free)))
	for _, secure := range []string{"off", "starttls"} {
		for _, mode := range []dialog.Mode{dialog.Whole, dialog.Bytes} {
			for _, user := range []string{"", "alice"} {
				t.Run(secure+"/"+string(mode)+"/"+user, func(t *testing.T) {
					o := dialog.Options{Address: n.others[0], Mode: mode, TLS: secure, User: user, Password: "right"}
					if user != "" {
						o.Only = "^extensions/(auth|sasl|submitter)/"
					}
					allWell(t, o)
				})
			}
		}
	}
	n.stop()
}
