package main

import (
	"github.com/spf13/cobra"

	"mailrace/bench/scenario"
)

func bulkCommand() *cobra.Command {
	var o scenario.BulkOptions
	c := &cobra.Command{
		Use:   "bulk",
		Short: "Measure bulk mail: many domains, hundreds of sites that refuse, defer, wait and have limits",
		Long: `Measure bulk mail: domains by popularity lead to hundreds of sites, which the node may have only so many connections to, and send only so many
messages over one.

Each round sends the same number of messages twice, to a node and a sink of their own: to sites that do well (plain), and to a mix of sites that are
slow, greylist, answer 4xx and 5xx, drop connections, and take only so many messages in a second (bulk). It ends when each recipient has its mail, or
its sender the notification that it failed; the sink reads both. Printed are rates, CPU time, attempts that were deferred, the longest queue, and what
each kind of site saw, beside what it takes. The exit status is 1 if mail was lost, doubled or altered, a sender was told twice or wrongly, or limits that
the node was told were not kept.`,
		Example: `  mailrace bench bulk --html bulk.html
  mailrace bench bulk --messages 500000 --domains 100000 --sites 1024 --rounds 1 --dir /var/tmp
  mailrace bench bulk --messages 2000 --rounds 1 --json`,
		Args: cobra.NoArgs,
	}
	out := addReport(c)
	c.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if o.Program, err = thisProgram(); err != nil {
			return err
		}
		return scenario.BulkCommand(cmd.Context(), o, out())
	}
	addFlags(c, o.BindFlags)
	return c
}

func deepCommand() *cobra.Command {
	var o scenario.DeepOptions
	c := &cobra.Command{
		Use:   "deep",
		Short: "Measure how fast a long queue drains when its destination opens",
		Long: `Measure how fast a node delivers a long queue whose destination nobody could connect to, and which opens.

In each round, and for each depth, a node relays for a while; then it is filled, over SMTP, with messages for a port that nobody listens at, and a sink
begins to. Printed are how long it takes until the first message arrives, the rate from then to the last beside that of plain relaying, CPU time, syncs
and memory. The exit status is 1 if a message was lost, doubled or altered.`,
		Example: `  mailrace bench deep --dir /var/tmp --html deep.html
  mailrace bench deep --depth 100000 --rounds 1
  mailrace bench deep --depth 1000 --rounds 1 --retry 500ms --json`,
		Args: cobra.NoArgs,
	}
	out := addReport(c)
	c.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if o.Program, err = thisProgram(); err != nil {
			return err
		}
		return scenario.DeepCommand(cmd.Context(), o, out())
	}
	addFlags(c, o.BindFlags)
	return c
}
