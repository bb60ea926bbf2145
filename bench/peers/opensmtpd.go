package peers

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

var opensmtpd = Peer{
	Name:    "opensmtpd",
	Durable: "no, it writes its queue without fsync, and has no setting for that",
	Tuned: "smtp limit max-mails without end, mta limit: no delays between connections, 20 connections, sessions without end, 1,000 tasks at a time (smtpd.conf(5), and " +
		"limit_mta_set() of its source)",
	Held:    "started with -P mta: mail is queued, and the mail transfer agent is paused",
	missing: unpacked,
	find:    func() (string, error) { return findUnpacked("opensmtpd", "usr/sbin/smtpd") },
	version: opensmtpdVersion,
	prepare: prepareOpenSMTPD,
}

// opensmtpdVersion finds it in what it says of itself: "version: OpenSMTPD 6.8.0p2".
func opensmtpdVersion(ctx context.Context, program string) (string, error) {
	out, _ := exec.CommandContext(ctx, program, "-h").CombinedOutput() // it fails with that
	_, rest, ok := strings.Cut(string(out), "version: OpenSMTPD ")
	version, _, _ := strings.Cut(rest, "\n")
	if !ok {
		return "", fmt.Errorf("%q", out)
	}
	return version, nil
}

const opensmtpdConfig = `smtp max-message-size "{largest}"
smtp limit max-mails 1000000000
smtp limit max-rcpt 10000
mta limit conn-delay-route 0 conn-delay-relay 0 reconn-delay-route 0 session-mail-max 1000000000
mta limit max-conn-per-host 20 max-conn-per-route 20 task-hiwat 1000 task-lowat 500 task-release 500
listen on {host} port {port} hostname peer.bench.mailrace
action next relay host "smtp://{nextHost}:{nextPort}" helo peer.bench.mailrace
match from any for any action next
`

// makeRoom makes the directories that it expects, in what is its own, and becomes it.
const makeRoom = `mkdir -p /var/lib/opensmtpd/empty && mkdir -m 711 /var/spool/smtpd && exec "$0" "$@"`

func prepareOpenSMTPD(s *setup) (job, error) {
	args := []string{"sh", "-c", makeRoom, s.program, "-d"}
	if s.Next == "" {
		s.nextHost, s.nextPort = "127.0.0.1", "9"
		args = append(args, "-P", "mta")
	}
	config, err := s.write("smtpd.conf", opensmtpdConfig)
	if err != nil {
		return job{}, err
	}
	if _, err := s.write("machine/mailname", "peer.bench.mailrace\n"); err != nil {
		return job{}, err
	}
	return job{args: append(args, "-f", config), users: []string{"opensmtpd", "opensmtpq"}, own: []string{"/var/spool", "/var/lib", "/run"}}, nil
}
