package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"mailrace/bench/console"
	"mailrace/spool/archive"
)

func spoolExportCommand() *cobra.Command {
	var f spoolFlags
	var filter archive.Filter
	var to string
	var states []string
	c := &cobra.Command{
		Use:   "export",
		Short: "Write messages as .eml files, with their envelopes beside them",
		Long: `Write messages of a spool to a directory: ID.eml is what would be delivered, ID.json the envelope with the state of each recipient. The
spool is only read. A second run writes what is new or has changed.`,
		Example: `  mailrace spool export --to mail
  mailrace spool export --to mail --domain example.com --state deferred --limit 100`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, _, err := f.options()
			if err != nil {
				return err
			}
			for _, name := range states {
				s, err := archive.ParseState(name)
				if err != nil {
					return fmt.Errorf("--state: %w", err)
				}
				filter.States = append(filter.States, s)
			}
			tell, end := f.progress(cmd)
			done, err := archive.Export(cmd.Context(), o, to, filter, tell)
			end()
			if err != nil {
				return again(cmd.Context(), err, "goes on from there")
			}
			if err := f.report(cmd.OutOrStdout(), done, func(w io.Writer) error {
				writeFailures(w, done.Failed)
				_, err := fmt.Fprintf(w, "%s messages are in %s, %s of them since before; %s octets in %s, %s\n", console.Count(uint64(done.Messages)), to,
					console.Count(uint64(done.Kept)), console.Count(uint64(done.Octets)), console.Duration(done.Took), perSecond(done.Messages, done.Took))
				return err
			}); err != nil {
				return err
			}
			return failed(done.Failed)
		},
	}
	f.add(c)
	c.Flags().StringVar(&to, "to", "", "`directory` to write to")
	c.Flags().StringVar(&filter.Domain, "domain", "", "only messages with a recipient of this `domain`")
	c.Flags().StringSliceVar(&states, "state", nil, "only messages with a recipient in one of these `states`: pending, deferred, delivered, bounced, expired")
	c.Flags().StringVar(&filter.Sender, "sender", "", "only messages with this reverse-path; <> is the null reverse-path")
	c.Flags().StringVar(&filter.Tenant, "tenant", "", "only messages of this `tenant`")
	c.Flags().IntVar(&filter.Limit, "limit", 0, "most messages to write; 0 = all")
	required(c, "to")
	return c
}

func spoolImportCommand() *cobra.Command {
	var f spoolFlags
	var from string
	c := &cobra.Command{
		Use:   "import",
		Short: "Put messages into a spool that export wrote",
		Long: `Put messages from a directory that export wrote into a spool, which is made if there is none. They keep their ids where these are free,
and the states of their recipients. Messages that are there already are left alone. Content that was edited must end its lines in CRLF, and the
size in the envelope must be right.`,
		Example: "  mailrace spool import --from mail --path other-spool",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, _, err := f.options()
			if err != nil {
				return err
			}
			tell, end := f.progress(cmd)
			done, err := archive.Import(cmd.Context(), o, from, tell)
			end()
			if err != nil {
				return again(cmd.Context(), err, "goes on from there")
			}
			if err := f.report(cmd.OutOrStdout(), done, func(w io.Writer) error {
				writeFailures(w, done.Failed)
				for _, r := range done.Renamed {
					fmt.Fprintf(w, "%s: id %s is taken, it is %s now\n", r.Name, r.Old, r.New)
				}
				_, err := fmt.Fprintf(w, "%s messages imported in %s, %s; %s were there already, %s had nothing left to do\n", console.Count(uint64(done.Messages)),
					console.Duration(done.Took), perSecond(done.Messages, done.Took), console.Count(uint64(done.Present)), console.Count(uint64(done.Settled)))
				return err
			}); err != nil {
				return err
			}
			return failed(done.Failed)
		},
	}
	f.add(c)
	c.Flags().StringVar(&from, "from", "", "`directory` to read")
	required(c, "from")
	return c
}

func required(c *cobra.Command, names ...string) {
	for _, name := range names {
		if err := c.MarkFlagRequired(name); err != nil {
			panic("BUG: " + err.Error())
		}
	}
}

func writeFailures(w io.Writer, failures []archive.Failure) {
	for _, f := range failures {
		fmt.Fprintf(w, "failed: %s: %s\n", f.Name, f.Reason)
	}
}

// failed ends a command with status 1 when there were failures, which have been told.
func failed(failures []archive.Failure) error {
	if len(failures) > 0 {
		return errSilent
	}
	return nil
}
