package engine

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailrace/engine/auth"
	"mailrace/engine/config"
)

// TestInjectBehindAProxy: users behind a proxy that tells their addresses are told apart: who guesses at a password does not lock out the one who has it,
// and records name the client.
func TestInjectBehindAProxy(t *testing.T) {
	t.Parallel()
	c := injecting(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToDiscard}})
	hash, err := auth.HashPassword("right horse")
	if err != nil {
		t.Fatal(err)
	}
	c.Auth.Users, c.Auth.Failures = filepath.Join(t.TempDir(), "users.toml"), 2
	if err := os.WriteFile(c.Auth.Users, fmt.Appendf(nil, "[[user]]\nname = \"app\"\npassword = %q\n", hash), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Admin.InjectFrom, c.Admin.InjectUsers, c.Admin.ProxyFrom = nil, true, loopback
	r := start(t, c)
	send := func(from, password string) (int, string) {
		t.Helper()
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			var dialer net.Dialer
			nc, err := dialer.DialContext(ctx, network, address)
			if err == nil {
				_, err = fmt.Fprintf(nc, "PROXY TCP4 %s 192.0.2.1 40001 8025\r\n", from)
			}
			return nc, err
		}}}
		q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+r.AdminAddr().String()+"/v1/messages",
			strings.NewReader(`{"envelope":{"from":"s@shop.example","to":["a@far.example"]},"text":"x"}`))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Content-Type", "application/json")
		q.SetBasicAuth("app", password)
		res, err := client.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		answer, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(answer)
	}
	const home, stranger = "198.51.100.7", "203.0.113.9"
	if status, answer := send(home, "right horse"); status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
	blocked := false
	for i := 0; i < 20 && !blocked; i++ {
		status, answer := send(stranger, fmt.Sprint("wrong ", i))
		if blocked = status == 503; !blocked && status != 401 {
			t.Fatalf("%d %s", status, answer)
		}
	}
	if !blocked {
		t.Error("a stranger may guess for ever")
	}
	if status, answer := send(home, "typo"); status != 401 {
		t.Errorf("at home: %d %s", status, answer)
	}
	if e := r.record("reception", "a@far.example", 1); e.Peer != home {
		t.Errorf("%+v", e)
	}
}
