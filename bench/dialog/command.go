package dialog

import (
	"context"
	"errors"
	"fmt"

	"mailrace/bench/console"
	"mailrace/bench/result"
)

// Command is `mailrace bench dialogs`: it has the dialogs with a server and prints the report, with JSON as one object. It fails if a dialog did,
// or could not begin.
func Command(ctx context.Context, o Options, out console.Output) error {
	line, done := console.NewLine(out.Stderr), 0
	if !out.JSON && line.Terminal() {
		o.Progress = func(r Result) {
			done++
			line.Show(fmt.Sprintf("%d %s", done, r.Name))
		}
	}
	r, err := Run(ctx, o)
	line.Clear()
	if err != nil {
		return err
	}
	err = result.Print(out, r)
	if r.Failed > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d dialogs failed", r.Failed, len(r.Dialogs)))
	}
	if r.TurnedAway > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d dialogs were turned away: the server limits its clients", r.TurnedAway, len(r.Dialogs)))
	}
	return err
}
