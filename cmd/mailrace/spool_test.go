package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailrace/bench/sink"
	"mailrace/proto/message"
	"mailrace/spool"
)

// filledSpool makes a spool with messages in it.
func filledSpool(t *testing.T, path string, shards, messages, size int) {
	t.Helper()
	done := make(chan *spool.Op, messages)
	s, err := spool.Open(spool.Options{Path: path, Shards: shards, Sync: true, Log: slog.New(slog.DiscardHandler), Post: func(_ int, ops []*spool.Op) {
		for _, op := range ops {
			done <- op
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	budget := message.NewBudget(1 << 30)
	content := []byte("Subject: test\r\n\r\n" + strings.Repeat("a line of the body\r\n", size/20))
	for i := range messages {
		sh := s.Shard(i % shards)
		m := &message.Message{ID: sh.NewID(), Arrived: time.Now().UnixNano(), From: "s@sender.example", Client: "127.0.0.1", Helo: "client.example",
			Recipients: []message.Recipient{{Address: fmt.Sprintf("u%d@far.example", i)}}, Size: int64(len(content))}
		m.Trace = fmt.Appendf(nil, "Received: by mta.test.example id %v\r\n", m.ID)
		m.Body = budget.AppendContent(nil, content, m.Size)
		m.Chunks = len(m.Body)
		m.Hold(1)
		sh.Enqueue(&spool.Op{Append: m, Claim: spool.Claim{Key: spool.NewClaimKey("", m.ID.String()), Expires: time.Now().Add(time.Hour).UnixNano()}})
	}
	for range messages {
		if op := <-done; op.Err != nil {
			t.Fatal(op.Err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// tool runs the program to its end, and expects an exit status.
func tool(t *testing.T, status int, args ...string) (stdout, stderr string) {
	t.Helper()
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), bin, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != status {
		t.Fatalf("mailrace %v: status %d, want %d\n%s%s", args, got, status, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// TestSpoolCommands takes mail through all of them, and delivers it in the end.
func TestSpoolCommands(t *testing.T) {
	const messages = 60
	dir := t.TempDir()
	path := filepath.Join(dir, "spool")
	filledSpool(t, path, 2, messages, 10<<10)
	far := receiver(t, sink.Options{})
	settings := func(more string) string {
		config := configOf(dir, "127.0.0.1:0", "smtp://"+far.Addr(), "")
		config = strings.Replace(config, "[spool]\n", "[spool]\n"+more+"\n", 1)
		name := filepath.Join(dir, "mailrace.toml")
		if err := os.WriteFile(name, []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}

	out, _ := tool(t, 0, "spool", "verify", "--path", path)
	for _, want := range []string{"60 messages", "in 2 shards", "/s", "60 pending", "nothing is wrong"} {
		if !strings.Contains(out, want) {
			t.Errorf("verify does not say %q:\n%s", want, out)
		}
	}
	config := settings("shards = 3")
	_, errs := tool(t, 1, "serve", "--config", config)
	if !strings.Contains(errs, "mailrace spool reshard --path "+path+" --shards 3") {
		t.Errorf("serve refuses with %q", errs)
	}
	if out, _ = tool(t, 0, "spool", "reshard", "--config", config); !strings.Contains(out, "has 3 shards now, and had 2: 60 messages") {
		t.Errorf("reshard says %q", out)
	}
	if out, _ = tool(t, 0, "spool", "reshard", "--config", config); !strings.Contains(out, "has 3 shards already") {
		t.Errorf("reshard says %q", out)
	}
	tool(t, 0, "spool", "export", "--path", path, "--to", filepath.Join(dir, "mail"))
	tool(t, 0, "spool", "export", "--path", path, "--to", filepath.Join(dir, "some"), "--domain", "far.example", "--state", "pending", "--limit", "7")
	if names, err := filepath.Glob(filepath.Join(dir, "some", "*.eml")); err != nil || len(names) != 7 {
		t.Errorf("exported %d with --limit 7, %v", len(names), err)
	}
	tool(t, 1, "spool", "export", "--path", path, "--to", filepath.Join(dir, "some"), "--state", "asleep")
	if out, _ = tool(t, 0, "spool", "import", "--path", filepath.Join(dir, "other"), "--from", filepath.Join(dir, "mail")); !strings.Contains(out, "60 messages imported") {
		t.Errorf("import says %q", out)
	}

	garbleBlobs(t, filepath.Join(path, "generation-1", "shard-000"))
	out, _ = tool(t, 1, "spool", "verify", "--path", path, "--json")
	var v spool.Verified
	if err := json.Unmarshal([]byte(out), &v); err != nil || v.OK() {
		t.Errorf("verify of a damaged spool: %v\n%s", err, out)
	}
	out, _ = tool(t, 1, "spool", "salvage", "--from", path, "--to", filepath.Join(dir, "rescued"))
	if !strings.Contains(out, "damage: shard 0") || !strings.Contains(out, "lost: ") {
		t.Errorf("salvage says %s", out)
	}
	tool(t, 0, "spool", "verify", "--path", filepath.Join(dir, "rescued"))

	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "other"), path); err != nil {
		t.Fatal(err)
	}
	n := serve(t, string(must(os.ReadFile(settings("shards = 4\nreshard = \"auto\"")))))
	n.awaitEmpty()
	n.stop()
	if r := far.Report(); r.Messages != messages || r.Duplicates != 0 {
		t.Errorf("%d of %d arrived, %d twice", r.Messages, messages, r.Duplicates)
	}
	if !strings.Contains(n.output(), "resharded the spool") {
		t.Errorf("serve does not tell of the resharding:\n%s", n.output())
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// garbleBlobs overwrites the middle of what holds the content.
func garbleBlobs(t *testing.T, dir string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.blob"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		b := must(os.ReadFile(name))
		copy(b[len(b)/2:], strings.Repeat("\xde\xad", 200))
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReshardKilled kills a resharding, when so much is copied, time after time; the next takes it up, and in the end all is there.
func TestReshardKilled(t *testing.T) {
	const messages, kills = 4000, 12
	path := filepath.Join(t.TempDir(), "spool")
	filledSpool(t, path, 3, messages, 8<<10)
	before := report(t, path)
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	total, killed := diskOf(t, path), 0
	for i := range kills {
		goal := random.Int64N(total / 2)
		p := run(t, nil, bin, "spool", "reshard", "--path", path, "--shards", []string{"5", "1", "8"}[i/4])
		await(t, "records to be copied", func() (bool, string) {
			select {
			case <-p.exited:
				return true, ""
			default:
				n := diskOf(t, path) - total
				return n >= goal, fmt.Sprint(n, " of ", goal)
			}
		})
		p.kill()
		if p.err != nil {
			killed++
		}
	}
	out, _ := tool(t, 0, "spool", "reshard", "--path", path, "--shards", "16", "--json")
	var done spool.Resharded
	if err := json.Unmarshal([]byte(out), &done); err != nil || done.Messages != messages {
		t.Errorf("%+v, %v", done, err)
	}
	after := report(t, path)
	if !after.OK() || after.Messages != messages || after.Octets != before.Octets || after.Records["claim"] != before.Records["claim"] ||
		after.Orphans.Records != 0 || after.Shards != 16 {
		t.Errorf("%d of %d were killed; before %+v, after %+v", killed, kills, before, after)
	}
	t.Logf("%d of %d were killed", killed, kills)
}

func report(t *testing.T, path string) (v spool.Verified) {
	t.Helper()
	out, _ := tool(t, 0, "spool", "verify", "--path", path, "--json")
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// diskOf is the size of all files below a directory, in bytes.
func diskOf(t *testing.T, dir string) (sum int64) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // the other process takes files away
		}
		if info, err := d.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return sum
}
