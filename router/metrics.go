package router

import (
	"fmt"
	"io"
	"sync/atomic"

	"github.com/VictoriaMetrics/metrics"
)

// figure is one of the stats under the name by which it is served.
type figure struct {
	name string
	of   func(*stats) *atomic.Int64
}

var gauges = []figure{
	{`mailrace_router_recipients{state="queued"}`, func(s *stats) *atomic.Int64 { return &s.queued }},
	{`mailrace_router_recipients{state="resolving"}`, func(s *stats) *atomic.Int64 { return &s.resolving }},
	{`mailrace_router_recipients{state="in_flight"}`, func(s *stats) *atomic.Int64 { return &s.inFlight }},
	{`mailrace_router_recipients{state="deferred"}`, func(s *stats) *atomic.Int64 { return &s.waiting }},
	{`mailrace_router_transactions`, func(s *stats) *atomic.Int64 { return &s.transactions }},
	{`mailrace_router_sites`, func(s *stats) *atomic.Int64 { return &s.sites }},
	{`mailrace_router_sites_backed_off`, func(s *stats) *atomic.Int64 { return &s.backoff }},
	{`mailrace_router_connections`, func(s *stats) *atomic.Int64 { return &s.links }},
	{`mailrace_router_connections_idle`, func(s *stats) *atomic.Int64 { return &s.idle }},
}

var counters = []figure{
	{`mailrace_router_outcomes_total{outcome="delivered"}`, func(s *stats) *atomic.Int64 { return &s.delivered }},
	{`mailrace_router_outcomes_total{outcome="deferred"}`, func(s *stats) *atomic.Int64 { return &s.deferrals }},
	{`mailrace_router_outcomes_total{outcome="bounced"}`, func(s *stats) *atomic.Int64 { return &s.bounced }},
	{`mailrace_router_outcomes_total{outcome="expired"}`, func(s *stats) *atomic.Int64 { return &s.expired }},
	{`mailrace_router_recipients_put_back_total`, func(s *stats) *atomic.Int64 { return &s.putBack }},
	{`mailrace_router_recipients_shelved_total`, func(s *stats) *atomic.Int64 { return &s.shelved }},
	{`mailrace_router_transactions_total`, func(s *stats) *atomic.Int64 { return &s.handedOut }},
	{`mailrace_router_transactions_requeued_total`, func(s *stats) *atomic.Int64 { return &s.requeued }},
	{`mailrace_router_transactions_in_doubt_total`, func(s *stats) *atomic.Int64 { return &s.inDoubt }},
	{`mailrace_router_dials_total`, func(s *stats) *atomic.Int64 { return &s.dials }},
	{`mailrace_router_connections_borrowed_total`, func(s *stats) *atomic.Int64 { return &s.borrowed }},
	{`mailrace_router_connections_failed_total{reason="short"}`, func(s *stats) *atomic.Int64 { return &s.short }},
	{`mailrace_router_connections_failed_total{reason="unreachable"}`, func(s *stats) *atomic.Int64 { return &s.unreachable }},
	{`mailrace_router_connections_failed_total{reason="refused"}`, func(s *stats) *atomic.Int64 { return &s.refused }},
	{`mailrace_router_connections_failed_total{reason="insecure"}`, func(s *stats) *atomic.Int64 { return &s.insecure }},
	{`mailrace_router_connections_failed_total{reason="denied"}`, func(s *stats) *atomic.Int64 { return &s.denied }},
	{`mailrace_router_connections_failed_total{reason="broken"}`, func(s *stats) *atomic.Int64 { return &s.broken }},
	{`mailrace_router_connections_failed_total{reason="unusable"}`, func(s *stats) *atomic.Int64 { return &s.unusable }},
	{`mailrace_router_site_failures_total`, func(s *stats) *atomic.Int64 { return &s.failures }},
}

// register serves the stats. They are summed when they are read, so that a loop counts without touching another's memory.
func (r *Router) register() {
	r.metrics = metrics.NewSet()
	r.metrics.RegisterMetricsWriter(func(w io.Writer) {
		for _, f := range gauges {
			metrics.WriteGaugeFloat64(w, f.name, float64(r.sum(f.of)))
		}
		metrics.WriteGaugeFloat64(w, "mailrace_router_recipients_in_memory", float64(r.room.held.Load()))
		metrics.WriteGaugeFloat64(w, "mailrace_router_sites_backlogged", float64(r.room.crowded.Load()))
		for i := range r.providers.rules {
			metrics.WriteGaugeFloat64(w, fmt.Sprintf("mailrace_router_provider_connections{provider=%q}", r.providers.rules[i].Name), float64(r.providers.links[i].Load()))
		}
		for _, f := range counters {
			metrics.WriteCounterUint64(w, f.name, uint64(r.sum(f.of)))
		}
		if r.sources != nil {
			r.sources.write(w)
		}
	})
}

func (r *Router) sum(of func(*stats) *atomic.Int64) (n int64) {
	for _, s := range r.schedulers {
		n += of(&s.stats).Load()
	}
	return n
}

// Totals may be called by any goroutine.
func (r *Router) Totals() Totals {
	var t Totals
	for _, s := range r.schedulers {
		st := &s.stats
		t.Queued += st.queued.Load()
		t.Resolving += st.resolving.Load()
		t.InFlight += st.inFlight.Load()
		t.Deferred += st.waiting.Load()
		t.Sites += st.sites.Load()
		t.Connections += st.links.Load()
		t.Idle += st.idle.Load()
		t.Backoff += st.backoff.Load()
		t.Transactions += st.transactions.Load()
	}
	t.Deferred = max(t.Deferred, 0) // what waits is counted while it is found: Waits
	return t
}

// Active is the number of recipients that are queued, looked up or in flight. Any goroutine.
func (r *Router) Active() (n int64) {
	for _, s := range r.schedulers {
		n += s.stats.queued.Load() + s.stats.resolving.Load() + s.stats.inFlight.Load()
	}
	return n
}
