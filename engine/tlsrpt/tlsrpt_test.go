package tlsrpt

import (
	"compress/gzip"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailrace/engine/keep/keeptest"
	"mailrace/proto/mtasts"
	"mailrace/proto/tlsrpt"
	"mailrace/router/mx"
)

// world is a DNS, a clock, a disk, and what was sent.
type world struct {
	mu      sync.Mutex
	texts   map[string]string // TXT record by domain
	cached  bool              // they are known without being asked for
	private bool              // no address is public
	web     netip.AddrPort
	roots   *x509.CertPool
	down    bool // no verdict
	full    bool // there is no room for lookups
	now     time.Time
	disk    *keeptest.FS
	mail    []Mail
	fault   error // of Submit
	sent    []string
}

func newWorld() *world {
	return &world{texts: map[string]string{}, cached: true, now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), disk: &keeptest.FS{}}
}

func (w *world) Cached(q mx.Query) (*mx.Answer, bool) {
	if !w.cached {
		return nil, false
	}
	a, _ := w.Find(context.Background(), q)
	return a, true
}

func (w *world) Lookup(q mx.Query, done func(*mx.Answer)) bool {
	a, _ := w.Find(context.Background(), q)
	done(a)
	return true
}

func (w *world) Find(_ context.Context, q mx.Query) (*mx.Answer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.full:
		return nil, mx.ErrBusy
	case w.down:
		return &mx.Answer{Class: mx.Temporary, Text: "no verdict"}, nil
	case q.Kind == mx.Addresses:
		return &mx.Answer{Hosts: []mx.Host{{Name: q.Name, Addrs: []netip.Addr{w.web.Addr()}}}}, nil
	}
	if text := w.texts[strings.TrimPrefix(q.Name, "_smtp._tls.")]; text != "" {
		return &mx.Answer{Records: &mx.Records{Texts: []string{text}}}, nil
	}
	return &mx.Answer{}, nil
}

func (w *world) Allowed(netip.Addr) bool { return !w.private }

func (w *world) open() *Reports {
	return open(Options{
		DNS: w, FS: w.disk, File: "spool/reports.json", Contact: "tls@mta.example", Organization: "Sender", Submitter: "mta.example", Port: w.web.Port(), Roots: w.roots,
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return w.now },
		Policy: func(string) *mtasts.Policy {
			return &mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"*.a.example"}, MaxAge: time.Hour}
		},
		Submit: func(_ context.Context, m *Mail) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.fault == nil {
				w.mail = append(w.mail, *m)
			}
			return w.fault
		},
		Sent: func(domain, to, report string, err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.sent = append(w.sent, fmt.Sprint(domain, " ", to, " ", report, " ", err == nil))
		},
	})
}

// rest is a step, with all reports sent that it begins to send.
func (r *Reports) rest() {
	r.step()
	for r.posting > 0 {
		r.settle(<-r.posted)
		r.sendDue()
	}
}

const byMail = "v=TLSRPTv1; rua=mailto:r@a.example"

