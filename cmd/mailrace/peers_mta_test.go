package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fill replaces names in braces.
func (s *mtaSetup) fill(text string, more ...string) string {
	return strings.NewReplacer(append([]string{
		"{dir}", s.dir, "{host}", s.host, "{port}", s.port, "{chain}", s.chain, "{key}", s.key, "{nextHost}", s.nextHost, "{nextPort}", s.nextPort,
	}, more...)...).Replace(text)
}

const postfixMain = `compatibility_level = 3.6
myhostname = far.example
mydestination =
queue_directory = {dir}/queue
data_directory = {dir}/data
maillog_file = {dir}/log
maillog_file_prefixes = {dir}
inet_interfaces = loopback-only
inet_protocols = ipv4
local_header_rewrite_clients =
alias_maps =
alias_database =
relay_domains = far.example, box.example, home.example, example.net
relayhost = [{nextHost}]:{nextPort}
smtp_tls_security_level = encrypt
smtp_dns_support_level = disabled
disable_dns_lookups = yes
smtpd_peername_lookup = no
message_size_limit = 5000000
smtputf8_enable = yes
smtpd_tls_security_level = encrypt
smtpd_tls_chain_files = {key}, {chain}
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {sasl}
smtpd_tls_auth_only = yes
smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access inline:{ { nobody@far.example = 550 5.1.1 unknown } { later@far.example = 450 4.2.0 later } }
smtpd_client_connection_count_limit = 0
queue_run_delay = 2s
minimal_backoff_time = 2s
`

const postfixMaster = `{host}:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
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
postlog unix-dgram n - n - 1 postlogd
`

