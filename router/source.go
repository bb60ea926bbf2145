package router

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/proto/message"
)

const (
	// probeLease is how long nobody else probes a source after somebody began to.
	probeLease = time.Minute
	// sourceRetryShift bounds how often the time for which a source is out doubles.
	sourceRetryShift = 4
	// sourceWindow is for how long a failure at a site speaks against a source, and a delivery for the network.
	sourceWindow = 30 * time.Minute
	// workedStep is how exactly is known when a source last delivered.
	workedStep = int64(time.Second)
)

// Source is where connections come from: an address of this machine, or a proxy. What it is made of is Env.Dial's business, by its name.
type Source struct {
	Name string // for records and metrics
	IPv4 bool   // it reaches addresses of this family
	IPv6 bool
}

// Pool is a set of sources that share mail by their weights.
type Pool struct {
	Name    string
	Members []Member
}

// Member is a source in a pool.
type Member struct {
	Source string
	Weight int // 1 to 1,000,000: its part of the mail, compared with the others'
}

// weightMax bounds Member.Weight.
const weightMax = 1_000_000

// SourceChange says that a source was taken out, or is in service again.
type SourceChange struct {
	Source string
	Out    bool
	Cause  string    // why, for people
	Until  time.Time // Out: not tried before
}

// source is a Source with what is known of it. Loops share it; none of it is touched for a message but counters.
type source struct {
	Source
	place int   // from 1; 0 stands for mail without a source
	mark  int64 // of its name, in due times: see sign

	until   atomic.Int64 // out of service, and not tried before, Unix nanoseconds; 0 = in service
	worked  atomic.Int64 // when a peer replied for a recipient, Unix nanoseconds, to workedStep
	suspect atomic.Bool  // something is against it

	mu       sync.Mutex
	against  []evidence // since it delivered, the latest ones: as many as are enough
	outages  int        // times in a row
	probing  bool       // since until was set somebody tries it
	unusable bool       // it is out because it cannot be used at all; else because it is refused
	cause    string     // why it is out
	since    int64      // when it went

	links, dials, outs                     atomic.Int64
	delivered, deferrals, bounced, expired atomic.Int64
}

// evidence is a site that fails from a source.
type evidence struct {
	site string // key of its exchange
	at   int64
}

// sourcePool is a Pool with its sources.
type sourcePool struct {
	name    string
	place   int
	members []member
}

type member struct {
	*source
	weight int64
}

// sources are all of a router. They are immutable but for what a source knows.
type sources struct {
	all    []*source
	pools  map[string]*sourcePool
	list   []*sourcePool // by place
	root   *sourcePool   // of mail by MX routes that nothing is said of; nil = no source
	retry  int64
	enough int // sites
}

// newSources makes the sources of complete Options; nil = there are no pools, and mail has no source.
func newSources(o *Options) (*sources, error) {
	if len(o.Pools) == 0 {
		return nil, o.checkPoolNames(nil)
	}
	ss := &sources{pools: map[string]*sourcePool{}, retry: int64(o.SourceRetry), enough: o.SourceSites}
	byName := map[string]*source{}
	for i, from := range o.Sources {
		switch {
		case from.Name == "" || byName[from.Name] != nil:
			return nil, fmt.Errorf("source %d: %q is no name, or that of another", i+1, from.Name)
		case !from.IPv4 && !from.IPv6:
			return nil, fmt.Errorf("source %q reaches no family of addresses", from.Name)
		}
		byName[from.Name] = &source{Source: from, place: i + 1, mark: markOf(from.Name, ss.all)}
		ss.all = append(ss.all, byName[from.Name])
	}
	for i, from := range o.Pools {
		p := &sourcePool{name: from.Name, place: i}
		if from.Name == "" || ss.pools[from.Name] != nil || len(from.Members) == 0 {
			return nil, fmt.Errorf("pool %d: %q is no name, or that of another, or it has no sources", i+1, from.Name)
		}
		for _, m := range from.Members {
			src := byName[m.Source]
			if src == nil || m.Weight < 1 || m.Weight > weightMax || slices.ContainsFunc(p.members, func(other member) bool { return other.source == src }) {
				return nil, fmt.Errorf("pool %q: %q with weight %d: want a source, once, and a weight of 1 to %d", from.Name, m.Source, m.Weight, weightMax)
			}
			p.members = append(p.members, member{src, int64(m.Weight)})
		}
		ss.pools[from.Name] = p
		ss.list = append(ss.list, p)
	}
	ss.root = ss.pools[o.Pool]
	return ss, o.checkPoolNames(ss.pools)
}

