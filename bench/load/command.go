package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"mailrace/bench/console"
)

// Command is `mailrace load`: it runs a generator and prints its report, with JSON as one object. The report is printed whatever happened, unless
// the options were refused. Connections that are only held are reported on each Interval, too, with JSON as a line; so is everything with Lines.
func Command(ctx context.Context, o Options, out console.Output) error {
	line := console.NewLine(out.Stderr)
	var before Progress
	if !out.JSON {
		o.Progress = func(p Progress) {
			line.Show(p.Line(before))
			before = p
		}
	}
	if out.JSON && (o.Hold || o.Lines) {
		enc := json.NewEncoder(out.Stdout)
		o.Progress = func(p Progress) { _ = enc.Encode(p) } // a reader that went away must not end the run
	}
	r, err := Run(ctx, o)
	line.Clear()
	if r.Began.IsZero() {
		return err
	}
	if out.JSON {
		return errors.Join(err, json.NewEncoder(out.Stdout).Encode(r))
	}
	if o.Record != "" {
		defer fmt.Fprintln(out.Stderr, "acknowledged messages are recorded in", o.Record)
	}
	return errors.Join(err, r.WriteText(out.Stdout))
}
