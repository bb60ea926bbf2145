package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"mailrace/bench/sink"
	"mailrace/bench/zone"
)

// TestFewFiles: mail for more sites than the process may have files open for arrives at its first attempt, although connections that are idle are kept
// for an hour: they are closed for others. What runs out is said, and is nobody's fault.
func TestFewFiles(t *testing.T) {
	const files, domains = 512, 600
	s, err := sink.Start(sink.Options{Address: "0.0.0.0:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	_, port, err := net.SplitHostPort(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	names, err := zone.Serve(func(name string) (r zone.Records, exists bool) {
		var n int
		if _, err := fmt.Sscanf(name, "d%d.rcpt.bench.mailrace", &n); err == nil {
			return zone.Records{Addrs: []netip.Addr{netip.AddrFrom4([4]byte{127, 1, byte(n >> 8), byte(n)})}}, true // its own host, without MX
		}
		return r, false
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.Close)
	n := serve(t, configOf(t.TempDir(), "127.0.0.1:0", "mx", fmt.Sprintf(`
[egress]
port = %s
allow = ["127.0.0.0/8"]
idle = "1h"
[queue]
retry_min = "12h"
retry_max = "12h"
[dns]
servers = [%q]
`, port, names.Addr())), "sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$@"`, files), "sh")
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), bin, "load", "--address", n.smtp, "--messages", fmt.Sprint(domains), "--domains", fmt.Sprint(domains),
		"--connections", "10", "--size", "1KiB").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	await(t, "all mail", func() (bool, string) {
		r := s.Report()
		return r.Recipients >= domains, fmt.Sprintf("%d of %d\n%s", r.Recipients, domains, n.output())
	})
	n.awaitEmpty()
	if r := s.Report(); r.Duplicates != 0 || r.Altered != 0 || r.Open >= files {
		t.Errorf("%+v", r)
	}
	resp, err := http.Get("http://" + n.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"mailrace_router_outcomes_total{outcome=\"deferred\"} 0\n", fmt.Sprintf("mailrace_router_outcomes_total{outcome=\"delivered\"} %d\n", domains)} {
		if !strings.Contains(string(page), want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
	if !strings.Contains(n.output(), "no room for another connection") {
		t.Errorf("nothing was said:\n%s", n.output())
	}
	n.stop()
}
