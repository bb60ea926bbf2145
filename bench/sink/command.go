package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"mailrace/bench/console"
)

// Command is `mailrace sink`: it receives until the context ends and prints its report. With JSON it prints a report as one line at once, when it
// listens, then every Interval, and a last one at the end.
func Command(ctx context.Context, o Options, out console.Output) error {
	line := console.NewLine(out.Stderr)
	enc := json.NewEncoder(out.Stdout)
	var before Report
	o.Progress = func(r Report) {
		if out.JSON {
			_ = enc.Encode(r) // a reader that went away must not end the reception
			return
		}
		line.Show(r.Line(before))
		before = r
	}
	r, err := Run(ctx, o, func(s *Sink) {
		if out.JSON {
			_ = enc.Encode(s.Report())
			return
		}
		fmt.Fprintln(out.Stderr, "listening on", s.Addr())
		if names := s.Names(); names.IsValid() {
			fmt.Fprintln(out.Stderr, "DNS at", names)
		}
	})
	line.Clear()
	if r.Address == "" {
		return err
	}
	if out.JSON {
		return errors.Join(err, enc.Encode(r))
	}
	return errors.Join(err, r.WriteText(out.Stdout))
}
