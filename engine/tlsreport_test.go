package engine

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net/mail"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailrace/engine/config"
	"mailrace/engine/loop"
	"mailrace/proto/tlsrpt"
)

// calendar is a clock for TLS reports that a test sets, and has looked at.
type calendar struct {
	ahead atomic.Int64 // of the real time
	tick  chan time.Time
}

func (c *calendar) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// pass lets some time go by, and returns when what is due then has been begun.
func (c *calendar) pass(t *testing.T, d time.Duration) {
	t.Helper()
	c.ahead.Add(int64(d))
	for range 2 { // when the second one is taken, the first one is done
		select {
		case c.tick <- c.now():
		case <-time.After(patience):
			t.Fatal("nobody looks at the clock")
		}
	}
}

// startReporting is startPoliced with TLS reports.
func startReporting(t *testing.T, c *config.Config, port uint16) (*rig, *calendar) {
	t.Helper()
	days := &calendar{tick: make(chan time.Time)}
	c.TLSReport = config.TLSReport{Contact: "tls@mta.test.example", Organization: "The sender"}
	n, err := newNode(c, slog.New(slog.NewTextHandler(t.Output(), nil)), world{clock: &loop.MachineClock, webPort: port, reportClock: days.now, reportTick: days.tick})
	if err != nil {
		t.Fatal(err)
	}
	return run(t, n), days
}

// awaitFigure waits until a figure of TLS reports stands where it should.
func (r *rig) awaitFigure(line string) {
	r.t.Helper()
	r.await(line, func() bool {
		var b bytes.Buffer
		r.reports.Metrics().WritePrometheus(&b)
		return slices.Contains(strings.Split(b.String(), "\n"), line)
	})
}

// reportOf reads the report in a message.
func reportOf(t *testing.T, content string) (report tlsrpt.Report) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	for {
		p, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		if p.Header.Get("Content-Type") != tlsrpt.MediaType {
			continue
		}
		unpacked, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, p))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(unpacked)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &report); err != nil {
			t.Fatal(err)
		}
		return report
	}
}

// TestTLSReports: what a domain hears after a day, for each policy and each sort of host. The report arrives whatever the policy is, and is not
// reported itself.
func TestTLSReports(t *testing.T) {
	good, ca := certified(t, "mx.good.example", "mta-sts.good.example")
	other, _ := certified(t, "other.example")
	for name, c := range map[string]struct {
		policy string
		tlsa   string
		host   manners
		kind   string // of the policy
		failed string // "" = a success
	}{
		"no policy":                 {"", "", manners{tls: good}, tlsrpt.NoPolicy, ""},
		"no policy, no STARTTLS":    {"", "", manners{}, tlsrpt.NoPolicy, tlsrpt.NoSTARTTLS},
		"no policy, no handshake":   {"", "", manners{tls: unfriendly}, tlsrpt.NoPolicy, tlsrpt.Invalid},
		"enforce":                   {policyOf("enforce", "mx.good.example"), "", manners{tls: good}, tlsrpt.STS, ""},
		"enforce, no STARTTLS":      {policyOf("enforce", "mx.good.example"), "", manners{}, tlsrpt.STS, tlsrpt.NoSTARTTLS},
		"enforce, for another name": {policyOf("enforce", "mx.good.example"), "", manners{tls: other}, tlsrpt.STS, tlsrpt.HostMismatch},
		"enforce, another host":     {policyOf("enforce", "x.good.example"), "", manners{tls: good}, tlsrpt.STS, tlsrpt.Invalid},
		"testing, no STARTTLS":      {policyOf("testing", "mx.good.example"), "", manners{}, tlsrpt.STS, tlsrpt.NoSTARTTLS},
		"testing, for another name": {policyOf("testing", "mx.good.example"), "", manners{tls: other}, tlsrpt.STS, tlsrpt.HostMismatch},
		"no such policy":            {"hello", "", manners{tls: good}, tlsrpt.STS, tlsrpt.STSInvalid},
		"DANE, another certificate": {"", "_25._tcp.mx.good.example. 300 IN TLSA 3 1 1 " + strings.Repeat("00", 32), manners{tls: good}, tlsrpt.TLSA, tlsrpt.Invalid},
		"TLSA, no verdict":          {"", "broken", manners{tls: good}, tlsrpt.TLSA, tlsrpt.DNSSECInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := listen(t, func(p *peer) { p.receive(c.host) })
			port, _ := webServer(t, good, func(string) (int, string, string) { return 200, "text/plain", c.policy })
			z := newZone(t, c.tlsa != "", "good.example. 300 IN MX 10 mx.good.example.", "mx.good.example. 300 IN A 127.0.0.1", "mta-sts.good.example. 300 IN A 127.0.0.1",
				`_smtp._tls.good.example. 300 IN TXT "v=TLSRPTv1; rua=mailto:reports@good.example"`)
			if c.policy != "" {
				z.add(t, `_mta-sts.good.example. 300 IN TXT "v=STSv1; id=1;"`)
			}
			if c.tlsa == "broken" {
				z.fail(f.service("_25._tcp.mx.good.example."))
			} else if c.tlsa != "" {
				z.add(t, f.service(c.tlsa))
			}
			s := byMX(t, f, z, ca)
			s.Queue.RetryMin, s.Queue.RetryMax = time.Hour, time.Hour
			r, days := startReporting(t, s, port)
			days.ahead.Store(int64(time.Until(time.Now().UTC().Truncate(24 * time.Hour).Add(36 * time.Hour)))) // noon
			r.send("s@sender.example", hello, "a@good.example")
			delivered := c.policy == "" && c.tlsa == "" || strings.Contains(c.policy, "testing") || c.failed == "" || c.failed == tlsrpt.STSInvalid
			if delivered {
				f.next()
			}
			result := "ok"
			if c.failed != "" {
				result = "failed"
			}
			r.awaitFigure(`mailrace_tls_report_sessions_total{result="` + result + `"} 1`)
			if c.failed == tlsrpt.STSInvalid { // the session itself was as it should be
				r.awaitFigure(`mailrace_tls_report_sessions_total{result="ok"} 1`)
			}
			days.pass(t, 16*time.Hour)
			l := f.next()
			if !slices.Equal(l.to, []string{"RCPT TO:<reports@good.example>"}) && !strings.Contains(strings.Join(l.to, " "), "reports@good.example") || !strings.Contains(l.mail, "tls@mta.test.example") {
				t.Errorf("%+v", l)
			}
			report := reportOf(t, l.content)
			p := report.Policies[0]
			if p.Policy.Type != c.kind || p.Summary.Failed+p.Summary.Successful != 1 || (c.failed != "") != (len(p.Details) == 1) || c.failed != "" && p.Details[0].Type != c.failed {
				t.Errorf("%+v", report)
			}
			r.awaitFigure(`mailrace_tls_reports_total{result="sent"} 1`)
			if e := r.record("tls-report", "mailto:reports@good.example", 1); e.Queue != "good.example" || e.Text != report.ID {
				t.Errorf("%+v", e)
			}
			days.pass(t, 24*time.Hour)
			days.pass(t, 24*time.Hour)
			f.none()
			r.awaitFigure(`mailrace_tls_reports_total{result="sent"} 1`)
			r.awaitFigure(`mailrace_tls_report_domains 0`)
		})
	}
}

