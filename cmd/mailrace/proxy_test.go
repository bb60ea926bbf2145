package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mailrace/bench/sink"
)

// TestProxyClients sends with swaks behind PROXY headers that it writes itself. The address that it tells may relay, the test's own may not.
func TestProxyClients(t *testing.T) {
	dir := t.TempDir()
	far := receiver(t, sink.Options{Store: filepath.Join(dir, "store")})
	text := strings.Replace(configOf(dir, "127.0.0.1:0", "smtp://"+far.Addr(), ""),
		`relay_from = ["127.0.0.0/8"]`, `relay_from = ["192.0.2.7", "2001:db8::/32"]`+"\n"+`proxy_from = ["127.0.0.0/8"]`, 1)
	if !strings.Contains(text, "proxy_from") {
		t.Fatalf("no listener as expected in\n%s", text)
	}
	n := serve(t, text)
	host, port, _ := strings.Cut(n.smtp, ":")
	swaks := func(args ...string) ([]byte, error) {
		return exec.Command("swaks", append([]string{"--server", host, "--port", port, "--from", "s@example.com", "--to", "r@example.net"}, args...)...).CombinedOutput()
	}
	sources := []string{"192.0.2.7", "2001:db8::7", "192.0.2.7", "2001:db8::7"}
	for i, source := range sources {
		version, family, dest := "1", "TCP4", "192.0.2.1"
		if strings.Contains(source, ":") {
			family, dest = "TCP6", "2001:db8::1"
		}
		if i >= 2 {
			version, family = "2", map[string]string{"TCP4": "AF_INET", "TCP6": "AF_INET6"}[family]
		}
		args := []string{"--proxy-version", version, "--proxy-family", family, "--proxy-source", source, "--proxy-source-port", "1234",
			"--proxy-dest", dest, "--proxy-dest-port", "25"}
		if version == "2" {
			args = append(args, "--proxy-protocol", "STREAM", "--proxy-command", "PROXY")
		}
		if out, err := swaks(args...); err != nil {
			t.Errorf("version %s, %s: %v\n%s", version, source, err, out)
		}
	}
	if out, err := swaks("--proxy-version", "1", "--proxy-family", "TCP4", "--proxy-source", "192.0.2.8", "--proxy-source-port", "1",
		"--proxy-dest", "192.0.2.1", "--proxy-dest-port", "25"); err == nil || !strings.Contains(string(out), "550 5.7.1") {
		t.Errorf("a stranger: %v\n%s", err, out)
	}
	if out, err := swaks(); err == nil {
		t.Errorf("without a header:\n%s", out)
	}
	n.awaitEmpty()
	n.stop()
	got := stored(t, filepath.Join(dir, "store"))
	if len(got) != len(sources) {
		t.Fatalf("%d messages arrived, want %d", len(got), len(sources))
	}
	told := map[string]int{}
	for _, m := range got {
		for _, literal := range []string{"([192.0.2.7])", "([IPv6:2001:db8::7])"} {
			told[literal] += strings.Count(string(m), literal)
		}
	}
	if told["([192.0.2.7])"] != 2 || told["([IPv6:2001:db8::7])"] != 2 {
		t.Errorf("the trace headers tell of %v", told)
	}
}

// TestXClientClients sends with swaks, which tells by XCLIENT for whom it speaks.
func TestXClientClients(t *testing.T) {
	dir := t.TempDir()
	far := receiver(t, sink.Options{Store: filepath.Join(dir, "store")})
	text := strings.Replace(configOf(dir, "127.0.0.1:0", "smtp://"+far.Addr(), ""),
		`relay_from = ["127.0.0.0/8"]`, `relay_from = ["192.0.2.7"]`+"\n"+`xclient_from = ["127.0.0.0/8"]`, 1)
	n := serve(t, text)
	host, port, _ := strings.Cut(n.smtp, ":")
	for address, ok := range map[string]bool{"192.0.2.7": true, "192.0.2.8": false} {
		out, err := exec.Command("swaks", "--server", host, "--port", port, "--from", "s@example.com", "--to", "r@example.net", "--xclient-addr", address,
			"--xclient-name", "client.example", "--xclient-delim", "--xclient-port", "1234", "--xclient-helo", "client.example").CombinedOutput()
		if (err == nil) != ok {
			t.Errorf("%s: %v\n%s", address, err, out)
		}
	}
	n.awaitEmpty()
	n.stop()
	if got := stored(t, filepath.Join(dir, "store")); len(got) != 1 || !strings.Contains(got[0], "([192.0.2.7])") {
		t.Errorf("%q", got)
	}
}
