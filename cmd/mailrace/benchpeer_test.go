package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"mailrace/bench/peers"
	"mailrace/bench/scenario"
)

// TestBenchPeer measures others beside ours for a moment: all mail is accounted for, at each of them.
func TestBenchPeer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED beside peers: only root can run them")
	}
	if out, err := exec.Command("unshare", "-m", "-p", "-f", "true").CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED beside peers: they need name spaces: %v\n%s", err, out)
	}
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	only := presentPeers(t)
	cmd := exec.CommandContext(t.Context(), bin, "bench", "peer", "--only", strings.Join(only, ","), "--rounds", "1", "--duration", "200ms", "--warmup", "50ms",
		"--connections", "5", "--backlog", "20", "--dir", commonDir(t, "peer"), "--json")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		errors.As(err, &exit)
		t.Fatalf("%v\n%s", err, exit.Stderr)
	}
	var r scenario.PeerReport
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Parts) != 2 || len(r.Peers) != len(only) || !r.Account.Clean() {
		t.Fatalf("%+v", r)
	}
	for _, part := range r.Parts {
		for name, m := range part.Median {
			if m.Messages == 0 || m.Refused != 0 || part.Kind == scenario.Relay && m.Arrived != m.Messages {
				t.Errorf("%s, %s: %+v", part.Kind, name, m)
			}
		}
	}
}

// presentPeers are those that .ci/deps could install.
func presentPeers(t *testing.T) (names []string) {
	t.Helper()
	all, err := peers.Find(nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		version, err := all[i].Installed(t.Context())
		if err != nil {
			t.Logf("NOT TESTED beside %s: %v", all[i].Name, err)
			continue
		}
		t.Logf("%s %s", all[i].Name, version)
		names = append(names, all[i].Name)
	}
	if len(names) == 0 {
		t.Skip("NOT TESTED: there are no peers")
	}
	return names
}
