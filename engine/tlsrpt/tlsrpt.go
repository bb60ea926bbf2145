// Package tlsrpt tells domains how the TLS of mail to them fares (RFC 8460). It counts the sessions with the hosts of those domains that ask for it,
// by the policy of the domain and by what went wrong, for each day in UTC, and sends each of them a report when the day is over.
//
// One goroutine owns all that is counted. Whoever has something to tell hands it over and does not wait: what finds no room is counted, and lost.
package tlsrpt

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/engine/keep"
	"mailrace/engine/web"
	"mailrace/proto/mtasts"
	"mailrace/proto/tlsrpt"
	"mailrace/router/mx"
)

const (
	eventsMost  = 4096        // that wait for the owner
	lookupsMost = 256         // for records, under way at a time
	stepEvery   = time.Minute // it is looked for what is to be sent and saved
)

// DNS is whom to ask; *mx.Resolver is one.
type DNS interface {
	web.DNS
	Cached(q mx.Query) (*mx.Answer, bool)
	Lookup(q mx.Query, done func(*mx.Answer)) bool
}

// Options configure Reports. Zero values stand for the defaults.
type Options struct {
	DNS          DNS                                        // required
	Policy       func(domain string) *mtasts.Policy         // the MTA-STS policy of a domain as far as it is known, or nil; nil = none is known
	Submit       func(context.Context, *Mail) error         // hands over a report that goes by mail; required
	Sent         func(domain, to, report string, err error) // told of each attempt to send a report; any goroutine
	Contact      string                                     // address that stands in reports, and that those by mail come from
	Organization string
	Submitter    string // name of this node

	File    string // where counts are kept across restarts; "" = nowhere
	FS      keep.FS
	Roots   *x509.CertPool // who issues certificates of the web servers that take reports; nil = those whom the system trusts
	Port    uint16         // where those servers listen that are to be asked at 443
	Timeout time.Duration  // for one of them to take a report; 30 seconds
	Dial    web.Dial       // to one of them; nil = from any address of this machine

	Log *slog.Logger
	Now func() time.Time // time.Now
	// Tick says when to look for what is to be sent and saved; nil = each minute.
	Tick <-chan time.Time
}

// Mail is a report that goes by mail.
type Mail struct {
	From, To string
	Content  []byte
	Key      string // the same when it is sent again
}

// Session is a connection to a host, or that there could be none, as one domain sees it.
type Session struct {
	Domain string
	Demand *mx.Demand // of the domain to the host; nil = nothing
	Policy string     // type of the policy that was in the way, where no host was asked; "" = what Demand says
	Host   string     // "" = none was asked
	Source netip.Addr // our address; may be invalid, as Peer
	Peer   netip.Addr
	Result string // type of the failure, "" = it was as it should be
	Reason string // what went wrong, in words
}

// Reports counts and sends. nil is one that is off. Methods may be called by any goroutine.
type Reports struct {
	opts   Options
	client *http.Client
	state  state // of the owner

	events  chan Session
	answers chan answer
	posted  chan *posting
	hosts   hosts
	looking int // lookups under way; of the owner
	posting int // reports on their way; of the owner
	saved   time.Time
	dirty   bool

	ending  context.Context
	end     context.CancelFunc
	running sync.WaitGroup

	metrics  *metrics.Set
	counted  map[bool]*metrics.Counter // sessions, by whether they were as they should be
	sent     map[string]*metrics.Counter
	dropped  map[string]*metrics.Counter
	domains  atomic.Int64
	outgoing atomic.Int64
}

// answer is whether a domain asks for reports.
type answer struct {
	domain  string
	unknown bool
	asks    bool
}

// New begins to count. It reads File; what cannot be read is logged, and done without.
func New(o Options) *Reports {
	r := open(o)
	r.running.Go(r.run)
	return r
}

