package router

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"mailrace/proto/message"
	"mailrace/router/mx"
	"mailrace/router/schedule"
)

// Policy is what an operator says of mail to some destinations, all in one place. Where several hold for a recipient, each value is that of the most
// specific one that sets it: a domain (the exact name, then suffixes, the longest first) goes before mail exchangers (likewise), these before a
// route, and a route before every destination; of two for the same, the one that names the tenant goes first. What none sets is that of Options.
type Policy struct {
	// Where it holds: one of Domains, MX and Routes, or none of them for every destination.

	Domains []string // of recipients: names, or "*.suffix" (every name below suffix); any case
	MX      []string // of mail exchangers, likewise: it holds for the sites of which every host has one of these names
	Routes  []string // by Route.Name
	Tenants []string // whose mail it is for; none = everybody's. Required if there is nothing else, or Campaigns
	// Campaigns are the labels of the mail that it is for; none = all. Of two policies for the same the one that names the campaign goes first.
	Campaigns []string

	// What it says. Zero values say nothing.

	Retry        []time.Duration // delays between attempts, of which the last repeats; or RetryMin and RetryMax
	RetryMin     time.Duration   // as in Options; of the two, one alone has the other from there
	RetryMax     time.Duration
	Expire       time.Duration // as in Options
	BounceExpire time.Duration // of mail with the null reverse-path; 0 = Expire
	Pool         string        // of sources, where mail goes from any
}

// terms are what a Policy says, or several. Zero values say nothing.
type terms struct {
	retry  *schedule.Backoff
	expire time.Duration
	bounce time.Duration // in place of expire, for the null reverse-path
	pool   string

	retryBy, expireBy, poolBy int // whose retry, expire and pool they are: the place in Options.Policies, from 1; 0 = Options
}

// fill takes over what t does not say yet.
func (t *terms) fill(from *terms) {
	if from == nil {
		return
	}
	if t.retry == nil {
		t.retry, t.retryBy = from.retry, from.retryBy
	}
	if t.expire == 0 {
		t.expire, t.expireBy = from.expire, from.expireBy
	}
	if t.bounce == 0 {
		t.bounce = from.bounce
	}
	if t.pool == "" {
		t.pool, t.poolBy = from.pool, from.poolBy
	}
}

// lifetime is how long mail from a sender is tried.
func (t *terms) lifetime(from string) time.Duration {
	if from == "" {
		return t.bounce
	}
	return t.expire
}

// rung holds what is said of one destination. A nil rung says nothing.
type rung struct {
	all   *terms
	mails map[labels]*terms // of some mail only
}

// labels are those of mail; "" = any.
type labels struct{ tenant, campaign string }

// fill takes over into t what the rung says of mail with these labels.
func (r *rung) fill(t *terms, of labels) {
	if r == nil {
		return
	}
	if len(r.mails) > 0 {
		if of.campaign != "" {
			t.fill(r.mails[of])
			t.fill(r.mails[labels{campaign: of.campaign}])
		}
		if of.tenant != "" {
			t.fill(r.mails[labels{tenant: of.tenant}])
		}
	}
	t.fill(r.all)
}

// says reports whether the terms are among those of the rung.
func (r *rung) says(t *terms, of labels) bool {
	return r != nil && (of == labels{} && r.all == t || of != labels{} && r.mails[of] == t)
}

// add notes terms for mail with one of the labels, or all.
func (r *rung) add(t *terms, mails []labels) error {
	if len(mails) == 0 {
		if r.all != nil {
			return errors.New("has a policy already")
		}
		r.all = t
		return nil
	}
	if r.mails == nil {
		r.mails = map[labels]*terms{}
	}
	for _, of := range mails {
		if r.mails[of] != nil {
			return fmt.Errorf("tenant %q, campaign %q has a policy already", of.tenant, of.campaign)
		}
		r.mails[of] = t
	}
	return nil
}

