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
	"mailrace/bench/peers"
)

// PeerOptions say how other MTAs are measured beside ours. The zero value of each field means the default that its comment names.
type PeerOptions struct {
	Program     []string      // command of the mailrace binary. Required
	Install     bool          // install peers that are missing, for this user alone
	Only        Names         // peers; default all
	Scenarios   Names         // accept, relay or both; default both
	Rounds      int           // each measures every MTA once; default 5
	Duration    time.Duration // of the load in a round; default 5 s
	Warmup      time.Duration // of load before it that is not measured; default 1 s
	Connections int           // of the generator; default 20
	Sizes       load.Sizes    // default 10 KiB
	Recipients  int           // of each message; default 1
	Backlog     int           // messages that an MTA has accepted and not relayed, beyond which the generator waits; default 500
	Drain       time.Duration // how long the sink may see nothing new before what is missing counts as lost; default 30 s
	Dir         string        // where queues are made, and removed again; default the current directory

	// Any MTA, measured instead: it runs already, accepts mail at Address, and for relay sends it to SinkAddress.
	Address     string
	PIDs        Processes // processes whose CPU time is its, with all that descend from them; none = CPU time is not measured
	SinkAddress string    // where the sink listens; default a free port

	Progress io.Writer // a line for each measure; nil = silent
}

const (
	defaultPeerConnections = 20
	defaultPeerBacklog     = 500
	defaultPeerDrain       = 30 * time.Second
)

// Names are names, as a list with commas.
type Names []string

// String prints the list.
func (n *Names) String() string { return strings.Join(*n, ",") }

// Set reads a list.
func (n *Names) Set(text string) error {
	*n = nil
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name == "" {
			return errors.New("a name is empty")
		}
		*n = append(*n, name)
	}
	return nil
}

// Processes are process ids, as a list with commas.
type Processes []int

// String prints the list.
func (l *Processes) String() string { return Numbers(*l).String() }

// Set reads a list.
func (l *Processes) Set(text string) error {
	*l = nil
	for part := range strings.SplitSeq(text, ",") {
		pid, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || pid < 1 {
			return fmt.Errorf("%q is no process id", part)
		}
		*l = append(*l, pid)
	}
	return nil
}

// BindFlags declares the options as flags of `mailrace bench peer`.
//
//	--only names     --scenarios names --rounds n      --duration d   --warmup d      --connections n  --size mix
//	--recipients n   --backlog n       --drain d       --dir path     --address a     --pid n,n        --sink-address a
//	--install
func (o *PeerOptions) BindFlags(fs *flag.FlagSet) {
	fs.Var(&o.Only, "only", "peers that are measured, of "+strings.Join(peers.Names(), ",")+" (default all)")
	fs.BoolVar(&o.Install, "install", o.Install, "install peers that are missing first, for this user alone, in the temporary directory")
	fs.Var(&o.Scenarios, "scenarios", "what is measured, of accept,relay (default both)")
	fs.IntVar(&o.Rounds, "rounds", cmp.Or(o.Rounds, defaultRounds), "rounds; each measures every MTA")
	fs.DurationVar(&o.Duration, "duration", cmp.Or(o.Duration, defaultDuration), "load in a round")
	fs.DurationVar(&o.Warmup, "warmup", cmp.Or(o.Warmup, defaultWarmup), "load before it that is not measured")
	fs.IntVar(&o.Connections, "connections", cmp.Or(o.Connections, defaultPeerConnections), "connections of the generator")
	fs.Var(&o.Sizes, "size", "octets of a message, or a `mix` such as 4KiB:70,30KiB:25 (default 10KiB)")
	fs.IntVar(&o.Recipients, "recipients", cmp.Or(o.Recipients, 1), "recipients of each message")
	fs.IntVar(&o.Backlog, "backlog", cmp.Or(o.Backlog, defaultPeerBacklog), "relay: messages accepted and not relayed beyond which the generator waits")
	fs.DurationVar(&o.Drain, "drain", cmp.Or(o.Drain, defaultPeerDrain), "how long nothing may arrive before what is missing counts as lost")
	fs.StringVar(&o.Dir, "dir", cmp.Or(o.Dir, "."), "`directory` that queues are made in, and removed from")
	fs.StringVar(&o.Address, "address", o.Address, "measure any MTA that runs already, at this `host:port`, instead")
	fs.Var(&o.PIDs, "pid", "its `processes`, whose descendants count, too")
	fs.StringVar(&o.SinkAddress, "sink-address", o.SinkAddress, "where the sink listens, that it relays to (default a free port)")
}

// withDefaults checks the options and fills in what is not set.
func (o PeerOptions) withDefaults() (PeerOptions, error) {
	o.Rounds = cmp.Or(o.Rounds, defaultRounds)
	o.Duration = cmp.Or(o.Duration, defaultDuration)
	o.Warmup = cmp.Or(o.Warmup, defaultWarmup)
	o.Connections = cmp.Or(o.Connections, defaultPeerConnections)
	o.Recipients = cmp.Or(o.Recipients, 1)
	o.Backlog = cmp.Or(o.Backlog, defaultPeerBacklog)
	o.Drain = cmp.Or(o.Drain, defaultPeerDrain)
	o.Dir = cmp.Or(o.Dir, ".")
	if len(o.Sizes) == 0 {
		o.Sizes = load.Sizes{{Octets: 10 << 10, Weight: 1}}
	}
	if len(o.Scenarios) == 0 {
		o.Scenarios = Names{string(Accept), string(Relay)}
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if len(o.Program) == 0 {
		return o, errors.New("the command of the mailrace binary is missing")
	}
	return o, o.fault()
}

func (o *PeerOptions) fault() error {
	for i, name := range o.Scenarios {
		if (name != string(Accept) && name != string(Relay)) || slices.Contains(o.Scenarios[:i], name) {
			return fmt.Errorf("scenarios: %q: want accept, relay or both", name)
		}
	}
	for i, name := range o.Only {
		if slices.Contains(o.Only[:i], name) {
			return fmt.Errorf("only: %q is there twice", name)
		}
	}
	switch {
	case o.Rounds < 0 || o.Duration < 0 || o.Warmup < 0 || o.Drain < 0 || o.Connections < 0 || o.Backlog < 0 || o.Recipients < 0:
		return errors.New("numbers and times must be above 0")
	case o.Address == "" && (len(o.PIDs) > 0 || o.SinkAddress != ""):
		return errors.New("processes and a sink's address are of an MTA that runs already, whose address is missing")
	case o.Address != "" && len(o.Only) > 0:
		return errors.New("either the peers that the bench runs are measured, or an MTA at an address")
	}
	return nil
}

// options are those of a scenario, whose backlog is counted in octets of messages of the mean size.
func (o *PeerOptions) options() Options {
	octets, weight := 0, 0
	for _, z := range o.Sizes {
		octets, weight = octets+z.Octets*z.Weight, weight+z.Weight
	}
	return Options{Program: o.Program, Rounds: o.Rounds, Duration: o.Duration, Warmup: o.Warmup, Connections: o.Connections, Sizes: o.Sizes,
		Recipients: o.Recipients, Backlog: o.Backlog * octets / max(1, weight), Drain: o.Drain, Dir: o.Dir, SinkAddress: cmp.Or(o.SinkAddress, defaultSinkAddress),
		Progress: o.Progress}
}
