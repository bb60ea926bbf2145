// Package engine is the node: it builds the parts from the configuration and joins them. What ingress made durable goes to the router, what
// egress settled goes back to the spool, and what failed for good becomes a DSN.
//
//	ingress ──commit──▶ spool ──completion──▶ lane.accepted ──▶ router ──▶ egress
//	                      ▲                                                  │
//	                      └───── removal, note, DSN ◀── lane.settle ◀────────┘
//
// A lane is the node's part of one event loop; all of the above happens on loops, in lanes, but for the spool's committers and the readers.
package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/engine/acme"
	"mailrace/engine/admin"
	"mailrace/engine/auth"
	"mailrace/engine/config"
	"mailrace/engine/egress"
	"mailrace/engine/event"
	"mailrace/engine/ingress"
	"mailrace/engine/loop"
	"mailrace/engine/policy"
	"mailrace/engine/recipients"
	"mailrace/engine/tlsrpt"
	"mailrace/proto/message"
	"mailrace/router"
	"mailrace/router/mx"
	"mailrace/spool"
)

// Node is a mail transfer agent. New makes one, Run serves until it is told to stop; a Node runs once.
type Node struct {
	cfg        *config.Config
	log        *slog.Logger
	budget     *message.Budget
	events     *event.Log
	store      store
	resolver   *mx.Resolver
	policies   *policy.Resolver // nil = domains demand nothing of TLS
	reports    *tlsrpt.Reports  // nil = domains are not told of it
	router     *router.Router
	routes     *router.Table
	recipients *recipients.Directory // nil = everybody is there
	outbound   *egress.Options
	templates  templates
	doors      []*ingress.Door
	claims     *ingress.Claims
	httpHead   *ingress.HeadRules // what is done with the header sections of mail that comes over HTTP
	group      *loop.Group
	lanes      []*lane
	readers    *readers
	doubts     *doubts
	pager      *pager          // nil = everything stays in memory
	auth       *auth.Authority // nil without users
	admin      *admin.Server
	acme       *acme.Manager // nil = none
	metrics    *metrics.Set
	stats      *stats
	turn       atomic.Uint32
	batches    atomic.Int64 // that are under way
	reporting  atomic.Int64 // reports that are being gathered or made
	ready      atomic.Bool
	fatal      chan error
	world

	routable  chan struct{}  // closed when openRouter is done
	stored    chan struct{}  // closed when the store is open, or cannot be
	storeErr  error          // why not; read when stored is closed
	following sync.WaitGroup // what follows then
}

// stats are the node's own figures.
type stats struct {
	dsns, unreported, recovered *metrics.Counter
	doubleBounces               *metrics.Counter
	received                    *ingress.Stats
	outcomes                    [message.Expired + 1]*metrics.Counter // recipients that came to a state, by state
}

// New opens the spool and the doors. When it returns without an error, the node listens, and what the spool holds is read back meanwhile. It
// waits for the stores of the spool for a moment only: mail that comes in before they are open is answered for when they are.
func New(cfg *config.Config, log *slog.Logger) (*Node, error) {
	return newNode(cfg, log, world{clock: &loop.MachineClock, webPort: httpsPort})
}

// world is what a node finds itself in. Tests make their own.
type world struct {
	clock   *loop.Clock       // of all that waits but for disks and the wire, in the loops, the router, the pager and the caches
	webPort uint16            // of the web servers that policies are fetched from, and TLS reports go to
	rand    func() *rand.Rand // makes what spreads retries and picks among hosts, for each loop; nil = by chance

	reportClock func() time.Time // what day it is for TLS reports; nil = clock
	reportTick  <-chan time.Time // when it is looked at; nil = each minute
}

// httpsPort is where web servers listen.
const httpsPort = 443

