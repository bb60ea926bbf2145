package peers

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

var haraka = Peer{
	Name: "haraka",
	Durable: "always, the outbound queue flushes each file to disk before it has its name and the message its 250 (outbound/index.js, FsyncWriteStream); the directory is " +
		"not flushed",
	Tuned:    "cluster of a process for each core (nodes = cpus), no plugins but one that relays and names the next hop, no TLS, loglevel = CRIT (Performance-Tuning)",
	Held:     "outbound.ini disabled = true: mail is queued and not delivered; Haraka looks at each queued message every second, so that what waits takes some CPU time",
	LockStep: "it answers 503 to an envelope that is pipelined behind the content before it (RFC 2920 section 3.1 allows that)",
	missing:  unpacked,
	find:     findHaraka,
	version:  harakaVersion,
	prepare:  prepareHaraka,
}

// harakaNode is the oldest release of Node that it runs with.
const harakaNode = 20

// harakaRoot is where it is installed for this user.
func harakaRoot() string { return filepath.Join(unpackedRoot(), "haraka") }

func findHaraka() (string, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return "", err
	}
	out, err := exec.Command(node, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", node, err)
	}
	var major int
	if _, err := fmt.Sscanf(string(out), "v%d.", &major); err != nil || major < harakaNode {
		return "", fmt.Errorf("it needs Node %d, and %s is %s", harakaNode, node, strings.TrimSpace(string(out)))
	}
	path := filepath.Join(harakaRoot(), "node_modules/Haraka/bin/haraka")
	_, err = os.Stat(path)
	return path, err
}

// harakaVersion reads it from the package.
func harakaVersion(_ context.Context, program string) (string, error) {
	b, err := os.ReadFile(filepath.Join(filepath.Dir(program), "../package.json"))
	if err != nil {
		return "", err
	}
	var p struct {
		Version string `json:"version"`
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return "", fmt.Errorf("package.json: %w", err)
	}
	return p.Version, nil
}

// harakaFiles are its configuration, and a plugin that lets everybody relay, to the next hop.
var harakaFiles = map[string]string{
	"config/smtp.ini":     "listen={host}:{port}\nnodes={cores}\nuser=nobody\ngroup=nogroup\n",
	"config/me":           "peer.bench.mailrace\n",
	"config/plugins":      "next_hop\n",
	"config/loglevel":     "CRIT\n",
	"config/log.ini":      "[main]\nlevel=CRIT\nformat=DEFAULT\n",
	"config/outbound.ini": "enable_tls=false\nlocal_mx_ok=true\n",
	"plugins/next_hop.js": `exports.hook_connect = (next, connection) => {
    connection.relaying = true
    next()
}
exports.hook_rcpt = (next) => next(OK)
exports.hook_get_mx = (next) => next(OK, { priority: 0, exchange: '{nextHost}', port: '{nextPort}' })
`,
}

func prepareHaraka(s *setup) (job, error) {
	b, err := os.ReadFile(filepath.Join(filepath.Dir(s.program), "../config/connection.ini")) // of which it needs each section
	if err != nil {
		return job{}, err
	}
	if _, err := s.write("config/connection.ini", strings.Replace(string(b), "\nbytes=26214400\n", "\nbytes={largest}\n", 1)); err != nil {
		return job{}, err
	}
	for name, text := range harakaFiles {
		if name == "config/outbound.ini" && s.Next == "" {
			text += "disabled=true\n"
		}
		if _, err := s.write(name, text); err != nil {
			return job{}, err
		}
	}
	queue := filepath.Join(s.dir, "queue")
	if err := os.Mkdir(queue, 0o755); err != nil {
		return job{}, err
	}
	if _, err := output(s.ctx, "chown", "nobody", queue, s.dir); err != nil {
		return job{}, err
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return job{}, err
	}
	program := filepath.Join(s.dir, "program", strings.TrimPrefix(s.program, harakaRoot()))
	return job{args: []string{node, program, "-c", s.dir}, bring: map[string]string{"program": harakaRoot()}}, nil
}
