package admin

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

// echo is a service that tells who a request comes from.
func echo(t *testing.T, o Options) (port string) {
	t.Helper()
	o.Ready, o.Scan, o.Log = func() error { return nil }, scanOf(nil), slog.New(slog.DiscardHandler)
	o.InjectPaths = []string{"/who"}
	o.Inject = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RemoteAddr) })
	s, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	_, port, err = net.SplitHostPort(s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// ask sends a request behind whatever stands in front of it, and returns the status and the body of the answer.
func ask(t *testing.T, port, before, path, host string) (status int, body string) {
	t.Helper()
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if host != "" {
		host = "Host: " + host + "\r\n"
	}
	fmt.Fprintf(c, "%sGET %s HTTP/1.0\r\n%s\r\n", before, path, host)
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, ""
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(text)
}

// TestNames: a service is called by names that no page of strangers has (DNS rebinding), wherever it listens; what monitors ask for answers to any
// name, but on loopback.
func TestNames(t *testing.T) {
	names := []string{"mail.example.com", "mta.internal"}
	private, public := echo(t, Options{Address: "127.0.0.1:0", Names: names}), echo(t, Options{Address: "0.0.0.0:0", Names: names})
	for _, c := range []struct {
		path, host      string
		private, public int
	}{
		{"/v1/queue", "127.0.0.1", 200, 200},
		{"/v1/queue", "192.0.2.1:8025", 200, 200},
		{"/v1/queue", "localhost", 200, 200},
		{"/v1/queue", "[::1]:8025", 200, 200},
		{"/v1/queue", "", 200, 200}, // no browser
		{"/v1/queue", "mail.example.com", 200, 200},
		{"/who", "MTA.internal.:8025", 200, 200},
		{"/v1/queue", "evil.example", 421, 421},
		{"/who", "evil.example:8025", 421, 421},
		{"/", "mta.internal.evil.example", 421, 421},
		{"/metrics", "evil.example", 421, 200},
		{"/healthz", "pod-7", 421, 200},
		{"/readyz", "pod-7:8025", 421, 200},
		{"/metrics/../v1/queue", "evil.example", 421, 421},
	} {
		for port, want := range map[string]int{private: c.private, public: c.public} {
			if got, body := ask(t, port, "", c.path, c.host); got != want {
				t.Errorf("%s of %q at port %s: %d %q, want %d", c.path, c.host, port, got, body, want)
			}
		}
	}
}

// TestProxies: those that are named say who the client is; others are not believed.
func TestProxies(t *testing.T) {
	trusting := echo(t, Options{Address: "127.0.0.1:0", ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	other := echo(t, Options{Address: "127.0.0.1:0", ProxyFrom: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	none := echo(t, Options{Address: "127.0.0.1:0"})
	const one = "PROXY TCP4 198.51.100.7 192.0.2.1 40001 8025\r\n"
	const two = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc6\x33\x64\x08\xc0\x00\x02\x01\x9c\x42\x1f\x59"
	for _, c := range []struct {
		port, before string
		want         string
	}{
		{trusting, one, "200 198.51.100.7:40001"},
		{trusting, two, "200 198.51.100.8:40002"},
		{trusting, "", "200 127.0.0.1:"},
		{trusting, "PROXY TCP4 198.51.100.7\r\n", "0 "},
		{trusting, one + one, "400 "},
		{other, "", "200 127.0.0.1:"},
		{other, one, "400 "},
		{none, "", "200 127.0.0.1:"},
		{none, two, "400 "},
	} {
		status, body := ask(t, c.port, c.before, "/who", "localhost")
		if got := fmt.Sprint(status, " ", body); !strings.HasPrefix(got, c.want) {
			t.Errorf("%q: %q, want %q", c.before, got, c.want)
		}
	}
}
