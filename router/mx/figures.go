package mx

import (
	"errors"
	"fmt"
	"net"

	"github.com/VictoriaMetrics/metrics"
	"github.com/miekg/dns"
)

// figures are the metrics of a resolver.
type figures struct {
	set                             *metrics.Set
	hits, misses, shared, overflows *metrics.Counter
	stale, staled, refreshes        *metrics.Counter
	truncated, panics               *metrics.Counter
	lookups                         [3]*metrics.Counter // by Class
	seconds                         *metrics.Histogram
}

func (r *Resolver) register() {
	s := metrics.NewSet()
	f := &r.figures
	f.set = s
	f.hits = s.NewCounter(`mailrace_dns_cache_hits_total`)
	f.misses = s.NewCounter(`mailrace_dns_cache_misses_total`)
	f.stale = s.NewCounter(`mailrace_dns_cache_stale_hits_total`)
	f.staled = s.NewCounter(`mailrace_dns_stale_answers_total`)
	f.refreshes = s.NewCounter(`mailrace_dns_refreshes_total`)
	f.shared = s.NewCounter(`mailrace_dns_lookups_shared_total`)
	f.overflows = s.NewCounter(`mailrace_dns_lookups_refused_total`)
	f.truncated = s.NewCounter(`mailrace_dns_queries_truncated_total`)
	f.panics = s.NewCounter(`mailrace_dns_panics_total`)
	for c := range f.lookups {
		f.lookups[c] = s.NewCounter(fmt.Sprintf(`mailrace_dns_lookups_total{result=%q}`, Class(c)))
	}
	f.seconds = s.NewHistogram(`mailrace_dns_lookup_duration_seconds`)
	s.NewGauge(`mailrace_dns_cache_entries`, func() float64 { return float64(r.cache.len()) })
	s.NewGauge(`mailrace_dns_cache_room`, func() float64 { return float64(r.cache.room()) })
	s.NewGauge(`mailrace_dns_lookups_pending`, func() float64 { return float64(len(r.work)) })
}

// Metrics is the set of mailrace_dns_* metrics, to be registered by whoever serves them.
func (r *Resolver) Metrics() *metrics.Set { return r.figures.set }

// queryResult is what became of one query to one server.
type queryResult uint8

const (
	resultAnswer queryResult = iota
	resultNoData
	resultNXDomain
	resultServFail
	resultRefused
	resultOther // rcode
	resultTimeout
	resultMalformed
	resultUnreachable
)

var queryResults = [...]string{"answer", "nodata", "nxdomain", "servfail", "refused", "other", "timeout", "malformed", "unreachable"}

// serverFigures are the metrics of one server.
type serverFigures struct {
	queries [len(queryResults)]*metrics.Counter
	seconds *metrics.Histogram
}

func (r *Resolver) registerServer(s *server) {
	set := r.figures.set
	for i, result := range queryResults {
		s.figures.queries[i] = set.NewCounter(fmt.Sprintf(`mailrace_dns_queries_total{server=%q,result=%q}`, s.addr, result))
	}
	s.figures.seconds = set.NewHistogram(fmt.Sprintf(`mailrace_dns_query_duration_seconds{server=%q}`, s.addr))
	set.NewGauge(fmt.Sprintf(`mailrace_dns_server_up{server=%q}`, s.addr), func() float64 {
		if s.status().Dead {
			return 0
		}
		return 1
	})
}

// count counts a query.
func (f *serverFigures) count(reply *dns.Msg, err error) {
	result := resultOther
	var late net.Error
	switch {
	case err == nil && reply.Rcode == dns.RcodeSuccess && len(reply.Answer) > 0:
		result = resultAnswer
	case err == nil && reply.Rcode == dns.RcodeSuccess:
		result = resultNoData
	case err == nil && reply.Rcode == dns.RcodeNameError:
		result = resultNXDomain
	case err == nil && reply.Rcode == dns.RcodeServerFailure:
		result = resultServFail
	case err == nil && reply.Rcode == dns.RcodeRefused:
		result = resultRefused
	case err == nil:
	case errors.As(err, &late) && late.Timeout():
		result = resultTimeout
	case errors.Is(err, errMalformed), errors.Is(err, errNotOurs):
		result = resultMalformed
	default:
		result = resultUnreachable
	}
	f.queries[result].Inc()
}
