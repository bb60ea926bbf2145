package tlsrpt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"mailrace/proto/tlsrpt"
	"mailrace/router/mx"
)

const (
	postingsMost = 8                // reports on their way at a time
	retryFirst   = 15 * time.Minute // before a report is sent again; it doubles, up to retryMost
	retryMost    = 4 * time.Hour
	keptFor      = 2 * dayLength // after the end of its day a report is given up
	answerMost   = 64 << 10      // octets of what a web server says that are read
)

// What became of a report.
const (
	sentOK       = "sent"
	sentFailed   = "failed" // for now
	sentUnwanted = "unwanted"
	sentGivenUp  = "given-up"
)

// posting is a report on its way.
type posting struct {
	of      *pending
	done    []string // destinations that got it now
	unasked bool     // the domain does not want it any more
	host    string   // of a destination that takes another report
	busy    bool     // the resolver had no room
	err     error
}

// hosts are the web servers that take a report: one at a time, so that a slow one, to which the reports of many domains go, leaves the other
// postings to others. Any goroutine.
type hosts struct {
	mu sync.Mutex
	of map[string]struct{}
}

// take says whether the host takes no report yet, and now it does.
func (h *hosts) take(host string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, busy := h.of[host]; busy {
		return false
	}
	if h.of == nil {
		h.of = map[string]struct{}{}
	}
	h.of[host] = struct{}{}
	return true
}

func (h *hosts) leave(host string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.of, host)
}

func (h *hosts) busy(host string) bool {
	if host == "" {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, busy := h.of[host]
	return busy
}

// sendDue sends what is due, some at a time, and gives up what is too old.
func (r *Reports) sendDue() {
	now := r.opts.Now()
	r.state.Waiting = slices.DeleteFunc(r.state.Waiting, func(p *pending) bool {
		return now.Unix() >= p.Day+int64((dayLength+keptFor)/time.Second) && r.giveUp(p)
	})
	for _, p := range r.state.Waiting {
		if r.posting == postingsMost {
			return
		}
		if p.posting || p.Due > now.Unix() || r.hosts.busy(p.host) {
			continue
		}
		p.posting, p.host = true, ""
		r.posting++
		again := &posting{of: p}
		report, done := r.report(p), slices.Clone(p.Done)
		r.running.Go(func() {
			r.post(again, report, done)
			r.posted <- again
		})
	}
}

// report is what the domain is told.
func (r *Reports) report(p *pending) *tlsrpt.Report {
	begin := time.Unix(p.Day, 0).UTC()
	return &tlsrpt.Report{
		Organization: r.opts.Organization, Contact: r.opts.Contact, Range: tlsrpt.Range{Start: begin, End: begin.Add(dayLength - time.Second)},
		ID: begin.Format(time.DateOnly) + "." + p.Domain, Policies: slices.Clone(p.Results),
	}
}

// post sends a report to where the domain wants it now, but not where it has it already. It is on a goroutine of its own.
func (r *Reports) post(p *posting, report *tlsrpt.Report, done []string) {
	domain := p.of.Domain
	a, err := r.opts.DNS.Find(r.ending, mx.TextsOf(tlsrpt.Name(domain)))
	if p.busy = errors.Is(err, mx.ErrBusy); p.busy {
		return
	}
	if err == nil && a.Class != mx.OK {
		err = errors.New(a.Text)
	}
	if err != nil {
		p.err = fmt.Errorf("where the reports for %s go: %w", domain, err)
		return
	}
	if p.unasked = !asks(a); p.unasked {
		return
	}
	packed, err := report.Pack()
	if err != nil {
		p.err = err
		return
	}
	for _, d := range tlsrpt.ParseRecord(a.Records.Texts) {
		to := d.String()
		if slices.Contains(done, to) || slices.Contains(p.done, to) {
			continue
		}
		if host := d.Host(); d.Mail != "" {
			err = r.mail(d.Mail, domain, report, packed)
		} else if !r.hosts.take(host) {
			p.host = host
			continue
		} else {
			err = r.upload(d.URL, packed)
			r.hosts.leave(host)
		}
		if errors.Is(err, mx.ErrBusy) {
			p.busy = true
			continue
		}
		if err == nil {
			p.done = append(p.done, to)
		}
		r.opts.Sent(domain, to, report.ID, err)
		p.err = errors.Join(p.err, err)
	}
}

// mail hands a report over to be sent by mail.
func (r *Reports) mail(to, domain string, report *tlsrpt.Report, packed []byte) error {
	l := tlsrpt.Letter{Submitter: r.opts.Submitter, Domain: domain, From: r.opts.Contact, To: to, Date: r.opts.Now(), Report: report, Packed: packed}
	ctx, cancel := context.WithTimeout(r.ending, r.opts.Timeout)
	defer cancel()
	return r.opts.Submit(ctx, &Mail{From: r.opts.Contact, To: to, Content: l.Content(), Key: fmt.Sprintf("tls-report %x", sha256.Sum256([]byte(report.ID+" "+to)))})
}

// upload hands a report to a web server. RFC 8460 §5.4
func (r *Reports) upload(url string, packed []byte) error {
	ctx, cancel := context.WithTimeout(r.ending, r.opts.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(packed))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", tlsrpt.MediaType)
	response, err := r.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, answerMost))
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s: status %d", url, response.StatusCode)
	}
	return nil
}

// settle notes what became of a report.
func (r *Reports) settle(p *posting) {
	r.posting--
	r.dirty = true
	w := p.of
	w.posting = false
	w.Done = append(w.Done, p.done...)
	if p.err != nil {
		w.Tries++
		w.Due = r.opts.Now().Add(min(retryFirst<<min(w.Tries-1, 10), retryMost)).Unix()
		if r.ending.Err() == nil {
			r.sent[sentFailed].Inc()
			r.opts.Log.Info("a TLS report is to be sent again", "domain", w.Domain, "error", p.err)
		}
		return
	}
	if w.host = p.host; p.busy { // put off: it did not fail
		w.Due = r.opts.Now().Add(stepEvery).Unix()
	}
	if p.busy || p.host != "" {
		return
	}
	what := sentOK
	if p.unasked {
		what = sentUnwanted
	}
	r.sent[what].Inc()
	r.state.bytes -= w.bytes
	r.state.Waiting = slices.DeleteFunc(r.state.Waiting, func(other *pending) bool { return other == w })
}
