package peers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

var postfix = Peer{
	Name:    "postfix",
	Durable: "always, cleanup(8) flushes each queue file to disk before the 250; no setting turns that off",
	Tuned: "default_process_limit above the connections, in_flow_delay = 0, destination concurrency 50, connection cache for the next hop, no anvil limits, no DNS, its log goes nowhere " +
		"(TUNING_README, QSHAPE_README)",
	Held:    "HOLD: smtpd puts all mail into the hold queue, which qmgr does not look at",
	missing: "`make deps` installs it, or `apt-get install postfix`; it need not be configured or run",
	find:    findPostfix,
	version: postfixVersion,
	prepare: preparePostfix,
}

func findPostfix() (string, error) {
	for _, name := range []string{"postfix", "/usr/sbin/postfix"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

func postfixVersion(ctx context.Context, program string) (string, error) {
	return output(ctx, filepath.Join(filepath.Dir(program), "postconf"), "-dh", "mail_version")
}

// output runs a program to its end and returns what it says, in one piece.
func output(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

const postfixMain = `compatibility_level = 3.6
myhostname = peer.bench.mailrace
mydestination =
queue_directory = {dir}/queue
data_directory = {dir}/data
inet_interfaces = loopback-only
inet_protocols = ipv4
local_header_rewrite_clients =
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
smtp_dns_support_level = disabled
disable_dns_lookups = yes
smtp_host_lookup = native
smtpd_peername_lookup = no
smtp_tls_security_level = none
smtpd_tls_security_level = none
message_size_limit = {largest}
smtpd_recipient_limit = 10000
smtpd_recipient_overshoot_limit = 10000
smtpd_client_connection_count_limit = 0
smtpd_client_event_limit_exceptions = 127.0.0.0/8
default_process_limit = {processes}
in_flow_delay = 0
initial_destination_concurrency = 20
default_destination_concurrency_limit = 50
smtp_connection_reuse_count_limit = 0
hash_queue_names = incoming active deferred bounce defer flush hold trace
`

const postfixRelay = `relayhost = [{nextHost}]:{nextPort}
smtp_connection_cache_destinations = [{nextHost}]:{nextPort}
`

const postfixHold = `relayhost = [127.0.0.1]:9
smtpd_client_restrictions = static:HOLD
`

const postfixMaster = `{host}:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
`

// preparePostfix makes its queue and configuration.
func preparePostfix(s *setup) (job, error) {
	text := postfixMain + postfixRelay
	if s.Next == "" {
		text = postfixMain + postfixHold
	}
	etc := filepath.Join(s.dir, "config")
	for name, text := range map[string]string{"main.cf": text, "master.cf": postfixMaster} {
		if _, err := s.write("config/"+name, text); err != nil {
			return job{}, err
		}
	}
	for _, dir := range []string{"queue", "data"} {
		if err := os.Mkdir(filepath.Join(s.dir, dir), 0o755); err != nil {
			return job{}, err
		}
	}
	if _, err := output(s.ctx, "chown", "postfix", filepath.Join(s.dir, "data")); err != nil {
		return job{}, err
	}
	if _, err := output(s.ctx, s.program, "-c", etc, "check"); err != nil { // it makes the directories of the queue
		return job{}, err
	}
	daemons, err := output(s.ctx, filepath.Join(filepath.Dir(s.program), "postconf"), "-c", etc, "-h", "daemon_directory")
	if err != nil {
		return job{}, err
	}
	return job{args: []string{"setsid", filepath.Join(daemons, "master"), "-c", etc, "-d"}}, nil
}
