package peers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

var exim = Peer{
	Name:    "exim",
	Durable: "always, data and envelope of a message are flushed to disk before its 250; disable_fsync, which would turn that off, is not built into Debian's",
	Tuned: "immediate delivery without a new program (deliver_drop_privilege), split_spool_directory, smtp_accept_queue_per_connection = 0 and no other limits, " +
		"connection_max_messages = 1 (no hints of other mail for the host), no message logs, no DNS, DKIM or ident; its log goes nowhere (Exim specification, chapters 14, 30, 48)",
	Held:    "queue_only, and no queue runner",
	missing: unpacked,
	find:    func() (string, error) { return findUnpacked("exim4-daemon-light", "usr/sbin/exim4") },
	version: eximVersion,
	prepare: prepareExim,
}

// eximAsked asks Exim what it is, where its user is there.
const eximAsked = `set -e
dir=$(mktemp -d)
trap 'umount /etc/passwd /etc/group; rm -rf "$dir"' EXIT
for f in passwd group; do cp "/etc/$f" "$dir"; done
echo "Debian-exim:x:$1:$1::/:/bin/false" >>"$dir/passwd"
echo "Debian-exim:x:$1:" >>"$dir/group"
for f in passwd group; do mount --bind "$dir/$f" "/etc/$f"; done
"$0" -C /dev/null -bV`

// eximVersion finds it in what Exim says of itself, as in "Exim version 4.96 #2 built …".
func eximVersion(ctx context.Context, program string) (string, error) {
	out, err := output(ctx, "unshare", "-m", "sh", "-c", eximAsked, program, fmt.Sprint(firstUser))
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(out, "Exim version ")
	version, _, ok := strings.Cut(rest, " ")
	if !ok {
		return "", fmt.Errorf("%q", out)
	}
	return version, nil
}

// eximHold comes before the configuration where mail stays.
const eximHold = "queue_only\n"

const eximConfig = `exim_path = {dir}/exim4
primary_hostname = peer.bench.mailrace
spool_directory = {dir}/spool
log_file_path = syslog
pid_file_path = {dir}/pid
local_interfaces = {host}
daemon_smtp_ports = {port}
keep_environment =
deliver_drop_privilege
tls_advertise_hosts =
message_size_limit = {largest}
message_logs = false
write_rejectlog = false
split_spool_directory
smtp_accept_max = 0
smtp_accept_max_per_connection = 0
smtp_accept_queue_per_connection = 0
recipients_max = 10000
remote_max_parallel = 10
rfc1413_query_timeout = 0s
host_lookup =
smtp_return_error_details = false
acl_smtp_rcpt = rcpt
begin acl
rcpt:
  accept control = dkim_disable_verify
begin routers
next:
  driver = manualroute
  route_list = * {nextHost}::{nextPort}
  self = send
  transport = next
begin transports
next:
  driver = smtp
  allow_localhost
  hosts_avoid_tls = *
  hosts_try_dane =
  retry_include_ip_address = false
  connection_max_messages = 1
begin retry
* * F,1h,1s
`

func prepareExim(s *setup) (job, error) {
	program := filepath.Join(s.dir, "exim4") // it starts itself as its own user, who could not get at it elsewhere
	b, err := os.ReadFile(s.program)
	if err != nil {
		return job{}, err
	}
	if err := os.WriteFile(program, b, 0o755); err != nil {
		return job{}, err
	}
	spool := filepath.Join(s.dir, "spool")
	if err := os.Mkdir(spool, 0o755); err != nil {
		return job{}, err
	}
	for _, name := range []string{s.dir, spool} {
		if err := os.Chown(name, firstUser, firstUser); err != nil {
			return job{}, err
		}
	}
	text, runs := eximConfig, []string{"-q5s"}
	if s.Next == "" {
		s.nextHost, s.nextPort = "127.0.0.1", "9"
		text, runs = eximHold+text, nil
	}
	config, err := s.write("exim.conf", text)
	if err != nil {
		return job{}, err
	}
	return job{args: append([]string{program, "-C", config, "-bdf"}, runs...), users: []string{"Debian-exim"}, unwaited: true}, nil
}
