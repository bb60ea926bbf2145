package inject

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/proto/message"
)

// node is what the handler knows of the node, under the test's control.
type node struct {
	t      testing.TB
	o      Options
	h      *Handler
	mails  []Mail
	keys   map[string]message.ID
	refuse func(m *Mail) error // nil = everything is taken
	ready  error
}

var now = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// newNode makes a node whose clients on loopback may inject.
func newNode(t testing.TB, change func(o *Options)) *node {
	n := &node{t: t, keys: map[string]message.ID{}}
	n.o = Options{
		From: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, MaxBody: 1 << 20, MaxMessage: 100_000, Recipients: 100, Requests: 2,
		Timeout: time.Minute, HoldMax: 24 * time.Hour, PriorityMax: 5, Budget: message.NewBudget(64 << 20), Metrics: metrics.NewSet(),
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now },
		Ready: func() error { return n.ready }, Begin: func() Batch { return &batch{node: n} },
	}
	if change != nil {
		change(&n.o)
	}
	n.h = New(n.o)
	return n
}

// batch takes down what is added.
type batch struct {
	node    *node
	results []Result
}

func (b *batch) Add(_ context.Context, m *Mail) {
	n := b.node
	var r Result
	if n.refuse != nil {
		r.Err = n.refuse(m)
	}
	key := m.Tenant + "\x00" + m.Key + "\x00" + m.Part
	if r.Err == nil && m.Key != "" && n.keys[key] != 0 {
		r.ID, r.Repeated = n.keys[key], true
	} else if r.Err == nil {
		n.mails = append(n.mails, *m)
		r.ID = message.ID(len(n.mails))
		n.keys[key] = r.ID
	}
	b.results = append(b.results, r)
}

func (b *batch) Wait(context.Context) []Result { return b.results }

// post sends a request and returns its answer.
func (n *node) post(path, contentType, body string, change ...func(r *http.Request)) (*http.Response, string) {
	n.t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.RemoteAddr = "127.0.0.1:4711"
	r.Header.Set("Content-Type", contentType)
	for _, fn := range change {
		fn(r)
	}
	w := httptest.NewRecorder()
	n.h.ServeHTTP(w, r)
	if used := n.o.Budget.Used(); used != 0 {
		n.t.Errorf("%d bytes of the budget leaked", used)
	}
	text, _ := io.ReadAll(w.Result().Body)
	if !json.Valid(text) {
		n.t.Errorf("the answer is no JSON: %q", text)
	}
	return w.Result(), string(text)
}

// inject posts JSON to /v1/messages, of which all must be taken, and returns the mails.
func (n *node) inject(body string) []Mail {
	n.t.Helper()
	n.mails = nil
	if r, text := n.post("/v1/messages", "application/json", body); r.StatusCode != 200 || strings.Contains(text, "error") {
		n.t.Fatalf("%s\n%d %s", body, r.StatusCode, text)
	}
	for i := range n.mails {
		checkWire(n.t, n.mails[i].Content)
	}
	return n.mails
}

// checkWire holds content to what may go into the queue.
func checkWire(t testing.TB, content []byte) {
	t.Helper()
	if !bytes.HasSuffix(content, []byte("\r\n")) {
		t.Errorf("no CRLF at the end: %q", content)
	}
	for line := range bytes.SplitSeq(bytes.TrimSuffix(content, []byte("\r\n")), []byte("\r\n")) {
		if bytes.ContainsAny(line, "\r\n\x00") || len(line) > lineMax {
			t.Errorf("a line that may not be: %q", line)
		}
	}
}

// failure is the error of an answer.
func failure(t testing.TB, text string) string {
	t.Helper()
	var a struct{ Error string }
	if err := json.Unmarshal([]byte(text), &a); err != nil || a.Error == "" {
		t.Fatalf("no error in %s", text)
	}
	return a.Error
}
