package engine

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailrace/engine/auth"
	"mailrace/engine/config"
	"mailrace/engine/inject"
)

// injecting is a configuration that takes mail over HTTP.
func injecting(t *testing.T, routes ...config.Route) *config.Config {
	c := settings(t, routes...)
	c.Admin.Address, c.Admin.InjectFrom = "127.0.0.1:0", loopback
	return c
}

// post sends a letter over HTTP and returns the answer.
func (r *rig) post(path, body string) (int, inject.Answer) {
	r.t.Helper()
	res, err := http.Post("http://"+r.AdminAddr().String()+path, "application/json", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	var a inject.Answer
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, a
}

// TestInject takes a letter over HTTP all the way to its recipients, with a header section that is complete and labels.
func TestInject(t *testing.T) {
	t.Parallel()
	f := listen(t, polite)
	c := injecting(t, f.route("*"))
	c.Labels.Campaign, c.Idempotency.Header = "X-Campaign", "X-Key"
	r := start(t, c)
	status, a := r.post("/v1/messages", `{"envelope":{"from":"s@shop.example","to":["a@far.example"]},"raw":"Subject: x\nBcc: hidden@far.example\nX-Campaign: spring\nX-Key: k\n\nHello\n","tenant":"shop"}`)
	if status != 200 || a.Accepted != 1 {
		t.Fatalf("%d %+v", status, a)
	}
	id := a.Recipients[0].ID
	l := f.next()
	content := string(l.content)
	trace := "Received: from [127.0.0.1] ([127.0.0.1])\r\n\tby mta.test.example with HTTP id " + id + "\r\n\tfor <a@far.example>; "
	if !strings.HasPrefix(content, trace) {
		t.Errorf("%q", content)
	}
	section, body, _ := strings.Cut(content, "\r\n\r\n")
	for name, n := range map[string]int{"Date": 1, "Message-ID": 1, "From": 1, "Subject": 1, "Bcc": 0, "X-Campaign": 0, "X-Key": 0} {
		if strings.Count(section, "\r\n"+name+": ") != n {
			t.Errorf("%s: want %d of it: %q", name, n, section)
		}
	}
	if body != "Hello\r\n" {
		t.Errorf("%q", body)
	}
	if _, again := r.post("/v1/messages", `{"envelope":{"from":"s@shop.example","to":["a@far.example"]},"text":"x","tenant":"shop","idempotency_key":"k"}`); !again.Recipients[0].Repeated || again.Recipients[0].ID != id {
		t.Errorf("%+v", again)
	}
	if e := r.record("reception", "a@far.example", 1); e.ID != id || e.Tenant != "shop" || e.Campaign != "spring" || e.Peer != "127.0.0.1" {
		t.Errorf("%+v", e)
	}
	r.awaitEmpty()
	if n := len(r.records("reception")); n != 1 {
		t.Errorf("%d receptions", n)
	}
}

// TestInjectBatch sends to thousands in one request, packed.
func TestInjectBatch(t *testing.T) {
	t.Parallel()
	r := start(t, injecting(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToDiscard}}))
	const n = 3000
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(batchOf(n))
	z.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+r.AdminAddr().String()+"/v1/messages", &packed)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Content-Encoding", "gzip")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var a inject.Answer
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil || a.Accepted != n || a.Failed != 0 {
		t.Fatalf("%v, %d accepted, %d failed", err, a.Accepted, a.Failed)
	}
	ids := map[string]bool{}
	for _, rcpt := range a.Recipients {
		ids[rcpt.ID] = true
	}
	if len(ids) != n {
		t.Errorf("%d messages", len(ids))
	}
	r.awaitEmpty()
	if got := len(r.records("delivery")); got != n {
		t.Errorf("%d deliveries", got)
	}
}

// TestInjectRefuses is for what only the node can refuse.
func TestInjectRefuses(t *testing.T) {
	t.Parallel()
	c := injecting(t)
	r := start(t, c)
	many := strings.Repeat("X-A: b\\n", 1001)
	for body, want := range map[string]string{
		`{"envelope":{"from":"","to":["a@far.example"]},"raw":"Subject: x\n\nHello\n"}`:                                   "From header field missing",
		`{"envelope":{"from":"s@shop.example","to":["a@far.example"]},"raw":"From: a@x.example\nFrom: b@x.example\n\nx"}`: "More than one From",
		`{"envelope":{"from":"s@shop.example","to":["a@far.example"]},"raw":"` + many + `\n"}`:                            "More than 1000 header fields",
	} {
		if status, a := r.post("/v1/messages", body); status != 400 || !strings.Contains(a.Error, want) {
			t.Errorf("%.100s: %d %+v, want %s", body, status, a, want)
		}
	}
	if n := len(r.queue()); n != 0 || r.budget.Used() != 0 {
		t.Errorf("%d messages, %d bytes", n, r.budget.Used())
	}
}

