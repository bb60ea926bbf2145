package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"mailrace/bench/console"
	"mailrace/engine/config"
	"mailrace/spool"
)

func spoolCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "spool",
		Short: "Reshape, check, rescue, export and import a spool",
		Long: `Work on a spool that no node has open: stop the node first.

Each of these can be ended with Ctrl-C, or by kill -9, at any moment: the spool is good, and the command can be run again.`,
	}
	c.AddCommand(spoolReshardCommand(), spoolVerifyCommand(), spoolSalvageCommand(), spoolExportCommand(), spoolImportCommand())
	return c
}

// spoolFlags are those by which a sub-command finds the spool.
type spoolFlags struct {
	config, path string
	json         bool
}

func (f *spoolFlags) add(c *cobra.Command) {
	c.Flags().StringVarP(&f.config, "config", "c", "mailrace.toml", configUsage+", for the path of the spool")
	c.Flags().StringVar(&f.path, "path", "", "`directory` of the spool, instead of a configuration")
	c.Flags().BoolVar(&f.json, "json", false, "print a report as JSON")
}

// options say where the spool is, and how many shards the configuration asks for, 0 = none in particular.
func (f *spoolFlags) options() (o spool.Options, shards int, err error) {
	if f.path != "" {
		return spool.Options{Path: f.path, Log: newLogger(config.Log{Level: "warn"})}, 0, nil
	}
	cfg, err := config.Load(f.config)
	if err != nil {
		return o, 0, err
	}
	return spool.Options{Path: cfg.Spool.Path, Log: newLogger(config.Log{Level: "warn", Format: cfg.Log.Format})}, cfg.Spool.Shards, nil
}

// progress shows work on standard error, unless a report is wanted as JSON. The caller calls end.
func (f *spoolFlags) progress(cmd *cobra.Command) (tell func(spool.Progress), end func()) {
	if f.json {
		return nil, func() {}
	}
	bar := console.NewBar(cmd.ErrOrStderr())
	return func(p spool.Progress) {
		bar.Show(console.Step{Name: p.Step, Unit: p.Unit, Done: p.Done, Total: p.Total, Rate: p.Rate(), Left: p.Left()})
	}, bar.End
}

// report prints what was done: as JSON, or by text.
func (f *spoolFlags) report(w io.Writer, v any, text func(io.Writer) error) error {
	if !f.json {
		return text(w)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// again tells how to go on after work that was ended.
func again(ctx context.Context, err error, how string) error {
	if ctx.Err() == nil {
		return err
	}
	return fmt.Errorf("%w: run it again, and it %s", err, how)
}

// perSecond is a rate as people read it.
func perSecond(n int64, took time.Duration) string {
	return fmt.Sprintf("%s/s", console.Count(uint64(float64(n)/max(took.Seconds(), 1e-3))))
}

func spoolReshardCommand() *cobra.Command {
	var f spoolFlags
	var shards int
	c := &cobra.Command{
		Use:   "reshard",
		Short: "Give a spool another number of shards",
		Long: `Give a spool another number of shards, 1 to 256.

All records are copied into new shards beside the old ones, then both are compared, record by record, and then the new ones take the place of
the old. The disk needs room for the copy; whether it has is checked first. What was copied before the command was ended is not copied again.`,
		Example: "  mailrace spool reshard --shards 8",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, configured, err := f.options()
			if err != nil {
				return err
			}
			if o.Shards = shards; !cmd.Flags().Changed("shards") {
				if o.Shards = configured; configured == 0 {
					return errors.New("into how many? want --shards, or [spool] shards in the configuration")
				}
			} else if shards < 1 {
				return fmt.Errorf("--shards %d: want 1 to 256", shards)
			}
			tell, end := f.progress(cmd)
			done, err := spool.Reshard(cmd.Context(), o, tell)
			end()
			if err != nil {
				return again(cmd.Context(), err, "goes on from there")
			}
			return f.report(cmd.OutOrStdout(), done, func(w io.Writer) error {
				if done.From == done.To {
					_, err := fmt.Fprintf(w, "%s has %d shards already\n", o.Path, done.To)
					return err
				}
				_, err := fmt.Fprintf(w, "%s has %d shards now, and had %d: %s messages in %s, %s\n", o.Path, done.To, done.From,
					console.Count(uint64(done.Messages)), console.Duration(done.Took), perSecond(done.Messages, done.Took))
				return err
			})
		},
	}
	f.add(c)
	c.Flags().IntVar(&shards, "shards", 0, "`number` of shards, 1 to 256; default: as the configuration says")
	return c
}

func spoolVerifyCommand() *cobra.Command {
	var f spoolFlags
	c := &cobra.Command{
		Use:   "verify",
		Short: "Read every record of a spool, and say what is there and what is wrong",
		Long: `Read every record of a spool: version, checksum, key, that the content of each message is whole and its recipients' states are its own.
Nothing is changed. The exit status is 1 when something is wrong, which includes records that a start of the node kept aside.`,
		Example: "  mailrace spool verify\n  mailrace spool verify --path /var/spool/mailrace --json | jq .faults",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, _, err := f.options()
			if err != nil {
				return err
			}
			tell, end := f.progress(cmd)
			v, err := spool.Verify(cmd.Context(), o, tell)
			end()
			if err != nil {
				return err
			}
			if err := f.report(cmd.OutOrStdout(), v, func(w io.Writer) error { return writeVerified(w, v) }); err != nil {
				return err
			}
			if !v.OK() {
				return errSilent
			}
			return nil
		},
	}
	f.add(c)
	return c
}