func newNode(cfg *config.Config, log *slog.Logger, w world) (_ *Node, err error) {
	if log == nil {
		log = slog.Default()
	}
	set := metrics.NewSet()
	n := &Node{
		cfg: cfg, log: log, budget: message.NewBudget(cfg.Engine.Memory), metrics: set, world: w, fatal: make(chan error, 1), stored: make(chan struct{}), routable: make(chan struct{}),
		stats: &stats{
			dsns:          set.NewCounter("mailrace_dsns_total"),
			unreported:    set.NewCounter("mailrace_dsns_suppressed_total"),
			doubleBounces: set.NewCounter("mailrace_double_bounces_total"),
			recovered:     set.NewCounter("mailrace_recovered_messages_total"),
			received:      ingress.NewStats(set),
		},
	}
	for _, s := range []message.State{message.Deferred, message.Delivered, message.Bounced, message.Expired} {
		n.stats.outcomes[s] = set.NewCounter(fmt.Sprintf("mailrace_recipients_total{outcome=%q}", s))
	}
	n.doubts = newDoubts(n)
	n.httpHead = headRules(cfg, &config.Listener{Mode: config.ModeSubmission, CheckFrom: true})
	set.NewGauge("mailrace_memory_content_bytes", func() float64 { return float64(n.budget.Used()) })
	set.NewGauge("mailrace_memory_content_limit_bytes", func() float64 { return float64(n.budget.Limit()) })
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if n.templates, err = newTemplates(&cfg.DSN); err != nil {
		return nil, err
	}
	loops := loopCount(cfg.Engine.Loops)
	n.lanes = make([]*lane, loops)
	if n.events, err = event.Open(event.Options{
		Path: cfg.Events.Path, MaxSize: cfg.Events.MaxSize, Keep: cfg.Events.Keep, Writers: loops, Log: log,
	}); err != nil {
		return nil, err
	}
	for i := range n.lanes {
		n.lanes[i] = &lane{node: n, index: i, events: n.events.Writer(i)}
		n.lanes[i].look.Fire = n.lanes[i].lookGathered
	}
	if err = n.openStore(); err != nil {
		return nil, err
	}
	n.openClaims()
	go n.awaitStore()
	n.readers = newReaders(2 * loops)
	metrics.RegisterSet(n.metrics)
	if err = n.openRouter(); err != nil {
		return nil, err
	}
	if err = n.openRecipients(); err != nil {
		return nil, err
	}
	if err = n.storeSoon(); err != nil {
		return nil, err
	}
	if err = n.openLoops(); err != nil {
		return nil, err
	}
	n.sweepClaims()
	if err = n.openAdmin(); err != nil {
		return nil, err
	}
	n.following.Go(n.takeUp)
	n.ready.Store(true)
	return n, nil
}

// spoolMemory is the most that the memtables of the spool take while they are filled: beyond it, larger ones save next to nothing.
const spoolMemory = 256 << 20

// openStore opens the spool, or what stands in for it.
func (n *Node) openStore() error {
	c := n.cfg.Spool
	if c.Path == nullPath {
		n.store = newNothing(n)
		return nil
	}
	if c.Failover != "" { // the spool notes it, and whoever reads that may be elsewhere
		var err error
		if c.Failover, err = filepath.Abs(c.Failover); err != nil {
			return fmt.Errorf("wal_failover: %w", err)
		}
	}
	n.pager = newPager(n)
	s, err := spool.Begin(spool.Options{
		Failover: c.Failover, FailoverAfter: c.FailoverAfter,
		MinFree: c.MinFree, MinInodes: int64(c.MinInodes), Reserve: c.Reserve,
		Memory: min(n.cfg.Engine.Memory/4, spoolMemory), Path: c.Path, Shards: c.Shards, Sync: c.Sync, Log: n.log, Fatal: n.fatalSpool,
		InFlight: c.InFlight, Indexed: n.pager.indexed, Now: n.clock.Now,
		Post: func(origin int, done []*spool.Op) {
			n.pager.giveBack(done)
			n.lanes[origin].loop.PostTask(completions(done))
		},
	})
	if err != nil {
		return fmt.Errorf("opening the spool: %w", err)
	}
	for range s.Shards() {
		n.pager.windows = append(n.pager.windows, newWindow())
	}
	n.store = shards{s, n.pager}
	return nil
}

