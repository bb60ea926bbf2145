package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// pythonMailbox reads mailboxes as Python's library does: for each it prints how many messages there are, and of each what tells it from others.
const pythonMailbox = `import mailbox, sys
for path in sys.argv[1:]:
    box = mailbox.Maildir(path, create=False)
    print(len(box))
    for key in sorted(box.keys()):
        m = box[key]
        print(m.get_subdir(), m["Return-Path"], m["Delivered-To"], m["Subject"], repr(m.get_payload()))
`

// TestMaildir delivers into mailboxes that another program reads back, also when it is killed and started again in the middle.
func TestMaildir(t *testing.T) {
	dir := t.TempDir()
	script, boxes := filepath.Join(dir, "read.py"), filepath.Join(dir, "mail")
	if err := os.WriteFile(script, []byte(pythonMailbox), 0o644); err != nil {
		t.Fatal(err)
	}
	read := func(users ...string) string {
		args := []string{script}
		for _, user := range users {
			args = append(args, filepath.Join(boxes, user))
		}
		out, err := exec.Command("python3", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	config := configOf(dir, "127.0.0.1:0", "maildir://"+boxes+"/{local}", "")
	n := serve(t, config)
	c := dialSMTP(t, n.smtp)
	c.say("EHLO client.example", 250)
	c.say("MAIL FROM:<s@sender.example>", 250)
	c.say("RCPT TO:<a@far.example>", 250)
	c.say("RCPT TO:<B@far.example>", 250)
	c.say("DATA", 354)
	c.say("Subject: one\r\n\r\n..a dot\r\nFrom the start\r\n.", 250)
	n.awaitEmpty()
	for user, to := range map[string]string{"a": "a@far.example", "b": "B@far.example"} {
		want := "1\nnew <s@sender.example> " + to + ` one '.a dot\nFrom the start\n'` + "\n"
		if got := read(user); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	const messages = 100
	source(t, n.smtp, messages)
	n.kill()
	n = serve(t, config)
	n.awaitEmpty()
	n.stop()
	if got, _, _ := strings.Cut(read("rcpt"), "\n"); got != strconv.Itoa(messages) { // what was under way is written again under the same name
		t.Errorf("%s messages of %d", got, messages)
	}
}