// startPostfix starts the Postfix that is installed, apart from the configuration and queue of the machine. Dovecot looks after its passwords.
func startPostfix(t *testing.T, s *mtaSetup) *mta {
	t.Helper()
	postfix, err := exec.LookPath("postfix")
	if err != nil {
		postfix = "/usr/sbin/postfix"
	}
	if _, err := os.Stat(postfix); err != nil {
		t.Skipf("NOT TESTED against Postfix: it is not installed, and .ci/deps could not install it: %v", err)
	}
	d := startDovecot(t)
	if err := os.Chmod(d.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	etc := filepath.Join(s.dir, "etc")
	for _, dir := range []string{etc, filepath.Join(s.dir, "queue"), filepath.Join(s.dir, "data")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	succeed(t, "chown", "postfix", filepath.Join(s.dir, "data"))
	write(t, etc, "main.cf", s.fill(postfixMain, "{sasl}", filepath.Join(d.dir, "auth")))
	write(t, etc, "master.cf", s.fill(postfixMaster))
	succeed(t, postfix, "-c", etc, "check") // it makes the directories of the queue
	postconf := filepath.Join(filepath.Dir(postfix), "postconf")
	master := filepath.Join(strings.TrimSpace(succeed(t, postconf, "-c", etc, "-h", "daemon_directory")), "master")
	return s.run(t, filepath.Join(s.dir, "log"), "setsid", master, "-c", etc, "-d")
}

// apart runs what follows with other users, no name servers, and directories of its own, where nobody else sees them: an MTA that was unpacked has paths and
// users built in. $0 is the directory with files passwd, group and resolv.conf; $1 a list of directories, which are made empty.
const apart = `set -e
mount --make-rprivate /
for f in passwd group resolv.conf; do mount --bind "$0/$f" "/etc/$f"; done
for d in $1; do mount -t tmpfs -o mode=755 tmpfs "$d"; done
shift
mkdir -p -m 755 /var/spool /var/lib/opensmtpd/empty
mkdir -p -m 711 /var/spool/smtpd
exec "$@"`

// runApart starts an unpacked MTA.
func (s *mtaSetup) runApart(t *testing.T, log, users, empty string, args ...string) *mta {
	t.Helper()
	if out, err := exec.Command("unshare", "-m", "true").CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED against %s: it needs a mount namespace: %v\n%s", args[0], err, out)
	}
	passwd, group := "", ""
	for i, user := range strings.Fields(users) {
		passwd += fmt.Sprintf("%s:x:%d:%d::/var/lib/opensmtpd/empty:/usr/sbin/nologin\n", user, 61234+i, 61234+i)
		group += fmt.Sprintf("%s:x:%d:\n", user, 61234+i)
	}
	for name, more := range map[string]string{"passwd": passwd, "group": group} {
		b, err := os.ReadFile("/etc/" + name)
		if err != nil {
			t.Fatal(err)
		}
		write(t, s.dir, name, string(b)+more)
	}
	write(t, s.dir, "resolv.conf", "nameserver 127.0.0.1\nlookup file\n")
	return s.run(t, log, append([]string{"unshare", "-m", "sh", "-c", apart, s.dir, empty}, args...)...)
}

const eximConfig = `exim_path = {exim}
primary_hostname = far.example
spool_directory = {dir}/spool
log_file_path = {dir}/log-%s
pid_file_path = {dir}/pid
local_interfaces = {host}
daemon_smtp_ports = {port}
keep_environment =
deliver_drop_privilege
tls_certificate = {chain}
tls_privatekey = {key}
tls_advertise_hosts = *
chunking_advertise_hosts = *
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *
message_size_limit = 5000000
smtp_accept_queue_per_connection = 0
smtp_accept_max = 0
acl_smtp_rcpt = rcpt
begin acl
rcpt:
  deny local_parts = nobody
    message = 5.1.1 unknown
  defer local_parts = later
    message = 4.2.0 later
  accept domains = far.example : box.example : home.example : example.net
  accept authenticated = *
  deny message = 5.7.1 no relaying
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
  hosts_require_tls = *
begin retry
* * F,1h,1s
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_condition = ${if and {{eq{$auth2}{u}}{eq{$auth3}{secret}}}}
  server_set_id = $auth2
  server_advertise_condition = ${if def:tls_in_cipher}
`

// startExim starts the Exim that .ci/deps unpacked.
func startExim(t *testing.T, s *mtaSetup) *mta {
	t.Helper()
	exim := s.copy(t, filepath.Join(peerDir(t, "exim4-daemon-light"), "usr/sbin/exim4")) // it starts itself as its own user
	if err := os.Chmod(exim, 0o755); err != nil {
		t.Fatal(err)
	}
	const user = "Debian-exim"
	spool := filepath.Join(s.dir, "spool")
	if err := os.Mkdir(spool, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{s.dir, spool, s.chain, s.key} {
		if err := os.Chown(name, 61234, 61234); err != nil {
			t.Fatal(err)
		}
	}
	config := write(t, s.dir, "exim.conf", s.fill(eximConfig, "{exim}", exim))
	return s.runApart(t, filepath.Join(s.dir, "log-main"), user, "", exim, "-C", config, "-bdf", "-q5s")
}

const smtpdConfig = `pki far cert "{chain}"
pki far key "{key}"
table users file:{dir}/users
table bad { "nobody@far.example" }
smtp max-message-size "5000000"
filter later phase rcpt-to match rcpt-to { "later@far.example" } reject "450 4.2.0 later"
listen on {host} port {port} tls pki far hostname far.example auth-optional <users> filter later
action next relay host "smtp+tls://{nextHost}:{nextPort}" tls no-verify helo far.example
match from any for rcpt-to <bad> reject
match from any for domain { "far.example", "box.example", "home.example", "example.net" } action next
match from any auth for domain "auth.example" action next
`

// startOpenSMTPD starts the OpenSMTPD that .ci/deps unpacked.
func startOpenSMTPD(t *testing.T, s *mtaSetup) *mta {
	t.Helper()
	smtpd := filepath.Join(peerDir(t, "opensmtpd"), "usr/sbin/smtpd")
	write(t, s.dir, "users", "u "+succeed(t, "openssl", "passwd", "-6", "secret"))
	config := write(t, s.dir, "smtpd.conf", s.fill(smtpdConfig))
	return s.runApart(t, "", "opensmtpd opensmtpq", "/var/spool /var/lib /run", smtpd, "-d", "-f", config)
}
