package engine

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdg-go/scram"

	"mailrace/engine/auth"
	"mailrace/engine/config"
)

// withUsers are settings with a listener of each mode, where alice may log in, and nobody may relay otherwise.
func withUsers(t *testing.T) *config.Config {
	t.Helper()
	c := secured(t)
	for i := range c.Listeners {
		c.Listeners[i].RelayFrom = nil
	}
	c.Auth = config.Default().Auth
	c.Auth.Users, c.Auth.FailureDelay = filepath.Join(t.TempDir(), "users.toml"), 0
	hash, err := auth.HashPassword("right")
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := auth.NewVerifier("right")
	if err != nil {
		t.Fatal(err)
	}
	addUser(t, c, config.User{Name: "alice", Password: hash, SCRAM: verifier, Tenant: "acme"})
	return c
}

func addUser(t *testing.T, c *config.Config, u config.User) {
	t.Helper()
	if err := config.ChangeUsers(c.Auth.Users, UserForms(), true, func(f *config.UsersFile) error { return f.Set(u) }); err != nil {
		t.Fatal(err)
	}
}

const loginAlice = "AUTH PLAIN AGFsaWNlAHJpZ2h0"

// TestT4NotInClear: AUTH is served on submission listeners only, under TLS only, and mail needs it there.
func TestT4NotInClear(t *testing.T) {
	t.Parallel()
	r := start(t, withUsers(t))
	for listener, mode := range []string{"mx", "submission", "submissions"} {
		if mode != "submissions" {
			d := &dialog{t, connect(t, r.Addr(listener).String())}
			d.expect(220)
			if offer := d.say("EHLO client.example", 250); strings.Contains(offer, "AUTH") {
				t.Errorf("%s: offered in clear: %q", mode, offer)
			}
			code := map[string]int{"mx": 502, "submission": 538}[mode]
			d.say(loginAlice, code)
			d.say("QUIT", 221)
			d.end()
		}
		d, _ := r.dialTLS(listener, insecure(""))
		offer := d.say("EHLO client.example", 250)
		if mode == "mx" {
			if strings.Contains(offer, "AUTH") {
				t.Errorf("offered at mx: %q", offer)
			}
			d.say(loginAlice, 502)
			d.say("MAIL FROM:<a@b.example>", 250)
			d.say("RCPT TO:<a@far.example>", 550)
			continue
		}
		if !strings.Contains(offer, "\r\n250-AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN\r\n") {
			t.Errorf("%s: %q", mode, offer)
		}
		d.say("MAIL FROM:<a@b.example>", 530)
		d.say(loginAlice, 235)
		id := d.mail("MAIL FROM:<a@b.example>", "Subject: x\r\n\r\nx\r\n", "r@far.example")
		r.await("a record that names the user", func() bool {
			return slices.ContainsFunc(r.records("reception"), func(e record) bool { return e.ID == id && e.User == "alice" && e.Tenant == "acme" })
		})
	}
}

// TestT4ClearedAtSTARTTLS: who has logged in in clear is nobody under TLS, and may no longer relay.
func TestT4ClearedAtSTARTTLS(t *testing.T) {
	t.Parallel()
	c := withUsers(t)
	yes := true
	c.Listeners[0].Auth, c.Listeners[0].AuthInClear = &yes, true
	r := start(t, c)
	d := &dialog{t, connect(t, r.Addr(0).String())}
	d.expect(220)
	if offer := d.say("EHLO client.example", 250); !strings.Contains(offer, "\r\n250-AUTH SCRAM-SHA-256 PLAIN LOGIN\r\n") {
		t.Errorf("%q", offer)
	}
	d.say(loginAlice, 235)
	d.say("MAIL FROM:<a@b.example>", 250)
	d.say("RCPT TO:<a@far.example>", 250)
	d.say("RSET", 250)
	d.say("STARTTLS", 220)
	conn := tls.Client(d.Conn, insecure(""))
	d = &dialog{t, &wire{Conn: conn, r: bufio.NewReader(conn)}}
	if offer := d.say("EHLO client.example", 250); !strings.Contains(offer, "\r\n250-AUTH SCRAM-SHA-256-PLUS ") {
		t.Errorf("%q", offer)
	}
	d.say("MAIL FROM:<a@b.example>", 250)
	d.say("RCPT TO:<a@far.example>", 550)
	d.say("RSET", 250)
	d.say(loginAlice, 235)
	d.say("MAIL FROM:<a@b.example>", 250)
	d.say("RCPT TO:<a@far.example>", 250)
}

// scram logs in with a mechanism of SCRAM, and returns the code of the last reply.
func (d *dialog) scram(mechanism, password string, binding *scram.ChannelBinding) string {
	d.t.Helper()
	client, err := scram.SHA256.NewClient("alice", password, "")
	if err != nil {
		d.t.Fatal(err)
	}
	conversation := client.NewConversation()
	if binding != nil {
		conversation = client.NewConversationWithChannelBinding(*binding)
	}
	line, challenge := "AUTH "+mechanism+" ", ""
	for {
		response, err := conversation.Step(challenge)
		if err != nil {
			d.t.Fatalf("%s: %v of %q", mechanism, err, challenge)
		}
		reply := d.exchange(line + base64.StdEncoding.EncodeToString([]byte(response)))
		if !strings.HasPrefix(reply, "334 ") {
			return reply[:3]
		}
		text, err := base64.StdEncoding.DecodeString(strings.TrimSpace(reply[4:]))
		if err != nil {
			d.t.Fatal(err)
		}
		line, challenge = "", string(text)
	}
}

