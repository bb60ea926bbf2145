package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"mailrace/bench/console"
	"mailrace/bench/dialog"
	"mailrace/bench/load"
	"mailrace/bench/scenario"
	"mailrace/bench/sink"
)

// addFlags takes over flags that a package of bench declares.
func addFlags(c *cobra.Command, bind func(*flag.FlagSet)) {
	fs := flag.NewFlagSet(c.Name(), flag.ContinueOnError)
	bind(fs)
	c.Flags().AddGoFlagSet(fs)
}

// addOutput declares --json, and returns where the command puts what it has to say.
func addOutput(c *cobra.Command, usage string) func() console.Output {
	asJSON := c.Flags().Bool("json", false, usage)
	return func() console.Output {
		return console.Output{JSON: *asJSON, Stdout: c.OutOrStdout(), Stderr: c.ErrOrStderr()}
	}
}

// addReport declares what addOutput does, and --html.
func addReport(c *cobra.Command) func() console.Output {
	out := addOutput(c, "print the report as JSON")
	page := c.Flags().String("html", "", "leave the report in this `file`, too: a page with charts that fetches nothing")
	return func() console.Output {
		o := out()
		o.HTML, o.Version, o.Command = *page, buildVersion(), "mailrace "+strings.Join(os.Args[1:], " ")
		return o
	}
}

func loadCommand() *cobra.Command {
	var o load.Options
	c := &cobra.Command{
		Use:   "load",
		Short: "Generate mail for any SMTP server, and time it",
		Long: `Generate numbered mail, as fast as the server takes it or at a fixed rate, until the count, the duration or Ctrl-C ends it.
The latency of a message runs from its envelope (with --rate: from when it was due) to the reply to its end of data. With --tls and --user the
connections begin with TLS and AUTH, and are as long-lived as without.`,
		Example: `  mailrace load --address 127.0.0.1:2525 --connections 200 --duration 10s
  mailrace load --messages 1000 --size transactional:70,newsletter:25,attachments:5 --recipients 3 --domains 50
  mailrace load --size @sizes.txt --domains 50000 --zipf 1 --chunking
  mailrace load --rate 2000 --duration 1m --json
  mailrace load --address mail.example.com:587 --tls starttls --user app --password-file app.password --messages 100`,
		Args: cobra.NoArgs,
	}
	out := addOutput(c, "print the report as JSON")
	c.RunE = func(cmd *cobra.Command, _ []string) error { return load.Command(cmd.Context(), o, out()) }
	addFlags(c, func(fs *flag.FlagSet) { load.BindFlags(fs, &o) })
	return c
}

func sinkCommand() *cobra.Command {
	var o sink.Options
	c := &cobra.Command{
		Use:   "sink",
		Short: "Receive mail and account for it",
		Long: `Receive mail from any SMTP client until Ctrl-C: count it, find duplicates by Message-ID, verify the octets of what mailrace load sent,
and delay, refuse or drop in the shares that are asked for.

A script (--script) says how destinations behave, each by itself: those at local addresses of the sink ("sites"), and those of domains of recipients:

  [[destination]]
  name = "provider"
  sites = ["127.1.0.0/28"]           # who connects there; caps are of each address
  domains = ["*.provider.example"]   # with --dns: whose MX hosts these are. Without sites: whose recipients
  connections = 5                    # most open at a time, then 421
  messages = 100                     # of a connection, then 421
  rate = "50/s"                      # messages, /s, /m or /h, then 451
  greylist = "30s"                   # 451 to the first attempt of a client, sender and recipient, and for so long
  delay = "rcpt=10ms,dot=50ms"       # these as the flags
  tempfail = "rcpt=0.05,dot=0.01"
  permfail = "rcpt=0.02"
  drop = "dot=0.001"

With --dns it is also the name server: every domain has an MX host, one of the addresses in --sites (or of the script), so that as many domains as you
like lead to hundreds of sites on this machine. Let the MTA ask that server, allow it loopback, and send to the sink's port. What each destination let in
and refused is in the report.`,
		Example: `  mailrace sink --address 127.0.0.1:2526
  mailrace sink --tempfail rcpt=0.05,dot=0.01 --permfail rcpt=0.02 --delay dot=50ms --drop data=0.001
  mailrace sink --address 0.0.0.0:2526 --dns 127.0.0.1:5353 --sites 127.1.0.0/23 --script sites.toml
  mailrace sink --tls starttls --chain fullchain.pem --key privkey.pem
  mailrace sink --json --interval 5s`,
		Args: cobra.NoArgs,
	}
	out := addOutput(c, "print a report as a line of JSON each interval and at the end")
	c.RunE = func(cmd *cobra.Command, _ []string) error { return sink.Command(cmd.Context(), o, out()) }
	addFlags(c, func(fs *flag.FlagSet) { sink.BindFlags(fs, &o) })
	return c
}

func benchCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure Mailrace beside the ceiling of this machine",
	}
	c.AddCommand(
		scenarioCommand(scenario.Accept, "Measure durable acceptance: mail is discarded once it is on stable storage"),
		scenarioCommand(scenario.Relay, "Measure relaying: mail is made durable and delivered to a sink"),
		scenarioCommand(scenario.Submission, "Measure acceptance at a submission listener: under TLS 1.3, from a user who has logged in"),
		depthCommand(),
		idleCommand(),
		wanCommand(),
		sitesCommand(),
		latencyCommand(),
		restartCommand(),
		bulkCommand(),
		deepCommand(),
		shardsCommand(),
		compareCommand(),
		peerCommand(),
		dialogsCommand(),
		allCommand(),
	)
	return c
}

func depthCommand() *cobra.Command {
	var o scenario.DepthOptions
	c := &cobra.Command{
		Use:   "depth",
		Short: "Measure what a long queue takes away from mail that comes and goes",
		Long: `Measure how fast nodes with queues of several depths accept and relay.

There is a node for each depth, all at the same time. Each is filled, over SMTP, with messages for a domain whose host cannot be reached (with
--slow: takes connections, and never answers to a message), and holds them. Then rounds are interleaved: each measures every node, accepting mail that is discarded once it is durable, and relaying it to a sink.
Printed are how the queues were filled, with the memory and the disk that they take, the rates, and their ratio to those at the shortest queue in
the same round. The exit status is 1 if mail was lost, doubled or altered, or a queue is not what it was at the end.`,
		Example: `  mailrace bench depth
  mailrace bench depth --slow
  mailrace bench depth --depth 0,10000000 --rounds 3 --dir /var/tmp
  mailrace bench depth --depth 0,5000 --rounds 1 --duration 1s --json`,
		Args: cobra.NoArgs,
	}
	out := addReport(c)
	c.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if o.Program, err = thisProgram(); err != nil {
			return err
		}
		return scenario.DepthCommand(cmd.Context(), o, out())
	}
	addFlags(c, o.BindFlags)
	return c
}

func idleCommand() *cobra.Command {
	var o scenario.IdleOptions
	c := &cobra.Command{
		Use:   "idle",
		Short: "Measure what idle connections cost: memory, and what they take away from a sender",
		Long: `Measure what idle connections cost a node: bytes of resident memory for each, and the rate of a sender beside them against the rate at a
node without. At the end slow clients, which send an octet now and then, must be gone at their deadlines.

The idle connections come from several loopback addresses, and both ends are processes of their own. Where a process may not open enough files
they are spread over several nodes. The exit status is 1 if they cost more than the limit, some were lost, or slow clients stayed.`,
		Example: `  mailrace bench idle
  mailrace bench idle --tls --connections 20000 --json`,
		Args: cobra.NoArgs,
	}
	out := addReport(c)
	c.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if o.Program, err = thisProgram(); err != nil {
			return err
		}
		return scenario.IdleCommand(cmd.Context(), o, out())
	}
	addFlags(c, o.BindFlags)
	return c
}

func wanCommand() *cobra.Command {
	var o scenario.WANOptions
	c := &cobra.Command{
		Use:   "wan",
		Short: "Measure what a long round trip takes away from deliveries",
		Long: `Measure how fast nodes deliver to a sink that is a round trip away, through a proxy that delays what it carries.

Rounds are interleaved. Each measures with each round trip a client that waits for each reply; a node on one connection to a sink that offers
PIPELINING only, and to one that offers CHUNKING, too; and a node on many connections. Printed are the rates and their ratios in the same round.
The exit status is 1 if mail was lost, doubled or altered.`,
		Example: `  mailrace bench wan
  mailrace bench wan --rtt 50ms,200ms --connections 20 --rounds 1 --json`,
		Args: cobra.NoArgs,
	}
	out := addReport(c)
	c.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if o.Program, err = thisProgram(); err != nil {
			return err
		}
		return scenario.WANCommand(cmd.Context(), o, out())
	}
	addFlags(c, o.BindFlags)
	return c
}