// TestCount: sessions are counted by policy and failure, of those domains only that ask for it.
func TestCount(t *testing.T) {
	for _, cached := range []bool{true, false} {
		w := newWorld()
		w.texts["a.example"], w.cached = byMail, cached
		r := w.open()
		source, peer := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.2")
		sts, dane := &mx.Demand{Kind: mx.DemandSTS}, &mx.Demand{Kind: mx.DemandDANE, TLSA: []mx.TLSA{{Usage: 3, Selector: 1, Matching: 1, Data: []byte{0xab, 0xcd}}}}
		for _, s := range []Session{
			{Domain: "b.example", Host: "mx.b.example"},
			{Domain: "a.example", Demand: sts, Host: "mx.a.example", Source: source, Peer: peer},
			{Domain: "a.example", Demand: sts, Host: "mx.a.example", Source: source, Peer: peer},
			{Domain: "a.example", Demand: sts, Host: "mx.a.example", Source: source, Peer: peer, Result: tlsrpt.Expired, Reason: "ended\r\nlong ago"},
			{Domain: "a.example", Demand: sts, Host: "mx.a.example", Source: source, Peer: peer, Result: tlsrpt.Expired, Reason: "ended\r\nlong ago"},
			{Domain: "a.example", Policy: tlsrpt.STS, Result: tlsrpt.STSFetchError, Reason: "status 404"},
			{Domain: "a.example", Demand: dane, Host: "mx.a.example"},
			{Domain: "a.example", Host: "mx.a.example", Result: tlsrpt.NoSTARTTLS},
		} {
			r.count(&s)
		}
		for r.looking > 0 {
			r.answered(<-r.answers)
		}
		if len(r.state.Today) != 1 {
			t.Errorf("%d domains", len(r.state.Today))
		}
		text, err := json.Marshal(r.state.Today["a.example"].Results)
		if err != nil {
			t.Fatal(err)
		}
		want := `[{"policy":{"policy-type":"sts","policy-string":["version: STSv1","mode: enforce","mx: *.a.example","max_age: 3600"],"policy-domain":"a.example","mx-host":["*.a.example"]},` +
			`"summary":{"total-successful-session-count":2,"total-failure-session-count":3},"failure-details":[` +
			`{"result-type":"certificate-expired","sending-mta-ip":"192.0.2.1","receiving-mx-hostname":"mx.a.example","receiving-ip":"192.0.2.2","failed-session-count":2,"failure-reason-code":"ended??long ago"},` +
			`{"result-type":"sts-policy-fetch-error","failed-session-count":1,"failure-reason-code":"status 404"}]},` +
			`{"policy":{"policy-type":"tlsa","policy-string":["3 1 1 abcd"],"policy-domain":"a.example","mx-host":["mx.a.example"]},"summary":{"total-successful-session-count":1,"total-failure-session-count":0}},` +
			`{"policy":{"policy-type":"no-policy-found","policy-domain":"a.example","mx-host":["mx.a.example"]},"summary":{"total-successful-session-count":0,"total-failure-session-count":1},` +
			`"failure-details":[{"result-type":"starttls-not-supported","receiving-mx-hostname":"mx.a.example","failed-session-count":1}]}]`
		if string(text) != want {
			t.Errorf("counted\n%s\nwant\n%s", text, want)
		}
	}
}

// TestBounds: what is counted has an end, and what is beyond is counted as such.
func TestBounds(t *testing.T) {
	w := newWorld()
	r := w.open()
	w.texts["a.example"] = byMail
	for i := range 3 * failuresMost {
		r.count(&Session{Domain: "a.example", Host: "mx.a.example", Result: tlsrpt.Invalid, Reason: fmt.Sprint(i)})
	}
	results := r.state.Today["a.example"].Results
	if n := len(results[0].Details); n != failuresMost || results[0].Summary.Failed != 3*failuresMost || r.dropped[droppedDetail].Get() != 2*failuresMost {
		t.Errorf("%d details of %d", n, results[0].Summary.Failed)
	}
	for i := range 3 * policiesMost {
		r.count(&Session{Domain: "a.example", Host: "mx.a.example", Demand: &mx.Demand{Kind: mx.DemandDANE, TLSA: []mx.TLSA{{Data: []byte{byte(i)}}}}})
	}
	if n := len(r.state.Today["a.example"].Results); n != policiesMost {
		t.Errorf("%d policies", n)
	}
	reason := strings.Repeat("x", 10_000)
	r.state.most = 1 << 20
	for i := range 300 {
		domain := fmt.Sprintf("%d.example", i)
		w.texts[domain] = byMail
		for j := range 20 {
			r.count(&Session{Domain: domain, Host: "mx." + domain, Result: tlsrpt.Invalid, Reason: fmt.Sprint(j) + reason})
		}
	}
	if r.state.bytes > r.state.most || r.state.bytes < r.state.most*9/10 || r.dropped[droppedDomain].Get() == 0 {
		t.Errorf("%d octets, %d domains dropped", r.state.bytes, r.dropped[droppedDomain].Get())
	}
	w.now = w.now.Add(7 * dayLength)
	r.step()
	w.now = w.now.Add(7 * dayLength)
	r.step()
	if r.state.bytes != 0 || len(r.state.Waiting) != 0 {
		t.Errorf("%d octets and %d reports are left", r.state.bytes, len(r.state.Waiting))
	}
	for range eventsMost + 5 {
		r.Session(&Session{Domain: "a.example"})
	}
	if n := r.dropped[droppedEvent].Get(); n != 5 {
		t.Errorf("%d sessions dropped", n)
	}
	var off *Reports
	off.Session(&Session{})
}

