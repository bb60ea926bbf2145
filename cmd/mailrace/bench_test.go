package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"mailrace/bench/profile"
	"mailrace/bench/scenario"
)

// measured runs `mailrace bench` in a directory of its own, and returns the report. Its times mean nothing.
func measured[R any](t *testing.T, args ...string) (report R) {
	t.Helper()
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	args = append(append([]string{"bench"}, args...), "--dir", t.TempDir(), "--json")
	out, err := exec.CommandContext(t.Context(), bin, args...).Output()
	if err != nil {
		var failed *exec.ExitError
		errors.As(err, &failed)
		t.Fatalf("%v\n%s\n%s", err, out, failed.Stderr)
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatal(err)
	}
	return report
}

// TestBenchSubmission measures accepting for a moment: in clear, and at a submission listener under TLS by a user who has logged in.
func TestBenchSubmission(t *testing.T) {
	profiles := t.TempDir()
	r := measured[scenario.Report](t, "submission", "--profile", profiles, "--rounds", "1", "--duration", "200ms", "--warmup", "50ms",
		"--connections", "20")
	for _, name := range []string{scenario.Ceiling, scenario.MTA, scenario.TLS} {
		if m := r.Rounds[0][name]; m.Messages == 0 || m.Refused != 0 {
			t.Errorf("%s: %+v", name, m)
		}
	}
	if r.TLS == nil || r.TLS.Median <= 0 || !r.Account.Clean() || len(r.Ceilings) != 1 {
		t.Errorf("%+v", r)
	}
	for _, kind := range profile.Kinds {
		for _, name := range []string{scenario.MTA, scenario.TLS} {
			text, err := os.ReadFile(filepath.Join(profiles, "submission-"+name+"-"+kind+".pprof"))
			if z, unpacking := gzip.NewReader(bytes.NewReader(text)); err != nil || unpacking != nil {
				t.Errorf("%s of %s: %v, %v", kind, name, err, unpacking)
			} else if n, err := io.Copy(io.Discard, z); err != nil || n == 0 {
				t.Errorf("%s of %s: %d octets, %v", kind, name, n, err)
			}
		}
	}
}

// TestBenchCompare: a program compared with itself does the same work.
func TestBenchCompare(t *testing.T) {
	base, err := program()
	if err != nil {
		t.Fatal(err)
	}
	r := measured[scenario.CompareReport](t, "compare", "--base", base, "--rounds", "2", "--duration", "100ms", "--warmup", "20ms", "--connections", "10")
	for _, c := range r.Scenarios {
		for _, round := range c.Rounds {
			for name, m := range round {
				if m.Messages == 0 || !m.Clean() || c.Kind == scenario.Relay && m.Arrived != m.Messages {
					t.Errorf("%s, %s: %+v", c.Kind, name, m)
				}
			}
		}
	}
}

// TestBenchDepth: mail for a host that answers nothing stays in the queue, and other mail comes and goes beside it.
func TestBenchDepth(t *testing.T) {
	r := measured[scenario.DepthReport](t, "depth", "--slow", "--depth", "0,300", "--rounds", "1", "--duration", "100ms",
		"--warmup", "20ms", "--connections", "20")
	for i, m := range r.Rounds[0] {
		if m.Accept.Messages == 0 || m.Relay.Messages == 0 || m.Relay.Arrived != m.Relay.Messages || r.Filled[i].Left != r.Depths[i] {
			t.Errorf("%d: %+v, %+v", r.Depths[i], m, r.Filled[i])
		}
	}
}

