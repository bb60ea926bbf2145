package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mailrace/engine/explain"
)

// TestExplain runs the command against a node, and without one.
func TestExplain(t *testing.T) {
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir, address := t.TempDir(), free(t)
	config := strings.Replace(configOf(dir, "127.0.0.1:0", "discard", "[[route]]\ndomains = ['box.example']\nto = 'maildir:///mail/{user}'\nconnections = 3\n"), `[admin]
address = "127.0.0.1:0"`, `[admin]
address = "`+address+`"`, 1)
	path := filepath.Join(dir, "mailrace.toml")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	explained := func(args ...string) (stdout, stderr string, status int) {
		t.Helper()
		cmd := exec.Command(bin, append([]string{"explain", "--config", path}, args...)...)
		var out, trouble strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &trouble
		_ = cmd.Run()
		return out.String(), trouble.String(), cmd.ProcessState.ExitCode()
	}

	out, trouble, status := explained("a+b@Box.example")
	if status != 0 || !strings.Contains(trouble, "no node answers at "+address) {
		t.Errorf("status %d: %s", status, trouble)
	}
	for _, want := range []string{"mailbox /mail/a\n", "route.connections, " + path + ":19\n", "no running node was asked", "now       delivers: "} {
		if !strings.Contains(out, want) {
			t.Errorf("%s\ndoes not hold %q", out, want)
		}
	}
	if out, trouble, status := explained("--offline", "a@x.example"); status != 0 || trouble != "" || !strings.Contains(out, "now       discards: ") || strings.Contains(out, "\x1b") {
		t.Errorf("status %d: %s%s", status, out, trouble)
	}
	if out, trouble, status := explained("--admin", address, "a@x.example"); status != 1 || out != "" || !strings.Contains(trouble, "is the node running?") {
		t.Errorf("status %d: %s%s", status, out, trouble)
	}

	serve(t, config)
	out, trouble, status = explained("--json", "a@box.example")
	var r explain.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || status != 0 || trouble != "" || !r.Node || r.Site.State != explain.SiteVacant || r.Route.Mailbox != "/mail/a" {
		t.Errorf("status %d: %v %s%s", status, err, out, trouble)
	}
	for _, args := range [][]string{{"a..b@x.example"}, {"--offline", "a..b@x.example"}} {
		if out, trouble, status := explained(args...); status != 1 || out != "" || trouble == "" || !strings.HasPrefix(trouble, `mailrace: not an address: the local-part "a..b": want `) {
			t.Errorf("status %d: %s%s", status, out, trouble)
		}
	}
}