// TestKeysAtAllDoors: a key is the same one over SMTP and HTTP, in a header field, an ENVID or JSON, and after a restart.
func TestKeysAtAllDoors(t *testing.T) {
	t.Parallel()
	f := listen(t, polite)
	c := injecting(t, f.route("*"))
	c.Idempotency.Header, c.Labels.EnvID, c.Labels.Tenant = "X-Key", []string{"tenant", "key"}, "X-Tenant"
	first := ""
	for round := range 2 {
		r := start(t, c)
		d := r.dial()
		d.say("EHLO client.example", 250)
		ids := []string{
			d.mail("MAIL FROM:<s@sender.example>", "X-Tenant: shop\r\nX-Key: k\r\n\r\none\r\n", "a@far.example"),
			d.mail("MAIL FROM:<s@sender.example> ENVID=shop/k", noise(200<<10, 3), "b@far.example"),
			d.mail("MAIL FROM:<s@sender.example>", "X-Key: k\r\nX-Tenant: shop\r\n\r\nthree\r\n", "c@far.example"),
		}
		d.say("QUIT", 221)
		_, a := r.post("/v1/messages", `{"envelope":{"from":"s@shop.example","to":["a@far.example"]},"text":"x","tenant":"shop","idempotency_key":"k"}`)
		if first == "" {
			first = ids[0]
			if l := f.next(); !strings.HasSuffix(l.content, "one\r\n") {
				t.Errorf("%q", l.content)
			}
		}
		for _, id := range append(ids, a.Recipients[0].ID) {
			if id != first {
				t.Errorf("round %d: queued as %s, the first as %s", round, id, first)
			}
		}
		d.end()
		r.awaitEmpty()
		if n := len(r.records("reception")); n != 1 {
			t.Errorf("round %d: %d receptions", round, n)
		}
		r.stop()
	}
}

// TestKeyOfManyParts: a key in the header section of a letter that becomes several messages stands for all of them.
func TestKeyOfManyParts(t *testing.T) {
	t.Parallel()
	c := injecting(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToDiscard}})
	c.Idempotency.Header, c.Limits.Recipients = "X-Key", 2
	r := start(t, c)
	for key, recipients := range map[string]string{
		"shared": `"to":["a@far.example","b@far.example","c@far.example","d@far.example","e@far.example"]`,
		"each":   `"recipients":[{"email":"a@far.example","substitutions":{}},{"email":"b@far.example","substitutions":{}},{"email":"c@far.example"}]`,
	} {
		want := []string{}
		for round := range 2 {
			_, a := r.post("/v1/messages", `{"envelope":{"from":"s@shop.example",`+recipients+`},"raw":"X-Key: `+key+`\nTo: {{ email }}\n\nHello {{ email }}"}`)
			got := []string{}
			for _, rcpt := range a.Recipients {
				if got = append(got, rcpt.ID); rcpt.Error != "" || rcpt.Repeated != (round == 1) {
					t.Errorf("%s, round %d: %+v", key, round, rcpt)
				}
			}
			if round == 0 {
				want = got
			}
			if distinct := len(slices.Compact(slices.Clone(got))); !slices.Equal(got, want) || distinct != 3 {
				t.Errorf("%s, round %d: %v, want %v", key, round, got, want)
			}
		}
	}
	r.awaitEmpty()
	if n := len(r.records("delivery")); n != 8 {
		t.Errorf("%d deliveries", n)
	}
}

