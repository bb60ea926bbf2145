package scenario

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"mailrace/bench/certificate"
	"mailrace/bench/ledger"
	"mailrace/bench/load"
	"mailrace/bench/machine"
	"mailrace/bench/proc"
	"mailrace/bench/sink"
	"mailrace/bench/zone"
)

// sitesBench is a measurement of many destinations that runs. Each domain has a mail exchanger of its own, at an address of its own in 127.0.0.0/8, so
// that each is a site. A sink listens at all of these addresses at once.
type sitesBench struct {
	opts  SitesOptions
	began time.Time
	dir   string
	pair  certificate.Pair // of the sinks, under TLS
	chain string           // its files
	key   string
	names *zone.Server
	nodes []siteNode // that hold the connections, a share each
}

// siteNode is a node with the sink that it delivers to.
type siteNode struct {
	*target
	sink *sinkChild
	sent load.Report // what it was sent
}

// RunSites measures what many destinations cost: connections that are open to all of them at a time, and mail for more of them than that.
func RunSites(ctx context.Context, opts SitesOptions) (report SitesReport, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("bench sites: %w", err)
		}
	}()
	if opts, err = opts.withDefaults(); err != nil {
		return report, err
	}
	dir, leave, err := workDir(opts.Dir, opts.Keep, opts.Progress)
	if err != nil {
		return report, err
	}
	defer leave()
	watch := machine.Begin()
	b := &sitesBench{opts: opts, began: time.Now(), dir: dir}
	if b.names, err = zone.Serve(siteRecords); err != nil {
		return report, err
	}
	defer b.names.Close()
	if opts.TLS {
		if err := b.certify(); err != nil {
			return report, err
		}
	}
	report = SitesReport{TLS: opts.TLS, Sizes: opts.Sizes.String()}
	if report.Files, err = fileLimit(); err != nil {
		return report, err
	}
	if opts.Connections > 0 {
		if report.Open, err = b.open(ctx, report.Files); err != nil {
			return report, err
		}
	}
	if opts.Domains > 0 {
		report.Queue, err = b.drain(ctx, report.Files)
	}
	report.Machine = watch.End()
	return report, err
}

// siteSuffix is of the domains that load.MadeUpDomains makes: d0.rcpt.bench.mailrace and so on.
const siteSuffix = ".rcpt.bench.mailrace"

// siteRecords is the zone: domain d7.rcpt.bench.mailrace has the mail exchanger mx.d7.rcpt.bench.mailrace.
func siteRecords(name string) (r zone.Records, exists bool) {
	domain, isHost := strings.CutPrefix(name, "mx.")
	number, ok := strings.CutSuffix(domain, siteSuffix)
	n, err := strconv.Atoi(strings.TrimPrefix(number, "d"))
	if !ok || err != nil || n < 0 || n >= sitesMost {
		return r, false
	}
	if isHost {
		return zone.Records{Addrs: []netip.Addr{siteAddress(n)}}, true
	}
	return zone.Records{MX: []zone.MX{{Host: "mx." + name, Preference: 10}}}, true
}

// siteAddress is that of the n-th site, from 127.1.0.0 on.
func siteAddress(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(1 + n>>16), byte(n >> 8), byte(n)})
}

// certify makes a certificate for the sinks, under a name that nobody asks for: TLS is opportunistic, as it is to most of the world.
func (b *sitesBench) certify() (err error) {
	if b.pair, err = certificate.New("sink.bench.mailrace"); err != nil {
		return err
	}
	b.chain, b.key, err = b.pair.Write(b.dir)
	return err
}

