package scenario

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"mailrace/bench/load"
)

// BulkOptions say how much mail there is, and for whom. The zero value of each field means the default that its comment names.
type BulkOptions struct {
	Program     []string      // command of the mailrace binary. Required
	Rounds      int           // each sends the mail to sites that do well, and to those of the mix; default 5
	Messages    int           // sent in each leg; default 50,000
	Domains     int           // of the recipients; default 20,000
	Sites       int           // that the domains lead to, a power of two; default 256
	Zipf        float64       // power of their popularity; default 1
	Recipients  int           // of each message; default 1
	Sizes       load.Sizes    // default transactional:70,newsletter:30
	Retry       time.Duration // between two attempts; default 1 s
	Connections int           // of the generator; default 200
	Loops       int           // event loops of the node; 0 = its default
	Shards      int           // its spool shards; 0 = its default
	Memory      string        // its budget, as in its configuration; "" = its default
	NoSync      bool          // it does not wait for the disk
	Seed        uint64        // decides whom the sites fail
	Drain       time.Duration // how long the sink may see nothing new before what is missing counts as lost; default 30 s
	Dir         string        // where spools are made, and removed again; default the current directory
	Keep        bool          // leave configuration, logs and spools behind
	Profile     string        // directory in which profiles of the nodes are left; "" = none are taken

	Progress io.Writer // nil = silent
}

const (
	bulkCount   = 50_000
	bulkDomains = 20_000
	bulkDrain   = 30 * time.Second
	bulkRetry   = time.Second
)

// BindFlags declares the options as flags of `mailrace bench bulk`.
//
//	--rounds n   --messages n     --domains n  --sites n   --zipf s     --recipients n  --size mix  --retry d
//	--connections n  --loops n    --shards n   --memory size  --no-sync  --seed n        --drain d
//	--dir path   --keep  --profile dir
func (o *BulkOptions) BindFlags(fs *flag.FlagSet) {
	fs.IntVar(&o.Rounds, "rounds", cmp.Or(o.Rounds, defaultRounds), "rounds; each sends the mail to sites that do well, and to those of the mix")
	fs.IntVar(&o.Messages, "messages", cmp.Or(o.Messages, bulkCount), "messages sent each time")
	fs.IntVar(&o.Domains, "domains", cmp.Or(o.Domains, bulkDomains), "domains of the recipients")
	fs.IntVar(&o.Sites, "sites", cmp.Or(o.Sites, bulkSites), "sites that the domains lead to, a power of two")
	fs.Float64Var(&o.Zipf, "zipf", cmp.Or(o.Zipf, 1), "the n-th domain gets a share that goes with 1/n to this `power`")
	fs.IntVar(&o.Recipients, "recipients", cmp.Or(o.Recipients, 1), "recipients of each message")
	fs.Var(&o.Sizes, "size", "octets of a message, or a `mix` (default transactional:70,newsletter:30)")
	fs.DurationVar(&o.Retry, "retry", cmp.Or(o.Retry, bulkRetry), "between two attempts of the node")
	fs.IntVar(&o.Connections, "connections", cmp.Or(o.Connections, defaultConnections), "connections of the generator")
	bindNode(fs, &o.Loops, &o.Shards, &o.Memory, &o.NoSync)
	fs.Uint64Var(&o.Seed, "seed", o.Seed, "decides whom the sites fail")
	fs.DurationVar(&o.Drain, "drain", cmp.Or(o.Drain, bulkDrain), "how long nothing may arrive before what is missing counts as lost")
	bindPlace(fs, &o.Dir, &o.Keep, &o.Profile)
}

func (o BulkOptions) withDefaults() (BulkOptions, error) {
	o.Rounds, o.Messages, o.Domains, o.Sites = cmp.Or(o.Rounds, defaultRounds), cmp.Or(o.Messages, bulkCount), cmp.Or(o.Domains, bulkDomains), cmp.Or(o.Sites, bulkSites)
	o.Zipf, o.Retry, o.Drain = cmp.Or(o.Zipf, 1), cmp.Or(o.Retry, bulkRetry), cmp.Or(o.Drain, bulkDrain)
	if len(o.Sizes) == 0 {
		o.Sizes = load.Sizes{{Octets: 4 << 10, Weight: 70}, {Octets: 30 << 10, Weight: 30}}
	}
	rest, err := o.options().withDefaults()
	if err != nil {
		return o, err
	}
	o.Connections, o.Recipients, o.Dir, o.Progress = rest.Connections, rest.Recipients, rest.Dir, rest.Progress
	switch {
	case o.Messages < 1 || o.Messages > depthMost:
		return o, fmt.Errorf("messages: want 1..%d", depthMost)
	case o.Domains < 1 || o.Domains > sitesMost:
		return o, fmt.Errorf("domains: want 1..%d", sitesMost)
	case o.Sites < bulkSitesLeast || o.Sites > bulkSitesMost || o.Sites != 1<<log2(o.Sites):
		return o, fmt.Errorf("sites: want a power of two, %d..%d", bulkSitesLeast, bulkSitesMost)
	case !(o.Zipf > 0 && o.Zipf <= 10):
		return o, errors.New("zipf: want a power above 0, up to 10")
	}
	return o, nil
}

const (
	bulkSitesLeast = 32   // so that each kind has one
	bulkSitesMost  = 4096 // each has a table in the node's configuration
)

// options are those of the node.
func (o *BulkOptions) options() Options {
	return Options{Program: o.Program, Rounds: o.Rounds, Connections: o.Connections, Sizes: o.Sizes, Recipients: o.Recipients, Loops: o.Loops, Shards: o.Shards,
		Memory: o.Memory, NoSync: o.NoSync, Drain: o.Drain, Dir: o.Dir, Profile: o.Profile, Progress: o.Progress}
}
