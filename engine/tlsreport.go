package engine

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/engine/event"
	"mailrace/engine/tlsrpt"
	"mailrace/proto/message"
	"mailrace/proto/mtasts"
)

// reportFile is where counts for TLS reports are kept, in the directory of the spool.
const reportFile = "tls-reports.json"

// openReports begins to count for TLS reports, if they are to be sent.
func (n *Node) openReports() error {
	c := n.cfg
	if c.TLSReport.Contact == "" {
		return nil
	}
	roots, err := c.Egress.CAs()
	if err != nil {
		return fmt.Errorf("certificate authorities: %w", err)
	}
	if n.reportClock == nil {
		n.reportClock = n.clock.Now
	}
	o := tlsrpt.Options{
		DNS: n.resolver, Submit: n.submitReport, Sent: n.recordReport, Contact: c.TLSReport.Contact,
		Organization: cmp.Or(c.TLSReport.Organization, c.Hostname), Submitter: c.Hostname, Roots: roots, Port: n.webPort, Dial: n.dialWeb, Log: n.log, Now: n.reportClock, Tick: n.reportTick,
		Policy: func(domain string) *mtasts.Policy {
			if n.policies == nil {
				return nil
			}
			return n.policies.Policy(domain)
		},
	}
	if c.Spool.Path != nullPath {
		o.File = filepath.Join(c.Spool.Path, reportFile)
	}
	n.reports = tlsrpt.New(o)
	metrics.RegisterSet(n.reports.Metrics())
	return nil
}

// submitReport queues a report. It is nobody's business when it cannot be delivered: the next day brings another one.
func (n *Node) submitReport(ctx context.Context, m *tlsrpt.Mail) error {
	_, err := n.Submit(ctx, Mail{From: m.From, To: []string{m.To}, Content: m.Content, Key: m.Key, Notify: message.NotifyNever})
	return err
}

// recordReport notes in the event log that a report went out, or did not. Any goroutine.
func (n *Node) recordReport(domain, to, report string, err error) {
	now := n.reportClock().UnixNano()
	if err != nil {
		report += ": " + err.Error()
	}
	a := n.lanes[0]
	a.loop.Post(func() {
		a.events.Record(&event.Record{Time: now, Type: event.TLSReport, Recipient: to, Queue: domain, Text: report})
	})
}
