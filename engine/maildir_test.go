package engine

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"mailrace/engine/config"
	"mailrace/engine/maildir"
	"mailrace/proto/message"
)

// maildirs leads mail for all domains into mailboxes below a directory of the test.
func maildirs(t *testing.T, template string) (root string, route config.Route) {
	root = t.TempDir()
	return root, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToMaildir, Path: filepath.Join(root, template)}}
}

// mailbox reads what was delivered into a directory.
func mailbox(t *testing.T, dir string) (messages []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "new/*"))
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
	if rest, _ := filepath.Glob(filepath.Join(dir, "tmp/*")); len(rest) > 0 {
		t.Errorf("left behind: %q", rest)
	}
	return messages
}

// TestMaildir: a message goes to each of its recipients, with what the final delivery adds in front; names that lead elsewhere bounce.
func TestMaildir(t *testing.T) {
	t.Parallel()
	root, route := maildirs(t, "mail/{domain}/{user}")
	home := listen(t, polite)
	report := home.route("sender.example")
	r := start(t, settings(t, route, report))
	evil := []string{`a/b@far.example`, `"../../../evil"@far.example`, `"."@far.example`, `".hidden"@far.example`}
	r.send("s@sender.example", hello, append(evil, "Ann@far.example", "bob+tag@far.example", `"bob"@far.example`)...)
	d := parseReport(t, home.next())
	if len(d.recipients) != len(evil) {
		t.Errorf("%+v", d.recipients)
	}
	for _, group := range d.recipients {
		if group.Get("Status") != "5.1.3" || group.Get("Action") != "failed" {
			t.Errorf("%v", group)
		}
	}
	r.awaitEmpty()
	want := strings.ReplaceAll(hello, "\r\n", "\n")
	for user, to := range map[string][]string{"ann": {"Ann@far.example"}, "bob": {`"bob"@far.example`, "bob+tag@far.example"}} {
		got := mailbox(t, filepath.Join(root, "mail/far.example", user))
		slices.Sort(got)
		if len(got) != len(to) {
			t.Fatalf("%s has %d messages", user, len(got))
		}
		for i, text := range got {
			head := "Return-Path: <s@sender.example>\nDelivered-To: " + to[i] + "\nReceived: from client.example "
			if !strings.HasPrefix(text, head) || !strings.HasSuffix(text, want) || strings.Contains(text, "\r") {
				t.Errorf("%s: %q", user, text)
			}
		}
	}
	var made []string
	_ = filepath.WalkDir(root, func(name string, _ fs.DirEntry, _ error) error {
		made = append(made, strings.TrimPrefix(name, root))
		return nil
	})
	if len(made) != 3+2*4+3 {
		t.Errorf("made %q", made)
	}
	if e := r.record("delivery", "Ann@far.example", 1); e.Enhanced != "2.0.0" || e.Peer != "" || !strings.HasSuffix(e.Site, "/mail/{domain}/{user}") {
		t.Errorf("%+v", e)
	}
}

// TestMaildirFromSpool: a message that is not in memory, of many chunks, and a binary one, which is kept as it is.
func TestMaildirFromSpool(t *testing.T) {
	t.Parallel()
	root, route := maildirs(t, "{address}")
	cfg := settings(t, route)
	cfg.Limits.MessageSize, cfg.Engine.Memory = 100<<20, 16<<20
	r := start(t, cfg)
	content := text(1, 20<<20)
	r.send("s@sender.example", content, "a@far.example", "b@far.example")
	r.inject(func(m *message.Message) { m.Flags |= message.Binary }, "s@sender.example", "Subject: x\r\n\r\n\x00\r\n\n", "binary@far.example")
	r.awaitEmpty()
	for _, to := range []string{"a@far.example", "b@far.example"} {
		if got := mailbox(t, filepath.Join(root, to)); len(got) != 1 || !strings.HasSuffix(got[0], "\n"+strings.ReplaceAll(content, "\r\n", "\n")) {
			t.Errorf("%s has %d messages", to, len(got))
		}
	}
	if got := mailbox(t, filepath.Join(root, "binary@far.example")); len(got) != 1 || !strings.HasSuffix(got[0], "\r\nSubject: x\r\n\r\n\x00\r\n\n") {
		t.Errorf("%q", got)
	}
}