// open is New without the goroutine.
func open(o Options) *Reports {
	if o.FS == nil {
		o.FS = keep.Disk{}
	}
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Policy == nil {
		o.Policy = func(string) *mtasts.Policy { return nil }
	}
	if o.Sent == nil {
		o.Sent = func(string, string, string, error) {}
	}
	set := metrics.NewSet()
	r := &Reports{
		opts: o, client: web.NewClient(web.Options{DNS: o.DNS, Roots: o.Roots, Port: o.Port, Timeout: o.Timeout, Dial: o.Dial}), metrics: set,
		events: make(chan Session, eventsMost), answers: make(chan answer, lookupsMost), posted: make(chan *posting, postingsMost),
		counted: map[bool]*metrics.Counter{}, sent: map[string]*metrics.Counter{}, dropped: map[string]*metrics.Counter{},
	}
	r.ending, r.end = context.WithCancel(context.Background())
	for result, ok := range map[string]bool{"ok": true, "failed": false} {
		r.counted[ok] = set.NewCounter(fmt.Sprintf("mailrace_tls_report_sessions_total{result=%q}", result))
	}
	for _, result := range []string{sentOK, sentFailed, sentUnwanted, sentGivenUp} {
		r.sent[result] = set.NewCounter(fmt.Sprintf("mailrace_tls_reports_total{result=%q}", result))
	}
	for _, what := range []string{droppedEvent, droppedDomain, droppedDetail} {
		r.dropped[what] = set.NewCounter(fmt.Sprintf("mailrace_tls_report_dropped_total{what=%q}", what))
	}
	set.NewGauge("mailrace_tls_report_domains", func() float64 { return float64(r.domains.Load()) })
	set.NewGauge("mailrace_tls_reports_waiting", func() float64 { return float64(r.outgoing.Load()) })
	r.state.most = bytesMost
	r.state.begin(dayOf(o.Now()))
	if err := r.read(); err != nil {
		o.Log.Warn("the counts for TLS reports cannot be read, and begin anew", "file", o.File, "error", err)
	}
	return r
}

// Metrics is the set of figures, to be registered by whoever serves them.
func (r *Reports) Metrics() *metrics.Set { return r.metrics }

// Session takes note of a session. It does not wait, and does not allocate.
func (r *Reports) Session(s *Session) {
	if r == nil {
		return
	}
	select {
	case r.events <- *s:
	default:
		r.dropped[droppedEvent].Inc()
	}
}

// Close ends what is under way, and writes File.
func (r *Reports) Close() {
	r.end()
	r.running.Wait()
}

// run is the goroutine that owns the counts.
func (r *Reports) run() {
	tick := r.opts.Tick
	if tick == nil {
		minutes := time.NewTicker(stepEvery)
		defer minutes.Stop()
		tick = minutes.C
	}
	for {
		select {
		case s := <-r.events:
			r.count(&s)
		case a := <-r.answers:
			r.answered(a)
		case p := <-r.posted:
			r.settle(p)
			r.sendDue()
		case <-tick:
			r.step()
		case <-r.ending.Done():
			r.last()
			return
		}
	}
}

// last takes in what waits, and saves it.
func (r *Reports) last() {
	for {
		select {
		case s := <-r.events:
			r.count(&s)
		case p := <-r.posted:
			r.settle(p)
		default:
			if r.posting > 0 { // they end with ending
				r.settle(<-r.posted)
				continue
			}
			if r.dirty {
				r.save()
			}
			return
		}
	}
}

// step begins another day, sends what is due, and saves what changed.
func (r *Reports) step() {
	r.roll()
	r.sendDue()
	if r.dirty && r.opts.Now().Sub(r.saved).Abs() >= stepEvery {
		r.save()
	}
	r.domains.Store(int64(len(r.state.Today)))
	r.outgoing.Store(int64(len(r.state.Waiting)))
}

// asks says whether an answer for the TXT records of a domain asks for reports.
func asks(a *mx.Answer) bool {
	return a.Class == mx.OK && a.Records != nil && len(tlsrpt.ParseRecord(a.Records.Texts)) > 0
}