// node runs a node that delivers by MX to a sink of its own. most is how many connections it may have open.
func (b *sitesBench) node(ctx context.Context, name, spool string, most int, idle time.Duration) (n siteNode, err error) {
	far := sink.Options{Address: "0.0.0.0:0"}
	if b.opts.TLS {
		far.TLS, far.Chain, far.Key = "starttls", b.chain, b.key
	}
	if n.sink, err = startSink(ctx, b.opts.Program, far); err != nil {
		return n, err
	}
	_, port, err := net.SplitHostPort(n.sink.address)
	if err != nil {
		n.stop()
		return n, err
	}
	n.target = &target{name: name}
	c := configuration{spool: spool, events: "off", route: "mx", connections: most, names: b.names.Addr(), port: port, idle: idle}
	o := Options{Program: b.opts.Program, Sizes: b.opts.Sizes, Progress: b.opts.Progress}
	if spool != nullSpool { // where connections are weighed, nothing is noted for profiles
		o.Profile = b.opts.Profile
	}
	if err = n.launch(ctx, &o, b.dir, c); err != nil {
		n.stop()
	}
	return n, err
}

func (n *siteNode) stop() {
	if n.target != nil {
		n.target.stop()
	}
	if n.sink != nil {
		n.sink.stop()
	}
}

// open has a connection to each of as many sites opened by one message for it, and measures what they cost when they are all up.
func (b *sitesBench) open(ctx context.Context, files int) (*OpenSites, error) {
	defer func() {
		for i := range b.nodes {
			b.nodes[i].stop()
		}
	}()
	count := (b.opts.Connections + perNode(files) - 1) / perNode(files)
	share := (b.opts.Connections + count - 1) / count
	for i := range count {
		// The spool keeps nothing, so that what grows is connections. Each loop has its part of the limit, and sites fall to them as they may.
		n, err := b.node(ctx, fmt.Sprintf("node%d", i+1), nullSpool, 2*share, time.Hour)
		if err != nil {
			return nil, err
		}
		b.nodes = append(b.nodes, n)
	}
	r := &OpenSites{Wanted: b.opts.Connections, Nodes: count, Limit: b.opts.Limit}
	var err error
	if r.Before, err = b.memory(); err != nil {
		return nil, err
	}
	began := time.Now()
	for i, first := 0, 0; i < count; i++ {
		n := &b.nodes[i]
		share := (b.opts.Connections - first) / (count - i)
		if n.sent, err = b.send(ctx, n, first, share, nil); err != nil {
			return nil, err
		}
		first += share
		if err := b.await(ctx, n, share); err != nil {
			return nil, err
		}
	}
	r.Elapsed = time.Since(began)
	if r.Up, err = b.memory(); err != nil {
		return nil, err
	}
	if r.After, err = settled(ctx, b.memory, b.opts.Rest); err != nil {
		return nil, err
	}
	for i := range b.nodes {
		s, _ := b.nodes[i].sink.report()
		r.Open += int(s.Open)
		r.Secured += int(s.Secured)
		r.Account = r.Account.Add(accountOf(s, b.nodes[i].sent))
	}
	r.Each = (r.After - r.Before) / int64(r.Wanted)
	fmt.Fprintf(b.opts.Progress, "%d connections to as many sites, %d bytes each in %d nodes\n", r.Open, r.Each, r.Nodes)
	return r, nil
}

// send sends a node one message for each of so many domains, from one on. rec samples meanwhile, unless it is nil.
func (b *sitesBench) send(ctx context.Context, n *siteNode, first, count int, rec *recorder) (load.Report, error) {
	// Numbers of messages go on where the last node's ended: the n-th message is for the n-th domain.
	r, err := runRecorded(ctx, b.opts.Program, load.Options{Address: n.address, Connections: min(b.opts.Senders, count), Messages: uint64(count),
		First: uint64(first), Domains: load.MadeUpDomains(first + count), Sizes: b.opts.Sizes, Sender: "sender@bench.mailrace"}, rec)
	if err == nil && r.Accepted != uint64(count) {
		err = fmt.Errorf("%d of %d messages accepted: %s", r.Accepted, count, r.Failure)
	}
	return r, err
}

