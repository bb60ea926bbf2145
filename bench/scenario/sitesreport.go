package scenario

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"mailrace/bench/console"
	"mailrace/bench/ledger"
	"mailrace/bench/load"
	"mailrace/bench/machine"
	"mailrace/bench/result"
)

// sitesMost is how many sites the zone has.
const sitesMost = 1_000_000

// SitesOptions say how many destinations there are. The zero value of each field means the default that its comment names.
type SitesOptions struct {
	Program     []string      // command of the mailrace binary. Required
	Connections int           // open at a time, to as many sites; default 20,000, -1 = this is not measured
	Domains     int           // with one message each; default 200,000, -1 = this is not measured
	TLS         bool          // the sinks offer STARTTLS
	Limit       int           // most bytes that an open connection may cost in the node; default 20 KiB in clear, 40 KiB under TLS
	Sizes       load.Sizes    // of messages; default 2 KiB
	Senders     int           // connections of the generator; default 100
	Drain       time.Duration // how long the sink may see nothing new before what is missing counts as lost; default 30 s
	Rest        time.Duration // for which the memory of nodes must stay what it is before it counts: they give back what they do not need; default 5 s
	Dir         string        // where the spool is made, and removed again; default the current directory
	Keep        bool          // leave configuration, logs and spool behind
	Profile     string        // directory in which profiles of the nodes are left; "" = none are taken

	Progress io.Writer // nil = silent
}

// BindFlags declares the options as flags of `mailrace bench sites`.
//
//	--connections n  --domains n  --tls  --limit octets  --size mix  --senders n
//	--drain d        --rest d     --dir path  --keep  --profile dir
func (o *SitesOptions) BindFlags(fs *flag.FlagSet) {
	fs.IntVar(&o.Connections, "connections", cmp.Or(o.Connections, 20_000), "connections open at a time, to as many sites; -1 = leave that out")
	fs.IntVar(&o.Domains, "domains", cmp.Or(o.Domains, 200_000), "domains with a message each; -1 = leave that out")
	fs.BoolVar(&o.TLS, "tls", o.TLS, "the sinks offer STARTTLS")
	fs.IntVar(&o.Limit, "limit", o.Limit, "most `octets` that an open connection may cost in the node (default 20480, with --tls 40960)")
	fs.Var(&o.Sizes, "size", "octets of a message, or a `mix` such as 4KiB:70,30KiB:25 (default 2KiB)")
	fs.IntVar(&o.Senders, "senders", cmp.Or(o.Senders, 100), "connections of the generator")
	fs.DurationVar(&o.Drain, "drain", cmp.Or(o.Drain, sitesDrain), "how long nothing may arrive before what is missing counts as lost")
	fs.DurationVar(&o.Rest, "rest", cmp.Or(o.Rest, sitesRest), "how long the memory of nodes must stay what it is before it counts")
	bindPlace(fs, &o.Dir, &o.Keep, &o.Profile)
}

const (
	sitesDrain = 30 * time.Second
	sitesRest  = 5 * time.Second
)

func (o SitesOptions) withDefaults() (SitesOptions, error) {
	o.Connections = cmp.Or(o.Connections, 20_000)
	o.Domains = cmp.Or(o.Domains, 200_000)
	o.Senders = cmp.Or(o.Senders, 100)
	o.Drain = cmp.Or(o.Drain, sitesDrain)
	o.Rest = cmp.Or(o.Rest, sitesRest)
	if o.Limit == 0 {
		if o.Limit = 20 << 10; o.TLS {
			o.Limit = 40 << 10
		}
	}
	if err := setPlace(o.Program, &o.Dir, &o.Sizes, 2<<10, &o.Progress); err != nil {
		return o, err
	}
	switch {
	case o.Connections > sitesMost || o.Domains > sitesMost:
		return o, fmt.Errorf("there are %d sites at most", sitesMost)
	case o.Senders < 0 || o.Drain < 0 || o.Rest < 0 || o.Limit < 0:
		return o, errors.New("senders, times and the limit must be above 0")
	}
	return o, nil
}

// OpenSites are connections to many sites, open at a time.
type OpenSites struct {
	Wanted  int            `json:"connections"`
	Open    int            `json:"open"`    // of them, in the end
	Secured int            `json:"secured"` // connections that went under TLS
	Nodes   int            `json:"nodes"`   // that they are spread over, because of SitesReport.Files
	Before  int64          `json:"rss_before_bytes"`
	Up      int64          `json:"rss_up_bytes"`    // when the last was up, garbage included
	After   int64          `json:"rss_after_bytes"` // at rest
	Each    int64          `json:"bytes_per_connection"`
	Limit   int            `json:"limit_bytes"`
	Elapsed time.Duration  `json:"elapsed_ns"` // until they were up, one node after the other
	Account ledger.Account `json:"account"`
}