// checkPoolNames judges the names by which pools are chosen.
func (o *Options) checkPoolNames(pools map[string]*sourcePool) error {
	check := func(name, who string) error {
		if name != "" && pools[name] == nil {
			return fmt.Errorf("%s: there is no pool %q", who, name)
		}
		return nil
	}
	err := check(o.Pool, "default")
	for i := range o.Policies {
		err = cmp.Or(err, check(o.Policies[i].Pool, fmt.Sprintf("policy %d", i+1)))
	}
	for _, r := range o.Table.routes {
		err = cmp.Or(err, check(r.Pool, "route "+r.Name))
	}
	return err
}

// out says until when the source is not to be used, 0 = it is in service.
func (src *source) out() int64 { return src.until.Load() }

// lease says whether the caller is to try a source that is out. Nobody else is for a while.
func (src *source) lease(now int64) bool {
	until := src.until.Load()
	if until == 0 || until > now {
		return false
	}
	src.mu.Lock()
	defer src.mu.Unlock()
	if src.until.Load() != until {
		return false
	}
	src.probing = true
	src.until.Store(now + int64(probeLease))
	return true
}

// takeOut takes a source out of service, or leaves it out for longer if it was tried.
func (s *Scheduler) takeOut(src *source, unusable bool, cause string) {
	ss, now := s.router.sources, s.now()
	src.mu.Lock()
	if src.until.Load() != 0 && !src.probing { // another connection of the same time
		src.mu.Unlock()
		return
	}
	src.outages++
	until := now + ss.retry<<min(src.outages-1, sourceRetryShift)
	if src.until.Load() == 0 {
		src.since = now
	}
	src.unusable, src.cause, src.probing, src.against = unusable, cause, false, nil
	src.suspect.Store(false)
	src.until.Store(until)
	src.mu.Unlock()
	src.outs.Add(1)
	s.tellSource(SourceChange{Source: src.Name, Out: true, Cause: cause, Until: time.Unix(0, until)})
	for _, other := range s.router.schedulers {
		other.env.Post(func() { other.abandon(src) })
	}
}

// restore takes a source that is out into service again.
func (s *Scheduler) restore(src *source, cause string) {
	src.mu.Lock()
	if src.until.Load() == 0 {
		src.mu.Unlock()
		return
	}
	src.outages, src.probing, src.cause, src.since, src.against = 0, false, "", 0, nil
	src.suspect.Store(false)
	src.until.Store(0)
	src.mu.Unlock()
	s.tellSource(SourceChange{Source: src.Name, Cause: cause})
}

func (s *Scheduler) tellSource(c SourceChange) {
	if s.env.Source != nil {
		s.env.Source(c)
	}
}

// abandon has the sites of a source that is out give their mail to others.
func (s *Scheduler) abandon(src *source) {
	if src.out() == 0 {
		return
	}
	for _, site := range s.sites {
		if site.key.source != src {
			continue
		}
		site.disown()
		for _, l := range slices.Clone(site.links) {
			l.retire()
		}
		site.kick()
	}
}

// accuse notes that a site fails from a source while others work there, or refuses it for good. A source that fails at several and delivers nowhere
// meanwhile is taken out, unless nothing else delivers either: then it is the network.
func (s *Scheduler) accuse(site *Site, cause string) {
	ss, src, now := s.router.sources, site.key.source, s.now()
	src.mu.Lock()
	src.against = slices.DeleteFunc(src.against, func(e evidence) bool { return e.site == site.exchange.key || e.at+int64(sourceWindow) < now })
	if src.against = append(src.against, evidence{site.exchange.key, now}); len(src.against) > ss.enough {
		src.against = slices.Delete(src.against, 0, 1) // more say no more
	}
	src.suspect.Store(true)
	enough := len(src.against) == ss.enough
	src.mu.Unlock()
	if enough && ss.othersWork(src, now) {
		s.takeOut(src, false, fmt.Sprintf("%d sites in a row take no mail from it while others deliver; last %s: %s", ss.enough, site.name, cause))
	}
}