func sitesCommand() *cobra.Command {
	var o scenario.SitesOptions
	c := &cobra.Command{
		Use:   "sites",
		Short: "Measure what many destinations cost: connections open to all at a time, and a queue for many domains",
		Long: `Measure what connections to many sites cost a node that are open at a time: bytes of resident memory for each. Then a node gets one message for
each of many domains, and delivers them all: at what rate, and with how much memory.

Domains, mail exchangers and addresses come from a name server of the bench; each domain is a site of its own, at an address of its own in
127.0.0.0/8, and MTA-STS and DANE are asked for. Where a process may not open enough files the connections are spread over several nodes, each with a
sink, and the second node closes connections that are idle for those that are due. The exit status is 1 if connections cost more than the limit or
are missing, or mail was lost, doubled or altered.`,
		Example: `  mailrace bench sites
  mailrace bench sites --tls --domains -1
  mailrace bench sites --connections 1000 --domains 5000 --json`,
		Args: cobra.NoArgs,
	}
	out := addReport(c)
	c.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if o.Program, err = thisProgram(); err != nil {
			return err
		}
		return scenario.SitesCommand(cmd.Context(), o, out())
	}
	addFlags(c, o.BindFlags)
	return c
}

func latencyCommand() *cobra.Command {
	var o scenario.LatencyOptions
	c := &cobra.Command{
		Use:   "latency",
		Short: "Measure how long replies take at shares of the highest rate",
		Long: `Measure how long the reply to a message takes at several rates.

Each round measures the most that the node accepts, and then sends at shares of that, at fixed times whatever the node does (an open loop).
Latencies count from when a message was due, so that a stall shows in all messages that it held up. The exit status is 1 if mail was lost, doubled or
altered.`,
		Example: `  mailrace bench latency --html latency.html
  mailrace bench latency --relay --shares 50,90,100
  mailrace bench latency --rounds 1 --duration 1s --json`,
		Args: cobra.NoArgs,
	}
	out := addReport(c)
	c.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if o.Program, err = thisProgram(); err != nil {
			return err
		}
		return scenario.LatencyCommand(cmd.Context(), o, out())
	}
	addFlags(c, o.BindFlags)
	return c
}

func restartCommand() *cobra.Command {
	var o scenario.RestartOptions
	c := &cobra.Command{
		Use:   "restart",
		Short: "Measure how a node with a long queue starts, after a kill and after a stop",
		Long: `Measure how a node with a long queue starts.

In each round a node is filled, over SMTP, with messages for a host that takes connections and never greets. It is killed (and another one stopped), and
started again with a route that leads to a sink. Printed is how long it takes to listen, to accept a message, to deliver the first and to deliver
all. The exit status is 1 if a message of the queue was lost, doubled or altered.`,
		Example: `  mailrace bench restart
  mailrace bench restart --messages 1000000 --rounds 1 --dir /var/tmp
  mailrace bench restart --messages 1000 --rounds 1 --json`,
		Args: cobra.NoArgs,
	}
	out := addReport(c)
	c.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if o.Program, err = thisProgram(); err != nil {
			return err
		}
		return scenario.RestartCommand(cmd.Context(), o, out())
	}
	addFlags(c, o.BindFlags)
	return c
}

func shardsCommand() *cobra.Command {
	var o scenario.ShardsOptions
	c := &cobra.Command{
		Use:   "shards",
		Short: "Find the number of event loops and spool shards for this machine",
		Long: `Measure nodes with several numbers of event loops and spool shards, side by side, with several numbers of connections.

Rounds are interleaved. Printed are all points, the fastest first, and the lines for a configuration that are best on this machine; whether others
were as fast in one of the rounds is said. The exit status is 1 if mail was lost, doubled or altered.`,
		Example: `  mailrace bench shards --dir /var/spool/mailrace
  mailrace bench shards --relay --shards 1,2,4,8 --connections 50,500 --html shards.html
  mailrace bench shards --size 100KiB --rounds 5`,
		Args: cobra.NoArgs,
	}
	out := addReport(c)
	c.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if o.Program, err = thisProgram(); err != nil {
			return err
		}
		return scenario.ShardsCommand(cmd.Context(), o, out())
	}
	addFlags(c, o.BindFlags)
	return c
}