// ManyDomains is a queue of one message for each of many domains.
type ManyDomains struct {
	Domains     int            `json:"domains"`
	Most        int            `json:"most_connections"` // that the node may have open
	Accepted    float64        `json:"accepted_per_second"`
	Rate        float64        `json:"delivered_per_second"` // from the first message of the generator to the last at the sink
	Elapsed     time.Duration  `json:"elapsed_ns"`
	CPU         float64        `json:"mta_cpu_us"` // microseconds of the node per message
	Questions   float64        `json:"dns_queries_per_domain"`
	Connections uint64         `json:"connections"` // that the node opened
	Secured     uint64         `json:"secured"`     // of them, under TLS
	Deferred    int            `json:"deferred"`    // attempts that did not deliver
	Before      int64          `json:"rss_before_bytes"`
	Peak        int64          `json:"rss_peak_bytes"`
	After       int64          `json:"rss_after_bytes"`
	Each        int64          `json:"bytes_per_domain"` // of the peak, over what there was before
	Account     ledger.Account `json:"account"`

	Samples []Sample        `json:"samples,omitempty"`
	Curve   []time.Duration `json:"curve_ns,omitempty"` // of the replies to the generator, at latency.Shares
}

// SitesReport is a finished measurement of many destinations.
type SitesReport struct {
	TLS   bool         `json:"tls"`
	Sizes string       `json:"sizes"`
	Files int          `json:"files"` // that a process may open on this machine
	Open  *OpenSites   `json:"open_sites,omitempty"`
	Queue *ManyDomains `json:"many_domains,omitempty"`

	Machine machine.Report `json:"machine"`
}

// What a measurement of many destinations ends with when it shows what must not be.
var (
	ErrSitesCost = errors.New("connections cost too much")
	ErrSitesOpen = errors.New("not all connections are open")
	ErrSitesTLS  = errors.New("not all connections are under TLS")
)

// fault is what the report shows that must not be. Times are not judged.
func (r *SitesReport) fault() error {
	var errs []error
	if o := r.Open; o != nil {
		if o.Each > int64(o.Limit) {
			errs = append(errs, fmt.Errorf("%w: %d bytes each, want at most %d", ErrSitesCost, o.Each, o.Limit))
		}
		if o.Open != o.Wanted {
			errs = append(errs, fmt.Errorf("%w: %d of %d", ErrSitesOpen, o.Open, o.Wanted))
		}
		if r.TLS && o.Secured < o.Wanted {
			errs = append(errs, fmt.Errorf("%w: %d of %d", ErrSitesTLS, o.Secured, o.Wanted))
		}
		if !o.Account.Clean() {
			errs = append(errs, ErrAccounting)
		}
	}
	if q := r.Queue; q != nil {
		if r.TLS && q.Secured < uint64(q.Domains) {
			errs = append(errs, fmt.Errorf("%w: %d for %d domains", ErrSitesTLS, q.Secured, q.Domains))
		}
		if !q.Account.Clean() {
			errs = append(errs, ErrAccounting)
		}
	}
	return errors.Join(errs...)
}

// Result is the report for people.
func (r *SitesReport) Result() result.Result {
	all := result.Result{Name: "sites", Machine: &r.Machine}
	kind := "in clear"
	if r.TLS {
		kind = "under TLS"
	}
	mib := func(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }
	account := func(a ledger.Account) string { return strings.TrimPrefix(accounting(a, true), "accounting: ") }
	if o := r.Open; o != nil {
		text := fmt.Sprintf("sites: %s connections %s, open at a time to as many sites, held by %d nodes (a process may open %s files here)",
			console.Count(uint64(o.Open)), kind, o.Nodes, console.Count(uint64(r.Files)))
		rows := [][]string{
			{"RSS of the nodes before", mib(o.Before)}, {"when all were up", mib(o.Up)}, {"with all of them at rest", mib(o.After)},
			{"bytes for each connection", fmt.Sprintf("%d (limit %d)", o.Each, o.Limit)},
			{"until they were up", console.Duration(o.Elapsed)},
			{"accounting", account(o.Account)},
		}
		all.Parts = append(all.Parts, result.Part{Text: text, Header: []string{"", ""}, Rows: rows})
	}
	if q := r.Queue; q != nil {
		text := fmt.Sprintf("domains: %s with a message of %s each, a site each, %s; one node, %s connections at most", console.Count(uint64(q.Domains)),
			r.Sizes, kind, console.Count(uint64(q.Most)))
		rows := [][]string{
			{"accepted, messages/s", fmt.Sprintf("%.0f", q.Accepted)},
			{"all delivered after", console.Duration(q.Elapsed)},
			{"delivered, messages/s", fmt.Sprintf("%.0f", q.Rate)},
			{"MTA µs per message", micros(q.CPU)},
			{"DNS queries per domain", fmt.Sprintf("%.1f", q.Questions)},
			{"connections", console.Count(q.Connections)},
			{"attempts that were deferred", console.Count(uint64(q.Deferred))},
			{"RSS before, peak, after", fmt.Sprintf("%s, %s, %s", mib(q.Before), mib(q.Peak), mib(q.After))},
			{"bytes per domain at the peak", fmt.Sprint(q.Each)},
			{"accounting", account(q.Account)},
		}
		all.Parts = append(all.Parts, result.Part{Text: text, Header: []string{"", ""}, Rows: rows})
		all.Charts = charts([]Round{{"domains": Measure{Samples: q.Samples, Curve: q.Curve}}}, []string{"domains"})
	}
	return all
}

// SitesCommand is `mailrace bench sites`: it measures and presents the report.
func SitesCommand(ctx context.Context, o SitesOptions, out console.Output) error {
	o.Progress = out.Stderr
	r, err := RunSites(ctx, o)
	if err != nil {
		return err
	}
	return present(out, &r)
}