// await waits until a node's sink has all messages and so many connections, or sees nothing new for the drain time.
func (b *sitesBench) await(ctx context.Context, n *siteNode, connections int) error {
	var last ledger.Totals
	var open int64
	quiet := time.NewTimer(b.opts.Drain)
	defer quiet.Stop()
	for {
		r, fresh := n.sink.report()
		now := totalsOf(r, n.sent)
		if now.Distinct >= n.sent.Recipients && int(r.Open) >= connections {
			return nil
		}
		if now != last || r.Open != open {
			last, open = now, r.Open
			quiet.Reset(b.opts.Drain)
		}
		select {
		case <-fresh:
		case <-quiet.C:
			return nil // the report shows what is missing
		case <-n.sink.exited:
			return n.sink.failure(orError(n.sink.err))
		case <-n.process.exited:
			return n.process.failure(fmt.Errorf("ended under load: %w", orError(n.process.err)))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// memory is what the nodes have resident.
func (b *sitesBench) memory() (rss int64, err error) {
	for i := range b.nodes {
		u, err := proc.Read(b.nodes[i].pid)
		if err != nil {
			return 0, b.nodes[i].process.failure(err)
		}
		rss += u.RSS
	}
	return rss, nil
}

// accountOf is what became of what was sent.
func accountOf(s sink.Report, sent load.Report) ledger.Account {
	arrived := totalsOf(s, sent)
	return ledger.Account{Acknowledged: sent.Recipients, Arrived: arrived.Distinct, Doubled: arrived.Doubled, Altered: arrived.Altered,
		Lost: sent.Recipients - min(arrived.Distinct, sent.Recipients), Unacknowledged: arrived.Distinct - min(arrived.Distinct, sent.Recipients),
		Reordered: arrived.Reordered}
}

// drain sends one node, with a spool, a message for each domain, and waits until they are all delivered.
func (b *sitesBench) drain(ctx context.Context, files int) (*ManyDomains, error) {
	n, err := b.node(ctx, "node", filepath.Join(b.dir, "spool"), perNode(files), 0)
	if err != nil {
		return nil, err
	}
	defer n.stop()
	r := &ManyDomains{Domains: b.opts.Domains, Most: perNode(files)}
	before, err := n.sample(ctx)
	if err != nil {
		return nil, err
	}
	asked := b.names.Queries()
	rec := record(ctx, n.target, n.sink, b.began, 0)
	defer rec.end()
	profiled := n.profiles.beside(ctx, "sites", queueProfile)
	if n.sent, err = b.send(ctx, &n, 0, b.opts.Domains, rec); err != nil {
		return nil, err
	}
	r.Accepted = float64(n.sent.Accepted) / n.sent.Sending.Seconds()
	if err := b.await(ctx, &n, 0); err != nil {
		return nil, err
	}
	r.Samples, r.Curve = rec.end(), n.sent.Curve
	after, err := n.sample(ctx)
	if err = errors.Join(err, profiled()); err != nil {
		return nil, err
	}
	s, _ := n.sink.report()
	r.Account = accountOf(s, n.sent)
	r.Elapsed = s.Newest.Sub(n.sent.Began)
	r.Rate = float64(r.Account.Arrived) / max(r.Elapsed.Seconds(), 1e-9)
	r.CPU = float64((after.usage.CPU - before.usage.CPU).Microseconds()) / float64(r.Domains)
	r.Before, r.Peak, r.After = before.usage.RSS, after.usage.RSSPeak, after.usage.RSS
	r.Each = (r.Peak - r.Before) / int64(r.Domains)
	r.Connections, r.Secured = s.Connections, s.Secured
	r.Questions = float64(b.names.Queries()-asked) / float64(r.Domains)
	deferred, err := scrape(ctx, n.metrics, `mailrace_router_outcomes_total{outcome="deferred"}`)
	if err != nil && !errors.Is(err, errNoMetric) {
		return nil, err
	}
	r.Deferred = int(deferred)
	return r, nil
}