// mails are the labels of the mail that the policy is for, none = all.
func (p *Policy) mails() (all []labels, err error) {
	if slices.Contains(p.Tenants, "") || slices.Contains(p.Campaigns, "") {
		return nil, errors.New("a tenant or a campaign has no name")
	}
	tenants, campaigns := p.Tenants, p.Campaigns
	if len(tenants)+len(campaigns) == 0 {
		return nil, nil
	}
	if len(tenants) == 0 {
		tenants = []string{""}
	}
	if len(campaigns) == 0 {
		campaigns = []string{""}
	}
	for _, tenant := range tenants {
		for _, campaign := range campaigns {
			all = append(all, labels{tenant, campaign})
		}
	}
	return all, nil
}

// ladder finds the rungs of a name in normal form.
type ladder struct {
	exact    map[string]*rung
	suffixes map[string]*rung // without the "*."
}

func (l *ladder) add(pattern string, t *terms, mails []labels) error {
	if l.exact == nil {
		l.exact, l.suffixes = map[string]*rung{}, map[string]*rung{}
	}
	suffix, into := strings.CutPrefix(pattern, "*.")
	m := l.exact
	if into {
		m = l.suffixes
	}
	name, err := mx.Normal(suffix)
	if err != nil {
		return fmt.Errorf("%q: %w", pattern, err)
	}
	if m[name] == nil {
		m[name] = &rung{}
	}
	if err := m[name].add(t, mails); err != nil {
		return fmt.Errorf("%q: %w", pattern, err)
	}
	return nil
}

// next is the suffix of name below its first label, "" at the end.
func next(name string) string {
	_, rest, _ := strings.Cut(name, ".")
	return rest
}

// fill takes over into t what is said of a name and mail with these labels, the most specific first.
func (l *ladder) fill(t *terms, name string, of labels) {
	l.exact[name].fill(t, of)
	if len(l.suffixes) == 0 {
		return
	}
	for name = next(name); name != ""; name = next(name) {
		l.suffixes[name].fill(t, of)
	}
}

// rungs are those of a name, the most specific first.
func (l *ladder) rungs(name string) (all []*rung) {
	if r := l.exact[name]; r != nil {
		all = append(all, r)
	}
	for name = next(name); name != ""; name = next(name) {
		if r := l.suffixes[name]; r != nil {
			all = append(all, r)
		}
	}
	return all
}

// policies are the compiled form of all. They are immutable.
type policies struct {
	root     terms // of Options: it says everything
	none     bool  // there is nothing but the root
	pools    bool  // some name pools
	shortest time.Duration
	domains  ladder
	hosts    ladder
	routes   map[string]*rung
	anywhere rung
}

// compile makes the policies of complete Options.
func compile(o *Options) (*policies, error) {
	p := &policies{routes: map[string]*rung{}, none: len(o.Policies) == 0, root: terms{
		retry:  &schedule.Backoff{List: o.Retry, Min: o.RetryMin, Max: o.RetryMax, Jitter: o.Jitter},
		expire: o.Expire, bounce: o.BounceExpire,
	}}
	p.shortest = min(o.Expire, o.BounceExpire)
	if err := checkDelays(o.Retry); err != nil {
		return nil, err
	}
	for i := range o.Policies {
		if err := p.add(&o.Policies[i], o, i+1); err != nil {
			return nil, fmt.Errorf("policy %d: %w", i+1, err)
		}
	}
	return p, nil
}

