package sink

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// Options say where the sink listens and how it behaves. The zero value of each field means the default that its comment names.
type Options struct {
	Address    string        // host:port to listen on; port 0 picks a free one
	Hostname   string        // in the banner; default "sink.bench.mailrace"
	Loops      int           // event loops; default 1
	Delay      Delays        // before each reply
	Tempfail   Shares        // answered 4xx
	Permfail   Shares        // answered 5xx
	Drop       Shares        // connection closed instead of an answer
	Script     string        // file that says how destinations behave, see Script; "" = all alike, as the options before
	DNS        string        // host:port where DNS is answered: names lead to the sites of the script, and others to Sites; "" = nowhere
	Sites      string        // addresses or ranges, parted by commas; with DNS. Default 127.1.0.0/24
	Seed       uint64        // decides which ones; the n-th command of a verb meets the same fate with the same seed
	NoVerify   bool          // trust the octets of numbered messages: no checksum
	NoCount    bool          // do not look who a message is: no duplicates, no verification; for measuring ceilings only
	NoChunking bool          // do not offer CHUNKING
	Store      string        // directory that every accepted message is written to, before its reply; "" = none. Blocks the loop: for tests
	Record     string        // file that the tallies of numbered messages are saved to at the end; "" = none
	Gauge      string        // file in which the recipients that arrive are counted, for a generator; "" = none
	MaxSize    int64         // octets of content; default 1 GiB
	Timeout    time.Duration // for the next octets of a client; default 10 min
	TLS        string        // "starttls": offer STARTTLS; "implicit": TLS from the start; "" = in clear only
	Chain      string        // PEM file of its certificate; default one that is made for the run, for Hostname, localhost and 127.0.0.1
	Key        string        // PEM file of the certificate's key

	Progress func(Report)  // called every Interval by one goroutine
	Interval time.Duration // default 1 s
}

const (
	defaultHostname = "sink.bench.mailrace"
	defaultMaxSize  = 1 << 30
	defaultSites    = "127.1.0.0/24"
	defaultTimeout  = 10 * time.Minute
	defaultInterval = time.Second
)

// BindFlags declares the options as flags of `mailrace sink`; cobra takes them over with Flags().AddGoFlagSet. They are declared here, and
// not in cmd, because Args must write what they read: the scenarios start sinks as child processes.
//
//	--address host:port  --hostname name      --loops n            --delay verb=d,…     --tempfail verb=share,…
//	--permfail …         --drop …             --seed n             --no-verify          --no-count       --no-chunking
//	--store dir          --record file        --gauge file         --max-size octets    --timeout d
//	--interval d         --tls way            --chain file         --key file           --script file    --dns host:port
//	--sites list
func BindFlags(fs *flag.FlagSet, o *Options) {
	fs.StringVar(&o.Address, "address", cmp.Or(o.Address, "127.0.0.1:2526"), "`host:port` to listen on")
	fs.StringVar(&o.Hostname, "hostname", cmp.Or(o.Hostname, defaultHostname), "`name` in the banner")
	fs.IntVar(&o.Loops, "loops", cmp.Or(o.Loops, 1), "event loops")
	fs.Var(&o.Delay, "delay", "hold replies back: `verb=time,…`, verbs connect, hello, mail, rcpt, data, dot")
	fs.Var(&o.Tempfail, "tempfail", "answer 4xx: `verb=share,…`, shares of 0 to 1")
	fs.Var(&o.Permfail, "permfail", "answer 5xx: `verb=share,…`")
	fs.Var(&o.Drop, "drop", "close the connection instead of answering: `verb=share,…`")
	fs.StringVar(&o.Script, "script", o.Script, "TOML `file` that says how destinations behave, by the address that was connected to or the domain of the recipient")
	fs.StringVar(&o.DNS, "dns", o.DNS, "answer DNS at this `host:port` (UDP): every domain has an MX host here")
	fs.StringVar(&o.Sites, "sites", o.Sites, "with --dns: addresses of the MX hosts, a `list` of ranges; --address must take connections to all of them (default "+defaultSites+")")
	fs.Uint64Var(&o.Seed, "seed", o.Seed, "decides which commands fail")
	fs.BoolVar(&o.NoVerify, "no-verify", o.NoVerify, "do not check the octets of numbered messages")
	fs.BoolVar(&o.NoCount, "no-count", o.NoCount, "do not look who a message is: neither duplicates nor verification")
	fs.BoolVar(&o.NoChunking, "no-chunking", o.NoChunking, "do not offer CHUNKING: content comes by DATA")
	fs.StringVar(&o.Store, "store", o.Store, "`directory` that every accepted message is written to")
	fs.StringVar(&o.Record, "record", o.Record, "`file` that the arrived messages are recorded in")
	fs.StringVar(&o.Gauge, "gauge", o.Gauge, "`file` in which what arrives is counted, for a generator")
	fs.Int64Var(&o.MaxSize, "max-size", cmp.Or(o.MaxSize, defaultMaxSize), "most octets of a message")
	fs.DurationVar(&o.Timeout, "timeout", cmp.Or(o.Timeout, defaultTimeout), "how long a client may be silent")
	fs.StringVar(&o.TLS, "tls", o.TLS, "\"starttls\": offer STARTTLS; \"implicit\": TLS from the start (default in clear only)")
	fs.StringVar(&o.Chain, "chain", o.Chain, "PEM `file` of the certificate (default one that is made for the run)")
	fs.StringVar(&o.Key, "key", o.Key, "PEM `file` of its key")
	fs.DurationVar(&o.Interval, "interval", cmp.Or(o.Interval, defaultInterval), "time between progress reports")
}