// TestBenchWAN: over a network with a round trip all mail arrives once, by DATA and by BDAT, over one connection and over several.
func TestBenchWAN(t *testing.T) {
	page := filepath.Join(t.TempDir(), "wan.html")
	r := measured[scenario.WANReport](t, "wan", "--rtt", "5ms", "--rounds", "1", "--duration", "200ms", "--warmup", "20ms", "--connections", "5",
		"--html", page)
	if text, err := os.ReadFile(page); err != nil || !bytes.Contains(text, []byte("mailrace bench wan --rtt 5ms")) {
		t.Errorf("page: %v\n%s", err, text)
	}
	for name, m := range r.Rounds[0] {
		if m.Messages == 0 || m.Arrived != m.Messages || !m.Clean() {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

// TestBenchSites: connections to many sites stand at a time, in clear and under TLS, and mail for more domains than there are connections arrives.
func TestBenchSites(t *testing.T) {
	run := func(args ...string) scenario.SitesReport {
		return measured[scenario.SitesReport](t, append([]string{"sites", "--limit", "10000000", "--rest", "1s"}, args...)...)
	}
	if o := run("--tls", "--connections", "50", "--domains", "-1").Open; o.Open != 50 || o.Secured < 50 || o.Account.Arrived != 50 {
		t.Errorf("%+v", o)
	}
	if q := run("--connections", "-1", "--domains", "300").Queue; q.Account.Arrived != 300 || q.Connections < 300 || q.Questions < 4 {
		t.Errorf("%+v", q)
	}
}

// TestBenchRelay: mail finds its way by DNS to hosts that DANE secures, and to a fixed host whose certificate is verified, and arrives once.
func TestBenchRelay(t *testing.T) {
	for _, way := range []string{"--mx=false", "--mx"} {
		r := measured[scenario.Report](t, "relay", "--tls", way, "--domains", "50", "--rounds", "1", "--duration", "200ms", "--warmup", "20ms",
			"--connections", "10")
		for _, name := range []string{scenario.Ceiling, scenario.MTA, scenario.TLS} {
			if m := r.Rounds[0][name]; m.Messages == 0 || m.Arrived != m.Messages || !m.Clean() {
				t.Errorf("%s, %s: %+v", way, name, m)
			}
		}
	}
}

// TestBenchRestart: what is in the queue of a node that is killed, or stopped, is delivered once after its next start.
func TestBenchRestart(t *testing.T) {
	r := measured[scenario.RestartReport](t, "restart", "--messages", "300", "--rounds", "1", "--connections", "20")
	for _, m := range []scenario.RestartMeasure{r.Rounds[0].Kill, r.Rounds[0].Stop} {
		if m.Account.Arrived != 300 || !m.Account.Clean() || m.Listening <= 0 || m.Accepted < m.Listening || m.All < m.Delivered {
			t.Errorf("%+v", m)
		}
	}
}

// TestBenchBulk: each recipient gets its mail or its sender a notification, whatever sites do, and their limits are kept.
func TestBenchBulk(t *testing.T) {
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), bin, "bench", "bulk", "--messages", "800", "--domains", "200", "--sites", "64", "--rounds", "1", "--retry", "300ms", "--recipients", "2",
		"--size", "2KiB", "--connections", "20", "--dir", t.TempDir(), "--json")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var r scenario.BulkReport
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	plain, bulk := r.Rounds[0][scenario.Plain], r.Rounds[0][scenario.Bulk]
	if plain.Arrived != 1600 || plain.Bounced != 0 || plain.Returned.Returned != 0 || len(plain.Destinations) < 8 {
		t.Errorf("%+v", plain)
	}
	if bulk.Arrived+bulk.Returned.Returned != 1600 || bulk.Returned.Returned == 0 || uint64(bulk.Bounced) != bulk.Returned.Returned || bulk.Deferred == 0 {
		t.Errorf("%+v", bulk)
	}
}

// TestBenchDeep: what waits for a destination that is closed is delivered once when it opens.
func TestBenchDeep(t *testing.T) {
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), bin, "bench", "deep", "--depth", "50,400", "--rounds", "1", "--duration", "100ms", "--warmup", "20ms", "--retry", "300ms",
		"--connections", "20", "--dir", t.TempDir(), "--json")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var r scenario.DeepReport
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	for i, m := range r.Rounds[0] {
		if m.Drain.Arrived != uint64(r.Depths[i]) || m.Filled.Left != 0 || m.Plain.Messages == 0 || m.Plain.Arrived != m.Plain.Messages || m.First <= 0 {
			t.Errorf("%d: %+v", r.Depths[i], m)
		}
	}
}
