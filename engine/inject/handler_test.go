package inject

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mailrace/proto/message"
)

const hello = `{"envelope":{"from":"s@shop.example","to":["a@far.example"]},"subject":"Hi","text":"Hello"}`

func set(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func zipped(body string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(body))
	z.Close()
	return b.String()
}

func stranger(r *http.Request) { r.RemoteAddr = "192.0.2.1:4711" }

// TestRefusals: each says what, where and what to do, and queues nothing.
func TestRefusals(t *testing.T) {
	large := strings.Repeat(" ", 1<<20) + hello
	for _, c := range []struct {
		name, path, kind, body string
		change                 func(*http.Request)
		node                   func(n *node)
		status                 int
		want, retry            string
	}{
		{name: "GET", change: func(r *http.Request) { r.Method = "GET" }, status: 405, want: "want POST"},
		{name: "stranger", change: stranger, status: 403, want: "192.0.2.1 may not inject: its network is not in [admin] inject_from"},
		{name: "page of another origin", change: set("Sec-Fetch-Site", "cross-site"), status: 403, want: "cross-origin request"},
		{name: "form", kind: "application/x-www-form-urlencoded", status: 415, want: `Content-Type "application/x-www-form-urlencoded": want application/json`},
		{name: "no type", kind: " ", status: 415, want: `Content-Type " ": want application/json, application/x-ndjson or message/rfc822`},
		{name: "charset", kind: "application/json; charset=latin1", status: 415, want: "in UTF-8"},
		{name: "KumoMTA and lines", path: "/api/inject/v1", kind: "application/x-ndjson", status: 415, want: "want application/json"},
		{name: "brotli", change: set("Content-Encoding", "br"), status: 415, want: `Content-Encoding "br": want gzip, or none`},
		{name: "no gzip", change: set("Content-Encoding", "gzip"), status: 400, want: "the body is not gzip"},
		{name: "gzip cut short", body: zipped(hello)[:30], change: set("Content-Encoding", "gzip"), status: 400, want: "the body cannot be read: unexpected EOF"},
		{name: "large", body: large, status: 413, want: "the body is larger than 1048576 octets"},
		{name: "large, without a length", body: large, change: func(r *http.Request) { r.ContentLength = -1 }, status: 413, want: "larger than"},
		{name: "large when unpacked", body: zipped(large), change: set("Content-Encoding", "gzip"), status: 413, want: "larger than"},
		{name: "not UTF-8", body: "{\"subject\":\"\xff\"}", status: 400, want: "the body is not UTF-8"},
		{name: "empty", body: " ", status: 400, want: "the JSON is cut short"},
		{name: "no letter", body: "[]", status: 400, want: "the body holds no letter"},
		{name: "no JSON", body: "{,", status: 400, want: "octet 2: no JSON: invalid character ','"},
		{name: "no JSON in an array", body: "[{},", status: 400, want: "octet 4: no JSON"},
		{name: "two", body: hello + hello, status: 400, want: "there is something behind the JSON object"},
		{name: "stopping", node: func(n *node) { n.ready = ErrStopping }, status: 503, want: ErrStopping.Error(), retry: "5"},
		{name: "full", node: func(n *node) { n.o.Budget.Take(64 << 20) }, status: 503, want: ErrBusy.Error(), retry: "5"},
		{name: "full disk", node: func(n *node) { n.ready = ErrFull }, status: 503, want: ErrFull.Error(), retry: "5"},
		{name: "disk filling", node: func(n *node) { n.refuse = func(*Mail) error { return ErrFull } }, status: 503, want: ErrFull.Error(), retry: "5"},
		{name: "nearly full", node: func(n *node) { n.o.Budget.Take(64<<20 - 100) }, status: 503, want: ErrBusy.Error(), retry: "5"},
		{name: "filling", node: func(n *node) { n.refuse = func(*Mail) error { return ErrBusy } }, status: 503, want: ErrBusy.Error(), retry: "5"},
		{name: "store", node: func(n *node) { n.refuse = func(*Mail) error { return fmt.Errorf("%w (closed)", ErrStore) } }, status: 503, want: "(closed)", retry: "5"},
		{name: "late", node: func(n *node) { n.refuse = func(*Mail) error { return context.DeadlineExceeded } }, status: 503, want: "deadline", retry: "5"},
		{name: "slots", node: func(n *node) { n.h.slots <- struct{}{}; n.h.slots <- struct{}{} }, status: 429, want: "inject_requests", retry: "1"},
	} {
		n := newNode(t, nil)
		n.o.Budget = message.NewBudget(64 << 20)
		n.h.o.Budget = n.o.Budget
		if c.node != nil {
			c.node(n)
		}
		taken := n.o.Budget.Used()
		change := []func(*http.Request){func(*http.Request) {}}
		if c.change != nil {
			change[0] = c.change
		}
		kind, path, body := "application/json", "/v1/messages", hello
		for _, s := range []struct{ to, from *string }{{&kind, &c.kind}, {&path, &c.path}, {&body, &c.body}} {
			if *s.from != "" {
				*s.to = *s.from
			}
		}
		n.o.Budget = message.NewBudget(1)
		r, text := n.post(path, kind, body, change...)
		if used := n.h.o.Budget.Used(); used != taken {
			t.Errorf("%s: %d bytes leaked", c.name, used-taken)
		}
		if got := failure(t, text); r.StatusCode != c.status || !strings.Contains(got, c.want) || r.Header.Get("Retry-After") != c.retry || len(n.mails) > 0 {
			t.Errorf("%s: %d, again in %q, %d queued: %s\nwant %d, %q: %s", c.name, r.StatusCode, r.Header.Get("Retry-After"), len(n.mails), got, c.status, c.retry, c.want)
		}
	}
}

