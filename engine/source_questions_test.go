package engine

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mailrace/engine/config"
)

// TestQuestionsFromSources: questions about recipients, for policies, and reports to web servers come from where the mail comes from: a machine may have
// no other way out.
func TestQuestionsFromSources(t *testing.T) {
	t.Parallel()
	good, ca := certified(t, "mx.good.example", "mta-sts.good.example", "reports.good.example")
	who := newVisitors()
	f := listen(t, func(p *peer) {
		p.receive(manners{tls: good, answer: func(p *peer, line string) string {
			if strings.HasPrefix(line, "EHLO ") {
				host, _, _ := net.SplitHostPort(p.RemoteAddr().String())
				who.mu.Lock()
				who.seen["mail from "+host]++
				who.mu.Unlock()
			}
			if strings.HasPrefix(line, "RCPT TO:<unknown@") {
				return "550 5.1.1 no such user"
			}
			return ""
		}})
	})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		host, _, _ := net.SplitHostPort(q.RemoteAddr)
		who.mu.Lock()
		who.seen[q.Method+" from "+host]++
		who.mu.Unlock()
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, policyOf("enforce", "mx.good.example"))
	}))
	s.TLS = good.Clone()
	s.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(t.Output(), nil), slog.LevelDebug)
	s.StartTLS()
	t.Cleanup(s.Close)
	z := newZone(t, false, "good.example. 300 IN MX 10 mx.good.example.", "mx.good.example. 300 IN A 127.0.0.1", "mta-sts.good.example. 300 IN A 127.0.0.1",
		"reports.good.example. 300 IN A 127.0.0.1", `_mta-sts.good.example. 300 IN TXT "v=STSv1; id=1;"`,
		`_smtp._tls.good.example. 300 IN TXT "v=TLSRPTv1; rua=https://reports.good.example/in"`)
	c := byMX(t, f, z, ca)
	c.Sources = []config.Source{{Name: "six", IPv6: netip.IPv6Loopback()}, {Name: "one", IPv4: netip.MustParseAddr("127.0.0.31")}}
	c.Pools = []config.Pool{{Name: "out", Sources: []config.PoolSource{{Name: "six", Weight: 9}, {Name: "one", Weight: 1}}}}
	c.Egress.Pool = "out"
	known := config.DefaultRecipients()
	known.Domains, known.Probe, known.Defer = []string{"good.example"}, true, true
	c.Listeners = []config.Listener{{Address: "127.0.0.1:0", Mode: config.ModeMX, RelayDomains: known.Domains}}
	c.Recipients = []config.Recipients{known}
	r, days := startReporting(t, c, netip.MustParseAddrPort(s.Listener.Addr().String()).Port())
	days.ahead.Store(int64(time.Until(time.Now().UTC().Truncate(24 * time.Hour).Add(36 * time.Hour)))) // noon
	r.rcpt("unknown@good.example", 550)
	r.send("s@sender.example", hello, "a@good.example")
	f.next()
	r.awaitFigure(`mailrace_tls_report_sessions_total{result="ok"} 1`)
	days.pass(t, 16*time.Hour)
	r.awaitFigure(`mailrace_tls_reports_total{result="sent"} 1`)
	who.mu.Lock()
	defer who.mu.Unlock()
	for _, want := range []string{"mail from 127.0.0.31", "GET from 127.0.0.31", "POST from 127.0.0.31"} {
		if who.seen[want] == 0 {
			t.Errorf("nothing seen of %s", want)
		}
	}
	if len(who.seen) != 3 {
		t.Errorf("seen %v", who.seen)
	}
}