// exchange sends a line and takes any reply.
func (d *dialog) exchange(line string) string {
	d.t.Helper()
	if _, err := d.Write([]byte(line + "\r\n")); err != nil {
		d.t.Fatal(err)
	}
	reply, err := d.r.ReadString('\n')
	if err != nil {
		d.t.Fatal(err)
	}
	return reply
}

// TestScramPlus binds logins to the TLS that they came by, in every way that there is, and refuses those that were made for another.
func TestScramPlus(t *testing.T) {
	t.Parallel()
	c := withUsers(t)
	c.Limits.Client.AuthFailures = 0
	r := start(t, c)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, kind := range []scram.ChannelBindingType{scram.ChannelBindingTLSExporter, scram.ChannelBindingTLSUnique, scram.ChannelBindingTLSServerEndpoint} {
			for _, name := range []string{"mta.test.example", "other.test.example"} {
				cfg := insecure(name)
				cfg.MinVersion, cfg.MaxVersion = version, version
				d, conn := r.dialTLS(2, cfg)
				state := conn.ConnectionState()
				var data []byte
				switch kind {
				case scram.ChannelBindingTLSExporter:
					data, _ = state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
				case scram.ChannelBindingTLSUnique:
					data = state.TLSUnique
				default:
					sum := sha256.Sum256(state.PeerCertificates[0].Raw)
					data = sum[:]
				}
				if len(data) == 0 { // tls-unique is not of TLS 1.3
					continue
				}
				if got := d.scram("SCRAM-SHA-256-PLUS", "wrong", &scram.ChannelBinding{Type: kind, Data: data}); got != "535" {
					t.Errorf("%s, %s: a wrong password: %s", tls.VersionName(version), kind, got)
				}
				if got := d.scram("SCRAM-SHA-256-PLUS", "right", &scram.ChannelBinding{Type: kind, Data: append([]byte("x"), data...)}); got != "535" {
					t.Errorf("%s, %s: bound to another: %s", tls.VersionName(version), kind, got)
				}
				if got := d.scram("SCRAM-SHA-256-PLUS", "right", &scram.ChannelBinding{Type: kind, Data: data}); got != "235" {
					t.Errorf("%s, %s: %s", tls.VersionName(version), kind, got)
				}
				d.say("MAIL FROM:<a@b.example>", 250)
			}
		}
	}
	d, _ := r.dialTLS(2, insecure(""))
	if got := d.scram("SCRAM-SHA-256", "right", nil); got != "235" {
		t.Error(got)
	}
	if n := r.auth.Hashes(); n != 0 {
		t.Errorf("%d hashes", n)
	}
}

// TestEndpoints: the hash of a certificate is that of its signature. RFC 5929 §4.1
func TestEndpoints(t *testing.T) {
	t.Parallel()
	for curve, octets := range map[elliptic.Curve]int{elliptic.P256(): 32, elliptic.P384(): 48, elliptic.P521(): 64} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		c := &certificates{}
		c.inUse.Store(&[]tls.Certificate{{Certificate: [][]byte{der}, Leaf: leaf}, {Certificate: [][]byte{der}}})
		if got := c.endpoints(); len(got) != 2 || len(got[0]) != octets || len(got[1]) != 32 {
			t.Errorf("%s: %x", curve.Params().Name, got)
		}
	}
}

// TestUsersChange: who is added gets in, and who is taken out does not, without a restart.
func TestUsersChange(t *testing.T) {
	t.Parallel()
	c := withUsers(t)
	r := start(t, c)
	hash, err := auth.HashPassword("secret")
	if err != nil {
		t.Fatal(err)
	}
	addUser(t, c, config.User{Name: "bob", Password: hash})
	r.await("bob", func() bool { return r.auth.Find("bob") != nil })
	d, _ := r.dialTLS(1, insecure(""))
	d.say("AUTH PLAIN AGJvYgBzZWNyZXQ=", 235)
	if err := config.ChangeUsers(c.Auth.Users, UserForms(), false, func(f *config.UsersFile) error { _, err := f.Remove("bob"); return err }); err != nil {
		t.Fatal(err)
	}
	r.await("bob's end", func() bool { return r.auth.Find("bob") == nil })
	d.say("MAIL FROM:<b@b.example>", 421)
	d.end()
	if err := os.WriteFile(c.Auth.Users, []byte("[[user]]\nname = \"alice\"\npassword = \"plain\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CheckUsers(c); err == nil || !strings.Contains(err.Error(), ":3:12: user.password: ") {
		t.Error(err)
	}
}