// openRouter builds the resolver, the router and what egress shares.
func (n *Node) openRouter() (err error) {
	c := n.cfg
	if n.resolver, err = newResolver(c, n.clock.Now); err != nil {
		return fmt.Errorf("dns: %w", err)
	}
	if err = n.openReports(); err != nil {
		return err
	}
	var policed router.Resolver
	kept := ""
	if c.Spool.Path != nullPath {
		kept = filepath.Join(c.Spool.Path, policyFile)
	}
	if n.policies, err = newPolicies(c, n.resolver, policy.Options{File: kept, Port: n.webPort, Dial: n.dialWeb, Reports: n.reports, Now: n.clock.Now, Log: n.log}); err != nil {
		return err
	}
	if n.policies != nil {
		policed = n.policies
		metrics.RegisterSet(n.policies.Metrics())
	}
	if n.routes, err = router.NewTable(routes(c)); err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	inMemory := 0
	if n.pager != nil {
		inMemory = n.pager.limit
	}
	envs := make([]router.Env, len(n.lanes))
	for i, a := range n.lanes {
		envs[i] = a.env()
	}
	n.router, err = router.New(router.Options{
		Table: n.routes, Resolver: n.resolver, Policed: policed, Envs: envs, LocalDomain: c.Hostname,
		RetryMin: c.Queue.RetryMin, RetryMax: c.Queue.RetryMax, Retry: c.Queue.Retry, Expire: c.Queue.Expire, BounceExpire: c.Queue.BounceExpire, Policies: policies(c), Providers: providers(c),
		Notices: c.DSN.DelayAfter, NoticeAll: c.DSN.DelayToAll,
		Connections: c.Engine.MaxConnections, SiteConnections: c.Egress.Connections,
		IdleTimeout: max(c.Egress.Idle, 1), Messages: cmp.Or(c.Egress.Messages, math.MaxInt), Recipients: c.Egress.Recipients,
		Sources: sources(c), Pools: pools(c), Pool: c.Egress.Pool, SourceRetry: c.Egress.SourceRetry, Prefer: preferred(c),
		Tight: n.tight, Park: n.pager != nil, InMemory: inMemory, InDoubt: n.doubts.action,
	})
	if err != nil {
		return fmt.Errorf("router: %w", err)
	}
	metrics.RegisterSet(n.router.Metrics())
	metrics.RegisterSet(n.resolver.Metrics())
	if n.outbound, err = newOutbound(n); err != nil {
		return err
	}
	close(n.routable)
	return nil
}

// tight says that content should leave memory: the spool has it.
func (n *Node) tight() bool { return n.store.Keeps() && n.budget.Tight() }

// load reads chunks of a message on a reader and hands them over on l.
func (n *Node) load(l *loop.Loop, m *message.Message, first, count int, done func([]*message.Chunk, error)) {
	n.readers.do(func() {
		cs, err := n.store.Load(m.ID, first, count, n.budget)
		if !l.Post(func() { done(cs, err) }) {
			message.FreeAll(cs)
		}
	})
}

// fatalSpool ends the node: what cannot be synced must not be acknowledged, and recovery at the next start is the repair. The spool stands still
// when it returns.
func (n *Node) fatalSpool(err error) {
	select {
	case n.fatal <- fmt.Errorf("the spool cannot be written: %w. Nothing that was acknowledged is lost: see to the disk, then start again, which recovers it", err):
	default:
	}
}

// unreadable ends the node when its spool cannot be read back.
func (n *Node) unreadable(err error) {
	select {
	case n.fatal <- fmt.Errorf("the spool cannot be read back: %w", err):
	default:
	}
}

// Run serves until ctx ends, then stops taking mail, finishes what is under way within the drain timeout, and closes the spool. It
// returns nil after such a stop, and the reason if the node cannot go on.
func (n *Node) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		n.drain()
		return n.close()
	case err := <-n.fatal:
		return err
	case <-n.group.Done():
		return errors.Join(n.group.Err(), n.close())
	}
}