func writeVerified(w io.Writer, v *spool.Verified) error {
	var rows [][]string
	for _, kind := range slices.Sorted(maps.Keys(v.Records)) {
		t := v.Records[kind]
		rows = append(rows, []string{kind, console.Count(uint64(t.Records)), console.Count(uint64(t.Bytes))})
	}
	if err := console.Table(w, []string{"records", "count", "bytes"}, rows); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%s messages with %s octets of content in %d shards, verified in %s, %s\n", console.Count(uint64(v.Messages)),
		console.Count(uint64(v.Octets)), v.Shards, console.Duration(v.Took), perSecond(v.Messages, v.Took))
	if v.Messages > 0 {
		age := func(s int64) string { return (time.Duration(s) * time.Second).String() }
		fmt.Fprintf(w, "arrived     from %s to %s\n", v.Oldest.Format(time.RFC3339), v.Newest.Format(time.RFC3339))
		fmt.Fprintf(w, "age         p50 %s   p90 %s   p99 %s\n", age(v.Ages.P50), age(v.Ages.P90), age(v.Ages.P99))
		fmt.Fprintf(w, "size        p50 %d   p90 %d   p99 %d   most %d\n", v.Sizes.P50, v.Sizes.P90, v.Sizes.P99, v.Sizes.Max)
	}
	for _, state := range slices.Sorted(maps.Keys(v.Recipients)) {
		fmt.Fprintf(w, "recipients  %s %s\n", console.Count(uint64(v.Recipients[state])), state)
	}
	fmt.Fprintf(w, "parked      %s messages, in the due index\n", console.Count(uint64(v.Parked)))
	if v.InDoubt > 0 || v.InFlight > 0 {
		fmt.Fprintf(w, "in doubt    %s recipients; %s deliveries were in flight, which the next start looks into\n", console.Count(uint64(v.InDoubt)), console.Count(uint64(v.InFlight)))
	}
	fmt.Fprintf(w, "to be collected at the next start: %s messages with nothing left to do, %s records of no message; %s expired idempotency keys\n",
		console.Count(uint64(v.Settled)), console.Count(uint64(v.Orphans.Records)), console.Count(uint64(v.ExpiredClaims)))
	if v.OK() {
		_, err := fmt.Fprintln(w, "nothing is wrong")
		return err
	}
	fmt.Fprintln(w)
	for _, f := range v.Examples {
		fmt.Fprintf(w, "shard %d  %s  %s: %s\n", f.Shard, f.ID, f.Reason, f.Detail)
	}
	rows = nil
	for _, reason := range slices.Sorted(maps.Keys(v.Faults)) {
		rows = append(rows, []string{reason, console.Count(uint64(v.Faults[reason]))})
	}
	fmt.Fprintln(w)
	return console.Table(w, []string{"wrong", "count"}, rows)
}

func spoolSalvageCommand() *cobra.Command {
	var from, to string
	var shards int
	f := spoolFlags{}
	c := &cobra.Command{
		Use:   "salvage",
		Short: "Rescue the readable messages of a damaged spool into a new one",
		Long: `Rescue the readable messages of a damaged spool into a new one. The damaged one is never written to.

Shards are opened as they are, or with what is wrong in their files put right in memory; what cannot be read is leapt over, and tables and logs
are read one by one for what a store does not show. What was rescued and what was not is told by id in SALVAGE.txt in the new directory. The exit
status is 1 when something was wrong.`,
		Example: "  mailrace spool salvage --from spool --to spool-rescued",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := spool.Options{Path: from, Shards: shards, Log: newLogger(config.Log{Level: "error"})}
			tell, end := f.progress(cmd)
			done, err := spool.Salvage(cmd.Context(), o, to, tell)
			end()
			if err != nil {
				return again(cmd.Context(), err, "begins anew")
			}
			if err := f.report(cmd.OutOrStdout(), done, func(w io.Writer) error { return writeSalvaged(w, to, &done) }); err != nil {
				return err
			}
			if !done.OK() {
				return errSilent
			}
			return nil
		},
	}
	c.Flags().StringVar(&from, "from", "", "`directory` of the damaged spool")
	c.Flags().StringVar(&to, "to", "", "`directory` of the new spool, which must not exist or be empty")
	c.Flags().IntVar(&shards, "shards", 0, "`number` of shards of the new spool; 0 = as many as there were")
	c.Flags().BoolVar(&f.json, "json", false, "print a report as JSON")
	required(c, "from", "to")
	return c
}

func writeSalvaged(w io.Writer, to string, s *spool.Salvaged) error {
	for _, what := range s.Damage {
		fmt.Fprintln(w, "damage:", what)
	}
	for _, loss := range s.Examples {
		fmt.Fprintf(w, "lost:   %s (shard %d): %s\n", loss.ID, loss.Shard, loss.Reason)
	}
	if more := s.Lost - int64(len(s.Examples)); more > 0 {
		fmt.Fprintf(w, "lost:   %s more\n", console.Count(uint64(more)))
	}
	rows := [][]string{}
	for _, row := range []struct {
		what string
		n    int64
	}{
		{"messages rescued", s.Messages}, {"of them, perhaps delivered before", s.Doubtful}, {"recipients whose state is lost: pending again", s.States},
		{"idempotency keys rescued", s.Claims}, {"unreadable records kept aside", s.Aside}, {"messages that had nothing left to do", s.Settled},
		{"messages lost", s.Lost},
	} {
		rows = append(rows, []string{row.what, strconv.FormatInt(row.n, 10)})
	}
	if err := console.Table(w, []string{"", "count"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s from %d shards to %s in %s; each message is told in %s\n", perSecond(s.Messages, s.Took), s.Shards, to,
		console.Duration(s.Took), s.Report)
	return err
}