// TestSmugglingOverHTTP: whatever ends lines in a whole message, it stays one message, or is refused.
func TestSmugglingOverHTTP(t *testing.T) {
	t.Parallel()
	f := listen(t, polite)
	r := start(t, injecting(t, f.route("*")))
	const smuggled = "MAIL FROM:<x@evil.example>\r\nRCPT TO:<y@far.example>\r\nDATA\r\nSubject: y\r\n\r\nsmuggled\r\n.\r\n"
	taken := 0
	for row, end := range map[string]string{
		"S1": "\n.\n", "S2": "\n.\r", "S3": "\r.\n", "S4": "\r.\r", "S5": "\n.\r\n", "S6": "\r.\r\n", "S7": "\r\n.\n", "S8": "\r\n.\r", "S9": "\r\n\x00.\r\n",
		"S10": "\r\n.\x00\r\n", "S11": "\r\n.\r\r\n", "S12": "\r\r\n.\r\n", "S13": "\r\r\n.\r\r\n", "S14": "\r\n.\r\n",
	} {
		raw, err := json.Marshal("Subject: x\r\n\r\nHello" + end + smuggled)
		if err != nil {
			t.Fatal(err)
		}
		status, a := r.post("/v1/messages", `{"envelope":{"from":"s@shop.example","to":["a@far.example"]},"raw":`+string(raw)+`}`)
		if strings.ContainsAny(strings.NewReplacer("\r\n", "").Replace(end), "\r\x00") {
			if status != 400 {
				t.Errorf("%s: %d %+v", row, status, a)
			}
			continue
		}
		if taken++; status != 200 {
			t.Errorf("%s: %d %+v", row, status, a)
			continue
		}
		if l := f.next(); !strings.HasSuffix(l.content, "\r\n.\r\n"+smuggled) || !strings.Contains(l.mail, "s@shop.example") {
			t.Errorf("%s: %s %q", row, l.mail, l.content)
		}
	}
	r.awaitEmpty()
	if n := len(r.records("delivery")); n != taken || taken < 3 {
		t.Errorf("%d deliveries of %d messages", n, taken)
	}
}

// TestInjectAsUser lets in users of [auth], with their tenant, senders and limits.
func TestInjectAsUser(t *testing.T) {
	t.Parallel()
	c := injecting(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToDiscard}})
	hash, err := auth.HashPassword("right horse")
	if err != nil {
		t.Fatal(err)
	}
	c.Auth.Users = filepath.Join(t.TempDir(), "users.toml")
	users := fmt.Sprintf("[[user]]\nname = \"app\"\npassword = %q\nsenders = [\"*@shop.example\"]\ntenant = \"shop\"\nrecipients = 5\n", hash)
	if err := os.WriteFile(c.Auth.Users, []byte(users), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Admin.InjectFrom, c.Admin.InjectUsers = nil, true
	r := start(t, c)
	send := func(password, from, text string) (int, string) {
		t.Helper()
		body := `{"envelope":{"from":"` + from + `","to":["a@far.example","b@far.example"]},` + text + `}`
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+r.AdminAddr().String()+"/v1/messages", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if password != "" {
			req.SetBasicAuth("app", password)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		answer, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(answer)
	}
	for _, c := range []struct {
		password, from, text string
		status               int
		want                 string
	}{
		{"", "s@shop.example", `"text":"x"`, 401, "name and password"},
		{"wrong", "s@shop.example", `"text":"x"`, 401, "wrong name or password"},
		{"right horse", "s@other.example", `"text":"x"`, 403, "not an address of user app"},
		{"right horse", "s@shop.example", `"text":"x","from":"s@other.example"`, 403, "is not an address of yours"},
		{"right horse", "s@shop.example", `"text":"x","tenant":"shop"`, 200, `"accepted":2`},
		{"right horse", "s@shop.example", `"text":"x"`, 429, "too many messages or recipients"},
	} {
		if status, answer := send(c.password, c.from, c.text); status != c.status || !strings.Contains(answer, c.want) {
			t.Errorf("%+v: %d %s", c, status, answer)
		}
	}
	if e := r.record("reception", "a@far.example", 1); e.User != "app" || e.Tenant != "shop" {
		t.Errorf("%+v", e)
	}
}

// TestInjectWhileStopping: what is under way is answered for, what comes later is sent away.
func TestInjectWhileStopping(t *testing.T) {
	t.Parallel()
	r := start(t, injecting(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToDiscard}}))
	b := r.NewBatch() // keeps the node busy
	b.Add(t.Context(), &Mail{From: "s@sender.example", To: []string{"a@far.example"}, Content: []byte(hello)})
	r.cancel()
	r.await("the stop to begin", func() bool { return !r.ready.Load() })
	if status, a := r.post("/v1/messages", `{"envelope":{"from":"s@shop.example","to":["a@far.example"]},"text":"x"}`); status != 503 || !strings.Contains(a.Error, "stopping") {
		t.Errorf("%d %+v", status, a)
	}
	b.Add(t.Context(), &Mail{From: "s@sender.example", To: []string{"a@far.example"}, Content: []byte(hello)})
	if got := b.Wait(t.Context()); got[0].Err != nil || !errors.Is(got[1].Err, inject.ErrStopping) {
		t.Errorf("%+v", got)
	}
}

