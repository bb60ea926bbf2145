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

// Kind is what is measured.
type Kind string

const (
	// Accept: mail comes in and is discarded once it is durable.
	Accept Kind = "accept"
	// Relay: mail comes in, and goes out to a sink.
	Relay Kind = "relay"
	// Submission: as Accept, and under TLS at a submission listener, from a user who has logged in, beside the same in clear.
	Submission Kind = "submission"
)

// Options say how a scenario is run. The zero value of each field means the default that its comment names.
type Options struct {
	Program     []string      // command of the mailrace binary; serve, load and sink and their flags are appended. Required
	Rounds      int           // each measures every target once; default 5
	Duration    time.Duration // of the load in a round; default 5 s
	Warmup      time.Duration // of load before it that is not measured; default 1 s
	Connections int           // of the generator; default 200
	LockStep    bool          // the generator sends one command at a time
	Sizes       load.Sizes    // default 10 KiB
	Recipients  int           // of each message; default 1
	Loops       int           // event loops of the MTA; 0 = its default
	Shards      int           // spool shards of the MTA; 0 = its default
	Egress      int           // most connections of the MTA to the sink; 0 = its default
	Memory      string        // budget of the MTA, as in its configuration; "" = its default
	NoSync      bool          // the MTA does not wait for the disk
	Events      bool          // the MTA writes its event log
	Dir         string        // where the spool is made, and removed again; default the current directory
	Drain       time.Duration // how long the sink may see nothing new before what is missing counts as lost; default 10 s
	Backlog     int           // Relay: octets of content that the MTA has accepted and not relayed, beyond which the generator waits; default 64 MiB, -1 = no limit
	NoVerify    bool          // the sink trusts the octets
	TLS         bool          // measure the MTA under TLS 1.3 as well, by STARTTLS: Accept: over the same long-lived connections; Relay: delivering
	Auth        bool          // Accept: under TLS at a submission listener, logged in with AUTH PLAIN. Not for another MTA
	MX          bool          // Relay: the MTA finds the way by DNS, with MTA-STS, DANE and policies, and the ceiling does not
	Domains     int           // with MX: of the recipients, all with the same hosts; default 1,000
	Keep        bool          // leave configuration, logs and spool behind
	Profile     string        // directory in which profiles of the nodes are left; "" = none are taken

	// Another MTA, measured in place of ours: it runs already, accepts mail at Address, and for Relay sends it to SinkAddress.
	Address     string
	PID         int    // its main process; 0 = CPU is not measured
	Metrics     string // URL of its metrics; "" = syncs are not measured
	SinkAddress string // where the sink listens; default a free port

	Progress io.Writer // a line for each round; nil = silent
}

const (
	defaultRounds      = 5
	defaultDuration    = 5 * time.Second
	defaultWarmup      = time.Second
	defaultConnections = 200
	defaultDrain       = 10 * time.Second
	defaultBacklog     = 64 << 20

	defaultDomains     = 1000
	domainsMost        = 2000 // that a command line has room for
	defaultSinkAddress = "127.0.0.1:0"
)