// TestForms are the ways in which a request may come.
func TestForms(t *testing.T) {
	n := newNode(t, nil)
	for _, c := range []struct {
		name, path, kind, body string
		change                 func(*http.Request)
		mails                  int
		want                   string
	}{
		{"object", "/v1/messages", "application/json", hello, nil, 1, `{"accepted":1,"failed":0,"recipients":[{"email":"a@far.example","id":"0000000000001"}]}`},
		{"gzip", "/v1/messages", "application/json; charset=utf-8", zipped(hello), set("Content-Encoding", "gzip"), 1, `"accepted":1`},
		{"array", "/v1/messages", "application/json", "[" + hello + "," + hello + "]", nil, 2, `{"accepted":2,"failed":0,"items":[{"accepted":1,"failed":0,"recipients":[{"email":"a@far.example","id":"0000000000001"}]},{"accepted":1,`},
		{"array with a bad letter", "/v1/messages", "application/json", `[{"envelop":{}},` + hello + `]`, nil, 1, `{"accepted":1,"failed":1,"items":[{"accepted":0,"failed":1,"error":"unknown field \"envelop\""},`},
		{"lines", "/v1/messages", "application/x-ndjson", hello + "\n\n{bad\n" + hello, nil, 2, `{"accepted":2,"failed":1,"items":[{"accepted":1,`},
		{"message", "/v1/messages?from=s@shop.example&to=a@far.example,b@far.example&to=c@far.example&tenant=t&campaign=c&idempotency_key=k", "message/rfc822", "Subject: x\n\nHello \xff\n", nil, 1,
			`{"accepted":3,"failed":0,"recipients":[{"email":"a@far.example","id":"0000000000001"},{"email":"b@far.example","id":"0000000000001"},{"email":"c@far.example","id":"0000000000001"}]}`},
		{"message, envelope in the header", "/v1/messages", "message/rfc822", "Subject: x\n\nHello\n", func(r *http.Request) {
			r.Header.Set("X-Envelope-From", "")
			r.Header.Add("X-Envelope-To", "a@far.example")
			r.Header.Add("X-Envelope-To", "b@far.example")
		}, 1, `"accepted":2`},
		{"KumoMTA", "/api/inject/v1", "application/json", `{"envelope_sender":"s@shop.example","content":"Subject: hello\n\nHello there","recipients":[{"email":"a@far.example"}]}`, nil, 1,
			`{"success_count":1,"fail_count":0,"failed_recipients":[],"errors":[]}`},
	} {
		n.mails = nil
		change := []func(*http.Request){}
		if c.change != nil {
			change = append(change, c.change)
		}
		r, text := n.post(c.path, c.kind, c.body, change...)
		if r.StatusCode != 200 || !strings.Contains(text, c.want) || len(n.mails) != c.mails {
			t.Errorf("%s: %d, %d mails: %s", c.name, r.StatusCode, len(n.mails), text)
		}
		for i := range n.mails {
			checkWire(t, n.mails[i].Content)
		}
	}
}

