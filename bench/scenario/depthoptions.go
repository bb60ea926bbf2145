package scenario

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailrace/bench/load"
)

// Depths are lengths of queues in messages, each once, the shortest first. As a flag they read "0,100000,1000000".
type Depths []int

const (
	depthMost = 100_000_000 // the longest queue that is filled

	depthRounds   = 15
	depthDuration = 2 * time.Second
	depthWarmup   = 500 * time.Millisecond
)

func (d Depths) String() string {
	parts := make([]string, len(d))
	for i, n := range d {
		parts[i] = strconv.Itoa(n)
	}
	return strings.Join(parts, ",")
}

// Set reads a list; it replaces the depths that were there.
func (d *Depths) Set(text string) error {
	var list Depths
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 0 || n > depthMost {
			return fmt.Errorf("depth %q: want a number of messages, 0..%d", part, depthMost)
		}
		list = append(list, n)
	}
	slices.Sort(list)
	*d = slices.Compact(list)
	return nil
}

// DepthOptions say how long the queues are, and what is sent beside them. The zero value of each field means the default that its comment
// names.
type DepthOptions struct {
	Program     []string      // command of the mailrace binary. Required
	Depths      Depths        // a node for each; the first is what the others are compared with; default 0, 100,000 and 1,000,000
	Held        load.Sizes    // of the messages that wait; default 2 KiB
	Slow        bool          // they wait for a host that takes connections and answers no message, and are queued; default: for one that cannot be reached, and are deferred
	Rounds      int           // each measures every node, accepting and relaying; default 15, short ones: what disturbs the machine for a while hits few pairs
	Duration    time.Duration // of each load; default 2 s
	Warmup      time.Duration // of load before it that is not measured; default 500 ms
	Connections int           // of the generator; default 200
	Sizes       load.Sizes    // of what comes and goes; default 10 KiB
	Loops       int           // event loops of the nodes; 0 = their default
	Shards      int           // spool shards of the nodes; 0 = their default
	Memory      string        // budget of each node, as in its configuration; "" = its default
	NoSync      bool          // the nodes do not wait for the disk
	Drain       time.Duration // how long the sink may see nothing new, or a queue not grow, before what is missing counts as lost; default 10 s
	Dir         string        // where spools are made, and removed again; default the current directory
	Keep        bool          // leave configuration, logs and spools behind
	Profile     string        // directory in which profiles of the nodes are left; "" = none are taken

	Progress io.Writer // nil = silent
}

// BindFlags declares the options as flags of `mailrace bench depth`.
//
//	--depth list  --held mix      --slow       --rounds n    --duration d  --warmup d  --connections n  --size mix
//	--loops n     --shards n      --memory size --no-sync    --drain d     --dir path  --keep  --profile dir
func (o *DepthOptions) BindFlags(fs *flag.FlagSet) {
	fs.Var(&o.Depths, "depth", "`list` of messages that wait in the queue of a node, one node each (default 0,100000,1000000)")
	fs.Var(&o.Held, "held", "octets of those, or a `mix` such as 1KiB:70,20KiB:30 (default 2KiB)")
	fs.BoolVar(&o.Slow, "slow", o.Slow, "they are queued for a host that answers no message, in place of deferred for one that cannot be reached")
	fs.IntVar(&o.Rounds, "rounds", cmp.Or(o.Rounds, depthRounds), "rounds; each measures every node, accepting and relaying")
	fs.DurationVar(&o.Duration, "duration", cmp.Or(o.Duration, depthDuration), "of each load")
	fs.DurationVar(&o.Warmup, "warmup", cmp.Or(o.Warmup, depthWarmup), "load before it that is not measured")
	fs.IntVar(&o.Connections, "connections", cmp.Or(o.Connections, defaultConnections), "connections of the generator")
	fs.Var(&o.Sizes, "size", "octets of a message that comes and goes, or a `mix` such as 4KiB:70,30KiB:25 (default 10KiB)")
	bindNode(fs, &o.Loops, &o.Shards, &o.Memory, &o.NoSync)
	fs.DurationVar(&o.Drain, "drain", cmp.Or(o.Drain, defaultDrain), "how long nothing may arrive before what is missing counts as lost")
	bindPlace(fs, &o.Dir, &o.Keep, &o.Profile)
}

func (o DepthOptions) withDefaults() (DepthOptions, error) {
	if len(o.Depths) == 0 {
		o.Depths = Depths{0, 100_000, 1_000_000}
	}
	if len(o.Held) == 0 {
		o.Held = load.Sizes{{Octets: 2 << 10, Weight: 1}}
	}
	o.Rounds, o.Duration, o.Warmup = cmp.Or(o.Rounds, depthRounds), cmp.Or(o.Duration, depthDuration), cmp.Or(o.Warmup, depthWarmup)
	rest, err := o.options().withDefaults()
	if err != nil {
		return o, err
	}
	o.Connections, o.Sizes, o.Drain, o.Dir, o.Progress = rest.Connections, rest.Sizes, rest.Drain, rest.Dir, rest.Progress
	if !slices.IsSorted(o.Depths) || o.Depths[0] < 0 {
		return o, errors.New("depths must not be negative, and the shortest queue comes first")
	}
	return o, nil
}

// options are those of the loads and of the nodes.
func (o *DepthOptions) options() Options {
	return Options{Program: o.Program, Rounds: o.Rounds, Duration: o.Duration, Warmup: o.Warmup, Connections: o.Connections, Sizes: o.Sizes,
		Recipients: 1, Loops: o.Loops, Shards: o.Shards, Memory: o.Memory, NoSync: o.NoSync, Drain: o.Drain, Backlog: defaultBacklog,
		Dir: o.Dir, Profile: o.Profile, Progress: o.Progress}
}