// Args writes the options as BindFlags reads them.
func (o Options) Args() []string {
	var args []string
	add := func(set bool, name, value string) {
		if set {
			args = append(args, "--"+name+"="+value)
		}
	}
	add(o.Address != "", "address", o.Address)
	add(o.Hostname != "", "hostname", o.Hostname)
	add(o.Loops != 0, "loops", strconv.Itoa(o.Loops))
	add(o.Delay != Delays{}, "delay", o.Delay.String())
	add(o.Tempfail != Shares{}, "tempfail", o.Tempfail.String())
	add(o.Permfail != Shares{}, "permfail", o.Permfail.String())
	add(o.Drop != Shares{}, "drop", o.Drop.String())
	add(o.Script != "", "script", o.Script)
	add(o.DNS != "", "dns", o.DNS)
	add(o.Sites != "", "sites", o.Sites)
	add(o.Seed != 0, "seed", strconv.FormatUint(o.Seed, 10))
	add(o.NoVerify, "no-verify", "true")
	add(o.NoCount, "no-count", "true")
	add(o.NoChunking, "no-chunking", "true")
	add(o.Store != "", "store", o.Store)
	add(o.Record != "", "record", o.Record)
	add(o.Gauge != "", "gauge", o.Gauge)
	add(o.MaxSize != 0, "max-size", strconv.FormatInt(o.MaxSize, 10))
	add(o.Timeout != 0, "timeout", o.Timeout.String())
	add(o.TLS != "", "tls", o.TLS)
	add(o.Chain != "", "chain", o.Chain)
	add(o.Key != "", "key", o.Key)
	add(o.Interval != 0, "interval", o.Interval.String())
	return args
}

// withDefaults checks the options and fills in what is not set.
func (o Options) withDefaults() (Options, error) {
	o.Hostname = cmp.Or(o.Hostname, defaultHostname)
	o.Loops = cmp.Or(o.Loops, 1)
	o.MaxSize = cmp.Or(o.MaxSize, defaultMaxSize)
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	o.Interval = cmp.Or(o.Interval, defaultInterval)
	host, _, err := net.SplitHostPort(o.Address)
	if err != nil {
		return o, fmt.Errorf("address: %w", err)
	}
	if o.Loops < 0 || o.MaxSize < 0 || o.Timeout < 0 || o.Interval < 0 {
		return o, errors.New("loops, sizes and times must not be negative")
	}
	if o.DNS != "" {
		o.Sites = cmp.Or(o.Sites, defaultSites)
	}
	switch {
	case o.DNS == "" && o.Sites != "":
		return o, errors.New("sites are where DNS leads to, and it is not answered")
	case o.DNS != "" && host != "" && !unspecified(host) && host != o.Sites:
		return o, fmt.Errorf("address %s: DNS leads to %s, too: listen on 0.0.0.0", o.Address, o.Sites)
	case o.TLS != "" && o.TLS != startTLS && o.TLS != implicitTLS:
		return o, fmt.Errorf("tls %q: want %s or %s", o.TLS, startTLS, implicitTLS)
	case (o.Chain == "") != (o.Key == "") || o.TLS == "" && o.Chain != "":
		return o, errors.New("a chain needs its key, the key its chain, and both TLS")
	}
	for v := range verbs {
		if sum := o.Tempfail[v] + o.Permfail[v] + o.Drop[v]; sum > 1 {
			return o, fmt.Errorf("%v: shares of tempfail, permfail and drop add up to %g, above 1", v, sum)
		}
	}
	return o, nil
}

// unspecified says that a host means all addresses.
func unspecified(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsUnspecified()
}
