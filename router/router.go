package router

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/proto/message"
	"mailrace/router/pool"
)

// Options configure a Router. Zero values stand for the defaults.
type Options struct {
	Table    *Table   // required
	Resolver Resolver // required
	Envs     []Env    // required: one for each loop
	// Policed is asked in place of Resolver for the hosts of domains by MX routes that use TLS; its answers say what each host must show
	// (mx.Records.Demands). nil = no domain demands anything.
	Policed Resolver

	// LocalDomain is the domain of recipients without one, such as <postmaster>. RFC 5321 §4.5.1
	LocalDomain string

	RetryMin time.Duration // delay after the first failure; doubles with each further one; 5 minutes
	RetryMax time.Duration // bound of that delay; 4 hours
	Jitter   float64       // each delay is spread by ± this share of it, at most 0.5; 0.15; below 0 = none
	Expire   time.Duration // lifetime of a message since it arrived; 5 days

	Retry        []time.Duration // delays in place of RetryMin and RetryMax, one after the other; the last one repeats. None = by these two
	BounceExpire time.Duration   // lifetime of mail with the null reverse-path; Expire
	Providers    []Provider      // whose limits hold for all of their domains together; in the order of precedence
	Policies     []Policy        // what is different for some mail. What a changed policy says counts from the next attempt of what waits

	// Notices are how long after a message arrived its sender is told that it is not delivered yet, ascending, 8 at most; nil = never. NoticeAll:
	// also where the sender did not say what it wants to hear of.
	Notices   []time.Duration
	NoticeAll bool

	// SiteRetryMax bounds the backoff of a site that failed as a whole, which goes by the schedule of its mail; 30 minutes.
	SiteRetryMax time.Duration
	// HostRetry is how long an address that failed is passed over while others of its site work; 1 minute.
	HostRetry time.Duration
	// AddressTries is how many addresses fail in a row before the site counts as failed; 5.
	AddressTries int

	Connections     int // most connections in all; each loop has an equal part; 20,000
	SiteConnections int // most connections to a site; 20
	// QueueDepth is how many transactions a connection is expected to take soon: another is opened when more wait; 8.
	QueueDepth int
	// GrowAfter is how long a transaction waits in a site's queue before one more connection is opened for it, however short the queue;
	// 500 ms.
	GrowAfter   time.Duration
	IdleTimeout time.Duration // an idle connection is kept for this long; 5 seconds
	Messages    int           // transactions over one connection; 1,000

	Recipients int // recipients of one transaction; 100. RFC 5321 §4.5.3.1.8
	Requeues   int // how often a transaction that a lost connection left unsent is tried at once elsewhere before it is deferred; 3
	Lookups    int // most lookups that one loop has under way; others wait; 256

	// Park says that messages leave the router when all recipients that are not settled wait, and come back by Dispatch. Env.Settle must count
	// the settled ones then, with message.Message.End. Otherwise they wait in memory.
	Park bool

	// InDoubt is what is done about deliveries whose connection is lost between the end of the message and the reply.
	InDoubt message.DoubtAction

	// InMemory bounds the recipients in memory: those of all messages that Dispatch got, for as long as it has them. A site that has more than its
	// share puts what is beyond back to the disk; see backlog. It needs Park, and Reserve before Dispatch; 0 = there is no bound.
	InMemory int

	// Sources are where connections come from, and Pools how they share the mail of MX routes, and of others with a Route.Pool. Which pool mail is of
	// says the most specific of Policies, else its route, else Pool. "" = none: its connections come from any address of this machine.
	Sources []Source
	Pools   []Pool
	Pool    string
	// SourceRetry is how long a source is out of service that cannot be used, or that SourceSites sites in a row refused while others worked; longer
	// with each time in a row. Then mail for one site tries it. 5 minutes, 3.
	SourceRetry time.Duration
	SourceSites int
	// Prefer is the family of addresses of a host that is tried first; the other is tried beside it when that takes long.
	Prefer pool.Family

	// Tight says that content must give up its memory: entries behind others in a queue take no hold then. nil = never.
	Tight func() bool
}

// Router joins the schedulers of all loops with the table and the resolver.
type Router struct {
	opts       Options
	schedulers []*Scheduler
	room       room
	policies   *policies
	providers  *providers
	sources    *sources // nil = there are no pools
	metrics    *metrics.Set
}

// New returns a router. It calls nothing of the Envs before the first Dispatch.
func New(o Options) (*Router, error) {
	if o.Table == nil || o.Resolver == nil || len(o.Envs) == 0 {
		return nil, errors.New("router: table, resolver and at least one loop are required")
	}
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	r := &Router{opts: o}
	var err error
	if r.policies, err = compile(&r.opts); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	if r.providers, err = compileProviders(r.opts.Providers); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	if r.sources, err = newSources(&r.opts); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	if o.Park {
		r.room.limit = int64(o.InMemory)
	}
	for loop := range o.Envs {
		r.schedulers = append(r.schedulers, newScheduler(r, loop))
	}
	for _, from := range r.schedulers {
		for _, to := range r.schedulers {
			b := &mailbox{to: to}
			b.deliver = b.empty
			from.boxes = append(from.boxes, b)
		}
	}
	r.register()
	return r, nil
}