func (p *policies) add(from *Policy, o *Options, place int) error {
	t, err := from.terms(o)
	if err != nil {
		return err
	}
	t.retryBy, t.expireBy, t.poolBy = place, place, place
	p.pools = p.pools || t.pool != ""
	for _, d := range []time.Duration{t.expire, t.bounce} {
		if d > 0 {
			p.shortest = min(p.shortest, d)
		}
	}
	mails, err := from.mails()
	if err != nil {
		return err
	}
	kinds := 0
	for _, list := range [][]string{from.Domains, from.MX, from.Routes} {
		kinds += min(len(list), 1)
	}
	switch {
	case kinds > 1:
		return errors.New("more than one of domains, mail exchangers and routes")
	case kinds == 0 && len(mails) == 0:
		return errors.New("it is for nothing")
	case kinds == 0:
		return p.anywhere.add(t, mails)
	}
	for _, d := range from.Domains {
		if err := p.domains.add(d, t, mails); err != nil {
			return fmt.Errorf("domain %w", err)
		}
	}
	for _, h := range from.MX {
		if err := p.hosts.add(h, t, mails); err != nil {
			return fmt.Errorf("mail exchanger %w", err)
		}
	}
	for _, name := range from.Routes {
		if p.routes[name] == nil {
			p.routes[name] = &rung{}
		}
		if err := p.routes[name].add(t, mails); err != nil {
			return fmt.Errorf("route %q: %w", name, err)
		}
	}
	return nil
}

// terms are what the policy says.
func (p *Policy) terms(o *Options) (*terms, error) {
	t := &terms{expire: p.Expire, bounce: p.BounceExpire, pool: p.Pool}
	if t.bounce == 0 {
		t.bounce = t.expire
	}
	if len(p.Retry) > 0 || p.RetryMin != 0 || p.RetryMax != 0 {
		t.retry = &schedule.Backoff{List: p.Retry, Min: p.RetryMin, Max: p.RetryMax, Jitter: o.Jitter}
		if t.retry.Min == 0 {
			t.retry.Min = o.RetryMin
		}
		if t.retry.Max == 0 {
			t.retry.Max = o.RetryMax
		}
		if t.retry.Min > t.retry.Max {
			return nil, fmt.Errorf("first retry after %v, above the bound of %v", t.retry.Min, t.retry.Max)
		}
	}
	if min(p.RetryMin, p.RetryMax, p.Expire, p.BounceExpire) < 0 {
		return nil, errors.New("a time is negative")
	}
	return t, checkDelays(p.Retry)
}

// checkDelays judges a list of delays.
func checkDelays(list []time.Duration) error {
	for _, d := range list {
		if d <= 0 {
			return fmt.Errorf("delay %v between attempts, want one above 0", d)
		}
	}
	return nil
}

// of are the terms of mail with these labels for a domain in normal form, by a route (nil = none matches), at a site with these rungs. It allocates nothing.
func (p *policies) of(domain string, site []*rung, route *Route, mail labels) (t terms) {
	if p.none {
		return p.root
	}
	p.domains.fill(&t, domain, mail)
	for _, r := range site {
		r.fill(&t, mail)
	}
	if route != nil && len(p.routes) > 0 {
		p.routes[route.Name].fill(&t, mail)
	}
	p.anywhere.fill(&t, mail)
	t.fill(&p.root)
	return t
}

// at are the rungs of a site: what is said of all of its hosts, the most specific for the first of them first. It is asked once for each site.
func (p *policies) at(a *mx.Answer) (site []*rung) {
	if len(p.hosts.exact)+len(p.hosts.suffixes) == 0 || a == nil || a.Query.Kind != mx.Exchangers || len(a.Hosts) == 0 {
		return nil
	}
	for _, r := range p.hosts.rungs(a.Hosts[0].Name) {
		of := &rung{}
		if r.all != nil && p.covers(a.Hosts[1:], r.all, labels{}) {
			of.all = r.all
		}
		for mail, t := range r.mails {
			if p.covers(a.Hosts[1:], t, mail) {
				_ = of.add(t, []labels{mail}) // it is the first of its name
			}
		}
		site = append(site, of)
	}
	return site
}

// covers says whether terms hold for all of the hosts.
func (p *policies) covers(hosts []mx.Host, t *terms, mail labels) bool {
next:
	for i := range hosts {
		for _, r := range p.hosts.rungs(hosts[i].Name) {
			if r.says(t, mail) {
				continue next
			}
		}
		return false
	}
	return true
}