// TestTLSRequiredNo: such mail arrives whatever the domain demands, also after a restart; not where the client asked for REQUIRETLS. RFC 8689 §5
func TestTLSRequiredNo(t *testing.T) {
	t.Parallel()
	good, ca := certified(t, "mx.good.example", "mta-sts.good.example")
	f := listen(t, polite)
	port, _ := webServer(t, good, func(string) (int, string, string) { return 200, "text/plain", policyOf("enforce", "mx.good.example") })
	z := newZone(t, false, "good.example. 300 IN MX 10 mx.good.example.", "mx.good.example. 300 IN A 127.0.0.1", "mta-sts.good.example. 300 IN A 127.0.0.1",
		`_mta-sts.good.example. 300 IN TXT "v=STSv1; id=1;"`)
	r := startPoliced(t, byMX(t, f, z, ca), port)
	r.send("s@sender.example", hello, "a@good.example")
	r.record("deferral", "a@good.example", 1)
	for i, field := range []string{"TLS-Required: No", "tls-required:\tNO "} {
		to := string(rune('b'+i)) + "@good.example"
		r.send("s@sender.example", field+"\r\n"+hello, to)
		if l, e := f.next(), r.record("delivery", to, 1); l.tls || e.TLSPolicy != "" || e.TLSVerdict != "clear" && e.TLSVerdict != "" {
			t.Errorf("%q: %+v, %+v", field, l, e)
		}
	}
	for i, field := range []string{"TLS-Required: Yes", "X-TLS-Required: No", "TLS-Required: No, please"} {
		to := string(rune('k'+i)) + "@good.example"
		r.send("s@sender.example", field+"\r\n"+hello, to)
		r.record("deferral", to, 1)
	}
	if _, err := r.Submit(t.Context(), Mail{From: "s@sender.example", To: []string{"x@good.example"}, Content: []byte("TLS-Required: No\r\n" + hello)}); err != nil {
		t.Fatal(err)
	}
	f.next()
	if _, err := r.Submit(t.Context(), Mail{From: "s@sender.example", To: []string{"y@good.example"}, Content: []byte("TLS-Required: No\r\n" + hello), RequireTLS: true}); err != nil {
		t.Fatal(err)
	}
	r.record("deferral", "y@good.example", 1)
	f.none()
}