// BindFlags declares the options as flags of `mailrace bench accept`, `relay` and `submission`; cobra takes them over with
// Flags().AddGoFlagSet. The command line adds --json.
//
//	--rounds n       --duration d     --warmup d       --connections n  --lockstep       --size mix     --recipients n
//	--loops n        --shards n       --egress n       --memory size    --no-sync        --events       --dir path
//	--drain d        --backlog octets --no-verify      --keep           --address a      --pid n          --metrics url
//	--sink-address a --tls           --auth          --mx             --domains n      --profile dir
func BindFlags(fs *flag.FlagSet, o *Options) {
	fs.IntVar(&o.Rounds, "rounds", cmp.Or(o.Rounds, defaultRounds), "rounds; each measures the null ceiling and the MTA")
	fs.DurationVar(&o.Duration, "duration", cmp.Or(o.Duration, defaultDuration), "load in a round")
	fs.DurationVar(&o.Warmup, "warmup", cmp.Or(o.Warmup, defaultWarmup), "load before it that is not measured")
	fs.IntVar(&o.Connections, "connections", cmp.Or(o.Connections, defaultConnections), "connections of the generator")
	fs.BoolVar(&o.LockStep, "lockstep", o.LockStep, "the generator sends one command at a time")
	fs.Var(&o.Sizes, "size", "octets of a message, or a `mix` such as 4KiB:70,30KiB:25 (default 10KiB)")
	fs.IntVar(&o.Recipients, "recipients", cmp.Or(o.Recipients, 1), "recipients of each message")
	fs.IntVar(&o.Loops, "loops", o.Loops, "event loops of the MTA, 0 = its default")
	fs.IntVar(&o.Shards, "shards", o.Shards, "spool shards of the MTA, 0 = its default")
	fs.IntVar(&o.Egress, "egress", o.Egress, "most connections of the MTA to the sink, 0 = its default")
	fs.StringVar(&o.Memory, "memory", o.Memory, "memory budget of the MTA such as 1GiB, empty = its default")
	fs.BoolVar(&o.NoSync, "no-sync", o.NoSync, "the MTA does not wait for the disk")
	fs.BoolVar(&o.Events, "events", o.Events, "the MTA writes its event log")
	bindPlace(fs, &o.Dir, &o.Keep, &o.Profile)
	fs.DurationVar(&o.Drain, "drain", cmp.Or(o.Drain, defaultDrain), "how long nothing may arrive before what is missing counts as lost")
	fs.IntVar(&o.Backlog, "backlog", cmp.Or(o.Backlog, defaultBacklog), "relay: octets accepted and not relayed beyond which the generator waits, -1 = no limit")
	fs.BoolVar(&o.NoVerify, "no-verify", o.NoVerify, "the sink trusts the octets of messages")
	fs.StringVar(&o.Address, "address", o.Address, "measure another MTA that runs already, at this `host:port`")
	fs.IntVar(&o.PID, "pid", o.PID, "its main process")
	fs.StringVar(&o.Metrics, "metrics", o.Metrics, "`URL` of its metrics")
	fs.BoolVar(&o.TLS, "tls", o.TLS, "measure the MTA under TLS 1.3, too: each round, beside the same in clear; relay: delivering under TLS")
	fs.BoolVar(&o.MX, "mx", o.MX, "relay: the MTA finds the way by MX, and asks for MTA-STS and DANE, in a zone of the bench")
	fs.IntVar(&o.Domains, "domains", cmp.Or(o.Domains, defaultDomains), "with --mx: domains of the recipients")
	fs.BoolVar(&o.Auth, "auth", o.Auth, "accept, with --tls: at a submission listener, logged in with AUTH PLAIN")
	fs.StringVar(&o.SinkAddress, "sink-address", o.SinkAddress, "where the sink listens (default a free port)")
}

// bindSome declares some of the flags that BindFlags does.
func bindSome(fs *flag.FlagSet, o *Options, names ...string) {
	all := flag.NewFlagSet("", flag.ContinueOnError)
	BindFlags(all, o)
	for _, name := range names {
		f := all.Lookup(name)
		fs.Var(f.Value, f.Name, f.Usage)
		fs.Lookup(name).DefValue = f.DefValue
	}
}

// withDefaults checks the options and fills in what is not set.
func (o Options) withDefaults() (Options, error) {
	o.Rounds = cmp.Or(o.Rounds, defaultRounds)
	o.Duration = cmp.Or(o.Duration, defaultDuration)
	o.Warmup = cmp.Or(o.Warmup, defaultWarmup)
	o.Connections = cmp.Or(o.Connections, defaultConnections)
	o.Recipients = cmp.Or(o.Recipients, 1)
	o.Drain = cmp.Or(o.Drain, defaultDrain)
	o.Backlog = cmp.Or(o.Backlog, defaultBacklog)
	o.SinkAddress = cmp.Or(o.SinkAddress, defaultSinkAddress)
	o.Domains = cmp.Or(o.Domains, defaultDomains)
	if err := setPlace(o.Program, &o.Dir, &o.Sizes, 10<<10, &o.Progress); err != nil {
		return o, err
	}
	switch {
	case o.Rounds < 0 || o.Duration < 0 || o.Warmup < 0 || o.Drain < 0 || o.Connections < 0:
		return o, errors.New("rounds, times and connections must be above 0")
	case o.Auth && (!o.TLS || o.Address != ""):
		return o, errors.New("users log in under TLS, and at our own MTA only")
	case o.Domains < 0 || o.Domains > domainsMost:
		return o, fmt.Errorf("domains: want 1 to %d", domainsMost)
	case o.Address == "" && (o.PID != 0 || o.Metrics != ""):
		return o, fmt.Errorf("a process id and metrics are of another MTA, whose address is missing")
	}
	return o, nil
}

// suit checks what depends on the scenario.
func (o *Options) suit(kind Kind) error {
	switch {
	case kind != Relay && o.MX:
		return errors.New("what is accepted goes nowhere: MX is for relaying")
	case kind == Relay && o.Auth:
		return errors.New("users log in where mail is accepted only")
	case kind == Relay && o.Address != "" && (o.TLS || o.MX):
		return errors.New("how another MTA finds its way and goes under TLS is for its own configuration to say")
	}
	return nil
}