// complete replaces zero values by the defaults and checks the rest. Connections becomes the share of each loop.
func (o *Options) complete() error {
	for _, d := range []struct {
		name  string
		value *time.Duration
		zero  time.Duration
	}{
		{"RetryMin", &o.RetryMin, 5 * time.Minute},
		{"RetryMax", &o.RetryMax, 4 * time.Hour},
		{"Expire", &o.Expire, 5 * 24 * time.Hour},
		{"BounceExpire", &o.BounceExpire, cmp.Or(o.Expire, 5*24*time.Hour)},
		{"SiteRetryMax", &o.SiteRetryMax, 30 * time.Minute},
		{"HostRetry", &o.HostRetry, time.Minute},
		{"GrowAfter", &o.GrowAfter, 500 * time.Millisecond},
		{"IdleTimeout", &o.IdleTimeout, 5 * time.Second},
		{"SourceRetry", &o.SourceRetry, 5 * time.Minute},
	} {
		if *d.value == 0 {
			*d.value = d.zero
		}
		if *d.value < 0 {
			return fmt.Errorf("%s is negative", d.name)
		}
	}
	for _, n := range []struct {
		name  string
		value *int
		zero  int
	}{
		{"AddressTries", &o.AddressTries, 5},
		{"Connections", &o.Connections, 20_000},
		{"SiteConnections", &o.SiteConnections, 20},
		{"QueueDepth", &o.QueueDepth, 8},
		{"Messages", &o.Messages, 1000},
		{"Recipients", &o.Recipients, 100},
		{"Requeues", &o.Requeues, 3},
		{"Lookups", &o.Lookups, 256},
		{"InMemory", &o.InMemory, 0},
		{"SourceSites", &o.SourceSites, 3},
	} {
		if *n.value == 0 {
			*n.value = n.zero
		}
		if *n.value < 0 {
			return fmt.Errorf("%s is negative", n.name)
		}
	}
	if o.Jitter == 0 {
		o.Jitter = 0.15
	}
	if o.Jitter = max(o.Jitter, 0); o.Jitter > 0.5 {
		return fmt.Errorf("jitter %v is above 0.5", o.Jitter)
	}
	if o.RetryMin > o.RetryMax {
		return fmt.Errorf("first retry after %v, above the bound of %v", o.RetryMin, o.RetryMax)
	}
	if err := o.checkNotices(); err != nil {
		return err
	}
	o.Connections = max(o.Connections/len(o.Envs), 1)
	return nil
}

// Drain makes the loop hand out no further transactions and open no connections; links without work are closed. Transactions under way go
// on to their end. What is queued stays as it is in the spool. It is called on the given loop.
func (r *Router) Drain(loop int) {
	s := r.schedulers[loop]
	s.draining = true
	for _, site := range s.sites {
		for _, l := range slices.Clone(site.links) {
			l.retire()
		}
	}
}

// Leave is for who is told by message.Message.End that the rest of m waits: the router forgets m. It returns when m is to be dispatched again, as
// in Env.Wait. Any loop.
func (r *Router) Leave(m *message.Message) (park int64) {
	m.LetGo()
	park = wakeMessage(m)
	if r.room.limit > 0 {
		r.Unreserve(m.Pending())
		r.goes(park, m.Pending(), classOf(m))
	}
	return park
}

// Waits notes that n more recipients wait that the router never saw; they are parked, and come by Dispatch with their message. Any goroutine.
func (r *Router) Waits(n int) { r.schedulers[0].stats.waiting.Add(int64(n)) }

// Metrics is the set of mailrace_router_* metrics, to be registered by whoever serves them.
func (r *Router) Metrics() *metrics.Set { return r.metrics }

// Totals are sums over all loops.
type Totals struct {
	Queued       int64 // recipients in queues of sites
	Resolving    int64 // recipients whose names are being looked up
	InFlight     int64 // recipients of transactions that connections hold
	Deferred     int64 // recipients waiting for their next attempt, those of parked messages included
	Sites        int64
	Connections  int64 // open and opening
	Idle         int64 // open without a transaction
	Backoff      int64 // sites that are backed off
	Transactions int64 // that connections hold
}

// SiteStatus describes a site at one moment.
type SiteStatus struct {
	Site        string
	Provider    string // Provider.Name; "" = none
	Source      string // "" = any address of this machine
	Route       string
	Queued      int       // recipients in its queue
	InFlight    int       // recipients that connections hold
	Connections int       // open and opening
	Idle        int       // open without a transaction
	Failures    int       // times in a row that it failed as a whole
	Backoff     time.Time // not tried before; zero when it is in use
	LastError   string    // last failure of a connection, as Outcome.Reply gives it; "" when none since a delivery
}

// Sites describes every site of a loop, in no order. It is called on that loop.
func (r *Router) Sites(loop int) []SiteStatus {
	s := r.schedulers[loop]
	list := make([]SiteStatus, 0, len(s.sites))
	for _, site := range s.sites {
		list = append(list, site.status())
	}
	return list
}