// othersWork says whether another source delivered of late.
func (ss *sources) othersWork(than *source, now int64) bool {
	return slices.ContainsFunc(ss.all, func(src *source) bool { return src != than && src.worked.Load()+int64(sourceWindow) > now })
}

// works notes that a peer replied for a recipient.
func (src *source) works(now int64) {
	if now-src.worked.Load() >= workedStep {
		src.worked.Store(now)
	}
	if src.suspect.Load() {
		src.mu.Lock()
		src.against = nil
		src.suspect.Store(false)
		src.mu.Unlock()
	}
}

// accuse notes that the site failed as a whole. What is refused for good is refused for where we come from; anything else may be the site.
func (site *Site) accuse() {
	if site.key.source == nil || site.lastReason != GoneRefused && site.lastReason != GoneUnreachable {
		return
	}
	refused := site.lastReason == GoneRefused && site.lastError.Remote && site.lastError.Code/100 == 5
	if refused || slices.ContainsFunc(site.fork.sites, func(other *Site) bool {
		return other != nil && other != site && other.failures() == 0 && other.proved > 0
	}) {
		site.owner.accuse(site, site.lastError.Reply())
	}
}

// vouch notes that the site delivers from its source: that others fail here is their fault.
func (site *Site) vouch() {
	if site.fork == nil {
		return
	}
	for _, other := range site.fork.sites {
		if other != nil && other != site && other.failures() > 0 && other.key.source != nil && other.key.source.out() == 0 {
			other.accuse()
		}
	}
}

// SourceStatus is a source at one moment, for people to read.
type SourceStatus struct {
	Source string
	Weight int // in the pool that was asked for

	Until  time.Time // out of service, and not tried before; zero = in service
	Since  time.Time // when it went out
	Cause  string    // why
	Reach  bool      // it reaches an address of the site
	Known  bool      // it has a site: the following says something
	Status SiteStatus
}

func (src *source) status() (st SourceStatus) {
	src.mu.Lock()
	defer src.mu.Unlock()
	st.Source = src.Name
	if until := src.until.Load(); until != 0 {
		st.Until, st.Since, st.Cause = time.Unix(0, until), time.Unix(0, src.since), src.cause
	}
	return st
}

// outText says why no source of a pool takes mail.
func (p *sourcePool) outText() string {
	var parts []string
	for _, m := range p.members {
		if st := m.status(); !st.Until.IsZero() {
			parts = append(parts, m.Name+" ("+st.Cause+")")
		}
	}
	return fmt.Sprintf("no source of pool %q is in service: %s", p.name, strings.Join(parts, ", "))
}

// fault says whether the source is out because it could not be used at all.
func (src *source) fault() bool {
	src.mu.Lock()
	defer src.mu.Unlock()
	return src.unusable && src.until.Load() != 0
}

// title is the name of a source, "" for none.
func (src *source) title() string {
	if src == nil {
		return ""
	}
	return src.Name
}

// write writes the figures of all sources.
func (ss *sources) write(w io.Writer) {
	for _, src := range ss.all {
		of := func(name, more string) string {
			return "mailrace_source_" + name + `{source="` + src.Name + `"` + more + "}"
		}
		up := 1.0
		if src.out() != 0 {
			up = 0
		}
		metrics.WriteGaugeFloat64(w, of("in_service", ""), up)
		metrics.WriteGaugeFloat64(w, of("connections", ""), float64(src.links.Load()))
		metrics.WriteCounterUint64(w, of("dials_total", ""), uint64(src.dials.Load()))
		metrics.WriteCounterUint64(w, of("outages_total", ""), uint64(src.outs.Load()))
		for _, o := range []struct {
			name string
			n    *atomic.Int64
		}{{"delivered", &src.delivered}, {"deferred", &src.deferrals}, {"bounced", &src.bounced}, {"expired", &src.expired}} {
			metrics.WriteCounterUint64(w, of("outcomes_total", `,outcome="`+o.name+`"`), uint64(o.n.Load()))
		}
	}
}

// count notes what became of a recipient.
func (src *source) count(state message.State) {
	switch state {
	case message.Delivered:
		src.delivered.Add(1)
	case message.Deferred:
		src.deferrals.Add(1)
	case message.Bounced:
		src.bounced.Add(1)
	case message.Expired:
		src.expired.Add(1)
	}
}
