package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"mailrace/bench/console"
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

// printReport prints a report as JSON or for people.
func printReport(c *cobra.Command, asJSON bool, report interface {
	WriteText(io.Writer) error
}) error {
	if asJSON {
		return json.NewEncoder(c.OutOrStdout()).Encode(report)
	}
	return report.WriteText(c.OutOrStdout())
}

func loadCommand() *cobra.Command {
	var o load.Options
	var asJSON bool
	c := &cobra.Command{
		Use:   "load",
		Short: "Generate mail for any SMTP server, and time it",
		Long: `Generate numbered mail, as fast as the server takes it or at a fixed rate, until the count, the duration or Ctrl-C ends it.
The latency of a message runs from its envelope (with --rate: from when it was due) to the reply to its end of data.`,
		Example: `  mailrace load --address 127.0.0.1:2525 --connections 200 --duration 10s
  mailrace load --messages 1000 --size 4KiB:70,30KiB:25,1MiB:5 --recipients 3 --domains 50
  mailrace load --rate 2000 --duration 1m --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			line := console.NewLine(os.Stderr)
			if !asJSON || line.Terminal() {
				var before load.Progress
				o.Progress = func(p load.Progress) { line.Show(p.Line(before)); before = p }
			}
			r, err := load.Run(cmd.Context(), o)
			line.Clear()
			if err != nil {
				return err
			}
			return printReport(cmd, asJSON, r)
		},
	}
	addFlags(c, func(fs *flag.FlagSet) { load.BindFlags(fs, &o) })
	c.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	return c
}

func sinkCommand() *cobra.Command {
	var o sink.Options
	var asJSON bool
	c := &cobra.Command{
		Use:   "sink",
		Short: "Receive mail and account for it",
		Long: `Receive mail from any SMTP client until Ctrl-C: count it, find duplicates by Message-ID, verify the octets of what mailrace load sent,
and delay, refuse or drop in the shares that are asked for.`,
		Example: `  mailrace sink --address 127.0.0.1:2526
  mailrace sink --tempfail rcpt=0.05,dot=0.01 --permfail rcpt=0.02 --delay dot=50ms --drop data=0.001
  mailrace sink --json --interval 5s`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			line := console.NewLine(os.Stderr)
			out := json.NewEncoder(cmd.OutOrStdout())
			var before sink.Report
			o.Progress = func(r sink.Report) {
				if asJSON {
					out.Encode(r) // a reader that went away is found at the end
				} else {
					line.Show(r.Line(before))
				}
				before = r
			}
			r, err := sink.Run(cmd.Context(), o, func(s *sink.Sink) { fmt.Fprintln(os.Stderr, "listening on", s.Addr()) })
			line.Clear()
			if err != nil {
				return err
			}
			return printReport(cmd, asJSON, r)
		},
	}
	addFlags(c, func(fs *flag.FlagSet) { sink.BindFlags(fs, &o) })
	c.Flags().BoolVar(&asJSON, "json", false, "print a report as a line of JSON each interval and at the end")
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
	)
	return c
}

func scenarioCommand(kind scenario.Kind, short string) *cobra.Command {
	var o scenario.Options
	var asJSON bool
	c := &cobra.Command{
		Use:   string(kind),
		Short: short,
		Long: short + `.

The node runs beside the same node with a spool that keeps nothing (the null ceiling), in interleaved rounds, as processes of their own, with the
same generator. Printed are messages per second, CPU per message of each process, syncs per message, and the ratio to the ceiling.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("finding this program: %w", err)
			}
			o.Program, o.Progress = []string{self}, os.Stderr
			r, err := scenario.Run(cmd.Context(), kind, o)
			if err != nil {
				return err
			}
			if err := printReport(cmd, asJSON, &r); err != nil {
				return err
			}
			if !r.Account.Clean() {
				return fmt.Errorf("mail was lost, doubled or altered")
			}
			return nil
		},
	}
	addFlags(c, func(fs *flag.FlagSet) { scenario.BindFlags(fs, &o) })
	c.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	return c
}
