package load

import (
	"cmp"
	"flag"
	"fmt"
	"strconv"
)

// BindFlags declares the options as flags of `mailrace load`; cobra takes them over with Flags().AddGoFlagSet. They are declared here, and
// not in cmd, because Args must write what they read: the scenarios start generators as child processes.
//
//	--address host:port      --connections n          --per-connection n     --messages n      --duration d
//	--rate r                 --size mix               --recipients n         --domains list|n  --sender path
//	--hello name             --lockstep               --dots                 --reconnect       --loops n
//	--timeout d              --grace d                --run id               --first n         --record file
//	--gauge file             --window n               --interval d           --tls way            --tls-version v
//	--ca file                --insecure               --user name            --password-file file  --from list
//	--hold                   --lines                  --zipf s             --chunking
func BindFlags(fs *flag.FlagSet, o *Options) {
	fs.StringVar(&o.Address, "address", cmp.Or(o.Address, "127.0.0.1:2525"), "`host:port` of the SMTP server")
	fs.IntVar(&o.Connections, "connections", cmp.Or(o.Connections, 50), "connections held open at once")
	fs.IntVar(&o.PerConnection, "per-connection", o.PerConnection, "messages sent over a connection before QUIT and the next one, 0 = unlimited")
	fs.Uint64Var(&o.Messages, "messages", o.Messages, "messages to send, 0 = unlimited")
	fs.DurationVar(&o.Duration, "duration", o.Duration, "how long to send, 0 = unlimited")
	fs.Float64Var(&o.Rate, "rate", o.Rate, "messages per second, due at fixed times whatever the server does; 0 = as fast as it replies")
	fs.Var(&o.Sizes, "size", "octets of a message, transactional (4KiB), newsletter (30KiB), marketing (100KiB) or attachments (1MiB); a `mix` such as 4KiB:70,newsletter:25,1MiB:5; or @file with a size and its weight on each line (default 10KiB)")
	fs.IntVar(&o.Recipients, "recipients", cmp.Or(o.Recipients, 1), "recipients of each message")
	fs.Var(&o.Domains, "domains", "recipient domains that take turns: a `list`, or a number of made-up ones (default one)")
	fs.Float64Var(&o.Zipf, "zipf", o.Zipf, "domains by popularity, not in turn: the n-th gets a share that goes with 1/n to this `power`, such as 1")
	fs.StringVar(&o.Sender, "sender", cmp.Or(o.Sender, "sender@bench.mailrace"), "reverse-`path`, \"\" for the null one")
	fs.StringVar(&o.Hello, "hello", cmp.Or(o.Hello, "load.bench.mailrace"), "`name` given with EHLO")
	fs.BoolVar(&o.LockStep, "lockstep", o.LockStep, "one command at a time although the server offers PIPELINING")
	fs.BoolVar(&o.Chunking, "chunking", o.Chunking, "send content by BDAT")
	fs.BoolVar(&o.Dots, "dots", o.Dots, "let lines of the body begin with dots")
	fs.BoolVar(&o.Reconnect, "reconnect", o.Reconnect, "open a lost connection again")
	fs.IntVar(&o.Loops, "loops", cmp.Or(o.Loops, 1), "event loops")
	fs.DurationVar(&o.Timeout, "timeout", cmp.Or(o.Timeout, defaultTimeout), "how long to wait for each reply")
	fs.DurationVar(&o.Grace, "grace", cmp.Or(o.Grace, defaultGrace), "how long transactions under way may take to end")
	fs.StringVar(&o.TLS, "tls", o.TLS, "secure the connections: \"starttls\" or \"implicit\" (default in clear)")
	fs.StringVar(&o.TLSVersion, "tls-version", o.TLSVersion, "1.2 or 1.3 and no other (default the best that the server has)")
	fs.StringVar(&o.CA, "ca", o.CA, "PEM `file`: who issued the server's certificate (default those that the system trusts)")
	fs.BoolVar(&o.Insecure, "insecure", o.Insecure, "take any certificate")
	fs.StringVar(&o.User, "user", o.User, "log in as this user, by AUTH PLAIN")
	fs.StringVar(&o.PasswordFile, "password-file", o.PasswordFile, "`file` with the user's password in its first line")
	fs.Var(&o.From, "from", "source addresses that the connections take in turn: a `list` (default the system's choice)")
	fs.BoolVar(&o.Hold, "hold", o.Hold, "send nothing: say EHLO on each connection and hold it until the end")
	fs.TextVar(&o.Run, "run", o.Run, "`id` of the run in every Message-ID, 16 hexadecimal digits (default random)")
	fs.Uint64Var(&o.First, "first", o.First, "`number` of the first message")
	fs.StringVar(&o.Gauge, "gauge", o.Gauge, "`file` in which a sink counts what arrives")
	fs.Uint64Var(&o.Window, "window", o.Window, "most messages under way by the gauge (default 10000)")
	fs.StringVar(&o.Record, "record", o.Record, "`file` that the acknowledged messages are recorded in")
	fs.DurationVar(&o.Interval, "interval", cmp.Or(o.Interval, defaultInterval), "time between progress reports")
	fs.BoolVar(&o.Lines, "lines", o.Lines, "with --json: print the progress as a line each interval, too")
}

// Args writes the options as BindFlags reads them.
func (o Options) Args() []string {
	args := []string{"--sender=" + o.Sender}
	add := func(set bool, name, value string) {
		if set {
			args = append(args, "--"+name+"="+value)
		}
	}
	add(o.Address != "", "address", o.Address)
	add(o.Connections != 0, "connections", strconv.Itoa(o.Connections))
	add(o.PerConnection != 0, "per-connection", strconv.Itoa(o.PerConnection))
	add(o.Messages != 0, "messages", strconv.FormatUint(o.Messages, 10))
	add(o.Duration != 0, "duration", o.Duration.String())
	add(o.Rate != 0, "rate", fmt.Sprint(o.Rate))
	add(len(o.Sizes) > 0, "size", o.Sizes.String())
	add(o.Recipients != 0, "recipients", strconv.Itoa(o.Recipients))
	add(len(o.Domains) > 0, "domains", o.Domains.String())
	add(o.Zipf != 0, "zipf", strconv.FormatFloat(o.Zipf, 'g', -1, 64))
	add(o.Chunking, "chunking", "true")
	add(o.Hello != "", "hello", o.Hello)
	add(o.LockStep, "lockstep", "true")
	add(o.Dots, "dots", "true")
	add(o.Reconnect, "reconnect", "true")
	add(o.Loops != 0, "loops", strconv.Itoa(o.Loops))
	add(o.Timeout != 0, "timeout", o.Timeout.String())
	add(o.Grace != 0, "grace", o.Grace.String())
	add(o.TLS != "", "tls", o.TLS)
	add(o.TLSVersion != "", "tls-version", o.TLSVersion)
	add(o.CA != "", "ca", o.CA)
	add(o.Insecure, "insecure", "true")
	add(o.User != "", "user", o.User)
	add(o.PasswordFile != "", "password-file", o.PasswordFile)
	add(len(o.From) > 0, "from", o.From.String())
	add(o.Hold, "hold", "true")
	add(o.Run != 0, "run", o.Run.String())
	add(o.First != 0, "first", strconv.FormatUint(o.First, 10))
	add(o.Gauge != "", "gauge", o.Gauge)
	add(o.Window != 0, "window", strconv.FormatUint(o.Window, 10))
	add(o.Record != "", "record", o.Record)
	add(o.Interval != 0, "interval", o.Interval.String())
	add(o.Lines, "lines", "true")
	return args
}