// drain stops taking mail and waits for the transactions under way, in both directions.
func (n *Node) drain() {
	n.ready.Store(false)
	n.log.Info("stopping: no new mail, finishing what is under way", "limit", n.cfg.Engine.DrainTimeout)
	n.group.StopAccepting()
	for _, a := range n.lanes {
		a.loop.Post(func() {
			for _, d := range n.doors {
				d.Drain(a.loop)
			}
			n.router.Drain(a.index)
			a.lookGathered() // nothing more is waited for
		})
	}
	limit := time.NewTimer(n.cfg.Engine.DrainTimeout)
	defer limit.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for n.busy() {
		select {
		case <-limit.C:
			n.log.Warn("stopping: the limit passed with transactions under way; what was not acknowledged is the sender's, the rest is in the spool")
			return
		case <-look.C:
		}
	}
}

// busy says whether a transaction is under way.
func (n *Node) busy() bool {
	sessions := make(chan int, len(n.lanes))
	posted := 0
	for _, a := range n.lanes {
		if a.loop.Post(func() {
			open := 0
			for _, d := range n.doors {
				open += d.Sessions(a.loop)
			}
			sessions <- open
		}) {
			posted++
		}
	}
	for range posted {
		if <-sessions > 0 {
			return true
		}
	}
	return n.batches.Load() > 0 || n.reporting.Load() > 0 || n.router.Totals().Transactions > 0
}

// close closes what is open, in the order in which the parts need each other.
func (n *Node) close() error {
	var errs []error
	if n.admin != nil {
		errs = append(errs, n.admin.Close())
	}
	if n.group != nil {
		errs = append(errs, n.group.Close())
	}
	if n.acme != nil {
		n.acme.Close()
	}
	if n.store != nil {
		select {
		case <-n.stored:
		default:
			n.store.Hurry()
		}
	}
	n.following.Wait()
	if n.pager != nil {
		n.pager.close()
	}
	n.doubts.close()
	if n.readers != nil {
		n.readers.close()
	}
	if n.auth != nil {
		n.auth.Close()
	}
	if n.recipients != nil {
		metrics.UnregisterSet(n.recipients.Metrics(), true)
		n.recipients.Close()
	}
	if n.reports != nil {
		metrics.UnregisterSet(n.reports.Metrics(), true)
		n.reports.Close()
	}
	if n.policies != nil {
		metrics.UnregisterSet(n.policies.Metrics(), true)
		n.policies.Close()
	}
	if n.resolver != nil {
		metrics.UnregisterSet(n.resolver.Metrics(), true)
		n.resolver.Close()
	}
	if n.router != nil {
		metrics.UnregisterSet(n.router.Metrics(), true)
	}
	metrics.UnregisterSet(n.metrics, true)
	if n.store != nil {
		<-n.stored
		errs = append(errs, n.store.Close())
	}
	if n.events != nil {
		errs = append(errs, n.events.Close())
	}
	return errors.Join(errs...)
}

// Addr is where listener i listens.
func (n *Node) Addr(i int) net.Addr { return n.group.Addr(i) }

// AdminAddr is where the HTTP service listens, or nil.
func (n *Node) AdminAddr() net.Addr {
	if n.admin == nil {
		return nil
	}
	return n.admin.Addr()
}

// Status is what the node has done and holds at one moment.
type Status struct {
	Accepted  uint64 // messages since the start
	Delivered uint64 // recipients since the start, as are the following
	Deferrals uint64
	Bounced   uint64 // expired ones included
	Queue     int64  // recipients that are not settled
	Counting  bool   // the spool is still being looked through after the start: Queue and Deferred are what is known so far
	router.Totals
}

// Status may be called by any goroutine.
func (n *Node) Status() Status {
	t, o := n.router.Totals(), &n.stats.outcomes
	return Status{
		Accepted: n.stats.received.Messages.Get(), Delivered: o[message.Delivered].Get(), Deferrals: o[message.Deferred].Get(),
		Bounced: o[message.Bounced].Get() + o[message.Expired].Get(), Queue: t.Queued + t.Resolving + t.InFlight + t.Deferred, Totals: t,
		Counting: n.pager != nil && n.pager.walking.Load(),
	}
}
