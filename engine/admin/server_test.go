package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/proto/message"
)

var arrived = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// sample is a queue of n messages.
func sample(n int) []*message.Message {
	ms := make([]*message.Message, n)
	for i := range ms {
		ms[i] = &message.Message{
			ID: message.ID(i + 1), Arrived: arrived.UnixNano(), From: "a@sender.example", Size: 10240,
			Recipients: []message.Recipient{
				{Address: fmt.Sprintf("u%d@Example.com", i)},
				{Address: "x@example.org", State: message.Deferred, Attempts: 2, Due: arrived.Add(time.Hour).UnixNano(), Reply: "451 4.7.1 later"},
				{Address: "y@example.net", State: message.Delivered, Attempts: 1, Due: 1},
			},
		}
	}
	return ms
}

func scanOf(ms []*message.Message) func(func(*message.Message) bool) error {
	return func(fn func(*message.Message) bool) error {
		for _, m := range ms {
			if !fn(m) {
				return nil
			}
		}
		return nil
	}
}

func start(t *testing.T, o Options) *Server {
	t.Helper()
	o.Address, o.Log = "127.0.0.1:0", slog.New(slog.DiscardHandler)
	if o.Ready == nil {
		o.Ready = func() error { return nil }
	}
	s, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func request(t *testing.T, s *Server, method, path, host string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+s.Addr().String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func TestAnswers(t *testing.T) {
	metrics.GetOrCreateCounter("mailrace_admin_test_total").Set(1)
	unready := errors.New("the spool is being recovered")
	s := start(t, Options{Scan: scanOf(sample(3)), Ready: func() error { return unready }})
	for _, c := range []struct {
		method, path string
		host         string
		status       int
		kind         string
		has          string
	}{
		{"GET", "/", "", 200, "text/plain; charset=utf-8", "/v1/queue"},
		{"GET", "/metrics", "", 200, "text/plain; version=0.0.4; charset=utf-8", "mailrace_admin_test_total 1\n"},
		{"GET", "/metrics", "", 200, "text/plain; version=0.0.4; charset=utf-8", "\nprocess_cpu_seconds_total "},
		{"GET", "/healthz", "", 200, "text/plain; charset=utf-8", "ok\n"},
		{"GET", "/readyz", "", 503, "text/plain; charset=utf-8", "the spool is being recovered\n"},
		{"GET", "/v1/queue?limit=1", "", 200, "application/json", `{"messages":[{"id":"0000000000001","arrived":"2026-03-04T05:06:07Z","sender":"a@sender.example","size":10240,"recipients":[` +
			`{"address":"u0@Example.com","state":"pending","attempts":0},` +
			`{"address":"x@example.org","state":"deferred","attempts":2,"due":"2026-03-04T06:06:07Z","reply":"451 4.7.1 later"},` +
			`{"address":"y@example.net","state":"delivered","attempts":1}]}],"more":true}` + "\n"},
		{"GET", "/v1/queue?limit=0", "", 400, "application/json", `{"error":"limit: \"0\" is not a number from 1 to 10000"}`},
		{"GET", "/v1/queue?limit=1&limit=2", "", 400, "application/json", `{"error":"limit: given 2 times: want it once"}`},
		{"GET", "/v1/queue?state=lost", "", 400, "application/json", `state: \"lost\" is not one of pending, deferred, delivered, bounced, expired`},
		{"GET", "/v1/queue?domian=x", "", 400, "application/json", `\"domian\" is not a parameter: want limit, domain or state`},
		{"POST", "/v1/queue", "", 405, "", ""},
		{"GET", "/v1/../../etc/passwd", "", 404, "", ""},
		{"GET", "/nothing", "", 404, "", ""},
		// DNS rebinding
		{"GET", "/v1/queue", "evil.example", 421, "", "this service is called by"},
		{"GET", "/v1/queue", "127.0.0.1.evil.example:80", 421, "", "this service is called by"},
		{"GET", "/healthz", "localhost:8025", 200, "", "ok"},
		{"GET", "/healthz", "[::1]:8025", 200, "", "ok"},
		{"GET", "/healthz", "[::1]", 200, "", "ok"},
	} {
		res, body := request(t, s, c.method, c.path, c.host)
		if kind := res.Header.Get("Content-Type"); res.StatusCode != c.status || c.kind != "" && kind != c.kind || !strings.Contains(body, c.has) {
			t.Errorf("%s %s of %q: %d %s\n%s\nwant %d %s\n%s", c.method, c.path, c.host, res.StatusCode, kind, body, c.status, c.kind, c.has)
		}
	}
	unready = nil
	if res, _ := request(t, s, "GET", "/readyz", ""); res.StatusCode != 200 {
		t.Errorf("readyz of a ready node: %d", res.StatusCode)
	}
}

// TestQueueOfWishes shows what senders asked for the delivery.
func TestQueueOfWishes(t *testing.T) {
	messages := sample(2)
	at := messages[0].Arrived
	messages[0].Tenant, messages[0].Wishes = "shop", &message.Wishes{Release: at + 1e9, Deadline: at + 2e9, ByMode: message.ByReturn, Priority: -3}
	q, err := List(Filter{Limit: 10}, scanOf(messages))
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(q)
	if want := `"tenant":"shop","release":"2026-03-04T05:06:08Z","deadline":"2026-03-04T05:06:09Z","priority":-3,"recipients":[`; err != nil || strings.Count(string(got), want) != 1 {
		t.Errorf("%s, %v, want once %s", got, err, want)
	}
	for _, key := range []string{"release", "deadline", "priority"} {
		if strings.Count(string(got), key) != 1 {
			t.Errorf("%s, want %s once", got, key)
		}
	}
}

func TestQueueFilters(t *testing.T) {
	s := start(t, Options{Scan: scanOf(sample(150))})
	for _, c := range []struct {
		query                string
		messages, recipients int
		more                 bool
	}{
		{"", 100, 300, true},
		{"?limit=150", 150, 450, false},
		{"?limit=1000&domain=EXAMPLE.com", 150, 150, false},
		{"?limit=1000&state=deferred", 150, 150, false},
		{"?limit=1000&state=deferred&state=pending", 150, 300, false},
		{"?limit=1000&state=pending&domain=example.net", 0, 0, false},
		{"?domain=nowhere.example", 0, 0, false},
	} {
		_, body := request(t, s, "GET", "/v1/queue"+c.query, "")
		var q Queue
		if err := json.Unmarshal([]byte(body), &q); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		n := 0
		for _, m := range q.Messages {
			n += len(m.Recipients)
		}
		if len(q.Messages) != c.messages || n != c.recipients || q.More != c.more {
			t.Errorf("%s: %d messages, %d recipients, more %v; want %d, %d, %v", c.query, len(q.Messages), n, q.More, c.messages, c.recipients, c.more)
		}
	}
}

// TestListBounds: a list stays bounded whatever the messages are.
func TestListBounds(t *testing.T) {
	ms := sample(200)
	for _, m := range ms {
		m.Recipients = make([]message.Recipient, 1000)
	}
	q, err := List(Filter{Limit: maxLimit}, scanOf(ms))
	if err != nil || len(q.Messages) != maxRecipients/1000 || !q.More {
		t.Errorf("%d messages, more %v, %v", len(q.Messages), q.More, err)
	}
}

func TestScanFails(t *testing.T) {
	s := start(t, Options{Scan: func(func(*message.Message) bool) error { return errors.New("disk on fire") }})
	if res, body := request(t, s, "GET", "/v1/queue", ""); res.StatusCode != 500 || body != `{"error":"disk on fire"}`+"\n" {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

// TestClose: a request under way gets its answer, new ones are refused.
func TestClose(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s := start(t, Options{Ready: func() error { close(entered); <-release; return nil }})
	answer := make(chan int)
	go func() {
		res, err := http.Get("http://" + s.Addr().String() + "/readyz")
		if err != nil {
			answer <- 0
			return
		}
		res.Body.Close()
		answer <- res.StatusCode
	}()
	<-entered
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	for { // until the listener is gone
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			break
		}
		c.Close()
	}
	close(release)
	if status := <-answer; status != 200 {
		t.Errorf("request under way: %d", status)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

func TestListenFails(t *testing.T) {
	s := start(t, Options{})
	if _, err := Listen(Options{Address: s.Addr().String(), Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("two services share an address")
	}
}

// TestLargeHeader: a header beyond the bound is refused.
func TestLargeHeader(t *testing.T) {
	s := start(t, Options{})
	r, _ := http.NewRequest("GET", "http://"+s.Addr().String()+"/healthz", nil)
	r.Header.Set("X", strings.Repeat("x", 4*headerBytes))
	res, err := http.DefaultClient.Do(r)
	if err == nil {
		res.Body.Close()
		if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%d", res.StatusCode)
		}
	}
}
