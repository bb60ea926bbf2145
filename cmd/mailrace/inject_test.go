package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"mailrace/bench/sink"
	"mailrace/engine/inject"
)

// injecting is configOf with injection over HTTP.
func injecting(dir, route string) string {
	return strings.Replace(configOf(dir, "127.0.0.1:0", route, ""), "[admin]\n", "[admin]\ninject_from = [\"127.0.0.0/8\"]\n", 1)
}

// TestReadmeInjection runs the commands of the README as they stand, but for the port, and looks at what arrives.
func TestReadmeInjection(t *testing.T) {
	dir := t.TempDir()
	far := receiver(t, sink.Options{Store: filepath.Join(dir, "store")})
	n := serve(t, injecting(dir, "smtp://"+far.Addr()))
	_, section, ok := strings.Cut(readme(t), "\n## HTTP injection\n")
	section, _, closed := strings.Cut(section, "\n## ")
	commands := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(section, -1)
	if !ok || !closed || len(commands) < 5 {
		t.Fatalf("%d commands in the README", len(commands))
	}
	for _, c := range commands {
		out, err := exec.Command("sh", "-c", strings.ReplaceAll(c[1], "127.0.0.1:8025", n.admin)).CombinedOutput()
		if err != nil || strings.Contains(string(out), "error\":\"") || !json.Valid(out) {
			t.Errorf("%s\n%v\n%s", c[1], err, out)
		}
	}
	n.awaitEmpty()
	n.stop()
	subjects := map[string]int{}
	for _, m := range stored(t, filepath.Join(dir, "store")) {
		for _, name := range []string{"Date", "Message-ID", "From", "Subject"} {
			if !strings.Contains(m, "\r\n"+name+": ") {
				t.Errorf("no %s: %q", name, m)
			}
		}
		subjects[regexp.MustCompile(`\r\nSubject: (.*)\r\n`).FindStringSubmatch(m)[1]]++
	}
	for subject, want := range map[string]int{
		"=?utf-8?q?Gr=C3=BC=C3=9Fe?=": 1, "Ann, your code": 1, "Bob, your code": 1, "Hello": 1, "Number 1": 1, "Number 2": 1, "Number 3": 1, "Hello Ann": 1,
	} {
		if subjects[subject] != want {
			t.Errorf("%d messages %q arrived: %v", subjects[subject], subject, subjects)
		}
	}
}

// keyed injects a letter with a key, and returns its id.
func keyed(address, key string) (string, error) {
	body := fmt.Sprintf(`{"envelope":{"from":"s@example.com","to":["r@example.net"]},"subject":"x","text":"x","headers":{"X-Key":%q},"idempotency_key":%[1]q,"tenant":"shop"}`, key)
	res, err := http.Post("http://"+address+"/v1/messages", "application/json", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var a inject.Answer
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", res.Status, a.Error)
	}
	return a.Recipients[0].ID, nil
}

// TestKeysSurviveKills kills a node while programs inject the same letters again and again. Whatever they are answered, and however often, each
// letter has one id, and becomes one message. It may arrive twice (P4), but only under that id.
func TestKeysSurviveKills(t *testing.T) {
	const rounds, keys, clients = 6, 150, 4
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	far := receiver(t, sink.Options{Store: filepath.Join(dir, "store")})
	config := injecting(dir, "smtp://"+far.Addr())
	var ids sync.Map // key → the id that was answered first
	note := func(key, id string) {
		if first, known := ids.LoadOrStore(key, id); known && first != id {
			t.Errorf("%s: queued as %s, then as %s", key, first, id)
		}
	}
	for round := range rounds {
		n := serve(t, config)
		until := int64(1 + random.IntN(keys*clients))
		var answers atomic.Int64
		var work sync.WaitGroup
		for c := range clients {
			order := rand.New(rand.NewPCG(seed, uint64(round*clients+c))).Perm(keys)
			work.Go(func() {
				for _, k := range order { // all clients send all letters
					key := fmt.Sprintf("letter %d", k)
					id, err := keyed(n.admin, key)
					if err != nil {
						return // the node is dead
					}
					note(key, id)
					if answers.Add(1) == until {
						n.cmd.Process.Kill()
					}
				}
			})
		}
		work.Wait()
		n.kill()
	}
	n := serve(t, config)
	for k := range keys {
		key := fmt.Sprintf("letter %d", k)
		id, err := keyed(n.admin, key)
		if err != nil {
			t.Fatal(err)
		}
		note(key, id)
	}
	n.awaitEmpty()
	n.stop()
	arrived := map[string]bool{}
	for _, m := range stored(t, filepath.Join(dir, "store")) {
		id, key := regexp.MustCompile(`with HTTP id (\w+)`).FindStringSubmatch(m), regexp.MustCompile(`\r\nX-Key: (.*)\r\n`).FindStringSubmatch(m)
		if id == nil || key == nil {
			t.Fatalf("%q", m)
		}
		if first, _ := ids.Load(key[1]); first != id[1] {
			t.Errorf("%s arrived as %s, was queued as %v", key[1], id[1], first)
		}
		arrived[key[1]] = true
	}
	if len(arrived) != keys {
		t.Errorf("%d of %d letters arrived", len(arrived), keys)
	}
}

// TestCurlRefusals looks at what a program sees on the wire: status, header and reason.
func TestCurlRefusals(t *testing.T) {
	dir := t.TempDir()
	n := serve(t, injecting(dir, "discard"))
	url := "http://" + n.admin + "/v1/messages"
	big := filepath.Join(dir, "big.json")
	if err := os.WriteFile(big, bytes.Repeat([]byte(" "), 33<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"-d", "{}", "-H", "Content-Type: application/json"}, []string{"HTTP/1.1 400 ", `{"error":"envelope.from is missing`}},
		{[]string{"-d", "{}"}, []string{"HTTP/1.1 415 ", "want application/json"}},
		{[]string{"-H", "Content-Type: application/json", "--data-binary", "@" + big}, []string{"HTTP/1.1 413 ", "inject_size"}},
		{[]string{"-H", "Content-Type: application/json", "-H", "Transfer-Encoding: chunked", "--data-binary", "@" + big}, []string{"HTTP/1.1 413 ", "inject_size"}},
		{[]string{"-H", "Content-Type: application/json", "-H", "Origin: http://evil.example", "-d", "{}"}, []string{"HTTP/1.1 403 ", "cross-origin"}},
		{[]string{"-X", "DELETE"}, []string{"HTTP/1.1 405 ", "Allow: POST", "want POST"}},
		{[]string{"-H", "Host: evil.example", "-d", "{}"}, []string{"HTTP/1.1 421 "}},
	} {
		out, err := exec.Command("curl", append([]string{"-sS", "-i", url}, c.args...)...).Output()
		for _, want := range c.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("curl %q: %v\n%s\nwant %s", c.args, err, out, want)
			}
		}
	}
	if q, err := n.queue(); err != nil || len(q.Messages) != 0 {
		t.Errorf("%+v, %v", q, err)
	}
	n.stop()
}
