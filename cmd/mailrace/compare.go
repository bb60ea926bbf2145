package main

import (
	"github.com/spf13/cobra"

	"mailrace/bench/scenario"
)

func compareCommand() *cobra.Command {
	var o scenario.CompareOptions
	c := &cobra.Command{
		Use:   "compare",
		Short: "Compare another mailrace program with this one",
		Long: `Run nodes of two mailrace programs, of two revisions, and measure them accepting and relaying in interleaved rounds, every other of which begins with
the new one. Generator and sink are this program's for both. Printed are rates, CPU time per message and latencies, their ratios in the same round,
and whether all rounds say the same. The exit status is 1 if mail was lost, doubled or altered. ` + "`make bench-compare BASE=revision`" + ` builds the other
program, and compares the benchmarks of the packages as well.`,
		Example: `  mailrace bench compare --base /tmp/mailrace-of-yesterday
  mailrace bench compare --base bin/base --rounds 15 --duration 2s --html compare.html`,
		Args: cobra.NoArgs,
	}
	out := addReport(c)
	c.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if o.Program, err = thisProgram(); err != nil {
			return err
		}
		return scenario.CompareCommand(cmd.Context(), o, out())
	}
	addFlags(c, o.BindFlags)
	return c
}