// TestMessageEnvelope: a message as it is goes under the envelope that stands beside it.
func TestMessageEnvelope(t *testing.T) {
	n := newNode(t, nil)
	for _, c := range []struct {
		path   string
		change []func(*http.Request)
		want   string
	}{
		{"/v1/messages?from=s@shop.example&to=a@far.example&tenant=t&campaign=c&idempotency_key=k", nil, "s@shop.example to [a@far.example] t c k"},
		{"/v1/messages?from=&to=a@far.example", nil, " to [a@far.example]   "},
		{"/v1/messages?to=a@far.example", []func(*http.Request){set("X-Envelope-From", "s@shop.example")}, "s@shop.example to [a@far.example]   "},
		{"/v1/messages", []func(*http.Request){set("X-Envelope-From", "s@shop.example"), set("X-Envelope-To", "a@far.example, b@far.example"), set("Idempotency-Key", "h")},
			"s@shop.example to [a@far.example b@far.example]   h"},
	} {
		n.mails = nil
		if r, text := n.post(c.path, "message/rfc822", "Subject: x\n\nHello\n", c.change...); r.StatusCode != 200 || len(n.mails) != 1 {
			t.Errorf("%s: %d, %d mails: %s", c.path, r.StatusCode, len(n.mails), text)
			continue
		}
		m := &n.mails[0]
		if got := fmt.Sprintf("%s to %v %s %s %s", m.From, m.To, m.Tenant, m.Campaign, m.Key); got != c.want {
			t.Errorf("%s: %s\nwant %s", c.path, got, c.want)
		}
	}
}

// TestUsers inject under their name and tenant, from their addresses, as much as they may.
func TestUsers(t *testing.T) {
	left := 3
	user := &User{
		Name: "app", Tenant: "shop", MaySend: func(a []byte) bool { return bytes.HasSuffix(a, []byte("@shop.example")) },
		Begin: func(time.Time) int { return left }, Spend: func(n int, _ time.Time) { left -= n },
	}
	n := newNode(t, func(o *Options) {
		o.Password = func(_ context.Context, name, password string, at netip.Addr) (*User, error) {
			switch {
			case at != netip.MustParseAddr("192.0.2.1"):
				return nil, fmt.Errorf("asked for %v", at)
			case name == "down":
				return nil, errors.New("too many hashes at a time")
			case name != "app" || password != "secret":
				return nil, ErrCredentials
			}
			return user, nil
		}
	})
	as := func(name, password string) func(*http.Request) {
		return func(r *http.Request) {
			stranger(r)
			r.SetBasicAuth(name, password)
		}
	}
	body := func(from string, rest string) string {
		return `{"envelope":{"from":"` + from + `","to":["a@far.example","b@far.example"]},"text":"Hello"` + rest + `}`
	}
	for _, c := range []struct {
		name   string
		change func(*http.Request)
		body   string
		status int
		want   string
	}{
		{"nobody", stranger, body("s@shop.example", ""), 401, "name and password of a user are missing"},
		{"wrong", as("app", "x"), body("s@shop.example", ""), 401, "wrong name or password"},
		{"down", as("down", "x"), body("s@shop.example", ""), 503, "too many hashes"},
		{"other sender", as("app", "secret"), body("s@other.example", ""), 403, "not an address of user app"},
		{"null sender", as("app", "secret"), body("", `,"from":"s@shop.example"`), 403, `envelope sender \"<>\": not an address of user app`},
		{"other tenant", as("app", "secret"), body("s@shop.example", `,"tenant":"x"`), 403, "the mail of user app is that of tenant shop"},
		{"good", as("app", "secret"), body("s@shop.example", `,"tenant":"shop"`), 200, `"accepted":2`},
		{"too much", as("app", "secret"), body("s@shop.example", ""), 429, "too many messages or recipients of this user"},
		{"in the network, without a name", func(*http.Request) {}, body("s@other.example", ""), 200, `"accepted":2`},
	} {
		n.mails = nil
		r, text := n.post("/v1/messages", "application/json", c.body, c.change)
		if r.StatusCode != c.status || !strings.Contains(text, c.want) || (r.Header.Get("WWW-Authenticate") != "") != (c.status == 401) {
			t.Errorf("%s: %d %s", c.name, r.StatusCode, text)
		}
		if c.name == "good" && (n.mails[0].User != "app" || n.mails[0].Tenant != "shop" || n.mails[0].MaySend == nil) {
			t.Errorf("%+v", n.mails[0])
		}
	}
}