func peerCommand() *cobra.Command {
	var o scenario.PeerOptions
	c := &cobra.Command{
		Use:   "peer",
		Short: "Measure other MTAs beside Mailrace: rates, CPU time and accounting",
		Long: `Measure how fast other MTAs accept and relay, and what CPU time they take, beside Mailrace: in the same rounds, with the same generator and sink.

The peers are started here, by root, each with users, processes, a queue and a configuration of its own: nothing of the machine's is touched, and all ends with
the bench. They are durable, and tuned as their documentation advises; the report says how. CPU time is that of all processes of a peer, also of those that
have ended. With --address any MTA that runs already is measured. The exit status is 1 if mail was lost, doubled or altered by any of them.`,
		Example: `  mailrace bench peer --install --html peers.html
  mailrace bench peer --only postfix,exim --scenarios relay --connections 50
  mailrace bench peer --address 127.0.0.1:25 --pid 812 --sink-address 127.0.0.1:2526`,
		Args: cobra.NoArgs,
	}
	out := addReport(c)
	c.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if o.Program, err = thisProgram(); err != nil {
			return err
		}
		return scenario.PeerCommand(cmd.Context(), o, out())
	}
	addFlags(c, o.BindFlags)
	return c
}

func allCommand() *cobra.Command {
	var o scenario.AllOptions
	c := &cobra.Command{
		Use:   "all",
		Short: "Run every scenario, and leave one report",
		Long: `Run every scenario, one after the other, print the report of each, and leave one page with all of them.

With --quick it takes ten minutes at most on two cores. With --smoke it takes a minute or so, and only the counts mean something. The exit status is 1
if a scenario could not run, mail was lost, doubled or altered, or idle connections cost more than their limit.`,
		Example: `  mailrace bench all --quick
  mailrace bench all --quick --dir /var/tmp --html report.html --json
  mailrace bench all --smoke`,
		Args: cobra.NoArgs,
	}
	out := addReport(c)
	page := c.Flags().Lookup("html")
	page.DefValue = "mailrace-bench.html"
	_ = page.Value.Set(page.DefValue)
	c.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if o.Program, err = thisProgram(); err != nil {
			return err
		}
		return scenario.AllCommand(cmd.Context(), o, out())
	}
	addFlags(c, o.BindFlags)
	return c
}

// thisProgram is the command that the scenarios run as nodes, generators and sinks.
func thisProgram() ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	return []string{self}, nil
}

func dialogsCommand() *cobra.Command {
	var o dialog.Options
	c := &cobra.Command{
		Use:   "dialogs",
		Short: "Hold a server's answers against the RFCs: hundreds of dialogs, good and hostile",
		Long: `Have dialogs with any SMTP server, over TCP: every verb and extension in good and bad forms, smuggling, injection, limits. Each ends in ok,
failed (with its transcript) or not offered. What the server must have: a recipient that it accepts, who gets some of the messages.`,
		Example: `  mailrace bench dialogs --address 127.0.0.1:2525
  mailrace bench dialogs --address mx.example.com:25 --to postmaster@example.com --mode bytes --parallel 1
  mailrace bench dialogs --only smuggling/ --mode segments --json`,
		Args: cobra.NoArgs,
	}
	out := addReport(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error { return dialog.Command(cmd.Context(), o, out()) }
	addFlags(c, func(fs *flag.FlagSet) { dialog.BindFlags(fs, &o) })
	return c
}

func scenarioCommand(kind scenario.Kind, short string) *cobra.Command {
	var o scenario.Options
	c := &cobra.Command{
		Use:   string(kind),
		Short: short,
		Long: short + `.

The node runs beside the same node with a spool that keeps nothing (the null ceiling), in interleaved rounds, as processes of their own, with the
same generator. Printed are messages per second, CPU per message of each process, syncs per message, and the ratio to the ceiling. With --tls each
round measures the node once more under TLS 1.3, by STARTTLS, and the ratio to the same in clear is printed: for accept that is where mail comes in,
with --auth at a submission listener, by a user who has logged in; for relay where it goes out, to a host whose certificate is verified. With --mx
relay finds the way by DNS, in a zone of the bench, and asks for MTA-STS and DANE; the ceiling still has a fixed route.`,
		Args: cobra.NoArgs,
	}
	out := addReport(c)
	c.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if o.Program, err = thisProgram(); err != nil {
			return err
		}
		return scenario.Command(cmd.Context(), kind, o, out())
	}
	addFlags(c, func(fs *flag.FlagSet) { scenario.BindFlags(fs, &o) })
	return c
}
