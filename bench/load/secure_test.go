package load_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailrace/bench/certificate"
	"mailrace/bench/ledger"
	"mailrace/bench/load"
	"mailrace/bench/sink"
)

// files are a certificate of this machine, and its key.
func files(t *testing.T) (chain, key string) {
	t.Helper()
	pair, err := certificate.New("localhost", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if chain, key, err = pair.Write(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	return chain, key
}

// TestUnderTLS: every message arrives once and whole, whichever way to TLS is taken.
func TestUnderTLS(t *testing.T) {
	chain, key := files(t)
	for name, o := range map[string]load.Options{
		"pipelined":         {Messages: 2000, Connections: 20},
		"lock step":         {Messages: 200, Connections: 10, LockStep: true},
		"some a connection": {Messages: 100, Connections: 10, PerConnection: 7},
		"large":             {Messages: 20, Connections: 4, Sizes: load.Sizes{{Octets: 3 << 20, Weight: 1}}, Dots: true},
	} {
		for _, way := range []string{load.STARTTLS, load.ImplicitTLS} {
			for _, version := range []string{"1.2", "1.3"} {
				t.Run(name+" "+way+" "+version, func(t *testing.T) {
					s := startSink(t, sink.Options{TLS: way, Chain: chain, Key: key})
					o := o
					o.Address, o.Run = s.Addr(), ledger.NewRunID()
					o.Secure = load.Secure{TLS: way, TLSVersion: version, CA: chain}
					o.Acknowledged = ledger.NewTally(o.Run, 1)
					r := run(t, o)
					if r.Accepted != o.Messages || r.Lost+r.Tempfail+r.Permfail+r.Broken != 0 || !strings.HasPrefix(r.TLS, "TLS "+version+" TLS_") {
						t.Errorf("%+v", r)
					}
					want := ledger.Account{Acknowledged: o.Messages, Arrived: o.Messages}
					if a := ledger.Compare(o.Acknowledged, s.Book().Run(o.Run)); a != want {
						t.Errorf("account %+v, want %+v", a, want)
					}
				})
			}
		}
	}
}

// TestServersThatAreNotTrusted: no mail goes to a server whose certificate is not good, or that has no TLS.
func TestServersThatAreNotTrusted(t *testing.T) {
	chain, key := files(t)
	other, _ := files(t)
	for name, test := range map[string]struct {
		sink sink.Options
		load load.Secure
		want string // in Failure
	}{
		"nobody's certificate": {sink.Options{TLS: load.STARTTLS}, load.Secure{TLS: load.STARTTLS}, "unknown authority"},
		"another's":            {sink.Options{TLS: load.ImplicitTLS, Chain: chain, Key: key}, load.Secure{TLS: load.ImplicitTLS, CA: other}, "certificate"},
		"no STARTTLS":          {sink.Options{}, load.Secure{TLS: load.STARTTLS, Insecure: true}, "server: 502"},
	} {
		t.Run(name, func(t *testing.T) {
			s := startSink(t, test.sink)
			r, err := load.Run(t.Context(), load.Options{Address: s.Addr(), Messages: 10, Connections: 2, Secure: test.load})
			if err != nil || r.Accepted+r.Started != 0 || r.Broken != 2 || !strings.Contains(r.Failure, test.want) {
				t.Errorf("%v, %+v", err, r)
			}
		})
	}
	s := startSink(t, sink.Options{TLS: load.STARTTLS})
	if r := run(t, load.Options{Address: s.Addr(), Messages: 10, Secure: load.Secure{TLS: load.STARTTLS, Insecure: true}}); r.Accepted != 10 {
		t.Errorf("insecure: %+v", r)
	}
}

// TestAuth logs in before the first message, and sends nothing where that is refused.
func TestAuth(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("open sesame\r\nnot this\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00ali\x00open sesame"))
	server := func(answer string) script {
		return func(_ int, c *wire) {
			c.say("220 x")
			c.hear()
			c.say("250-x", "250-AUTH PLAIN", "250 PIPELINING")
			line, _ := c.r.ReadString('\n')
			if got := strings.TrimSpace(line); got != want {
				t.Errorf("%q, want %q", got, want)
			}
			c.say(answer)
			c.dialogue("250-x", "250 PIPELINING")
		}
	}
	o := load.Options{Messages: 20, Connections: 2, Secure: load.Secure{User: "ali", PasswordFile: password}}
	o.Address = startScript(t, server("235 2.7.0 welcome"))
	if r := run(t, o); r.Accepted != 20 || r.Broken != 0 {
		t.Errorf("%+v", r)
	}
	o.Address = startScript(t, server("535 5.7.8 who?"))
	if r, err := load.Run(t.Context(), o); err != nil || r.Started != 0 || r.Broken != 2 || !strings.Contains(r.Failure, "535 5.7.8") {
		t.Errorf("%v, %+v", err, r)
	}
}

// TestT2ResponseInjection: what a server sends in clear behind its answer to STARTTLS ends the connection (T2).
func TestT2ResponseInjection(t *testing.T) {
	address := startScript(t, func(_ int, c *wire) {
		c.say("220 x")
		c.hear()
		c.say("250-x", "250 STARTTLS")
		c.hear()
		c.say("220 go", "250-evil")
		c.hear()
	})
	r, err := load.Run(t.Context(), load.Options{Address: address, Messages: 1, Connections: 1, Secure: load.Secure{TLS: load.STARTTLS, Insecure: true}})
	if err != nil || r.Started != 0 || r.Broken != 1 || !strings.Contains(r.Failure, "clear") {
		t.Errorf("%v, %+v", err, r)
	}
}
