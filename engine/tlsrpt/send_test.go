package tlsrpt

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"mailrace/proto/tlsrpt"
	"mailrace/router/mx"
)

// serve has reports go to a web server.
func (w *world) serve(t *testing.T, h http.HandlerFunc) {
	t.Helper()
	server := httptest.NewTLSServer(h)
	t.Cleanup(server.Close)
	w.web, w.roots = netip.MustParseAddrPort(server.Listener.Addr().String()), x509.NewCertPool()
	w.roots.AddCert(server.Certificate())
}

// TestOneReportOfAHost: however many reports go to one web server, they leave room for those to others, and go there one after the other.
func TestOneReportOfAHost(t *testing.T) {
	const n = 3 * postingsMost
	w := newWorld()
	begun, release := make(chan struct{}, n), make(chan struct{})
	w.serve(t, func(http.ResponseWriter, *http.Request) {
		begun <- struct{}{}
		<-release
	})
	for i := range n {
		w.texts[fmt.Sprintf("%d.example", i)] = "v=TLSRPTv1; rua=https://Example.com/in"
	}
	for i := range 4 {
		w.texts[fmt.Sprintf("mail%d.example", i)] = byMail
	}
	r := w.open()
	for domain := range w.texts {
		r.count(&Session{Domain: domain, Host: "mx." + domain})
	}
	w.now = time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)
	r.step()
	<-begun
	for r.sent[sentOK].Get() < 4 || r.posting > 1 { // those by mail, and all but one of the others find the server busy
		r.settle(<-r.posted)
		r.sendDue()
	}
	if len(begun) > 0 || len(w.mail) != 4 || len(r.state.Waiting) != n {
		t.Errorf("%d more uploads, %d mails, %d reports wait", len(begun), len(w.mail), len(r.state.Waiting))
	}
	close(release)
	r.rest()
	if got := r.sent[sentOK].Get(); got != n+4 || len(begun) != n-1 || r.sent[sentFailed].Get() != 0 || r.state.bytes != 0 {
		t.Errorf("%d reports sent, %d more uploads, %d failed, %d octets", got, len(begun), r.sent[sentFailed].Get(), r.state.bytes)
	}
}

// TestPutOff: where the resolver has no room a report goes out a minute later, and did not fail.
func TestPutOff(t *testing.T) {
	w := newWorld()
	w.serve(t, func(http.ResponseWriter, *http.Request) {})
	w.texts["a.example"], w.texts["b.example"] = byMail, "v=TLSRPTv1; rua=https://example.com/in"
	r := w.open()
	for domain := range w.texts {
		r.count(&Session{Domain: domain})
	}
	w.now = time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)
	w.full = true
	r.rest()
	if len(r.state.Waiting) != 2 || r.state.Waiting[0].Tries != 0 || r.sent[sentFailed].Get() != 0 || len(w.sent) != 0 {
		t.Errorf("%+v, %q", r.state.Waiting, w.sent)
	}
	w.full, w.now = false, w.now.Add(stepEvery)
	r.rest()
	if len(r.state.Waiting) != 0 || r.sent[sentOK].Get() != 2 {
		t.Errorf("%+v, %q", r.state.Waiting, w.sent)
	}
	w.full = true
	if err := r.upload("https://example.com/in", nil); err == nil || !errors.Is(err, mx.ErrBusy) {
		t.Errorf("%v", err)
	}
}

// TestClockSetBack: what was counted under a clock that was ahead, or even became a report, does not wait for years, in this run or in the next.
func TestClockSetBack(t *testing.T) {
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for name, restart := range map[string]bool{"at once": false, "after a restart": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.texts["a.example"] = byMail
			w.now = noon.AddDate(9, 0, 0)
			r := w.open()
			r.count(&Session{Domain: "a.example"})
			w.now = w.now.Add(dayLength)
			r.count(&Session{Domain: "a.example"}) // the first one is a report now
			if len(r.state.Waiting) != 1 {
				t.Fatalf("%d reports", len(r.state.Waiting))
			}
			if restart {
				r.last()
			}
			w.now = noon
			if restart {
				r = w.open()
			}
			r.rest()
			r.count(&Session{Domain: "a.example", Result: tlsrpt.NoSTARTTLS, Demand: &mx.Demand{}})
			if len(r.state.Waiting) != 0 || r.sent[sentGivenUp].Get() != 1 || r.state.Day != dayOf(noon) {
				t.Errorf("day %d, %+v", r.state.Day, r.state.Waiting)
			}
			w.now = noon.Add(16 * time.Hour)
			r.rest()
			if len(w.mail) != 1 || w.mail[0].Key == "" || r.sent[sentOK].Get() != 1 || r.state.bytes != 0 {
				t.Errorf("%+v, %d octets", w.mail, r.state.bytes)
			}
		})
	}
	t.Run("over midnight", func(t *testing.T) { // nothing is reported twice
		w := newWorld()
		w.texts["a.example"] = byMail
		w.now = noon.Add(12 * time.Hour)
		r := w.open()
		r.count(&Session{Domain: "a.example"})
		w.now = w.now.Add(-time.Minute)
		r.count(&Session{Domain: "a.example"})
		w.now = w.now.Add(2 * time.Minute)
		r.rest()
		if len(r.state.Waiting) != 0 || r.state.Today["a.example"].Results[0].Summary.Successful != 2 {
			t.Errorf("%+v, %+v", r.state.Waiting, r.state.Today["a.example"])
		}
	})
}