// TestRefusedPasswordsAreLogged, but not as often as clients like.
func TestRefusedPasswordsAreLogged(t *testing.T) {
	var log bytes.Buffer
	at := now
	n := newNode(t, func(o *Options) {
		o.Password = func(context.Context, string, string, netip.Addr) (*User, error) { return nil, ErrCredentials }
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		o.Now = func() time.Time { return at }
	})
	try := func(r *http.Request) {
		stranger(r)
		r.SetBasicAuth("app\n", "secret")
	}
	for range refusalLines + 5 {
		n.post("/v1/messages", "application/json", hello, try)
	}
	if got := strings.Count(log.String(), `msg="authentication failed" user="app\n" client=192.0.2.1 mechanism="HTTP Basic"`); got != refusalLines || strings.Contains(log.String(), "secret") {
		t.Errorf("%d lines:\n%s", got, &log)
	}
	at = at.Add(refusalTime)
	n.post("/v1/messages", "application/json", hello, try)
	if !strings.Contains(log.String(), "more_since_the_last=5") {
		t.Errorf("%s", &log)
	}
}

// TestKeys: a letter that is repeated gets the first one's answer, as a whole or in part.
func TestKeys(t *testing.T) {
	n := newNode(t, func(o *Options) { o.Recipients = 2 })
	letter := func(extra string, to ...string) string {
		list := make([]string, len(to))
		for i := range to {
			list[i] = fmt.Sprintf(`{"email":"%s@far.example"%s}`, to[i], extra)
		}
		return `{"envelope":{"from":"s@shop.example","recipients":[` + strings.Join(list, ",") + `]},"text":"Hello","idempotency_key":"k1","tenant":"t"}`
	}
	ids := func(body string) (ids, repeated string) {
		t.Helper()
		_, text := n.post("/v1/messages", "application/json", body)
		for _, part := range strings.Split(text, `"id":"`)[1:] {
			ids += part[12:13]
			if strings.HasPrefix(part[13:], `","repeated":true`) {
				repeated += part[12:13]
			}
		}
		return ids, repeated
	}
	for _, c := range []struct{ name, body, ids, repeated string }{
		{"shared", letter("", "a", "b", "c", "d", "e"), "11223", ""},
		{"again", letter("", "a", "b", "c", "d", "e"), "11223", "11223"},
		{"each", letter(`,"substitutions":{"x":1}`, "a", "b"), "45", ""},
		{"some again", letter(`,"substitutions":{"x":1}`, "b", "c"), "56", "5"},
	} {
		if got, repeated := ids(c.body); got != c.ids || repeated != c.repeated {
			t.Errorf("%s: %s, repeated %s, want %s and %s", c.name, got, repeated, c.ids, c.repeated)
		}
	}
	r, _ := n.post("/v1/messages", "application/json", hello, set("Idempotency-Key", "from the header"))
	if m := n.mails[len(n.mails)-1]; r.StatusCode != 200 || m.Key != "from the header" {
		t.Errorf("%d, key %q", r.StatusCode, m.Key)
	}
	if _, text := n.post("/v1/messages", "application/json", letter("", "a"), set("Idempotency-Key", "k2")); !strings.Contains(text, "given twice") {
		t.Error(text)
	}
}

// TestSlowBody: a client that does not go on is sent away at the deadline, and its place and memory are free.
func TestSlowBody(t *testing.T) {
	n := newNode(t, func(o *Options) { o.Timeout, o.Requests = 50*time.Millisecond, 1 })
	s := httptest.NewServer(n.h)
	defer s.Close()
	for range 2 {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
		answer, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") || !strings.Contains(string(answer), "inject_timeout") {
			t.Errorf("%q, %v", answer, err)
		}
	}
	if used := n.o.Budget.Used(); used != 0 || len(n.h.slots) != 0 {
		t.Errorf("%d bytes, %d places", used, len(n.h.slots))
	}
}

// TestManyLetters bounds what one request may hold.
func TestManyLetters(t *testing.T) {
	n := newNode(t, func(o *Options) { o.MaxBody = 10 << 20 })
	body := strings.Repeat(hello+"\n", itemsMax+5)
	r, text := n.post("/v1/messages", "application/x-ndjson", body)
	if r.StatusCode != 200 || !strings.HasPrefix(text, `{"accepted":10000,"failed":1,`) || !strings.Contains(text, "more than 10000 letters") || len(n.mails) != itemsMax {
		t.Errorf("%d %.100s, %d mails", r.StatusCode, text, len(n.mails))
	}
	r, text = n.post("/v1/messages", "application/json", `{"envelope":{"from":"s@shop.example","to":[`+strings.Repeat(`"a",`, listMax)+`"a"]},"text":"x"}`)
	if r.StatusCode != 400 || !strings.Contains(text, "more than 100000 elements") {
		t.Errorf("%d %.100s", r.StatusCode, text)
	}
	if r, text := n.post("/v1/messages", "application/x-ndjson", hello, set("Idempotency-Key", "k")); r.StatusCode != 400 || !strings.Contains(text, "give each of several") {
		t.Errorf("%d %.100s", r.StatusCode, text)
	}
}