// TestReports go out when their time has come after the day, once, across restarts; those that fail go out again, to where they failed only.
func TestReports(t *testing.T) {
	w := newWorld()
	var got []string
	status := http.StatusServiceUnavailable
	server := httptest.NewTLSServer(http.HandlerFunc(func(answer http.ResponseWriter, q *http.Request) {
		unpacked, err := gzip.NewReader(q.Body)
		var report tlsrpt.Report
		if err == nil {
			err = json.NewDecoder(unpacked).Decode(&report)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		got = append(got, fmt.Sprint(q.Method, " ", q.Host, " ", q.URL.Path, " ", q.Header.Get("Content-Type"), " ", report.ID, " ", report.Policies[0].Summary.Successful, " ", err))
		answer.WriteHeader(status)
	}))
	defer server.Close()
	w.web, w.roots = netip.MustParseAddrPort(server.Listener.Addr().String()), x509.NewCertPool()
	w.roots.AddCert(server.Certificate())
	w.texts["a.example"] = byMail + ",https://example.com/in"
	w.texts["b.example"] = byMail
	restart := func(old *Reports) *Reports {
		if old != nil {
			old.last()
		}
		return w.open()
	}
	r := restart(nil)
	r.count(&Session{Domain: "a.example", Host: "mx.a.example"})
	r = restart(r)
	r.count(&Session{Domain: "a.example", Host: "mx.a.example"})
	r.count(&Session{Domain: "b.example", Host: "mx.b.example"})
	r.rest()
	w.now = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	r.rest()
	if len(r.state.Waiting) != 2 || len(w.sent) != 0 {
		t.Fatalf("%d wait, %v", len(r.state.Waiting), w.sent)
	}
	due := []int64{r.state.Waiting[0].Due, r.state.Waiting[1].Due}
	for _, at := range due {
		if at < w.now.Unix() || at >= w.now.Add(spread).Unix() || due[0] == due[1] {
			t.Errorf("due at %v", due)
		}
	}
	delete(w.texts, "b.example")
	w.now = w.now.Add(spread)
	r = restart(r)
	r.rest()
	if len(w.mail) != 1 || w.mail[0].To != "r@a.example" || w.mail[0].From != "tls@mta.example" || len(got) != 1 ||
		got[0] != "POST example.com /in application/tlsrpt+gzip 2026-11-22.a.example 2 <nil>" {
		t.Errorf("%+v, %q", w.mail, got)
	}
	if len(r.state.Waiting) != 1 || !slices.Equal(r.state.Waiting[0].Done, []string{"mailto:r@a.example"}) || r.sent[sentUnwanted].Get() != 1 {
		t.Errorf("%+v", r.state.Waiting)
	}
	r = restart(r)
	status = http.StatusCreated
	r.rest()
	if len(got) != 1 {
		t.Errorf("sent again at once: %q", got)
	}
	w.now = w.now.Add(retryFirst)
	r.rest()
	if len(got) != 2 || len(w.mail) != 1 || len(r.state.Waiting) != 0 || r.state.bytes != 0 {
		t.Errorf("%q, %+v, %d waiting, %d octets", got, w.mail, len(r.state.Waiting), r.state.bytes)
	}
	if want := []string{
		"a.example mailto:r@a.example 2026-11-22.a.example true", "a.example https://example.com/in 2026-11-22.a.example false", "a.example https://example.com/in 2026-11-22.a.example true",
	}; !slices.Equal(w.sent, want) {
		t.Errorf("%q", w.sent)
	}
	r = restart(r)
	w.now = w.now.Add(9 * dayLength)
	r.rest()
	if len(w.mail) != 1 || len(got) != 2 {
		t.Errorf("again: %q, %+v", got, w.mail)
	}
}

// TestGivenUp: a report that never goes out is given up, and meanwhile tried less and less often.
func TestGivenUp(t *testing.T) {
	w := newWorld()
	w.texts["a.example"], w.fault = byMail, errors.New("no room")
	r := w.open()
	r.count(&Session{Domain: "a.example"})
	w.now = time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)
	for range 12 * 24 * 4 {
		r.rest()
		w.down = len(w.sent) > 3
		w.now = w.now.Add(15 * time.Minute)
	}
	if len(r.state.Waiting) != 0 || r.sent[sentGivenUp].Get() != 1 || len(w.mail) != 0 || r.sent[sentFailed].Get() > 20 || r.sent[sentFailed].Get() < 10 {
		t.Errorf("%d waiting, %d failed", len(r.state.Waiting), r.sent[sentFailed].Get())
	}
}

