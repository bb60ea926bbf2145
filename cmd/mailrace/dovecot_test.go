package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// dovecotConfig is a Dovecot that takes mail by LMTP and does nothing else: %[1]s is its directory, %[2]s host and %[3]s port, %[4]s the user it runs as, %[5]s
// their group.
const dovecotConfig = `base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
protocols = lmtp
ssl = no
default_login_user = %[4]s
default_internal_user = %[4]s
default_internal_group = %[5]s
mail_location = maildir:%[1]s/mail/%%d/%%n
auth_username_format = %%u
first_valid_uid = 1
first_valid_gid = 1
mail_plugins = quota
auth_mechanisms = plain scram-sha-256
plugin {
  quota = maildir:quota
}
service lmtp {
  chroot =
  inet_listener lmtp {
    address = %[2]s
    port = %[3]s
  }
  unix_listener %[1]s/lmtp {
    mode = 0600
  }
}
service auth {
  chroot =
  unix_listener %[1]s/auth {
    mode = 0666
  }
}
service anvil {
  chroot =
}
service stats {
  chroot =
}
passdb {
  driver = passwd-file
  args = %[1]s/users
}
userdb {
  driver = passwd-file
  args = %[1]s/users
}
`

// dovecot is a running Dovecot with mailboxes for a@far.example and b@far.example, and one for full@far.example that takes next to nothing. It is no
// service of the system, and runs as nobody in particular.
type dovecot struct {
	*process
	dir, address string
}

func startDovecot(t *testing.T) *dovecot {
	t.Helper()
	binary, err := exec.LookPath("dovecot")
	if err != nil {
		binary = "/usr/sbin/dovecot"
	}
	if _, err := os.Stat(binary); err != nil {
		t.Skipf("NOT TESTED against Dovecot: it is not installed, and .ci/deps could not install it: %v", err)
	}
	dir, err := os.MkdirTemp("", "dovecot-") // not t.TempDir: others must get into it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &dovecot{dir: dir, address: free(t)}
	host, port, _ := net.SplitHostPort(d.address)
	as, uid, gid := []string{binary}, os.Getuid(), os.Getgid()
	user, group := idName(t, "-un"), idName(t, "-gn")
	if uid == 0 { // it would drop rights by itself, but then it needs accounts that only its package makes
		uid, gid, user, group = 65534, 65534, "nobody", "nogroup"
		as = []string{"setpriv", "--reuid", user, "--regid", group, "--clear-groups", binary}
	}
	users := ""
	for _, name := range []string{"a", "b"} {
		users += fmt.Sprintf("%s@far.example:{PLAIN}x:%d:%d::%s/home\n", name, uid, gid, dir)
	}
	users += fmt.Sprintf("u:{PLAIN}secret:%d:%d::%s/home\n", uid, gid, dir)
	users += fmt.Sprintf("full@far.example:{PLAIN}x:%d:%d::%s/home::userdb_quota_rule=*:bytes=10\n", uid, gid, dir)
	for name, text := range map[string]string{"conf": fmt.Sprintf(dovecotConfig, dir, host, port, user, group), "users": users} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getuid() == 0 {
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	as = append(as, "-F", "-c", filepath.Join(dir, "conf"))
	d.process = run(t, nil, as[0], as[1:]...)
	t.Cleanup(d.stop) // its children end with it then
	await(t, "Dovecot", func() (bool, string) {
		select {
		case <-d.exited:
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Fatalf("Dovecot ended: %v\n%s\n%s", d.err, d.output(), log)
		default:
		}
		c, err := net.Dial("tcp", d.address)
		if err != nil {
			return false, err.Error()
		}
		c.Close()
		return true, ""
	})
	return d
}

// idName asks id(1) for a name of who runs the test.
func idName(t *testing.T, option string) string {
	t.Helper()
	out, err := exec.Command("id", option).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// mail is what the mailbox of a user holds, in no order.
func (d *dovecot) mail(t *testing.T, user string) (messages []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(d.dir, "mail/far.example", user, "new/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, string(text))
	}
	return messages
}

// TestDovecot delivers into Dovecot by LMTP, over TCP and over a Unix socket. Each recipient is settled as Dovecot says for it, behind the end of
// data too.
func TestDovecot(t *testing.T) {
	for _, way := range []string{"tcp", "unix"} {
		t.Run(way, func(t *testing.T) {
			d := startDovecot(t)
			to := "lmtp://" + d.address
			if way == "unix" {
				to = "lmtp+unix://" + filepath.Join(d.dir, "lmtp")
			}
			dir := t.TempDir()
			n := serve(t, configOf(dir, "127.0.0.1:0", to, "[queue]\nretry_min = \"1h\"\n"))
			const messages = 20
			for i := range messages {
				c := dialSMTP(t, n.smtp)
				c.say("EHLO client.example", 250)
				c.say("MAIL FROM:<>", 250)
				for _, rcpt := range []string{"a", "full", "nobody", "b"} {
					c.say("RCPT TO:<"+rcpt+"@far.example>", 250)
				}
				c.say("DATA", 354)
				c.say(fmt.Sprintf("Subject: %d\r\n\r\n..a dot\r\n\xc3\xbc\r\n.", i), 250)
				c.say("QUIT", 221)
			}
			n.awaitEmpty()
			n.stop()
			for _, user := range []string{"a", "b"} {
				got := d.mail(t, user)
				slices.Sort(got)
				if len(slices.Compact(got)) != messages {
					t.Fatalf("%s has %d messages", user, len(got))
				}
				for _, m := range got {
					if !strings.HasSuffix(m, "\n\n.a dot\n\xc3\xbc\n") || !strings.HasPrefix(m, "Return-Path: <>\n") {
						t.Fatalf("%s: %q", user, m)
					}
				}
			}
			if got := d.mail(t, "full"); len(got) != 0 {
				t.Errorf("full has %d messages", len(got))
			}
			tally := map[string]int{}
			for _, typ := range []string{"delivery", "bounce", "deferral", "expiry"} {
				for _, e := range eventsOf(t, dir, typ) {
					tally[e.Type+" "+e.Recipient+" "+e.Enhanced]++
				}
			}
			for _, want := range []string{"delivery a@far.example 2.0.0", "delivery b@far.example 2.0.0", "bounce nobody@far.example 5.1.1", "bounce full@far.example 5.2.2"} {
				if tally[want] != messages {
					t.Errorf("%s: %d times", want, tally[want])
				}
			}
			if len(tally) != 4 {
				t.Errorf("%v", tally)
			}
		})
	}
}
