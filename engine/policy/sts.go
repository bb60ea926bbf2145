package policy

import (
	"fmt"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/proto/mtasts"
	"mailrace/router/mx"
)

const (
	fetchesMost  = 256                 // at a time
	failuresMost = 10_000              // domains whose policy could not be fetched, that are remembered
	retryPause   = 5 * time.Minute     // before a policy is fetched again that could not be. RFC 8461 §3.3
	refreshAge   = 24 * time.Hour      // of a policy that is fetched again, long before it ends. RFC 8461 §10.2
	refreshEvery = time.Hour           // it is looked for those
	unusedMost   = 30 * 24 * time.Hour // after which a policy is not fetched again
	holdMin      = time.Minute         // for which a policy holds for the mail at hand, however short its time
)

// wanted is what a domain wants of senders, and until when that is to be believed without a look.
type wanted struct {
	policy *mtasts.Policy // nil = nothing
	until  time.Time
}

// policies are the MTA-STS policies of domains.
type policies struct {
	*Resolver
	web     *fetcher
	cache   *cache
	slots   chan struct{}
	fetched map[string]*metrics.Counter // by result

	mu      sync.Mutex
	flights map[string]*flight // fetches that are under way, by domain
	failed  map[string]failure // by domain
}

// flight is a fetch that several may wait for.
type flight struct {
	landed chan struct{}
	policy *stored // nil = it failed
}

// failure is a policy that could not be fetched.
type failure struct {
	id    string
	until time.Time // not tried again before
}

func newPolicies(r *Resolver) *policies {
	s := &policies{Resolver: r, web: newFetcher(&r.opts), cache: newCache(r.opts.FS, r.opts.File, r.opts.Log), slots: make(chan struct{}, fetchesMost),
		flights: map[string]*flight{}, failed: map[string]failure{}, fetched: map[string]*metrics.Counter{}}
	for _, result := range []string{"ok", "failed"} {
		s.fetched[result] = r.metrics.NewCounter(fmt.Sprintf("mailrace_mta_sts_fetches_total{result=%q}", result))
	}
	r.metrics.NewGauge("mailrace_mta_sts_policies", func() float64 { return float64(s.cache.len()) })
	return s
}

// of finds the policy of a domain. It waits for DNS, and for the web server if the policy is new. RFC 8461 §3.3, §5.1: what is known of a
// policy holds for as long as it said, whatever DNS and the web server say, or do not.
func (s *policies) of(domain string) wanted {
	now := s.opts.Now()
	id, until := s.id(domain, now)
	known := s.cache.get(domain, now)
	switch {
	case id != "" && (known == nil || known.ID != id):
		if again := s.barred(domain, id, now); !again.IsZero() {
			until = earlier(until, again)
		} else if fresh := s.fetch(domain, id); fresh != nil {
			known = fresh
		} else {
			until = earlier(until, now.Add(retryPause))
		}
	case known != nil && known.aged(now) && s.barred(domain, known.ID, now).IsZero():
		s.spawn(func() { s.fetch(domain, known.ID) })
	}
	if known == nil {
		return wanted{nil, until}
	}
	end := known.ends()
	if least := now.Add(holdMin); end.Before(least) {
		end = least
	}
	return wanted{&known.Policy, earlier(until, end)}
}

// id asks DNS for the id of the present policy. "" = there is none, or that is not known.
func (s *policies) id(domain string, now time.Time) (id string, until time.Time) {
	a, err := s.opts.DNS.Find(s.ending, mx.TextsOf("_mta-sts."+domain))
	if err != nil || a.Class == mx.Temporary {
		return "", now.Add(failurePause)
	}
	if a.Records != nil {
		id = mtasts.ParseRecord(a.Records.Texts)
	}
	return id, a.Expires
}

// barred says until when a policy is not to be fetched; zero = it may be.
func (s *policies) barred(domain, id string, now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.failed[domain]; f.id == id && now.Before(f.until) {
		return f.until
	}
	return time.Time{}
}

// fetch gets the policy from the web server and remembers it. Who wants the same at the same time shares a fetch. nil = it failed.
func (s *policies) fetch(domain, id string) *stored {
	s.mu.Lock()
	f := s.flights[domain]
	if f != nil {
		s.mu.Unlock()
		<-f.landed
		return f.policy
	}
	f = &flight{landed: make(chan struct{})}
	s.flights[domain] = f
	s.mu.Unlock()
	f.policy = s.fetchNow(domain, id)
	s.mu.Lock()
	delete(s.flights, domain)
	s.mu.Unlock()
	close(f.landed)
	return f.policy
}

func (s *policies) fetchNow(domain, id string) *stored {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-s.ending.Done():
		return nil
	}
	p, err := s.web.fetch(s.ending, domain)
	now := s.opts.Now()
	if err != nil {
		s.fetched["failed"].Inc()
		s.reportFetch(domain, err)
		s.opts.Log.Info("the MTA-STS policy of a domain cannot be fetched", "domain", domain, "error", err)
		s.bar(domain, failure{id, now.Add(retryPause)})
		return nil
	}
	s.fetched["ok"].Inc()
	fresh := &stored{Policy: *p, ID: id, Fetched: now.Unix(), Used: now.Unix()}
	if known := s.cache.peek(domain); known != nil {
		fresh.Used = known.Used // to fetch it is not to use it
	}
	s.cache.put(domain, fresh)
	return fresh
}

// bar notes a failure.
func (s *policies) bar(domain string, f failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failed) >= failuresMost {
		for other := range s.failed {
			delete(s.failed, other)
			break
		}
	}
	s.failed[domain] = f
}

// refreshAll fetches policies again before they end, also of domains that get no mail now: who can suppress fetches must not be able to wait for the
// end of a policy. RFC 8461 §10.2
func (s *policies) refreshAll() {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ending.Done():
			return
		case <-tick.C:
			s.refreshAged()
		}
	}
}

// refreshAged fetches those policies again that are due for it, one after the other.
func (s *policies) refreshAged() {
	now := s.opts.Now()
	for _, domain := range s.cache.aged(now) {
		if s.ending.Err() != nil {
			return
		}
		if known := s.cache.peek(domain); known != nil {
			id, _ := s.id(domain, now)
			if id == "" {
				id = known.ID
			}
			s.fetch(domain, id)
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