// TestDisksThatFail: whichever operation on the file fails, the next start has the counts of before or those of now; and what cannot be read is done
// without.
func TestDisksThatFail(t *testing.T) {
	for operation, done := 1, false; !done; operation++ {
		w := newWorld()
		w.texts["a.example"] = byMail
		r := w.open()
		r.count(&Session{Domain: "a.example"})
		r.save()
		r.count(&Session{Domain: "a.example"})
		w.disk.Fail(operation, true)
		r.save()
		done = w.disk.Operations() < operation
		w.disk.Fail(0, false)
		if r.dirty == done {
			t.Errorf("operation %d fails: to be saved %v", operation, r.dirty)
		}
		old := w.disk
		for _, lucky := range []bool{false, true} {
			w.disk = old.Crash(lucky)
			again := w.open()
			if a := again.state.Today["a.example"]; a == nil || a.Results[0].Summary.Successful != 2 && (done || a.Results[0].Summary.Successful != 1) {
				t.Errorf("operation %d fails: %+v", operation, a)
			}
		}
	}
	for _, content := range []string{"", "{", `{"form":2}`, `{"form":1,"today":{"a":null},"waiting":[null]}`, `{"form":1,"day":99999999999,"today":{"a":{}}}`} {
		w := newWorld()
		w.disk.Put("spool/reports.json", []byte(content))
		r := w.open()
		r.rest()
		if r.state.Day != dayOf(w.now) || len(r.state.Waiting) != 0 {
			t.Errorf("%q: %+v", content, r.state)
		}
	}
}

// TestUpload: web servers are held to bounds: redirects are not followed, addresses must be public, certificates right, and answers may be endless.
func TestUpload(t *testing.T) {
	for name, c := range map[string]struct {
		answer  http.HandlerFunc
		private bool
		roots   bool
		fault   string
	}{
		"good": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, false, true, ""},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}, false, true, ""},
		"a redirect": {func(w http.ResponseWriter, q *http.Request) {
			http.Redirect(w, q, "https://example.com/", http.StatusTemporaryRedirect)
		}, false, true, "status 307"},
		"not found":       {http.NotFound, false, true, "status 404"},
		"not public":      {http.NotFound, true, true, "no public address"},
		"not known to us": {http.NotFound, false, false, "certificate"},
		"no answer": {func(_ http.ResponseWriter, q *http.Request) {
			_, _ = io.Copy(io.Discard, q.Body) // else the server does not see the end of the connection
			<-q.Context().Done()
		}, false, true, "deadline"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(c.answer)
			server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
			server.StartTLS()
			defer server.Close()
			w := newWorld()
			w.private, w.web, w.roots = c.private, netip.MustParseAddrPort(server.Listener.Addr().String()), x509.NewCertPool()
			if c.roots {
				w.roots.AddCert(server.Certificate())
			}
			r := w.open()
			if name == "no answer" {
				r.opts.Timeout = 200 * time.Millisecond
			}
			err := r.upload("https://example.com/in", []byte("x"))
			if c.fault == "" && err != nil || c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
				t.Errorf("%v, want %q", err, c.fault)
			}
		})
	}
}

// BenchmarkSession is what a session costs the loop that tells of it.
func BenchmarkSession(b *testing.B) {
	w := newWorld()
	w.texts["a.example"] = byMail
	r := w.open()
	r.running.Go(r.run)
	defer r.Close()
	s := Session{Domain: "a.example", Host: "mx.a.example", Demand: &mx.Demand{Kind: mx.DemandSTS}}
	b.ReportAllocs()
	for b.Loop() {
		r.Session(&s)
	}
}