func labelsOf(m *message.Message) labels { return labels{m.Tenant, m.Campaign} }

// terms are those of recipient i of t's message. What is said of mail exchangers counts as soon as t came to its site.
func (s *Scheduler) terms(t *Transaction, i int) terms {
	p := s.router.policies
	if p.none {
		return p.root
	}
	var site []*rung
	if t.site != nil {
		site = t.site.rungs
	}
	return p.of(s.router.domain(t.Message, i), site, t.route, labelsOf(t.Message))
}

// domain is that of recipient i in normal form, "" if it has no valid one.
func (r *Router) domain(m *message.Message, i int) string {
	name := m.Recipients[i].Domain()
	if name == "" {
		name = r.opts.LocalDomain
	}
	name, _ = mx.Normal(name)
	return name
}

// expiry is when the lifetime of recipient i of t's message ends.
func (s *Scheduler) expiry(t *Transaction, i int) int64 {
	of := s.terms(t, i)
	return born(t.Message) + int64(of.lifetime(t.Message.From))
}

// Expiry is when the lifetime of recipient i of m ends, as far as its site is known without asking. Any goroutine.
func (r *Router) Expiry(m *message.Message, i int) time.Time {
	domain := r.domain(m, i)
	route := r.opts.Table.Match(domain)
	var site []*rung
	if !r.policies.none && route != nil && route.Kind == MX {
		if a, ok := r.opts.Resolver.Cached(mx.Query{Kind: mx.Exchangers, Name: domain}); ok && a.Class == mx.OK {
			site = r.policies.at(a)
		}
	}
	of := r.policies.of(domain, site, route, labelsOf(m))
	return time.Unix(0, born(m)+int64(of.lifetime(m.From)))
}

// Sayers tells which of the policies, by their places from 0, say when mail for a domain in normal form is tried again, for how long, and from which
// pool of sources it goes; -1 = none does. It is for mail without labels. route and answer may be nil. It compiles them all, for people who ask.
func Sayers(list []Policy, domain string, route *Route, answer *mx.Answer) (retry, expire, pool int, err error) {
	o := Options{Policies: list, RetryMin: 1, RetryMax: math.MaxInt64, Envs: make([]Env, 1)} // either goes with any of a policy
	if err := o.complete(); err != nil {
		return -1, -1, -1, err
	}
	p, err := compile(&o)
	if err != nil {
		return -1, -1, -1, err
	}
	of := p.of(domain, p.at(answer), route, labels{})
	return of.retryBy - 1, of.expireBy - 1, of.poolBy - 1, nil
}

// backoffDelay is how long the sites are left alone that have h, that failed once more as a whole: until the least patient schedule of the mail that it failed since it
// delivered has its next turn, but Options.SiteRetryMax at most, or the first delay of that schedule if it is longer.
func (site *Site) backoffDelay(h *health, failed []*Site) time.Duration {
	s, p := site.owner, site.owner.router.policies
	base := func(b *schedule.Backoff) time.Duration {
		return min(b.Base(h.failures), max(s.opts.SiteRetryMax, b.Base(1)))
	}
	if h.failures == 1 {
		h.retry = nil
	}
	if p.none {
		h.retry = p.root.retry
	} else {
		for _, other := range failed {
			other.queue.all(func(t *Transaction) bool {
				h.hurry(s, t, base)
				return false
			})
		}
	}
	return h.retry.Spread(base(h.retry), s.rand)
}

// hurry notes the schedules of t that are less patient than those before.
func (h *health) hurry(s *Scheduler, t *Transaction, base func(*schedule.Backoff) time.Duration) {
	for place, i := range t.Recipients {
		if t.settled[place] {
			continue
		}
		if of := s.terms(t, i); h.retry == nil || base(of.retry) < base(h.retry) {
			h.retry = of.retry
		}
	}
}