// brokenDisk gives an error for some files, the first few times.
type brokenDisk struct {
	maildir.Disk
	mu    sync.Mutex
	fails map[string]syscall.Errno // by a part of the name
	left  map[string]int
}

func (b *brokenDisk) Create(name string) (maildir.File, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for part, errno := range b.fails {
		if strings.Contains(name, part) && b.left[part] > 0 {
			b.left[part]--
			return nil, &fs.PathError{Op: "open", Path: name, Err: errno}
		}
	}
	return b.Disk.Create(name)
}

// TestMaildirFaults: what the file system says decides for each recipient, and tells the sender nothing of our directories. What waits is
// delivered when it can be.
func TestMaildirFaults(t *testing.T) {
	t.Parallel()
	root, route := maildirs(t, "mail/{local}")
	cfg := settings(t, route)
	cfg.Engine.Loops = 1
	r := start(t, cfg)
	disk := &brokenDisk{left: map[string]int{}, fails: map[string]syscall.Errno{
		"/full/": syscall.ENOSPC, "/quota/": syscall.EDQUOT, "/denied/": syscall.EACCES, "/broken/": syscall.EIO, "/long/": syscall.ENAMETOOLONG,
	}}
	codes := map[string]string{"full": "4.3.1", "quota": "4.2.2", "denied": "4.3.5", "broken": "4.3.0", "long": "5.1.3", "fine": "2.0.0"}
	for part := range disk.fails {
		disk.left[part] = 2
	}
	r.lanes[0].loop.Post(func() { r.outbound.Files = disk })
	var to []string
	for user := range codes {
		to = append(to, user+"@far.example")
	}
	r.send("", hello, to...)
	r.awaitEmpty()
	for user, code := range codes {
		typ, delivered := map[byte]string{'2': "delivery", '4': "deferral", '5': "bounce"}[code[0]], 1
		for n := 1; n <= map[string]int{"deferral": 2}[typ]; n++ {
			if e := r.record(typ, user+"@far.example", n); e.Enhanced != code || e.Attempt != n || strings.Contains(e.Text, root) {
				t.Errorf("%s: %+v", user, e)
			}
		}
		if typ == "bounce" {
			delivered = 0
		} else if e := r.record("delivery", user+"@far.example", 1); e.Enhanced != "2.0.0" {
			t.Errorf("%+v", e)
		}
		if got := mailbox(t, filepath.Join(root, "mail", user)); len(got) != delivered {
			t.Errorf("%s has %d messages", user, len(got))
		}
	}
}

// TestMaildirManyMessages: many at a time, each once, and the node ends in order with mail under way.
func TestMaildirManyMessages(t *testing.T) {
	t.Parallel()
	root, route := maildirs(t, "{local}")
	cfg := settings(t, route)
	r := start(t, cfg)
	const messages = 200
	for i := range messages {
		r.send("s@sender.example", text(i, 3000), "a@far.example", fmt.Sprintf("b%d@far.example", i%7))
	}
	r.stop()
	start(t, cfg).awaitEmpty()
	seen := map[string]int{}
	for _, text := range mailbox(t, filepath.Join(root, "a")) {
		_, subject, _ := strings.Cut(text, "\nSubject: ")
		seen[subject[:strings.IndexByte(subject, '\n')]]++
	}
	if len(seen) != messages {
		t.Errorf("%d messages", len(seen))
	}
	for subject, n := range seen {
		if n != 1 {
			t.Errorf("%s: %d times", subject, n)
		}
	}
}