// TestInjectMemory sends more than fits at a time: the budget holds, what is not taken is told to come again, and what is taken arrives (P6).
func TestInjectMemory(t *testing.T) {
	t.Parallel()
	c := injecting(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToDiscard}})
	c.Engine.Memory, c.Admin.InjectSize, c.Admin.InjectRequests = 32<<20, 4<<20, 100
	r := start(t, c)
	body := `{"envelope":{"from":"s@shop.example","to":["a@far.example"]},"raw":"Subject: x\n\n` + strings.Repeat(strings.Repeat("x", 70)+`\n`, 40_000) + `"}`
	var peak, taken, later atomic.Int64
	var clients sync.WaitGroup
	for range 24 {
		clients.Go(func() {
			for range 4 {
				switch status, a := r.post("/v1/messages", body); status {
				case 200:
					taken.Add(1)
				case 429, 503:
					later.Add(1)
				default:
					t.Errorf("%d %s", status, a.Error)
				}
				peak.Store(max(peak.Load(), r.budget.Used()))
			}
		})
	}
	clients.Wait()
	r.awaitEmpty()
	t.Logf("%d messages of %d octets taken, %d sent away, at most %d bytes of %d seen in use", taken.Load(), len(body), later.Load(), peak.Load(), c.Engine.Memory)
	if most := c.Engine.Memory + int64(len(body)); taken.Load() == 0 || peak.Load() > most {
		t.Errorf("%d bytes in use, want at most %d", peak.Load(), most)
	}
	if n := int64(len(r.records("delivery"))); n != taken.Load() {
		t.Errorf("%d deliveries of %d messages", n, taken.Load())
	}
}

// batchOf is a letter to n recipients, each with a text of their own.
func batchOf(n int) []byte {
	var b bytes.Buffer
	text := strings.Repeat("The quick brown fox jumps over the lazy dog, says {{ name }}.\\n", 40)
	fmt.Fprintf(&b, `{"envelope":{"from":"s@shop.example","recipients":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"email":"u%d@far.example","name":"User %[1]d","substitutions":{"code":"%[1]d"}}`, i)
	}
	fmt.Fprintf(&b, `]},"from":"Shop <s@shop.example>","subject":"Your code is {{ code }}","text":"%s","html":"<p>%s</p>"}`, text, text)
	return b.Bytes()
}

// BenchmarkInject measures letters to 1000 recipients, each with a text of their own of 5 KiB in two parts, from the request to the discarding.
// Client and node share the process and its CPU.
func BenchmarkInject(b *testing.B) {
	const n = 1000
	dir := b.TempDir()
	c := config.Default()
	c.Hostname = "mta.test.example"
	c.Listeners = []config.Listener{{Address: "127.0.0.1:0", Mode: config.ModeMX}}
	c.Spool.Path, c.Events.Path = filepath.Join(dir, "spool"), "off"
	c.Routes = []config.Route{{Domains: []string{"*"}, To: config.Target{Kind: config.ToDiscard}}}
	c.Admin.Address, c.Admin.InjectFrom = "127.0.0.1:0", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	node, err := New(c, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	}()
	body, url := batchOf(n), "http://"+node.AdminAddr().String()+"/v1/messages"
	send := func() {
		res, err := http.Post(url, "application/json", bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		answer, err := io.ReadAll(res.Body)
		if res.Body.Close(); err != nil || res.StatusCode != 200 || !bytes.HasPrefix(answer, []byte(`{"accepted":1000,`)) {
			b.Fatalf("%d, %v: %.200s", res.StatusCode, err, answer)
		}
	}
	send()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu := cpuTime(b)
	for b.Loop() {
		send()
	}
	messages := float64(b.N * n)
	b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/messages, "cpu-µs/message")
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/messages, "allocs/message")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/messages, "µs/message")
}

// cpuTime is what the process has used.
func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
